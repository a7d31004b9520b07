//! The stream on a model of a disk, and on a real directory.

use super::*;
use crate::events::file::model::ModelStorage;
use crate::types::ManualClock;

const DEADLINE: Duration = Duration::from_secs(10);

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Timestamp::from_millis(1_683_320_423_244)))
}

fn settings() -> SinkSettings {
    SinkSettings { file_name: "audit.jsonl".to_owned(), rotate_age: None, ..SinkSettings::default() }
}

fn start(storage: &ModelStorage) -> AuditLog {
    AuditLog::start_on(Some((Arc::new(storage.clone()), settings())), clock()).unwrap()
}

fn attempt(user: &str) -> AuditEntry {
    AuditEntry::new("authentication").text("user", user).flag("success", false)
}

fn text(storage: &ModelStorage) -> String {
    storage.content("audit.jsonl").unwrap()
}

#[test]
fn lines_are_json_in_order_and_safe_after_a_stop() {
    let storage = ModelStorage::new();
    let log = start(&storage);
    log.note(attempt("a\"\n\u{2028}").number("count", 7).optional("reason", None).optional("tls", Some("TLSv1.3")));
    log.note(attempt("b"));
    assert!(log.stop(DEADLINE));
    let first = r#"{"timestamp":"2023-05-05T21:00:23.244Z","type":"authentication","user":"a\"\n\u2028","success":false,"count":7,"tls":"TLSv1.3"}"#;
    let text = text(&storage);
    assert_eq!(text.lines().next(), Some(first));
    assert_eq!(text.lines().count(), 2);
    assert!(text.ends_with("\"user\":\"b\",\"success\":false}\n"));
}

#[test]
fn a_line_cut_short_is_cut_off_and_the_stream_goes_on() {
    let storage = ModelStorage::new();
    storage.put("audit.jsonl", b"{\"whole\":1}\n{\"torn\":");
    let log = start(&storage);
    log.note(attempt("a"));
    assert!(log.stop(DEADLINE));
    let text = text(&storage);
    assert!(text.starts_with("{\"whole\":1}\n{\"timestamp\":"), "{text}");
}

#[test]
fn what_cannot_be_taken_is_counted_and_the_count_is_written() {
    let storage = ModelStorage::new();
    storage.limit(Some(10));
    let log = start(&storage);
    let count = AUDIT_WAITING_MAX + AUDIT_BATCH_MAX + 100;
    for _ in 0..count {
        log.note(attempt("a"));
    }
    let dropped = log.shared.dropped.load(Ordering::Relaxed);
    assert!(dropped > 0);
    storage.limit(None);
    assert!(log.stop(DEADLINE));
    let text = text(&storage);
    let last = text.lines().last().unwrap();
    assert!(last.ends_with(&format!("\"type\":\"dropped\",\"count\":{dropped}}}")), "{last}");
    assert_eq!(text.lines().count() as u64, count as u64 - dropped + 1);
    assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
}

#[test]
fn a_rotation_begins_a_new_file_and_old_ones_go() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = AuditSettings { directory: directory.path().join("events"), file: Some(settings()) };
    settings.file.as_mut().unwrap().keep_files = Some(2);
    let clock = clock();
    let log = AuditLog::start(&settings, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    for number in 0..5 {
        clock.advance(Duration::from_secs(1));
        log.note(attempt(&number.to_string()));
        log.rotate();
        // Answered behind what came before.
        log.reload(&settings).unwrap();
        log.reload(&settings).unwrap();
    }
    log.note(attempt("last"));
    assert!(log.stop(DEADLINE));
    let mut names: Vec<String> =
        settings.directory.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["audit-20230505T210027Z-0.jsonl", "audit-20230505T210028Z-0.jsonl", "audit.jsonl"]);
    let current = std::fs::read_to_string(settings.directory.join("audit.jsonl")).unwrap();
    assert!(current.contains("\"last\"") && current.lines().count() == 1, "{current}");
}

#[test]
fn it_is_turned_on_and_off_by_a_reload() {
    let directory = tempfile::tempdir().unwrap();
    let off = AuditSettings { directory: directory.path().to_owned(), file: None };
    let on = AuditSettings { file: Some(settings()), ..off.clone() };
    let log = AuditLog::start(&off, clock()).unwrap();
    log.note(attempt("before"));
    log.reload(&on).unwrap();
    log.note(attempt("while"));
    log.reload(&off).unwrap();
    log.note(attempt("after"));
    assert!(log.stop(DEADLINE));
    let text = std::fs::read_to_string(directory.path().join("audit.jsonl")).unwrap();
    assert!(text.contains("\"while\"") && text.lines().count() == 1, "{text}");
}

#[test]
fn a_directory_that_cannot_be_is_an_error_that_names_the_file() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), "").unwrap();
    let settings = AuditSettings { directory: directory.path().join("file/events"), file: Some(settings()) };
    let error = AuditLog::start(&settings, clock()).err().unwrap().to_string();
    assert!(error.contains("file/events/audit.jsonl"), "{error}");
}
