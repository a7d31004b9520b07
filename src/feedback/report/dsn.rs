//! Delivery status notifications: `message/delivery-status` (RFC 3464) and `message/global-delivery-status` (RFC 6533).
//!
//! Promises: each group that names a recipient gives a [`RecipientReport`]; what a group leaves out is looked for in the text for
//! people beside it. Tolerates any frame around the status part, wrong cases, types that are missing, fields out of place.

use super::diagnostic::{self, Known, head};
use super::fields::{self, Block};
use super::mail::Mail;
use super::{
    Action, Context, DeliveryReport, Diagnostic, Mta, Outcome, RECIPIENTS_MAX, RecipientReport, TEXT_BYTES_MAX,
    address, bounce, date, decode, meanings, original, phrases,
};
use crate::types::{EmailAddress, EnhancedStatus};

/// Octets of a status part that are read.
const STATUS_BYTES_MAX: usize = 512 << 10;
/// Octets of a diagnostic that are kept.
const DIAGNOSTIC_BYTES_MAX: usize = 2_000;
/// Octets of another value that are kept.
const VALUE_BYTES_MAX: usize = 320;

/// Types of status parts.
pub(super) const STATUS: [&str; 4] =
    ["message/delivery-status", "message/global-delivery-status", "message/x-delivery-status", "text/delivery-status"];

/// The report whose status part has the index `at`.
pub(super) fn read(mail: &Mail<'_>, at: usize, context: &Context<'_>) -> Option<DeliveryReport> {
    let part = mail.parts.get(at)?;
    let groups = fields::groups(&part.content(STATUS_BYTES_MAX));
    let notice = bounce::notice(mail, part.message);
    let first = |name: &str| groups.iter().find_map(|group| group.get(name));
    let mut report = DeliveryReport {
        reporting_mta: first("reporting-mta").or_else(|| first("x-reporting-mta")).and_then(mta),
        arrived_at: first("arrival-date").and_then(date::parse),
        envelope_id: first("original-envelope-id")
            .map(|id| decode::xtext(id).unwrap_or_else(|| id.to_owned()))
            .map(bounded),
        original: original::attached(mail, part.message)
            .or_else(|| bounce::inline_original(&notice))
            .unwrap_or_default(),
        recipients: Vec::new(),
    };
    let mut explained = bounce::Explained::new(&notice);
    for group in groups.iter().filter(|group| names_recipient(group)).take(RECIPIENTS_MAX) {
        report.recipients.push(recipient(group, &mut explained, context));
    }
    if report.recipients.is_empty() {
        report.recipients = without_recipients(mail, &groups, &notice, context);
    }
    (!report.recipients.is_empty()).then_some(report)
}

fn names_recipient(group: &Block) -> bool {
    ["final-recipient", "original-recipient", "x-actual-recipient", "action", "status", "diagnostic-code"]
        .iter()
        .filter(|name| group.has(name))
        .count()
        >= if group.has("reporting-mta") { 2 } else { 1 }
}

/// The status part says nothing: the text and the header may.
fn without_recipients(mail: &Mail<'_>, groups: &[Block], notice: &str, context: &Context<'_>) -> Vec<RecipientReport> {
    let header = mail.header();
    let subject = header.map(|header| header.text("subject")).unwrap_or_default();
    let found = header.map(|header| bounce::recipients(header, &subject, notice, context)).unwrap_or_default();
    if !found.is_empty() || groups.is_empty() && notice.trim().is_empty() {
        return found;
    }
    vec![bounce::unnamed(&subject, notice, context)]
}

fn recipient(group: &Block, explained: &mut bounce::Explained<'_>, context: &Context<'_>) -> RecipientReport {
    let final_text = group.get("final-recipient").or_else(|| group.get("x-actual-recipient"));
    let final_recipient = final_text.and_then(address::mailbox);
    let original_text = group.get("original-recipient");
    let original_recipient = original_text.and_then(address::mailbox);
    let decoded = original_text
        .or(final_text)
        .and_then(|text| decode::xtext(typed(text).1))
        .and_then(|text| address::mailbox(&text));
    let diagnostic = group.get("diagnostic-code").filter(|text| !text.trim().is_empty()).map(|text| {
        let (kind, text) = typed(text);
        Diagnostic { kind: bounded(kind.to_ascii_lowercase()), text: head(text, DIAGNOSTIC_BYTES_MAX).to_owned() }
    });
    // `Status: 5.1.1 (bad mailbox)`, `Status: 5.0.0; ...`
    let status = group.get("status").and_then(diagnostic::status_in);
    let said = diagnostic.as_ref().map(|diagnostic| diagnostic.text.as_str()).unwrap_or_default();
    let mut reply = diagnostic::reply_in(said);
    let addresses: Vec<&EmailAddress> = original_recipient.iter().chain(&final_recipient).collect();
    let is_vague = status.is_none_or(|status| status.subject() == 0);
    let mut text = said.to_owned();
    if reply.is_none() && (said.is_empty() || is_vague) {
        let explanation = explained.of(&addresses);
        reply = diagnostic::reply_in(&explanation);
        text = format!("{text}\n{explanation}");
    }
    let action = action(group, status, reply.as_ref().map(|reply| reply.code().value()), explained.text());
    let own_status = diagnostic::status_in(said);
    let guessed = if reply.is_none() && own_status.is_none() && is_vague { meanings::guess(&text) } else { None };
    let stage = diagnostic::stage_in(&text);
    let known =
        Known { reply: reply.as_ref(), status: guessed.or_else(|| merged(status, own_status)), stage, text: &text };
    RecipientReport {
        outcome: Outcome::of(action, known, context.rules),
        action,
        status: status.or_else(|| reply.as_ref().and_then(crate::types::Reply::enhanced)).or(own_status).or(guessed),
        reply,
        named: bounded(final_text.or(original_text).map(|text| typed(text).1).unwrap_or_default()),
        final_recipient,
        original_recipient,
        decoded_recipient: decoded,
        remote_mta: group.get("remote-mta").and_then(mta),
        attempted_at: group.get("last-attempt-date").and_then(date::parse),
        retries_until: group.get("will-retry-until").and_then(date::parse),
        diagnostic,
    }
}

/// The more specific one; that of the report where both are.
fn merged(status: Option<EnhancedStatus>, own: Option<EnhancedStatus>) -> Option<EnhancedStatus> {
    status.filter(|status| status.subject() != 0).or(own).or(status)
}

/// What `Action` says (RFC 3464 §2.3.3), in any case and spelling; without it, what the status does.
fn action(group: &Block, status: Option<EnhancedStatus>, code: Option<u16>, notice: &str) -> Action {
    let word = group.get("action").unwrap_or_default().trim().to_ascii_lowercase();
    let named = match word.split([' ', ';', '(', ',', '.']).next().unwrap_or_default() {
        "failed" | "failure" | "fail" | "error" | "undeliverable" | "undelivered" | "bounced" | "rejected"
        | "expired" => Some(Action::Failed),
        "delayed" | "delay" | "deferred" | "warning" | "transient" => Some(Action::Delayed),
        "delivered" | "delivery" | "success" | "successful" => Some(Action::Delivered),
        "relayed" | "relay" | "transferred" => Some(Action::Relayed),
        "expanded" => Some(Action::Expanded),
        _ => None,
    };
    named.unwrap_or_else(|| match (status.map(EnhancedStatus::class), code) {
        (Some(2), _) => Action::Delivered,
        (Some(4), _) | (None, Some(400..=499)) if phrases::is_delay("", notice) => Action::Delayed,
        _ => Action::Failed,
    })
}

/// `type; value`; the type may be missing.
pub(super) fn typed(value: &str) -> (&str, &str) {
    let is_type = |kind: &str| {
        let kind = kind.trim();
        !kind.is_empty()
            && kind.len() <= 40
            && kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    match value.split_once(';') {
        Some((kind, text)) if is_type(kind) => (kind.trim(), text.trim()),
        _ => ("", value.trim()),
    }
}

pub(super) fn mta(value: &str) -> Option<Mta> {
    let (kind, name) = typed(value);
    let name = name.trim_matches(['<', '>', '"', ' ']);
    (!name.is_empty()).then(|| Mta { kind: bounded(kind.to_ascii_lowercase()), name: bounded(name) })
}

fn bounded(text: impl AsRef<str>) -> String {
    head(text.as_ref(), VALUE_BYTES_MAX).to_owned()
}

const _: () = assert!(STATUS_BYTES_MAX >= TEXT_BYTES_MAX);
