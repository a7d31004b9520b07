//! Recipients unsubscribe, by one click (RFC 8058), by a page or by mail: from one configuration set, at once, for good.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::harness::*;

const FROM: &str = "app@sender.example";
const TO: &str = "you@example.test";
const ONE_CLICK: &str = "List-Unsubscribe=One-Click";

/// A daemon with two sets, whose links lead to itself.
struct Streams {
    lab: Lab,
    mx: Mx,
    daemon: Daemon,
    certificate: Option<Certificate>,
}

impl Streams {
    fn new(certificate: Option<Certificate>, change: impl FnOnce(ConfigText) -> ConfigText) -> Self {
        Self::under(Lab::new(), &[], certificate, change)
    }

    /// The same, by a wrapper such as the shim's.
    fn under(
        lab: Lab,
        wrapper: &[String],
        certificate: Option<Certificate>,
        change: impl FnOnce(ConfigText) -> ConfigText,
    ) -> Self {
        let mx = lab.mx(2);
        lab.domain("example.test", &[2]);
        let mut config = lab
            .config()
            .set("return_path.domain", "\"bounces.op.test\"")
            .set("unsubscribe.url", "\"https://localhost/u/\"")
            .set("unsubscribe.address", "\"127.0.0.1:0\"")
            .table("[[listener]]\nname = \"home\"\naddress = \"127.0.0.1:0\"\ntakes = \"feedback\"\n");
        if let Some(certificate) = &certificate {
            let (chain, key) = certificate.write(lab.dir());
            config = config
                .set("unsubscribe.certificate", &format!("{:?}", chain.to_str().unwrap()))
                .set("unsubscribe.key", &format!("{:?}", key.to_str().unwrap()));
        }
        for set in ["news", "offers"] {
            config = config.table(&format!("[[configuration_set]]\nname = \"{set}\"\nbulk = true\n"));
        }
        let daemon = Daemon::start_under(lab.dir(), change(config), wrapper);
        Self { lab, mx, daemon, certificate }
    }

    fn submit(&self, set: &str) -> String {
        let message = format!(
            "From: {FROM}\r\nTo: {TO}\r\nSubject: {set}\r\nX-SES-CONFIGURATION-SET: {set}\r\n\
             X-SES-MESSAGE-TAGS: campaign=spring\r\n\r\nhello\r\n"
        );
        self.lab.client(&self.daemon).send(FROM, &[TO], &message)
    }

    /// Sends a message that is delivered: its id, and the URIs of its `List-Unsubscribe`.
    fn send(&self, set: &str) -> (String, String, String) {
        let before = self.mx.accepted().len();
        let id = self.submit(set);
        let text = self.mx.wait_accepted(before + 1)[before].text();
        self.daemon.events().wait_kind("Delivery", &id, TO);
        let uri = |scheme: &str| {
            let at = text.find(&format!("<{scheme}")).unwrap_or_else(|| panic!("no {scheme} in {text}"));
            text[at + 1..].split('>').next().unwrap().to_owned()
        };
        assert!(text.contains("List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"), "{text}");
        (id, uri("https:"), uri("mailto:"))
    }

    /// What comes back for a request at a link.
    fn ask(&self, method: &str, link: &str, body: &str) -> String {
        let path = link.strip_prefix("https://localhost").unwrap_or(link);
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let stream = TcpStream::connect(self.daemon.listener_addr("unsubscribe")).unwrap();
        match &self.certificate {
            Some(certificate) => exchange(certificate.connect(stream).unwrap(), &request),
            None => exchange(stream, &request),
        }
    }

    fn events_of(&self, id: &str, kind: &str) -> Vec<Value> {
        let events = Events::read_all(&self.daemon.events_path());
        events.into_iter().filter(|event| event["mail"]["messageId"] == id && event["eventType"] == kind).collect()
    }

    fn is_held_back(&self, set: &str) {
        let id = self.submit(set);
        let event = self.daemon.events().wait_kind("Bounce", &id, TO);
        assert_eq!(event["bounce"]["bounceSubType"], "UnsubscribedRecipient", "{event:#}");
    }
}

fn exchange(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A server that closes without a TLS alert has still said all.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[test]
fn one_click_unsubscribes_from_its_set_alone_once_through_kill_9() {
    let mut streams = Streams::new(Some(Certificate::for_name("localhost")), |config| config);
    let (id, link, _) = streams.send("news");
    let answer = streams.ask("POST", &link, ONE_CLICK);
    assert_eq!(status(&answer), "200", "{answer}");
    // 200 means that it is on the disk.
    streams.daemon.kill();
    streams.daemon.start_again();
    let event = streams.daemon.events().wait_for(|event| event["eventType"] == "Subscription");
    assert_eq!((&event["mail"]["messageId"], &event["posthaste"]["recipient"]), (&id.as_str().into(), &TO.into()));
    assert_eq!(event["subscription"]["contactList"], "news");
    assert_eq!(event["subscription"]["newTopicPreferences"]["unsubscribeAll"], true);
    assert_eq!(event["mail"]["tags"]["campaign"], serde_json::json!(["spring"]), "{event:#}");
    assert_eq!(event["posthaste"]["rule"], "unsubscribe-one-click");
    streams.is_held_back("news");
    streams.send("offers");
    // A mail program that saw no answer asks again.
    assert_eq!(status(&streams.ask("POST", &link, ONE_CLICK)), "200");
    streams.is_held_back("news");
    assert_eq!(streams.events_of(&id, "Subscription").len(), 1);
    let sent = streams.daemon.cli(&["queue", "sent", &id]);
    assert!(sent["recipients"][0]["unsubscribed_at"].is_string(), "{sent:#}");
    streams.daemon.stop();
}

#[test]
fn who_subscribed_again_can_unsubscribe_again_by_an_old_message() {
    let streams = Streams::new(None, |config| config);
    let (id, link, _) = streams.send("news");
    assert_eq!(status(&streams.ask("POST", &link, ONE_CLICK)), "200");
    let entry = streams.daemon.cli(&["suppression", "get", TO, "--set", "news"]);
    assert_eq!(entry["Reason"], "UNSUBSCRIBE", "{entry:#}");
    streams.daemon.cli(&["suppression", "remove", TO, "--set", "news"]);
    streams.send("news");
    assert_eq!(status(&streams.ask("POST", &link, ONE_CLICK)), "200");
    streams.is_held_back("news");
    assert_eq!(streams.events_of(&id, "Subscription").len(), 2);
    streams.daemon.stop();
}

#[test]
fn a_look_at_a_link_changes_nothing_and_a_request_that_is_none_is_refused() {
    let streams = Streams::new(None, |config| config);
    let (id, link, mailto) = streams.send("news");
    let page = streams.ask("GET", &link, "");
    assert!(status(&page) == "200" && page.contains("<form method=\"post\">"), "{page}");
    assert!(page.contains("cache-control: no-store") && page.contains("referrer-policy: no-referrer"), "{page}");
    let forged = if link.ends_with('a') {
        format!("{}b", &link[..link.len() - 1])
    } else {
        format!("{}a", &link[..link.len() - 1])
    };
    // That of the mailto address is the same token, and one of a return path is none.
    let return_path = streams.mx.accepted()[0].from.clone();
    let of_return_path = format!("/u/{}", return_path.split('@').next().unwrap());
    let too_long = format!("{ONE_CLICK}&{}", "x".repeat(5_000));
    for (method, link, body, expected) in [
        ("HEAD", link.as_str(), "", "200"),
        ("PUT", &link, ONE_CLICK, "405"),
        ("POST", &link, "", "400"),
        ("POST", &link, "action=yes", "400"),
        ("POST", &link, &too_long, "400"),
        ("POST", &forged, ONE_CLICK, "404"),
        ("GET", &forged, "", "404"),
        ("POST", &of_return_path, ONE_CLICK, "404"),
        ("GET", "/", "", "404"),
        ("POST", "/favicon.ico", ONE_CLICK, "404"),
        ("OPTIONS", "*", "", "405"),
    ] {
        let answer = streams.ask(method, link, body);
        assert_eq!(status(&answer), expected, "{method} {link}: {answer}");
    }
    let token = mailto.strip_prefix("mailto:unsub-").unwrap().split('@').next().unwrap();
    assert!(link.ends_with(token));
    assert!(streams.events_of(&id, "Subscription").is_empty());
    streams.send("news");
    streams.daemon.stop();
}

#[test]
fn requests_are_understood_in_each_form_that_programs_and_proxies_give_them() {
    let streams = Streams::new(None, |config| config);
    let (id, link, _) = streams.send("news");
    let path = link.strip_prefix("https://localhost").unwrap();
    let address = streams.daemon.listener_addr("unsubscribe");
    let parts = "--b\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--b--\r\n";
    let chunked = format!("{:x}\r\n{ONE_CLICK}\r\n0\r\n\r\n", ONE_CLICK.len());
    let expecting = format!("Content-Length: {}\r\nExpect: 100-continue", ONE_CLICK.len());
    for (line, fields, body) in [
        (
            format!("POST {path}/ HTTP/1.1"),
            format!("Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {}", parts.len()),
            parts,
        ),
        (format!("POST {path}?utm_source=mail HTTP/1.1"), "Transfer-Encoding: chunked".to_owned(), chunked.as_str()),
        (format!("POST http://localhost{path} HTTP/1.1"), expecting, ONE_CLICK),
        (format!("POST {path} HTTP/1.0"), format!("Content-Length: {}", ONE_CLICK.len()), ONE_CLICK),
    ] {
        let request = format!("{line}\r\nHost: localhost\r\n{fields}\r\n\r\n{body}");
        let answer = exchange(TcpStream::connect(address).unwrap(), &request);
        assert!(answer.contains(" 200 OK\r\n") && answer.contains("Unsubscribed"), "{line}: {answer}");
    }
    streams.is_held_back("news");
    assert_eq!(streams.events_of(&id, "Subscription").len(), 1);
    streams.daemon.stop();
}

#[test]
fn of_many_who_ask_at_once_for_one_that_subscribed_again_one_is_told_of() {
    let streams = Streams::new(None, |config| config);
    let (id, link, _) = streams.send("news");
    assert_eq!(status(&streams.ask("POST", &link, ONE_CLICK)), "200");
    streams.daemon.cli(&["suppression", "remove", TO, "--set", "news"]);
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..20).map(|_| scope.spawn(|| streams.ask("POST", &link, ONE_CLICK))).collect();
        all.into_iter().for_each(|ask| assert_eq!(status(&ask.join().unwrap()), "200"));
    });
    streams.is_held_back("news");
    assert_eq!(streams.events_of(&id, "Subscription").len(), 2);
    streams.daemon.stop();
}

#[test]
fn each_recipient_of_a_message_leaves_alone() {
    let streams = Streams::new(None, |config| config);
    let other = "other@example.test";
    let message = "From: app@sender.example\r\nSubject: two\r\nX-SES-CONFIGURATION-SET: news\r\n\r\nhello\r\n";
    let id = streams.lab.client(&streams.daemon).send(FROM, &[TO, other], message);
    let sent = streams.mx.wait_accepted(2);
    [TO, other].iter().for_each(|to| drop(streams.daemon.events().wait_kind("Delivery", &id, to)));
    let of_other = sent.iter().find(|sent| sent.recipients == [other]).unwrap().text();
    let link = of_other.split("<https:").nth(1).unwrap().split('>').next().unwrap();
    assert_eq!(status(&streams.ask("POST", &format!("https:{link}"), ONE_CLICK)), "200");
    let event = streams.daemon.events().wait_for(|event| event["eventType"] == "Subscription");
    assert_eq!(event["posthaste"]["recipient"], other);
    streams.send("news");
    streams.daemon.stop();
}

#[test]
fn without_a_link_there_is_an_address_unless_recipients_share_transactions() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let set = |name: &str, rest: &str| format!("[[configuration_set]]\nname = \"{name}\"\nbulk = true\n{rest}");
    let config = lab
        .config()
        .set("return_path.domain", "\"bounces.op.test\"")
        .table("[[listener]]\nname = \"home\"\naddress = \"127.0.0.1:0\"\ntakes = \"feedback\"\n")
        .table(&set("news", ""))
        .table(&set("shared", "return_path = \"per-message\"\n"));
    let daemon = lab.daemon_with(config);
    let message = |set: &str, own: &str| {
        format!("From: {FROM}\r\n{own}Subject: x\r\nX-SES-CONFIGURATION-SET: {set}\r\n\r\nhello\r\n")
    };
    let page = "List-Unsubscribe: <https://shop.test/off>\r\n";
    let mail = "List-Unsubscribe: <mailto:off@shop.test>\r\n";
    let mut seen = Vec::new();
    for (set, own) in [("news", ""), ("shared", ""), ("news", page), ("news", mail)] {
        lab.client(&daemon).send(FROM, &[TO], &message(set, own));
        let text = mx.wait_accepted(seen.len() + 1)[seen.len()].text();
        assert!(!text.contains("List-Unsubscribe-Post"), "{text}");
        seen.push((text.contains("<mailto:unsub-"), text.matches("List-Unsubscribe:").count(), text.contains(own)));
    }
    assert_eq!(seen, [(true, 1, true), (false, 0, true), (false, 1, true), (false, 1, true)]);
    daemon.stop();
}

#[test]
fn a_reload_takes_the_new_certificate() {
    let mut streams = Streams::new(Some(Certificate::for_name("localhost")), |config| config);
    let (_, link, _) = streams.send("news");
    assert_eq!(status(&streams.ask("GET", &link, "")), "200");
    let renewed = Certificate::for_name("localhost");
    renewed.write(streams.lab.dir());
    streams.daemon.reload(|config| config);
    // The old one is trusted no more: a handshake with it would fail.
    streams.certificate = Some(renewed);
    assert_eq!(status(&streams.ask("GET", &link, "")), "200");
    streams.daemon.stop();
}

#[test]
fn while_nothing_can_be_written_a_request_is_put_off_and_later_it_counts() {
    let lab = Lab::new();
    let shim = Shim::new(lab.dir());
    let streams = Streams::under(lab, &shim.wrapper(), None, |config| config);
    let (id, link, _) = streams.send("news");
    shim.set("store * 0 full");
    let answer = streams.ask("POST", &link, ONE_CLICK);
    assert!(status(&answer) == "503" && answer.contains("retry-after: 60\r\n"), "{answer}");
    shim.clear();
    let asked = || (status(&streams.ask("POST", &link, ONE_CLICK)) == "200").then_some(());
    poll(asked, || streams.daemon.log_tail());
    streams.is_held_back("news");
    assert_eq!(streams.events_of(&id, "Subscription").len(), 1);
    streams.daemon.stop();
}

#[test]
fn an_own_page_is_shown_in_place_of_ours_and_a_post_is_never_redirected() {
    let streams = Streams::new(None, |config| config.set("unsubscribe.page", "\"https://shop.test/off?t=\""));
    let (_, link, _) = streams.send("news");
    let token = link.rsplit('/').next().unwrap();
    let answer = streams.ask("GET", &link, "");
    assert!(
        status(&answer) == "303" && answer.contains(&format!("location: https://shop.test/off?t={token}\r\n")),
        "{answer}"
    );
    assert_eq!(status(&streams.ask("POST", &link, ONE_CLICK)), "200");
    streams.is_held_back("news");
    streams.daemon.stop();
}

#[test]
fn a_complaint_in_which_nothing_is_left_but_the_link_finds_its_message() {
    let streams = Streams::new(None, |config| config);
    let (id, link, _) = streams.send("news");
    let report = format!(
        "From: <fbl@provider.test>\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=feedback-report; boundary=\"b\"\r\n\r\n\
         --b\r\nContent-Type: message/feedback-report\r\n\r\n\
         Feedback-Type: abuse\r\nUser-Agent: FBL/1\r\nVersion: 1\r\n\r\n\
         --b\r\nContent-Type: text/rfc822-headers\r\n\r\n\
         To: [redacted]\r\nList-Unsubscribe: <{link}>\r\n\
         --b--\r\n"
    );
    Client::hello(streams.daemon.listener_addr("home")).send("", &["abuse@bounces.op.test"], &report);
    let event = streams.daemon.events().wait_kind("Complaint", &id, TO);
    assert_eq!(event["complaint"]["complaintFeedbackType"], "abuse");
    assert!(streams.events_of(&id, "Subscription").is_empty());
    streams.daemon.stop();
}

#[test]
fn mail_to_the_address_in_the_header_unsubscribes_and_an_automatic_answer_to_it_does_not() {
    let streams = Streams::new(None, |config| config);
    let (id, _, mailto) = streams.send("news");
    let address = mailto.strip_prefix("mailto:").unwrap().split('?').next().unwrap().to_owned();
    let home = || Client::hello(streams.daemon.listener_addr("home"));
    let away = "From: you@example.test\r\nSubject: away\r\nAuto-Submitted: auto-replied\r\n\r\nI am away.\r\n";
    home().send(TO, &[&address], away);
    streams.send("news");
    let (token, domain) = address.split_once('@').unwrap();
    let last = if token.ends_with('a') { "b" } else { "a" };
    let mut stranger = home();
    stranger.command("MAIL FROM:<you@example.test>").unwrap();
    let forged = format!("RCPT TO:<{}{last}@{domain}>", &token[..token.len() - 1]);
    assert_eq!(stranger.command(&forged).unwrap().code, 550);
    let request = "From: you@example.test\r\nSubject: unsubscribe\r\n\r\n";
    for address in [address.to_uppercase(), address.clone()] {
        home().send(TO, &[&address], request);
    }
    streams.is_held_back("news");
    streams.send("offers");
    let told = streams.events_of(&id, "Subscription");
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["posthaste"]["rule"], "unsubscribe-mail");
    streams.daemon.stop();
}
