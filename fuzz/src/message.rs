//! Messages: header blocks that clients wrote, and notifications built from what hosts and clients said.

use std::collections::BTreeMap;

use posthaste::events::schema::{CommonHeaders, Extras, Mail, MailObject, render_mail, send};
use posthaste::events::{EventId, OutboxEvent};
use posthaste::message::dsn::{self, Diagnostic, Kind, Notification, Original, RecipientStatus};
use posthaste::message::stamp::{Client, Context, Stamped, stamp};
use posthaste::smtp::client::ReplyParser;
use posthaste::types::{
    BodyKind, DsnReturn, EmailAddress, EnhancedStatus, Envelope, MessageId, OriginalRecipient, Recipient, Reply,
    ReplyCode, ReversePath, Timestamp,
};

use super::octets::{LINE_BYTES_MAX, assert_clean, assert_short_lines};

const NOW: Timestamp = Timestamp::from_millis(1_683_320_423_244);
const HOPS_MAX: usize = 5;

/// A header block, stamped, and the event that tells of it. The first line is what the client said in EHLO.
pub fn message_stamp(data: &[u8]) {
    let (helo, block) = first_line(data);
    let helo = String::from_utf8_lossy(helo);
    let envelope = envelope();
    let context = Context {
        id: MessageId::new(NOW, 7),
        accepted_at: NOW,
        hostname: "mx.test",
        client: Some(Client { address: [192, 0, 2, 1].into(), helo: &helo }),
        protocol: "ESMTPS",
        tls: Some("TLSv1.3 TLS_AES_256_GCM_SHA384"),
        envelope: &envelope,
        hops_max: HOPS_MAX,
        eight_bit: posthaste::message::stamp::EightBitHeaders::Encode,
        date: posthaste::message::stamp::Submitted::Keep,
        message_id: posthaste::message::stamp::Submitted::Keep,
        from: posthaste::message::stamp::FromRule::Add,
    };
    match stamp(block, &context) {
        Ok(stamped) => check_stamped(&stamped, block, &envelope, context.id),
        Err(refusal) => assert!(matches!(refusal.reply().code().value(), 550 | 554), "{refusal}"),
    }
}

fn check_stamped(stamped: &Stamped, block: &[u8], envelope: &Envelope, id: MessageId) {
    let (header, rest) = stamped.block.split_at_checked(stamped.header_bytes).expect("the header is within the block");
    assert_clean(header);
    assert_short_lines(header, LINE_BYTES_MAX);
    assert!(header.ends_with(b"\r\n\r\n"), "a header block ends with an empty line");
    assert!(block.ends_with(rest), "what follows the header was changed");
    assert_eq!(stamped.header_is_ascii, header.is_ascii());
    let original = &stamped.original;
    let json = render_mail(&MailObject {
        message_id: id,
        source: &envelope.reverse_path,
        source_ip: None,
        caller_identity: "network",
        destination: &envelope.recipients,
        headers: &original.headers,
        headers_truncated: original.truncated,
        common: CommonHeaders {
            from: &original.from,
            to: &original.to,
            cc: &original.cc,
            reply_to: &original.reply_to,
            date: original.date.as_deref(),
            message_id: original.message_id.as_deref(),
            subject: original.subject.as_deref(),
        },
        tags: &BTreeMap::from_iter(
            stamped.control.tags.iter().map(|(name, value)| (name.clone(), vec![value.clone()])),
        ),
        from_domain: None,
        configuration_set: stamped.control.configuration_set.as_deref(),
        source_tls: None,
    });
    let line = Some(send(Mail { id, json: &json }, &Extras::default()));
    let event = OutboxEvent { id: EventId::new(4_711), line };
    let mut line = Vec::new();
    event.write_line(&mut line);
    let (end, text) = line.split_last().expect("a line has at least its end");
    assert!(*end == b'\n' && !text.contains(&b'\n'), "an event is one line");
    let value: serde_json::Value = serde_json::from_slice(text).expect("an event is JSON");
    assert_eq!(value.pointer("/posthaste/eventId"), Some(&serde_json::Value::from(4_711)));
}

/// A notification: octet 0 chooses its kind, the first line is the reply or our words, the second what names hosts and
/// envelopes, the rest the message that failed.
pub fn message_dsn(data: &[u8]) {
    let Some((flags, rest)) = data.split_first() else { return };
    let (words, rest) = first_line(rest);
    let (names, original) = first_line(rest);
    // What is returned comes from the queue, whose messages are clean; their lines may be of any length.
    let original = clean(original);
    let (words, names) = (String::from_utf8_lossy(words), String::from_utf8_lossy(names));
    let reply = reply(words.as_bytes());
    let recipient = address(flags & 1 != 0);
    let orcpt = OriginalRecipient { address_type: names.as_ref().into(), address: names.as_ref().into() };
    let status = RecipientStatus {
        address: &recipient,
        orcpt: (flags & 2 != 0).then_some(&orcpt),
        status: EnhancedStatus::new(5, 1, 1).expect("5.1.1 is a status"),
        diagnostic: if flags & 4 != 0 { Diagnostic::Smtp(&reply) } else { Diagnostic::Local(&words) },
        remote_mta: Some(&names),
        last_attempt_at: Some(NOW),
        retry_until: (flags & 8 != 0).then_some(NOW),
    };
    let built = dsn::build(&Notification {
        kind: match flags >> 4 & 3 {
            0 => Kind::Relayed,
            1 => Kind::Delayed,
            _ => Kind::Failed,
        },
        id: MessageId::new(NOW, 8),
        now: NOW,
        hostname: "mx.test",
        to: &address(flags & 64 != 0),
        envid: Some(&names),
        arrived_at: NOW,
        ret: Some(if flags & 128 != 0 { DsnReturn::Full } else { DsnReturn::Headers }),
        full_bytes_max: 10_000,
        original: Original { header: &original, full: Some(&original) },
        recipients: &[status],
    });
    assert_clean(&built.message);
    assert_short_lines(&built.message, LINE_BYTES_MAX);
    assert!(built.header_bytes <= built.message.len() && built.message.ends_with(b"\r\n"));
    if built.body == BodyKind::SevenBit && !built.smtputf8 {
        assert!(built.message.is_ascii(), "8-bit octets in a 7-bit notification");
    }
}

fn reply(words: &[u8]) -> Reply {
    let mut parser = ReplyParser::new();
    parser.push(words);
    parser.push(b"\r\n");
    let parsed = parser.next_reply().ok().flatten();
    parsed.unwrap_or_else(|| Reply::new(ReplyCode::new(550).expect("550 is a reply code"), None, Vec::new()))
}

fn clean(octets: &[u8]) -> Vec<u8> {
    let kept = octets.iter().copied().filter(|octet| !matches!(octet, 0 | b'\r'));
    kept.flat_map(|octet| if octet == b'\n' { vec![b'\r', b'\n'] } else { vec![octet] }).collect()
}

fn first_line(data: &[u8]) -> (&[u8], &[u8]) {
    let end = data.iter().position(|octet| *octet == b'\n').unwrap_or(data.len());
    (data.get(..end).unwrap_or_default(), data.get(end + 1..).unwrap_or_default())
}

fn envelope() -> Envelope {
    Envelope {
        reverse_path: ReversePath::Mailbox(address(false)),
        recipients: vec![Recipient { address: address(true), notify: None, orcpt: None }],
        body: BodyKind::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
    }
}

fn address(is_international: bool) -> EmailAddress {
    let text = if is_international { "grüße@bücher.test" } else { "sender@a.test" };
    EmailAddress::parse(text, true).expect("a literal of this file, with a local part and a domain")
}
