//! Servers that take mail: what they store is what was handed in, and they are told what they need to know of it.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use super::aiosmtpd::Aiosmtpd;
use super::postfix::Postfix;
use super::sink::SmtpSink;
use super::tools::{program, python, run, script};
use super::{message, message_id, split_trace, with_lf};
use crate::harness::{Certificate, ConfigText, Daemon, Lab};

const SENDER: &str = "app@sender.example";
const RECIPIENT: &str = "you@receiver.test";

/// Where the mail host of receiver.test listens.
fn receiver_address(lab: &Lab) -> SocketAddr {
    lab.domain("receiver.test", &[2]);
    SocketAddr::new(IpAddr::V4(lab.ip(2)), lab.port())
}

/// Bodies go out as they came.
fn passing(lab: &Lab) -> ConfigText {
    lab.config().set("reception.eight_bit_bodies", "\"pass\"")
}

fn smtplib(daemon: &Daemon, sender: &str, recipient: &str, options: &[&str], message: &str) -> String {
    let server = daemon.smtp_addr();
    let mut command = python();
    command.arg(script("smtplib_client.py")).arg(server.ip().to_string()).arg(server.port().to_string());
    command.args([sender, recipient]);
    for option in options {
        command.args(["--option", option]);
    }
    run(&mut command, message.as_bytes())
}

#[test]
fn an_internationalised_address_goes_from_smtplib_to_an_aiosmtpd_that_takes_it() {
    let lab = Lab::new();
    let receiver = Aiosmtpd::start(receiver_address(&lab), &["--utf8"]);
    let daemon = lab.daemon_with(passing(&lab));
    let sent = message("utf8", "Grüße").replace("To: you@", "To: jürgen@");
    let printed = smtplib(&daemon, SENDER, "jürgen@receiver.test", &["SMTPUTF8", "BODY=8BITMIME"], &sent);
    daemon.events().wait_kind("Delivery", &message_id(&printed), "jürgen@receiver.test");
    let arrived = receiver.wait(1).remove(0);
    assert_eq!(arrived.recipients, ["jürgen@receiver.test"]);
    assert!(arrived.options.contains(&"SMTPUTF8".to_owned()), "{:?}", arrived.options);
    assert!(arrived.content.ends_with(sent.as_bytes()));
}

#[test]
fn an_internationalised_address_bounces_at_an_aiosmtpd_that_does_not_take_it() {
    let lab = Lab::new();
    let receiver = Aiosmtpd::start(receiver_address(&lab), &[]);
    let daemon = lab.daemon();
    let mut events = daemon.events();
    let options = ["SMTPUTF8", "BODY=8BITMIME"];
    let printed = smtplib(&daemon, SENDER, "jürgen@receiver.test", &options, &message("utf8-refused", "hello"));
    let bounce = events.wait_kind("Bounce", &message_id(&printed), "jürgen@receiver.test");
    assert_eq!(bounce["bounce"]["bouncedRecipients"][0]["status"], "5.6.7", "{bounce}");
    // The connection and the daemon go on: a plain address at the same host gets its mail.
    let printed = smtplib(&daemon, SENDER, RECIPIENT, &[], &message("plain", "hello"));
    events.wait_kind("Delivery", &message_id(&printed), RECIPIENT);
    assert_eq!(receiver.wait(1).remove(0).recipients, [RECIPIENT]);
}

#[test]
fn what_only_the_client_calls_internationalised_goes_to_an_aiosmtpd_that_does_not_take_it() {
    let lab = Lab::new();
    let receiver = Aiosmtpd::start(receiver_address(&lab), &[]);
    lab.domain("xn--bcher-kva.test", &[2]);
    let daemon = lab.daemon();
    let mut events = daemon.events();
    let options = ["SMTPUTF8", "BODY=8BITMIME"];
    // The domain has a spelling in ASCII; the header is ASCII; the body needs 8BITMIME only.
    for recipient in [RECIPIENT, "info@bücher.test"] {
        let printed = smtplib(&daemon, SENDER, recipient, &options, &message("ascii-after-all", "Grüße"));
        let id = message_id(&printed);
        events.wait_for(|event| event["eventType"] == "Delivery" && event["mail"]["messageId"] == id.as_str());
    }
    let arrived = receiver.wait(2);
    assert_eq!(arrived[0].recipients, [RECIPIENT]);
    assert_eq!(arrived[1].recipients, ["info@xn--bcher-kva.test"]);
    assert!(arrived.iter().all(|arrived| !arrived.options.contains(&"SMTPUTF8".to_owned())), "{arrived:?}");
}

#[test]
fn an_8bit_body_is_declared_and_arrives_unchanged() {
    let lab = Lab::new();
    let receiver = Aiosmtpd::start(receiver_address(&lab), &[]);
    let daemon = lab.daemon_with(passing(&lab));
    let sent = message("8bit", "Zażółć gęślą jaźń");
    let printed = smtplib(&daemon, SENDER, RECIPIENT, &["BODY=8BITMIME"], &sent);
    daemon.events().wait_kind("Delivery", &message_id(&printed), RECIPIENT);
    let arrived = receiver.wait(1).remove(0);
    assert!(arrived.options.contains(&"BODY=8BITMIME".to_owned()), "{:?}", arrived.options);
    assert!(arrived.content.ends_with(sent.as_bytes()));
}

#[test]
fn an_8bit_body_goes_undeclared_and_unchanged_to_a_sink_without_8bitmime() {
    let lab = Lab::new();
    let sink = SmtpSink::start(receiver_address(&lab), &["-8"]);
    let daemon = lab.daemon_with(passing(&lab));
    let mail = format!("<{SENDER}> BODY=8BITMIME");
    let sent = message("7bit-sink", "Zażółć");
    let id = lab.client(&daemon).send(&mail, &[RECIPIENT], &sent);
    daemon.events().wait_kind("Delivery", &id, RECIPIENT);
    let dump = sink.wait(1).remove(0);
    assert_eq!(dump.mail_args, format!("<{SENDER}>"));
    assert!(dump.message.ends_with(&with_lf(&sent)), "{}", dump.message);
}

#[test]
fn mail_goes_by_starttls_to_an_aiosmtpd_that_requires_it() {
    let lab = Lab::new();
    let (certificate, key) = Certificate::for_name("mx2.receiver.test").write(lab.dir());
    let receiver = Aiosmtpd::start_tls(receiver_address(&lab), &certificate, &key);
    let daemon = lab.daemon();
    let id = lab.client(&daemon).send(SENDER, &[RECIPIENT], &message("tls", "hello"));
    let delivery = daemon.events().wait_kind("Delivery", &id, RECIPIENT);
    assert!(delivery["posthaste"]["tls"].as_str().is_some_and(|version| version.starts_with("TLSv1.")), "{delivery}");
    assert!(receiver.wait(1).remove(0).is_tls);
}

#[test]
fn postfix_stores_what_was_handed_in_below_our_received() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(receiver_address(&lab), &[RECIPIENT, "second@receiver.test"]);
    let daemon = lab.daemon_with(passing(&lab));
    let mut events = daemon.events();
    let sent = message("stored", "one\r\n.\r\n.two\r\n\r\nŻółć\r\nend");
    let recipients = [RECIPIENT, "unknown@receiver.test", "second@receiver.test"];
    let stuffed = sent.replace("\r\n.", "\r\n..");
    let id = lab.client(&daemon).send(&format!("<{SENDER}> BODY=8BITMIME"), &recipients, &stuffed);
    for mailbox in [RECIPIENT, "second@receiver.test"] {
        let delivery = events.wait_kind("Delivery", &id, mailbox);
        assert!(delivery["delivery"]["smtpResponse"].as_str().unwrap().contains("queued as"), "{delivery}");
        let stored = postfix.mailbox(mailbox, 1).remove(0);
        let (trace, rest) = split_trace(&stored);
        assert_eq!(rest, with_lf(&sent));
        let received: Vec<_> = trace.iter().filter(|field| field.starts_with("Received:")).collect();
        assert_eq!(received.len(), 2, "Postfix's and ours: {trace:?}");
        assert!(
            received[0].contains("by mx.receiver.test") && received[0].contains("from sender.example"),
            "{trace:?}"
        );
        assert!(received[1].contains("by sender.example with ESMTP") && received[1].contains(&id), "{trace:?}");
        assert!(trace.contains(&format!("Return-Path: <{SENDER}>")), "{trace:?}");
    }
    // Postfix knows its mailboxes: the third recipient is refused by itself.
    let bounce = events.wait_kind("Bounce", &id, "unknown@receiver.test");
    assert_eq!(bounce["bounce"]["bouncedRecipients"][0]["status"], "5.1.1", "{bounce}");
}

#[test]
fn postfix_gets_the_parameters_of_a_delivery_notification() {
    let lab = Lab::new();
    lab.domain("sender.example", &[2]);
    // The sender has its mailbox there too, so the notification that Postfix writes can be read.
    let postfix = Postfix::receiver(receiver_address(&lab), &[RECIPIENT, SENDER]);
    let daemon = lab.daemon();
    let mut client = lab.client(&daemon);
    let mail = format!("<{SENDER}> RET=HDRS ENVID=order+2B1");
    let recipient = format!("<{RECIPIENT}> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;first+2Bowner@elsewhere.example");
    let id = client.send(&mail, &[&recipient], &message("dsn", "the body"));
    daemon.events().wait_kind("Delivery", &id, RECIPIENT);
    let notification = postfix.mailbox(SENDER, 1).remove(0);
    for part in [
        "Reporting-MTA: dns; mx.receiver.test",
        "Original-Envelope-Id: order+1",
        "Original-Recipient: rfc822;first+owner@elsewhere.example",
        "Action: delivered",
    ] {
        assert!(notification.contains(part), "{part:?} is not in\n{notification}");
    }
    assert!(!notification.contains("the body"), "RET=HDRS\n{notification}");
    // Who passes NOTIFY on does not notify itself.
    daemon.wait_empty();
    assert_eq!(postfix.mailbox(SENDER, 1).len(), 1);
}

/// Messages of the load test, and the sessions that hand them in at the same time.
const LOAD_MESSAGES: usize = 500;
const LOAD_SESSIONS: usize = 20;

#[test]
fn load_from_smtp_source_arrives_at_smtp_sink_without_loss_or_repetition() {
    let lab = Lab::new();
    let sink = SmtpSink::start(receiver_address(&lab), &[]);
    let daemon = lab.daemon();
    let (sessions, messages) = (LOAD_SESSIONS.to_string(), LOAD_MESSAGES.to_string());
    let mut source = Command::new(program("smtp-source"));
    // -N numbers the recipients: 1you@receiver.test and so on.
    source.args(["-s", &sessions, "-m", &messages, "-l", "5000", "-N", "-d", "-f", SENDER, "-t", RECIPIENT]);
    run(source.arg(daemon.smtp_addr().to_string()), b"");
    let mut events = daemon.events();
    let delivered = events.wait_until(|seen| {
        let delivered = seen.iter().filter(|event| event["eventType"] == "Delivery");
        let ids: Vec<_> = delivered.map(|event| event["mail"]["messageId"].as_str().unwrap().to_owned()).collect();
        (ids.len() >= LOAD_MESSAGES).then_some(ids)
    });
    daemon.wait_empty();
    let dumps = sink.wait(LOAD_MESSAGES);
    assert_eq!(dumps.len(), LOAD_MESSAGES);
    let mut recipients: Vec<_> = dumps.iter().flat_map(|dump| &dump.rcpt_args).collect();
    recipients.sort();
    recipients.dedup();
    assert_eq!(recipients.len(), LOAD_MESSAGES, "each recipient once");
    for id in &delivered {
        assert_eq!(dumps.iter().filter(|dump| dump.message.contains(id)).count(), 1, "{id}");
    }
    let kinds = |kind: &str| events.seen().iter().filter(|event| event["eventType"] == kind).count();
    assert_eq!(["Send", "Delivery", "DeliveryDelay", "Bounce"].map(kinds), [LOAD_MESSAGES, LOAD_MESSAGES, 0, 0]);
}
