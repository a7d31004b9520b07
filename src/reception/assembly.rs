//! From a message that arrives to a message that the queue has.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::Ports;
use super::facts::{Caller, Facts};
use super::memory::{ClientMemory, READ_BYTES_MAX, Reservation, SESSION_BYTES_MAX, SPOOL_SLACK_BYTES};
use super::settings::Settings;
use super::signing::{Job, JobBody, Signed, Signing};
use super::stamp::{Stamp, StampedHeader};
use crate::admission::quota::{self, Exceeded, Quotas, ScopeLimit};
use crate::admission::{Authority, Directory};
use crate::events::metric;
use crate::message::dkim::BodyHasher;
use crate::message::header;
use crate::message::mime::{EightBitBodies, Plan, Rewriter, Scanner};
use crate::queue::intake::{RECIPIENT_HEADERS_BYTES_MAX, SPOOL_PART_BYTES};
use crate::queue::{AcceptError, Charges, Ended, Intake, NewBody, NewMessage, Origin};
use crate::smtp::server::{Content, Message};
use crate::types::{BodyKind, EnhancedStatus, Envelope, MessageId, Reply, ReplyCode};

/// What goes with the message that a session receives.
pub(super) struct Assembly {
    intake: Arc<dyn Intake>,
    quotas: Arc<Quotas>,
    signing: Arc<Signing>,
    may_sign: bool,
    eight_bit: EightBitBodies,
    memory: Reservation,
    /// Once the message is too large for memory.
    spool: Option<Spool>,
}

/// A message whose body goes into the queue's spool as it arrives. Its header, part 0, is written last: the signatures in it
/// cover the body. Dropped: the parts are discarded.
struct Spool {
    intake: Arc<dyn Intake>,
    id: MessageId,
    /// The number of the next part.
    parts: u32,
    bytes: u64,
    /// The header fields as they came.
    header: Vec<u8>,
    /// Looks at the body as it came; `None` once that is known.
    scanner: Option<Scanner>,
    /// Hashes it; `None` where nobody signs.
    hasher: Option<BodyHasher>,
    /// The queue has the message now: nothing to discard.
    handed_over: bool,
}

/// How a header block is stamped in this session.
#[derive(Clone, Copy)]
pub(super) struct Stamping<'a> {
    pub(super) stamp: &'a dyn Stamp,
    pub(super) facts: &'a Facts,
    pub(super) caller: Caller<'a>,
}

/// A header that is complete, and what goes in front of it.
struct Sealed {
    stamped: StampedHeader,
    signed: Signed,
}

impl Stamping<'_> {
    fn header(&self, raw: &[u8], id: MessageId, message: &Message) -> Result<StampedHeader, Reply> {
        self.stamp.stamp(raw, &self.facts.context(id, &message.envelope, self.caller))
    }

    fn judge(&self, raw: &[u8], id: MessageId, message: &Message) -> Result<(), Reply> {
        self.stamp.judge(raw, &self.facts.context(id, &message.envelope, self.caller))
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
        pool: authority.pool.clone(),
        priority: authority.priority,
        prefers_warming: authority.prefers_warming,
        set_warms_up: authority.set_warms_up,
    }
}

impl Sealed {
    /// Octets of the header block that all recipients get.
    fn header_bytes(&self) -> usize {
        self.signed.prefix.len() + self.stamped.bytes.len()
    }

    /// That block, and room behind it.
    fn header(&self, room_bytes: usize) -> BytesMut {
        let mut octets = BytesMut::with_capacity(self.header_bytes() + room_bytes);
        octets.extend_from_slice(&self.signed.prefix);
        octets.extend_from_slice(&self.stamped.bytes);
        octets
    }

    fn into_message(
        self,
        id: MessageId,
        envelope: Envelope,
        body: NewBody,
        stamp: &Stamping<'_>,
    ) -> (NewMessage, Authority) {
        let header_bytes = u32::try_from(self.header_bytes()).unwrap_or(u32::MAX);
        let StampedHeader { needs_smtputf8, header_is_ascii, mail_json, send_event, authority, .. } = self.stamped;
        let kind = if header_is_ascii { envelope.body } else { BodyKind::EightBitMime };
        let new = NewMessage {
            id,
            envelope: Envelope { smtputf8: needs_smtputf8, body: kind, ..envelope },
            body,
            header_bytes,
            recipient_headers: self.signed.own,
            mail_json,
            send_event,
            origin: origin(stamp, &authority),
            lifetime: authority.lifetime,
            charges: Charges::default(),
            ended: Ended::default(),
        };
        (new, authority)
    }
}

impl Assembly {
    pub(super) fn new(ports: &Ports, settings: &Settings) -> Self {
        Self {
            intake: Arc::clone(&ports.intake),
            quotas: Arc::clone(&ports.quotas),
            signing: Arc::clone(&ports.signing),
            may_sign: ports.stamp.may_sign(),
            eight_bit: settings.eight_bit_bodies,
            memory: Reservation::default(),
            spool: None,
        }
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
        // Without the end of the header there is nothing to spool yet: its limit is below a part.
        if self.begins_spool(message) {
            // Judged again when all is there; but what is refused now need not be written first.
            let raw = message.content.kept().get(..message.content.header_bytes().unwrap_or_default());
            let judged = stamp.judge(header::split(raw.unwrap_or_default()).0, self.intake.new_id(), message);
            if let Err(reply) = judged {
                return message.content.fail(reply);
            }
            self.begin_spool(&mut message.content);
        }
        let content = &mut message.content;
        if let Err(error) = self.spool_parts(content, SPOOL_FROM_BYTES).await {
            content.fail(reply_to(&error));
        }
    }

    /// Whether [`Assembly::make_room`] will judge the header and begin to spool.
    pub(super) fn begins_spool(&self, message: &Message) -> bool {
        let content = &message.content;
        self.spool.is_none() && content.kept().len() >= SPOOL_FROM_BYTES && content.header_bytes().is_some()
    }

    /// The message is complete: hands it over. Returns its id once it is safe.
    pub(super) async fn finish(mut self, mut message: Message, stamp: Stamping<'_>) -> Result<MessageId, Reply> {
        if self.spool.is_none() {
            return self.finish_inline(message, stamp).await;
        }
        if let Err(error) = self.spool_parts(&mut message.content, 1).await {
            return Err(reply_to(&error));
        }
        let Some(spool) = &mut self.spool else {
            return Err(local_error());
        };
        let Some(plan) = spool.scanner.take().map(Scanner::finish) else {
            return Err(local_error());
        };
        message.envelope.body = body_kind(&plan)?;
        if !plan.is_clean() {
            self.rewrite_spool(&plan).await.map_err(|error| reply_to(&error))?;
        }
        let Some(spool) = &mut self.spool else {
            return Err(local_error());
        };
        let (id, header) = (spool.id, std::mem::take(&mut spool.header));
        let body = spool.hasher.take().map_or(JobBody::Unknown, |hasher| JobBody::Hash(hasher.finish()));
        let sealed = self.seal(&header, &plan, id, &message, body, stamp).await?;
        self.finish_spooled(sealed, message.envelope, stamp).await
    }

    /// Of a message that is all in memory.
    async fn finish_inline(mut self, mut message: Message, stamp: Stamping<'_>) -> Result<MessageId, Reply> {
        let octets = Bytes::from(message.content.take_all());
        let (header, body) = header::split(&octets);
        let (header, mut body) = (octets.slice_ref(header), octets.slice_ref(body));
        let mut scanner = self.scanner(&header);
        scanner.push(&body);
        let plan = scanner.finish();
        message.envelope.body = body_kind(&plan)?;
        let id = self.intake.new_id();
        let job = if plan.is_clean() {
            JobBody::Octets(body.clone())
        } else {
            JobBody::Rewrite { header: header.clone(), body: body.clone(), plan: Box::new(plan.clone()) }
        };
        let mut sealed = self.seal(&header, &plan, id, &message, job, stamp).await?;
        if let Some(rewritten) = sealed.signed.body.take() {
            body = rewritten;
        }
        // Both are parts of what came, which is of no more use once it was rewritten.
        drop((octets, header));
        if sealed.header_bytes() + body.len() > SPOOL_PART_BYTES {
            self.spool = Some(Spool::new(Arc::clone(&self.intake), id, Vec::new()));
            for part in body.chunks(SPOOL_PART_BYTES) {
                self.write_part(body.slice_ref(part)).await.map_err(|error| reply_to(&error))?;
            }
            return self.finish_spooled(sealed, message.envelope, stamp).await;
        }
        let mut whole = sealed.header(body.len());
        whole.extend_from_slice(&body);
        drop(body);
        let (new, authority) = sealed.into_message(id, message.envelope, NewBody::Inline(whole.freeze()), &stamp);
        self.accept(new, &authority, &stamp).await
    }

    /// Of a message whose body is in the spool.
    async fn finish_spooled(
        mut self,
        sealed: Sealed,
        envelope: Envelope,
        stamp: Stamping<'_>,
    ) -> Result<MessageId, Reply> {
        let header = sealed.header(0).freeze();
        let Some(spool) = &mut self.spool else {
            return Err(local_error());
        };
        let (id, parts, bytes) = (spool.id, spool.parts, spool.bytes + bytes_of(&header));
        if let Err(error) = spool.intake.spool(id, HEADER_PART, header).await {
            return Err(reply_to(&error));
        }
        let (new, authority) = sealed.into_message(id, envelope, NewBody::Spooled { parts, bytes }, &stamp);
        self.accept(new, &authority, &stamp).await
    }

    /// Completes and signs the header.
    async fn seal(
        &self,
        raw: &[u8],
        plan: &Plan,
        id: MessageId,
        message: &Message,
        body: JobBody,
        stamp: Stamping<'_>,
    ) -> Result<Sealed, Reply> {
        let mut stamped = stamp.header(raw, id, message)?;
        if let Cow::Owned(changed) = plan.header(&stamped.bytes) {
            stamped.bytes = Bytes::from(changed);
        }
        let job = Job {
            header: stamped.bytes.clone(),
            own_fields: std::mem::take(&mut stamped.own_fields),
            body,
            at: id.accepted_at(),
            signers: std::mem::take(&mut stamped.signers),
        };
        let (bytes, limit_bytes) = (job.own_bytes(), RECIPIENT_HEADERS_BYTES_MAX);
        if bytes > limit_bytes {
            return Err(reply_to(&AcceptError::HeadersTooLarge { bytes, limit_bytes }));
        }
        let signed = self.signing.sign(job).await.map_err(|error| {
            tracing::error!(%error, "message not signed, and not taken");
            local_error()
        })?;
        Ok(Sealed { stamped, signed })
    }

    /// From here on the body goes into the spool.
    fn begin_spool(&mut self, content: &mut Content) {
        let kept = content.kept();
        let raw = kept.get(..content.header_bytes().unwrap_or(kept.len())).unwrap_or(kept);
        // Where a line that is no field ended the header, the body begins there.
        let (header, body) = header::split(raw);
        let (header, body) = (header.to_vec(), body.to_vec());
        content.replace_header(&body);
        let scanner = self.scanner(&header);
        let mut spool = self.new_spool(header);
        spool.scanner = Some(scanner);
        self.spool = Some(spool);
    }

    fn new_spool(&self, header: Vec<u8>) -> Spool {
        let mut spool = Spool::new(Arc::clone(&self.intake), self.intake.new_id(), header);
        spool.hasher = self.may_sign.then(BodyHasher::default);
        spool
    }

    /// Octets above 127 stay where the application has signed them: a change would break its signature for sure.
    fn scanner(&self, header: &[u8]) -> Scanner {
        let is_signed = || header::has(header, "DKIM-Signature");
        let encodes = self.eight_bit == EightBitBodies::Encode && !is_signed();
        Scanner::new(header, if encodes { EightBitBodies::Encode } else { EightBitBodies::Pass })
    }

    /// Reads the body in the spool a second time and spools it anew.
    async fn rewrite_spool(&mut self, plan: &Plan) -> Result<(), AcceptError> {
        let Some(mut old) = self.spool.take() else { return Ok(()) };
        let mut rewriter = Rewriter::new(&old.header, plan);
        self.spool = Some(self.new_spool(std::mem::take(&mut old.header)));
        let signing = Arc::clone(&self.signing);
        // A part and what becomes of it are more than this session has reserved: so that not all do it at once.
        let _turn = signing.rewrite_turn().await;
        let mut out = Vec::with_capacity(SPOOL_PART_BYTES + READ_BYTES_MAX);
        for number in HEADER_PART + 1..old.parts {
            let part = self.intake.spooled(old.id, number).await?;
            for piece in part.chunks(READ_BYTES_MAX) {
                rewriter.push(piece, &mut out);
                self.write_full_parts(&mut out).await?;
                tokio::task::yield_now().await;
            }
        }
        rewriter.finish(&mut out);
        self.write_full_parts(&mut out).await?;
        if out.is_empty() { Ok(()) } else { self.write_part(Bytes::from(out)).await }
    }

    async fn write_full_parts(&mut self, out: &mut Vec<u8>) -> Result<(), AcceptError> {
        while out.len() >= SPOOL_PART_BYTES {
            let rest = out.split_off(SPOOL_PART_BYTES);
            self.write_part(Bytes::from(std::mem::replace(out, rest))).await?;
        }
        Ok(())
    }

    /// Spools parts while at least `floor` octets are kept.
    async fn spool_parts(&mut self, content: &mut Content, floor: usize) -> Result<(), AcceptError> {
        while self.spool.is_some() && content.kept().len() >= floor {
            self.write_part(Bytes::from(content.take_front(SPOOL_PART_BYTES))).await?;
        }
        Ok(())
    }

    async fn write_part(&mut self, part: Bytes) -> Result<(), AcceptError> {
        let Some(spool) = &mut self.spool else { return Ok(()) };
        for piece in part.chunks(READ_BYTES_MAX) {
            if let Some(scanner) = &mut spool.scanner {
                scanner.push(piece);
            }
            if let Some(hasher) = &mut spool.hasher {
                hasher.push(piece);
            }
            // Other sessions of this thread have their turn: a whole part takes some milliseconds.
            tokio::task::yield_now().await;
        }
        let bytes = bytes_of(&part);
        // Counted before it is written: a part whose writing was cut off is discarded too.
        let number = spool.parts;
        spool.parts += 1;
        self.intake.spool(spool.id, number, part).await?;
        spool.bytes += bytes;
        Ok(())
    }

    /// Charges the message to its scopes and hands it over. Once the queue is asked, it may finish without us (this future
    /// may be dropped): then nothing is discarded here, and the charges are the queue's to keep or to drop.
    async fn accept(
        mut self,
        mut new: NewMessage,
        authority: &Authority,
        stamp: &Stamping<'_>,
    ) -> Result<MessageId, Reply> {
        let id = new.id;
        let recipients = charged(stamp.caller.directory, &new.envelope);
        if recipients > 0 {
            let reservation = self.quotas.reserve(&scopes(stamp, authority), recipients);
            new.charges = reservation.map_err(|exceeded| throttled(&exceeded))?.into_charges();
        }
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

/// The recipients that quotas count: not those at the simulator.
fn charged(directory: &Directory, envelope: &Envelope) -> u32 {
    let charged = envelope.recipients.iter().filter(|recipient| !directory.is_simulated(&recipient.address));
    u32::try_from(charged.count()).unwrap_or(u32::MAX)
}

/// What a message is charged to.
fn scopes(stamp: &Stamping<'_>, authority: &Authority) -> Vec<ScopeLimit> {
    let Caller { grant, directory } = stamp.caller;
    quota::scopes(directory, &grant.tenant, grant.credential.as_deref(), authority.set.as_deref())
}

impl Spool {
    fn new(intake: Arc<dyn Intake>, id: MessageId, header: Vec<u8>) -> Self {
        Self { intake, id, parts: HEADER_PART + 1, bytes: 0, header, scanner: None, hasher: None, handed_over: false }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if !self.handed_over {
            self.intake.discard(self.id, self.parts);
        }
    }
}

/// What the body is when the plan is done; refused where a line stays too long to be sent (RFC 5321 §4.5.3.1.6).
fn body_kind(plan: &Plan) -> Result<BodyKind, Reply> {
    if plan.left().long_line {
        let reason = plan.remaining().iter().find(|rest| rest.dirt.long_line).map_or("", |rest| rest.reason.text());
        return Err(reply(
            550,
            (5, 6, 11),
            &format!("Message has a line too long, which cannot be re-encoded: {reason}"),
        ));
    }
    Ok(if plan.is_seven_bit() { BodyKind::SevenBit } else { BodyKind::EightBitMime })
}

/// Sizes fit.
fn bytes_of(octets: &[u8]) -> u64 {
    u64::try_from(octets.len()).unwrap_or(u64::MAX)
}

/// Each error of the queue has its reply.
pub fn reply_to(error: &AcceptError) -> Reply {
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

pub(super) fn no_memory() -> Reply {
    reply(452, (4, 3, 1), "Insufficient memory, try again later")
}

/// A slip of ours.
pub fn local_error() -> Reply {
    reply(451, (4, 3, 0), "Temporary service failure")
}

/// A reply of ours. Panics where the code is none: callers write constants, which a test proves of those here.
pub fn reply(code: u16, (class, subject, detail): (u8, u16, u16), text: &str) -> Reply {
    let code = ReplyCode::new(code).expect("constant codes of this module lie in 200 to 599");
    Reply::new(code, EnhancedStatus::new(class, subject, detail), vec![text.into()])
}

/// The part that holds the header block.
const HEADER_PART: u32 = 0;
/// From so many octets on a part is spooled while the message arrives.
const SPOOL_FROM_BYTES: usize = SPOOL_PART_BYTES + SPOOL_SLACK_BYTES;

/// What a read may add must fit into what is reserved beyond a part.
const _: () = assert!(SPOOL_SLACK_BYTES + READ_BYTES_MAX < SPOOL_PART_BYTES);
