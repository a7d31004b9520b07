//! Forwarded feedback as another program reads it.

use mail_parser::{MessageParser, MimeHeaders, PartType};
use proptest::prelude::*;

use super::*;
use crate::types::BodyKind;

const DSN: &[u8] = b"From: MAILER-DAEMON@mx.test\r\nSubject: Undelivered\r\n\r\nI'm sorry.\r\n";

fn address(text: &str) -> EmailAddress {
    EmailAddress::parse(text, true).unwrap()
}

fn time(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_683_320_423_244).plus(std::time::Duration::from_secs(seconds))
}

fn bounce() -> Bounce<'static> {
    Bounce {
        kind: BounceKind::PermanentNoEmail,
        status: EnhancedStatus::new(5, 1, 1),
        diagnostic: Some(("smtp", "550 5.1.1 no such user")),
        reporting_mta: Some(("dns", "mx.test")),
        remote_mta: None,
        attempted_at: Some(time(60)),
    }
}

fn complaint() -> Complaint<'static> {
    let part = b"Feedback-Type: abuse\nUser-Agent: Loop/1\r\nVersion: 1\r\nOriginal-Rcpt-To: <redacted>\r\n\r\n";
    Complaint {
        kind: Some("abuse"),
        is_harmless: false,
        user_agent: Some("Loop/1"),
        arrived_at: Some(time(30)),
        part: Some(part),
    }
}

struct Case {
    to: EmailAddress,
    recipient: EmailAddress,
}

impl Case {
    fn new() -> Self {
        Self { to: address("app@sender.test"), recipient: address("user@D.test") }
    }

    fn forward<'a>(&'a self, news: News<'a>, report: &'a [u8]) -> Forward<'a> {
        Forward {
            id: MessageId::new(time(120), 9),
            hostname: "mail.test",
            to: &self.to,
            about: About {
                id: MessageId::new(time(0), 7),
                recipient: &self.recipient,
                from: Some("=?utf-8?q?J=C3=BCrgen?= <app@sender.test>"),
                to: Some("user@d.test"),
                subject: Some("Gr\u{fc}\u{df}e"),
                message_id: Some("<orig@sender.test>"),
            },
            news,
            report,
        }
    }
}

/// The text, type and octets of the second part, type and octets of the third.
fn parts(built: &Built) -> (String, (String, String), (String, Vec<u8>)) {
    assert!(is_clean(&built.message), "{}", String::from_utf8_lossy(&built.message));
    assert!(built.message[..built.header_bytes].ends_with(b"\r\n\r\n"));
    assert!(built.message[..built.header_bytes].is_ascii() || built.smtputf8);
    assert_eq!(built.body == BodyKind::SevenBit, built.message[built.header_bytes..].is_ascii());
    let parsed = MessageParser::default().parse(&built.message).unwrap();
    let PartType::Multipart(children) = &parsed.parts[0].body else { panic!("no multipart") };
    assert_eq!(children.len(), 3);
    let part = |at: usize| {
        let part = &parsed.parts[usize::try_from(children[at]).unwrap()];
        let kind = part.content_type().unwrap();
        (format!("{}/{}", kind.ctype(), kind.subtype().unwrap()), part)
    };
    let text = part(0).1.text_contents().unwrap().to_owned();
    let raw = |at: usize| {
        let (from, to) = (part(at).1.raw_body_offset(), part(at).1.raw_end_offset());
        built.message[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()].to_vec()
    };
    let second = String::from_utf8(raw(1)).unwrap();
    (text, (part(1).0, second), (part(2).0, raw(2)))
}

#[test]
fn a_bounce_shows_which_message_it_was_and_holds_the_report_as_it_came() {
    let case = Case::new();
    let built = build(&case.forward(News::Bounce(bounce()), DSN));
    let header = String::from_utf8(built.message[..built.header_bytes].to_vec()).unwrap();
    for line in [
        "From: \"Mail Delivery System\" <MAILER-DAEMON@mail.test>\r\n",
        "To: <app@sender.test>\r\n",
        "Subject: Your message could not be delivered after all\r\n",
        "Auto-Submitted: auto-replied\r\n",
        "In-Reply-To: <orig@sender.test>\r\n",
        "report-type=\"delivery-status\"",
    ] {
        assert!(header.contains(line), "{line} in {header}");
    }
    let (text, (kind, status), (third, report)) = parts(&built);
    for line in [
        "  From: J\u{fc}rgen <app@sender.test>\r\n",
        "  To: user@d.test\r\n",
        "  Subject: Gr\u{fc}\u{df}e\r\n",
        "  user@D.test\r\n",
        "There is no such address.",
        "The mail server mx.test said:\r\n      550 5.1.1 no such user\r\n",
        "Kind of bounce: Permanent, NoEmail\r\n",
    ] {
        assert!(text.replace('\n', "\r\n").replace("\r\r\n", "\r\n").contains(line), "{line} in {text}");
    }
    assert_eq!(kind, "message/delivery-status");
    assert_eq!(
        status.trim_end(),
        "Reporting-MTA: dns; mx.test\r\nArrival-Date: Fri, 5 May 2023 21:00:23 +0000\r\n\
         X-Posthaste-Message-ID: 01010187edb7434c-00000000-0000-4000-8000-000000000007-000000\r\n\
         X-Original-Message-ID: <orig@sender.test>\r\n\r\n\
         Final-Recipient: rfc822; user@d.test\r\nAction: failed\r\nStatus: 5.1.1\r\n\
         Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n\
         Last-Attempt-Date: Fri, 5 May 2023 21:01:23 +0000\r\nX-Posthaste-Bounce: Permanent; NoEmail"
    );
    assert_eq!((third.as_str(), report.trim_ascii_end()), ("message/rfc822", DSN.trim_ascii_end()));
    assert_eq!(built.message, build(&case.forward(News::Bounce(bounce()), DSN)).message, "same input, same octets");
}

#[test]
fn a_bounce_that_says_little_says_what_its_kind_comes_to() {
    let case = Case::new();
    let status = |kind, status| {
        let bounce =
            Bounce { kind, status, diagnostic: None, reporting_mta: None, remote_mta: None, attempted_at: None };
        parts(&build(&case.forward(News::Bounce(bounce), DSN))).1.1
    };
    let of_nothing = status(BounceKind::TransientGeneral, None);
    assert!(of_nothing.starts_with("Reporting-MTA: dns; mail.test\r\n"), "{of_nothing}");
    assert!(of_nothing.contains("\r\nStatus: 4.0.0\r\n") && !of_nothing.contains("Diagnostic-Code"), "{of_nothing}");
    assert!(status(BounceKind::Undetermined, None).contains("\r\nStatus: 5.0.0\r\n"));
    // No failure is a success.
    assert!(status(BounceKind::PermanentGeneral, EnhancedStatus::new(2, 0, 0)).contains("\r\nStatus: 5.0.0\r\n"));
}

#[test]
fn the_feedback_part_is_handed_on_where_it_can_be_and_else_written_anew() {
    let case = Case::new();
    let second = |complaint: Complaint<'_>| {
        let built = build(&case.forward(News::Complaint(complaint), DSN));
        let (text, (kind, part), _) = parts(&built);
        assert_eq!(kind, "message/feedback-report");
        (text, part.trim_end().to_owned())
    };
    let (text, part) = second(complaint());
    assert_eq!(part, "Feedback-Type: abuse\r\nUser-Agent: Loop/1\r\nVersion: 1\r\nOriginal-Rcpt-To: <redacted>");
    assert!(text.contains("called it unwanted") && text.contains("Kind of report: abuse"), "{text}");
    let anew = "Feedback-Type: abuse\r\nUser-Agent: Loop/1\r\nVersion: 1\r\nOriginal-Rcpt-To: <user@d.test>\r\n\
                Arrival-Date: Fri, 5 May 2023 21:00:53 +0000\r\n\
                X-Posthaste-Message-ID: 01010187edb7434c-00000000-0000-4000-8000-000000000007-000000";
    let long = vec![b'a'; FEEDBACK_PART_BYTES_MAX + 1];
    let long_line = [b"Feedback-Type: ".as_slice(), &[b'a'; 1_000]].concat();
    for part in [
        None,
        Some(&b""[..]),
        Some(b"A: \xff\r\n"),
        Some(b"A: \0\r\n"),
        Some(b"A: b\rC: d\r\n"),
        Some(&long),
        Some(&long_line),
    ] {
        assert_eq!(second(Complaint { part, ..complaint() }).1, anew, "{part:?}");
    }
    let praise = Complaint { kind: Some("not-spam"), is_harmless: true, ..complaint() };
    let text = second(praise).0.replace("\r\n", " ").replace('\n', " ");
    assert!(text.contains("It is no complaint."), "{text}");
}

#[test]
fn of_a_long_report_the_front_is_attached_and_of_a_broken_one_a_file() {
    let case = Case::new();
    let third = |report: &[u8]| {
        let built = build(&case.forward(News::Bounce(bounce()), report));
        let (_, _, third) = parts(&built);
        (third.0, third.1.len(), built.body)
    };
    let long = [DSN, &b"a line of text\r\n".repeat(10_000)].concat();
    let (kind, bytes, _) = third(&long);
    assert_eq!(kind, "message/rfc822");
    assert!((REPORT_BYTES_MAX - 20..=REPORT_BYTES_MAX).contains(&bytes), "{bytes}");
    assert_eq!(third(b"Subject: x\r\n\r\n\xc3\xbc\r\n").2, BodyKind::EightBitMime);
    assert_eq!(third("Subject: \u{fc}\r\n\r\nx\r\n".as_bytes()).0, "message/global");
    for broken in [
        &b"Subject: x\n\ny\n"[..],
        b"",
        b"no field\r\n\r\n",
        b"Subject: x\r\n\r\n\0\r\n",
        b"Subject: x\r\n\r\nno end",
        &[b'a'; 200_000],
    ] {
        assert_eq!(third(broken).0, "application/octet-stream", "{broken:?}");
    }
}

proptest! {
    #[test]
    fn nothing_that_a_stranger_wrote_makes_a_field_a_part_or_a_long_line(
        texts in prop::collection::vec("(\\PC|\r\n|\r|\n|\0|: |Bcc: x@y\\.test|--report_){0,80}", 8),
        report in prop::collection::vec(any::<u8>(), 0..400), is_complaint in any::<bool>(), harmless in any::<bool>(),
        local in "[a-z\u{fc}]{1,5}"
    ) {
        let recipient = address(&format!("{local}@d.test"));
        let case = Case { to: address(&format!("{local}@sender.test")), recipient };
        let bounce = Bounce {
            diagnostic: Some((&texts[0], &texts[1])), reporting_mta: Some((&texts[2], &texts[3])), remote_mta: Some((&texts[4], &texts[5])),
            ..bounce()
        };
        let complaint = Complaint {
            kind: Some(&texts[0]), is_harmless: harmless, user_agent: Some(&texts[1]), part: Some(texts[2].as_bytes()), ..complaint()
        };
        let news = if is_complaint { News::Complaint(complaint) } else { News::Bounce(bounce) };
        let mut forward = case.forward(news, &report);
        forward.about = About {
            from: Some(&texts[5]), to: Some(&texts[6]), subject: Some(&texts[7]), message_id: Some(&texts[0]), ..forward.about
        };
        let built = build(&forward);
        let (_, (_, second), _) = parts(&built);
        let names = |text: &str| -> Vec<String> {
            let lines = text.split("\r\n").filter(|line| !line.is_empty() && !line.starts_with([' ', '\t']));
            lines.filter_map(|line| line.split_once(':')).map(|(name, _)| name.to_owned()).collect()
        };
        let header = String::from_utf8(built.message[..built.header_bytes].to_vec()).unwrap();
        let fixed = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type", "In-Reply-To", "References"];
        prop_assert!(names(&header).iter().all(|name| fixed.contains(&name.as_str())), "{}", header);
        if !is_complaint {
            let finals = names(&second).iter().filter(|name| *name == "Final-Recipient").count();
            prop_assert_eq!((finals, names(&second).iter().any(|name| name == "Bcc")), (1, false));
        }
    }
}
