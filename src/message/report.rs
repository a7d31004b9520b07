//! The frame of all that we write to senders of mail: a `multipart/report` (RFC 6522) from MAILER-DAEMON, its parts given.
//!
//! The MIME frame is mail-builder's. Three of its defaults would break a report and are avoided here: a text part gets
//! quoted-printable as soon as a line passes 77 octets, which RFC 3464 §2.1 forbids for `message/delivery-status` (an
//! explicit `Content-Transfer-Encoding` keeps the octets as they are); every text part gets a `charset` (so the parts
//! are made from raw headers); boundary, `Date` and `Message-ID` come from the system clock (so all three are given).

use std::sync::Arc;

use mail_builder::MessageBuilder;
use mail_builder::headers::address::Address;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::message_id::MessageId as MessageIdField;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::{BodyPart, MimePart};

use super::dkim::{self, SignError, Signer};
use super::header::first_line;
use crate::types::{BodyKind, EmailAddress, MessageId, Timestamp};

/// Octets of a subject or Message-ID taken over from the original message. Above: cut, or left out.
pub(super) const QUOTED_FIELD_BYTES_MAX: usize = 500;
/// RFC 5322 §2.1.1, without CRLF.
const LINE_BYTES_MAX: usize = 998;

/// A message of ours, ready for the queue.
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

impl Built {
    /// Puts our signatures in front, where there are keys. A key that fails leaves it unsigned: it is better than none.
    pub fn sign(&mut self, at: Timestamp, signers: &[Arc<Signer>]) -> Result<(), SignError> {
        self.header_bytes += dkim::sign_message(&mut self.message, self.header_bytes, at, signers)?;
        Ok(())
    }
}

/// All but the signatures.
pub(super) struct Frame<'a> {
    /// Makes its `Message-ID` and its boundary.
    pub(super) id: MessageId,
    pub(super) now: Timestamp,
    /// The domain of `MAILER-DAEMON`.
    pub(super) hostname: &'a str,
    pub(super) to: &'a EmailAddress,
    /// In ASCII.
    pub(super) subject: &'a str,
    pub(super) report_type: &'static str,
    /// The `Message-ID` of the message that it is about, without angle brackets.
    pub(super) answers: Option<String>,
    pub(super) parts: Vec<MimePart<'static>>,
}

pub(super) fn build(frame: Frame<'_>) -> Built {
    // A fresh id cannot occur in a message that is older than it.
    let boundary = format!("report_{}", frame.id);
    let report_type = ContentType::new("multipart/report")
        .attribute("report-type", frame.report_type)
        .attribute("boundary", boundary);
    let mut builder = MessageBuilder::new()
        .from(Address::new_address(Some("Mail Delivery System"), format!("MAILER-DAEMON@{}", frame.hostname)))
        .to(Address::new_address(None::<&str>, frame.to.to_ascii_domain()))
        .header("Subject", Raw::new(frame.subject))
        .header("Date", Raw::new(frame.now.to_rfc5322()))
        .message_id(format!("{}@{}", frame.id, frame.hostname))
        .header("Auto-Submitted", Raw::new("auto-replied"))
        .header("MIME-Version", Raw::new("1.0"));
    if let Some(original_id) = frame.answers {
        builder = builder
            .header("In-Reply-To", MessageIdField::new(original_id.clone()))
            .header("References", MessageIdField::new(original_id));
    }
    let contents = BodyPart::Multipart(frame.parts);
    let body = MimePart { headers: vec![("Content-Type".into(), report_type.into())], contents };
    let mut message = Vec::new();
    builder.body(body).serialize(&mut message);
    let header_bytes = super::header::block_end(&message, 0).unwrap_or(message.len());
    let is_ascii = message.get(header_bytes..).is_none_or(<[u8]>::is_ascii);
    let body = if is_ascii { BodyKind::SevenBit } else { BodyKind::EightBitMime };
    Built { message, header_bytes, body, smtputf8: frame.to.needs_smtputf8() }
}

/// A part with exactly this type. With an encoding the octets stay as they are; without one mail-builder chooses.
pub(super) fn part(content_type: &'static str, encoding: Option<&'static str>, octets: Vec<u8>) -> MimePart<'static> {
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

/// A file of these octets, whatever they are.
pub(super) fn attached(content_type: &'static str, name: &str, octets: Vec<u8>) -> MimePart<'static> {
    let disposition = format!("attachment; filename={name}");
    let headers = vec![
        ("Content-Type".into(), Raw::new(content_type).into()),
        ("Content-Disposition".into(), Raw::new(disposition).into()),
    ];
    MimePart { headers, contents: BodyPart::Binary(octets.into()) }
}

/// Only CRLF line ends, no NUL, no line above 998 octets, ends with CRLF or is empty.
pub(super) fn is_clean(octets: &[u8]) -> bool {
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

/// A Message-ID without its angle brackets, if it is one that can be repeated.
pub(super) fn quotable_id(value: &str) -> Option<String> {
    let id = value.trim().strip_prefix('<')?.strip_suffix('>')?;
    let valid = id.len() <= QUOTED_FIELD_BYTES_MAX
        && id.contains('@')
        && id.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>'));
    valid.then(|| id.to_owned())
}
