//! Reads what can be read of a damaged queue, and writes it into a fresh store.
//!
//! A message is kept where its record and its whole body can be read. Its due keys are made anew from the states of its
//! recipients; where such a state cannot be read, the group is held, since nobody knows whether it was delivered. What
//! is lost is named. Works on any [`Store`]; where the sources come from is in `recover`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use queue_format as format;

use super::committer::{ENDED_GROUPS_INDEX, meta_put};
use super::store::{Change, Family, Key, Store, StoreError};
use super::stored::{JobKey, RecipientState, StoredMessage};
use super::{history, lanes, list_counts, meta, reputation, sent, source_lives};
use crate::events::EventId;
use crate::types::{MessageId, Timestamp};

/// Records of one read.
const PAGE: usize = 1_024;
/// Octets of one write into the fresh store.
const BATCH_BYTES: usize = 8 << 20;

/// What became of the messages and events of a damaged queue.
#[derive(Clone, Debug, Default)]
pub struct Salvaged {
    /// Messages in the new queue.
    pub messages: u64,
    /// Messages that cannot be kept.
    pub lost: Vec<LostMessage>,
    /// Groups that are held in the new queue, since the state of a recipient cannot be read.
    pub held: Vec<HeldGroup>,
    /// How many more messages the queue counted than were found in any form.
    pub unnamed: u64,
    /// Events that wait for their files, in the new queue.
    pub events: u64,
    /// Events that should wait and cannot be read.
    pub events_lost: u64,
    /// Entries of suppression lists, in the new queue.
    pub suppressions: u64,
    /// What could not be read, in words.
    pub damage: Vec<String>,
}

/// A message that cannot be kept.
#[derive(Clone, Debug)]
pub struct LostMessage {
    /// Its id.
    pub id: MessageId,
    /// Its envelope sender and the recipients that had not ended, where its record can be read.
    pub envelope: Option<(String, Vec<String>)>,
    /// What cannot be read.
    pub reason: String,
}

/// A group whose recipients may have got the message already.
#[derive(Clone, Debug)]
pub struct HeldGroup {
    /// Which.
    pub key: JobKey,
    /// Recipients whose state cannot be read.
    pub recipients: Vec<String>,
}

/// A damaged queue, as several ways to read it show it: the first that answers counts.
pub(super) struct Sources(pub(super) Vec<Source>);

/// One way.
pub(super) struct Source {
    pub(super) name: &'static str,
    pub(super) store: Box<dyn Store>,
    pub(super) families: BTreeSet<Family>,
}

impl Sources {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, String> {
        let mut problem = format!("there is no {} table", family.name());
        for source in self.0.iter().filter(|source| source.families.contains(&family)) {
            match source.store.get(family, key) {
                Ok(value) => return Ok(value),
                Err(error) => problem = error.to_string(),
            }
        }
        Err(problem)
    }

    /// Shows all records of a family that any source can list, some of them maybe twice, and notes what it cannot.
    fn each(&self, family: Family, damage: &mut Vec<String>, mut show: impl FnMut(&[u8], &Bytes)) {
        for source in self.0.iter().filter(|source| source.families.contains(&family)) {
            let Err(error) = list(&*source.store, family, &mut show) else { return };
            damage.push(format!("{} table ({}): {error}", family.name(), source.name));
        }
    }
}

/// Shows records up to the first that cannot be read.
fn list(store: &dyn Store, family: Family, show: &mut impl FnMut(&[u8], &Bytes)) -> Result<(), StoreError> {
    let (mut from, mut limit) = (Vec::new(), PAGE);
    loop {
        match store.scan(family, &from, &[0xff; 40], limit) {
            Ok(page) => {
                page.iter().for_each(|(key, value)| show(key, value));
                let Some((last, _)) = page.last() else { return Ok(()) };
                from.clone_from(last);
                from.push(0);
            }
            // The page ends in damage: one by one up to it.
            Err(_) if limit > 1 => limit = 1,
            Err(error) => return Err(error),
        }
    }
}

/// Fills `fresh`, which is empty. `newest_in_files` is the newest event that a file holds: its id is not used again.
pub(super) fn salvage(
    sources: &Sources,
    fresh: &dyn Store,
    newest_in_files: EventId,
    now: Timestamp,
) -> Result<Salvaged, StoreError> {
    let mut salvage =
        Salvage { sources, fresh, now, changes: Vec::new(), bytes: 0, jobs: 0, found: Salvaged::default() };
    let holds = salvage.holds();
    for id in salvage.ids() {
        salvage.message(id, &holds)?;
    }
    salvage.events(newest_in_files)?;
    salvage.counters()?;
    salvage.each_or_forget(Family::Lane, "a lane", |key, value| lanes::decode(key, value).map(drop))?;
    salvage.each_or_forget(Family::Source, "the life of a source", |key, value| {
        source_lives::decode(key, value).map(drop)
    })?;
    salvage
        .each_or_forget(Family::Reputation, "a reputation", |key, value| reputation::decode(key, value).map(drop))?;
    salvage.each_in_batches(Family::History, "rows", |key, value| history::decode(key, value).map(drop))?;
    salvage.each_in_batches(Family::Sent, "records", sent::check)?;
    salvage.suppression()?;
    salvage.finish()
}

type Holds = HashMap<([u8; MessageId::BYTES], u16), Bytes>;

struct Salvage<'a> {
    sources: &'a Sources,
    fresh: &'a dyn Store,
    now: Timestamp,
    changes: Vec<Change>,
    bytes: usize,
    jobs: u64,
    found: Salvaged,
}

/// A message of which all that is needed was read.
struct Whole {
    message: StoredMessage,
    record: Bytes,
    bodies: Vec<Change>,
    states: Vec<(u32, Bytes)>,
    /// Recipients whose state cannot be read.
    unknown: BTreeSet<usize>,
    ended: Bytes,
}

impl Salvage<'_> {
    /// Every message of which anything is left, but for bodies that were never accepted.
    fn ids(&mut self) -> BTreeSet<[u8; MessageId::BYTES]> {
        let mut ids = BTreeSet::new();
        for family in [Family::Message, Family::Body, Family::Recipient, Family::Hold] {
            self.sources.each(family, &mut self.found.damage, |key, _| ids.extend(key.first_chunk()));
        }
        self.sources.each(Family::Due, &mut self.found.damage, |key, _| {
            ids.extend(format::parse_due_key(key).map(|(_, id, _)| id));
        });
        ids
    }

    fn holds(&mut self) -> Holds {
        let mut holds = Holds::new();
        // What cannot be listed is noted by `ids`.
        self.sources.each(Family::Hold, &mut Vec::new(), |key, value| {
            holds.extend(format::parse_hold_key(key).map(|place| (place, value.clone())));
        });
        holds
    }

    fn message(&mut self, id: [u8; MessageId::BYTES], holds: &Holds) -> Result<(), StoreError> {
        let id = MessageId::from_bytes(id);
        match self.read(id) {
            Ok(whole) => self.keep(whole, holds),
            Err(Lost { envelope, reason }) => {
                self.found.lost.push(LostMessage { id, envelope, reason });
                Ok(())
            }
        }
    }

    fn read(&self, id: MessageId) -> Result<Whole, Lost> {
        let key = id.as_bytes();
        let unknown = |what: &str| Lost { envelope: None, reason: format!("its record: {what}") };
        let record = self.sources.get(Family::Message, key).map_err(|error| unknown(&error))?;
        let record = record.ok_or_else(|| unknown("it is missing"))?;
        let decoded = format::MessageRecord::decode(&record).map_err(|error| unknown(&error.to_string()))?;
        let parts = decoded.body_parts;
        let (mut states, mut decoded_states, mut unknown_states) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (index, place) in (0_u32..).zip(0..decoded.recipients.len()) {
            let state = self.sources.get(Family::Recipient, &format::recipient_key(key, index));
            match state.map(|state| state.map(|bytes| (RecipientState::decode(&bytes), bytes))) {
                Ok(None) => {}
                Ok(Some((Ok(state), bytes))) => {
                    states.push((index, bytes));
                    decoded_states.push((index, state));
                }
                Ok(Some((Err(_), _))) | Err(_) => {
                    unknown_states.insert(place);
                }
            }
        }
        let message = StoredMessage::from_record(id, decoded, decoded_states).map_err(|error| unknown(&error))?;
        let ended = self.sources.get(Family::Recipient, &format::recipient_key(key, ENDED_GROUPS_INDEX));
        let ended = ended.ok().flatten().unwrap_or_default();
        let lost = |reason| Lost::of(&message, &ended, reason);
        let mut bodies = self.bodies(id, parts).map_err(lost)?;
        if message.recipient_headers {
            bodies.extend(self.recipient_headers(&message, &ended).map_err(lost)?);
        }
        Ok(Whole { message, record, bodies, states, unknown: unknown_states, ended })
    }

    fn bodies(&self, id: MessageId, parts: u32) -> Result<Vec<Change>, String> {
        let read = |family: Family, key: Key| -> Result<Change, String> {
            let value = self.sources.get(family, key.as_ref())?.ok_or("it is missing")?;
            format::decode_body(&value).map_err(|error| error.to_string())?;
            Ok(Change::Put { family, key, value })
        };
        if parts == 0 {
            let body = read(Family::Body, Key::new(id.as_bytes()));
            return body.map(|body| vec![body]).map_err(|error| format!("its body: {error}"));
        }
        let part = |part| {
            let key = Key::new(&format::body_part_key(id.as_bytes(), part));
            read(Family::BodyPart, key).map_err(|error| format!("part {part} of its body: {error}"))
        };
        (0..parts).map(part).collect()
    }

    /// The header blocks of the recipients. Of one that has ended, nobody needs it.
    fn recipient_headers(&self, message: &StoredMessage, ended: &[u8]) -> Result<Vec<Change>, String> {
        let id = message.id.as_bytes();
        let groups = 0..u16::try_from(message.domains.len()).unwrap_or(u16::MAX);
        let open = groups.filter(|group| !has_ended(ended, *group));
        let pending: BTreeSet<usize> = open.flat_map(|group| message.pending(group)).collect();
        let block = |(index, place): (u32, usize)| -> Result<Change, String> {
            let key = format::recipient_header_key(id, index);
            let value = self.sources.get(Family::Body, &key).and_then(|value| value.ok_or("it is missing".to_owned()));
            let sound = value.and_then(|value| match format::decode_body(&value) {
                Ok(_) => Ok(value),
                Err(error) => Err(error.to_string()),
            });
            let value = match sound {
                Err(error) if pending.contains(&place) => {
                    return Err(format!("the header block of recipient {index}: {error}"));
                }
                Err(_) => {
                    let mut empty = Vec::new();
                    format::encode_body(&[], &mut empty);
                    empty.into()
                }
                Ok(value) => value,
            };
            Ok(Change::Put { family: Family::Body, key: Key::new(&key), value })
        };
        (0_u32..).zip(0..message.envelope.recipients.len()).map(block).collect()
    }

    fn keep(&mut self, whole: Whole, holds: &Holds) -> Result<(), StoreError> {
        let Whole { message, record, bodies, states, unknown, ended } = whole;
        let id = message.id.as_bytes();
        let groups = 0..u16::try_from(message.domains.len()).unwrap_or(u16::MAX);
        let is_open = |group: &u16| !has_ended(&ended, *group) && message.pending(*group).next().is_some();
        let (open, closed): (Vec<u16>, Vec<u16>) = groups.partition(is_open);
        if open.is_empty() {
            return Ok(());
        }
        self.put(Family::Message, id, record);
        self.changes.extend(bodies.into_iter().inspect(|change| self.bytes += change_bytes(change)));
        for (index, bytes) in states {
            self.put(Family::Recipient, &format::recipient_key(id, index), bytes);
        }
        if !closed.is_empty() {
            self.put(Family::Recipient, &format::recipient_key(id, ENDED_GROUPS_INDEX), ended_set(&message, &closed));
        }
        for group in open {
            self.place(&message, group, &unknown, holds.get(&(*id, group)));
        }
        self.found.messages += 1;
        if self.bytes >= BATCH_BYTES { self.write(false) } else { Ok(()) }
    }

    /// Makes a group due, or held, as it was.
    fn place(&mut self, message: &StoredMessage, group: u16, unknown: &BTreeSet<usize>, hold: Option<&Bytes>) {
        let key = JobKey { id: message.id, group };
        let due = message.due_entry(group, message.attempts(group), None);
        let due_at_ms = message.due_at(group).millis();
        self.jobs += 1;
        let in_doubt: Vec<String> = message
            .pending(group)
            .filter(|index| unknown.contains(index))
            .filter_map(|index| message.envelope.recipients.get(index))
            .map(|recipient| recipient.address.to_string())
            .collect();
        let old = hold.map(|bytes| format::HoldEntry::decode(bytes));
        let reason = match (&old, in_doubt.is_empty()) {
            (_, false) => format!(
                "queue recover: the state of {} cannot be read, it may have been delivered: release sends it, cancel ends it",
                in_doubt.join(", ")
            ),
            (Some(Ok(old)), true) => old.reason.clone(),
            (Some(Err(error)), true) => format!("the record of this hold is damaged: {error}"),
            (None, true) => {
                let mut value = Vec::new();
                due.encode(&mut value);
                let key = format::due_key(due_at_ms, message.id.as_bytes(), group);
                return self.put(Family::Due, &key, value.into());
            }
        };
        let held_at_ms = old.and_then(Result::ok).map_or(self.now.millis(), |old| old.held_at_ms);
        let mut value = Vec::new();
        format::HoldEntry { due, due_at_ms, held_at_ms, reason }.encode(&mut value);
        self.put(Family::Hold, &format::hold_key(message.id.as_bytes(), group), value.into());
        if !in_doubt.is_empty() {
            self.found.held.push(HeldGroup { key, recipients: in_doubt });
        }
    }

    fn events(&mut self, newest_in_files: EventId) -> Result<(), StoreError> {
        let mut events = BTreeMap::new();
        let consumed = self.number(meta::EVENTS_CONSUMED);
        let is_waiting = |id: u64| consumed.is_none_or(|consumed| id > consumed);
        self.sources.each(Family::Outbox, &mut self.found.damage, |key, value| {
            if let Some(id) = format::parse_outbox_key(key).filter(|id| is_waiting(*id)) {
                events.entry(id).or_insert_with(|| value.clone());
            }
        });
        // Where the position is lost, it is before the first that is left.
        let first = events.keys().next().copied();
        let consumed = consumed.or(first.map(|first| first - 1)).unwrap_or(newest_in_files.value());
        let newest = events.keys().next_back().copied().unwrap_or(consumed).max(newest_in_files.value());
        for (id, value) in &events {
            if format::OutboxRecordRef::decode(value).is_ok() {
                self.found.events += 1;
                self.put(Family::Outbox, &format::outbox_key(*id), value.clone());
            }
            if self.bytes >= BATCH_BYTES {
                self.write(false)?;
            }
        }
        // What the files hold needs no record; an estimate, since a file may hold only some kinds.
        let known = newest_in_files.value().max(consumed);
        let readable =
            events.iter().filter(|(id, value)| **id > known && format::OutboxRecordRef::decode(value).is_ok());
        self.found.events_lost = newest.saturating_sub(known).saturating_sub(readable.count() as u64);
        self.changes.push(meta_put(meta::EVENTS_CONSUMED, consumed));
        self.changes.push(meta_put(meta::EVENTS_FLOOR, newest));
        Ok(())
    }

    /// What was charged to quotas, and marked for reputation; a record that cannot be read counts no more.
    fn counters(&mut self) -> Result<(), StoreError> {
        let (mut kept, mut damage) = (BTreeMap::new(), Vec::new());
        self.sources.each(Family::Counter, &mut damage, |key, value| {
            if kept.get(key).is_none_or(|kept: &Bytes| format::decode_counter(kept).is_err()) {
                kept.insert(key.to_vec(), value.clone());
            }
        });
        for (key, value) in kept {
            match format::decode_counter(&value) {
                Ok(_) => self.put(Family::Counter, &key, value),
                Err(error) => damage.push(format!("a counter, whose recipients count no more: {error}")),
            }
            if self.bytes >= BATCH_BYTES {
                self.write(false)?;
            }
        }
        self.found.damage.extend(damage);
        Ok(())
    }

    /// What is kept of lanes or sources; a record that cannot be read is forgotten.
    fn each_or_forget(
        &mut self,
        family: Family,
        what: &str,
        check: impl Fn(&[u8], &[u8]) -> Result<(), String>,
    ) -> Result<(), StoreError> {
        let (mut kept, mut damage) = (BTreeMap::new(), Vec::new());
        self.sources.each(family, &mut damage, |key, value| {
            if !matches!(kept.get(key), Some(Ok(_))) {
                kept.insert(key.to_vec(), check(key, value).map(|()| value.clone()));
            }
        });
        for (key, value) in kept {
            match value {
                Ok(value) => self.put(family, &key, value),
                Err(error) => damage.push(format!("{what}, of which nothing is known any more: {error}")),
            }
            if self.bytes >= BATCH_BYTES {
                self.write(false)?;
            }
        }
        self.found.damage.extend(damage);
        Ok(())
    }

    /// Records of a family where they can be read. There may be millions: none stays in memory but those of one batch.
    fn each_in_batches(
        &mut self,
        family: Family,
        noun: &str,
        check: impl Fn(&[u8], &[u8]) -> Result<(), String>,
    ) -> Result<(), StoreError> {
        self.write(false)?;
        let (sources, fresh) = (self.sources, self.fresh);
        let (mut damage, mut failed) = (Vec::new(), None);
        let (mut unreadable, mut pending, mut bytes) = (BTreeSet::new(), BTreeMap::new(), 0);
        // The last record of the first source that goes as far: what lies behind it is new.
        let mut newest: Vec<u8> = Vec::new();
        sources.each(family, &mut damage, |key, value| {
            if failed.is_some() || (key <= newest.as_slice() && is_there(family, key, &pending, fresh)) {
                return;
            }
            if check(key, value).is_err() {
                unreadable.insert(key.to_vec());
                return;
            }
            unreadable.remove(key);
            if key > newest.as_slice() {
                newest = key.to_vec();
            }
            let change = Change::Put { family, key: Key::new(key), value: value.clone() };
            bytes += change_bytes(&change);
            pending.insert(key.to_vec(), change);
            if bytes >= BATCH_BYTES {
                bytes = 0;
                failed = write_all(fresh, &mut pending).err();
            }
        });
        match failed {
            Some(error) => return Err(error),
            None => write_all(fresh, &mut pending)?,
        }
        if !unreadable.is_empty() {
            damage.push(format!("{} table: {} {noun} cannot be read", family.name(), unreadable.len()));
        }
        self.found.damage.extend(damage);
        Ok(())
    }

    /// Entries of suppression lists where they can be read; the numbers of entries are counted anew.
    fn suppression(&mut self) -> Result<(), StoreError> {
        let mut damage = Vec::new();
        let (sources, fresh) = (self.sources, self.fresh);
        let (mut unreadable, mut failed) = (0_u64, None);
        let (mut changes, mut bytes) = (Vec::new(), 0);
        sources.each(Family::Suppression, &mut damage, |key, value| {
            if format::parse_suppression_key(key).is_none() || failed.is_some() {
                return;
            }
            if format::SuppressionRecord::decode(value).is_err() {
                unreadable += 1;
                return;
            }
            let change = Change::Put { family: Family::Suppression, key: Key::new(key), value: value.clone() };
            bytes += change_bytes(&change);
            changes.push(change);
            if bytes >= BATCH_BYTES {
                bytes = 0;
                failed = fresh.write(&std::mem::take(&mut changes), false).err();
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        fresh.write(&changes, false)?;
        if unreadable > 0 {
            damage.push(format!("suppression table: {unreadable} entries cannot be read"));
        }
        self.found.damage.extend(damage);
        let (lists, entries) = list_counts::lists(fresh)?;
        self.found.suppressions = entries;
        self.changes.extend(lists.iter().map(|(list, count)| list_counts::count_change(list, *count)));
        Ok(())
    }

    fn number(&self, name: &str) -> Option<u64> {
        let bytes = self.sources.get(Family::Meta, name.as_bytes()).ok()??;
        format::decode_meta_number(&bytes).ok()
    }

    fn finish(mut self) -> Result<Salvaged, StoreError> {
        let counted = self.number(meta::MESSAGES).unwrap_or(0);
        self.found.unnamed = counted.saturating_sub(self.found.messages + self.found.lost.len() as u64);
        self.changes.push(meta_put(meta::FORMAT, u64::from(format::FORMAT_VERSION)));
        self.changes.push(meta_put(meta::MESSAGES, self.found.messages));
        self.changes.push(meta_put(meta::JOBS, self.jobs));
        self.write(true)?;
        self.found.damage.sort();
        self.found.damage.dedup();
        Ok(self.found)
    }

    fn put(&mut self, family: Family, key: &[u8], value: Bytes) {
        let change = Change::Put { family, key: Key::new(key), value };
        self.bytes += change_bytes(&change);
        self.changes.push(change);
    }

    fn write(&mut self, sync: bool) -> Result<(), StoreError> {
        self.bytes = 0;
        self.fresh.write(&std::mem::take(&mut self.changes), sync)
    }
}

type Pending = BTreeMap<Vec<u8>, Change>;

/// Whether another source gave this record already.
fn is_there(family: Family, key: &[u8], pending: &Pending, fresh: &dyn Store) -> bool {
    pending.contains_key(key) || matches!(fresh.get(family, key), Ok(Some(_)))
}

fn write_all(fresh: &dyn Store, pending: &mut Pending) -> Result<(), StoreError> {
    let changes: Vec<Change> = std::mem::take(pending).into_values().collect();
    fresh.write(&changes, false)
}

/// Why a message cannot be kept.
struct Lost {
    envelope: Option<(String, Vec<String>)>,
    reason: String,
}

impl Lost {
    fn of(message: &StoredMessage, ended: &[u8], reason: String) -> Self {
        let groups = 0..u16::try_from(message.domains.len()).unwrap_or(u16::MAX);
        let pending = groups.filter(|group| !has_ended(ended, *group)).flat_map(|group| message.pending(group));
        let addresses = pending.filter_map(|index| message.envelope.recipients.get(index));
        let addresses = addresses.map(|recipient| recipient.address.to_string()).collect();
        Self { envelope: Some((message.envelope.reverse_path.as_str().to_owned(), addresses)), reason }
    }
}

fn change_bytes(change: &Change) -> usize {
    if let Change::Put { value, .. } = change { value.len() + 64 } else { 64 }
}

fn has_ended(ended: &[u8], group: u16) -> bool {
    ended.get(usize::from(group / 8)).is_some_and(|byte| byte >> (group % 8) & 1 == 1)
}

fn ended_set(message: &StoredMessage, closed: &[u16]) -> Bytes {
    let mut ended = vec![0_u8; message.domains.len().div_ceil(8)];
    for group in closed {
        if let Some(byte) = ended.get_mut(usize::from(group / 8)) {
            *byte |= 1 << (group % 8);
        }
    }
    ended.into()
}
