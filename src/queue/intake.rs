//! The port through which a message enters the queue: what reception knows of it, and nothing more.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::stored::RecipientState;
use crate::events::EventLine;
use crate::net::BoxFuture;
use crate::types::{Domain, Envelope, MessageId, PoolName, Priority};

/// A body above this many octets is spooled in parts while it arrives; a part is at most this long.
pub const SPOOL_PART_BYTES: usize = 1 << 20;

/// Octets of all header blocks of single recipients of a message. Above: [`AcceptError::HeadersTooLarge`].
pub const RECIPIENT_HEADERS_BYTES_MAX: usize = 4 << 20;

/// A message that the queue is asked to take over.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// From [`Intake::new_id`]; its time is the time of acceptance.
    pub id: MessageId,
    /// From MAIL and RCPT; at least one recipient.
    pub envelope: Envelope,
    /// Header block, empty line and body as they will be sent: CRLF line ends, not dot-stuffed, ending in CRLF.
    pub body: NewBody,
    /// Octets of the header block within the body, including the empty line.
    pub header_bytes: u32,
    /// Empty, or one block for each recipient, in order: header fields with CRLF, without an empty line, which go in front
    /// of the body when it is sent to that recipient. Up to [`RECIPIENT_HEADERS_BYTES_MAX`] in all.
    pub recipient_headers: Vec<Bytes>,
    /// The `mail` object of every event of this message, rendered once by `events::schema`.
    pub mail_json: Bytes,
    /// The `Send` event that is committed with the message.
    pub send_event: EventLine,
    /// Whose it is.
    pub origin: Origin,
    /// How long it may be retried.
    pub lifetime: Duration,
    /// What it costs its sender's quotas.
    pub charges: Charges,
    /// Recipients that end with the acceptance itself.
    pub ended: Ended,
}

/// What a message costs, counted in the batch that accepts it.
#[derive(Clone, Debug, Default)]
pub struct Charges {
    /// One for each scope.
    pub list: Vec<Charge>,
    /// Holds the room for them until the message's fate is known. Dropped without [`Claim::keep`]: the room is free again.
    pub claim: Option<Arc<dyn Claim>>,
}

/// So many recipients, in one minute, of one scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The scope's name.
    pub scope: Arc<str>,
    /// Unix time in minutes.
    pub minute: u64,
    /// How many.
    pub recipients: u32,
}

/// Room that was set aside for a message.
pub trait Claim: Debug + Send + Sync {
    /// The message is accepted, with its charges. Called on the committer's thread: must not block.
    fn keep(&self);
}

/// Recipients that no attempt is made for, since they are suppressed, and what that causes: committed with the message,
/// which is not kept where it has no others.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// Their final states, by recipient index.
    pub states: Vec<(u32, RecipientState)>,
    /// The events that tell of it; they follow the `Send` event.
    pub events: Vec<EventLine>,
    /// Messages that it causes.
    pub notifications: Vec<NewMessage>,
}

/// Whose message it is, and what its configuration set asks of delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Who submitted it: `callerIdentity`.
    pub caller: Box<str>,
    /// Whose mail it is; empty for what we write ourselves.
    pub tenant: Box<str>,
    /// The name of its configuration set; empty: none.
    pub configuration_set: Box<str>,
    /// Delivery needs TLS.
    pub tls_required: bool,
    /// The name of the identity by which it was accepted; empty: none.
    pub identity: Box<str>,
    /// What hosts see as its reverse-path, where that is not the submitted one.
    pub return_path: Option<ReturnPath>,
    /// The pool that it goes out by, as configured when it was accepted: a reload may take it away.
    pub pool: PoolName,
    /// Its place in the lines of its sites.
    pub priority: Priority,
    /// It goes by a source that warms up, where one has room.
    pub prefers_warming: bool,
    /// Its configuration set warms up, or did when it was accepted.
    pub set_warms_up: bool,
}

/// A reverse-path of ours, so that bounces come back to us: its domain, and for whom each is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnPath {
    /// Of the identity, or the operator's.
    pub domain: Domain,
    /// How many there are.
    pub granularity: Granularity,
}

/// For whom a return path is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Granularity {
    /// Each recipient has its own, and so its own transaction.
    #[default]
    PerRecipient,
    /// One for the message: recipients at one site share a transaction.
    PerMessage,
}

impl Origin {
    /// Its configuration set, where that warms up; otherwise empty.
    pub fn warming_set(&self) -> &str {
        if self.set_warms_up { &self.configuration_set } else { "" }
    }

    /// Tenant and configuration set: whose suppression lists hold.
    pub fn owner(&self) -> (&str, Option<&str>) {
        let set = &*self.configuration_set;
        (&self.tenant, (!set.is_empty()).then_some(set))
    }
}

/// Where the octets of a new message are.
#[derive(Clone, Debug)]
pub enum NewBody {
    /// All here; at most [`SPOOL_PART_BYTES`].
    Inline(Bytes),
    /// Already written by [`Intake::spool`], invisible until the message is accepted.
    Spooled {
        /// Parts 0 to `parts - 1` were written.
        parts: u32,
        /// Octets of all parts.
        bytes: u64,
    },
}

/// Why a message was not taken; each variant has its own reply.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// Reply 452 4.3.1; the client retries.
    #[error("queue is at its limit of {limit} messages")]
    QueueFull {
        /// The configured limit.
        limit: u64,
    },
    /// Reply 452 4.3.1: the disk is below its reserve.
    #[error("file system has {free_bytes} bytes free, reserve is {reserve_bytes}")]
    LowDisk {
        /// Free now.
        free_bytes: u64,
        /// Must stay free.
        reserve_bytes: u64,
    },
    /// Reply 552 5.3.4: the header blocks of its recipients are too much; fewer recipients would do.
    #[error("header blocks of single recipients take {bytes} bytes, limit is {limit_bytes}")]
    HeadersTooLarge {
        /// All of them.
        bytes: usize,
        /// [`RECIPIENT_HEADERS_BYTES_MAX`].
        limit_bytes: usize,
    },
    /// Reply 451 4.3.0: the disk no longer keeps promises; the daemon is unhealthy.
    #[error("commit not durable: {0}")]
    NotDurable(String),
    /// Reply 421 4.3.2: the daemon stops.
    #[error("queue is closed")]
    Closed,
}

/// Takes messages over. Implemented by the queue, and by fakes in the tests of reception.
pub trait Intake: Send + Sync + 'static {
    /// A fresh id for a message that is being received.
    fn new_id(&self) -> MessageId;

    /// Whether a message of `bytes` could be taken now: asked at MAIL, so that a full queue refuses before DATA.
    fn check(&self, bytes: u64) -> Result<(), AcceptError>;

    /// Writes one part of a body ahead of its message. Parts come in order from 0. Not synced.
    fn spool(&self, id: MessageId, part: u32, bytes: Bytes) -> BoxFuture<'_, Result<(), AcceptError>>;

    /// One part that was spooled, to be written anew in another form.
    fn spooled(&self, id: MessageId, part: u32) -> BoxFuture<'_, Result<Bytes, AcceptError>>;

    /// Drops spooled parts of a message that will never be accepted (the client went away, the message was refused).
    fn discard(&self, id: MessageId, parts: u32);

    /// Takes the message over. When this returns `Ok`, it is safe on disk: reply 250. Runs to its end even where the
    /// returned future is dropped: then the client got no reply, and may send again (RFC 5321 §6.1).
    fn accept(&self, message: NewMessage) -> BoxFuture<'_, Result<(), AcceptError>>;
}
