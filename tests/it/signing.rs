//! Signed mail, from the client to what others say of it.

use crate::harness::*;
use crate::peers::dkim::{Records, TestKey, verdicts};

const OPERATOR: &str = "mail.operator.test";
const AUTHOR: &str = "shop.test";

/// Both kinds of keys for the author's domain and for the operator's.
fn config(lab: &Lab) -> ConfigText {
    let dir = lab.dir();
    lab.config()
        .set("signing.operator_domain", &format!("{OPERATOR:?}"))
        .table(&TestKey::Rsa.table(dir, AUTHOR, "r1"))
        .table(&TestKey::Ed25519.table(dir, AUTHOR, "e1"))
        .table(&TestKey::Rsa.table(dir, OPERATOR, "r1"))
        .table(&TestKey::Ed25519.table(dir, OPERATOR, "e1"))
}

/// What is published of them.
fn records() -> Records {
    let both = |domain: &str| {
        let record = |selector: &str, key: TestKey| (format!("{selector}._domainkey.{domain}"), key.record());
        [record("r1", TestKey::Rsa), record("e1", TestKey::Ed25519)]
    };
    [both(AUTHOR), both(OPERATOR)].into_iter().flatten().collect()
}

/// A daemon, and the mail host of `example.test`.
fn setup(lab: &Lab, config: ConfigText) -> (Daemon, Mx) {
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    (lab.daemon_with(config), mx)
}

fn message(fields: &str, body: &str) -> String {
    format!("From: Shop <news@{AUTHOR}>\r\nTo: you@example.test\r\n{fields}\r\n{body}")
}

/// The values of all fields of this name, unfolded.
fn fields(message: &str, name: &str) -> Vec<String> {
    let header = message.split("\r\n\r\n").next().unwrap().replace("\r\n\t", " ").replace("\r\n ", " ");
    let lines = header.lines().filter_map(|line| line.split_once(':'));
    lines.filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).collect()
}

/// `d=` of each signature, in order.
fn signed_by(message: &str) -> Vec<String> {
    let tag = |field: &String| field.split("d=").nth(1).and_then(|rest| rest.split(';').next()).map(str::to_owned);
    fields(message, "DKIM-Signature").iter().filter_map(tag).collect()
}

/// Sends the messages and gives what came of each, in order.
fn through(daemon: &Daemon, mx: &Mx, messages: &[String]) -> Vec<Vec<u8>> {
    let mut client = Client::hello(daemon.smtp_addr());
    let ids: Vec<String> = messages.iter().map(|text| client.send(&format!("news@{AUTHOR}"), &["you@example.test"], text)).collect();
    let arrived = mx.wait_accepted(messages.len());
    let of = |id: &String| arrived.iter().find(|t| t.text().contains(id.as_str())).map(|t| t.data.clone());
    ids.iter().map(|id| of(id).unwrap_or_else(|| panic!("{id} has not come"))).collect()
}

#[test]
fn others_verify_both_kinds_of_signatures_of_author_and_operator() {
    let lab = Lab::new();
    let (daemon, mx) = setup(&lab, config(&lab));
    let long = format!("Subject: {}\r\nX-Long: {}\r\n", "word ".repeat(500), "x".repeat(900));
    let attachment = "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU2Nzg5YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4\r\n";
    let messages = [
        message("Subject: usual\r\n", "Hello\r\n"),
        message("Subject: folded\r\n\tonce \r\n  and  again\r\nX-Empty:\r\n", "Hello  there \t\r\n"),
        message(&long, "Hello\r\n"),
        message("Subject : space before the colon\r\n", "Hello\r\n"),
        message("Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\nSubject-X: y\r\n", "Hello\r\n"),
        message("Subject: raw Gr\u{fc}\u{df}e\r\n", "Hello\r\n"),
        message("", ""),
        message("Subject: blank lines behind\r\n", "Hello\r\n\r\n\r\n\r\n"),
        message("Subject: lines of blanks behind\r\n", "Hello\r\n \r\n\t\r\n  \r\n"),
        message("Subject: only blanks\r\n", " \r\n\t\r\n"),
        message("Subject: blank lines within\r\n", "\r\n\r\nHello\r\n\r\n\r\nWorld\r\n"),
        message("Subject: dots\r\n", "..\r\n...dots\r\n"),
        // Spooled: its header is signed after the body has gone to disk.
        message("Subject: large\r\nContent-Type: text/plain\r\n", &attachment.repeat(40_000)),
        "From: Shop <news@shop.test>\r\nno header line, no empty line before the body\r\n\r\nmore\r\n".to_owned(),
    ];
    let arrived = through(&daemon, &mx, &messages);
    for message in &arrived {
        assert_eq!(signed_by(&String::from_utf8_lossy(message)), [AUTHOR, AUTHOR, OPERATOR, OPERATOR]);
    }
    let found = verdicts(&records(), &arrived);
    assert_eq!(found.dkimpy, vec!["1111"; arrived.len()]);
    assert_eq!(found.opendkim, vec!["1111"; arrived.len()]);
    assert_eq!(found.mail_dkim, vec!["1010"; arrived.len()], "Debian 12's Mail::DKIM knows RSA only");
}

#[test]
fn a_message_of_40_mb_is_signed() {
    let lab = Lab::new();
    let (daemon, mx) = setup(&lab, config(&lab));
    let line = format!("{}\r\n", "0123456789abcdef".repeat(5));
    // A dot-stuffed line and blanks at the edges of parts, too.
    let body = format!("{}..\r\n \r\n{}\r\n \r\n", line.repeat(250_000), line.repeat(250_000));
    let arrived = through(&daemon, &mx, &[message("Subject: 40 MB\r\n", &body)]);
    assert!(arrived[0].len() > 40_000_000);
    let found = verdicts(&records(), &arrived);
    assert_eq!((&found.dkimpy[..], &found.opendkim[..]), (&["1111".to_owned()][..], &["1111".to_owned()][..]));
    assert_eq!(found.mail_dkim, ["1010"]);
}
