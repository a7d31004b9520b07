//! Notifications to senders (RFC 3464): collected while recipients are settled, made into messages of the same batch.

use bytes::Bytes;

use super::settlement::{Attempt, Fate, SettlementSettings, Words};
use crate::events::schema::{self, CommonHeaders, Extras, Mail, MailObject};
use crate::message::dkim;
use crate::message::dsn::{self, Diagnostic, Kind, Notification, Original, RecipientStatus};
use crate::queue::{Charges, Ended, NewBody, NewMessage, Origin};
use crate::types::{Envelope, MessageId, Notify, Recipient, ReversePath, Timestamp};

/// A failed message up to this size is returned in full where RET=FULL asks for it.
const FULL_BYTES_MAX: usize = 100 * 1024;
/// `callerIdentity` of notifications.
const CALLER: &str = "posthaste";

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
}

/// One message for each kind of news; none for a null reverse-path (RFC 5321 §4.5.5).
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
        let envelope = Envelope {
            reverse_path: ReversePath::Null,
            recipients: vec![Recipient { address: sender.clone(), notify: Some(Notify::NEVER), orcpt: None }],
            body: built.body,
            smtputf8: built.smtputf8,
            ret: None,
            envid: None,
        };
        messages.push(new_message(id, envelope, signed(built, id, settings), settings, &attempt.message.origin));
    }
    messages
}

/// With our signatures in front, where there are keys. A key that fails leaves the notification unsigned: it is better than none.
fn signed(mut built: dsn::Built, id: MessageId, settings: &SettlementSettings) -> dsn::Built {
    let signers = settings.signers.load();
    match dkim::sign_message(&mut built.message, built.header_bytes, id.accepted_at(), &signers) {
        Ok(added_bytes) => built.header_bytes += added_bytes,
        Err(error) => tracing::error!(%error, "notification not signed"),
    }
    built
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

/// `about`: that of the message that it tells of, whose pool it takes.
fn new_message(
    id: MessageId,
    envelope: Envelope,
    built: dsn::Built,
    settings: &SettlementSettings,
    about: &Origin,
) -> NewMessage {
    let from = [format!("MAILER-DAEMON@{}", settings.hostname)];
    let to = [envelope.recipients.first().map_or_else(String::new, |to| to.address.to_string())];
    let date = Timestamp::to_rfc5322(id.accepted_at());
    let mail_json = schema::render_mail(&MailObject {
        message_id: id,
        source: &envelope.reverse_path,
        source_ip: None,
        caller_identity: CALLER,
        destination: &envelope.recipients,
        headers: &[],
        headers_truncated: false,
        common: CommonHeaders { from: &from, to: &to, date: Some(&date), ..CommonHeaders::default() },
        tags: &std::collections::BTreeMap::new(),
        from_domain: Some(&settings.hostname),
        configuration_set: None,
        source_tls: None,
    });
    let send_event = schema::send(Mail { id, json: &mail_json }, &Extras::default());
    NewMessage {
        id,
        envelope,
        body: NewBody::Inline(Bytes::from(built.message)),
        header_bytes: u32::try_from(built.header_bytes).unwrap_or(u32::MAX),
        recipient_headers: Vec::new(),
        mail_json,
        send_event,
        origin: Origin { caller: CALLER.into(), pool: about.pool.clone(), ..Origin::default() },
        lifetime: settings.notification_lifetime,
        // Nobody pays for what we have to say.
        charges: Charges::default(),
        ended: Ended::default(),
    }
}
