//! Suppression lists: addresses that mail is held back from. One global list, one for each tenant, one for each
//! configuration set.
//!
//! An entry's key begins with its list and ends with a hash of the address, so that a lookup of an address that is on no
//! list is a question to a Bloom filter, and a list is one range of keys. Addresses are compared with the domain as
//! A-labels in lower case and the ASCII letters of the local part in lower case. Promises: what [`Queue::suppress`] wrote
//! survives a power cut when it returns; whoever asks after that finds it; the number of entries of each list is kept by
//! the batches that change it. Where all lists are empty, a lookup costs one read of memory. Does not: decide which
//! entries hold mail back (`admission::suppression`).

use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use queue_format as format;

use super::committer::{Completion, Transaction};
use super::intake::AcceptError;
use super::list_counts::{ListChanges, damaged, read_raw};
use super::store::{Family, StoreError, StoreErrorKind};
use super::{LoadError, Queue};
use crate::net::BoxFuture;
use crate::types::{EmailAddress, MessageId, Suppressed, SuppressionReason, SuppressionTier, Timestamp};

/// Entries that one batch writes: more would hold up the mail behind it.
const BATCH_ENTRIES_MAX: usize = 512;
/// Octets of [`SuppressionEntry::origin`]; what is longer is cut.
const ORIGIN_BYTES_MAX: usize = 200;
/// As the records have them.
const REASON_CODES: [(u8, SuppressionReason); 3] =
    [(1, SuppressionReason::Bounce), (2, SuppressionReason::Complaint), (3, SuppressionReason::Unsubscribe)];

pub(super) type ListKey = [u8; format::SUPPRESSION_LIST_BYTES];
pub(super) type EntryKey = [u8; format::SUPPRESSION_KEY_BYTES];

/// Which list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SuppressionList {
    /// The operator's.
    Global,
    /// That of the tenant of this name.
    Tenant(Box<str>),
    /// That of the configuration set of this name.
    Set(Box<str>),
}

impl SuppressionList {
    /// Whose list it is.
    pub fn tier(&self) -> SuppressionTier {
        match self {
            SuppressionList::Global => SuppressionTier::Global,
            SuppressionList::Tenant(_) => SuppressionTier::Tenant,
            SuppressionList::Set(_) => SuppressionTier::Set,
        }
    }

    /// The owner's name; empty for the global list.
    pub fn owner(&self) -> &str {
        match self {
            SuppressionList::Global => "",
            SuppressionList::Tenant(name) | SuppressionList::Set(name) => name,
        }
    }

    fn key(&self) -> ListKey {
        list_key(self.tier(), self.owner())
    }

    /// What puts an address on it.
    pub(super) fn change(&self, entry: &SuppressionEntry) -> (EntryKey, Option<Bytes>) {
        (format::suppression_key(&self.key(), &address_hash(&entry.address)), Some(encode(self, entry)))
    }
}

/// An address on a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuppressionEntry {
    /// As it was given.
    pub address: EmailAddress,
    /// Why it is on the list.
    pub reason: SuppressionReason,
    /// When that was last said.
    pub updated_at: Timestamp,
    /// By whom or what, in words.
    pub origin: String,
}

impl SuppressionEntry {
    /// What puts an address on its tenant's list by itself. `told`: by what, a bounce or a complaint of that message.
    pub fn of_tenant(
        tenant: &str,
        address: &EmailAddress,
        reason: SuppressionReason,
        (told, message): (&str, MessageId),
        now: Timestamp,
    ) -> (SuppressionList, SuppressionEntry) {
        let entry = Self::told(address, reason, &format!("{told} of message {message}"), now);
        (SuppressionList::Tenant(tenant.into()), entry)
    }

    /// What puts an address on its configuration set's list: whoever owns it wants no more of the kind of this message.
    pub fn of_set(
        set: &str,
        address: &EmailAddress,
        message: MessageId,
        now: Timestamp,
    ) -> (SuppressionList, SuppressionEntry) {
        let entry =
            Self::told(address, SuppressionReason::Unsubscribe, &format!("unsubscribed by message {message}"), now);
        (SuppressionList::Set(set.into()), entry)
    }

    fn told(address: &EmailAddress, reason: SuppressionReason, origin: &str, now: Timestamp) -> SuppressionEntry {
        SuppressionEntry { address: address.clone(), reason, updated_at: now, origin: origin.to_owned() }
    }
}

/// What a change came to, in entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SuppressionEffect {
    /// New on the list.
    pub added: u64,
    /// Were on it with another reason, time or origin.
    pub changed: u64,
    /// Were on it just so.
    pub unchanged: u64,
    /// Are not on it any more.
    pub removed: u64,
}

impl SuppressionEffect {
    /// Adds another to it.
    pub fn add(&mut self, other: SuppressionEffect) {
        self.added += other.added;
        self.changed += other.changed;
        self.unchanged += other.unchanged;
        self.removed += other.removed;
    }
}

/// The lists on which an address was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// The global list.
    pub global: Option<SuppressionReason>,
    /// The tenant's.
    pub tenant: Option<SuppressionReason>,
    /// The configuration set's.
    pub set: Option<SuppressionReason>,
}

/// Which recipients mail is held back from. Asked at acceptance and before each attempt.
pub trait SuppressionCheck: Send + Sync + 'static {
    /// Nobody can be held back now: there is no need to ask.
    fn is_idle(&self) -> bool;

    /// Positions in `addresses` of those that are held back, rising. An error means that the store does not answer.
    fn check<'a>(
        &'a self,
        tenant: &'a str,
        set: Option<&'a str>,
        addresses: &'a [&'a EmailAddress],
    ) -> BoxFuture<'a, Result<Vec<(usize, Suppressed)>, StoreError>>;
}

fn list_key(tier: SuppressionTier, owner: &str) -> ListKey {
    let mut key = [0; format::SUPPRESSION_LIST_BYTES];
    let (first, hash) = key.split_at_mut(1);
    first.copy_from_slice(&[tier as u8]);
    if tier != SuppressionTier::Global {
        hash.iter_mut().zip(digest(&SHA256, owner.as_bytes()).as_ref()).for_each(|(to, from)| *to = *from);
    }
    key
}

/// The hash of an address as lists compare it.
pub(super) fn address_hash(address: &EmailAddress) -> [u8; format::SUPPRESSION_ADDRESS_BYTES] {
    let mut text = address.local_part().to_ascii_lowercase();
    text.push('@');
    text.push_str(address.domain().as_str());
    let mut hash = [0; format::SUPPRESSION_ADDRESS_BYTES];
    hash.iter_mut().zip(digest(&SHA256, text.as_bytes()).as_ref()).for_each(|(to, from)| *to = *from);
    hash
}

fn encode(list: &SuppressionList, entry: &SuppressionEntry) -> Bytes {
    let origin = entry.origin.get(..entry.origin.floor_char_boundary(ORIGIN_BYTES_MAX)).unwrap_or_default();
    let code = REASON_CODES.iter().find(|(_, reason)| *reason == entry.reason).map_or(0, |(code, _)| *code);
    let record = format::SuppressionRecord {
        reason: code,
        updated_at_ms: entry.updated_at.millis(),
        scope: list.owner().to_owned(),
        address: entry.address.to_string(),
        origin: origin.to_owned(),
    };
    let mut value = Vec::new();
    record.encode(&mut value);
    value.into()
}

pub(super) fn decode(value: &[u8]) -> Result<SuppressionEntry, String> {
    let record = format::SuppressionRecord::decode(value).map_err(|error| error.to_string())?;
    let reason = REASON_CODES.iter().find(|(code, _)| *code == record.reason).map(|(_, reason)| *reason);
    let reason = reason.ok_or_else(|| format!("suppression record: unknown reason {}", record.reason))?;
    let address = EmailAddress::parse(&record.address, true)
        .map_err(|error| format!("suppression record: address {:?}: {error}", record.address))?;
    let updated_at = Timestamp::from_millis(record.updated_at_ms);
    Ok(SuppressionEntry { address, reason, updated_at, origin: record.origin })
}

/// A question that the filter did not answer with no.
struct Candidate {
    position: usize,
    tier: SuppressionTier,
    key: EntryKey,
}

impl Queue {
    /// Whether any list has an entry: where none has, nothing else need be asked.
    pub fn has_suppressions(&self) -> bool {
        !self.0.lists.is_empty()
    }

    /// Entries of a list.
    pub fn suppression_count(&self, list: &SuppressionList) -> u64 {
        self.0.lists.of(&list.key())
    }

    /// Entries of all lists of each tier, in the order of [`SuppressionTier::ALL`].
    pub fn suppression_totals(&self) -> [u64; 3] {
        self.0.lists.totals()
    }

    /// Puts addresses on a list, or changes what stands there. Synced when it returns. Written in batches of
    /// `BATCH_ENTRIES_MAX`, so that mail is not held up: after an error some may be on the list, and doing it again does
    /// no harm.
    pub async fn suppress(
        &self,
        list: &SuppressionList,
        entries: &[SuppressionEntry],
    ) -> Result<SuppressionEffect, AcceptError> {
        let mut sum = SuppressionEffect::default();
        let list_key = list.key();
        let batches = entries.chunks(BATCH_ENTRIES_MAX);
        let last = batches.len();
        for (number, batch) in (1..).zip(batches) {
            let changes = batch.iter().map(|entry| {
                let key = format::suppression_key(&list_key, &address_hash(&entry.address));
                (key, Some(encode(list, entry)))
            });
            sum.add(self.change_lists(changes.collect(), number == last).await?);
        }
        Ok(sum)
    }

    /// Takes an address off a list. Returns whether it was there. Synced when it returns.
    pub async fn unsuppress(&self, list: &SuppressionList, address: &EmailAddress) -> Result<bool, AcceptError> {
        let key = format::suppression_key(&list.key(), &address_hash(address));
        Ok(self.change_lists(vec![(key, None)], true).await?.removed > 0)
    }

    async fn change_lists(
        &self,
        changes: Vec<(EntryKey, Option<Bytes>)>,
        sync: bool,
    ) -> Result<SuppressionEffect, AcceptError> {
        let keys: Vec<EntryKey> = changes.iter().map(|(key, _)| *key).collect();
        // What stands there comes into memory here, so that the committer, which asks again, need not wait for the disk.
        let warmed = self.reading(move |queue| keys.iter().for_each(|key| drop(read_raw(&*queue.0.store, key)))).await;
        warmed.map_err(|error| AcceptError::NotDurable(error.to_string()))?;
        let effect = Arc::new(RwLock::new(SuppressionEffect::default()));
        let lists = Some(Box::new(ListChanges { changes, effect: Arc::clone(&effect) }));
        let (reply, answer) = tokio::sync::oneshot::channel();
        let done: Completion = Box::new(move |result| {
            let _ = reply.send(result.map_err(|error| AcceptError::NotDurable(error.to_string())));
        });
        self.submit(Transaction { lists, sync, may_fail: true, done, ..Transaction::empty() }).await;
        answer.await.unwrap_or(Err(AcceptError::Closed))?;
        let effect = *effect.read().unwrap_or_else(PoisonError::into_inner);
        Ok(effect)
    }

    /// What stands on a list for an address. Blocks.
    pub fn suppression(
        &self,
        list: &SuppressionList,
        address: &EmailAddress,
    ) -> Result<Option<SuppressionEntry>, LoadError> {
        let key = format::suppression_key(&list.key(), &address_hash(address));
        let Some(value) = self.0.store.get(Family::Suppression, &key)? else { return Ok(None) };
        decode(&value).map(Some).map_err(LoadError::Damaged)
    }

    /// Up to `limit` entries of a list behind that of `after`, in the order of their hashes. A damaged one is logged and
    /// left out. `None` beside them: there are no more. Blocks.
    pub fn suppressions(
        &self,
        list: &SuppressionList,
        after: Option<&EmailAddress>,
        limit: usize,
    ) -> Result<(Vec<SuppressionEntry>, bool), StoreError> {
        let list = list.key();
        let (first, end) = format::suppression_range(&list);
        let mut from = first.to_vec();
        if let Some(after) = after {
            from = format::suppression_key(&list, &address_hash(after)).to_vec();
            from.push(0);
        }
        let mut entries = Vec::new();
        while entries.len() < limit {
            let wanted = limit - entries.len();
            let records = self.0.store.scan(Family::Suppression, &from, &end, wanted)?;
            if let Some((last, _)) = records.last() {
                from.clone_from(last);
                from.push(0);
            }
            let is_end = records.len() < wanted;
            for (_, value) in records {
                match decode(&value) {
                    Ok(entry) => entries.push(entry),
                    Err(problem) => damaged(&problem),
                }
            }
            if is_end {
                return Ok((entries, false));
            }
        }
        Ok((entries, true))
    }

    /// The lists on which addresses stand; only those that are on one, by their position. Where the filters say no, this
    /// reads memory only; else it reads on a thread that may block.
    pub async fn listed(
        &self,
        tenant: &str,
        set: Option<&str>,
        addresses: &[&EmailAddress],
    ) -> Result<Vec<(usize, Listed)>, StoreError> {
        let candidates = self.candidates(tenant, set, addresses);
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        let read = self.reading(move |queue| queue.look_up(&candidates)).await;
        read.unwrap_or_else(|error| Err(StoreError::new(StoreErrorKind::Failed, error.to_string())))
    }

    fn candidates(&self, tenant: &str, set: Option<&str>, addresses: &[&EmailAddress]) -> Vec<Candidate> {
        if self.0.lists.is_empty() {
            return Vec::new();
        }
        let owners =
            [(SuppressionTier::Global, Some("")), (SuppressionTier::Tenant, Some(tenant)), (SuppressionTier::Set, set)];
        let lists = owners.into_iter().filter_map(|(tier, owner)| Some((tier, list_key(tier, owner?))));
        let lists: Vec<_> = lists.filter(|(_, list)| self.0.lists.of(list) > 0).collect();
        let mut candidates = Vec::new();
        if lists.is_empty() {
            return candidates;
        }
        for (position, address) in addresses.iter().enumerate() {
            let hash = address_hash(address);
            for (tier, list) in &lists {
                let key = format::suppression_key(list, &hash);
                if self.0.store.may_contain(Family::Suppression, &key) {
                    candidates.push(Candidate { position, tier: *tier, key });
                }
            }
        }
        candidates
    }

    fn look_up(&self, candidates: &[Candidate]) -> Result<Vec<(usize, Listed)>, StoreError> {
        let mut found: Vec<(usize, Listed)> = Vec::new();
        for Candidate { position, tier, key } in candidates {
            let Some(value) = read_raw(&*self.0.store, key)? else { continue };
            // That the address is on the list is certain even where the record is damaged.
            let reason = decode(&value).map_or_else(
                |problem| {
                    damaged(&problem);
                    SuppressionReason::Bounce
                },
                |entry| entry.reason,
            );
            if found.last().is_none_or(|(last, _)| last != position) {
                found.push((*position, Listed::default()));
            }
            if let Some((_, listed)) = found.last_mut() {
                match tier {
                    SuppressionTier::Global => listed.global = Some(reason),
                    SuppressionTier::Tenant => listed.tenant = Some(reason),
                    SuppressionTier::Set => listed.set = Some(reason),
                }
            }
        }
        Ok(found)
    }
}
