//! Bounces that real mail servers make: they take a message, cannot deliver it, and say so to the return path.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::postfix::Postfix;
use super::unpacked::{Neighbours, Unpacked};
use crate::harness::*;

const FROM: &str = "app@sender.example";

/// Longer than servers are told to wait with a warning.
const SLOW: Duration = Duration::from_millis(2_500);

#[test]
fn what_postfix_bounces_after_it_took_it_comes_home_as_a_bounce_of_the_right_message() {
    let lab = Lab::new();
    lab.domain("receiver.test", &[2]);
    let config = lab
        .config()
        .set("return_path.domain", "\"bounces.op.test\"")
        .table("[[listener]]\nname = \"home\"\naddress = \"127.0.0.1:0\"\ntakes = \"feedback\"\n");
    let daemon = lab.daemon_with(config);
    // The host behind Postfix refuses what Postfix has taken.
    let last = lab.mx_scripted(3, |ask| match (ask.stage, ask.recipient) {
        (Stage::Rcpt, "gone@receiver.test") => Answer::say("550 5.1.1 no such user here"),
        (Stage::Rcpt, "strict@receiver.test") => Answer::say("550 5.7.1 not from you"),
        _ => Answer::Usual,
    });
    let (ip, port) = (last.address().ip(), last.address().port());
    let settings = format!("transport_maps = inline:{{ {{ receiver.test = smtp:[{ip}]:{port} }} }}\n");
    let receiver = SocketAddr::new(IpAddr::V4(lab.ip(2)), lab.port());
    let postfix = Postfix::upstream(receiver, daemon.listener_addr("home"), &settings);
    let message = format!("X-SES-MESSAGE-TAGS: campaign=spring\r\n{}", simple("to Postfix"));
    let mut events = daemon.events();
    for (to, class, kinds) in [
        ("gone@receiver.test", "bad-mailbox", ("Permanent", "NoEmail")),
        ("strict@receiver.test", "policy", ("Transient", "General")),
    ] {
        let id = lab.client(&daemon).send("app@sender.example", &[to], &message);
        events.wait_kind("Delivery", &id, to);
        let event = events.wait_kind("Bounce", &id, to);
        let bounce = &event["bounce"];
        assert_eq!((&bounce["bounceType"], &bounce["bounceSubType"]), (&kinds.0.into(), &kinds.1.into()), "{event:#}");
        assert_eq!(bounce["reportingMTA"], "dns; upstream.sender.example");
        assert_eq!(event["posthaste"]["class"], class, "{event:#}");
        assert_eq!(event["mail"]["tags"]["campaign"], serde_json::json!(["spring"]));
    }
    postfix.wait_log(&["removed"]);
    // Only one of them is not there.
    let mut outcome = |to: &str| {
        let id = lab.client(&daemon).send("app@sender.example", &[to], &message);
        let subtype = |event: &serde_json::Value| event["bounce"]["bounceSubType"] == "OnAccountSuppressionList";
        events
            .wait_for(|event| event["mail"]["messageId"] == id && (event["eventType"] == "Delivery" || subtype(event)))
            ["eventType"]
            .clone()
    };
    assert_eq!((outcome("gone@receiver.test"), outcome("strict@receiver.test")), ("Bounce".into(), "Delivery".into()));
    daemon.stop();
}

/// What a server is to say of one recipient, and what is made of it.
struct Case {
    /// At receiver.test.
    mailbox: &'static str,
    /// Type and subtype.
    kinds: (&'static str, &'static str),
    status: &'static str,
    /// Empty: none.
    diagnostic: &'static str,
}

/// The host behind it knows no such user. `status` is that of the report.
const fn gone(status: &'static str) -> Case {
    let diagnostic = "smtp; 550 5.1.1 no such user here";
    Case { mailbox: "gone", kinds: ("Permanent", "NoEmail"), status, diagnostic }
}

/// There the mailbox is full.
const fn full(status: &'static str) -> Case {
    Case { mailbox: "full", kinds: ("Transient", "MailboxFull"), status, diagnostic: "smtp; 552 5.2.2 mailbox full" }
}

/// A server that took mail, hosts before and behind it, and what it says to whom.
struct Scene {
    lab: Lab,
    daemon: Daemon,
    metrics: SocketAddr,
    _server: Unpacked,
    _behind: Mx,
}

impl Scene {
    fn new(start: fn(Neighbours) -> Unpacked) -> Self {
        let lab = Lab::new();
        lab.domain("receiver.test", &[2]);
        let address = |host: u8| SocketAddr::new(IpAddr::V4(lab.ip(host)), lab.port());
        let metrics = address(4);
        let config = lab
            .config()
            .set("return_path.domain", "\"bounces.op.test\"")
            .set("metrics.address", &format!("\"{metrics}\""))
            .table("[[listener]]\nname = \"home\"\naddress = \"127.0.0.1:0\"\ntakes = \"feedback\"\n")
            .table("[[configuration_set]]\nname = \"together\"\nreturn_path = \"per-message\"\n");
        let daemon = lab.daemon_with(config);
        let behind = lab.mx_scripted(3, |ask| match (ask.stage, ask.recipient) {
            (Stage::Rcpt, to) if to.starts_with("gone") => Answer::say("550 5.1.1 no such user here"),
            (Stage::Rcpt, to) if to.starts_with("full") => Answer::say("552 5.2.2 mailbox full"),
            (Stage::Rcpt, to) if to.starts_with("strict") => Answer::say("550 5.7.1 not from you"),
            (Stage::Rcpt, to) if to.starts_with("late") => Answer::Slow(SLOW, Box::new(Answer::say("450 4.2.1 later"))),
            _ => Answer::Usual,
        });
        let server =
            start(Neighbours { here: address(2), behind: behind.address(), home: daemon.listener_addr("home") });
        Self { lab, daemon, metrics, _server: server, _behind: behind }
    }

    /// Sends one message; the server takes it for all, of several in one transaction.
    fn send(&self, mailboxes: &[&str]) -> String {
        let to: Vec<String> = mailboxes.iter().map(|mailbox| format!("{mailbox}@receiver.test")).collect();
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        let set = if to.len() > 1 { "X-SES-CONFIGURATION-SET: together\r\n" } else { "" };
        let message = format!("{set}X-SES-MESSAGE-TAGS: campaign=spring\r\n{}", simple("to be bounced"));
        let id = self.lab.client(&self.daemon).send(FROM, &to, &message);
        for to in to {
            self.daemon.events().wait_kind("Delivery", &id, to);
        }
        id
    }

    /// Once the notification of a delay was taken.
    fn wait_delay(&self) {
        let look = || {
            let mut stream = TcpStream::connect(self.metrics).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            let mut page = String::new();
            stream.read_to_string(&mut page).unwrap();
            page.contains("posthaste_feedback_messages_total{report=\"delay\"}").then_some(())
        };
        poll(look, || "no notification of a delay came home".to_owned());
    }

    fn bounces(&self) -> Vec<(String, String)> {
        let all = Events::read_all(&self.daemon.events_path());
        let bounces = all.iter().filter(|event| event["eventType"] == "Bounce");
        let mut bounces: Vec<_> = bounces
            .flat_map(|event| {
                recipients(event).into_iter().map(|to| (event["mail"]["messageId"].as_str().unwrap().to_owned(), to))
            })
            .collect();
        bounces.sort();
        bounces
    }
}

fn check_bounce(event: &Value, case: &Case) {
    let bounce = &event["bounce"];
    assert_eq!(
        (&bounce["bounceType"], &bounce["bounceSubType"]),
        (&case.kinds.0.into(), &case.kinds.1.into()),
        "{event:#}"
    );
    assert_eq!(bounce["reportingMTA"], "dns; mx.receiver.test", "{event:#}");
    let bounced = &bounce["bouncedRecipients"][0];
    assert_eq!((&bounced["action"], &bounced["status"]), (&"failed".into(), &case.status.into()), "{event:#}");
    assert_eq!(bounced["diagnosticCode"].as_str().unwrap_or_default(), case.diagnostic, "{event:#}");
    assert_eq!(event["mail"]["tags"]["campaign"], serde_json::json!(["spring"]), "{event:#}");
    assert_eq!(event["mail"]["source"], FROM);
}

/// Each case alone, then beside others that get their mail, and one that only waits.
fn check(start: fn(Neighbours) -> Unpacked, cases: &[Case]) {
    let scene = Scene::new(start);
    let late = scene.send(&["late"]);
    let mut wanted = Vec::new();
    let mut events = scene.daemon.events();
    let alone: Vec<(String, Vec<&Case>)> = cases.iter().map(|case| (scene.send(&[case.mailbox]), vec![case])).collect();
    // Who bounced for good is on a list: other mailboxes.
    let more: Vec<String> = cases.iter().take(2).map(|case| format!("{}.too", case.mailbox)).collect();
    let [first, second] = &more[..] else { panic!("two cases at least") };
    let one = (scene.send(&["here", first, "there"]), vec![&cases[0]]);
    let two = (scene.send(&[second, "here", &format!("{first}.also")]), vec![&cases[1], &cases[0]]);
    for (id, cases) in alone.into_iter().chain([one, two]) {
        for case in cases {
            let is_wanted = |event: &Value| {
                event["mail"]["messageId"] == id
                    && event["eventType"] == "Bounce"
                    && recipients(event)[0].starts_with(case.mailbox)
            };
            let event = events.wait_for(is_wanted);
            check_bounce(&event, case);
            wanted.push((id.clone(), recipients(&event).remove(0)));
        }
    }
    scene.wait_delay();
    scene.daemon.stop();
    wanted.sort();
    assert_eq!(scene.bounces(), wanted, "each once, none for {late}");
}

#[test]
fn what_exim_bounces_comes_home() {
    check(
        Unpacked::exim,
        &[
            gone("5.0.0"),
            full("5.0.0"),
            Case {
                mailbox: "strict",
                kinds: ("Transient", "General"),
                status: "5.0.0",
                diagnostic: "smtp; 550 5.7.1 not from you",
            },
            // In words of the administrator's own.
            Case { mailbox: "closed", kinds: ("Undetermined", "Undetermined"), status: "5.0.0", diagnostic: "" },
            Case { mailbox: "lost", kinds: ("Permanent", "NoEmail"), status: "5.0.0", diagnostic: "" },
        ],
    );
}

#[test]
fn what_opensmtpd_bounces_comes_home() {
    check(Unpacked::opensmtpd, &[gone("5.0.0"), full("5.0.0")]);
}

#[test]
fn what_sendmail_bounces_comes_home() {
    check(
        Unpacked::sendmail,
        &[
            gone("5.1.1"),
            full("5.2.2"),
            Case {
                mailbox: "program",
                kinds: ("Undetermined", "Undetermined"),
                status: "5.5.0",
                diagnostic: "x-unix; 69",
            },
        ],
    );
}
