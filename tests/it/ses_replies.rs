//! Every reply that applications know from SES's SMTP interface, provoked and compared to the letter (with the enhanced code that
//! belongs to it). The two that need a broken disk are in `disk_faults`.

use crate::harness::*;

const SECRET: &str = "correct-horse-battery-staple";

fn listener() -> &'static str {
    "[[listener]]\nname = \"smtp\"\naddress = \"127.0.0.1:0\"\nauth = \"clear\"\n"
}

/// Nobody sends without a login.
fn config(lab: &Lab) -> ConfigText {
    let hash = hashed(SECRET);
    let credential = |user: &str, more: &str| {
        format!("[[credential]]\nuser = \"{user}\"\ntenant = \"shop\"\nsecrets = [\"{hash}\"]\n{more}")
    };
    lab.config()
        .without_tables("listener")
        .table(listener())
        .set("relay.networks", "[]")
        .set("reception.message_size_max", "\"256KiB\"")
        .table("[[tenant]]\nname = \"shop\"\n")
        .table("[[identity]]\nname = \"shop.test\"\ntenant = \"shop\"\n")
        .table(&credential("app", ""))
        .table(&credential("elsewhere", "networks = [\"10.0.0.0/8\"]\n"))
        .table(&credential("few", "quota_per_day = 2\n"))
        .table(&credential("slow", "quota_per_second = 1\n"))
}

fn said(reply: &Reply) -> String {
    format!("{} {}", reply.code, reply.text)
}

#[track_caller]
fn says(client: &mut Client, command: &str, expected: &str) {
    assert_eq!(said(&client.command(command).unwrap()), expected, "{command}");
}

/// A session of `user`.
fn session(daemon: &Daemon, user: &str) -> Client {
    let mut client = Client::hello(daemon.smtp_addr());
    says(&mut client, &auth_plain(user, SECRET), "235 2.7.0 Authentication successful");
    client
}

/// The reply to a message.
fn message(client: &mut Client, from: &str, to: &[&str], body: &str) -> String {
    client.envelope("a@shop.test", to).unwrap();
    let text = format!("From: {from}\r\nSubject: s\r\n\r\n{body}\r\n");
    said(&client.body(text.as_bytes()).unwrap())
}

#[test]
fn logins_senders_and_messages_are_answered_to_the_letter() {
    let lab = Lab::new();
    lab.mx(2);
    lab.domain("example.test", &[2]);
    let daemon = lab.daemon_with(config(&lab));
    let mut client = Client::hello(daemon.smtp_addr());
    says(&mut client, "MAIL FROM:<a@shop.test>", "530 5.7.0 Authentication required");
    says(&mut client, &auth_plain("app", "wrong"), "535 5.7.8 Authentication Credentials Invalid");
    let mut client = session(&daemon, "app");
    says(&mut client, "MAIL FROM:<a@>", "553 5.1.7 <a@> Invalid email address");
    says(&mut client, "MAIL FROM:<a@shop.test>", "250 2.1.0 Ok");
    says(&mut client, "RCPT TO:<a b@example.test>", "553 5.1.3 <a b@example.test> address unknown");
    says(&mut client, "RSET", "250 2.0.0 Ok");
    let accepted = message(&mut client, "a@shop.test", &["r@example.test"], "x");
    let id = accepted.strip_prefix("250 2.0.0 Ok ").unwrap_or_else(|| panic!("{accepted}"));
    let lengths: Vec<usize> = id.split('-').map(str::len).collect();
    assert_eq!((lengths.as_slice(), id.ends_with("-000000")), ([16, 8, 4, 4, 4, 12, 6].as_slice(), true), "{id}");
    assert_eq!(
        message(&mut client, "x@one.test, y@two.test", &["r@example.test"], "x"),
        "554 5.7.1 Message rejected: Email address is not verified. The following identities failed the check: \
         x@one.test, y@two.test"
    );
    let large = "0123456789abcdef0123456789abcdef\r\n".repeat(9_000);
    assert_eq!(message(&mut client, "a@shop.test", &["r@example.test"], &large), "552 5.3.4 Message is too long.");
    says(&mut client, "MAIL FROM:<a@shop.test> SIZE=1000000", "552 5.3.4 Message is too long.");
    says(
        &mut session(&daemon, "elsewhere"),
        "MAIL FROM:<a@shop.test>",
        "554 5.7.1 Access denied: User elsewhere is not authorized to perform ses:SendRawEmail on resource a@shop.test",
    );
    // With the wrong secret above these are five failures of this client: the next one is not even looked at.
    for _ in 0..4 {
        let mut client = Client::hello(daemon.smtp_addr());
        says(&mut client, &auth_plain("nobody", "guess"), "535 5.7.8 Authentication Credentials Invalid");
    }
    let mut client = Client::hello(daemon.smtp_addr());
    says(&mut client, &auth_plain("nobody", "guess"), "454 4.7.0 Temporary authentication failure");
}

#[test]
fn quotas_are_answered_to_the_letter() {
    let lab = Lab::new();
    lab.mx(2);
    lab.domain("example.test", &[2]);
    let daemon = lab.daemon_with(config(&lab));
    let mut few = session(&daemon, "few");
    assert!(message(&mut few, "a@shop.test", &["r@example.test"], "x").starts_with("250 2.0.0 Ok "));
    let daily = "454 4.7.0 Throttling failure: Daily message quota exceeded";
    assert_eq!(message(&mut few, "a@shop.test", &["r@example.test", "q@example.test"], "x"), daily);
    assert!(message(&mut few, "a@shop.test", &["r@example.test"], "x").starts_with("250 2.0.0 Ok "));
    says(&mut few, "MAIL FROM:<a@shop.test>", daily);
    let mut slow = session(&daemon, "slow");
    let many: Vec<String> = (0..50).map(|n| format!("r{n}@example.test")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    // Fifty in one message pass a full bucket, and the next one waits fifty seconds.
    assert!(message(&mut slow, "a@shop.test", &many, "x").starts_with("250 2.0.0 Ok "));
    let rate = "454 4.7.0 Throttling failure: Maximum sending rate exceeded";
    assert_eq!(message(&mut slow, "a@shop.test", &["r@example.test"], "x"), rate);
    assert!(message(&mut session(&daemon, "app"), "a@shop.test", &["r@example.test"], "x").starts_with("250 "));
}

#[test]
fn connections_and_silence_are_answered_to_the_letter() {
    let lab = Lab::new();
    let config =
        config(&lab).set("reception.connections_per_client_max", "2").set("reception.command_timeout", "\"1s\"");
    let daemon = lab.daemon_with(config);
    let (mut silent, greeting) = Client::connect(daemon.smtp_addr()).unwrap();
    assert_eq!(greeting.code, 220);
    let _other = Client::connect(daemon.smtp_addr()).unwrap();
    let (_, refused) = Client::connect(daemon.smtp_addr()).unwrap();
    assert_eq!(said(&refused), "421 4.7.0 Too many concurrent SMTP connections");
    assert_eq!(said(&silent.reply().unwrap()), "451 4.4.2 Timeout waiting for data from client.");
}
