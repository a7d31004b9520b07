//! The port to durable storage: ordered keys in families, atomic batches, a write that may ask to be synced.
//!
//! Two stores implement it: RocksDB (`rocks`) and a model that forgets what was not synced (`model`). Nothing above
//! this file knows which one it has.

use bytes::Bytes;

/// A set of records with a purpose of its own: a RocksDB column family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Message id to envelope and what events need. Written once, deleted once.
    Message,
    /// Message id to a whole message up to 1 MiB; message id and recipient index to a header block of that recipient alone.
    /// Written once, deleted once.
    Body,
    /// Message id and part number to a piece of a larger message.
    BodyPart,
    /// Message id and recipient index to what became of that recipient so far; only after a first failure.
    Recipient,
    /// Due time, message id and group to where it goes. One for each destination domain with pending recipients.
    Due,
    /// Message id and group to the same, while held.
    Hold,
    /// Event id to event.
    Outbox,
    /// List and hash of an address to why mail to it is held back; list alone to the number of its entries.
    Suppression,
    /// Names to counters and positions.
    Meta,
    /// What is counted, minute and scope to a number: what was charged to quotas; mark, hour and scope: what reputation counts.
    Counter,
    /// Hash of source and site to what was learned of the source there.
    Lane,
    /// Day and hash of source and site to what the source sent there on that day.
    History,
    /// Hash of a source to its life in a managed pool.
    Source,
    /// Message id and recipient index to what is remembered of the recipient; and a kind to when that was told of it.
    Sent,
    /// Hash of a scope to how its reputation stands.
    Reputation,
}

impl Family {
    /// All families. New ones come last: stores number them in this order, and one of an older release gets them in it.
    pub const ALL: [Family; 15] = [
        Family::Message,
        Family::Body,
        Family::BodyPart,
        Family::Recipient,
        Family::Due,
        Family::Hold,
        Family::Outbox,
        Family::Suppression,
        Family::Meta,
        Family::Counter,
        Family::Lane,
        Family::History,
        Family::Source,
        Family::Sent,
        Family::Reputation,
    ];

    /// The column family's name on disk.
    pub const fn name(self) -> &'static str {
        match self {
            Family::Message => "message",
            Family::Body => "body",
            Family::BodyPart => "body_part",
            Family::Recipient => "recipient",
            Family::Due => "due",
            Family::Hold => "hold",
            Family::Outbox => "outbox",
            Family::Suppression => "suppression",
            Family::Meta => "meta",
            Family::Counter => "counter",
            Family::Lane => "lane",
            Family::History => "history",
            Family::Source => "source",
            Family::Sent => "sent",
            Family::Reputation => "reputation",
        }
    }

    /// Whether each key is written at most once before it is deleted: such a pair vanishes in the memtable
    /// (RocksDB's SingleDelete) instead of leaving a tombstone behind.
    pub const fn is_written_once(self) -> bool {
        matches!(self, Family::Message | Family::Body | Family::BodyPart | Family::Due | Family::Hold)
    }
}

/// Longest key of any family.
const KEY_BYTES_MAX: usize = 32;

/// A key, kept inline: keys are short, and there are several in every batch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    bytes: [u8; KEY_BYTES_MAX],
    len: u8,
}

impl Key {
    /// A key of these bytes, at most 32 of them: all keys come from `queue-format`, whose longest is the due key.
    pub fn new(bytes: &[u8]) -> Self {
        let mut key = Self { bytes: [0; KEY_BYTES_MAX], len: 0 };
        let slot = key.bytes.get_mut(..bytes.len()).expect("queue-format makes no key above 32 bytes");
        slot.copy_from_slice(bytes);
        key.len = u8::try_from(bytes.len()).expect("32 fits into a byte");
        key
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_ref().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One change within a batch.
#[derive(Clone, Debug)]
pub enum Change {
    /// Writes a record.
    Put {
        /// Where.
        family: Family,
        /// Under which key.
        key: Key,
        /// What.
        value: Bytes,
    },
    /// Removes a record.
    Delete {
        /// Where.
        family: Family,
        /// Which.
        key: Key,
    },
    /// Removes all records from `from` to before `to`.
    DeleteRange {
        /// Where; never a family that is written once.
        family: Family,
        /// First key to go.
        from: Key,
        /// First key to stay.
        to: Key,
    },
}

/// Why the store did not do as asked, in its own words.
#[derive(Clone, Debug, thiserror::Error)]
#[error("store: {text}")]
pub struct StoreError {
    /// What to do about it.
    pub kind: StoreErrorKind,
    text: String,
}

/// Kinds of store errors, one for each reaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// No room on the disk. A write is tried again until there is.
    Full,
    /// What is on disk is not what was written there. Read: the record is set aside. Written or opened: as `Failed`.
    Damaged,
    /// The disk failed. Read: tried again later. Written: nobody knows what is on the disk now, and a later sync that
    /// succeeds proves nothing; the process must end, and the next one reads what is there.
    Failed,
}

impl StoreError {
    /// An error of this kind.
    pub fn new(kind: StoreErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

/// A record as read: key and value.
pub type Record = (Vec<u8>, Bytes);

/// Durable, ordered storage. All calls block; reads are cheap where the record was written lately.
pub trait Store: Send + Sync + 'static {
    /// Applies all changes or none. With `sync`, they and all earlier ones survive a power cut when this returns.
    fn write(&self, changes: &[Change], sync: bool) -> Result<(), StoreError>;

    /// Makes all earlier writes survive a power cut.
    fn sync(&self) -> Result<(), StoreError>;

    /// The value under `key`.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Whether `key` may be there, told from memory alone: `false` is certain, `true` must be asked.
    fn may_contain(&self, _family: Family, _key: &[u8]) -> bool {
        true
    }

    /// Records with `from <= key < to`, in order, at most `limit`.
    fn scan(&self, family: Family, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Record>, StoreError>;

    /// The record with the greatest key.
    fn last(&self, family: Family) -> Result<Option<Record>, StoreError>;

    /// Keeps the octets of a damaged record for the operator, under a name of ours; says where they are.
    fn set_aside(&self, name: &str, bytes: &[u8]) -> Result<String, StoreError>;
}
