//! The real thread on the real file system. What is waited for comes, whatever the machine's speed.

use super::*;
use crate::events::tail::EventTail;

const PATIENCE: Duration = Duration::from_secs(30);

fn real(directory: &std::path::Path) -> Settings {
    let mut sink = sink("events.jsonl", &[]);
    sink.rotate_bytes = Some(20_000);
    Settings { directory: directory.join("made/here"), sinks: vec![sink], sync_interval: Duration::from_millis(20) }
}

fn start(outbox: &Arc<ModelOutbox>, settings: &Settings) -> WriterHandle {
    let outbox: Arc<dyn Outbox> = Arc::clone(outbox) as _;
    EventWriter::start(outbox, settings.clone(), Arc::new(crate::types::SystemClock)).unwrap()
}

#[test]
fn the_thread_writes_to_real_files_rotates_stops_and_starts_again() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let settings = real(directory.path());
    let outbox: Arc<ModelOutbox> = Arc::default();
    let mut tail = EventTail::follow(settings.directory.join("events.jsonl")).unwrap();
    let mut expected = 1..;
    for round in 0..3 {
        let writer = start(&outbox, &settings);
        for _ in 0..100 {
            outbox.push(send_line("x"));
        }
        for id in expected.by_ref().take(100) {
            let line = tail.wait_line(PATIENCE).unwrap().unwrap();
            assert_eq!((line.id.value(), checked_id(&line.json)), (id, id), "round {round}");
        }
        writer.rotate();
        outbox.push(send_line("x"));
        assert!(writer.stop(PATIENCE));
        assert_eq!(tail.wait_line(PATIENCE).unwrap().unwrap().id.value(), expected.next().unwrap());
        assert_eq!((writer.health(), writer.pending()), (Health::Ended { error: None }, 0));
        assert_eq!(outbox.consumed_through(), 101 * (round + 1));
    }
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&settings.directory) & 0o027, 0);
    for entry in settings.directory.read_dir().unwrap() {
        assert_eq!(mode(&entry.unwrap().path()) & 0o137, 0);
    }
    assert_eq!(tail.next_line().unwrap(), None);
}

#[test]
fn the_thread_notices_a_moved_file_and_new_settings() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = real(directory.path());
    let outbox: Arc<ModelOutbox> = Arc::default();
    let writer = start(&outbox, &settings);
    assert!(writer.takes(EventKind::Bounce) && writer.is_running());
    let path = settings.directory.join("events.jsonl");
    let mut tail = EventTail::follow(&path).unwrap();
    outbox.push(send_line("x"));
    assert!(tail.wait_line(PATIENCE).unwrap().is_some());
    std::fs::rename(&path, path.with_extension("jsonl.1")).unwrap();
    writer.rotate();
    outbox.push(send_line("x"));
    assert_eq!(tail.wait_line(PATIENCE).unwrap().unwrap().id.value(), 2);

    settings.directory = directory.path().join("elsewhere");
    settings.sinks = vec![sink("sends.jsonl", &[EventKind::Send])];
    writer.reload(settings.clone()).unwrap();
    assert!(!writer.takes(EventKind::Bounce) && writer.takes(EventKind::Send));
    outbox.push(send_line("x"));
    let mut tail = EventTail::follow(settings.directory.join("sends.jsonl")).unwrap();
    assert_eq!(tail.wait_line(PATIENCE).unwrap().unwrap().id.value(), 3);

    settings.directory = path.with_extension("jsonl.1");
    let error = writer.reload(settings).unwrap_err().to_string();
    assert!(error.contains("events.jsonl.1"), "{error}");
    assert_eq!(writer.health(), Health::Good);
    assert!(writer.stop(PATIENCE));
    assert!(matches!(writer.reload(Settings::default()), Err(EventsError::NoAnswer)));
}

#[test]
fn a_broken_outbox_ends_the_writer_and_shows() {
    let directory = tempfile::tempdir().unwrap();
    let outbox: Arc<ModelOutbox> = Arc::default();
    let writer = start(&outbox, &real(directory.path()));
    outbox.break_down();
    writer.ended.recv_timeout(PATIENCE).unwrap_err();
    assert!(!writer.is_running());
    let Health::Ended { error: Some(error) } = writer.health() else { panic!("{:?}", writer.health()) };
    assert!(error.contains("broken"), "{error}");
}

#[test]
fn a_start_without_permission_names_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let outbox: Arc<dyn Outbox> = Arc::new(ModelOutbox::default());
    let settings = Settings { directory: file.join("below"), ..Settings::default() };
    let error = EventWriter::start(outbox, settings, Arc::new(crate::types::SystemClock)).unwrap_err().to_string();
    assert!(error.contains("file/below"), "{error}");
}
