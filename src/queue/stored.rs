//! A message as the queue holds it, in the types of this crate, and the way to and from the records of `queue-format`.

use std::sync::Arc;

use bytes::Bytes;
use queue_format as format;

pub use format::{DueEntry, RecipientOutcome, RecipientState};

use super::intake::{Granularity, NewBody, NewMessage, Origin, ReturnPath};
use crate::types::{
    BodyKind, Domain, DsnReturn, EmailAddress, Envelope, MessageId, Notify, OriginalRecipient, PoolName, Priority,
    Recipient, ReversePath, SourceName, Timestamp,
};

/// The unit of scheduling: one message and one of its destination domains. `group` indexes the message's domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobKey {
    /// The message.
    pub id: MessageId,
    /// Which of its destination domains.
    pub group: u16,
}

/// A job as the due index knows it.
#[derive(Clone, Debug)]
pub struct DueJob {
    /// The time in its due key; needed to remove it.
    pub due_at: Timestamp,
    /// Which job.
    pub key: JobKey,
    /// Where it goes, and until when.
    pub entry: DueEntry,
}

/// Where the octets of a message are.
#[derive(Clone, Debug)]
pub enum StoredBody {
    /// In memory.
    Inline(Bytes),
    /// In the store, part by part: `Queue::body_part`.
    Parts {
        /// How many.
        parts: u32,
    },
}

/// Header blocks of single recipients, as far as they are in memory: all of them on the way from acceptance to the first
/// attempt, none where the message was read from the store, which has them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct RecipientHeaders(Option<Arc<[Bytes]>>);

impl RecipientHeaders {
    pub(super) fn new(blocks: Vec<Bytes>) -> Self {
        Self((!blocks.is_empty()).then(|| blocks.into()))
    }

    /// That of a recipient, if it is in memory.
    pub fn of(&self, recipient: usize) -> Option<Bytes> {
        self.0.as_ref()?.get(recipient).cloned()
    }

    /// Octets of all that are in memory.
    pub fn bytes(&self) -> usize {
        self.0.iter().flat_map(|blocks| blocks.iter()).map(Bytes::len).sum()
    }
}

/// A message with what became of its recipients so far.
#[derive(Clone, Debug)]
pub struct StoredMessage {
    /// Its id.
    pub id: MessageId,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When it bounces if it was not delivered.
    pub expires_at: Timestamp,
    /// MAIL and RCPT.
    pub envelope: Envelope,
    /// For each recipient, the index of its domain.
    pub groups: Vec<u16>,
    /// The destination domains.
    pub domains: Vec<Domain>,
    /// For each recipient, its state record if it has one.
    pub states: Vec<Option<RecipientState>>,
    /// Octets of the header block.
    pub header_bytes: u32,
    /// Octets in all.
    pub body_bytes: u64,
    /// Parts of a spooled body; 0: inline.
    pub body_parts: u32,
    /// Each recipient has a header block of its own: `Queue::recipient_header`.
    pub recipient_headers: bool,
    /// Whose it is.
    pub origin: Origin,
    /// The `mail` object of its events.
    pub mail_json: Bytes,
}

impl StoredMessage {
    /// The groups that have a pending recipient.
    pub fn open_groups(&self) -> impl Iterator<Item = u16> + '_ {
        let groups = 0..u16::try_from(self.domains.len()).unwrap_or(u16::MAX);
        groups.filter(|group| self.pending(*group).next().is_some())
    }

    /// Indices of the recipients of a group that are still pending.
    pub fn pending(&self, group: u16) -> impl Iterator<Item = usize> + '_ {
        let in_group = self.groups.iter().enumerate().filter(move |(_, of)| **of == group);
        in_group.map(|(index, _)| index).filter(|index| {
            let state = self.states.get(*index).and_then(Option::as_ref);
            state.is_none_or(|state| state.outcome == RecipientOutcome::Pending)
        })
    }

    /// The time in the due key of a group, unless it is held or ended.
    pub fn due_at(&self, group: u16) -> Timestamp {
        let first = self.pending(group).next();
        let state = first.and_then(|index| self.states.get(index)).and_then(Option::as_ref);
        let next_attempt_ms = state.map_or(0, |state| state.next_attempt_ms);
        if next_attempt_ms == 0 { self.accepted_at } else { Timestamp::from_millis(next_attempt_ms) }
    }

    /// Attempts so far of a group that waits.
    pub fn attempts(&self, group: u16) -> u32 {
        let states = self.pending(group).filter_map(|index| self.states.get(index)?.as_ref());
        states.map(|state| state.attempts).max().unwrap_or(0)
    }

    /// Whether no two of its recipients may share a transaction: each has a return path or a header block of its own.
    pub fn sends_each_alone(&self) -> bool {
        let path = self.origin.return_path.as_ref().filter(|_| self.envelope.reverse_path != ReversePath::Null);
        path.is_some_and(|path| path.granularity == Granularity::PerRecipient) || self.recipient_headers
    }

    /// Whether any recipient has a state record.
    pub fn has_states(&self) -> bool {
        self.states.iter().any(Option::is_some)
    }

    /// The message that `new` becomes when it is accepted.
    pub fn from_new(new: &NewMessage) -> Self {
        let mut domains: Vec<Domain> = Vec::new();
        let mut groups = Vec::with_capacity(new.envelope.recipients.len());
        for recipient in &new.envelope.recipients {
            let domain = recipient.address.domain();
            let position = domains.iter().position(|known| known == domain).unwrap_or_else(|| {
                domains.push(domain.clone());
                domains.len() - 1
            });
            groups.push(u16::try_from(position).expect("reception bounds recipients far below 65,536"));
        }
        let (body_bytes, body_parts) = match &new.body {
            NewBody::Inline(bytes) => (bytes.len() as u64, 0),
            NewBody::Spooled { parts, bytes } => (*bytes, *parts),
        };
        let accepted_at = new.id.accepted_at();
        let mut states = vec![None; groups.len()];
        for (index, state) in &new.ended.states {
            let slot = usize::try_from(*index).ok().and_then(|index| states.get_mut(index));
            *slot.expect("only recipients of the message end with it") = Some(state.clone());
        }
        Self {
            id: new.id,
            accepted_at,
            expires_at: accepted_at.plus(new.lifetime),
            states,
            envelope: new.envelope.clone(),
            groups,
            domains,
            header_bytes: new.header_bytes,
            body_bytes,
            body_parts,
            recipient_headers: !new.recipient_headers.is_empty(),
            origin: new.origin.clone(),
            mail_json: new.mail_json.clone(),
        }
    }

    pub(super) fn to_record(&self) -> format::MessageRecord {
        let recipients = self.envelope.recipients.iter().zip(&self.groups).map(|(recipient, group)| {
            let orcpt = recipient.orcpt.as_ref();
            format::RecipientEntry {
                address: recipient.address.as_str().to_owned(),
                domain_index: *group,
                notify: recipient.notify.map(Notify::bits),
                orcpt: orcpt.map(|orcpt| (orcpt.address_type.to_string(), orcpt.address.to_string())),
            }
        });
        let return_path = self.origin.return_path.as_ref();
        format::MessageRecord {
            accepted_at_ms: self.accepted_at.millis(),
            expires_at_ms: self.expires_at.millis(),
            reverse_path: self.envelope.reverse_path.as_str().to_owned(),
            recipients: recipients.collect(),
            domains: self.domains.iter().map(Domain::to_string).collect(),
            eight_bit: self.envelope.body == BodyKind::EightBitMime,
            smtputf8: self.envelope.smtputf8,
            ret: self.envelope.ret.map(|ret| match ret {
                DsnReturn::Full => format::Ret::Full,
                DsnReturn::Headers => format::Ret::Headers,
            }),
            envid: self.envelope.envid.as_ref().map(|envid| envid.to_string()),
            header_bytes: self.header_bytes,
            body_bytes: self.body_bytes,
            body_parts: self.body_parts,
            caller: self.origin.caller.to_string(),
            tenant: self.origin.tenant.to_string(),
            configuration_set: self.origin.configuration_set.to_string(),
            tls_required: self.origin.tls_required,
            identity: self.origin.identity.to_string(),
            return_path_domain: return_path.map_or_else(String::new, |path| path.domain.to_string()),
            return_path_per_message: return_path.is_some_and(|path| path.granularity == Granularity::PerMessage),
            recipient_headers: self.recipient_headers,
            pool: self.origin.pool.to_string(),
            priority: self.origin.priority.code(),
            prefers_warming: self.origin.prefers_warming,
            set_warms_up: self.origin.set_warms_up,
            mail_json: self.mail_json.to_vec(),
        }
    }

    /// The message from its record and the states of its recipients. The error names the field that is not valid.
    pub(super) fn from_record(
        id: MessageId,
        record: format::MessageRecord,
        states: Vec<(u32, RecipientState)>,
    ) -> Result<Self, String> {
        let reverse_path = match record.reverse_path.as_str() {
            "" => ReversePath::Null,
            text => ReversePath::Mailbox(parse_address(text)?),
        };
        let groups = record.recipients.iter().map(|entry| entry.domain_index).collect::<Vec<_>>();
        let recipients = record.recipients.into_iter().map(parse_recipient).collect::<Result<Vec<_>, _>>()?;
        let domains = record.domains.iter().map(|name| parse_domain(name)).collect::<Result<Vec<_>, _>>()?;
        if groups.iter().any(|group| usize::from(*group) >= domains.len()) {
            return Err("a recipient names a domain that is not listed".to_owned());
        }
        let mut by_index = vec![None; recipients.len()];
        for (index, state) in states {
            let slot = usize::try_from(index).ok().and_then(|index| by_index.get_mut(index));
            *slot.ok_or_else(|| format!("state of recipient {index}, which does not exist"))? = Some(state);
        }
        let return_path = match record.return_path_domain.as_str() {
            "" => None,
            name => Some(ReturnPath {
                domain: parse_domain(name)?,
                granularity: if record.return_path_per_message {
                    Granularity::PerMessage
                } else {
                    Granularity::PerRecipient
                },
            }),
        };
        let pool = match record.pool.as_str() {
            "" => PoolName::default(),
            name => PoolName::parse(name).ok_or_else(|| format!("stored pool name {name:?}"))?,
        };
        let ret = record.ret.map(|ret| match ret {
            format::Ret::Full => DsnReturn::Full,
            format::Ret::Headers => DsnReturn::Headers,
        });
        let body = if record.eight_bit { BodyKind::EightBitMime } else { BodyKind::SevenBit };
        let envid = record.envid.map(Into::into);
        Ok(Self {
            id,
            accepted_at: Timestamp::from_millis(record.accepted_at_ms),
            expires_at: Timestamp::from_millis(record.expires_at_ms),
            envelope: Envelope { reverse_path, recipients, body, smtputf8: record.smtputf8, ret, envid },
            groups,
            domains,
            states: by_index,
            header_bytes: record.header_bytes,
            body_bytes: record.body_bytes,
            body_parts: record.body_parts,
            recipient_headers: record.recipient_headers,
            origin: Origin {
                caller: record.caller.into(),
                tenant: record.tenant.into(),
                configuration_set: record.configuration_set.into(),
                tls_required: record.tls_required,
                identity: record.identity.into(),
                return_path,
                pool,
                priority: Priority::from_code(record.priority),
                prefers_warming: record.prefers_warming,
                set_warms_up: record.set_warms_up,
            },
            mail_json: record.mail_json.into(),
        })
    }

    /// The due entry of one of its groups. `source`: the one that it keeps, where it keeps one.
    pub fn due_entry(&self, group: u16, attempts: u32, source: Option<&SourceName>) -> DueEntry {
        let domain = self.domains.get(usize::from(group)).map(Domain::to_string).unwrap_or_default();
        DueEntry {
            domain,
            expires_at_ms: self.expires_at.millis(),
            attempts,
            pool: self.origin.pool.to_string(),
            tenant: self.origin.tenant.to_string(),
            priority: self.origin.priority.code(),
            source: source.map(SourceName::to_string).unwrap_or_default(),
            prefers_warming: self.origin.prefers_warming,
            set: self.origin.warming_set().to_owned(),
        }
    }
}

fn parse_address(text: &str) -> Result<EmailAddress, String> {
    EmailAddress::parse(text, true).map_err(|error| format!("stored address {text:?}: {error}"))
}

fn parse_domain(name: &str) -> Result<Domain, String> {
    Domain::parse(name).map_err(|error| format!("stored domain {name:?}: {error}"))
}

fn parse_recipient(entry: format::RecipientEntry) -> Result<Recipient, String> {
    let orcpt = entry.orcpt.map(|(address_type, address)| OriginalRecipient {
        address_type: address_type.into(),
        address: address.into(),
    });
    Ok(Recipient { address: parse_address(&entry.address)?, notify: entry.notify.and_then(Notify::from_bits), orcpt })
}
