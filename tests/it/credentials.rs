//! Credentials over the life of a daemon: rotation and revocation by reload, guessing, the audit stream, and that no secret
//! is left anywhere.

use std::path::Path;

use serde_json::Value;

use crate::harness::*;

const SECRET: &str = "correct-horse-battery-staple";
const NEXT_SECRET: &str = "another-horse-another-staple";

/// Nobody sends without a login, which one may do in clear on loopback.
fn config(lab: &Lab, secrets: &[&str]) -> ConfigText {
    let hashes: Vec<String> = secrets.iter().map(|secret| hashed(secret)).collect();
    let hashes: Vec<&str> = hashes.iter().map(String::as_str).collect();
    let listener = "[[listener]]\nname = \"smtp\"\naddress = \"127.0.0.1:0\"\nauth = \"clear\"\n";
    let config = lab.config().without_tables("listener").table(listener).set("relay.networks", "[]");
    config.table(&credential_table("app", &hashes))
}

#[track_caller]
fn log_in(daemon: &Daemon, user: &str, secret: &str) -> (Client, u16) {
    let mut client = Client::hello(daemon.smtp_addr());
    let code = client.command(&auth_plain(user, secret)).unwrap().code;
    (client, code)
}

#[test]
fn secrets_rotate_without_a_gap_and_what_is_revoked_ends_in_open_sessions() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let mut daemon = lab.daemon_with(config(&lab, &[SECRET]));
    let (mut old, code) = log_in(&daemon, "app", SECRET);
    assert_eq!(code, 235);
    old.send_simple("app@sender.example", &["a@example.test"], "one");
    assert_eq!(log_in(&daemon, "app", NEXT_SECRET).1, 535);

    // Both live. The hash of the first changed, so its sessions have to log in again.
    let both = config(&lab, &[SECRET, NEXT_SECRET]);
    daemon.reload(|_| both.clone());
    let (mut next, code) = log_in(&daemon, "app", NEXT_SECRET);
    assert_eq!(code, 235);
    next.send_simple("app@sender.example", &["a@example.test"], "two");
    let refused = old.command("MAIL FROM:<app@sender.example>").unwrap();
    assert_eq!((refused.code, refused.text.as_str()), (535, "5.7.8 Authentication Credentials Invalid"));
    assert_eq!(old.command(&auth_plain("app", SECRET)).unwrap().code, 235);
    old.send_simple("app@sender.example", &["a@example.test"], "three");

    // A reload that changes nothing ends no login.
    daemon.reload(|config| config);
    old.send_simple("app@sender.example", &["a@example.test"], "four");

    // Only the second is left; its hash is the same.
    let only_next = keep_last_secret(&both);
    daemon.reload(|_| only_next);
    assert_eq!(old.command("MAIL FROM:<app@sender.example>").unwrap().code, 535);
    next.send_simple("app@sender.example", &["a@example.test"], "five");

    daemon.reload(|config| config.without_tables("credential").table(&credential_table("other", &[&hashed("x-1-y")])));
    assert_eq!(next.command("MAIL FROM:<app@sender.example>").unwrap().code, 535);
    assert_eq!(next.command("MAIL FROM:<app@sender.example>").unwrap().code, 530);
    daemon.wait_empty();
    assert_eq!(mx.accepted().len(), 5);
    daemon.stop();
    let revoked = audit_lines(lab.dir()).into_iter().filter(|line| line["type"] == "revocation").count();
    assert_eq!(revoked, 3);
}

/// The same credential without its first secret.
fn keep_last_secret(config: &ConfigText) -> ConfigText {
    let text = config.render();
    let line = text.lines().find(|line| line.starts_with("secrets = ")).unwrap();
    let last = line.rsplit('"').nth(1).unwrap().to_owned();
    config.clone().without_tables("credential").table(&credential_table("app", &[&last]))
}

#[test]
fn guessing_slows_down_and_who_works_here_is_not_locked_out() {
    let lab = Lab::new();
    let daemon = lab.daemon_with(config(&lab, &[SECRET]));
    let (_kept, code) = log_in(&daemon, "app", SECRET);
    assert_eq!(code, 235);
    // This address was right before with this name: guesses at other names do not touch it.
    let mut codes: Vec<u16> = (0..12).map(|n| log_in(&daemon, &format!("admin-{n}"), "guess").1).collect();
    assert_eq!(log_in(&daemon, "app", SECRET).1, 235);
    // Guesses at the name itself do, in the end.
    let guesses: Vec<u16> = (0..12).map(|n| log_in(&daemon, "app", &format!("guess-{n}")).1).collect();
    for codes in [&codes, &guesses] {
        assert!(codes[..5].iter().all(|code| *code == 535) && codes.contains(&454), "{codes:?}");
    }
    daemon.stop();
    codes.extend(guesses);
    let lines = audit_lines(lab.dir());
    let failed: Vec<&Value> = lines.iter().filter(|line| line["success"] == false).collect();
    assert_eq!(failed.len(), codes.len());
    for (line, code) in failed.iter().zip(codes) {
        let reasons = if code == 454 { &["too many failures"][..] } else { &["unknown user", "wrong secret"] };
        assert!(reasons.contains(&line["reason"].as_str().unwrap()), "{code}: {line}");
    }
}

#[test]
fn no_secret_is_left_in_any_file_and_made_up_names_are_cut() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let daemon = lab.daemon_with(config(&lab, &[SECRET]));
    let (mut client, code) = log_in(&daemon, "app", SECRET);
    assert_eq!(code, 235);
    client.send_simple("app@sender.example", &["a@example.test"], "one");
    assert_eq!(log_in(&daemon, "app", "a-wrong-secret-is-a-secret-too").1, 535);
    assert_eq!(log_in(&daemon, &format!("{}-typed-into-the-wrong-field", "x".repeat(64)), "x").1, 535);
    daemon.wait_empty();
    let log = daemon.log_from(0).join("\n");
    daemon.stop();
    assert_eq!(mx.accepted().len(), 1);
    let encoded = [auth_plain("app", SECRET), auth_plain("app", "a-wrong-secret-is-a-secret-too")];
    let mut secrets = vec![SECRET, "a-wrong-secret", "typed-into-the-wrong-field"];
    secrets.extend(encoded.iter().map(|line| line.rsplit(' ').next().unwrap()));
    let mut files = 0;
    for (path, octets) in contents(lab.dir()) {
        files += 1;
        let text = String::from_utf8_lossy(&octets);
        for secret in &secrets {
            assert!(!text.contains(secret), "{secret} stands in {}", path.display());
        }
    }
    assert!(files > 5, "{files} files");
    for secret in &secrets {
        assert!(!log.contains(secret), "{secret} stands in the log");
    }
    assert!(audit_lines(lab.dir()).iter().any(|line| line["user"] == "x".repeat(64)));
}

/// All files below a directory.
fn contents(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: std::path::PathBuf| match path.is_dir() {
        true => contents(&path),
        false => std::fs::read(&path).map(|octets| (path, octets)).into_iter().collect(),
    };
    entries.flat_map(read).collect()
}

#[test]
fn the_audit_stream_rotates_on_sigusr1() {
    let lab = Lab::new();
    let daemon = lab.daemon_with(config(&lab, &[SECRET]));
    assert_eq!(log_in(&daemon, "app", SECRET).1, 235);
    daemon.signal(Signal::USR1);
    let rotated = poll(
        || contents(&lab.dir().join("events")).into_iter().find(|(path, _)| path.to_string_lossy().contains("audit-2")),
        || "no rotated audit file".to_owned(),
    );
    assert_eq!(String::from_utf8(rotated.1).unwrap().lines().count(), 1);
    assert_eq!(log_in(&daemon, "app", SECRET).1, 235);
    daemon.stop();
    assert_eq!(audit_lines(lab.dir()).len(), 1);
}
