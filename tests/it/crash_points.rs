//! SIGKILL at named points: before or after the n-th system call of a kind on a class of file, by the shim of the harness,
//! so that the product has no code for it. docs/RELIABILITY.md lists the points.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;

use crate::harness::*;

/// Runs through all points, unless POSTHASTE_CRASH_POINT_ROUNDS says otherwise.
const ROUNDS: u64 = 1;

/// When a rule is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// While mail flows.
    Load,
    /// While mail flows, and SIGUSR1 asks for a rotation.
    Rotation,
    /// While large mail flows, so that memtables are written to table files.
    Flush,
    /// Before the daemon starts, on what a kill left.
    Start,
}

/// Name, rules, situation. `N` stands for a small number, another one each time.
const POINTS: &[(&str, &str, When)] = &[
    ("accept or settle: before the write of a batch", "wal write N kill-before", When::Load),
    ("accept or settle: after the write, before the sync", "wal write N kill-after", When::Load),
    ("accept: before the sync", "wal fsync N kill-before", When::Load),
    ("accept: after the sync, before the reply", "wal fsync N kill-after", When::Load),
    ("accept: before the reply", "reply send N kill-before", When::Load),
    ("accept: after the reply", "reply send N kill-after", When::Load),
    ("settle: after the reply of the peer", "peer recv N kill-after", When::Load),
    ("settle: before the next write", "peer recv N arm\nwal write 1 kill-before armed", When::Load),
    ("settle: after the next write", "peer recv N arm\nwal write 1 kill-after armed", When::Load),
    ("settle: after the next sync", "peer recv N arm\nwal fsync 1 kill-after armed", When::Load),
    ("event: before the write", "events write N kill-before", When::Load),
    ("event: after the write, before the sync", "events write N kill-after", When::Load),
    ("event: before the sync", "events fsync 1 kill-before", When::Load),
    ("event: after the sync, before the outbox is consumed", "events fsync 1 kill-after", When::Load),
    ("event: after the outbox is consumed", "events fsync 1 arm\nwal write 2 kill-after armed", When::Load),
    ("rotation: before the rename", "events rename 1 kill-before", When::Rotation),
    ("rotation: after the rename", "events rename 1 kill-after", When::Rotation),
    ("rotation: before the sync of the directory", "events-dir fsync 1 kill-before", When::Rotation),
    ("rotation: after it", "events-dir fsync 1 kill-after", When::Rotation),
    ("rotation: before the new file", "events create 1 kill-before", When::Rotation),
    ("rotation: after the new file", "events create 1 kill-after", When::Rotation),
    ("rotation: after the second sync of the directory", "events-dir fsync 2 kill-after", When::Rotation),
    ("rotation: before an old file is deleted", "events unlink 1 kill-before", When::Rotation),
    ("rotation: after an old file is deleted", "events unlink 1 kill-after", When::Rotation),
    ("flush: before a new log", "wal create 1 kill-before", When::Flush),
    ("flush: after a new log", "wal create 1 kill-after", When::Flush),
    ("flush: after a table file is begun", "table create 1 kill-after", When::Flush),
    ("flush: before the sync of a table file", "table fsync 1 kill-before", When::Flush),
    ("flush: after the sync of a table file", "table fsync 1 kill-after", When::Flush),
    ("flush: after the write of the manifest", "manifest write 1 kill-after", When::Flush),
    ("flush: after the sync of the manifest", "manifest fsync 1 kill-after", When::Flush),
    ("flush: before an old log is deleted", "wal unlink 1 kill-before", When::Flush),
    ("start: after a new manifest is begun", "manifest create 1 kill-after", When::Start),
    ("start: before the manifest is named", "manifest rename 1 kill-before", When::Start),
    ("start: after the manifest is named", "manifest rename 1 kill-after", When::Start),
    ("start: before the directory is synced", "store-dir fsync 1 kill-before", When::Start),
    ("start: after the first batch is synced", "wal fsync 1 kill-after", When::Start),
    ("start: before the event file is synced", "events fsync 1 kill-before", When::Start),
];

#[test]
fn killed_at_each_named_point_nothing_is_lost_and_doubles_are_marked() {
    let rounds = std::env::var("POSTHASTE_CRASH_POINT_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let lab = Lab::new();
    let hosts = lab.one_and_two();
    let shim = Shim::new(lab.dir());
    // So few that each rotation deletes one.
    let files =
        "[[events.file]]\nname = \"events\"\nkeep_files = 1000\n\n[[events.file]]\nname = \"few\"\nkeep_files = 1\n";
    let mut daemon = Daemon::start_under(lab.dir(), lab.config().table(files), &shim.wrapper());
    let mut accepted = BTreeMap::new();
    for (name, rules, when) in (0..rounds).flat_map(|_| POINTS) {
        let rules = rules.replace('N', &(3 + rand::random::<u64>() % 20).to_string());
        let wait_killed = |daemon: &Daemon| {
            let status = daemon.wait_exit(PATIENCE);
            assert_eq!(status.signal(), Some(9), "{name}: {status}\n{}", daemon.log_tail());
            assert!(shim.fired().contains("kill-"), "{name}: {}", shim.fired());
            shim.clear();
        };
        if *when == When::Start {
            daemon.kill();
            shim.set(&rules);
            daemon.launch_again();
            wait_killed(&daemon);
            daemon.start_again();
            continue;
        }
        if *when == When::Rotation {
            // There must be an old file, and a line in the current one.
            let load = Load::start(daemon.smtp_addr(), 1, &["one.test"]);
            load.wait_accepted(3);
            let mark = daemon.log_len();
            daemon.signal(Signal::USR1);
            for stream in ["events-", "few-"] {
                daemon.wait_log_from(mark, &format!("renamed_to=\"{stream}"));
            }
            load.wait_accepted(load.accepted() + 3);
            accepted.extend(load.stop().accepted);
        }
        shim.set(&rules);
        let body_bytes = if *when == When::Flush { 100 << 10 } else { 0 };
        let load = Load::start_sized(daemon.smtp_addr(), 2, &["one.test", "two.test"], body_bytes);
        if *when == When::Rotation {
            poll(|| (load.accepted() >= 3).then_some(()), || daemon.log_tail());
            daemon.signal(Signal::USR1);
        }
        wait_killed(&daemon);
        accepted.extend(load.join().accepted);
        daemon.start_again();
    }
    assert_all_ends_well(&daemon, &accepted, &hosts);
}

/// Power cuts, unless POSTHASTE_POWER_CUT_ROUNDS says otherwise.
const POWER_CUTS: u64 = 4;

#[test]
fn after_a_power_cut_everything_answered_250_is_there_and_ends_once() {
    let rounds = std::env::var("POSTHASTE_POWER_CUT_ROUNDS").map_or(POWER_CUTS, |rounds| rounds.parse().unwrap());
    let lab = Lab::new();
    let hosts = lab.one_and_two_greylisting();
    let mut accepted = BTreeMap::new();
    let place = |round: u64| lab.dir().join(format!("disk{round}"));
    std::fs::create_dir(place(0)).unwrap();
    for round in 0..rounds {
        let dir = place(round);
        let shim = Shim::new(&dir);
        let config = ConfigText::for_lab(&dir, lab.dns.address(), lab.port());
        let daemon = Daemon::start_under(&dir, config, &shim.wrapper());
        // Every second round writes enough for table files and new logs.
        let body_bytes = if round % 2 == 1 { 100 << 10 } else { 0 };
        let load = Load::start_sized(daemon.smtp_addr(), 4, &["one.test", "two.test"], body_bytes);
        load.wait_accepted(20 + usize::try_from(rand::random::<u64>() % 150).unwrap());
        daemon.kill();
        accepted.extend(load.join().accepted);
        assert!(!shim.fired().contains("mmap"), "written through a map, where no sync is seen: {}", shim.fired());
        let unsynced = [Unsynced::Lost, Unsynced::Torn, Unsynced::NamesKept][usize::try_from(round % 3).unwrap()];
        shim.power_cut(unsynced, &place(round + 1), |below| rand::random::<u64>() % below);
    }
    let dir = place(rounds);
    let daemon = Daemon::start(&dir, ConfigText::for_lab(&dir, lab.dns.address(), lab.port()));
    assert_all_ends_well(&daemon, &accepted, &hosts);
}
