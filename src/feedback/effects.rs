//! What follows from a report for one recipient: its event, its place on a list. Pure: who is meant is known by now, and what the
//! tenant wants.

use super::report::{Complaint, DeliveryReport, RecipientReport};
use crate::events::EventLine;
use crate::events::schema::{
    self, BounceInfo, BouncedRecipient, ComplaintInfo, ComplaintReport, Extras, Mail, SubscriptionInfo, feedback_id,
};
use crate::policy::Verdict;
use crate::policy::reputation::is_hard;
use crate::queue::ReputationCharge;
use crate::queue::feedback::{Feedback, FeedbackKind};
use crate::queue::sent::SentRecipient;
use crate::queue::suppression::SuppressionEntry;
use crate::types::{EnhancedStatus, Mark, Sender, SuppressionReason, Timestamp};

/// What follows beyond the event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// It counts for the reputation of who sent the message.
    pub counts: bool,
    /// The address goes on the tenant's list.
    pub lists: bool,
    /// The configuration set is one of the config, and no text of a client.
    pub has_sets: bool,
}

/// `posthaste.class` of a complaint.
const COMPLAINT_CLASS: &str = "complaint";
/// `posthaste.class` of a request to unsubscribe.
const UNSUBSCRIBE_CLASS: &str = "unsubscribe";

/// A bounce of a message that a host had taken.
pub fn bounce(
    sent: &SentRecipient,
    report: &DeliveryReport,
    recipient: &RecipientReport,
    verdict: &Verdict,
    effects: Effects,
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
    let told = Told { kind: FeedbackKind::Bounce, mark: Mark::LateBounce, reason: SuppressionReason::Bounce };
    let (counts, lists) = (effects.counts && is_hard(verdict), effects.lists && verdict.says_nobody_is_there());
    effect(sent, &told, event, Effects { counts, lists, ..effects }, now)
}

/// A complaint of the recipient.
pub fn complaint(sent: &SentRecipient, complaint: &Complaint, effects: Effects, now: Timestamp) -> Feedback {
    let kind = match complaint.kind {
        Some(kind) if kind.is_harmless() => FeedbackKind::Remark,
        _ => FeedbackKind::Complaint,
    };
    // Another one than that of a bounce: all of them may come.
    let id = format!("{}-{}", feedback_id(sent.id, sent.index.into()), kind.name());
    let recipients = [sent.recipient.as_str()];
    let report = ComplaintReport {
        user_agent: complaint.user_agent.as_deref(),
        feedback_type: complaint.kind.map(|kind| kind.name()),
        arrived_at: complaint.arrived_at,
    };
    let info = ComplaintInfo { at: now, recipients: &recipients, feedback_id: &id, report: Some(report) };
    let event = schema::complaint(mail(sent), &info, &extras(sent, None, COMPLAINT_CLASS, None));
    let told = Told { kind, mark: Mark::Complaint, reason: SuppressionReason::Complaint };
    effect(sent, &told, event, effects, now)
}

/// The recipient wants no more of the configuration set of this message. `way` is the rule that the event names.
pub fn unsubscribe(sent: &SentRecipient, way: &str, now: Timestamp) -> Feedback {
    let info = SubscriptionInfo { at: now, contact_list: &sent.configuration_set };
    let extras =
        Extras { recipient: Some(sent.recipient.as_str()), ..extras(sent, Some(way), UNSUBSCRIBE_CLASS, None) };
    let event = schema::subscription(mail(sent), &info, &extras);
    let set = Some(&sent.configuration_set).filter(|set| !set.is_empty());
    let on_list = set.map(|set| SuppressionEntry::of_set(set, &sent.recipient, sent.id, now));
    Feedback {
        id: sent.id,
        index: sent.index,
        kind: FeedbackKind::Unsubscribe,
        at: now,
        events: vec![event],
        suppress: on_list.into_iter().collect(),
        notifications: Vec::new(),
        marks: Vec::new(),
        // Who subscribed again may leave again, by an old message too.
        while_listed: true,
    }
}

/// What a report tells, in the words of those that hear of it.
struct Told {
    kind: FeedbackKind,
    mark: Mark,
    reason: SuppressionReason,
}

fn effect(sent: &SentRecipient, told: &Told, event: EventLine, effects: Effects, now: Timestamp) -> Feedback {
    let by = (told.kind.name(), sent.id);
    let on_list =
        effects.lists.then(|| SuppressionEntry::of_tenant(&sent.tenant, &sent.recipient, told.reason, by, now));
    // It counts in the hour of its mail: a resume forgives what was sent before, whenever it is heard of.
    let sent_at = sent.ended_at.unwrap_or(sent.id.accepted_at());
    let mark =
        effects.counts.then(|| ReputationCharge::new(sender(sent, effects.has_sets).scopes(), told.mark, sent_at, 1));
    Feedback {
        id: sent.id,
        index: sent.index,
        kind: told.kind,
        at: now,
        events: vec![event],
        suppress: on_list.into_iter().collect(),
        notifications: Vec::new(),
        marks: mark.into_iter().collect(),
        while_listed: false,
    }
}

fn sender(sent: &SentRecipient, has_sets: bool) -> Sender<'_> {
    Sender {
        tenant: &sent.tenant,
        credential: &sent.caller,
        identity: &sent.identity,
        configuration_set: if has_sets { &sent.configuration_set } else { "" },
        pool: sent.pool.as_str(),
        source: sent.source.as_ref().map_or("", |source| source.as_str()),
        provider: sent.provider().unwrap_or_default(),
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
