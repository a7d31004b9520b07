//! Feedback by mail: bounces and complaints that came home, sent on to the sender of the message that they are about.
//!
//! Promises: to the reverse-path that was submitted, and to nobody where that is null, or one of our own addresses for feedback; with a null
//! reverse-path itself, so that nothing comes back; written in the batch of the event, so that each kind comes once for each recipient,
//! whatever crashes. What comes home about such a message is of nobody: it is not remembered. Does not: decide what an event file takes
//! (that is [`Mailing`]'s), or how it looks ([`crate::message::forward`]).

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use serde::Deserialize;

use super::report::{self, ComplaintKind, DeliveryReport, Mta, Original, RecipientReport};
use crate::message::dkim::Signer;
use crate::message::forward::{self, About, News};
use crate::policy::Verdict;
use crate::policy::mailing::Mailing;
use crate::queue::NewMessage;
use crate::queue::feedback::FeedbackKind;
use crate::queue::notice::Notice;
use crate::queue::sent::SentRecipient;
use crate::types::{BounceKind, EmailAddress, EnhancedStatus, MessageId, Timestamp};

/// What can change with a reload.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our name.
    pub hostname: Arc<str>,
    /// Which bounces are forwarded.
    pub bounces: Arc<Mailing>,
    /// Which complaints are.
    pub complaints: Arc<Mailing>,
    /// How long what is forwarded may be retried.
    pub lifetime: Duration,
    /// Who signs it. Shared, since keys change their places at any time.
    pub signers: Arc<ArcSwap<Vec<Arc<Signer>>>>,
}

impl Settings {
    /// Who is to hear of this by mail.
    pub fn addressee<'a>(&self, sent: &'a SentRecipient, kind: FeedbackKind) -> Option<&'a EmailAddress> {
        let mailing = match kind {
            FeedbackKind::Bounce => &self.bounces,
            FeedbackKind::Complaint | FeedbackKind::Remark => &self.complaints,
            FeedbackKind::Unsubscribe => return None,
        };
        // Told before: the queue would drop it, so it need not be written.
        let is_due = sent.told_at(kind).is_none() && mailing.mails(&sent.configuration_set, &sent.identity);
        sent.reverse_path.mailbox().filter(|_| is_due)
    }
}

/// What is to be forwarded, gathered from what was sent and what came home.
#[derive(Clone, Debug)]
pub struct Forward {
    sent: SentRecipient,
    common: Common,
    told: Told,
    octets: Bytes,
}

#[derive(Clone, Debug)]
enum Told {
    Bounce(Bounce),
    Complaint(Complaint),
}

#[derive(Clone, Debug)]
struct Bounce {
    kind: BounceKind,
    status: Option<EnhancedStatus>,
    diagnostic: Option<(String, String)>,
    reporting_mta: Option<Mta>,
    remote_mta: Option<Mta>,
    attempted_at: Option<Timestamp>,
}

#[derive(Clone, Debug)]
struct Complaint {
    kind: Option<ComplaintKind>,
    user_agent: Option<String>,
    arrived_at: Option<Timestamp>,
}

impl Forward {
    /// A bounce. `octets`: the report.
    pub fn bounce(
        sent: &SentRecipient,
        report: &DeliveryReport,
        recipient: &RecipientReport,
        verdict: &Verdict,
        octets: &Bytes,
    ) -> Self {
        let quoted = recipient.reply.as_ref().map(|reply| ("smtp".to_owned(), reply.to_string()));
        let diagnostic = recipient.diagnostic.as_ref();
        let told = Told::Bounce(Bounce {
            kind: verdict.bounce_kind(),
            status: recipient.status,
            diagnostic: diagnostic.map(|diagnostic| (diagnostic.kind.clone(), diagnostic.text.clone())).or(quoted),
            reporting_mta: report.reporting_mta.clone(),
            remote_mta: recipient.remote_mta.clone(),
            attempted_at: recipient.attempted_at,
        });
        Self { sent: sent.clone(), common: Common::of(sent, &report.original), told, octets: octets.clone() }
    }

    /// A complaint, likewise.
    pub fn complaint(sent: &SentRecipient, complaint: &report::Complaint, octets: &Bytes) -> Self {
        let told = Told::Complaint(Complaint {
            kind: complaint.kind,
            user_agent: complaint.user_agent.clone(),
            arrived_at: complaint.arrived_at,
        });
        Self { sent: sent.clone(), common: Common::of(sent, &complaint.original), told, octets: octets.clone() }
    }

    /// The message to `to`, under this id. Takes a millisecond for the signature and more for a long report: for a blocking thread.
    pub fn write(&self, id: MessageId, to: &EmailAddress, settings: &Settings) -> NewMessage {
        let is_complaint = matches!(self.told, Told::Complaint(_));
        let part =
            is_complaint.then(|| report::feedback_part(&self.octets, forward::FEEDBACK_PART_BYTES_MAX)).flatten();
        let mut built = forward::build(&forward::Forward {
            id,
            hostname: &settings.hostname,
            to,
            about: self.about(),
            news: self.news(part.as_deref()),
            report: &self.octets,
        });
        if let Err(error) = built.sign(id.accepted_at(), &settings.signers.load()) {
            tracing::error!(%error, "forwarded feedback not signed");
        }
        let notice = Notice {
            id,
            to,
            octets: built.message,
            header_bytes: built.header_bytes,
            body: built.body,
            smtputf8: built.smtputf8,
            hostname: &settings.hostname,
            pool: &self.sent.pool,
            lifetime: settings.lifetime,
        };
        notice.into_message()
    }

    fn about(&self) -> About<'_> {
        About {
            id: self.sent.id,
            recipient: &self.sent.recipient,
            from: self.common.from.as_deref(),
            to: self.common.to.as_deref(),
            subject: self.common.subject.as_deref(),
            message_id: self.common.message_id.as_deref(),
        }
    }

    fn news<'a>(&'a self, part: Option<&'a [u8]>) -> News<'a> {
        match &self.told {
            Told::Bounce(bounce) => News::Bounce(forward::Bounce {
                kind: bounce.kind,
                status: bounce.status,
                diagnostic: bounce.diagnostic.as_ref().map(|(kind, text)| (kind.as_str(), text.as_str())),
                reporting_mta: bounce.reporting_mta.as_ref().map(shown),
                remote_mta: bounce.remote_mta.as_ref().map(shown),
                attempted_at: bounce.attempted_at,
            }),
            Told::Complaint(complaint) => News::Complaint(forward::Complaint {
                kind: complaint.kind.map(ComplaintKind::name),
                is_harmless: complaint.kind.is_some_and(ComplaintKind::is_harmless),
                user_agent: complaint.user_agent.as_deref(),
                arrived_at: complaint.arrived_at,
                part,
            }),
        }
    }
}

fn shown(mta: &Mta) -> (&str, &str) {
    (&mta.kind, &mta.name)
}

/// What the sender knows the message by.
#[derive(Clone, Debug, Default)]
struct Common {
    from: Option<String>,
    to: Option<String>,
    subject: Option<String>,
    message_id: Option<String>,
}

impl Common {
    /// As it is remembered, which is our own word; else as the report returns it.
    fn of(sent: &SentRecipient, returned: &Original) -> Self {
        let known = serde_json::from_slice::<MailJson>(&sent.mail_json).unwrap_or_default().common_headers;
        let listed = |list: Vec<String>| Some(list.join(", ")).filter(|list| !list.is_empty());
        let field = |name: &str| returned.field(name).map(str::to_owned);
        Self {
            from: listed(known.from).or_else(|| field("from")),
            to: listed(known.to).or_else(|| field("to")),
            subject: known.subject.or_else(|| field("subject")),
            message_id: known.message_id.or_else(|| field("message-id")),
        }
    }
}

/// The part of the `mail` object that is looked at.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct MailJson {
    common_headers: CommonHeaders,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CommonHeaders {
    from: Vec<String>,
    to: Vec<String>,
    subject: Option<String>,
    message_id: Option<String>,
}

#[cfg(test)]
mod tests;
