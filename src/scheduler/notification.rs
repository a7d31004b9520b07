//! Notifications to senders (RFC 3464): collected while recipients are settled, made into messages of the same batch.

use super::settlement::{Attempt, Fate, SettlementSettings, Words};
use crate::message::dsn::{self, Diagnostic, Kind, Notification, Original, RecipientStatus};
use crate::queue::NewMessage;
use crate::queue::notice::Notice;
use crate::types::{EmailAddress, MessageId, ReversePath};

/// A failed message up to this size is returned in full where RET=FULL asks for it.
const FULL_BYTES_MAX: usize = 100 * 1024;

/// Whom to tell what.
#[derive(Debug, Default)]
pub(super) struct Told {
    failed: Vec<Fate>,
    delayed: Vec<Fate>,
    relayed: Vec<Fate>,
}

impl Told {
    pub(super) fn tell(&mut self, kind: Kind, fate: &Fate) {
        let list = match kind {
            Kind::Failed => &mut self.failed,
            Kind::Delayed => &mut self.delayed,
            Kind::Relayed => &mut self.relayed,
        };
        list.push(fate.clone());
    }

    /// Of whom it tells that they failed.
    pub(super) fn failed(&self) -> impl Iterator<Item = usize> {
        self.failed.iter().map(|fate| fate.index)
    }
}

/// One message for each kind of news, that of failures first; none for a null reverse-path (RFC 5321 §4.5.5).
pub(super) fn build(
    attempt: &Attempt<'_>,
    told: &Told,
    settings: &SettlementSettings,
    new_id: &mut dyn FnMut() -> MessageId,
) -> Vec<NewMessage> {
    let ReversePath::Mailbox(sender) = &attempt.message.envelope.reverse_path else { return Vec::new() };
    let news = [(Kind::Failed, &told.failed), (Kind::Delayed, &told.delayed), (Kind::Relayed, &told.relayed)];
    let mut messages = Vec::new();
    for (kind, fates) in news {
        if fates.is_empty() {
            continue;
        }
        let id = new_id();
        let recipients: Vec<_> = fates.iter().filter_map(|fate| status(attempt, kind, fate)).collect();
        let header_bytes = usize::try_from(attempt.message.header_bytes).unwrap_or(usize::MAX);
        let header = attempt.original.get(..header_bytes).unwrap_or(attempt.original);
        let whole = attempt.original.len() as u64 == attempt.message.body_bytes;
        let built = dsn::build(&Notification {
            kind,
            id,
            now: attempt.now,
            hostname: &settings.hostname,
            to: sender,
            envid: attempt.message.envelope.envid.as_deref(),
            arrived_at: attempt.message.accepted_at,
            ret: attempt.message.envelope.ret,
            full_bytes_max: FULL_BYTES_MAX,
            original: Original { header, full: whole.then_some(attempt.original) },
            recipients: &recipients,
        });
        messages.push(new_message(id, sender, built, settings, attempt));
    }
    messages
}

fn status<'a>(attempt: &'a Attempt<'_>, kind: Kind, fate: &'a Fate) -> Option<RecipientStatus<'a>> {
    let recipient = attempt.message.envelope.recipients.get(fate.index)?;
    Some(RecipientStatus {
        address: &recipient.address,
        orcpt: recipient.orcpt.as_ref(),
        status: fate.status,
        diagnostic: match &fate.words {
            Words::Reply(reply) => Diagnostic::Smtp(reply),
            Words::Local(text) => Diagnostic::Local(text),
            Words::Suppressed(suppressed) => Diagnostic::Local(suppressed.text()),
        },
        remote_mta: fate.way.host.as_deref(),
        last_attempt_at: Some(attempt.now),
        retry_until: (kind == Kind::Delayed).then_some(attempt.message.expires_at),
    })
}

fn new_message(
    id: MessageId,
    to: &EmailAddress,
    mut built: dsn::Built,
    settings: &SettlementSettings,
    attempt: &Attempt<'_>,
) -> NewMessage {
    if let Err(error) = built.sign(id.accepted_at(), &settings.signers.load()) {
        tracing::error!(%error, "notification not signed");
    }
    let notice = Notice {
        id,
        to,
        octets: built.message,
        header_bytes: built.header_bytes,
        body: built.body,
        smtputf8: built.smtputf8,
        hostname: &settings.hostname,
        pool: &attempt.message.origin.pool,
        lifetime: settings.notification_lifetime,
    };
    notice.into_message()
}
