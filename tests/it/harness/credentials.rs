//! Users who log in, and the audit stream that tells of them.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// The hash of a secret, as `posthaste credential hash` makes it.
pub(crate) fn hashed(secret: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste"));
    command.args(["credential", "hash", "--bare"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut run = command.spawn().unwrap();
    writeln!(run.stdin.take().unwrap(), "{secret}").unwrap();
    let output = run.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// A `[[credential]]` of the relay clients' tenant.
pub(crate) fn credential_table(user: &str, hashes: &[&str]) -> String {
    format!("[[credential]]\nuser = {user:?}\ntenant = \"local\"\nsecrets = {hashes:?}\n")
}

/// `AUTH PLAIN` with its initial response.
pub(crate) fn auth_plain(user: &str, secret: &str) -> String {
    let mut run = Command::new("base64").arg("-w0").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    write!(run.stdin.take().unwrap(), "\0{user}\0{secret}").unwrap();
    let output = run.wait_with_output().unwrap();
    format!("AUTH PLAIN {}", String::from_utf8(output.stdout).unwrap().trim_end())
}

/// The lines of the current file of the audit stream of a lab's daemon; all are there once it has stopped.
pub(crate) fn audit_lines(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("events/audit.jsonl")).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "a torn line: {text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}
