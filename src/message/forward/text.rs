//! The part for people: which message, to whom, what came of it, and what to do.

use super::super::dsn::status::ascii;
use super::super::dsn::text::{QUOTE_CHARS_MAX, explain, paragraph};
use super::super::original::decode;
use super::{About, Bounce, Complaint, Forward, News};
use crate::types::EnhancedStatus;

pub(super) fn subject(news: &News<'_>) -> &'static str {
    match news {
        News::Bounce(_) => "Your message could not be delivered after all",
        News::Complaint(complaint) if complaint.is_harmless => "A report about your message",
        News::Complaint(_) => "A complaint about your message",
    }
}

pub(super) fn compose(forward: &Forward<'_>) -> String {
    let mut out = String::with_capacity(2_048);
    paragraph(&mut out, "", begins(&forward.news));
    out.push_str("\r\n");
    write_about(&mut out, &forward.about);
    out.push_str("\r\n");
    paragraph(&mut out, "  ", forward.about.recipient.as_str());
    match &forward.news {
        News::Bounce(bounce) => write_bounce(&mut out, bounce),
        News::Complaint(complaint) => write_complaint(&mut out, complaint),
    }
    out.push_str("\r\n");
    paragraph(&mut out, "", advice(&forward.news));
    out.push_str("\r\n");
    let ends = format!(
        "The report is attached as it came. This notice was written by the mail server {}. Please do not reply to it.",
        forward.hostname
    );
    paragraph(&mut out, "", &ends);
    out
}

fn begins(news: &News<'_>) -> &'static str {
    match news {
        News::Bounce(_) => {
            "Your message could not be delivered. The mail system of the recipient had taken it, and reported this later."
        }
        News::Complaint(complaint) if complaint.is_harmless => {
            "The mail system of the recipient sent a report about your message. It is no complaint."
        }
        News::Complaint(_) => "The recipient of your message called it unwanted, or their mail system did so for them.",
    }
}

/// From, To, Subject and the time: so the sender knows which one it was.
fn write_about(out: &mut String, about: &About<'_>) {
    let sent = about.id.accepted_at().to_rfc5322();
    let shown = [("From", about.from), ("To", about.to), ("Subject", about.subject), ("Sent", Some(sent.as_str()))];
    for (name, value) in shown {
        let value = value.map(one_line).unwrap_or_default();
        let value = if value.is_empty() { "(not known)" } else { &value };
        paragraph(out, "  ", &format!("{name}: {value}"));
    }
}

fn write_bounce(out: &mut String, bounce: &Bounce<'_>) {
    paragraph(out, "    ", explain(status(bounce)));
    if let Some((_, words)) = bounce.diagnostic {
        let who = match bounce.remote_mta.or(bounce.reporting_mta) {
            Some((_, host)) => format!("The mail server {host} said:"),
            None => "The other mail system said:".to_owned(),
        };
        paragraph(out, "    ", &ascii(&who, QUOTE_CHARS_MAX));
        paragraph(out, "      ", &ascii(words, QUOTE_CHARS_MAX));
    }
    if let Some((_, host)) = bounce.reporting_mta {
        paragraph(out, "    ", &ascii(&format!("This was reported by {host}."), QUOTE_CHARS_MAX));
    }
    let (kind, sub_type) = bounce.kind.names();
    paragraph(out, "    ", &format!("Kind of bounce: {kind}, {sub_type}"));
}

fn write_complaint(out: &mut String, complaint: &Complaint<'_>) {
    paragraph(
        out,
        "    ",
        &format!("Kind of report: {}", ascii(complaint.kind.unwrap_or("not said"), QUOTE_CHARS_MAX)),
    );
    if let Some(agent) = complaint.user_agent {
        paragraph(out, "    ", &ascii(&format!("Made by: {agent}"), QUOTE_CHARS_MAX));
    }
    if let Some(at) = complaint.arrived_at {
        paragraph(out, "    ", &format!("The message arrived there: {}", at.to_rfc5322()));
    }
}

fn advice(news: &News<'_>) -> &'static str {
    match news {
        News::Bounce(_) => {
            "It will not be tried again. If the address does not exist, please send nothing more to it. If you think that \
             this is a mistake, reach the recipient by another way and show them this notice."
        }
        News::Complaint(complaint) if complaint.is_harmless => "You need not do anything because of it.",
        News::Complaint(_) => {
            "Please send this recipient nothing more of the kind, and take the address off your lists. Mail that is \
             called unwanted harms the delivery of all your mail."
        }
    }
}

/// That of the report, else what its kind comes to.
pub(super) fn status(bounce: &Bounce<'_>) -> EnhancedStatus {
    let class = if bounce.kind.names().0 == "Transient" { 4 } else { 5 };
    bounce
        .status
        .filter(|status| status.class() != 2)
        .unwrap_or_else(|| EnhancedStatus::new(class, 0, 0).expect("classes 4 and 5 with small numbers are valid"))
}

/// A field of a message, decoded, without controls, cut.
fn one_line(value: &str) -> String {
    let front = value.get(..value.floor_char_boundary(8 * QUOTE_CHARS_MAX)).unwrap_or(value);
    decode(front).chars().map(|c| if c.is_control() { ' ' } else { c }).take(QUOTE_CHARS_MAX).collect()
}
