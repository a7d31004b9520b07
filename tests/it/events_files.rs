//! The event files under rotation, by us and by others, while mail flows and readers follow.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use posthaste::events::{EventId, EventTail};
use serde_json::Value;

use crate::harness::*;

/// How long the reader waits for one line before it looks whether it is done.
const LOOK: Duration = Duration::from_millis(20);

#[test]
fn rotated_by_signal_under_load_no_line_is_lost_halved_or_doubled_and_a_follower_sees_all() {
    const ROTATIONS: usize = 5;
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let daemon = lab.daemon();
    let reader = Reader::start(&daemon.events_path());
    let load = Load::start(daemon.smtp_addr(), 2, &["example.test"]);
    for _ in 0..ROTATIONS {
        load.wait_accepted(load.accepted() + 20);
        let before = rotated_files(&daemon);
        daemon.signal(Signal::USR1);
        wait_for_rotation(&daemon, before.len());
    }
    let accepted = load.stop().accepted;
    daemon.wait_empty();
    daemon.stop();
    assert!(rotated_files(&daemon).len() >= ROTATIONS);
    let lines = all_lines(&daemon);
    let ids: Vec<u64> = lines.keys().copied().collect();
    let newest = *ids.last().unwrap();
    assert_eq!(ids, (1..=newest).collect::<Vec<_>>());
    assert_eq!(reader.stop_after(newest), ids);
    // As slow as can be: it begins when all files but the last are rotated.
    assert_eq!(Reader::start(&daemon.events_path()).stop_after(newest), ids);
    assert_nothing_lost_or_doubled(&accepted, &Events::read_all(&daemon.events_path()), &[&mx]);
}

#[test]
fn a_file_that_another_program_moves_away_is_begun_anew_without_a_gap() {
    let lab = Lab::new();
    let _mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let daemon = lab.daemon();
    let load = Load::start(daemon.smtp_addr(), 2, &["example.test"]);
    load.wait_accepted(20);
    let mark = daemon.log_len();
    std::fs::rename(daemon.events_path(), lab.dir().join("events/moved.jsonl")).unwrap();
    daemon.wait_log_from(mark, "event file was moved by another program");
    load.wait_accepted(load.accepted() + 20);
    load.stop();
    daemon.wait_empty();
    daemon.stop();
    let ids: Vec<u64> = all_lines(&daemon).into_keys().collect();
    assert_eq!(ids, (1..=*ids.last().unwrap()).collect::<Vec<_>>());
}

#[test]
fn streams_take_their_own_kinds_and_each_is_rotated() {
    let lab = Lab::new();
    let _mx = lab.mx_scripted(2, |ask| match ask.stage {
        Stage::Rcpt if ask.recipient.starts_with("bad") => Answer::say("550 5.1.1 No such user here"),
        _ => Answer::Usual,
    });
    lab.domain("example.test", &[2]);
    let config = lab
        .config()
        .table("[[events.file]]\nname = \"all\"\n")
        .table("[[events.file]]\nname = \"bounces\"\ntypes = [\"Bounce\"]\n");
    let mut daemon = lab.daemon_with(config);
    let mut client = lab.client(&daemon);
    client.send_simple("app@sender.example", &["good@example.test"], "good");
    client.send_simple("app@sender.example", &["bad@example.test"], "bad");
    daemon.wait_empty();
    daemon.restart();
    daemon.stop();
    let all = Events::read_all(&lab.dir().join("events/all.jsonl"));
    assert_ids_have_no_gap(&all);
    let kinds = |events: &[Value]| events.iter().map(|event| event["eventType"].clone()).collect::<Vec<_>>();
    assert_eq!(all.len(), 4, "{all:#?}");
    let bounces = Events::read_all(&lab.dir().join("events/bounces.jsonl"));
    assert_eq!(kinds(&bounces), ["Bounce"]);
    assert!(all.contains(&bounces[0]), "one event is the same line in each stream");
}

/// A reader beside the writer. It ends when it has read a certain event.
struct Reader {
    newest: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<Vec<u64>>,
}

impl Reader {
    fn start(path: &Path) -> Self {
        let newest = Arc::new(AtomicU64::new(u64::MAX));
        let (until, path) = (Arc::clone(&newest), path.to_owned());
        let thread = std::thread::spawn(move || {
            let mut tail = EventTail::resume(path, EventId::NONE).unwrap();
            let mut ids: Vec<u64> = Vec::new();
            // Until it is told which event is the newest it cannot know that it has read all.
            let read_one = || {
                if let Some(line) = tail.wait_line(LOOK).unwrap() {
                    let _: Value = serde_json::from_str(&line.json).unwrap();
                    ids.push(line.id.value());
                }
                ids.last().is_some_and(|last| *last >= until.load(Ordering::Relaxed)).then_some(())
            };
            poll(read_one, || "the newest event is not read".to_owned());
            ids
        });
        Self { newest, thread }
    }

    /// The ids in the order in which they were read, once the reader has come to the newest one.
    fn stop_after(self, newest: u64) -> Vec<u64> {
        self.newest.store(newest, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn rotated_files(daemon: &Daemon) -> Vec<PathBuf> {
    let path = daemon.events_path();
    files(&path).into_iter().filter(|file| *file != path).collect()
}

fn files(current: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(current.parent().unwrap()).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    files
}

fn wait_for_rotation(daemon: &Daemon, before: usize) {
    let look = || (rotated_files(daemon).len() > before).then_some(());
    poll(look, || format!("no rotation\n{}", daemon.log_tail()));
}

/// Every line of all files by id; each must be whole, end with a line feed, and stand once.
fn all_lines(daemon: &Daemon) -> BTreeMap<u64, String> {
    let mut lines = BTreeMap::new();
    for file in files(&daemon.events_path()) {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "{} ends amid a line", file.display());
        for line in text.lines() {
            let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let id = event["posthaste"]["eventId"].as_u64().unwrap();
            assert!(lines.insert(id, line.to_owned()).is_none(), "event {id} stands twice");
        }
    }
    lines
}
