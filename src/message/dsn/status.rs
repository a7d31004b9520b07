//! The `message/delivery-status` part (RFC 3464 §2): one group of fields for the message, one for each recipient.
//! ASCII only, lines folded; addresses that are not ASCII in the 7-bit form of RFC 6533 §3.

use std::fmt::Write;

use super::{Diagnostic, Kind, Notification, RecipientStatus};
use crate::types::{EmailAddress, OriginalRecipient};

/// Characters of a diagnostic that are kept. Long enough for every reply that a provider is known to give.
pub(crate) const DIAGNOSTIC_CHARS_MAX: usize = 2_000;
/// Characters of a name or address that a peer or client chose.
pub(crate) const NAME_CHARS_MAX: usize = 600;
/// Where lines are folded (RFC 5322 §2.1.1 recommends 78).
const FOLD_AT: usize = 76;
/// A word above this is cut into pieces, so that no line passes 998 octets.
const WORD_BYTES_MAX: usize = 700;

pub(super) fn write(notification: &Notification<'_>) -> String {
    let mut out = String::with_capacity(512 + 512 * notification.recipients.len());
    field(&mut out, "Reporting-MTA", &format!("dns; {}", ascii(notification.hostname, NAME_CHARS_MAX)));
    if let Some(envid) = notification.envid {
        field(&mut out, "Original-Envelope-Id", &ascii(envid, NAME_CHARS_MAX));
    }
    field(&mut out, "Arrival-Date", &notification.arrived_at.to_rfc5322());
    for recipient in notification.recipients {
        out.push_str("\r\n");
        write_recipient(&mut out, notification.kind, recipient);
    }
    out
}

fn write_recipient(out: &mut String, kind: Kind, recipient: &RecipientStatus<'_>) {
    if let Some(orcpt) = recipient.orcpt {
        field(out, "Original-Recipient", &original_recipient(orcpt));
    }
    field(out, "Final-Recipient", &final_recipient(recipient.address));
    let action = match kind {
        Kind::Failed => "failed",
        Kind::Delayed => "delayed",
        Kind::Relayed => "relayed",
    };
    field(out, "Action", action);
    field(out, "Status", &recipient.status.to_string());
    if let Some(host) = recipient.remote_mta {
        field(out, "Remote-MTA", &format!("dns; {}", ascii(host, NAME_CHARS_MAX)));
    }
    let diagnostic = match recipient.diagnostic {
        Diagnostic::Smtp(reply) => format!("smtp; {}", ascii(&reply.to_string(), DIAGNOSTIC_CHARS_MAX)),
        Diagnostic::Local(text) => format!("X-Posthaste; {}", ascii(text, DIAGNOSTIC_CHARS_MAX)),
    };
    field(out, "Diagnostic-Code", &diagnostic);
    if let Some(time) = recipient.last_attempt_at {
        field(out, "Last-Attempt-Date", &time.to_rfc5322());
    }
    // RFC 3464 §2.3.9: only for delays.
    if let Some(time) = recipient.retry_until.filter(|_| kind == Kind::Delayed) {
        field(out, "Will-Retry-Until", &time.to_rfc5322());
    }
}

pub(in crate::message) fn final_recipient(address: &EmailAddress) -> String {
    if address.needs_smtputf8() {
        format!("utf-8; {}", utf8_address(&address.to_ascii_domain()))
    } else {
        format!("rfc822; {}", address.to_ascii_domain())
    }
}

fn original_recipient(orcpt: &OriginalRecipient) -> String {
    let kind: String = orcpt.address_type.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(32).collect();
    let address = if kind.eq_ignore_ascii_case("utf-8") {
        utf8_address(&orcpt.address)
    } else {
        ascii(&orcpt.address, NAME_CHARS_MAX)
    };
    format!("{kind}; {address}")
}

/// `utf-8-addr-xtext` of RFC 6533 §3: what is not printable ASCII becomes `\x{HEX}`, and so do `\`, `+` and `=`.
fn utf8_address(address: &str) -> String {
    let mut out = String::with_capacity(address.len() * 2);
    for c in address.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX / 4) {
        if c.is_ascii_graphic() && !matches!(c, '\\' | '+' | '=') {
            out.push(c);
        } else {
            write!(out, "\\x{{{:X}}}", u32::from(c)).expect("writing to a String cannot fail");
        }
    }
    out
}

/// Printable ASCII on one line: white space and controls become spaces, runs of them one; other characters `?`.
pub(in crate::message) fn ascii(text: &str, chars_max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(chars_max));
    for c in text.chars().take(chars_max) {
        match c {
            '!'..='~' => out.push(c),
            c if c.is_whitespace() || c.is_control() => {
                if !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            _ => out.push('?'),
        }
    }
    out.trim().to_owned()
}

/// Appends `name: value`, folded at spaces.
pub(in crate::message) fn field(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push(':');
    let mut column = name.len() + 1;
    let pieces = value.split(' ').filter(|word| !word.is_empty()).flat_map(pieces);
    for (index, piece) in pieces.enumerate() {
        if index > 1 && column + 1 + piece.len() > FOLD_AT {
            out.push_str("\r\n");
            column = 0;
        }
        out.push(' ');
        out.push_str(piece);
        column += 1 + piece.len();
    }
    out.push_str("\r\n");
}

/// The word, or pieces of it where it is too long for a line. The text is ASCII.
fn pieces(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = word;
    std::iter::from_fn(move || {
        let (piece, more) = rest.split_at_checked(rest.len().min(WORD_BYTES_MAX))?;
        rest = more;
        (!piece.is_empty()).then_some(piece)
    })
}
