//! From a message that arrives to a message that the queue has.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::facts::{Caller, Facts};
use super::memory::{ClientMemory, READ_BYTES_MAX, Reservation, SESSION_BYTES_MAX, SPOOL_SLACK_BYTES};
use super::stamp::{Stamp, StampedHeader};
use crate::admission::quota::{self, Exceeded, Quotas, ScopeLimit};
use crate::admission::{self, Authority, Submission};
use crate::events::{EventLine, metric};
use crate::message::{Claims, Control};
use crate::queue::intake::SPOOL_PART_BYTES;
use crate::queue::{AcceptError, Charges, Ended, Intake, NewBody, NewMessage, Origin};
use crate::smtp::server::{Content, Message};
use crate::types::{BodyKind, EnhancedStatus, Envelope, MessageId, Reply, ReplyCode};

/// What goes with the message that a session receives.
pub(super) struct Assembly {
    intake: Arc<dyn Intake>,
    quotas: Arc<Quotas>,
    memory: Reservation,
    /// Once the message is too large for memory.
    spool: Option<Spool>,
}

/// A message whose first parts are in the queue's spool. Dropped: they are discarded.
struct Spool {
    intake: Arc<dyn Intake>,
    id: MessageId,
    parts: u32,
    bytes: u64,
    header: HeaderFacts,
    /// The queue has the message now: nothing to discard.
    handed_over: bool,
}

/// What stamping gave besides the octets.
struct HeaderFacts {
    header_bytes: u32,
    needs_smtputf8: bool,
    mail_json: Bytes,
    send_event: EventLine,
    claims: Claims,
    control: Control,
}

/// How a header block is stamped in this session.
#[derive(Clone, Copy)]
pub(super) struct Stamping<'a> {
    pub(super) stamp: &'a dyn Stamp,
    pub(super) facts: &'a Facts,
    pub(super) caller: Caller<'a>,
}

impl Stamping<'_> {
    fn header(&self, raw: &[u8], id: MessageId, message: &Message) -> Result<StampedHeader, Reply> {
        self.stamp.stamp(raw, &self.facts.context(id, &message.envelope, self.caller))
    }
}

/// Whose message it is.
fn origin(stamp: &Stamping<'_>, authority: &Authority) -> Origin {
    Origin {
        caller: (*stamp.caller.grant.caller).into(),
        tenant: authority.tenant.name.as_str().into(),
        configuration_set: authority.set_name.clone().unwrap_or_default(),
        tls_required: authority.set.as_ref().is_some_and(|set| set.tls_required),
        identity: authority.identity.as_ref().map(|identity| identity.name.to_string().into()).unwrap_or_default(),
        return_path: authority.return_path.clone(),
    }
}

impl Assembly {
    pub(super) fn new(intake: Arc<dyn Intake>, quotas: Arc<Quotas>) -> Self {
        Self { intake, quotas, memory: Reservation::default(), spool: None }
    }

    /// Memory for the first octets, before the client sends them.
    pub(super) async fn begin(&mut self, message: &mut Message, memory: &ClientMemory, deadline: Instant) {
        let bytes = Reservation::first_bytes(message.declared_bytes);
        if !self.memory.grow(memory, bytes, deadline).await {
            message.content.fail(no_memory());
        }
    }

    /// Makes room for one more read: spools what is a part, reserves what is needed.
    pub(super) async fn make_room(
        &mut self,
        message: &mut Message,
        memory: &ClientMemory,
        deadline: Instant,
        stamp: Stamping<'_>,
    ) {
        if message.content.is_faulty() {
            return;
        }
        let kept = message.content.kept().len();
        if !self.memory.covers(kept) {
            let granted = self.memory.grow(memory, SESSION_BYTES_MAX, deadline).await;
            if !granted {
                return message.content.fail(no_memory());
            }
        }
        if self.stamps_next(message) {
            let id = self.intake.new_id();
            if let Err(reply) = self.stamp(id, message, stamp) {
                return message.content.fail(reply);
            }
        }
        if let Err(error) = self.spool_parts(&mut message.content, SPOOL_FROM_BYTES).await {
            message.content.fail(reply_to(&error));
        }
    }

    /// Whether [`Assembly::make_room`] will stamp the header block: there is a part to spool, and none was spooled yet.
    /// Without a header block there is none to stamp: the limit of header blocks is above a part, and holds or refuses.
    pub(super) fn stamps_next(&self, message: &Message) -> bool {
        let content = &message.content;
        self.spool.is_none() && content.kept().len() >= SPOOL_FROM_BYTES && content.header_bytes().is_some()
    }

    /// The message is complete: hands it over. Returns its id once it is safe.
    pub(super) async fn finish(mut self, mut message: Message, stamp: Stamping<'_>) -> Result<MessageId, Reply> {
        if message.content.has_eight_bit_body() {
            message.envelope.body = BodyKind::EightBitMime;
        }
        if self.spool.is_none() {
            let id = self.intake.new_id();
            if message.content.kept().len() <= SPOOL_PART_BYTES
                && let Some((new, authority)) = self.inline(id, &mut message, stamp)?
            {
                return self.accept(new, &scopes(&stamp, &authority)).await;
            }
            if self.spool.is_none() {
                self.stamp(id, &mut message, stamp)?;
            }
        }
        if let Err(error) = self.spool_parts(&mut message.content, 1).await {
            return Err(reply_to(&error));
        }
        let Some(spool) = &mut self.spool else {
            return Err(local_error());
        };
        // Its header may have come long ago: judged again, by the rights of now.
        let header = &spool.header;
        let submission = Submission { envelope: &message.envelope, claims: &header.claims, control: &header.control };
        let authority = admission::authorize(stamp.caller.directory, stamp.caller.grant, submission)
            .map_err(|denial| denial.reply())?;
        let new = NewMessage {
            id: spool.id,
            envelope: Envelope { smtputf8: spool.header.needs_smtputf8, ..message.envelope },
            body: NewBody::Spooled { parts: spool.parts, bytes: spool.bytes },
            header_bytes: spool.header.header_bytes,
            recipient_headers: Vec::new(),
            mail_json: spool.header.mail_json.clone(),
            send_event: spool.header.send_event.clone(),
            origin: origin(&stamp, &authority),
            lifetime: authority.lifetime,
            charges: Charges::default(),
            ended: Ended::default(),
        };
        self.accept(new, &scopes(&stamp, &authority)).await
    }

    /// The message in one piece; `None` where it has become too large for that by stamping, which is then spooled.
    fn inline(
        &mut self,
        id: MessageId,
        message: &mut Message,
        stamp: Stamping<'_>,
    ) -> Result<Option<(NewMessage, Authority)>, Reply> {
        let kept = message.content.kept();
        let header_end = message.content.header_bytes().unwrap_or(kept.len());
        let (raw, body) = kept.split_at_checked(header_end).unwrap_or((kept, &[]));
        let stamped = stamp.header(raw, id, message)?;
        if stamped.bytes.len() + body.len() > SPOOL_PART_BYTES {
            self.begin_spool(id, stamped, &mut message.content);
            return Ok(None);
        }
        let mut octets = BytesMut::with_capacity(stamped.bytes.len() + body.len());
        octets.extend_from_slice(&stamped.bytes);
        octets.extend_from_slice(body);
        let new = NewMessage {
            id,
            envelope: Envelope { smtputf8: stamped.needs_smtputf8, ..message.envelope.clone() },
            body: NewBody::Inline(octets.freeze()),
            header_bytes: stamped.header_bytes,
            recipient_headers: Vec::new(),
            mail_json: stamped.mail_json,
            send_event: stamped.send_event,
            origin: origin(&stamp, &stamped.authority),
            lifetime: stamped.authority.lifetime,
            ended: Ended::default(),
            charges: Charges::default(),
        };
        Ok(Some((new, stamped.authority)))
    }

    /// Stamps the header block in place, for a message that is spooled.
    fn stamp(&mut self, id: MessageId, message: &mut Message, stamp: Stamping<'_>) -> Result<(), Reply> {
        let kept = message.content.kept();
        let raw = kept.get(..message.content.header_bytes().unwrap_or(kept.len())).unwrap_or(kept);
        let stamped = stamp.header(raw, id, message)?;
        self.begin_spool(id, stamped, &mut message.content);
        Ok(())
    }

    fn begin_spool(&mut self, id: MessageId, stamped: StampedHeader, content: &mut Content) {
        content.replace_header(&stamped.bytes);
        let StampedHeader { header_bytes, needs_smtputf8, mail_json, send_event, claims, control, .. } = stamped;
        self.spool = Some(Spool {
            intake: Arc::clone(&self.intake),
            id,
            parts: 0,
            bytes: 0,
            header: HeaderFacts { header_bytes, needs_smtputf8, mail_json, send_event, claims, control },
            handed_over: false,
        });
    }

    /// Spools parts while at least `floor` octets are kept.
    async fn spool_parts(&mut self, content: &mut Content, floor: usize) -> Result<(), AcceptError> {
        let Some(spool) = &mut self.spool else {
            return Ok(());
        };
        while content.kept().len() >= floor {
            let part = Bytes::from(content.take_front(SPOOL_PART_BYTES));
            let bytes = part.len();
            // Counted before it is written: a part whose writing was cut off is discarded too.
            let number = spool.parts;
            spool.parts += 1;
            self.intake.spool(spool.id, number, part).await?;
            spool.bytes += u64::try_from(bytes).unwrap_or_default();
        }
        Ok(())
    }

    /// Charges the message to its scopes and hands it over. Once the queue is asked, it may finish without us (this future
    /// may be dropped): then nothing is discarded here, and the charges are the queue's to keep or to drop.
    async fn accept(mut self, mut new: NewMessage, scopes: &[ScopeLimit]) -> Result<MessageId, Reply> {
        let id = new.id;
        let recipients = u32::try_from(new.envelope.recipients.len()).unwrap_or(u32::MAX);
        let reservation = self.quotas.reserve(scopes, recipients).map_err(|exceeded| throttled(&exceeded))?;
        new.charges = reservation.into_charges();
        if let Some(spool) = &mut self.spool {
            spool.handed_over = true;
        }
        let result = self.intake.accept(new).await;
        if let Err(error) = &result {
            tracing::debug!(%id, %error, "message not taken");
            if let Some(spool) = &mut self.spool {
                spool.handed_over = false;
            }
        }
        result.map(|()| id).map_err(|error| reply_to(&error))
    }
}

/// What a message is charged to.
fn scopes(stamp: &Stamping<'_>, authority: &Authority) -> Vec<ScopeLimit> {
    let Caller { grant, directory } = stamp.caller;
    quota::scopes(directory, &grant.tenant, grant.credential.as_deref(), authority.set.as_deref())
}

impl Drop for Spool {
    fn drop(&mut self) {
        if !self.handed_over && self.parts > 0 {
            self.intake.discard(self.id, self.parts);
        }
    }
}

/// Each error of the queue has its reply.
pub(super) fn reply_to(error: &AcceptError) -> Reply {
    match error {
        AcceptError::QueueFull { .. } => reply(452, (4, 3, 1), "Queue is full, try again later"),
        AcceptError::LowDisk { .. } => reply(452, (4, 3, 1), "Insufficient system storage"),
        AcceptError::HeadersTooLarge { .. } => reply(552, (5, 3, 4), "Message has too many recipients for its header"),
        AcceptError::NotDurable(_) => reply(451, (4, 3, 0), "Temporary service failure"),
        AcceptError::Closed => reply(421, (4, 3, 2), "Server is shutting down"),
    }
}

/// A quota has no room.
pub(super) fn throttled(exceeded: &Exceeded) -> Reply {
    tracing::debug!(%exceeded, "message not taken");
    let (scope, limit) = (exceeded.scope().kind(), exceeded.kind());
    metrics::counter!(metric::QUOTA_REFUSALS, "scope" => scope, "limit" => limit).increment(1);
    reply(454, (4, 7, 0), exceeded.text())
}

fn no_memory() -> Reply {
    reply(452, (4, 3, 1), "Insufficient memory, try again later")
}

/// A slip of ours.
pub(super) fn local_error() -> Reply {
    reply(451, (4, 3, 0), "Temporary service failure")
}

/// A reply of ours: all codes in this module are legal, which a test proves.
pub(super) fn reply(code: u16, (class, subject, detail): (u8, u16, u16), text: &str) -> Reply {
    let code = ReplyCode::new(code).expect("constant codes of this module lie in 200 to 599");
    Reply::new(code, EnhancedStatus::new(class, subject, detail), vec![text.into()])
}

/// From so many octets on a part is spooled while the message arrives.
const SPOOL_FROM_BYTES: usize = SPOOL_PART_BYTES + SPOOL_SLACK_BYTES;

/// What a read may add must fit into what is reserved beyond a part.
const _: () = assert!(SPOOL_SLACK_BYTES + READ_BYTES_MAX < SPOOL_PART_BYTES);
