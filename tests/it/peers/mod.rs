//! Posthaste between programs that others wrote: real clients hand in mail, real servers take it, real DNS tells where.
//!
//! | file | on the other end |
//! |---|---|
//! | `clients` | swaks, Python's smtplib, curl, nodemailer, and a client that speaks BDAT octet by octet |
//! | `logins` | the same and msmtp with a user name and a secret, and a Postfix that logs in |
//! | `upstream` | a Postfix that relays all its mail to us, and its load generator `smtp-source` |
//! | `receivers` | aiosmtpd, smtp-sink, and a Postfix with mailboxes |
//! | `relays` | Exim and OpenSMTPD, which take mail from two sources |
//! | `reports` | Postfix, Exim, OpenSMTPD and Sendmail, whose bounces come home |
//! | `greylist` | a Postfix that asks postgrey |
//! | `dkim` | programs that verify signatures: dkimpy, OpenDKIM, Perl's Mail::DKIM |
//! | `names` | Knot DNS with a zone file |
//! | `hops` | a Postfix between us and the receiver, and DMARC there |
//! | `proxies` | microsocks and HAProxy, between us and the receiver |
//! | `hostile` | clients at the edge of the protocol |
//! | `bodies` | Python's email package, which reads re-encoded messages |
//!
//! Each test follows one message from the client to what the receiver stored, and to the event with the id that the client
//! was told. What these programs are is said by `scripts/setup test`; a test whose program is missing fails and names it.
//! Every daemon here is an instance of its own: own directory, own port, started and ended by the test.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "helpers of tests: they may panic, and they look at the clock to give up"
)]

mod aiosmtpd;
mod bodies;
mod clients;
pub(crate) mod dkim;
mod greylist;
mod hops;
mod hostile;
mod knot;
mod logins;
mod names;
mod postfix;
mod proxies;
mod receivers;
mod relays;
mod reports;
mod sink;
mod tools;
mod unpacked;
mod upstream;

/// The one message id in what a program printed.
fn message_id(text: &str) -> String {
    let mut ids = text
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .filter(|word| word.len() == 60 && word.ends_with("-000000"));
    let id = ids.next().unwrap_or_else(|| panic!("no message id in:\n{text}"));
    assert!(ids.all(|other| other == id), "more than one message id in:\n{text}");
    id.to_owned()
}

/// A message as it is sent, CRLF at the ends of lines.
fn message(subject: &str, body: &str) -> String {
    format!(
        "From: App <app@sender.example>\r\nTo: you@receiver.test\r\nSubject: {subject}\r\n\
         Date: Sat, 21 Nov 2026 12:00:00 +0000\r\nMessage-ID: <{subject}@sender.example>\r\n\r\n{body}\r\n"
    )
}

/// The message that arrived without the trace fields at its top; their text, unfolded.
///
/// Each hop puts its own in front; what was handed in follows them unchanged.
fn split_trace(arrived: &str) -> (Vec<String>, &str) {
    const TRACE: [&str; 5] = ["return-path:", "delivered-to:", "x-original-to:", "received:", "x-peer:"];
    let mut fields: Vec<String> = Vec::new();
    let mut rest = arrived;
    while let Some((line, after)) = rest.split_once('\n') {
        let line = line.trim_end_matches('\r');
        let is_trace = TRACE.iter().any(|name| line.to_ascii_lowercase().starts_with(name));
        match fields.last_mut() {
            _ if is_trace => fields.push(line.to_owned()),
            Some(field) if line.starts_with([' ', '\t']) => {
                field.push(' ');
                field.push_str(line.trim());
            }
            _ => break,
        }
        rest = after;
    }
    (fields, rest)
}

/// Postfix and many others store lines as the system does.
fn with_lf(text: &str) -> String {
    text.replace("\r\n", "\n")
}
