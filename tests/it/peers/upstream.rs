//! A Postfix that relays all its mail to us, as an existing installation would that moves to posthaste.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use serde_json::Value;

use super::postfix::Postfix;
use super::sink::SmtpSink;
use super::tools::{Background, poll, program, run};
use super::{message, message_id, split_trace, with_lf};
use crate::harness::{Certificate, Events, Lab};

const SENDER: &str = "app@sender.example";
const RECIPIENT: &str = "you@receiver.test";

/// Postfix comes back to a host that was down within seconds.
const QUICK_RETRIES: &str = "minimal_backoff_time = 1s\nmaximal_backoff_time = 1s\nqueue_run_delay = 1s\n";

/// Addresses of the receiver and of the upstream.
fn addresses(lab: &Lab) -> (SocketAddr, SocketAddr) {
    lab.domain("receiver.test", &[2]);
    let address = |host: u8| SocketAddr::new(IpAddr::V4(lab.ip(host)), lab.port());
    (address(2), address(3))
}

#[test]
fn mail_from_sendmail_goes_through_postfix_and_us_into_a_mailbox() {
    let lab = Lab::new();
    let (receiver, upstream) = addresses(&lab);
    let receiver = Postfix::receiver(receiver, &[RECIPIENT]);
    let daemon = lab.daemon();
    let upstream = Postfix::upstream(upstream, daemon.smtp_addr(), "");
    let sent = message("sendmail", "one\r\n.\r\n..two\r\nend");
    upstream.sendmail(SENDER, &[RECIPIENT], &sent);
    let id = message_id(&upstream.wait_log(&["to=<you@receiver.test>", "status=sent"]));
    daemon.events().wait_kind("Delivery", &id, RECIPIENT);
    let stored = receiver.mailbox(RECIPIENT, 1).remove(0);
    let (trace, rest) = split_trace(&stored);
    assert_eq!(rest, with_lf(&sent));
    let received: Vec<_> = trace.iter().filter(|field| field.starts_with("Received:")).collect();
    assert_eq!(received.len(), 3, "receiver, us, upstream: {trace:?}");
    assert!(received[1].contains("from upstream.sender.example") && received[1].contains(&id), "{trace:?}");
}

#[test]
fn postfix_relays_to_us_over_verified_tls() {
    let lab = Lab::new();
    let (receiver, upstream) = addresses(&lab);
    let sink = SmtpSink::start(receiver, &[]);
    let (certificate, key) = Certificate::for_name("relay.sender.example").write(lab.dir());
    let listener = format!(
        "[[listener]]\nname = \"smtp\"\naddress = \"127.0.0.1:0\"\ntls = \"starttls\"\n\
         certificate = {certificate:?}\nkey = {key:?}\n"
    );
    let daemon = lab.daemon_with(lab.config().without_tables("listener").table(&listener));
    let settings = format!(
        "smtp_tls_security_level = verify\nsmtp_tls_verify_cert_match = relay.sender.example\n\
         smtp_tls_CAfile = {}\n",
        certificate.display()
    );
    let upstream = Postfix::upstream(upstream, daemon.smtp_addr(), &settings);
    upstream.sendmail(SENDER, &[RECIPIENT], &message("tls-upstream", "hello"));
    let id = message_id(&upstream.wait_log(&["to=<you@receiver.test>", "status=sent"]));
    let delivery = daemon.events().wait_kind("Delivery", &id, RECIPIENT);
    assert_eq!(delivery["mail"]["tags"]["ses:source-tls-version"][0], "TLSv1.3", "{delivery}");
    assert_eq!(sink.wait(1).len(), 1);
}

/// Messages of the load test.
const MESSAGES: usize = 200;

#[test]
fn load_through_postfix_and_us_arrives_once_each() {
    let lab = Lab::new();
    let (receiver, upstream_address) = addresses(&lab);
    let sink = SmtpSink::start(receiver, &[]);
    let daemon = lab.daemon();
    let upstream = Postfix::upstream(upstream_address, daemon.smtp_addr(), "");
    let mut source = Command::new(program("smtp-source"));
    source.args(["-s", "5", "-m", &MESSAGES.to_string(), "-N", "-d", "-f", SENDER, "-t", RECIPIENT]);
    run(source.arg(upstream_address.to_string()), b"");
    upstream.wait_empty();
    let mut events = daemon.events();
    let ids = events.wait_until(|seen| {
        let delivered = seen.iter().filter(|event| event["eventType"] == "Delivery");
        let ids: Vec<_> = delivered.map(|event| event["mail"]["messageId"].as_str().unwrap().to_owned()).collect();
        (ids.len() >= MESSAGES).then_some(ids)
    });
    let log = upstream.log();
    assert_eq!(log.matches("status=sent").count(), MESSAGES);
    for id in ids {
        assert_eq!(log.matches(&id).count(), 1, "{id}");
    }
    assert_eq!(sink.wait(MESSAGES).len(), MESSAGES);
}

/// Messages of the crash test, and how many are delivered before the crash.
const CRASH_MESSAGES: usize = 400;
const CRASH_AFTER: usize = 50;

#[test]
fn a_crash_of_ours_loses_no_mail_of_an_upstream_postfix() {
    let lab = Lab::new();
    let (receiver, upstream_address) = addresses(&lab);
    let sink = SmtpSink::start(receiver, &[]);
    // The same address after the crash as before.
    let ours = SocketAddr::new(IpAddr::V4(lab.ip(4)), lab.port());
    let listener = format!("[[listener]]\nname = \"smtp\"\naddress = \"{ours}\"\n");
    let mut daemon = lab.daemon_with(lab.config().without_tables("listener").table(&listener));
    let upstream = Postfix::upstream(upstream_address, ours, QUICK_RETRIES);
    let mut source = Command::new(program("smtp-source"));
    source.args(["-s", "10", "-m", &CRASH_MESSAGES.to_string(), "-N", "-d", "-f", SENDER, "-t", RECIPIENT]);
    let _source = Background::start(source.arg(upstream_address.to_string()));
    let delivered = |seen: &[Value]| seen.iter().filter(|event| event["eventType"] == "Delivery").count();
    daemon.events().wait_until(|seen| (delivered(seen) >= CRASH_AFTER).then_some(()));
    daemon.kill();
    let before_crash = delivered(&Events::read_all(&daemon.events_path()));
    assert!(before_crash < CRASH_MESSAGES, "the crash came too late to prove anything");
    daemon.start_again();
    poll("every recipient gets its mail", || {
        upstream.flush();
        let recipients: HashSet<String> = sink.dumps().into_iter().flat_map(|dump| dump.rcpt_args).collect();
        (recipients.len() == CRASH_MESSAGES).then_some(())
    });
    upstream.wait_empty();
    daemon.wait_empty();
    let log = upstream.log();
    let told: HashSet<_> = log.lines().filter(|line| line.contains("status=sent")).map(message_id).collect();
    assert_eq!(told.len(), CRASH_MESSAGES);
    // What Postfix was told to be safe, before the crash or after it, has its event by the id that it was told. Events are
    // published once they are synced, a little later than the queue is empty.
    let delivered_ids = |seen: &[Value]| -> Vec<String> {
        let delivered = seen.iter().filter(|event| event["eventType"] == "Delivery");
        delivered.map(|event| event["mail"]["messageId"].as_str().unwrap().to_owned()).collect()
    };
    let ids = daemon.events().wait_until(|seen| {
        let ids = delivered_ids(seen);
        told.is_subset(&ids.iter().cloned().collect()).then_some(ids)
    });
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "one Delivery a message");
}

#[test]
fn what_we_refuse_postfix_returns_to_its_sender() {
    let lab = Lab::new();
    let (receiver, upstream) = addresses(&lab);
    lab.domain("sender.example", &[2]);
    let receiver = Postfix::receiver(receiver, &[RECIPIENT, SENDER]);
    let daemon = lab.daemon_with(lab.config().set("reception.message_size_max", "\"256KiB\""));
    let upstream = Postfix::upstream(upstream, daemon.smtp_addr(), "");
    upstream.sendmail(SENDER, &[RECIPIENT], &message("too-large", &"0123456789\r\n".repeat(30_000)));
    // Postfix reads SIZE of our EHLO, does not even try, and its notice goes through us to the sender.
    upstream.wait_log(&["to=<you@receiver.test>", "status=bounced", "dsn=5.3.4"]);
    let id = message_id(&upstream.wait_log(&["to=<app@sender.example>", "status=sent"]));
    let delivery = daemon.events().wait_kind("Delivery", &id, SENDER);
    assert_eq!(delivery["mail"]["source"], "", "{delivery}");
    let notice = receiver.mailbox(SENDER, 1).remove(0);
    assert!(notice.contains("Return-Path: <>") && notice.contains("Action: failed"), "{notice}");
}
