//! What becomes of refusals: an event for each recipient, retries, and notifications to senders.

use mail_parser::MimeHeaders;
use serde_json::Value;

use crate::harness::*;

const FROM: &str = "app@sender.test";

#[test]
fn of_ten_recipients_three_are_refused_and_the_other_seven_get_the_message_once() {
    let lab = Lab::new();
    let mx = lab.mx_scripted(2, |ask| match (ask.stage, ask.recipient, ask.asked) {
        (Stage::Rcpt, "r1@example.test", _) => Answer::say("550 5.1.1 No such user here"),
        (Stage::Rcpt, "r2@example.test", 1..=2) => Answer::say("452 4.2.2 Mailbox full"),
        (Stage::Rcpt, "r3@example.test", 1..=2) => Answer::say("450 4.2.0 Greylisted, come again"),
        _ => Answer::Usual,
    });
    lab.domain("example.test", &[2]);
    let config = lab.config().set("retry.steps", "[\"1s\"]").set("retry.delay_notices", "[\"1s\"]");
    let daemon = lab.daemon_with(config);
    let to: Vec<String> = (0..10).map(|number| format!("r{number}@example.test")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let id = lab.client(&daemon).send_simple(FROM, &to, "ten");
    let mut events = daemon.events();

    let bounce = events.wait_kind("Bounce", &id, "r1@example.test");
    assert_eq!(recipients(&bounce), ["r1@example.test"]);
    let bounced = &bounce["bounce"]["bouncedRecipients"][0];
    assert_eq!(bounced["diagnosticCode"], "smtp; 550 5.1.1 No such user here");
    assert_eq!(bounced["status"], "5.1.1");
    assert_eq!((&bounce["posthaste"]["enhancedCode"], &bounce["posthaste"]["attempt"]), (&"5.1.1".into(), &1.into()));
    assert!(named(&bounce, "rule") && named(&bounce, "class"), "{bounce:#}");

    for (recipient, code, reply) in [
        ("r2@example.test", "4.2.2", "smtp; 452 4.2.2 Mailbox full"),
        ("r3@example.test", "4.2.0", "smtp; 450 4.2.0 Greylisted, come again"),
    ] {
        let delay = events.wait_kind("DeliveryDelay", &id, recipient);
        assert_eq!(recipients(&delay), [recipient]);
        assert_eq!(delay["deliveryDelay"]["delayedRecipients"][0]["diagnosticCode"], reply);
        assert_eq!(delay["deliveryDelay"]["delayedRecipients"][0]["status"], code);
        assert_eq!(delay["posthaste"]["enhancedCode"], code);
        assert!(named(&delay, "rule") && named(&delay, "class"), "{delay:#}");
        let delivery = events.wait_kind("Delivery", &id, recipient);
        assert_eq!(delivery["posthaste"]["attempt"], 3, "{delivery:#}");
    }
    let full = events.wait_kind("DeliveryDelay", &id, "r2@example.test");
    assert_eq!(full["deliveryDelay"]["delayType"], "MailboxFull");

    daemon.wait_empty();
    daemon.stop();
    let accepted = [(id, "ten".to_owned())].into();
    assert_nothing_lost_or_doubled(&accepted, &Events::read_all(&daemon.events_path()), &[&mx]);
    let first = &mx.accepted()[0];
    assert_eq!(first.recipients.len(), 7, "{:?}", first.recipients);
}

fn named(event: &Value, member: &str) -> bool {
    event["posthaste"][member].as_str().is_some_and(|name| !name.is_empty())
}

#[test]
fn a_refusal_of_the_content_counts_for_all_recipients_and_each_has_its_own_event() {
    let lab = Lab::new();
    lab.domain("example.test", &[2]);
    let mx = lab.mx_scripted(2, |ask| match ask.stage {
        Stage::Dot => Answer::say("554 5.7.1 Message looks like spam"),
        _ => Answer::Usual,
    });
    let daemon = lab.daemon();
    let id = lab.client(&daemon).send_simple(FROM, &["a@example.test", "b@example.test"], "spam");
    let mut events = daemon.events();
    for recipient in ["a@example.test", "b@example.test"] {
        let bounce = events.wait_kind("Bounce", &id, recipient);
        let bounced = &bounce["bounce"]["bouncedRecipients"][0];
        assert_eq!(bounced["diagnosticCode"], "smtp; 554 5.7.1 Message looks like spam");
    }
    daemon.wait_empty();
    assert_eq!(mx.transactions().len(), 1);
}

#[test]
fn a_421_after_some_messages_costs_no_message_an_attempt_and_none_comes_twice() {
    let lab = Lab::new();
    lab.domain("example.test", &[2]);
    // The host closes after three messages on a connection.
    let mx = lab.mx_scripted(2, |ask| match ask.stage {
        Stage::Mail if ask.messages == 3 => Answer::SayAndClose("421 4.7.0 Enough on this connection".to_owned()),
        _ => Answer::Usual,
    });
    let daemon = lab.daemon_with(lab.config().set("delivery.connections_per_site_max", "1"));
    let load = Load::start(daemon.smtp_addr(), 1, &["example.test"]);
    load.wait_accepted(9);
    let accepted = load.stop().accepted;
    let mut events = daemon.events();
    for id in accepted.keys().take(3) {
        events.wait_for(|event| event["eventType"] == "Delivery" && event["mail"]["messageId"] == **id);
    }
    // A host that turned a lone connection away is left in peace for a while; an operator need not wait.
    let look = || {
        daemon.signal(Signal::USR2);
        daemon.queue().is_empty().then_some(())
    };
    poll(look, || format!("{:#?}", daemon.queue()));
    daemon.stop();
    assert_nothing_lost_or_doubled(&accepted, &Events::read_all(&daemon.events_path()), &[&mx]);
}

/// A world with a recipient that is refused and one that is not, and a sender that takes notifications.
struct Correspondence {
    lab: Lab,
    sender: Mx,
    // Answers until the test ends.
    _recipients: Mx,
}

fn correspondence() -> Correspondence {
    let lab = Lab::new();
    let recipients = lab.mx_scripted(2, |ask| match ask.stage {
        Stage::Rcpt if ask.recipient.starts_with("bad") => Answer::say("550 5.1.1 No such user here"),
        _ => Answer::Usual,
    });
    lab.domain("example.test", &[2]);
    lab.domain("sender.test", &[3]);
    let sender = lab.mx(3);
    Correspondence { lab, sender, _recipients: recipients }
}

/// What the sender is told about a message to these recipients, once the queue is empty.
fn told(world: &Correspondence, config: ConfigText, from: &str, to: &[&str]) -> Vec<Transaction> {
    let daemon = world.lab.daemon_with(config);
    world.lab.client(&daemon).send_simple(from, to, "news");
    // A notification is in the queue from the same instant on in which the recipient leaves it.
    daemon.wait_empty();
    daemon.stop();
    world.sender.transactions()
}

fn without_events(lab: &Lab) -> ConfigText {
    lab.config().set("events.file", "[]")
}

#[test]
fn where_no_event_file_takes_bounces_the_sender_gets_a_notification() {
    let world = correspondence();
    let got = told(&world, without_events(&world.lab), FROM, &["bad@example.test"]);
    assert_eq!(got.len(), 1, "{got:#?}");
    assert_eq!(got[0].from, "", "the null path: {}", got[0].mail);
    assert!(got[0].mail.starts_with("MAIL FROM:<>"));
    assert_eq!(got[0].recipients, [FROM]);
    let text = got[0].text();
    let parsed = mail_parser::MessageParser::default().parse(&got[0].data).unwrap();
    let kind = parsed.content_type().unwrap();
    assert_eq!((kind.ctype(), kind.subtype()), ("multipart", Some("report")), "{text}");
    assert_eq!(kind.attribute("report-type"), Some("delivery-status"));
    for line in [
        "Final-Recipient: rfc822; bad@example.test\r\n",
        "Action: failed\r\n",
        "Status: 5.1.1\r\n",
        "Diagnostic-Code: smtp; 550 5.1.1 No such user here\r\n",
        "Reporting-MTA: dns; sender.example\r\n",
    ] {
        assert!(text.contains(line), "{line:?} is missing in\n{text}");
    }
    assert!(text.contains("Subject: news\r\n"), "the header of the message is returned\n{text}");
}

#[test]
fn where_an_event_file_takes_bounces_the_sender_gets_none() {
    let world = correspondence();
    let got = told(&world, world.lab.config(), FROM, &["bad@example.test"]);
    assert!(got.is_empty(), "{got:#?}");
}

#[test]
fn notify_never_suppresses_and_notify_failure_demands_a_notification() {
    for (config, notify, count) in [
        (without_events as fn(&Lab) -> ConfigText, "NEVER", 0),
        (Lab::config, "FAILURE", 1),
        // Asked for success alone: a failure is not told.
        (without_events, "SUCCESS", 0),
    ] {
        let world = correspondence();
        let to = format!("<bad@example.test> NOTIFY={notify}");
        let got = told(&world, config(&world.lab), FROM, &[&to]);
        assert_eq!(got.len(), count, "NOTIFY={notify}: {got:#?}");
    }
}

#[test]
fn the_null_sender_is_never_told_anything() {
    let world = correspondence();
    let config = world.lab.config().set("dsn.bounce_messages", "\"always\"");
    let got = told(&world, config, "", &["<bad@example.test> NOTIFY=FAILURE"]);
    assert!(got.is_empty(), "{got:#?}");
}

#[test]
fn notify_success_is_answered_by_us_where_the_host_has_no_dsn() {
    let world = correspondence();
    let got = told(&world, world.lab.config(), FROM, &["<good@example.test> NOTIFY=SUCCESS"]);
    assert_eq!(got.len(), 1, "{got:#?}");
    let text = got[0].text();
    assert_eq!(got[0].from, "");
    assert!(text.contains("Action: relayed\r\n"), "{text}");
    assert!(text.contains("Final-Recipient: rfc822; good@example.test\r\n"), "{text}");
}

#[test]
fn notify_is_handed_on_to_a_host_that_has_dsn() {
    let lab = Lab::new();
    let options = MxOptions { extensions: vec!["PIPELINING", "8BITMIME", "DSN"], tls: None };
    let mx = lab.mx_with(2, options, |_| Answer::Usual);
    let sender = lab.mx(3);
    lab.domain("example.test", &[2]);
    lab.domain("sender.test", &[3]);
    let daemon = lab.daemon();
    lab.client(&daemon).send_simple(FROM, &["<good@example.test> NOTIFY=SUCCESS,FAILURE"], "passed on");
    mx.wait_accepted(1);
    daemon.wait_empty();
    let rcpt = mx.commands().into_iter().find(|(_, line)| line.starts_with("RCPT")).unwrap().1;
    assert!(rcpt.contains("NOTIFY=") && rcpt.contains("SUCCESS") && rcpt.contains("FAILURE"), "{rcpt}");
    assert_eq!(sender.connections(), 0, "the next host answers for the success now");
}

#[test]
fn a_notification_that_cannot_be_delivered_causes_no_other() {
    let lab = Lab::new();
    let mx = lab.mx_scripted(2, |ask| match ask.stage {
        Stage::Rcpt => Answer::say("550 5.1.1 Nobody at all"),
        _ => Answer::Usual,
    });
    lab.domain("example.test", &[2]);
    let daemon = lab.daemon_with(without_events(&lab));
    lab.client(&daemon).send_simple("also-bad@example.test", &["bad@example.test"], "loop?");
    daemon.wait_empty();
    let mails: Vec<_> =
        mx.commands().into_iter().map(|(_, line)| line).filter(|line| line.starts_with("MAIL")).collect();
    assert_eq!(mails.len(), 2, "the message, then its notification: {mails:?}");
    assert!(mails[1].starts_with("MAIL FROM:<>"), "{mails:?}");
}
