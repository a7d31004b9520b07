//! The part for people: what happened, to whom, why, and what to do, in words that need no knowledge of mail servers.

use mail_builder::mime::MimePart;

use super::status::ascii;
use super::{Diagnostic, Kind, Notification, RecipientStatus, original_subject};
use crate::types::EnhancedStatus;

/// Characters of a peer's words that are shown.
pub(crate) const QUOTE_CHARS_MAX: usize = 500;
/// Width of the text.
const WIDTH: usize = 72;

pub(super) fn subject(kind: Kind) -> &'static str {
    match kind {
        Kind::Failed => "Your message could not be delivered",
        Kind::Delayed => "Your message is delayed (no action needed yet)",
        Kind::Relayed => "Your message was handed over",
    }
}

pub(super) fn part(notification: &Notification<'_>) -> MimePart<'static> {
    super::part("text/plain; charset=utf-8", None, compose(notification).into_bytes())
}

fn compose(notification: &Notification<'_>) -> String {
    let mut out = String::with_capacity(1_024);
    let about = match original_subject(notification.original.header) {
        Some(subject) => format!("Your message \"{subject}\" of {}", notification.arrived_at.to_rfc5322()),
        None => format!("Your message of {}", notification.arrived_at.to_rfc5322()),
    };
    let outcome = match notification.kind {
        Kind::Failed => "could not be delivered to:",
        Kind::Delayed => "has not been delivered yet to:",
        Kind::Relayed => "was handed over to the mail system of:",
    };
    paragraph(&mut out, "", &format!("{about} {outcome}"));
    for recipient in notification.recipients {
        out.push_str("\r\n");
        write_recipient(&mut out, notification.kind, recipient);
    }
    out.push_str("\r\n");
    paragraph(&mut out, "", advice(notification.kind));
    out.push_str("\r\n");
    let from =
        format!("This notice was written by the mail server {}. Please do not reply to it.", notification.hostname);
    paragraph(&mut out, "", &from);
    out
}

fn write_recipient(out: &mut String, kind: Kind, recipient: &RecipientStatus<'_>) {
    paragraph(out, "  ", recipient.address.as_str());
    if kind == Kind::Relayed {
        return;
    }
    paragraph(out, "    ", explain(recipient.status));
    let (who, words) = match (recipient.diagnostic, recipient.remote_mta) {
        (Diagnostic::Smtp(reply), Some(host)) => (format!("The mail server {host} said:"), reply.to_string()),
        (Diagnostic::Smtp(reply), None) => ("The other mail server said:".to_owned(), reply.to_string()),
        (Diagnostic::Local(text), _) => ("Details:".to_owned(), text.to_owned()),
    };
    paragraph(out, "    ", &ascii(&who, QUOTE_CHARS_MAX));
    paragraph(out, "      ", &ascii(&words, QUOTE_CHARS_MAX));
    if let Some(time) = recipient.retry_until.filter(|_| kind == Kind::Delayed) {
        paragraph(out, "    ", &format!("We keep trying until {}.", time.to_rfc5322()));
    }
}

fn advice(kind: Kind) -> &'static str {
    match kind {
        Kind::Failed => {
            "It will not be tried again. Recipients that are not listed here are not affected. If you think that this \
             is a mistake, reach the recipient by another way and show them this notice."
        }
        Kind::Delayed => {
            "You do not need to do anything and need not send it again: we keep trying, and tell you if it cannot be \
             delivered in the end."
        }
        Kind::Relayed => {
            "You asked for a confirmation of delivery. That mail system took the message, but does not confirm \
             deliveries, so this is the last that you hear of it, unless it cannot be delivered there."
        }
    }
}

/// One sentence for a status (RFC 3463), in plain words.
pub(in crate::message) fn explain(status: EnhancedStatus) -> &'static str {
    let is_final = status.class() == 5;
    match (status.subject(), status.detail()) {
        (1, 1 | 3) => "There is no such address. Please check the spelling.",
        (1, 2 | 10) => "The part after the @ does not exist or takes no mail. Please check the spelling.",
        (1, 6) | (2, 1) => "This mailbox has moved or is switched off.",
        (1, 7 | 8) => "Your own address was not accepted as a sender.",
        (2, 2) => "The mailbox is full.",
        (2, 3) | (3, 4) => "The message is too large for this mailbox.",
        (3, _) if !is_final => "The other mail system has a problem or is too busy.",
        (4, 7) => "We tried again and again, and the time for delivery has run out.",
        (4, 6) => "The message went round in circles between mail servers.",
        (4, 3 | 4) => "The mail server of this address could not be found.",
        (4, _) => "The mail server of this address could not be reached or broke off.",
        (6, _) => "The other mail system does not take the form or content of the message.",
        (7, 10) | (7, 5) => "A secure connection was needed and could not be made.",
        (7, _) if is_final => "The other mail system refused the message by its rules (for example as unwanted mail).",
        (7, _) => "The other mail system does not take the message for now, by its rules.",
        _ if is_final => "The other mail system refused the message.",
        _ => "The other mail system does not take the message for now.",
    }
}

/// Appends `text` in lines of about 72 characters, each led by `indent`.
pub(in crate::message) fn paragraph(out: &mut String, indent: &str, text: &str) {
    let mut column = 0;
    for word in text.split_whitespace() {
        let chars = word.chars().count();
        if column > 0 && column + 1 + chars > WIDTH {
            out.push_str("\r\n");
            column = 0;
        }
        if column == 0 {
            out.push_str(indent);
            column = indent.len();
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += chars;
    }
    out.push_str("\r\n");
}
