//! Notifications as another program reads them.

use mail_parser::{MessageParser, MimeHeaders, PartType};
use proptest::prelude::*;

use super::*;
use crate::types::{BodyKind, ReplyCode};

const HEADER: &[u8] = b"From: a@b.test\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <orig@b.test>\r\n\r\n";
const FULL: &[u8] = b"Subject: x\r\n\r\nbody\r\n";

fn address(text: &str) -> EmailAddress {
    EmailAddress::parse(text, true).unwrap()
}

fn reply(code: u16, text: &str) -> Reply {
    Reply::new(ReplyCode::new(code).unwrap(), EnhancedStatus::new(5, 1, 1), vec![text.into()])
}

fn time(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_683_320_423_244).plus(std::time::Duration::from_secs(seconds))
}

fn recipient<'a>(address: &'a EmailAddress, diagnostic: Diagnostic<'a>) -> RecipientStatus<'a> {
    RecipientStatus {
        address,
        orcpt: None,
        status: EnhancedStatus::new(5, 1, 1).unwrap(),
        diagnostic,
        remote_mta: Some("mx.d.test"),
        last_attempt_at: Some(time(60)),
        retry_until: Some(time(3_600)),
    }
}

fn notification<'a>(
    kind: Kind,
    to: &'a EmailAddress,
    original: Original<'a>,
    recipients: &'a [RecipientStatus<'a>],
) -> Notification<'a> {
    Notification {
        kind,
        id: MessageId::new(time(120), 9),
        now: time(120),
        hostname: "mail.test",
        to,
        envid: Some("QQ 314"),
        arrived_at: time(0),
        ret: None,
        full_bytes_max: 1_000,
        original,
        recipients,
    }
}

/// Content types of the parts, the text for people, and the status part.
fn parts(built: &Built) -> (Vec<String>, String, String) {
    let parsed = MessageParser::default().parse(&built.message).unwrap();
    let report = parsed.content_type().unwrap();
    assert_eq!((report.ctype(), report.subtype()), ("multipart", Some("report")));
    assert_eq!(report.attribute("report-type"), Some("delivery-status"));
    let types = parsed.parts.iter().skip(1).map(|part| {
        let content_type = part.content_type().unwrap();
        format!("{}/{}", content_type.ctype(), content_type.subtype().unwrap_or_default())
    });
    let types: Vec<_> = types.take(3).collect();
    let raw = String::from_utf8_lossy(&built.message);
    let status = raw.split("Content-Type: message/delivery-status\r\n").nth(1).unwrap();
    let status = status.split("\r\n--report_").next().unwrap().split_once("\r\n\r\n").unwrap().1.to_owned();
    let PartType::Text(text) = &parsed.parts[1].body else { panic!("first part is no text") };
    (types, text.to_string(), status)
}

fn assert_lines(built: &Built) {
    assert!(is_clean(&built.message), "{}", String::from_utf8_lossy(&built.message));
    assert!(built.message[..built.header_bytes].ends_with(b"\r\n\r\n"));
    assert_eq!(built.body == BodyKind::SevenBit, built.message[built.header_bytes..].is_ascii());
}

#[test]
fn a_failure_has_all_fields_of_rfc_3464_in_order() {
    let (to, user) = (address("sender@b.test"), address("user@D.test"));
    let reply = reply(550, "No such\r\nFinal-Recipient: user");
    let orcpt = OriginalRecipient { address_type: "rfc822".into(), address: "alias@c.test".into() };
    let recipients = [RecipientStatus { orcpt: Some(&orcpt), ..recipient(&user, Diagnostic::Smtp(&reply)) }];
    let built = build(&notification(Kind::Failed, &to, Original { header: HEADER, full: None }, &recipients));
    assert_lines(&built);
    let (types, text, status) = parts(&built);
    assert_eq!(types, ["text/plain", "message/delivery-status", "text/rfc822-headers"]);
    assert_eq!(
        status,
        "Reporting-MTA: dns; mail.test\r\nOriginal-Envelope-Id: QQ 314\r\nArrival-Date: Fri, 5 May 2023 21:00:23 +0000\r\n\
         \r\nOriginal-Recipient: rfc822; alias@c.test\r\nFinal-Recipient: rfc822; user@d.test\r\nAction: failed\r\n\
         Status: 5.1.1\r\nRemote-MTA: dns; mx.d.test\r\n\
         Diagnostic-Code: smtp; 550 5.1.1 No such Final-Recipient: user\r\n\
         Last-Attempt-Date: Fri, 5 May 2023 21:01:23 +0000\r\n"
    );
    assert!(text.contains("Grüße"), "{text}");
    assert!(text.contains("There is no such address."), "{text}");
    assert!(text.contains("user@D.test"), "{text}");
}

#[test]
fn the_header_names_both_sides_and_stops_auto_replies() {
    let (to, user) = (address("sender@b.test"), address("user@d.test"));
    let recipients = [recipient(&user, Diagnostic::Local("no route"))];
    let built = build(&notification(Kind::Failed, &to, Original { header: HEADER, full: None }, &recipients));
    let header = String::from_utf8(built.message[..built.header_bytes].to_vec()).unwrap();
    for line in [
        "From: \"Mail Delivery System\" <MAILER-DAEMON@mail.test>\r\n",
        "To: <sender@b.test>\r\n",
        "Auto-Submitted: auto-replied\r\n",
        "Date: Fri, 5 May 2023 21:02:23 +0000\r\n",
        "Message-ID: <01010187edb9180c-00000000-0000-4000-8000-000000000009-000000@mail.test>\r\n",
        "In-Reply-To: <orig@b.test>\r\n",
        "MIME-Version: 1.0\r\n",
    ] {
        assert!(header.contains(line), "{line} in {header}");
    }
    assert_eq!(header.matches("Date:").count(), 1);
    assert_eq!(header.matches("MIME-Version:").count(), 1);
    let again = build(&notification(Kind::Failed, &to, Original { header: HEADER, full: None }, &recipients));
    assert_eq!(again.message, built.message, "same input, same octets");
}

#[test]
fn delays_say_until_when_and_relays_do_not_say_why() {
    let (to, user) = (address("sender@b.test"), address("user@d.test"));
    let reply = reply(450, "busy");
    let recipients = [recipient(&user, Diagnostic::Smtp(&reply))];
    let original = Original { header: HEADER, full: Some(FULL) };
    let (_, text, status) = parts(&build(&notification(Kind::Delayed, &to, original, &recipients)));
    assert!(status.contains("Action: delayed\r\n"));
    assert!(status.contains("Will-Retry-Until: Fri, 5 May 2023 22:00:23 +0000\r\n"));
    assert!(text.contains("We keep trying until Fri, 5 May 2023 22:00:23 +0000."));
    let (_, text, status) = parts(&build(&notification(Kind::Relayed, &to, original, &recipients)));
    assert!(status.contains("Action: relayed\r\n"));
    assert!(!status.contains("Will-Retry-Until"));
    assert!(!text.contains("busy"));
}

#[test]
fn the_message_is_returned_only_if_asked_for_small_and_clean() {
    let (to, user) = (address("sender@b.test"), address("user@d.test"));
    let recipients = [recipient(&user, Diagnostic::Local("no route"))];
    let third = |kind, ret, full: &[u8], full_bytes_max| {
        let original = Original { header: HEADER, full: Some(full) };
        let built = build(&Notification { ret, full_bytes_max, ..notification(kind, &to, original, &recipients) });
        assert_lines(&built);
        (parts(&built).0.remove(2), built.body)
    };
    let full = Some(DsnReturn::Full);
    assert_eq!(third(Kind::Failed, full, FULL, 1_000), ("message/rfc822".to_owned(), BodyKind::SevenBit));
    assert_eq!(third(Kind::Failed, full, b"A: b\r\n\r\n\xc3\xbc\r\n", 99).1, BodyKind::EightBitMime);
    for (kind, ret, octets, limit) in [
        (Kind::Failed, None, FULL, 1_000),
        (Kind::Failed, Some(DsnReturn::Headers), FULL, 1_000),
        (Kind::Delayed, full, FULL, 1_000),
        (Kind::Failed, full, FULL, 10),
        (Kind::Failed, full, b"A: b\r\n\r\nbare\nlf\r\n", 1_000),
        (Kind::Failed, full, b"A: b\r\n\r\nno end", 1_000),
    ] {
        assert_eq!(third(kind, ret, octets, limit).0, "text/rfc822-headers");
    }
}

#[test]
fn a_long_header_is_cut_at_a_line_end() {
    let (to, user) = (address("sender@b.test"), address("user@d.test"));
    let recipients = [recipient(&user, Diagnostic::Local("no route"))];
    let header = "X-Line: 0123456789\r\n".repeat(10_000);
    let built =
        build(&notification(Kind::Failed, &to, Original { header: header.as_bytes(), full: None }, &recipients));
    assert_lines(&built);
    assert!(built.message.len() < RETURNED_HEADER_BYTES_MAX + 4_096);
}

#[test]
fn addresses_beyond_ascii_are_written_as_rfc_6533_says() {
    let (to, user) = (address("jürgen@b.test"), address("jür+x@d.test"));
    let recipients = [recipient(&user, Diagnostic::Local("grün"))];
    let header = "Subject: ü\r\n\r\n".as_bytes();
    let built = build(&notification(Kind::Failed, &to, Original { header, full: None }, &recipients));
    assert_lines(&built);
    assert!(built.smtputf8);
    let (types, text, status) = parts(&built);
    assert!(status.contains("Final-Recipient: utf-8; j\\x{FC}r\\x{2B}x@d.test\r\n"), "{status}");
    assert!(status.contains("Diagnostic-Code: X-Posthaste; gr?n\r\n"), "{status}");
    assert_eq!(types[2], "message/global-headers");
    assert!(text.contains("jür+x@d.test"));
}

#[test]
fn many_recipients_have_a_group_each() {
    let (to, user) = (address("sender@b.test"), address("user@d.test"));
    let recipients = vec![recipient(&user, Diagnostic::Local("no route")); 500];
    let built = build(&notification(Kind::Failed, &to, Original { header: HEADER, full: None }, &recipients));
    assert_lines(&built);
    assert_eq!(parts(&built).2.matches("\r\n\r\nFinal-Recipient:").count(), 500);
}

#[test]
fn a_header_with_a_bare_cr_is_returned_in_an_encoding_that_keeps_it() {
    let (to, user) = (address("sender@b.test"), address("user@d.test"));
    let recipients = [recipient(&user, Diagnostic::Local("why"))];
    for header in [&b"\r"[..], b"Subject: a\rb\r\n", b"a\nb", b"a\0b"] {
        let original = Original { header, full: None };
        let built = build(&notification(Kind::Failed, &to, original, &recipients));
        assert!(is_clean(&built.message), "{header:?}: {}", String::from_utf8_lossy(&built.message));
    }
}

proptest! {
    #[test]
    fn whatever_peers_say_the_report_stays_whole(
        said in "([ -~]{0,40}|\\PC|\r\n|\n--report_|\0|x{900,1100}){0,8}",
        host in "\\PC{0,20}",
        envid in "\\PC{0,20}",
        header in prop::collection::vec(any::<u8>(), 0..200),
        failed in any::<bool>(),
    ) {
        let (to, user) = (address("sender@b.test"), address("user@d.test"));
        let reply = reply(550, &said);
        let recipients = [
            RecipientStatus { remote_mta: Some(&host), ..recipient(&user, Diagnostic::Smtp(&reply)) },
            recipient(&user, Diagnostic::Local(&said)),
        ];
        let kind = if failed { Kind::Failed } else { Kind::Delayed };
        let original = Original { header: &header, full: None };
        let built = build(&Notification { envid: Some(&envid), ..notification(kind, &to, original, &recipients) });
        prop_assert!(is_clean(&built.message));
        let (types, _, status) = parts(&built);
        prop_assert_eq!(types.len(), 3);
        prop_assert_eq!(status.matches("\r\nFinal-Recipient:").count(), 2);
        prop_assert_eq!(status.matches("\r\nAction:").count(), 2);
    }
}
