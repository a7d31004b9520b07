//! Delivery status notifications: `multipart/report` (RFC 6522) with a text for people, a `message/delivery-status`
//! (RFC 3464) for programs, and the returned message or its header.
//!
//! Promises: any input gives a message with CRLF line ends only, no line above 998 octets unless the returned message
//! itself has one (then only its header is returned), ASCII outside of the returned message and of the sender's own
//! address; text that a peer chose cannot start a field or a part. The null reverse-path, whether a notification is due
//! at all (NOTIFY, a null sender), and rate limits are the caller's.
//!
//! The MIME frame is mail-builder's. Three of its defaults would break a report and are avoided here: a text part gets
//! quoted-printable as soon as a line passes 77 octets, which RFC 3464 §2.1 forbids for `message/delivery-status` (an
//! explicit `Content-Transfer-Encoding` keeps the octets as they are); every text part gets a `charset` (so the parts
//! are made from raw headers); boundary, `Date` and `Message-ID` come from the system clock (so all three are given).

mod status;
mod text;

use mail_builder::MessageBuilder;
use mail_builder::headers::address::Address;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::message_id::MessageId as MessageIdField;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::{BodyPart, MimePart};

use super::header::{Fields, Known, Single, first_line};
use super::original::{decode, unfold};
use crate::types::{BodyKind, DsnReturn, EmailAddress, EnhancedStatus, MessageId, OriginalRecipient, Reply, Timestamp};

/// Octets of a returned header. Above: cut at a line end.
const RETURNED_HEADER_BYTES_MAX: usize = 64 * 1024;
/// Octets of a subject or Message-ID taken over from the original message. Above: cut, or left out.
const QUOTED_FIELD_BYTES_MAX: usize = 500;
/// RFC 5322 §2.1.1, without CRLF.
const LINE_BYTES_MAX: usize = 998;

/// What a notification tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It was not delivered and will not be tried again: `Action: failed`.
    Failed,
    /// It was not delivered yet: `Action: delayed`.
    Delayed,
    /// Success, as far as we know: the next hop took it and cannot say more (RFC 3461 §6.2.3): `Action: relayed`.
    Relayed,
}

/// All that a notification is made of.
#[derive(Clone, Debug)]
pub struct Notification<'a> {
    /// What it tells, for all its recipients.
    pub kind: Kind,
    /// The notification's own id: makes its `Message-ID` and its boundary.
    pub id: MessageId,
    /// Its `Date`.
    pub now: Timestamp,
    /// Our name: `Reporting-MTA`, and the domain of `MAILER-DAEMON`.
    pub hostname: &'a str,
    /// The reverse-path of the original message.
    pub to: &'a EmailAddress,
    /// `ENVID` of the original message, xtext decoded.
    pub envid: Option<&'a str>,
    /// When the original message was accepted.
    pub arrived_at: Timestamp,
    /// `RET` of the original message. It counts for failures only (RFC 3461 §4.3); without it the header is returned.
    pub ret: Option<DsnReturn>,
    /// A message above this many octets is not returned in full, whatever `ret` says.
    pub full_bytes_max: usize,
    /// What is returned.
    pub original: Original<'a>,
    /// At least one.
    pub recipients: &'a [RecipientStatus<'a>],
}

/// The original message, as it was sent.
#[derive(Clone, Copy, Debug)]
pub struct Original<'a> {
    /// Its header block, with or without the empty line.
    pub header: &'a [u8],
    /// All of it, header included, where the caller has it at hand.
    pub full: Option<&'a [u8]>,
}

/// What became of one recipient.
#[derive(Clone, Debug)]
pub struct RecipientStatus<'a> {
    /// The forward path.
    pub address: &'a EmailAddress,
    /// `ORCPT` as submitted.
    pub orcpt: Option<&'a OriginalRecipient>,
    /// RFC 3463 status: the peer's, or ours where the peer gave none or was not reached.
    pub status: EnhancedStatus,
    /// What was said.
    pub diagnostic: Diagnostic<'a>,
    /// The host that said it, by name.
    pub remote_mta: Option<&'a str>,
    /// The last attempt, if there was one.
    pub last_attempt_at: Option<Timestamp>,
    /// Until when it will be tried; for delays.
    pub retry_until: Option<Timestamp>,
}

/// Why, in whose words.
#[derive(Clone, Copy, Debug)]
pub enum Diagnostic<'a> {
    /// The peer's reply: `Diagnostic-Code: smtp; ...`.
    Smtp(&'a Reply),
    /// Our own words, where no peer said anything: `Diagnostic-Code: X-Posthaste; ...`.
    Local(&'a str),
}

/// A notification, ready for the queue.
#[derive(Clone, Debug)]
pub struct Built {
    /// Header, empty line and body; CRLF line ends, ending in CRLF.
    pub message: Vec<u8>,
    /// Octets of the header, the empty line included.
    pub header_bytes: usize,
    /// Whether octets above 127 occur in the body.
    pub body: BodyKind,
    /// The sender's address has a non-ASCII local part, so that only an SMTPUTF8 path can carry this.
    pub smtputf8: bool,
}

/// Builds a notification.
pub fn build(notification: &Notification<'_>) -> Built {
    // A fresh id cannot occur in a message that is older than it.
    let boundary = format!("report_{}", notification.id);
    let report_type = ContentType::new("multipart/report")
        .attribute("report-type", "delivery-status")
        .attribute("boundary", boundary);
    let parts = vec![
        text::part(notification),
        part("message/delivery-status", Some("7bit"), status::write(notification).into_bytes()),
        returned_part(notification),
    ];
    let id = format!("{}@{}", notification.id, notification.hostname);
    let mut builder = MessageBuilder::new()
        .from(Address::new_address(Some("Mail Delivery System"), format!("MAILER-DAEMON@{}", notification.hostname)))
        .to(Address::new_address(None::<&str>, notification.to.to_ascii_domain()))
        .header("Subject", Raw::new(text::subject(notification.kind)))
        .header("Date", Raw::new(notification.now.to_rfc5322()))
        .message_id(id)
        .header("Auto-Submitted", Raw::new("auto-replied"))
        .header("MIME-Version", Raw::new("1.0"));
    if let Some(original_id) = original_message_id(notification.original.header) {
        builder = builder
            .header("In-Reply-To", MessageIdField::new(original_id.clone()))
            .header("References", MessageIdField::new(original_id));
    }
    let body =
        MimePart { headers: vec![("Content-Type".into(), report_type.into())], contents: BodyPart::Multipart(parts) };
    let mut message = Vec::new();
    builder.body(body).serialize(&mut message);
    let header_bytes = super::header::block_end(&message, 0).unwrap_or(message.len());
    let is_ascii = message.get(header_bytes..).is_none_or(<[u8]>::is_ascii);
    let body = if is_ascii { BodyKind::SevenBit } else { BodyKind::EightBitMime };
    Built { message, header_bytes, body, smtputf8: notification.to.needs_smtputf8() }
}

/// A part with exactly this type. With an encoding the octets stay as they are; without one mail-builder chooses.
fn part(content_type: &'static str, encoding: Option<&'static str>, octets: Vec<u8>) -> MimePart<'static> {
    let mut headers = vec![("Content-Type".into(), Raw::new(content_type).into())];
    if let Some(encoding) = encoding {
        headers.push(("Content-Transfer-Encoding".into(), Raw::new(encoding).into()));
        return MimePart { headers, contents: BodyPart::Binary(octets.into()) };
    }
    let text = String::from_utf8(octets).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    if text.replace("\r\n", "").contains(['\r', '\n', '\0']) {
        // No text encoding keeps these; base64 does.
        return MimePart { headers, contents: BodyPart::Binary(text.into_bytes().into()) };
    }
    MimePart { headers, contents: BodyPart::Text(text.into()) }
}

/// The third part: the message where it was asked for, is small enough and clean, else its header. Types of RFC 6533
/// where the header is not ASCII.
fn returned_part(notification: &Notification<'_>) -> MimePart<'static> {
    let Original { header, full } = notification.original;
    let wants_full = notification.ret == Some(DsnReturn::Full) && notification.kind == Kind::Failed;
    let full = full.filter(|octets| wants_full && octets.len() <= notification.full_bytes_max && is_clean(octets));
    if let Some(octets) = full {
        let content_type = if header.is_ascii() { "message/rfc822" } else { "message/global" };
        let encoding = if octets.is_ascii() { "7bit" } else { "8bit" };
        return part(content_type, Some(encoding), octets.to_vec());
    }
    let header = returned_header(header);
    if header.is_ascii() && is_clean(&header) {
        return part("text/rfc822-headers", Some("7bit"), header);
    }
    part("message/global-headers", None, header)
}

/// The header without its empty line, cut at a line end where it is too long.
fn returned_header(header: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(header.len().min(RETURNED_HEADER_BYTES_MAX));
    let mut rest = header;
    while !rest.is_empty() {
        let line = first_line(rest);
        rest = rest.get(line.len()..).unwrap_or_default();
        let is_end = matches!(line, b"\r\n" | b"\n");
        if is_end || lines.len() + line.len() > RETURNED_HEADER_BYTES_MAX {
            break;
        }
        lines.extend_from_slice(line);
    }
    lines
}

/// Only CRLF line ends, no NUL, no line above 998 octets, ends with CRLF or is empty.
fn is_clean(octets: &[u8]) -> bool {
    let mut rest = octets;
    while !rest.is_empty() {
        let line = first_line(rest);
        rest = rest.get(line.len()..).unwrap_or_default();
        let Some(content) = line.strip_suffix(b"\r\n") else { return false };
        if content.len() > LINE_BYTES_MAX || memchr::memchr2(b'\r', 0, content).is_some() {
            return false;
        }
    }
    true
}

/// The original's Message-ID without angle brackets, if it is one that can be repeated.
fn original_message_id(header: &[u8]) -> Option<String> {
    let value = field(header, Single::MessageId)?;
    let id = value.strip_prefix('<')?.strip_suffix('>')?;
    let valid = id.len() <= QUOTED_FIELD_BYTES_MAX
        && id.contains('@')
        && id.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>'));
    valid.then(|| id.to_owned())
}

/// The original's subject, decoded, on one line, cut.
fn original_subject(header: &[u8]) -> Option<String> {
    let value = field(header, Single::Subject)?;
    let subject: String = decode(&value).chars().filter(|c| !c.is_control()).take(QUOTED_FIELD_BYTES_MAX).collect();
    Some(subject.trim().to_owned()).filter(|subject| !subject.is_empty())
}

fn field(header: &[u8], single: Single) -> Option<String> {
    let field = Fields::new(header).find(|field| field.known() == Known::Single(single))?;
    Some(unfold(field.value()).into_owned())
}

#[cfg(test)]
mod tests;
