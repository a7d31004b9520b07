//! Scenarios 30 and 31: bounces and complaints come home by SMTP, and become events of the message that they speak of.

use std::net::SocketAddr;

use serde_json::Value;

use crate::harness::*;

pub(crate) const FROM: &str = "app@sender.example";
pub(crate) const TO: &str = "you@example.test";

/// A host that takes everything, a daemon that sends there and takes what comes home.
pub(crate) struct Home {
    pub(crate) lab: Lab,
    pub(crate) mx: Mx,
    pub(crate) daemon: Daemon,
}

impl Home {
    fn new() -> Self {
        Self::with(|config| config)
    }

    pub(crate) fn with(change: impl FnOnce(ConfigText) -> ConfigText) -> Self {
        let lab = Lab::new();
        let mx = lab.mx(2);
        lab.domain("example.test", &[2]);
        let config = lab
            .config()
            .set("return_path.domain", "\"bounces.op.test\"")
            .set("feedback.complaints", "[\"fbl@op.test\"]")
            .table("[[listener]]\nname = \"home\"\naddress = \"127.0.0.1:0\"\ntakes = \"feedback\"\n");
        let daemon = lab.daemon_with(change(config));
        Self { lab, mx, daemon }
    }

    fn address(&self) -> SocketAddr {
        self.daemon.listener_addr("home")
    }

    /// Sends a message that is delivered: its id, and the return path that the host saw.
    pub(crate) fn send(&self, message: &str) -> (String, String) {
        let before = self.mx.accepted().len();
        let id = self.lab.client(&self.daemon).send(FROM, &[TO], message);
        let transactions = self.mx.wait_accepted(before + 1);
        self.daemon.events().wait_kind("Delivery", &id, TO);
        (id, transactions[before].from.clone())
    }

    /// A report is taken.
    pub(crate) fn bring(&self, from: &str, to: &str, report: &str) {
        Client::hello(self.address()).send(from, &[to], report);
    }

    fn events_of(&self, id: &str, kind: &str) -> Vec<Value> {
        let events = Events::read_all(&self.daemon.events_path());
        events.into_iter().filter(|event| event["mail"]["messageId"] == id && event["eventType"] == kind).collect()
    }
}

pub(crate) fn tagged() -> String {
    "From: app@sender.example\r\nTo: you@example.test\r\nSubject: tagged\r\nX-SES-MESSAGE-TAGS: campaign=spring\r\n\r\nhello\r\n"
        .to_owned()
}

/// As Postfix writes it, shortened.
pub(crate) fn dsn(recipient: &str, status: &str, diagnostic: &str, action: &str) -> String {
    format!(
        "From: MAILER-DAEMON@mx.example.test (Mail Delivery System)\r\n\
         Subject: Undelivered Mail Returned to Sender\r\n\
         Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=\"b\"\r\n\r\n\
         --b\r\nContent-Type: text/plain\r\n\r\nI'm sorry.\r\n\
         --b\r\nContent-Type: message/delivery-status\r\n\r\n\
         Reporting-MTA: dns; mx.example.test\r\n\r\n\
         Final-Recipient: rfc822; {recipient}\r\nAction: {action}\r\nStatus: {status}\r\n\
         Diagnostic-Code: smtp; {diagnostic}\r\n\
         --b--\r\n"
    )
}

pub(crate) fn no_such_user() -> String {
    dsn(TO, "5.1.1", "550 5.1.1 <you@example.test>: Recipient address rejected: User unknown", "failed")
}

/// As feedback loops send it, with every address taken out but that of the return path.
pub(crate) fn redacted_arf(return_path: &str) -> String {
    format!(
        "From: <fbl@provider.test>\r\nSubject: FW: tagged\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=feedback-report; boundary=\"b\"\r\n\r\n\
         --b\r\nContent-Type: text/plain\r\n\r\nThis is an abuse report.\r\n\
         --b\r\nContent-Type: message/feedback-report\r\n\r\n\
         Feedback-Type: abuse\r\nUser-Agent: SomeGenerator/1.0\r\nVersion: 1\r\n\
         Original-Rcpt-To: <redacted>\r\nArrival-Date: Thu, 8 Mar 2026 14:00:00 +0000\r\nSource-IP: 192.0.2.1\r\n\r\n\
         --b\r\nContent-Type: message/rfc822\r\n\r\n\
         Return-Path: <{return_path}>\r\nFrom: app@sender.example\r\nTo: [redacted]\r\nSubject: tagged\r\n\r\nhello\r\n\
         --b--\r\n"
    )
}

#[test]
fn a_bounce_that_comes_home_is_told_once_and_the_address_is_on_the_list_through_kill_9() {
    let mut home = Home::new();
    let (id, return_path) = home.send(&tagged());
    home.bring("", &return_path, &no_such_user());
    let event = home.daemon.events().wait_kind("Bounce", &id, TO);
    assert_eq!(
        (&event["bounce"]["bounceType"], &event["bounce"]["bounceSubType"]),
        (&"Permanent".into(), &"NoEmail".into())
    );
    assert_eq!(event["bounce"]["reportingMTA"], "dns; mx.example.test");
    let bounced = &event["bounce"]["bouncedRecipients"][0];
    assert_eq!((&bounced["action"], &bounced["status"]), (&"failed".into(), &"5.1.1".into()));
    assert!(bounced["diagnosticCode"].as_str().unwrap().starts_with("smtp; 550 5.1.1 <you@example.test>"), "{event:#}");
    assert_eq!(event["mail"]["tags"]["campaign"], serde_json::json!(["spring"]), "{event:#}");
    assert_eq!((&event["mail"]["source"], &event["mail"]["destination"][0]), (&FROM.into(), &TO.into()));
    assert_eq!(event["posthaste"]["class"], "bad-mailbox");
    home.daemon.kill();
    home.daemon.start_again();
    // The same once more, and another host's word on the same.
    home.bring("", &return_path.to_uppercase(), &no_such_user());
    home.bring("", &return_path, &dsn(TO, "5.2.1", "550 5.2.1 mailbox disabled", "failed"));
    // The next message is held back, and says why.
    let held = home.lab.client(&home.daemon).send(FROM, &[TO], &tagged());
    let event = home.daemon.events().wait_kind("Bounce", &held, TO);
    assert_eq!(event["bounce"]["bounceSubType"], "OnAccountSuppressionList");
    assert_eq!(home.events_of(&id, "Bounce").len(), 1, "one bounce is one event");
    let report = home.daemon.cli(&["queue", "sent", &id]);
    assert!(report["recipients"][0]["bounced_at"].is_string(), "{report:#}");
    home.daemon.stop();
}

#[test]
fn what_is_no_bounce_makes_none() {
    let home = Home::new();
    let (id, return_path) = home.send(&tagged());
    home.bring("", &return_path, &dsn(TO, "4.4.1", "connect to mx2: timed out", "delayed"));
    home.bring("", &return_path, &dsn(TO, "2.0.0", "250 ok", "relayed"));
    let away = "From: you@example.test\r\nSubject: Out of office\r\nAuto-Submitted: auto-replied\r\n\r\nI am away: 550 5.1.1 is my room.\r\n";
    home.bring("you@example.test", &return_path, away);
    // Soft, and about the message: told, and nobody is on a list.
    home.bring("", &return_path, &dsn(TO, "4.2.2", "452 4.2.2 Mailbox full", "failed"));
    let event = home.daemon.events().wait_kind("Bounce", &id, TO);
    assert_eq!(
        (&event["bounce"]["bounceType"], &event["bounce"]["bounceSubType"]),
        (&"Transient".into(), &"MailboxFull".into())
    );
    assert_eq!(home.events_of(&id, "Bounce").len(), 1);
    let (second, _) = home.send(&tagged());
    assert_eq!(home.events_of(&second, "Bounce").len(), 0);
    home.daemon.stop();
}

#[test]
fn what_is_not_for_us_is_refused_at_rcpt_and_what_nobody_understands_is_kept() {
    let home = Home::new();
    let (_, return_path) = home.send(&tagged());
    let mut stranger = Client::hello(home.address());
    assert_eq!(stranger.command("MAIL FROM:<>").unwrap().code, 250);
    let (token, domain) = return_path.split_once('@').unwrap();
    let last = if token.ends_with('a') { "b" } else { "a" };
    let forged = format!("{}{last}@{domain}", &token[..token.len() - 1]);
    for (address, code) in [
        (forged.as_str(), 550),
        ("someone@bounces.op.test", 550),
        ("you@example.test", 550),
        ("app@sender.example", 550),
        (return_path.as_str(), 250),
        ("Postmaster", 250),
        ("abuse@bounces.op.test", 250),
        ("FBL@op.test", 250),
    ] {
        let reply = stranger.command(&format!("RCPT TO:<{address}>")).unwrap();
        assert_eq!(reply.code, code, "{address}: {reply:?}");
    }
    drop(stranger);
    let ordinary = "From: a@b.test\r\nSubject: question\r\n\r\nWho are you?\r\n";
    let id = Client::hello(home.address()).send("a@b.test", &["abuse@bounces.op.test"], ordinary);
    let kept = std::fs::read_to_string(home.lab.dir().join(format!("queue/feedback/{id}.eml"))).unwrap();
    assert!(kept.starts_with("X-Posthaste-Client: 127.0.0.1\r\n") && kept.ends_with("Who are you?\r\n"), "{kept}");
    assert!(home.mx.accepted().iter().all(|sent| sent.subject() == "tagged"), "nothing was relayed");
    home.daemon.stop();
}

#[test]
fn a_complaint_whose_recipient_is_redacted_is_told_of_the_right_one_and_the_next_mail_is_held_back() {
    let home = Home::new();
    let (id, return_path) = home.send(&tagged());
    let report = redacted_arf(&return_path);
    home.bring("fbl@provider.test", "fbl@op.test", &report);
    let event = home.daemon.events().wait_for(|event| event["eventType"] == "Complaint");
    assert_eq!(event["mail"]["messageId"], id);
    assert_eq!(event["complaint"]["complainedRecipients"][0]["emailAddress"], TO);
    assert_eq!(event["complaint"]["complaintFeedbackType"], "abuse");
    assert_eq!(event["complaint"]["userAgent"], "SomeGenerator/1.0");
    assert_eq!(event["complaint"]["arrivalDate"], "2026-03-08T14:00:00.000Z");
    assert_eq!(event["mail"]["tags"]["campaign"], serde_json::json!(["spring"]));
    // A replay does nothing.
    home.bring("fbl@provider.test", "fbl@op.test", &report);
    let held = home.lab.client(&home.daemon).send(FROM, &[TO], &tagged());
    let event = home.daemon.events().wait_kind("Complaint", &held, TO);
    assert_eq!(event["complaint"]["complaintSubType"], "OnAccountSuppressionList");
    assert_eq!(home.events_of(&id, "Complaint").len(), 1);
    home.daemon.stop();
}

#[test]
fn praise_does_not_use_up_the_complaint_of_its_recipient() {
    let home = Home::new();
    let (id, return_path) = home.send(&tagged());
    let praise = redacted_arf(&return_path).replace("Feedback-Type: abuse", "Feedback-Type: not-spam");
    let forged = praise.replace("not-spam", "auth-failure");
    for report in [&praise, &forged, &praise, &redacted_arf(&return_path), &praise] {
        home.bring("fbl@provider.test", "fbl@op.test", report);
    }
    home.daemon.events().wait_for(|event| event["complaint"]["complaintFeedbackType"] == "abuse");
    let events = home.events_of(&id, "Complaint");
    let kinds: Vec<_> =
        events.iter().map(|event| event["complaint"]["complaintFeedbackType"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["not-spam", "abuse"]);
    assert_ne!(events[0]["complaint"]["feedbackId"], events[1]["complaint"]["feedbackId"]);
    // Only now is mail held back.
    let held = home.lab.client(&home.daemon).send(FROM, &[TO], &tagged());
    home.daemon.events().wait_kind("Complaint", &held, TO);
    home.daemon.stop();
}

#[test]
fn a_report_in_which_nothing_is_left_but_the_cfbl_fields_finds_its_message() {
    let home = Home::with(|config| config.set("signing.cfbl_address", "\"cfbl@op.test\""));
    let (id, _) = home.send(&tagged());
    let sent = home.mx.accepted()[0].text();
    let field =
        |name: &str| sent.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{sent}")).trim();
    assert_eq!(field("CFBL-Address:"), "cfbl@op.test; report=arf");
    let token = field("CFBL-Feedback-ID:");
    let report = format!(
        "From: <fbl@provider.test>\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=feedback-report; boundary=\"b\"\r\n\r\n\
         --b\r\nContent-Type: message/feedback-report\r\n\r\n\
         Feedback-Type: abuse\r\nUser-Agent: CFBL/1\r\nVersion: 1\r\n\r\n\
         --b\r\nContent-Type: text/rfc822-headers\r\n\r\n\
         CFBL-Feedback-ID: {token}\r\n\
         --b--\r\n"
    );
    home.bring("", "cfbl@op.test", &report);
    let event = home.daemon.events().wait_kind("Complaint", &id, TO);
    assert_eq!(event["complaint"]["userAgent"], "CFBL/1");
    // What every reader of the message sees is no return path.
    let mut stranger = Client::hello(home.address());
    stranger.command("MAIL FROM:<>").unwrap();
    assert_eq!(stranger.command(&format!("RCPT TO:<{token}@bounces.op.test>")).unwrap().code, 550);
    home.daemon.stop();
}

#[test]
fn what_a_reader_of_a_message_sees_makes_no_bounce_and_no_complaint_of_others() {
    let home = Home::with(|config| config.set("signing.cfbl_address", "\"cfbl@op.test\""));
    let to = [TO, "other@example.test"];
    let before = home.mx.accepted().len();
    let id = home.lab.client(&home.daemon).send(FROM, &to, &tagged());
    let sent = home.mx.wait_accepted(before + 2);
    let mut events = home.daemon.events();
    to.iter().for_each(|to| drop(events.wait_kind("Delivery", &id, to)));
    // Of several recipients none has a token of the others.
    assert!(sent.iter().all(|sent| sent.text().contains("CFBL-Address:") && !sent.text().contains("CFBL-Feedback-ID")));
    let (single, _) = home.send(&tagged());
    let text = home.mx.accepted().last().unwrap().text();
    let token = text.lines().find_map(|line| line.strip_prefix("CFBL-Feedback-ID:")).unwrap().trim().to_owned();
    // A bounce needs the return path.
    let bounce = no_such_user().replace(
        "--b--",
        &format!("--b\r\nContent-Type: text/rfc822-headers\r\n\r\nCFBL-Feedback-ID: {token}\r\n\r\n--b--"),
    );
    home.bring("", "postmaster@bounces.op.test", &bounce);
    // Notices of programs are for the operator.
    let notice = "From: cert@bund.test\r\nSubject: abuse notice\r\nAuto-Submitted: auto-generated\r\n\r\nYour host is listed.\r\n";
    home.bring("", "abuse@bounces.op.test", notice);
    let kept = std::fs::read_dir(home.lab.dir().join("queue/feedback")).unwrap().count();
    assert_eq!(kept, 2);
    assert!(home.events_of(&single, "Bounce").is_empty() && home.events_of(&id, "Bounce").is_empty());
    home.daemon.stop();
}

#[test]
fn of_a_return_path_for_the_whole_message_the_report_names_the_recipient() {
    let set = "[[configuration_set]]\nname = \"bulk\"\nreturn_path = \"per-message\"\nsuppression = []\n";
    let home = Home::with(|config| config.table(set));
    let to = [TO, "other@example.test"];
    let message = format!("X-SES-CONFIGURATION-SET: bulk\r\n{}", tagged());
    let id = home.lab.client(&home.daemon).send(FROM, &to, &message);
    let transactions = home.mx.wait_accepted(1);
    let mut events = home.daemon.events();
    to.iter().for_each(|to| drop(events.wait_kind("Delivery", &id, to)));
    let report = dsn("OTHER@Example.test", "5.1.1", "550 5.1.1 no such user", "failed");
    home.bring("", &transactions[0].from, &report);
    events.wait_kind("Bounce", &id, to[1]);
    let of_a_stranger = dsn("someone@else.test", "5.1.1", "550 5.1.1 no such user", "failed");
    home.bring("", &transactions[0].from, &of_a_stranger);
    let kept = std::fs::read_dir(home.lab.dir().join("queue/feedback")).unwrap().count();
    assert_eq!((home.events_of(&id, "Bounce").len(), kept), (1, 1), "somebody should look at that");
    // The set wants no list.
    let again = home.lab.client(&home.daemon).send(FROM, &[to[1]], &message);
    events.wait_kind("Delivery", &again, to[1]);
    home.daemon.stop();
}

#[test]
fn an_address_that_a_host_refuses_for_good_is_on_the_list_and_one_that_it_refuses_for_another_reason_is_not() {
    let lab = Lab::new();
    let mx = lab.mx_scripted(2, |ask| match (ask.stage, ask.recipient) {
        (Stage::Rcpt, "gone@example.test") => Answer::say("550 5.1.1 No such user"),
        (Stage::Rcpt, "strict@example.test") => Answer::say("550 5.7.1 Rejected by local policy"),
        _ => Answer::Usual,
    });
    lab.domain("example.test", &[2]);
    let mut daemon = lab.daemon();
    let to = ["gone@example.test", "strict@example.test"];
    let id = lab.client(&daemon).send(FROM, &to, &tagged());
    to.iter().for_each(|to| drop(daemon.events().wait_kind("Bounce", &id, to)));
    daemon.kill();
    daemon.start_again();
    let id = lab.client(&daemon).send(FROM, &to, &tagged());
    let held = daemon.events().wait_kind("Bounce", &id, to[0]);
    assert_eq!(held["bounce"]["bounceSubType"], "OnAccountSuppressionList");
    let tried = daemon.events().wait_kind("Bounce", &id, to[1]);
    assert_eq!(tried["bounce"]["bouncedRecipients"][0]["status"], "5.7.1");
    assert_eq!((mx.asked(to[0]), mx.asked(to[1])), (1, 2));
    daemon.stop();
}

#[test]
fn complaints_pause_the_set_that_they_are_of_and_no_other() {
    let set = |name: &str| format!("[[configuration_set]]\nname = \"{name}\"\nreturn_path = \"per-recipient\"\n");
    let home =
        Home::with(|config| config.set("reputation.recipients_min", "40").table(&set("news")).table(&set("receipts")));
    let message = |set: &str| format!("X-SES-CONFIGURATION-SET: {set}\r\n{}", tagged());
    let mut events = home.daemon.events();
    for set in ["news", "receipts"] {
        // Who complained gets nothing more of the tenant.
        let to: Vec<String> = (0..45).map(|number| format!("{set}{number}@example.test")).collect();
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        let before = home.mx.accepted().len();
        let id = home.lab.client(&home.daemon).send(FROM, &to, &message(set));
        let sent = home.mx.wait_accepted(before + to.len());
        to.iter().for_each(|to| drop(events.wait_kind("Delivery", &id, to)));
        let complaining = if set == "news" { 5 } else { 1 };
        for sent in sent.iter().skip(before).take(complaining) {
            home.bring("fbl@provider.test", "fbl@op.test", &redacted_arf(&sent.from));
        }
    }
    let is_pause = |event: &Value| event["eventType"] == "Reputation" && event["reputation"]["to"] == "paused";
    let paused = events.wait_for(is_pause);
    assert_eq!(
        (&paused["reputation"]["scope"], &paused["reputation"]["name"]),
        (&"configuration_set".into(), &"news".into())
    );
    assert_eq!(paused["reputation"]["complaints"], 5, "{paused:#}");
    let offer = |set: &str| {
        let mut client = home.lab.client(&home.daemon);
        client.envelope(FROM, &["new@example.test"]).unwrap();
        client.body(message(set).as_bytes()).unwrap()
    };
    poll(|| (offer("news").code == 454).then_some(()), || "mail of the set is still taken".to_owned());
    assert_eq!(offer("receipts").code, 250);
    assert_eq!(events.seen().iter().filter(|event| is_pause(event)).count(), 1);
    home.daemon.stop();
}
