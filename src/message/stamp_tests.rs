//! What leaves `stamp` is clean, and nothing that the client wrote is lost but what must be.

use proptest::prelude::*;

use super::*;
use crate::types::{BodyKind, EmailAddress, Recipient, ReversePath};

const ADDED: &str = "Received: by mx.test with ESMTPS\r\n\tid 01010187edb7434c-00000000-0000-4000-8000-000000000007-000000\
                     ;\r\n\tFri, 5 May 2023 21:00:23 +0000\r\n";
const DATE: &str = "Date: Fri, 5 May 2023 21:00:23 +0000\r\n";
const ID: &str = "Message-ID: <01010187edb7434c-00000000-0000-4000-8000-000000000007-000000@mx.test>\r\n";

fn envelope(recipients: &[&str]) -> Envelope {
    let recipient =
        |text: &&str| Recipient { address: EmailAddress::parse(text, true).unwrap(), notify: None, orcpt: None };
    Envelope {
        reverse_path: ReversePath::Null,
        recipients: recipients.iter().map(recipient).collect(),
        body: BodyKind::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
    }
}

fn context(envelope: &Envelope) -> Context<'_> {
    let accepted_at = Timestamp::from_millis(1_683_320_423_244);
    Context {
        id: MessageId::new(accepted_at, 7),
        accepted_at,
        hostname: "mx.test",
        client: None,
        protocol: "ESMTPS",
        tls: None,
        envelope,
        hops_max: 3,
        eight_bit: EightBitHeaders::Pass,
        date: Submitted::Keep,
        message_id: Submitted::Keep,
        from: FromRule::Any,
    }
}

fn run(block: &[u8]) -> Result<Stamped, Refusal> {
    let envelope = envelope(&["a@b.test", "c@d.test"]);
    stamp(block, &context(&envelope))
}

/// The header without what every message gets, and the rest.
fn check(block: &str, expected_header: &str, expected_rest: &str) {
    let stamped = run(block.as_bytes()).unwrap();
    let text = String::from_utf8(stamped.block).unwrap();
    let (header, rest) = text.split_at(stamped.header_bytes);
    let header = header.strip_prefix(ADDED).unwrap_or_else(|| panic!("no Received: {header:?}"));
    assert_eq!(header, expected_header, "{block:?}");
    assert_eq!(rest, expected_rest, "{block:?}");
}

fn refused(block: &str) -> String {
    run(block.as_bytes()).map(|stamped| stamped.header_bytes).unwrap_err().reply().to_string()
}

#[test]
fn date_and_message_id_are_added_only_where_they_are_missing() {
    check("Subject: x\r\n\r\n", &format!("Subject: x\r\n{DATE}{ID}\r\n"), "");
    check("date: y\r\nMessage-Id: <z>\r\n\r\n", "date: y\r\nMessage-Id: <z>\r\n\r\n", "");
    check("Date: \r\nMessage-ID:\r\n\t\r\nA: b\r\n\r\n", &format!("A: b\r\n{DATE}{ID}\r\n"), "");
    check("", &format!("{DATE}{ID}\r\n"), "");
    check("\r\n", &format!("{DATE}{ID}\r\n"), "");
}

#[test]
fn the_body_is_passed_on_as_it_is() {
    let added = format!("{DATE}{ID}\r\n");
    check("Hello\r\n\r\nworld\r\n", &added, "Hello\r\n\r\nworld\r\n");
    check("A: b\r\nHello: you\r\nand you\r\n", &format!("A: b\r\nHello: you\r\n{added}"), "and you\r\n");
    check("A: b\r\n\r\nBcc: x\r\n\r\n \r\n", &format!("A: b\r\n{added}"), "Bcc: x\r\n\r\n \r\n");
    check("A: b", &format!("A: b\r\n{added}"), "");
    let wild = b"A: b\r\n\r\n\0bare\rand\n\xff";
    let stamped = run(wild).unwrap();
    assert_eq!(stamped.block.get(stamped.header_bytes..), wild.get(8..));
}

#[test]
fn fields_that_must_not_leave_are_stripped_in_every_spelling() {
    check(
        "Bcc: a@b.test\r\nbcc : x,\r\n y\r\nRESENT-BCC: z\r\nReturn-Path: <r@s.test>\r\nX-SES-Configuration-Set: c\r\n\
         X-SES-SOURCE-ARN: arn\r\nA: b\r\nx-ses-message-tags: k=v\r\n\r\n",
        &format!("A: b\r\n{DATE}{ID}\r\n"),
        "",
    );
    let stamped =
        run(b"Bcc: secret@b.test\r\nX-SES-Configuration-Set: c\r\nX-SES-MESSAGE-TAGS: k=v, bad\r\n\r\n").unwrap();
    assert_eq!(stamped.control.configuration_set.as_deref(), Some("c"));
    assert_eq!(stamped.control.tags, [("k".to_owned(), "v".to_owned())]);
    assert_eq!(stamped.control.bad_tags, 1);
    let names: Vec<_> = stamped.original.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["X-SES-Configuration-Set", "X-SES-MESSAGE-TAGS"]);
}

#[test]
fn what_cannot_be_meant_otherwise_is_repaired() {
    let added = format!("{DATE}{ID}\r\n");
    check("Subject : x\r\n\r\n", &format!("Subject: x\r\n{added}"), "");
    check("Subject: x\r\n \t\r\n y\r\n\r\n", &format!("Subject: x\r\n y\r\n{added}"), "");
    check("From a@b Sat Jan 1 10:00:00 2022\r\nA: b\r\n\r\n", &format!("A: b\r\n{added}"), "");
}

#[test]
fn long_lines_are_folded_at_white_space() {
    let word = "x".repeat(600);
    let added = format!("{DATE}{ID}\r\n");
    check(&format!("To: {word} {word}  {word}\r\n\r\n"), &format!("To: {word}\r\n {word}\r\n {word}\r\n{added}"), "");
    let blanks = " ".repeat(2_000);
    check(&format!("A: b{blanks}c{blanks}\r\n\r\n"), &format!("A: b\r\n c\r\n{added}"), "");
    check(&format!("A:{blanks}c\r\n\r\n"), &format!("A:\r\n c\r\n{added}"), "");
    check(&format!("A: b\r\n{blanks}c\r\n\r\n"), &format!("A: b\r\n c\r\n{added}"), "");
    let longest = format!("A: {}\r\n", "y".repeat(995));
    check(&format!("{longest}\r\n"), &format!("{longest}{added}"), "");
}

#[test]
fn each_refusal_has_its_reply() {
    let word = "y".repeat(1_100);
    assert_eq!(
        refused(&format!("Long: {word}\r\n\r\n")),
        "550 5.6.11 Header 'Long' has a line of more than 998 octets that cannot be folded"
    );
    assert!(refused(&format!("{word}: x\r\n\r\n")).starts_with("550 5.6.11 Header 'yyy"));
    for name in ["From", "Subject", "To", "Cc", "Reply-To", "Sender", "Message-ID", "Date"] {
        let block = format!("{name}: a\r\nX: y\r\n{}: b\r\n\r\n", name.to_uppercase());
        assert_eq!(refused(&block), format!("554 5.6.0 Transaction failed: Duplicate header '{name}'."));
    }
    assert!(refused(&"Received: x\r\n".repeat(4)).starts_with("554 5.4.6 Too many hops: 4 Received fields, 3 are"));
    assert!(run("Received: x\r\n".repeat(3).as_bytes()).is_ok());
    for block in
        ["A: b\rc\r\n\r\n", "A: b\n\r\n", "A: b\r\n\n", "A: \0\r\n\r\n", "A: b\r\r\n\r\n", "A: b\r\n c\n\r\n", "A: b\r"]
    {
        assert_eq!(refused(block), "550 5.6.11 Header has a bare CR, a bare LF or a NUL", "{block:?}");
    }
    assert_eq!(refused(&"A: b\r\n".repeat(2_001)), "554 5.6.0 Header has more than 2000 fields");
}

#[test]
fn received_tells_the_whole_way_for_one_recipient() {
    let envelope = envelope(&["only@BÜCHER.test"]);
    let client = Some(Client { address: "2001:db8::1".parse().unwrap(), helo: "app.test" });
    let context = Context { client, tls: Some("TLSv1.3 TLS_AES_128_GCM_SHA256"), ..context(&envelope) };
    let stamped = stamp(b"\r\n", &context).unwrap();
    let text = String::from_utf8(stamped.block).unwrap();
    assert!(
        text.starts_with(
            "Received: from app.test ([IPv6:2001:db8::1])\r\n\tby mx.test with ESMTPS (TLSv1.3 TLS_AES_128_GCM_SHA256)\r\n\
             \tid 01010187edb7434c-00000000-0000-4000-8000-000000000007-000000\r\n\tfor <only@xn--bcher-kva.test>;\r\n\
             \tFri, 5 May 2023 21:00:23 +0000\r\n"
        ),
        "{text}"
    );
}

#[test]
fn hostile_helo_names_cannot_leave_their_word() {
    let envelope = envelope(&["a@b.test", "c@d.test"]);
    for (helo, shown) in [
        ("a b(c)\r\nX: y", "a_b_c___X__y"),
        ("", "[192.0.2.1]"),
        ("[10.0.0.1]", "[10.0.0.1]"),
        ("[IPv6:::1]", "[IPv6:::1]"),
        ("[evil) by x]", "_evil__by_x_"),
        ("ü", "__"),
    ] {
        let client = Some(Client { address: "192.0.2.1".parse().unwrap(), helo });
        let stamped = stamp(b"\r\n", &Context { client, ..context(&envelope) }).unwrap();
        let text = String::from_utf8(stamped.block).unwrap();
        assert!(text.starts_with(&format!("Received: from {shown} ([192.0.2.1])\r\n\tby ")), "{text}");
    }
}

#[test]
fn events_get_the_date_and_id_that_were_sent() {
    let original = run(b"From: a@b.test\r\nSubject: hi\r\n\r\n").unwrap().original;
    assert_eq!(original.date.as_deref(), Some("Fri, 5 May 2023 21:00:23 +0000"));
    assert_eq!(original.message_id.as_deref(), ID.strip_prefix("Message-ID: ").map(str::trim));
    assert_eq!(original.headers.len(), 2);
    let original = run(b"Date: then\r\nMessage-ID: <mine>\r\n\r\n").unwrap().original;
    assert_eq!((original.date.as_deref(), original.message_id.as_deref()), (Some("then"), Some("<mine>")));
}

#[test]
fn eight_bit_headers_are_encoded_refused_or_passed_on() {
    let envelope = envelope(&["to@x.test"]);
    let with = |eight_bit, block: &[u8]| stamp(block, &Context { eight_bit, ..context(&envelope) });
    let encoded = with(EightBitHeaders::Encode, "Subject: ü\r\nX: y\r\n\r\n".as_bytes()).unwrap();
    assert!(encoded.header_is_ascii);
    assert_clean(&encoded).unwrap();
    let refused = with(EightBitHeaders::Refuse, "Subject: ü\r\n\r\n".as_bytes()).unwrap_err();
    assert_eq!(
        refused.reply().to_string(),
        "550 5.6.7 Header 'Subject' has 8-bit characters: encode them (RFC 2047), or use SMTPUTF8"
    );
    assert!(with(EightBitHeaders::Encode, "To: <ü@x.test>\r\n\r\n".as_bytes()).is_err());
}

#[test]
fn eight_bit_headers_are_reported() {
    assert!(run(b"Subject: x\r\n\r\n\xfc").unwrap().header_is_ascii);
    assert!(!run("Subject: ü\r\n\r\n".as_bytes()).unwrap().header_is_ascii);
}

/// Everything that RFC 5322 asks of what we send.
fn assert_clean(stamped: &Stamped) -> Result<(), TestCaseError> {
    let header = stamped.block.get(..stamped.header_bytes).unwrap_or_default();
    prop_assert!(header.ends_with(b"\r\n\r\n"));
    let lines = header.strip_suffix(b"\r\n\r\n").unwrap_or_default();
    for line in String::from_utf8_lossy(lines).split("\r\n") {
        prop_assert!(!line.contains(['\r', '\n', '\0']), "{line:?}");
        prop_assert!(!line.trim_matches([' ', '\t']).is_empty(), "blank line in {header:?}");
    }
    for line in lines.split(|byte| *byte == b'\n') {
        prop_assert!(line.len() <= LINE_BYTES_MAX + 1);
    }
    let mut fields = Fields::new(header);
    for field in fields.by_ref() {
        prop_assert!(!matches!(field.known(), Known::Stripped | Known::Control));
        prop_assert!(!field.has_space_before_colon());
    }
    prop_assert_eq!(fields.end(), End::EmptyLine);
    prop_assert_eq!(fields.rest(), b"\r\n");
    Ok(())
}

fn header_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => Just(b"\r\n".to_vec()),
        3 => Just(b"\r\n ".to_vec()),
        3 => Just(b": ".to_vec()),
        1 => Just(b"Subject".to_vec()),
        1 => Just(b"Bcc".to_vec()),
        1 => Just(b"X-SES-MESSAGE-TAGS".to_vec()),
        1 => Just(b"To".to_vec()),
        1 => Just(b"Message-ID".to_vec()),
        1 => Just(b"From ".to_vec()),
        1 => (0_usize..1_500).prop_map(|n| vec![b' '; n]),
        1 => (0_usize..1_100).prop_map(|n| vec![b'x'; n]),
        2 => prop::collection::vec("[a-z:]{1,12}", 1..150).prop_map(|words| words.join(" ").into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn whatever_is_not_refused_leaves_clean(block in header_like(), helo in "\\PC{0,20}") {
        let envelope = envelope(&["a@b.test"]);
        let client = Some(Client { address: "192.0.2.1".parse().unwrap(), helo: &helo });
        if let Ok(stamped) = stamp(&block, &Context { client, ..context(&envelope) }) {
            assert_clean(&stamped)?;
        }
    }

    #[test]
    fn any_octets_are_stamped_or_refused(block in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(stamped) = run(&block) {
            assert_clean(&stamped)?;
        }
    }

    #[test]
    fn the_body_survives_any_header(block in header_like(), body in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut message = block;
        message.extend_from_slice(b"\r\n\r\n");
        message.extend_from_slice(&body);
        if let Ok(stamped) = run(&message) {
            prop_assert!(stamped.block.ends_with(&body));
        }
    }

    #[test]
    fn a_stamped_header_is_stamped_again_with_one_more_received(subject in "[ -~]{0,80}") {
        let first = run(format!("Subject: {subject}\r\n\r\n").as_bytes()).unwrap();
        let second = run(&first.block).unwrap();
        prop_assert_eq!(second.block, [ADDED.as_bytes(), &first.block].concat());
    }
}

#[test]
fn a_message_has_one_author() {
    let sender = EmailAddress::parse("app@b.test", false).unwrap();
    let one = Envelope { reverse_path: ReversePath::Mailbox(sender), ..envelope(&["a@b.test"]) };
    let with = |from, block: &str| {
        let stamped = stamp(block.as_bytes(), &Context { from, ..context(&one) })?;
        stamped.author.clone().map(|()| stamped)
    };
    for good in ["From: a@b.test\r\n", "from: \"A, B\" <a@b.test>\r\n", "From: =?utf-8?Q?a?= <a@b.test> (c)\r\n"] {
        assert!(with(FromRule::Require, good).is_ok(), "{good:?}");
    }
    for (bad, refusal) in [
        ("To: a@b.test\r\n", Refusal::Missing("From")),
        ("", Refusal::Missing("From")),
        ("From:\r\n", Refusal::Author),
        ("From: a@b.test, c@d.test\r\n", Refusal::Author),
        ("From: nobody\r\n", Refusal::Author),
        ("From: undisclosed:;\r\n", Refusal::Author),
        ("From: a@b.test\r\nfrom : c@d.test\r\n", Refusal::Repeated("From")),
    ] {
        assert_eq!(with(FromRule::Require, bad).unwrap_err(), refusal, "{bad:?}");
        let reply = refusal.reply();
        assert_eq!((reply.code().value(), reply.enhanced().unwrap().to_string().as_str()), (554, "5.6.0"));
        let is_repeated = matches!(refusal, Refusal::Repeated(_));
        assert_eq!(with(FromRule::Any, bad).is_err(), is_repeated, "{bad:?}");
    }
    let added = with(FromRule::Add, "Subject: x\r\n").unwrap();
    let text = String::from_utf8(added.block).unwrap();
    assert!(text.contains("\r\nFrom: <app@b.test>\r\n"), "{text}");
    assert_eq!(added.claims.from.len(), 1);
    assert_eq!(with(FromRule::Add, "From: nobody\r\n").unwrap_err(), Refusal::Author);
    let null = Envelope { reverse_path: ReversePath::Null, ..one.clone() };
    let refused = stamp(b"Subject: x\r\n", &Context { from: FromRule::Add, ..context(&null) });
    assert_eq!(refused.unwrap().author, Err(Refusal::Missing("From")));
}

#[test]
fn date_and_message_id_are_replaced_where_that_is_asked_for() {
    let one = envelope(&["a@b.test"]);
    let (date, message_id) = (Submitted::Replace, Submitted::Replace);
    let block = b"Date: yesterday\r\nMessage-ID: <old@b.test>\r\nX: y\r\n";
    let stamped = stamp(block, &Context { date, message_id, ..context(&one) }).unwrap();
    let text = String::from_utf8(stamped.block).unwrap();
    assert!(!text.contains("yesterday") && !text.contains("old@b.test"), "{text}");
    assert!(text.contains(ID) && text.contains(DATE), "{text}");
    assert_eq!(stamped.original.message_id.as_deref(), ID.trim_end().strip_prefix("Message-ID: "));
}
