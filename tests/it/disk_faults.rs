//! A disk that fails or is full while the daemon runs, by the shim of the harness: the store's files and the event files
//! (scenarios 4 and 34).

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;

use crate::harness::*;

/// Faults after which nobody knows what is on the disk: the daemon must end by itself.
const DEADLY: &[(&str, &str, usize)] = &[
    ("a sync of the log fails", "wal fsync N eio", 0),
    ("a write of the log fails", "wal write N eio", 0),
    ("a sync of the log finds no room", "wal fsync N enospc", 0),
    ("the first write after events are safe in their file", "events fsync 1 arm\nwal write 1 eio armed", 0),
    ("a new log cannot be made", "wal create 1 eio", 100 << 10),
    ("a table file cannot be written", "table write 1 eio", 100 << 10),
    ("a table file cannot be synced", "table fsync 1 eio", 100 << 10),
    ("the manifest cannot be written", "manifest write 1 eio", 100 << 10),
    ("the manifest cannot be synced", "manifest fsync 1 eio", 100 << 10),
];

/// A daemon under the shim, whose only destination is `one.test`.
fn start_for_one(lab: &Lab) -> (Shim, Daemon) {
    lab.domain("one.test", &[2]);
    let shim = Shim::new(lab.dir());
    let daemon = Daemon::start_under(lab.dir(), lab.config(), &shim.wrapper());
    (shim, daemon)
}

#[test]
fn after_a_failed_write_or_sync_of_the_store_the_daemon_ends_and_the_next_start_loses_nothing() {
    let lab = Lab::new();
    let hosts = lab.one_and_two();
    let shim = Shim::new(lab.dir());
    let mut daemon = Daemon::start_under(lab.dir(), lab.config(), &shim.wrapper());
    let mut accepted = BTreeMap::new();
    for (name, rules, body_bytes) in DEADLY {
        shim.set(&rules.replace('N', &(3 + rand::random::<u64>() % 20).to_string()));
        let load = Load::start_sized(daemon.smtp_addr(), 2, &["one.test", "two.test"], *body_bytes);
        let status = daemon.wait_exit(PATIENCE);
        assert_eq!(status.code(), Some(1), "{name}: {status} {:?}", status.signal());
        daemon.wait_log_from(0, "the daemon must end, and reads what is there when it starts again");
        daemon.wait_log_from(0, "a part that nothing works without has ended; the daemon stops");
        assert!(shim.fired().contains(" e"), "{name}: {}", shim.fired());
        let sent = load.join();
        // Each client was told, or lost its connection; none was told 250 for what is not there.
        assert_eq!(sent.errors.len(), 2, "{:?}", sent.errors);
        accepted.extend(sent.accepted);
        shim.clear();
        daemon.start_again();
    }
    assert_all_ends_well(&daemon, &accepted, &hosts);
}

#[test]
fn a_message_whose_sync_fails_is_answered_451() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    let (shim, mut daemon) = start_for_one(&lab);
    let mut client = lab.client(&daemon);
    client.send_simple("app@sender.example", &["you@one.test"], "before");
    daemon.wait_empty();
    client.envelope("app@sender.example", &["you@one.test"]).unwrap();
    // Every one: the sync of what was written before may come first.
    shim.set("wal fsync 0 eio");
    let reply = client.body(simple("not kept").as_bytes()).unwrap();
    assert_eq!(reply.code, 451, "{reply:?}");
    assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(1));
    shim.clear();
    daemon.start_again();
    lab.client(&daemon).send_simple("app@sender.example", &["you@one.test"], "after");
    daemon.wait_empty();
    let subjects: Vec<_> = mx.accepted().iter().map(Transaction::subject).collect();
    assert!(subjects.contains(&"before".to_owned()) && subjects.contains(&"after".to_owned()), "{subjects:?}");
}

#[test]
fn a_full_disk_under_the_store_refuses_mail_and_goes_on_by_itself_when_there_is_room() {
    let lab = Lab::new();
    let hosts = lab.one_and_two();
    let shim = Shim::new(lab.dir());
    let daemon = Daemon::start_under(lab.dir(), lab.config(), &shim.wrapper());
    let mut accepted = BTreeMap::new();
    for full in ["store * 0 full", "table * 0 full"] {
        let mark = daemon.log_len();
        shim.set(full);
        let load = Load::start_sized(daemon.smtp_addr(), 2, &["one.test", "two.test"], 100 << 10);
        daemon.wait_log_from(mark, "the queue cannot be written: mail is refused with 451 until it can");
        accepted.extend(load.join().accepted);
        let mut client = lab.client(&daemon);
        let refusal = client.command("MAIL FROM:<app@sender.example>").unwrap();
        assert_eq!((refusal.code, refusal.text.get(..5)), (451, Some("4.3.0")), "{full}: {refusal:?}");
        shim.clear();
        // The log may say earlier that it can be written again: a small write may find room where a large one does not.
        let subject = format!("after {full}");
        let goes_on = || {
            let to = ["you@one.test", "you@two.test"];
            let mut client = Client::try_hello(daemon.smtp_addr()).ok()?;
            client.try_send("app@sender.example", &to, &simple(&subject)).ok()
        };
        accepted.insert(poll(goes_on, || daemon.log_tail()), subject.clone());
        daemon.wait_log_from(mark, "the queue can be written again");
        assert!(!daemon.has_exited());
        accepted.extend(Load::some(daemon.smtp_addr(), &["one.test", "two.test"], 10));
    }
    assert_all_ends_well(&daemon, &accepted, &hosts);
}

#[test]
fn where_the_store_stays_full_though_there_is_room_the_daemon_ends_and_starts_anew() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    let (shim, mut daemon) = start_for_one(&lab);
    // RocksDB sees room, tries to go on at once, meets this, and gives up for good.
    shim.set("store * 0 enospc");
    let load = Load::start(daemon.smtp_addr(), 2, &["one.test"]);
    poll(|| shim.fired().contains("wal create").then_some(()), || shim.fired());
    shim.clear();
    assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(1));
    let mut accepted = load.join().accepted;
    daemon.start_again();
    accepted.extend(Load::some(daemon.smtp_addr(), &["one.test"], 10));
    assert_all_ends_well(&daemon, &accepted, [&mx]);
}

#[test]
fn short_writes_change_nothing() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    let (shim, mut daemon) = start_for_one(&lab);
    shim.set("store write 0 short\nevents write 0 short");
    let mut accepted = Load::some(daemon.smtp_addr(), &["one.test"], 30);
    daemon.kill();
    daemon.start_again();
    accepted.extend(Load::some(daemon.smtp_addr(), &["one.test"], 10));
    assert_all_ends_well(&daemon, &accepted, [&mx]);
    assert!(shim.fired().contains("short"));
}

#[test]
fn event_files_that_cannot_be_written_hold_up_nothing_and_lose_no_line() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    let (shim, daemon) = start_for_one(&lab);
    let mut accepted = BTreeMap::new();
    for (fault, rotates) in [
        ("events write 0 full", false),
        ("events write 0 eio", false),
        ("events fsync 0 eio", false),
        ("events rename 0 eio", true),
        ("events create 0 enospc", true),
        ("events-dir fsync 0 eio", true),
    ] {
        let mark = daemon.log_len();
        shim.set(fault);
        let load = Load::start(daemon.smtp_addr(), 2, &["one.test"]);
        load.wait_accepted(5);
        if rotates {
            daemon.signal(Signal::USR1);
        }
        daemon.wait_log_from(mark, "event file cannot be written; events wait in the queue");
        // Mail goes on.
        load.wait_accepted(load.accepted() + 5);
        accepted.extend(load.stop().accepted);
        daemon.wait_empty();
        shim.clear();
        daemon.wait_log_from(mark, "event file can be written again; nothing was lost");
    }
    daemon.stop();
    assert_nothing_lost_or_doubled(&accepted, &Events::read_all(&daemon.events_path()), &[&mx]);
}
