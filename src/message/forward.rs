//! Bounces and complaints that came home, written anew for the sender of the message that they are about: `multipart/report` (RFC 6522)
//! with a text for people, a part for programs, and the report as it came.
//!
//! | | for programs | third part |
//! |---|---|---|
//! | bounce | `message/delivery-status` (RFC 3464) of this recipient alone | the report, `message/rfc822` |
//! | complaint | `message/feedback-report` (RFC 5965): as it came, where that can be, else what was understood of it | likewise |
//!
//! Promises: those of [`super::dsn`]: any input gives a message with CRLF line ends, without long lines; ASCII outside of text, the report
//! and the sender's own address; nothing that a stranger wrote starts a field or a part. Of a report above [`REPORT_BYTES_MAX`] its front
//! is attached. Does not: say who is to hear of it.

mod text;

use mail_builder::mime::MimePart;

use super::dsn::status::{DIAGNOSTIC_CHARS_MAX, NAME_CHARS_MAX, ascii, field, final_recipient};
use super::header::{first_line, is_header_line, split};
use super::report::{self, Built, Frame, attached, is_clean, part};
use crate::types::{BounceKind, EmailAddress, EnhancedStatus, MessageId, Timestamp};

/// Octets of a report that are attached. Above: its front, to the end of a line.
pub const REPORT_BYTES_MAX: usize = 100 * 1024;
/// Octets of a feedback part that is handed on as it came. Above: it is written anew.
pub const FEEDBACK_PART_BYTES_MAX: usize = 16 * 1024;

/// All that it is made of.
#[derive(Clone, Debug)]
pub struct Forward<'a> {
    /// Its own id: makes its `Message-ID` and its boundary; its time is its `Date`.
    pub id: MessageId,
    /// Our name.
    pub hostname: &'a str,
    /// The envelope sender of the message that it is about.
    pub to: &'a EmailAddress,
    /// That message.
    pub about: About<'a>,
    /// What happened.
    pub news: News<'a>,
    /// What came home: header and body.
    pub report: &'a [u8],
}

/// The message that it is about. Texts are cut and cleaned here.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// As events name it; its time is that of acceptance.
    pub id: MessageId,
    /// Of whom it tells.
    pub recipient: &'a EmailAddress,
    /// Its `From`.
    pub from: Option<&'a str>,
    /// Its `To`.
    pub to: Option<&'a str>,
    /// Its `Subject`.
    pub subject: Option<&'a str>,
    /// Its `Message-ID`, with angle brackets.
    pub message_id: Option<&'a str>,
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// A host that had taken it could not deliver it.
    Bounce(Bounce<'a>),
    /// Its recipient, or the host, had something to say of it.
    Complaint(Complaint<'a>),
}

/// What a report of a failure says, as far as it does.
#[derive(Clone, Copy, Debug)]
pub struct Bounce<'a> {
    /// In SES's words.
    pub kind: BounceKind,
    /// RFC 3463.
    pub status: Option<EnhancedStatus>,
    /// Type and text of `Diagnostic-Code`; the type may be empty.
    pub diagnostic: Option<(&'a str, &'a str)>,
    /// Type and name of the host that wrote the report.
    pub reporting_mta: Option<(&'a str, &'a str)>,
    /// Of the host that refused it.
    pub remote_mta: Option<(&'a str, &'a str)>,
    /// When it was tried last.
    pub attempted_at: Option<Timestamp>,
}

/// What a report of feedback says.
#[derive(Clone, Copy, Debug)]
pub struct Complaint<'a> {
    /// `Feedback-Type` as SES names it.
    pub kind: Option<&'a str>,
    /// It is no complaint: praise, or a notice that something could not be verified.
    pub is_harmless: bool,
    /// Who made the report.
    pub user_agent: Option<&'a str>,
    /// When the message came there.
    pub arrived_at: Option<Timestamp>,
    /// The part of feedback as it came, its transfer encoding undone.
    pub part: Option<&'a [u8]>,
}

/// Builds it.
pub fn build(forward: &Forward<'_>) -> Built {
    let (kind, report_type, octets) = match &forward.news {
        News::Bounce(bounce) => ("message/delivery-status", "delivery-status", status_part(forward, bounce)),
        News::Complaint(complaint) => ("message/feedback-report", "feedback-report", feedback_part(forward, complaint)),
    };
    let text = text::compose(forward).into_bytes();
    report::build(Frame {
        id: forward.id,
        now: forward.id.accepted_at(),
        hostname: forward.hostname,
        to: forward.to,
        subject: text::subject(&forward.news),
        report_type,
        answers: forward.about.message_id.and_then(report::quotable_id),
        parts: vec![
            part("text/plain; charset=utf-8", None, text),
            part(kind, Some("7bit"), octets),
            report_part(front(forward.report)),
        ],
    })
}

/// RFC 3464 §2, of one recipient: that which it was sent to, wherever the report says that it went from there.
fn status_part(forward: &Forward<'_>, bounce: &Bounce<'_>) -> Vec<u8> {
    let mut out = String::with_capacity(1_024);
    let about = &forward.about;
    field(&mut out, "Reporting-MTA", &bounce.reporting_mta.map_or_else(|| format!("dns; {}", forward.hostname), typed));
    field(&mut out, "Arrival-Date", &about.id.accepted_at().to_rfc5322());
    field(&mut out, "X-Posthaste-Message-ID", &about.id.to_string());
    if let Some(id) = about.message_id.and_then(report::quotable_id) {
        field(&mut out, "X-Original-Message-ID", &format!("<{id}>"));
    }
    out.push_str("\r\n");
    field(&mut out, "Final-Recipient", &final_recipient(about.recipient));
    field(&mut out, "Action", "failed");
    field(&mut out, "Status", &text::status(bounce).to_string());
    if let Some(mta) = bounce.remote_mta {
        field(&mut out, "Remote-MTA", &typed(mta));
    }
    if let Some((kind, text)) = bounce.diagnostic {
        let kind = if kind.is_empty() { "X-Unknown".to_owned() } else { ascii(kind, NAME_CHARS_MAX) };
        field(&mut out, "Diagnostic-Code", &format!("{kind}; {}", ascii(text, DIAGNOSTIC_CHARS_MAX)));
    }
    if let Some(at) = bounce.attempted_at {
        field(&mut out, "Last-Attempt-Date", &at.to_rfc5322());
    }
    let (kind, sub_type) = bounce.kind.names();
    field(&mut out, "X-Posthaste-Bounce", &format!("{kind}; {sub_type}"));
    out.into_bytes()
}

/// `dns; mx.example.test`.
fn typed((kind, name): (&str, &str)) -> String {
    let kind = if kind.is_empty() { "dns" } else { kind };
    format!("{}; {}", ascii(kind, NAME_CHARS_MAX), ascii(name, NAME_CHARS_MAX))
}

/// RFC 5965 §3.
fn feedback_part(forward: &Forward<'_>, complaint: &Complaint<'_>) -> Vec<u8> {
    if let Some(octets) = complaint.part.and_then(handed_on) {
        return octets;
    }
    let mut out = String::with_capacity(512);
    field(&mut out, "Feedback-Type", &ascii(complaint.kind.unwrap_or("other"), NAME_CHARS_MAX));
    let user_agent = complaint.user_agent.map(|agent| ascii(agent, NAME_CHARS_MAX)).filter(|agent| !agent.is_empty());
    field(&mut out, "User-Agent", user_agent.as_deref().unwrap_or("posthaste"));
    field(&mut out, "Version", "1");
    if !forward.about.recipient.needs_smtputf8() {
        field(&mut out, "Original-Rcpt-To", &format!("<{}>", forward.about.recipient.to_ascii_domain()));
    }
    if let Some(at) = complaint.arrived_at {
        field(&mut out, "Arrival-Date", &at.to_rfc5322());
    }
    field(&mut out, "X-Posthaste-Message-ID", &forward.about.id.to_string());
    out.into_bytes()
}

/// The part as it came, with line ends mended; `None` where it could not stand within a message as it is.
fn handed_on(octets: &[u8]) -> Option<Vec<u8>> {
    let octets = octets.trim_ascii();
    if octets.is_empty() || octets.len() > FEEDBACK_PART_BYTES_MAX {
        return None;
    }
    let mut out = Vec::with_capacity(octets.len() + octets.len() / 16 + 2);
    for line in octets.split(|byte| *byte == b'\n') {
        out.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        out.extend_from_slice(b"\r\n");
    }
    let is_text = |byte: &u8| matches!(byte, b'\t' | b'\r' | b'\n' | b' '..=b'~');
    (is_clean(&out) && out.iter().all(is_text)).then_some(out)
}

/// The report, or its first lines where it is too long: what it says stands in front of what it returns.
fn front(report: &[u8]) -> &[u8] {
    let Some(front) = report.get(..REPORT_BYTES_MAX).filter(|_| report.len() > REPORT_BYTES_MAX) else { return report };
    let end = memchr::memrchr(b'\n', front).map_or(0, |at| at + 1);
    front.get(..end).unwrap_or_default()
}

/// As a message, where it is one that may stand within another; else as a file.
fn report_part(report: &[u8]) -> MimePart<'static> {
    let (header, _) = split(report);
    if !is_header_line(first_line(report)) || !is_clean(report) {
        return attached("application/octet-stream", "report.eml", report.to_vec());
    }
    let kind = if header.is_ascii() { "message/rfc822" } else { "message/global" };
    part(kind, Some(if report.is_ascii() { "7bit" } else { "8bit" }), report.to_vec())
}

#[cfg(test)]
mod tests;
