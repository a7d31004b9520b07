//! The API over a real Unix socket, byte by byte: what a script or a hostile local process meets.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use super::fake::{Fake, Served, id, serve};
use super::query::{Action, Filter, Selection};
use super::*;
use crate::daemon::config::AdminSettings;
use crate::types::Domain;

/// One raw request, one connection: status code and body.
fn raw(socket: &Path, request: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let code = answer.split(' ').nth(1).unwrap_or_default().parse().unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (code, body)
}

fn ask(served: &Served, method: &str, path: &str, body: &str) -> (u16, serde_json::Value) {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    let (code, body) = raw(&served.socket, &format!("{head}{body}"));
    (code, serde_json::from_str(&body).unwrap_or_else(|_| panic!("not JSON: {body}")))
}

#[track_caller]
fn refused(answer: (u16, serde_json::Value), code: u16, word: &str, text: &str) {
    let (got, body) = answer;
    assert_eq!((got, body["error"]["code"].as_str()), (code, Some(word)), "{body}");
    assert!(body["error"]["message"].as_str().unwrap().contains(text), "{body}");
}

#[test]
fn status_and_health_are_answered() {
    let served = serve(Fake::with_messages(0));
    let (code, status) = ask(&served, "GET", "/v1/status", "");
    assert_eq!((code, &status["healthy"], &status["sites"][0]["site"]), (200, &true.into(), &"mx.r.test".into()));
    assert_eq!(ask(&served, "GET", "/v1/health", "").0, 200);
}

#[test]
fn an_unhealthy_daemon_answers_health_with_503_and_the_reason() {
    let mut fake = Fake::with_messages(0);
    fake.status.healthy = false;
    fake.status.health_reason = Some("disk".to_owned());
    let served = serve(fake);
    let (code, health) = ask(&served, "GET", "/v1/health", "");
    assert_eq!((code, &health["reason"]), (503, &"disk".into()));
}

#[test]
fn lists_are_filtered_and_paged() {
    let served = serve(Fake::with_messages(5));
    let (code, page) = ask(&served, "GET", "/v1/queue?limit=2&domain=R.test&state=deferred", "");
    assert_eq!((code, page["messages"].as_array().unwrap().len()), (200, 2));
    let next = page["next"].as_str().unwrap();
    assert_eq!(next, id(1).to_string());
    let (_, page) = ask(&served, "GET", &format!("/v1/queue?limit=3&after={next}"), "");
    assert_eq!((page["messages"].as_array().unwrap().len(), &page["next"]), (3, &serde_json::Value::Null));
    let (_, page) = ask(&served, "GET", "/v1/queue?sender=a3%40s.test", "");
    assert_eq!(page["messages"][0]["id"], id(3).to_string());
}

#[test]
fn questions_that_make_no_sense_get_400_with_a_hint() {
    let served = serve(Fake::with_messages(1));
    let list = |query: &str| ask(&served, "GET", &format!("/v1/queue?{query}"), "");
    refused(list("limit=0"), 400, "bad_request", "from 1 to 1000");
    refused(list("limit=1001"), 400, "bad_request", "from 1 to 1000");
    refused(list("limit=x"), 400, "bad_request", "invalid digit");
    refused(list("colour=red"), 400, "bad_request", "colour");
    refused(list("state=asleep"), 400, "bad_request", "in_flight, ready, deferred, held");
    refused(list("after=1"), 400, "bad_request", "not a message id");
    refused(list("domain=a%20b"), 400, "bad_request", "domain: ");
    refused(ask(&served, "GET", "/v1/queue/17", ""), 400, "bad_request", "not a message id");
    refused(ask(&served, "GET", "/v2/queue", ""), 404, "not_found", "no such path");
    refused(ask(&served, "DELETE", "/v1/status", ""), 405, "method_not_allowed", "GET");
}

#[test]
fn a_message_is_shown_or_said_to_be_gone() {
    let served = serve(Fake::with_messages(1));
    let (code, message) = ask(&served, "GET", &format!("/v1/queue/{}", id(0)), "");
    assert_eq!((code, &message["recipients"][0]["rule"]), (200, &"greylist".into()));
    refused(ask(&served, "GET", &format!("/v1/queue/{}", id(9)), ""), 404, "not_found", "holds no message");
}

#[test]
fn actions_reach_the_backend_with_their_selection() {
    let served = serve(Fake::with_messages(3));
    let (code, report) = ask(&served, "POST", &format!("/v1/queue/{}/hold", id(1)), r#"{"reason":"look"}"#);
    assert_eq!((code, &report["changed"]), (200, &1.into()));
    let (code, report) = ask(&served, "POST", "/v1/queue/retry", r#"{"domain":"r.test"}"#);
    assert_eq!((code, &report["examined"]), (200, &3.into()));
    assert_eq!(ask(&served, "POST", "/v1/queue/release", r#"{"all":true}"#).0, 200);
    assert_eq!(ask(&served, "POST", &format!("/v1/queue/{}/cancel", id(2)), "").0, 200);
    let domain = Filter { domain: Some(Domain::parse("r.test").unwrap()), ..Filter::default() };
    let expected = [
        (Selection::One(id(1)), Action::Hold { reason: "look".to_owned() }),
        (Selection::Matching(domain), Action::Retry),
        (Selection::Matching(Filter::default()), Action::Release),
        (Selection::One(id(2)), Action::Cancel),
    ];
    assert_eq!(*served.backend.acts.lock().unwrap(), expected);
}

#[test]
fn actions_that_make_no_sense_change_nothing() {
    let served = serve(Fake::with_messages(1));
    let act = |path: &str, body: &str| ask(&served, "POST", path, body);
    let one = format!("/v1/queue/{}", id(0));
    refused(act("/v1/queue/cancel", ""), 400, "bad_request", "nothing selected");
    refused(act("/v1/queue/cancel", "{}"), 400, "bad_request", "nothing selected");
    refused(act("/v1/queue/cancel", r#"{"domian":"r.test"}"#), 400, "bad_request", "domian");
    refused(act("/v1/queue/cancel", r#"{"all":true,"state":"held"}"#), 400, "bad_request", "contradict");
    refused(act("/v1/queue/cancel", "{"), 400, "bad_request", "body: ");
    refused(act("/v1/queue/explode", r#"{"all":true}"#), 404, "not_found", "retry, hold, release, cancel");
    refused(act(&format!("{one}/cancel"), r#"{"domain":"r.test"}"#), 400, "bad_request", "beside an id");
    refused(act(&format!("{one}/hold"), r#"{"reason":"a\nb"}"#), 400, "bad_request", "one line");
    refused(act("/v1/queue/cancel", &" ".repeat(70_000)), 413, "too_large", "65536");
    assert!(served.backend.acts.lock().unwrap().is_empty());
    refused(act(&format!("/v1/queue/{}/retry", id(9)), ""), 404, "not_found", "holds no message");
}

#[test]
fn errors_of_the_backend_keep_their_code() {
    let mut fake = Fake::with_messages(1);
    fake.broken = Some(AdminError::Unavailable("the store does not answer".to_owned()));
    let served = serve(fake);
    refused(ask(&served, "GET", "/v1/queue", ""), 503, "unavailable", "store");
    let (code, health) = ask(&served, "GET", "/v1/health", "");
    assert_eq!((code, &health["reason"]), (503, &"the store does not answer".into()));
}

#[test]
fn garbage_and_oversized_heads_end_only_their_connection() {
    let served = serve(Fake::with_messages(0));
    assert_eq!(raw(&served.socket, "EHLO me\r\n\r\n").0, 400);
    let long = format!("GET /v1/{} HTTP/1.1\r\n\r\n", "x".repeat(80_000));
    let mut stream = UnixStream::connect(&served.socket).unwrap();
    // The server may close before it has read all of it.
    let _ = stream.write_all(long.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(ask(&served, "GET", "/v1/health", "").0, 200);
}

#[test]
fn the_socket_has_its_mode_and_is_removed_at_the_end() {
    let mut served = serve(Fake::with_messages(0));
    let metadata = fs::metadata(&served.socket).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    assert_eq!(metadata.gid(), rustix::process::getegid().as_raw());
    served.stop();
    assert!(!served.socket.exists());
}

#[tokio::test]
async fn a_live_socket_is_left_alone_and_a_stale_one_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let settings = AdminSettings { socket: socket.clone(), ..AdminSettings::default() };
    let living = UnixListener::bind(&socket).unwrap();
    let error = AdminServer::bind(&settings).unwrap_err();
    assert!(matches!(error, BindError::InUse(_)), "{error}");
    drop(living);
    assert!(socket.exists());
    assert!(AdminServer::bind(&settings).is_ok());
}

#[tokio::test]
async fn other_files_groups_and_places_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("file");
    fs::write(&socket, "").unwrap();
    let bind = |socket: &Path, group: Option<&str>| {
        let group = group.map(str::to_owned);
        AdminServer::bind(&AdminSettings { socket: socket.to_owned(), group, mode: 0o660 }).map(|_| ())
    };
    let error = bind(&socket, None).unwrap_err();
    assert!(matches!(error, BindError::NotASocket(_)), "{error}");
    let error = bind(&directory.path().join("s"), Some("no-such-group")).unwrap_err();
    assert!(error.to_string().contains("\"no-such-group\""), "{error}");
    let error = bind(&socket.join("s"), None).unwrap_err();
    assert!(matches!(error, BindError::Io { .. }), "{error}");
}
