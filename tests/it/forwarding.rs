//! Bounces and complaints that come home, mailed on to the sender of the message: where no event file takes them, or an identity asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::feedback::{FROM, Home, TO, dsn, no_such_user, redacted_arf, tagged};
use crate::harness::*;

/// Takes what is needed to see that mail went out, and nothing that goes wrong.
const DELIVERIES_ONLY: &str = "[[events.file]]\nname = \"events\"\ntypes = [\"Send\", \"Delivery\"]\n";

/// One where everything else is told, too: the kinds that `DELIVERIES_ONLY` leaves out, of the set `receipts`.
const OF_RECEIPTS: &str = "[[configuration_set]]\nname = \"receipts\"\n\
    [[events.file]]\nname = \"receipts\"\ntypes = [\"Bounce\", \"Complaint\"]\nconfiguration_sets = [\"receipts\"]\n";

/// The mail host of the sender's domain, and what came home there.
fn sender(home: &Home) -> Mx {
    let mx = home.lab.mx(3);
    home.lab.domain("sender.example", &[3]);
    mx
}

/// What the daemon mailed to the sender so far, once it has nothing left to send.
fn forwarded(home: &Home, sender: &Mx) -> Vec<Transaction> {
    home.daemon.wait_empty();
    sender.accepted()
}

#[test]
fn a_bounce_that_no_event_file_takes_is_mailed_to_the_sender_once_through_repeats_and_kill_9() {
    let mut home = Home::with(|config| config.table(DELIVERIES_ONLY));
    let is_open = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&is_open);
    let sender = home.lab.mx_scripted(3, move |ask| match ask.stage {
        Stage::Rcpt if !opened.load(Ordering::Relaxed) => Answer::say("451 4.3.0 not now"),
        _ => Answer::Usual,
    });
    home.lab.domain("sender.example", &[3]);
    let (id, return_path) = home.send(&tagged());
    home.bring("", &return_path, &no_such_user());
    home.daemon.kill();
    home.daemon.start_again();
    home.bring("", &return_path, &no_such_user());
    home.bring("", &return_path, &dsn(TO, "5.2.1", "550 5.2.1 mailbox disabled", "failed"));
    sender.wait_asked(FROM, 1);
    is_open.store(true, Ordering::Relaxed);
    sender.wait_accepted(1);
    let arrived = forwarded(&home, &sender);
    assert_eq!(arrived.len(), 1, "one failure, one mail");
    let text = arrived[0].text();
    assert_eq!((arrived[0].from.as_str(), &arrived[0].recipients[..]), ("", &[FROM.to_owned()][..]));
    for part in [
        "\r\nAuto-Submitted: auto-replied\r\n",
        "\r\n  From: app@sender.example\r\n  To: you@example.test\r\n  Subject: tagged\r\n",
        "550 5.1.1 <you@example.test>: Recipient address rejected: User unknown",
        "\r\nFinal-Recipient: rfc822; you@example.test\r\nAction: failed\r\nStatus: 5.1.1\r\n",
        "\r\nContent-Type: message/rfc822\r\n",
        "\r\nSubject: Undelivered Mail Returned to Sender\r\n",
        "\r\nI'm sorry.\r\n",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    assert!(text.contains(&format!("X-Posthaste-Message-ID: {id}\r\n")), "{text}");
    assert_eq!(home.mx.accepted().len(), 1, "nothing is sent to the recipient");
    home.daemon.stop();
}

#[test]
fn where_an_event_file_takes_it_nothing_is_mailed() {
    let home = Home::with(|config| config);
    let sender = sender(&home);
    let (id, return_path) = home.send(&tagged());
    home.bring("", &return_path, &no_such_user());
    home.bring("fbl@provider.test", "fbl@op.test", &redacted_arf(&return_path));
    let mut events = home.daemon.events();
    events.wait_kind("Bounce", &id, TO);
    events.wait_kind("Complaint", &id, TO);
    assert_eq!(forwarded(&home, &sender).len(), 0);
    home.daemon.stop();
}

#[test]
fn the_event_files_of_the_set_decide_for_each_message() {
    let home = Home::with(|config| config.table(DELIVERIES_ONLY).table(OF_RECEIPTS));
    let sender = sender(&home);
    let (_, of_receipts) = home.send(&format!("X-SES-CONFIGURATION-SET: receipts\r\n{}", tagged()));
    let (_, of_none) = home.send(&tagged());
    for path in [&of_receipts, &of_none] {
        home.bring("fbl@provider.test", "fbl@op.test", &redacted_arf(path));
        home.bring("", path, &no_such_user());
    }
    sender.wait_accepted(2);
    let arrived = forwarded(&home, &sender);
    assert_eq!(arrived.len(), 2, "a bounce and a complaint of the message without a set");
    home.daemon.stop();
}

#[test]
fn a_complaint_is_mailed_with_the_feedback_of_the_report() {
    let home = Home::with(|config| config.table(DELIVERIES_ONLY));
    let sender = sender(&home);
    let (_, return_path) = home.send(&tagged());
    home.bring("fbl@provider.test", "fbl@op.test", &redacted_arf(&return_path));
    home.bring("fbl@provider.test", "fbl@op.test", &redacted_arf(&return_path));
    sender.wait_accepted(1);
    let arrived = forwarded(&home, &sender);
    assert_eq!(arrived.len(), 1);
    let text = arrived[0].text();
    for part in [
        "Subject: A complaint about your message\r\n",
        "report-type=\"feedback-report\"",
        "\r\nFeedback-Type: abuse\r\nUser-Agent: SomeGenerator/1.0\r\nVersion: 1\r\n",
        "\r\n  From: app@sender.example\r\n  To: you@example.test\r\n  Subject: tagged\r\n",
        "\r\nThis is an abuse report.\r\n",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    home.daemon.stop();
}

#[test]
fn of_a_message_without_a_sender_nobody_hears_by_mail() {
    let home = Home::with(|config| {
        config.set("signing.cfbl_address", "\"cfbl@op.test\"").set("dsn.complaint_messages", "\"always\"")
    });
    let sender = sender(&home);
    for from in ["", FROM] {
        let before = home.mx.accepted().len();
        let id = home.lab.client(&home.daemon).send(from, &[TO], &tagged().replace("hello", "hello again"));
        let sent = home.mx.wait_accepted(before + 1)[before].text();
        home.daemon.events().wait_kind("Delivery", &id, TO);
        let token =
            sent.lines().find_map(|line| line.strip_prefix("CFBL-Feedback-ID:")).unwrap_or_else(|| panic!("{sent}"));
        let report = redacted_arf("redacted@example.test").replace(
            "Subject: tagged\r\n\r\n",
            &format!("Subject: tagged\r\nCFBL-Feedback-ID: {}\r\n\r\n", token.trim()),
        );
        home.bring("", "cfbl@op.test", &report);
        home.daemon.events().wait_kind("Complaint", &id, TO);
        // The next one goes out, too.
        home.daemon.cli(&["suppression", "remove", "--tenant", "local", TO]);
    }
    sender.wait_accepted(1);
    assert_eq!(forwarded(&home, &sender).len(), 1, "that of the message with a sender");
    home.daemon.stop();
}

#[test]
fn an_identity_has_it_mailed_though_an_event_file_takes_it_and_all_bounces_go_one_way() {
    let tables = "[[tenant]]\nname = \"shop\"\nsuppression = []\n\
        [[identity]]\nname = \"sender.example\"\ntenant = \"shop\"\nforward_feedback = true\n\
        [[identity]]\nname = \"quiet@sender.example\"\ntenant = \"shop\"\nforward_feedback = false\n";
    let home = Home::with(|config| config.table(tables).set("relay.tenant", "\"shop\""));
    let sender = sender(&home);
    let refusing = home.lab.mx_scripted(4, |ask| match ask.stage {
        Stage::Rcpt => Answer::say("550 5.1.1 No such user"),
        _ => Answer::Usual,
    });
    home.lab.domain("refusing.test", &[4]);
    let (id, return_path) = home.send(&tagged());
    home.bring("", &return_path, &no_such_user());
    home.daemon.events().wait_kind("Bounce", &id, TO);
    // In the session, it is the same.
    let client = |from: &str, to: &str| {
        let message = tagged().replace(FROM, from);
        home.lab.client(&home.daemon).send(from, &[to], &message)
    };
    client(FROM, "gone@refusing.test");
    sender.wait_accepted(2);
    // Of another identity neither is mailed.
    let before = home.mx.accepted().len();
    let quiet = client("quiet@sender.example", TO);
    let path = home.mx.wait_accepted(before + 1)[before].from.clone();
    home.daemon.events().wait_kind("Delivery", &quiet, TO);
    home.bring("", &path, &no_such_user());
    home.daemon.events().wait_kind("Bounce", &quiet, TO);
    let refused = client("quiet@sender.example", "gone@refusing.test");
    home.daemon.events().wait_kind("Bounce", &refused, "gone@refusing.test");
    let arrived = forwarded(&home, &sender);
    let subjects: Vec<String> = arrived.iter().map(Transaction::subject).collect();
    assert_eq!(subjects.len(), 2, "{subjects:?}");
    assert!(subjects.iter().any(|subject| subject == "Your message could not be delivered after all"), "{subjects:?}");
    assert!(subjects.iter().any(|subject| subject == "Your message could not be delivered"), "{subjects:?}");
    assert!(arrived.iter().all(|one| one.recipients == [FROM] && one.from.is_empty()));
    assert_eq!(refusing.asked("gone@refusing.test"), 2);
    home.daemon.stop();
}

#[test]
fn a_bounce_in_the_session_and_the_same_by_mail_are_one_mail() {
    let home = Home::with(|config| config.table(DELIVERIES_ONLY));
    let sender = sender(&home);
    let paths = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&paths);
    // The host refuses the message, and sends a report all the same.
    let _refusing = home.lab.mx_scripted(4, move |ask| {
        if ask.stage == Stage::Dot {
            seen.lock().unwrap().push(ask.from.to_owned());
            return Answer::say("550 5.1.1 No such user");
        }
        Answer::Usual
    });
    home.lab.domain("refusing.test", &[4]);
    home.lab.client(&home.daemon).send(FROM, &["gone@refusing.test"], &tagged());
    sender.wait_accepted(1);
    let return_path = paths.lock().unwrap()[0].clone();
    home.bring("", &return_path, &dsn("gone@refusing.test", "5.1.1", "550 5.1.1 No such user", "failed"));
    assert_eq!(forwarded(&home, &sender).len(), 1);
    home.daemon.stop();
}

#[test]
fn feedback_on_what_was_forwarded_is_not_forwarded_and_one_to_ourselves_neither() {
    let home = Home::with(|config| config.table(DELIVERIES_ONLY));
    let sender = sender(&home);
    let (_, return_path) = home.send(&tagged());
    home.bring("", &return_path, &no_such_user());
    let forward = sender.wait_accepted(1).remove(0);
    // It went out with no sender: a bounce of it has nowhere to go, and as mail to postmaster it is of nobody.
    assert_eq!(forward.from, "");
    home.bring("", "postmaster@bounces.op.test", &dsn(FROM, "5.1.1", "550 5.1.1 No such user", "failed"));
    // A sender that is one of our addresses for feedback.
    let before = home.mx.accepted().len();
    home.lab.client(&home.daemon).send("fbl@op.test", &["other@example.test"], &tagged());
    let path = home.mx.wait_accepted(before + 1)[before].from.clone();
    home.bring("", &path, &no_such_user());
    assert_eq!(forwarded(&home, &sender).len(), 1);
    home.daemon.stop();
}

#[test]
fn a_report_on_mail_that_still_waits_is_told_and_its_end_in_the_session_no_more() {
    let home = Home::with(|config| {
        config
            .table("[[configuration_set]]\nname = \"none\"\nsuppression = []\n")
            .set("dsn.bounce_messages", "\"always\"")
    });
    let sender = sender(&home);
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let is_reported = Arc::new(AtomicBool::new(false));
    let (paths, reported) = (Arc::clone(&seen), Arc::clone(&is_reported));
    // The host puts the message off, reports that it failed, and refuses the next try.
    let host = home.lab.mx_scripted(4, move |ask| match ask.stage {
        Stage::Rcpt if reported.load(Ordering::Relaxed) => Answer::say("550 5.1.1 No such user"),
        Stage::Dot => {
            paths.lock().unwrap().push(ask.from.to_owned());
            Answer::say("451 4.3.0 later")
        }
        _ => Answer::Usual,
    });
    home.lab.domain("doubtful.test", &[4]);
    let to = "gone@doubtful.test";
    let message = format!("X-SES-CONFIGURATION-SET: none\r\n{}", tagged());
    let id = home.lab.client(&home.daemon).send(FROM, &[to], &message);
    host.wait_transactions(1);
    let return_path = seen.lock().unwrap()[0].clone();
    home.bring("", &return_path, &dsn(to, "5.1.1", "550 5.1.1 No such user", "failed"));
    is_reported.store(true, Ordering::Relaxed);
    home.daemon.events().wait_kind("Bounce", &id, to);
    sender.wait_accepted(1);
    assert_eq!(forwarded(&home, &sender).len(), 1, "one failure, one mail");
    assert!(host.asked(to) >= 2, "it was tried again");
    let bounces = Events::read_all(&home.daemon.events_path());
    let bounces = bounces.iter().filter(|event| event["mail"]["messageId"] == id && event["eventType"] == "Bounce");
    assert_eq!(bounces.count(), 1, "one bounce, one event");
    home.daemon.stop();
}
