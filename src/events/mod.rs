//! Events: what became of each message, as SES-compatible JSON lines in files that a log shipper tails.
//!
//! An event is rendered where it is caused, committed in the same batch as the change it tells of (the outbox), and
//! written to the files by one thread that pulls synced events from the [`Outbox`]. Promises: each event stands exactly
//! once in each stream of files that takes its kind, in order of its id, across crash, rotation and full disk.

//!
//! | part | holds |
//! |---|---|
//! | [`schema`] | rendering: the `mail` object once a message, then one line an event |
//! | [`mod@file`] | one stream of files: names, recovery, writes, rotation, retention |
//! | [`writer`] | the thread between the outbox and the files |
//! | [`audit`] | the audit stream: files of its own, no outbox |
//! | [`tail`] | a reader that follows a stream across rotations, for the demo and for tests |
//! | [`metric`] | names of all metrics |
//!
//! docs/EVENTS.md is the contract with log shippers, docs/event.schema.json its checkable half. Does not: decide what
//! becomes of a message, or know the queue.

pub mod audit;
pub mod file;
mod json;
pub mod metric;
pub mod schema;
mod settings;
pub mod tail;
pub mod writer;

use std::io::Write;
use std::time::Duration;

pub use settings::{Settings, SinkSettings};
pub use tail::EventTail;
pub use writer::{EventWriter, EventsError, Health, WriterHandle};

use bytes::Bytes;

/// Rises by one with each event of this queue; never reused. The first event has id 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(u64);

impl EventId {
    /// Before the first event.
    pub const NONE: EventId = EventId(0);

    /// The id with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number, as events show it.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The id that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The id before; [`EventId::NONE`] stays.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// What an event tells. The names are SES's, but for `Lane`, `Reputation` and `Report`. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// Accepted and will be attempted.
    Send = 1,
    /// The recipient's server took it.
    Delivery = 2,
    /// Still waiting.
    DeliveryDelay = 3,
    /// Will not be delivered.
    Bounce = 4,
    /// A recipient complained.
    Complaint = 5,
    /// Refused for its content.
    Reject = 6,
    /// What a source may send to a site changed: ours, not SES's, and not about a message.
    Lane = 7,
    /// How the bounces and complaints of a sender stand changed: ours, not SES's, and not about a message.
    Reputation = 8,
    /// A recipient wants no more of its configuration set.
    Subscription = 9,
    /// One row of a DMARC or TLS report of a receiver: ours, not SES's, not about a message, and only in streams that name it.
    Report = 10,
}

impl EventKind {
    /// Every kind, in the order of their stored codes.
    pub const ALL: [EventKind; 10] = [
        EventKind::Send,
        EventKind::Delivery,
        EventKind::DeliveryDelay,
        EventKind::Bounce,
        EventKind::Complaint,
        EventKind::Reject,
        EventKind::Lane,
        EventKind::Reputation,
        EventKind::Subscription,
        EventKind::Report,
    ];

    /// `eventType` as SES spells it; the same names stand in the config.
    pub const fn name(self) -> &'static str {
        match self {
            EventKind::Send => "Send",
            EventKind::Delivery => "Delivery",
            EventKind::DeliveryDelay => "DeliveryDelay",
            EventKind::Bounce => "Bounce",
            EventKind::Complaint => "Complaint",
            EventKind::Reject => "Reject",
            EventKind::Lane => "Lane",
            EventKind::Reputation => "Reputation",
            EventKind::Subscription => "Subscription",
            EventKind::Report => "Report",
        }
    }

    /// The code in the outbox record.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Whether a stream takes it that names no kinds. Reports of receivers are many, and strangers write them: whoever reads what
    /// became of messages must not meet them unasked.
    pub const fn is_taken_unnamed(self) -> bool {
        !matches!(self, EventKind::Report)
    }

    /// The kind with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// A rendered event whose id is not yet known: the queue gives ids at commit, in commit order. The id's digits belong
/// at `id_at` of `json`, which has no line end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLine {
    /// What it tells.
    pub kind: EventKind,
    /// The JSON object without the digits of `posthaste.eventId`.
    pub json: Bytes,
    /// Where the digits go; at most `json.len()`.
    pub id_at: u32,
}

impl EventLine {
    /// The configuration set of its message, from the auto-tag: no text of a message can hold it in this form, since quotes in
    /// texts are escaped.
    pub fn configuration_set(&self) -> Option<&str> {
        const TAG: &[u8] = b"\"ses:configuration-set\":[\"";
        let at = memchr::memmem::find(&self.json, TAG)?;
        let name = self.json.get(at + TAG.len()..)?;
        let name = name.get(..memchr::memchr(b'"', name)?)?;
        std::str::from_utf8(name).ok()
    }
}

/// An event with its id, read from the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEvent {
    /// Its id.
    pub id: EventId,
    /// Its text. `None`: the record is damaged or missing, so no file can have it; the stream goes on behind it.
    pub line: Option<EventLine>,
}

impl OutboxEvent {
    /// Appends the whole line, id and line feed included, as it stands in the files; nothing for a damaged event.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        let Some(line) = &self.line else { return };
        let id_at = usize::try_from(line.id_at).unwrap_or(usize::MAX);
        let (head, tail) = line.json.split_at(id_at.min(line.json.len()));
        out.reserve(line.json.len() + 24);
        out.extend_from_slice(head);
        write!(out, "{}", self.id.value()).expect("writing to a Vec does not fail");
        out.extend_from_slice(tail);
        out.push(b'\n');
    }
}

/// The store does not answer; the writer stops, the daemon turns unhealthy.
#[derive(Debug, thiserror::Error)]
#[error("event outbox: {0}")]
pub struct OutboxError(pub String);

/// Where committed events wait until the files hold them. `queue` implements it. Blocking: for the writer's thread.
pub trait Outbox: Send + Sync + 'static {
    /// Events with ids from `from` on, in order and without gaps, at most `limit`, only those whose batch is synced. One
    /// whose record is damaged comes without its text.
    fn read(&self, from: EventId, limit: usize) -> Result<Vec<OutboxEvent>, OutboxError>;

    /// The id of the oldest event that is still kept, or the next id to be given where none is.
    fn oldest(&self) -> Result<EventId, OutboxError>;

    /// All events up to and including `through` are safe in every file: they may be dropped.
    fn consumed(&self, through: EventId) -> Result<(), OutboxError>;

    /// Blocks until an event after `after` is synced, [`Outbox::wake`] is called or `timeout` has passed.
    fn wait(&self, after: EventId, timeout: Duration);

    /// Ends one [`Outbox::wait`] early (rotation, shutdown). A call that comes before its wait is kept for it.
    fn wake(&self);

    /// The newest event that [`Outbox::read`] would return, where the store knows it without a search. It only serves
    /// the count of pending events.
    fn newest(&self) -> Option<EventId> {
        None
    }
}
