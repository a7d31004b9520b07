//! Delivery status notifications: `multipart/report` (RFC 6522) with a text for people, a `message/delivery-status`
//! (RFC 3464) for programs, and the returned message or its header.
//!
//! Promises: any input gives a message with CRLF line ends only, no line above 998 octets unless the returned message
//! itself has one (then only its header is returned), ASCII outside of the returned message and of the sender's own
//! address; text that a peer chose cannot start a field or a part. The null reverse-path, whether a notification is due
//! at all (NOTIFY, a null sender), and rate limits are the caller's.

pub(super) mod status;
pub(super) mod text;

use mail_builder::mime::MimePart;

use super::header::{Fields, Known, Single, first_line};
use super::original::{decode, unfold};
use super::report::{self, Frame, QUOTED_FIELD_BYTES_MAX, is_clean, part};
use crate::types::{DsnReturn, EmailAddress, EnhancedStatus, MessageId, OriginalRecipient, Reply, Timestamp};

pub use super::report::Built;

/// Octets of a returned header. Above: cut at a line end.
const RETURNED_HEADER_BYTES_MAX: usize = 64 * 1024;

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

/// Builds a notification.
pub fn build(notification: &Notification<'_>) -> Built {
    let parts = vec![
        text::part(notification),
        part("message/delivery-status", Some("7bit"), status::write(notification).into_bytes()),
        returned_part(notification),
    ];
    report::build(Frame {
        id: notification.id,
        now: notification.now,
        hostname: notification.hostname,
        to: notification.to,
        subject: text::subject(notification.kind),
        report_type: "delivery-status",
        answers: original_message_id(notification.original.header),
        parts,
    })
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

/// The original's Message-ID without angle brackets, if it is one that can be repeated.
fn original_message_id(header: &[u8]) -> Option<String> {
    report::quotable_id(&field(header, Single::MessageId)?)
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
