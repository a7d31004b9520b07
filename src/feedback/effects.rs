//! What follows from a report for one recipient: its event, its place on a list. Pure: who is meant is known by now, and what the
//! tenant wants.

use super::report::{Complaint, DeliveryReport, RecipientReport};
use crate::events::EventLine;
use crate::events::schema::{
    self, BounceInfo, BouncedRecipient, ComplaintInfo, ComplaintReport, Extras, Mail, feedback_id,
};
use crate::policy::Verdict;
use crate::queue::feedback::{Feedback, FeedbackKind};
use crate::queue::sent::SentRecipient;
use crate::queue::suppression::{SuppressionEntry, SuppressionList};
use crate::types::{EnhancedStatus, SuppressionReason, Timestamp};

/// `posthaste.class` of a complaint.
const COMPLAINT_CLASS: &str = "complaint";

/// A bounce of a message that a host had taken.
pub fn bounce(
    sent: &SentRecipient,
    report: &DeliveryReport,
    recipient: &RecipientReport,
    verdict: &Verdict,
    suppresses: bool,
    now: Timestamp,
) -> Feedback {
    let diagnostic_code = diagnostic_code(recipient);
    let id = feedback_id(sent.id, sent.index.into());
    let bounced = BouncedRecipient {
        email_address: sent.recipient.as_str(),
        action: Some(recipient.action.name()),
        status: recipient.status,
        diagnostic_code: diagnostic_code.as_deref(),
    };
    let info = BounceInfo {
        at: now,
        kind: verdict.bounce_kind(),
        recipients: &[bounced],
        feedback_id: &id,
        remote_mta_ip: None,
        reporting_mta: report.reporting_mta.as_ref().map(|mta| mta.name.as_str()),
    };
    let extras = extras(sent, Some(&*verdict.rule), verdict.class.name(), recipient.status);
    let event = schema::bounce(mail(sent), &info, &extras);
    let suppresses = suppresses && verdict.says_nobody_is_there();
    effect(sent, FeedbackKind::Bounce, event, suppresses.then_some(SuppressionReason::Bounce), now)
}

/// A complaint of the recipient.
pub fn complaint(sent: &SentRecipient, complaint: &Complaint, suppresses: bool, now: Timestamp) -> Feedback {
    // Another one than that of a bounce: both may come.
    let id = format!("{}-complaint", feedback_id(sent.id, sent.index.into()));
    let recipients = [sent.recipient.as_str()];
    let report = ComplaintReport {
        user_agent: complaint.user_agent.as_deref(),
        feedback_type: complaint.kind.map(|kind| kind.name()),
        arrived_at: complaint.arrived_at,
    };
    let info = ComplaintInfo { at: now, recipients: &recipients, feedback_id: &id, report: Some(report) };
    let event = schema::complaint(mail(sent), &info, &extras(sent, None, COMPLAINT_CLASS, None));
    effect(sent, FeedbackKind::Complaint, event, suppresses.then_some(SuppressionReason::Complaint), now)
}

fn effect(
    sent: &SentRecipient,
    kind: FeedbackKind,
    event: EventLine,
    suppressed: Option<SuppressionReason>,
    now: Timestamp,
) -> Feedback {
    let on_list = suppressed.map(|reason| {
        let entry = SuppressionEntry {
            address: sent.recipient.clone(),
            reason,
            updated_at: now,
            origin: format!("{} of message {}", kind.name(), sent.id),
        };
        (SuppressionList::Tenant(sent.tenant.clone()), entry)
    });
    Feedback {
        id: sent.id,
        index: sent.index,
        kind,
        at: now,
        events: vec![event],
        suppress: on_list.into_iter().collect(),
        notifications: Vec::new(),
    }
}

fn mail(sent: &SentRecipient) -> Mail<'_> {
    Mail { id: sent.id, json: &sent.mail_json }
}

fn extras<'a>(
    sent: &'a SentRecipient,
    rule: Option<&'a str>,
    class: &'a str,
    enhanced_code: Option<EnhancedStatus>,
) -> Extras<'a> {
    Extras {
        site: sent.site.as_deref(),
        domain: Some(sent.recipient.domain().as_str()),
        source: sent.source.as_ref().and_then(|source| source.as_str().parse().ok()),
        pool: Some(sent.pool.as_str()),
        rule,
        class: Some(class),
        enhanced_code,
        ..Extras::default()
    }
}

/// As RFC 3464 §2.3.6 writes it, of what the report quotes.
fn diagnostic_code(recipient: &RecipientReport) -> Option<String> {
    match (&recipient.diagnostic, &recipient.reply) {
        (Some(diagnostic), _) if diagnostic.kind.is_empty() => Some(diagnostic.text.clone()),
        (Some(diagnostic), _) => Some(format!("{}; {}", diagnostic.kind, diagnostic.text)),
        (None, Some(reply)) => Some(schema::diagnostic_code(reply)),
        (None, None) => None,
    }
}
