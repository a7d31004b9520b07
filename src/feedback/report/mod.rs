//! What a message that came home is: a bounce, an automatic answer, a complaint, a request to unsubscribe, a report of a receiver.
//!
//! [`read`] takes the octets of a message and what is known of its envelope, and gives plain data. It decides in this order, the first
//! that fits:
//!
//! 1. a part of feedback (RFC 5965): a complaint;
//! 2. a status part (RFC 3464, RFC 6533): a bounce, a delay, or a success, for each recipient that it names;
//! 3. at the addresses for them: an aggregate report; a request to unsubscribe, unless it is an automatic answer; a complaint
//!    that only attaches a message;
//! 4. text that only mail programs write, by one of them: a bounce ([`bounce`](self) has the way);
//! 5. what says of itself that it is an automatic answer (RFC 3834);
//! 6. what could be a bounce, and names a recipient or a reason;
//! 7. what is titled as automatic answers are;
//! 8. else it is not understood, and kept for the operator.
//!
//! So an out-of-office note with a null sender is no bounce, and a bounce that says `Auto-Submitted: auto-replied`, as many do, is one.
//!
//! # Promises
//! Any octets give a result, never a panic, in time linear in their number. Everything that comes out is bounded and valid text. The
//! class of a bounce comes from the rules that decide on replies within a session.
//!
//! # Does not
//! Believe: addresses, ids and tokens are what the message says. Whoever commits effects resolves them against what was sent. It reads
//! no clock and no store, and does not say what follows from a report.
//!
//! # Limits
//! 20 MiB, 100 parts, 12 deep, 100 recipients, 64 KiB of text for people, 64 KiB of a returned header; the others are named in the
//! files. What is beyond is not read; a message above the first is not understood.

mod address;
mod aggregate;
mod autoreply;
mod bounce;
mod complaint;
#[cfg(test)]
mod corpus;
mod date;
mod decode;
mod diagnostic;
mod dsn;
mod fields;
mod mail;
mod meanings;
mod original;
mod phrases;
#[cfg(test)]
mod tests;
mod unpack;
mod xarf;

pub use aggregate::{
    AggregateError, DkimRow, DmarcReport, DmarcRow, ROWS_MAX, SpfRow, TlsFailureRow, TlsPolicyRow, TlsReport,
};
pub use autoreply::AutoReplyKind;
pub use complaint::{Complaint, ComplaintForm, ComplaintKind};
pub use original::{Clues, Original};
pub use unpack::UnpackError;

use crate::policy::{Rules, Verdict};
use crate::types::{EmailAddress, EnhancedStatus, Reply, Timestamp};
use aggregate::Aggregate;
use bounce::Evidence;
use diagnostic::Known;
use mail::Mail;

/// Octets of a message. Above: not understood.
pub const MESSAGE_BYTES_MAX: usize = 20 << 20;
/// Recipients of a report. Above: the others are dropped.
pub const RECIPIENTS_MAX: usize = 100;
/// Octets of the text for people that are read.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Octets of an encoded message that is attached and taken apart.
const HIDDEN_BYTES_MAX: usize = 2 << 20;

/// What is known of a message besides its octets.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Its reverse-path was `<>`.
    pub is_null_sender: bool,
    /// To which of our addresses it came.
    pub addressed: Addressed,
    /// What replies mean.
    pub rules: &'a Rules,
}

/// The address that a message came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Addressed {
    /// A return path with a token.
    ReturnPath,
    /// One for complaints.
    Complaints,
    /// One for requests to unsubscribe, with a token.
    Unsubscribe,
    /// `rua` of DMARC.
    Dmarc,
    /// `rua` of TLS-RPT.
    TlsRpt,
    /// Postmaster or abuse.
    Postmaster,
}

/// What a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// What became of recipients: bounces, delays, successes.
    Delivery(Box<DeliveryReport>),
    /// An automatic answer: no bounce.
    AutoReply(AutoReplyKind),
    /// Somebody complains.
    Complaint(Box<Complaint>),
    /// Somebody wants no more of it.
    Unsubscribe(Box<UnsubscribeRequest>),
    /// What a receiver saw of a domain.
    DmarcAggregate(Box<DmarcReport>),
    /// What a sender saw of a domain's TLS.
    TlsReport(Box<TlsReport>),
    /// For the operator.
    NotUnderstood(NotUnderstood),
}

/// Why a message is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotUnderstood {
    /// Above [`MESSAGE_BYTES_MAX`].
    #[error("larger than {MESSAGE_BYTES_MAX} octets")]
    TooLarge,
    /// Nothing in it says that it is a report: mail of a person, perhaps.
    #[error("no report")]
    Ordinary,
    /// It is built as a bounce, and names neither a recipient nor what happened.
    #[error("a bounce that says nothing")]
    EmptyBounce,
    /// It came to an address for aggregate reports.
    #[error("no aggregate report: {0}")]
    Aggregate(AggregateError),
}

/// A delivery status notification, or a text that says as much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryReport {
    /// `Reporting-MTA`.
    pub reporting_mta: Option<Mta>,
    /// `Arrival-Date`: when that host got our message.
    pub arrived_at: Option<Timestamp>,
    /// `Original-Envelope-Id`, xtext decoded.
    pub envelope_id: Option<String>,
    /// Our message as returned, if it was.
    pub original: Original,
    /// At least one, at most [`RECIPIENTS_MAX`].
    pub recipients: Vec<RecipientReport>,
}

/// A host as reports name it: `dns; mx.example.test`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mta {
    /// `dns`, `x400`, ... in lower case; empty where none is named.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// `Diagnostic-Code`: `smtp; 550 5.1.1 no such user`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// `smtp`, `x-unix`, `x-postfix`, ... in lower case; empty where none is named.
    pub kind: String,
    /// What was said, unfolded, at most 2,000 octets.
    pub text: String,
}

/// What a report says of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientReport {
    /// `Final-Recipient`, or the address that the text names. `None`: nobody is named, or by no address; the return path then says who.
    pub final_recipient: Option<EmailAddress>,
    /// `Original-Recipient`: the address as we sent to it, where a host on the way keeps it.
    pub original_recipient: Option<EmailAddress>,
    /// The same with its xtext decoded (RFC 3461 §4), where it can be read as xtext: many hosts leave it encoded.
    pub decoded_recipient: Option<EmailAddress>,
    /// The recipient as the report writes it, without its type.
    pub named: String,
    /// What happened.
    pub action: Action,
    /// `Status`, else that of the reply, else what the words mean.
    pub status: Option<EnhancedStatus>,
    /// The reply of the last host, where the report quotes one.
    pub reply: Option<Reply>,
    /// `Diagnostic-Code`.
    pub diagnostic: Option<Diagnostic>,
    /// `Remote-MTA`.
    pub remote_mta: Option<Mta>,
    /// `Last-Attempt-Date`.
    pub attempted_at: Option<Timestamp>,
    /// `Will-Retry-Until`.
    pub retries_until: Option<Timestamp>,
    /// What it means.
    pub outcome: Outcome,
}

impl RecipientReport {
    /// All addresses that could be the recipient's, the likeliest first.
    pub fn addresses(&self) -> impl Iterator<Item = &EmailAddress> {
        [&self.original_recipient, &self.decoded_recipient, &self.final_recipient].into_iter().flatten()
    }
}

/// `Action` (RFC 3464 §2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Delivery has ended without success.
    Failed,
    /// It goes on.
    Delayed,
    /// In the mailbox.
    Delivered,
    /// Given to a host that sends no reports.
    Relayed,
    /// Given to several other addresses.
    Expanded,
}

impl Action {
    /// As RFC 3464 spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Action::Failed => "failed",
            Action::Delayed => "delayed",
            Action::Delivered => "delivered",
            Action::Relayed => "relayed",
            Action::Expanded => "expanded",
        }
    }
}

/// What an action means for the recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A bounce, with its type, class and rule. Its disposition is always `Bounced`.
    Bounced(Box<Verdict>),
    /// No bounce: the host tries again.
    Delayed(Box<Verdict>),
    /// No bounce.
    Succeeded,
}

impl Outcome {
    fn of(action: Action, known: Known<'_>, rules: &Rules) -> Self {
        match action {
            Action::Failed => Outcome::Bounced(Box::new(diagnostic::judge(rules, known))),
            Action::Delayed => Outcome::Delayed(Box::new(diagnostic::judge_delay(rules, known))),
            Action::Delivered | Action::Relayed | Action::Expanded => Outcome::Succeeded,
        }
    }

    /// The verdict on a bounce.
    pub fn bounce(&self) -> Option<&Verdict> {
        match self {
            Outcome::Bounced(verdict) => Some(verdict),
            Outcome::Delayed(_) | Outcome::Succeeded => None,
        }
    }
}

/// A mail to an unsubscribe address. Subject and text do not matter: the token in the address says what is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsubscribeRequest {
    /// The first address of `From`.
    pub from: Option<EmailAddress>,
    /// `Subject`, decoded, at most 200 octets.
    pub subject: String,
    /// Tokens in its header and text.
    pub clues: Clues,
}

/// Reads a message. Total and pure; the module's page says how it decides.
pub fn read(message: &[u8], context: &Context<'_>) -> Report {
    if message.len() > MESSAGE_BYTES_MAX {
        return Report::NotUnderstood(NotUnderstood::TooLarge);
    }
    let mail = Mail::parse(message);
    match structured(&mail, context) {
        Some(report) => report,
        None => hidden(&mail, context).unwrap_or_else(|| unstructured(&mail, context)),
    }
}

/// The part of feedback (RFC 5965 §3) that a message holds, its transfer encoding undone, where it has at most `bytes_max` octets.
pub fn feedback_part(message: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    if message.len() > MESSAGE_BYTES_MAX {
        return None;
    }
    complaint::part_of(&Mail::parse(message), bytes_max)
}

/// Reports that are built as such.
fn structured(mail: &Mail<'_>, context: &Context<'_>) -> Option<Report> {
    let status = mail.find(&dsn::STATUS);
    // A report may return another one: what it is itself stands further out.
    let is_within = |depth: usize| status.is_some_and(|(_, part)| part.depth < depth);
    if let Some((complaint, depth)) = complaint::read(mail)
        && !is_within(depth)
    {
        return Some(Report::Complaint(Box::new(complaint)));
    }
    let (at, _) = status?;
    dsn::read(mail, at, context).map(|report| Report::Delivery(Box::new(report)))
}

/// A report within an attached message whose encoding hides it, such as a bounce that was forwarded.
fn hidden(mail: &Mail<'_>, context: &Context<'_>) -> Option<Report> {
    let part = mail.parts.iter().find(|part| part.is_hidden_message())?;
    let content = part.content(HIDDEN_BYTES_MAX);
    structured(&Mail::parse(&content), context)
}

/// All others.
fn unstructured(mail: &Mail<'_>, context: &Context<'_>) -> Report {
    if let Some(report) = by_address(mail, context) {
        return report;
    }
    let Some(header) = mail.header() else { return Report::NotUnderstood(NotUnderstood::Ordinary) };
    let notice = bounce::notice(mail, 0);
    let evidence = bounce::evidence(header, &notice, context);
    let bounced = || bounce::read(mail, evidence, &notice, context).map(|report| Report::Delivery(Box::new(report)));
    let declared = || autoreply::declared(mail).map(Report::AutoReply);
    let found = match evidence {
        Evidence::Strong => bounced().or_else(declared),
        Evidence::Weak => declared().or_else(|| autoreply::supposed(header).map(Report::AutoReply)).or_else(bounced),
        Evidence::Nothing => declared().or_else(|| autoreply::supposed(header).map(Report::AutoReply)),
    };
    found.unwrap_or_else(|| {
        let is_empty_bounce = mail.find(&dsn::STATUS).is_some() || evidence != Evidence::Nothing;
        Report::NotUnderstood(if is_empty_bounce { NotUnderstood::EmptyBounce } else { NotUnderstood::Ordinary })
    })
}

/// What a message is because of where it came.
fn by_address(mail: &Mail<'_>, context: &Context<'_>) -> Option<Report> {
    match context.addressed {
        Addressed::Dmarc | Addressed::TlsRpt => match aggregate::read(mail) {
            Ok(Aggregate::Dmarc(report)) => Some(Report::DmarcAggregate(report)),
            Ok(Aggregate::Tls(report)) => Some(Report::TlsReport(report)),
            Err(AggregateError::Missing) => None,
            Err(error) => Some(Report::NotUnderstood(NotUnderstood::Aggregate(error))),
        },
        Addressed::Unsubscribe => unsubscribe(mail, context),
        Addressed::Complaints => match autoreply::declared(mail) {
            Some(kind @ (AutoReplyKind::Answer | AutoReplyKind::Challenge | AutoReplyKind::Receipt)) => {
                Some(Report::AutoReply(kind))
            }
            Some(AutoReplyKind::Generated) | None => {
                complaint::of_attached(mail).map(|complaint| Report::Complaint(Box::new(complaint)))
            }
        },
        Addressed::ReturnPath | Addressed::Postmaster => None,
    }
}

fn unsubscribe(mail: &Mail<'_>, context: &Context<'_>) -> Option<Report> {
    let header = mail.header()?;
    // A provider that asks for its user says `auto-generated`, and that counts.
    let automatic = autoreply::declared(mail).filter(|kind| *kind != AutoReplyKind::Generated);
    let titled = autoreply::supposed(header).filter(|kind| *kind == AutoReplyKind::Answer);
    if let Some(kind) = automatic.or(titled) {
        return Some(Report::AutoReply(kind));
    }
    let notice = bounce::notice(mail, 0);
    if bounce::evidence(header, &notice, context) == Evidence::Strong {
        return None;
    }
    let mut clues = Clues::default();
    clues.add(header);
    if let Some(part) = mail.parts.first() {
        clues.add_tokens(part.header_raw);
    }
    clues.add_tokens(notice.as_bytes());
    let from = address::find_all(header.get("from").unwrap_or_default()).into_iter().next().map(|found| found.address);
    let subject = diagnostic::head(&header.text("subject"), 200).to_owned();
    Some(Report::Unsubscribe(Box::new(UnsubscribeRequest { from, subject, clues })))
}
