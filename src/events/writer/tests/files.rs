//! Rotation, retention, other programs, filters, settings, readers.

use super::*;
use std::io;
use std::path::Path;

use crate::events::file::{FileStat, StorageFile};
use crate::events::schema::samples::bounce_line;
use crate::events::tail::EventTail;
use crate::events::{EventLine, OutboxEvent};

fn line_text(id: u64, line: &EventLine) -> String {
    let mut text = Vec::new();
    OutboxEvent { id: EventId::new(id), line: Some(line.clone()) }.write_line(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn files_are_rotated_by_size_age_and_request_and_old_ones_deleted() {
    let mut rotating = sink("events.jsonl", &[]);
    rotating.rotate_bytes = Some(1_500);
    rotating.rotate_age = Some(Duration::from_secs(3_600));
    rotating.keep_files = Some(3);
    let mut bench = Bench::new(vec![rotating]);
    bench.push(7);
    bench.pass(Duration::from_secs(2));
    let rotated = bench.names();
    assert_eq!(rotated.len(), 3, "{rotated:?}");
    assert!(rotated[0].starts_with("events-20231114T2213") && rotated[0].ends_with("Z-1.jsonl"), "{rotated:?}");
    assert!(rotated[1].ends_with("Z-4.jsonl"));
    assert_eq!(bench.ids("events.jsonl"), up_to(7));

    bench.pass(Duration::from_secs(3_700));
    assert_eq!(bench.storage.content("events.jsonl").unwrap(), "");
    assert_eq!(bench.names().len(), 4);
    bench.pass(Duration::from_secs(7_300));
    assert_eq!(bench.names().len(), 4, "an empty file is not rotated");

    bench.push(1);
    bench.run();
    bench.pump().rotate();
    bench.run();
    assert_eq!(bench.ids("events.jsonl"), (4..=8).collect::<Vec<_>>(), "the oldest was deleted");
    assert_eq!(bench.names().len(), 4);
}

#[test]
fn files_beyond_their_age_are_deleted_and_those_of_others_are_not() {
    let mut aged = sink("events.jsonl", &[]);
    aged.keep_age = Some(Duration::from_secs(86_400));
    let mut bench = Bench::new(vec![aged]);
    let others =
        ["events-bounces.jsonl", "events-bounces-20200101T000000Z-1.jsonl", "events.jsonl.1", "events-1.jsonl"];
    for name in others {
        bench.storage.put(name, b"");
    }
    bench.storage.put("events-20200101T000000Z-1.jsonl", b"");
    bench.storage.put("events-20231114T000000Z-1.jsonl", b"");
    bench.restart(Crash::Process);
    assert_eq!(bench.storage.content("events-20200101T000000Z-1.jsonl"), None);
    assert!(bench.storage.content("events-20231114T000000Z-1.jsonl").is_some());
    assert!(others.iter().all(|name| bench.storage.content(name).is_some()));
}

#[test]
fn a_file_that_logrotate_moved_is_left_and_a_new_one_begun() {
    let mut bench = Bench::new(vec![sink("events.jsonl", &[])]);
    bench.push(3);
    bench.run();
    bench.storage.rename_externally("events.jsonl", "events.jsonl.1");
    bench.push(1);
    bench.pump().step().unwrap();
    bench.pump().rotate();
    bench.pass(Duration::from_secs(2));
    bench.push(1);
    bench.pass(Duration::from_secs(2));
    assert_eq!(checked_ids(&bench.storage.content("events.jsonl.1").unwrap()), up_to(4));
    assert_eq!(checked_ids(&bench.storage.content("events.jsonl").unwrap()), [5]);
    assert_eq!(bench.names().len(), 2, "moved once is not rotated again");
    assert_eq!(bench.outbox.consumed_through(), 5);
}

#[test]
fn killed_after_logrotate_moved_the_file_amid_a_line_the_rest_goes_there() {
    let mut bench = Bench::new(vec![sink("events.jsonl", &[])]);
    bench.storage.limit(Some(1_000));
    bench.push(3);
    bench.run();
    bench.storage.rename_externally("events.jsonl", "events.jsonl.1");
    bench.storage.limit(None);
    bench.restart(Crash::Process);
    bench.pass(Duration::from_secs(2));
    assert_eq!(checked_ids(&bench.storage.content("events.jsonl.1").unwrap()), [1, 2]);
    assert_eq!(checked_ids(&bench.storage.content("events.jsonl").unwrap()), [3]);
}

#[test]
fn two_streams_with_filters_fail_and_go_on_each_by_itself() {
    let mut bench =
        Bench::new(vec![sink("sends.jsonl", &[EventKind::Send]), sink("bounces.jsonl", &[EventKind::Bounce])]);
    for id in 1..=6 {
        bench.outbox.push(if id % 2 == 0 { bounce_line("x") } else { send_line("x") });
    }
    let mut rejected = send_line("x");
    rejected.kind = EventKind::Reject;
    bench.outbox.push(rejected);
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.ids("sends.jsonl"), [1, 3, 5]);
    assert_eq!(bench.ids("bounces.jsonl"), [2, 4, 6]);
    assert_eq!(bench.outbox.consumed_through(), 7, "an event that no stream takes is just consumed");
}

#[test]
fn without_a_stream_events_are_consumed() {
    let mut bench = Bench::new(Vec::new());
    bench.push(1_000);
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.outbox.consumed_through(), 1_000);
    assert_eq!(bench.names(), Vec::<String>::new());
}

#[test]
fn a_file_of_another_queue_is_set_aside_whole() {
    let mut bench = Bench::new(Vec::new());
    let foreign: String = (1..=9).map(|id| line_text(id, &send_line("foreign"))).collect();
    bench.storage.put("events.jsonl", foreign.as_bytes());
    bench.settings = settings(vec![sink("events.jsonl", &[])]);
    bench.push(3);
    bench.restart(Crash::Process);
    bench.pass(Duration::from_secs(2));
    assert_eq!(checked_ids(&bench.storage.content("events.jsonl").unwrap()), up_to(3));
    let aside = bench.names().into_iter().find(|name| name.ends_with("Z-1.jsonl")).unwrap();
    assert_eq!(bench.storage.content(&aside).unwrap(), foreign);
}

#[test]
fn lines_of_others_in_the_file_stay_and_harm_nothing() {
    let mut bench = Bench::new(vec![sink("events.jsonl", &[])]);
    bench.push(2);
    bench.pass(Duration::from_secs(2));
    let before = bench.storage.content("events.jsonl").unwrap();
    let (first, second) = before.split_once('\n').unwrap();
    bench.storage.put("events.jsonl", format!("{first}\n# a note\n{second}").as_bytes());
    bench.push(1);
    bench.restart(Crash::Process);
    bench.pass(Duration::from_secs(2));
    let after = bench.storage.content("events.jsonl").unwrap();
    assert!(after.starts_with(&format!("{first}\n# a note\n{second}")));
    assert_eq!(after.lines().filter_map(|line| line_id(line.as_bytes())).count(), 3);
}

#[test]
fn a_file_truncated_by_another_program_gets_no_hole() {
    let mut bench = Bench::new(vec![sink("events.jsonl", &[])]);
    bench.push(2);
    bench.pass(Duration::from_secs(2));
    bench.storage.open("events.jsonl").unwrap().unwrap().truncate(0).unwrap();
    bench.push(2);
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.ids("events.jsonl"), [3, 4]);
}

#[test]
fn new_settings_are_taken_whole_or_not_at_all() {
    let mut bench = Bench::new(vec![sink("events.jsonl", &[])]);
    bench.push(2);
    bench.run();
    let both = settings(vec![sink("events.jsonl", &[EventKind::Send]), sink("bounces.jsonl", &[EventKind::Bounce])]);
    bench.pump().reload(&both, None).unwrap();
    bench.outbox.push(bounce_line("x"));
    bench.push(1);
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.ids("events.jsonl"), [1, 2, 4]);
    assert_eq!(bench.ids("bounces.jsonl"), [3]);

    bench.storage.limit(Some(bench.storage.used()));
    bench.push(1);
    bench.run();
    let one = settings(vec![sink("bounces.jsonl", &[])]);
    let error = bench.pump().reload(&one, None).unwrap_err().to_string();
    assert!(error.starts_with("event file /model/events.jsonl: settings unchanged"), "{error}");
    assert!(bench.pump().reload(&settings(vec![sink("a/b", &[])]), None).is_err());
    bench.storage.limit(None);
    bench.pass(Duration::from_secs(10));
    assert_eq!(bench.ids("events.jsonl"), [1, 2, 4, 5]);
    bench.pump().reload(&one, None).unwrap();
    bench.push(1);
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.ids("events.jsonl"), [1, 2, 4, 5]);
    assert_eq!(bench.ids("bounces.jsonl"), [3, 6]);
}

#[test]
fn a_slow_reader_follows_through_rotated_files_and_can_resume_by_id() {
    let mut rotating = sink("events.jsonl", &[]);
    rotating.rotate_bytes = Some(1_500);
    let mut bench = Bench::new(vec![rotating]);
    let storage: Arc<dyn Storage> = Arc::new(bench.storage.clone());
    let mut follower = EventTail::follow_in(Arc::clone(&storage), "events.jsonl").unwrap();
    bench.push(1);
    bench.run();
    assert_eq!(follower.next_line().unwrap().unwrap().id, EventId::new(1));
    bench.push(20);
    bench.pass(Duration::from_secs(5));
    assert!(bench.names().len() > 5);
    let rest = |tail: &mut EventTail| {
        let mut ids = Vec::new();
        while let Some(line) = tail.next_line().unwrap() {
            ids.push(line.id.value());
        }
        ids
    };
    assert_eq!(rest(&mut follower), (2..=21).collect::<Vec<_>>());
    for after in 0..=21 {
        let mut resumed = EventTail::resume_in(Arc::clone(&storage), "events.jsonl", EventId::new(after)).unwrap();
        assert_eq!(rest(&mut resumed), (after + 1..=21).collect::<Vec<_>>(), "after {after}");
    }
    let mut late = EventTail::follow_in(storage, "events.jsonl").unwrap();
    assert_eq!(rest(&mut late), [19, 20, 21]);
}

/// Between a reader's look at the names and its next step the current file is rotated, once.
struct RotatesBehindBacks {
    files: ModelStorage,
    is_done: std::sync::atomic::AtomicBool,
}

impl Storage for RotatesBehindBacks {
    fn prepare(&self) -> io::Result<()> {
        self.files.prepare()
    }

    fn open(&self, name: &str) -> io::Result<Option<Box<dyn StorageFile>>> {
        self.files.open(name)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.files.create(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let names = self.files.list();
        if !self.is_done.swap(true, std::sync::atomic::Ordering::SeqCst) {
            self.files.rename_externally("events.jsonl", "events-20231114T221400Z-2.jsonl");
            self.files.put("events.jsonl", line_text(3, &bounce_line("x")).as_bytes());
        }
        names
    }

    fn stat(&self, name: &str) -> io::Result<Option<FileStat>> {
        self.files.stat(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.files.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.files.sync_directory()
    }

    fn directory(&self) -> &Path {
        self.files.directory()
    }
}

#[test]
fn a_file_that_is_rotated_while_a_reader_looks_for_it_is_read_all_the_same() {
    let files = ModelStorage::new();
    files.put("events.jsonl", line_text(1, &bounce_line("x")).as_bytes());
    let storage = Arc::new(RotatesBehindBacks { files: files.clone(), is_done: true.into() });
    let mut reader =
        EventTail::resume_in(Arc::clone(&storage) as Arc<dyn Storage>, "events.jsonl", EventId::NONE).unwrap();
    assert_eq!(reader.next_line().unwrap().unwrap().id, EventId::new(1));
    files.rename_externally("events.jsonl", "events-20231114T221300Z-1.jsonl");
    files.put("events.jsonl", line_text(2, &bounce_line("x")).as_bytes());
    storage.is_done.store(false, std::sync::atomic::Ordering::SeqCst);
    let mut ids = Vec::new();
    while let Some(line) = reader.next_line().unwrap() {
        ids.push(line.id.value());
    }
    assert_eq!(ids, [2, 3]);
}

#[test]
fn an_event_whose_record_is_damaged_is_left_out_and_what_a_file_has_of_it_already_stays() {
    let mut bench = Bench::new(vec![sink("events.jsonl", &[])]);
    bench.push(3);
    bench.outbox.damage(2);
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.ids("events.jsonl"), [1, 3]);
    assert_eq!(bench.outbox.consumed_through(), 3);
    bench.push(2);
    bench.run();
    assert_eq!(bench.ids("events.jsonl"), [1, 3, 4, 5]);
    // Written, not consumed, and damaged after that: the line is the only copy.
    bench.outbox.forget_consumed(3);
    bench.outbox.damage(4);
    bench.restart(Crash::Process);
    bench.push(1);
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.ids("events.jsonl"), [1, 3, 4, 5, 6]);
    assert_eq!(bench.names().len(), 1, "the file is ours, it was not set aside");
}
