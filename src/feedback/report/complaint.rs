//! Complaints: ARF (RFC 5965, RFC 6591), feedback without a report part (Microsoft's JMRP), forwarded ones, X-ARF, and those that RFC 9477 asks for.
//!
//! Why not `mail_auth::report::Feedback`: it reads messages with mail-parser, which panics on some; it drops reports of a type that it
//! does not know, such as `opt-out` or `miscategorized`; it keeps one value of `Original-Rcpt-To`; it makes one date of two.
//!
//! Promises: what could identify the message is gathered from the whole report ([`Clues`]), since receivers redact what they like;
//! nothing of it is verified.

use std::net::IpAddr;

use super::diagnostic::head;
use super::fields::{self, Block};
use super::mail::{Mail, Part};
use super::original::{self, Clues, Original};
use super::{Mta, TEXT_BYTES_MAX, address, date, dsn, xarf};
use crate::types::{EmailAddress, Timestamp};

/// Octets of a feedback part that are read.
const FEEDBACK_BYTES_MAX: usize = 64 << 10;
/// Values of a field that may be repeated.
const VALUES_MAX: usize = 50;
/// Octets of a value that are kept.
const VALUE_BYTES_MAX: usize = 500;
/// Octets of the returned message's text in which tokens are looked for.
const SEARCHED_BYTES_MAX: usize = 256 << 10;

/// `complaintFeedbackType` of SES.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "SES's own words, which are those of RFC 5965 §7.3")]
pub enum ComplaintKind {
    Abuse,
    AuthFailure,
    Fraud,
    NotSpam,
    Other,
    Virus,
}

impl ComplaintKind {
    /// As events spell it.
    pub const fn name(self) -> &'static str {
        match self {
            ComplaintKind::Abuse => "abuse",
            ComplaintKind::AuthFailure => "auth-failure",
            ComplaintKind::Fraud => "fraud",
            ComplaintKind::NotSpam => "not-spam",
            ComplaintKind::Other => "other",
            ComplaintKind::Virus => "virus",
        }
    }

    /// Told, but held against nobody: praise, and mail that somebody forged in the sender's name, perhaps.
    pub const fn is_harmless(self) -> bool {
        matches!(self, ComplaintKind::NotSpam | ComplaintKind::AuthFailure)
    }

    /// Of a `Feedback-Type`, in any case. What is not known is [`ComplaintKind::Other`].
    pub fn of(text: &str) -> Self {
        match text.trim().to_ascii_lowercase().replace('_', "-").as_str() {
            "abuse" | "spam" | "complaint" => ComplaintKind::Abuse,
            "auth-failure" | "dkim-failure" | "dmarc" => ComplaintKind::AuthFailure,
            "fraud" | "phishing" | "phish" => ComplaintKind::Fraud,
            "not-spam" | "notspam" | "ham" => ComplaintKind::NotSpam,
            "virus" | "malware" => ComplaintKind::Virus,
            _ => ComplaintKind::Other,
        }
    }
}

/// The shape in which a complaint came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ComplaintForm {
    /// A `message/feedback-report` part (RFC 5965).
    Arf,
    /// JSON of X-ARF.
    Xarf,
    /// Only the message, attached.
    Attached,
}

/// A complaint; at most 50 values of what may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The kind for events; `None` where the report says none.
    pub kind: Option<ComplaintKind>,
    /// `Feedback-Type` as written.
    pub feedback_type: Option<String>,
    /// The recipient wants no more, and does not call it abuse: `opt-out`, `opt-out-list`.
    pub is_opt_out: bool,
    /// How it came.
    pub form: ComplaintForm,
    /// `User-Agent`: the program that made the report.
    pub user_agent: Option<String>,
    /// `Arrival-Date`, else `Received-Date`: when the receiver got the message.
    pub arrived_at: Option<Timestamp>,
    /// `Original-Mail-From`.
    pub mail_from: Option<EmailAddress>,
    /// Who complained, as far as the report says: `Original-Rcpt-To`, `Removal-Recipient`, Microsoft's `X-HmXmrOriginalRecipient`.
    pub recipients: Vec<EmailAddress>,
    /// `Source-IP`.
    pub source_ip: Option<IpAddr>,
    /// `Reporting-MTA`.
    pub reporting_mta: Option<Mta>,
    /// `Original-Envelope-Id`.
    pub envelope_id: Option<String>,
    /// `Reported-Domain`.
    pub reported_domains: Vec<String>,
    /// `Reported-URI`.
    pub reported_uris: Vec<String>,
    /// `Incidents`, at least 1.
    pub incidents: u32,
    /// `Authentication-Results`, and `Auth-Failure` (RFC 6591).
    pub authentication_results: Vec<String>,
    /// Likewise.
    pub auth_failure: Option<String>,
    /// The message as returned.
    pub original: Original,
    /// What could identify it, from the whole report.
    pub clues: Clues,
}

impl Complaint {
    pub(super) fn new(form: ComplaintForm) -> Self {
        Self {
            kind: None,
            feedback_type: None,
            is_opt_out: false,
            form,
            user_agent: None,
            arrived_at: None,
            mail_from: None,
            recipients: Vec::new(),
            source_ip: None,
            reporting_mta: None,
            envelope_id: None,
            reported_domains: Vec::new(),
            reported_uris: Vec::new(),
            incidents: 1,
            authentication_results: Vec::new(),
            auth_failure: None,
            original: Original::default(),
            clues: Clues::default(),
        }
    }

    pub(super) fn set_type(&mut self, text: &str) {
        let text = text.split([';', '(']).next().unwrap_or_default().trim();
        self.kind = Some(ComplaintKind::of(text));
        self.is_opt_out = text.to_ascii_lowercase().starts_with("opt-out");
        self.feedback_type = Some(bounded(text));
    }
}

/// Types of feedback parts.
const FEEDBACK: [&str; 3] = ["message/feedback-report", "text/feedback-report", "message/x-feedback-report"];

/// A complaint that says that it is one, and how deep within the message that stands.
pub(super) fn read(mail: &Mail<'_>) -> Option<(Complaint, usize)> {
    let (at, part) = mail.find(&FEEDBACK).or_else(|| unlabelled(mail))?;
    of_feedback(mail, at, part).map(|complaint| (complaint, part.depth))
}

/// The part of feedback of a message, its transfer encoding undone, where it has one of at most `bytes_max` octets.
pub(super) fn part_of(mail: &Mail<'_>, bytes_max: usize) -> Option<Vec<u8>> {
    let (_, part) = mail.find(&FEEDBACK).or_else(|| unlabelled(mail))?;
    let content = part.content(bytes_max.saturating_add(1));
    (content.len() <= bytes_max).then(|| content.into_owned())
}

fn of_feedback(mail: &Mail<'_>, at: usize, part: &Part<'_>) -> Option<Complaint> {
    let groups = fields::groups(&part.content(FEEDBACK_BYTES_MAX));
    // Groups mean nothing here; some begin with an empty line, some put one within.
    let first = |name: &str| groups.iter().find_map(|group| group.get(name));
    if first("feedback-type").is_some_and(|text| text.to_ascii_lowercase().starts_with("xarf")) {
        return xarf::read(mail).map(|complaint| finish(complaint, mail, at));
    }
    if first("feedback-type").is_none() && first("user-agent").is_none() && first("version").is_none() {
        return None;
    }
    let all = |name: &str| -> Vec<String> {
        groups.iter().flat_map(|group| group.all(name)).take(VALUES_MAX).map(bounded).collect()
    };
    let mut complaint = Complaint::new(ComplaintForm::Arf);
    if let Some(text) = first("feedback-type") {
        complaint.set_type(text);
    }
    complaint.user_agent = first("user-agent").map(bounded);
    complaint.arrived_at =
        first("arrival-date").and_then(date::parse).or_else(|| first("received-date").and_then(date::parse));
    complaint.mail_from = first("original-mail-from").and_then(address::mailbox);
    complaint.source_ip = first("source-ip").and_then(ip);
    complaint.reporting_mta = first("reporting-mta").and_then(dsn::mta);
    complaint.envelope_id = first("original-envelope-id").map(bounded);
    complaint.reported_domains = all("reported-domain");
    complaint.reported_uris = all("reported-uri");
    complaint.authentication_results = all("authentication-results");
    complaint.auth_failure = first("auth-failure").map(bounded);
    complaint.incidents = first("incidents").and_then(|text| text.trim().parse().ok()).unwrap_or(1).max(1);
    for name in ["original-rcpt-to", "removal-recipient", "x-original-rcpt-to"] {
        let values = groups.iter().flat_map(|group| group.all(name)).take(VALUES_MAX);
        values.for_each(|value| add_recipient(&mut complaint, address::mailbox(value)));
    }
    groups.iter().for_each(|group| complaint.clues.add(group));
    Some(finish(complaint, mail, at))
}

/// A feedback part under a wrong type within a feedback report.
fn unlabelled<'m, 'a>(mail: &'m Mail<'a>) -> Option<(usize, &'m Part<'a>)> {
    let is_report = mail.parts.iter().any(|part| part.report_type.as_deref() == Some("feedback-report"));
    let begins = |part: &Part<'_>| {
        let start = part.content(1 << 10).trim_ascii_start().to_ascii_lowercase();
        start.starts_with(b"feedback-type:")
            || start.starts_with(b"user-agent:") && memchr::memmem::find(&start, b"feedback-type:").is_some()
    };
    let is_leaf = |part: &Part<'_>| matches!(part.kind.as_str(), "text/plain" | "application/octet-stream");
    mail.parts.iter().enumerate().find(|(_, part)| is_report && is_leaf(part) && begins(part))
}

/// A message that comes to an address for complaints and says nothing of itself: what it attaches is complained of.
pub(super) fn of_attached(mail: &Mail<'_>) -> Option<Complaint> {
    if let Some(complaint) = xarf::read(mail) {
        return Some(finish(complaint, mail, 0));
    }
    let returned = original::attached(mail, 0)?;
    let mut complaint = Complaint::new(ComplaintForm::Attached);
    complaint.original = returned;
    let header = mail.header()?;
    let subject = header.text("subject");
    // Microsoft: `complaint about message from 192.0.2.1`.
    complaint.source_ip = subject.split_whitespace().rev().find_map(ip);
    if complaint.source_ip.is_some()
        || header.has("x-hmxmroriginalrecipient")
        || is_redacted_by_microsoft(&complaint.original)
    {
        complaint.kind = Some(ComplaintKind::Abuse);
    }
    Some(finish(complaint, mail, 0))
}

fn is_redacted_by_microsoft(original: &Original) -> bool {
    original.field("x-hmxmroriginalrecipient").is_some()
}

/// Adds what stands around the feedback part with the index `at`.
fn finish(mut complaint: Complaint, mail: &Mail<'_>, at: usize) -> Complaint {
    let message = mail.parts.get(at).map_or(0, |part| part.message);
    if complaint.original.is_empty() {
        complaint.original = original::attached(mail, message).unwrap_or_default();
    }
    let outer = mail.header();
    let hidden = |block: Option<&Block>| {
        block.and_then(|block| block.get("x-hmxmroriginalrecipient")).and_then(address::mailbox)
    };
    let named =
        hidden(outer).or_else(|| complaint.original.field("x-hmxmroriginalrecipient").and_then(address::mailbox));
    add_recipient(&mut complaint, named);
    let mut clues = complaint.original.clues.clone();
    clues.return_paths.extend(complaint.clues.return_paths.drain(..).take(VALUES_MAX));
    clues.x_fields.extend(complaint.clues.x_fields.drain(..).take(VALUES_MAX));
    clues.cfbl_feedback_ids.extend(complaint.clues.cfbl_feedback_ids.drain(..).take(VALUES_MAX));
    if let Some(id) = outer.and_then(|header| header.get("cfbl-feedback-id"))
        && !clues.cfbl_feedback_ids.iter().any(|known| known == id)
    {
        clues.cfbl_feedback_ids.push(bounded(id));
    }
    // Receivers redact headers and leave links, or the other way round.
    let mut room = SEARCHED_BYTES_MAX;
    for part in &mail.parts {
        clues.add_tokens(part.header_raw);
        if !part.kind.starts_with("multipart/") && part.size_bytes() > 0 && room > 0 {
            let content = part.content(room.min(TEXT_BYTES_MAX));
            room = room.saturating_sub(content.len());
            clues.add_tokens(&content);
        }
    }
    complaint.clues = clues;
    complaint
}

pub(super) fn add_recipient(complaint: &mut Complaint, address: Option<EmailAddress>) {
    if let Some(address) = address
        && complaint.recipients.len() < VALUES_MAX
        && !complaint.recipients.contains(&address)
    {
        complaint.recipients.push(address);
    }
}

/// An address, perhaps in brackets, perhaps with a name behind it.
pub(super) fn ip(text: &str) -> Option<IpAddr> {
    let word = text.split_whitespace().next()?.trim_matches(['[', ']', '(', ')', ',', ';', '.']);
    word.strip_prefix("IPv6:").unwrap_or(word).parse().ok()
}

pub(super) fn bounded(text: &str) -> String {
    head(text.trim(), VALUE_BYTES_MAX).to_owned()
}
