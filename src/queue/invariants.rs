//! What must hold of a queue at rest, written once: tests, recovery drills and simulation ask the same function.
//!
//! The names are those of docs/QUEUE.md.

use std::collections::BTreeMap;

use queue_format as format;

use super::committer::ENDED_GROUPS_INDEX;
use super::meta;
use super::store::{Family, Record, Store, StoreError};
use crate::types::Mark;

/// Records read at once.
const PAGE: usize = 4_096;

/// Reads the whole store and returns a sentence for each violation. Blocks; for a store that nobody writes.
pub fn violations(store: &dyn Store) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    let places = places(store, &mut found)?;
    let mut messages = 0_u64;
    let mut known = BTreeMap::new();
    for (key, value) in all(store, Family::Message)? {
        messages += 1;
        let Ok(id) = <[u8; 22]>::try_from(key.as_slice()) else {
            found.push(format!("KEY: message key {key:02x?} is not an id"));
            continue;
        };
        known.insert(id, None);
        match format::MessageRecord::decode(&value) {
            Err(error) => found.push(format!("RECORD: message {id:02x?}: {error}")),
            Ok(record) => {
                check_message(store, &id, &record, places.get(&id), &mut found)?;
                let headers = if record.recipient_headers { record.recipients.len() } else { 0 };
                known.insert(id, Some((record.body_parts, headers)));
            }
        }
    }
    for id in places.keys().filter(|id| !known.contains_key(*id)) {
        found.push(format!("ORPHAN: {id:02x?} is due or held, but there is no message"));
    }
    for family in [Family::Body, Family::BodyPart, Family::Recipient] {
        for (key, _) in all(store, family)? {
            let message = key.first_chunk::<22>().and_then(|id| known.get(id));
            if message.is_none() {
                found.push(format!("LEFTOVER: {} {key:02x?} has no message", family.name()));
            }
            if let Some(Some((parts, headers))) = message
                && !is_of_message(family, &key, *parts, *headers)
            {
                found.push(format!("LEFTOVER: {} {key:02x?} is none of its message", family.name()));
            }
        }
    }
    check_counter(store, meta::MESSAGES, messages, &mut found)?;
    let jobs = places.values().flat_map(BTreeMap::values).sum::<usize>() as u64;
    check_counter(store, meta::JOBS, jobs, &mut found)?;
    check_outbox(store, &mut found)?;
    check_charges(store, &mut found)?;
    found.extend(super::lanes::violations(store)?.iter().map(|violation| format!("LANE: {violation}")));
    found.extend(super::history::violations(store)?.iter().map(|violation| format!("HISTORY: {violation}")));
    found.extend(super::source_lives::violations(store)?.iter().map(|violation| format!("SOURCE: {violation}")));
    found.extend(super::sent::violations(store)?.iter().map(|violation| format!("SENT: {violation}")));
    found.extend(super::reputation::violations(store)?.iter().map(|violation| format!("REPUTATION: {violation}")));
    let mut lists = Vec::new();
    super::list_counts::violations(store, &mut lists)?;
    found.extend(lists.iter().map(|violation| format!("SUPPRESSION: {violation}")));
    Ok(found)
}

/// Whether a message with so many parts and header blocks of single recipients has this one.
fn is_of_message(family: Family, key: &[u8], parts: u32, headers: usize) -> bool {
    match (family, format::parse_recipient_header_key(key)) {
        (Family::Body, Some((_, index))) => usize::try_from(index).is_ok_and(|index| index < headers),
        (Family::Body, None) => parts == 0,
        (Family::BodyPart, _) => format::parse_body_part_key(key).is_some_and(|(_, part)| part < parts),
        _ => true,
    }
}

fn all(store: &dyn Store, family: Family) -> Result<Vec<Record>, StoreError> {
    let mut records: Vec<Record> = Vec::new();
    let mut from = Vec::new();
    loop {
        let page = store.scan(family, &from, &[0xff; 33], PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(records) };
        from.clone_from(last);
        from.push(0);
        records.extend(page);
    }
}

type Places = BTreeMap<[u8; 22], BTreeMap<u16, usize>>;

/// For each message, how often each of its groups is due or held.
fn places(store: &dyn Store, found: &mut Vec<String>) -> Result<Places, StoreError> {
    let mut places = Places::new();
    let due = all(store, Family::Due)?;
    let held = all(store, Family::Hold)?;
    let due = due.iter().map(|(key, _)| format::parse_due_key(key).map(|(_, id, group)| (id, group)));
    let held = held.iter().map(|(key, _)| format::parse_hold_key(key));
    for place in due.chain(held) {
        match place {
            Some((id, group)) => *places.entry(id).or_default().entry(group).or_default() += 1,
            None => found.push("KEY: a due or hold key is malformed".to_owned()),
        }
    }
    Ok(places)
}

fn check_message(
    store: &dyn Store,
    id: &[u8; 22],
    record: &format::MessageRecord,
    places: Option<&BTreeMap<u16, usize>>,
    found: &mut Vec<String>,
) -> Result<(), StoreError> {
    if record.body_parts == 0 && store.get(Family::Body, id)?.is_none() {
        found.push(format!("BODY: message {id:02x?} has no body"));
    }
    for part in 0..record.body_parts {
        if store.get(Family::BodyPart, &format::body_part_key(id, part))?.is_none() {
            found.push(format!("BODY: message {id:02x?} has no part {part}"));
        }
    }
    for (index, _) in (0_u32..).zip(&record.recipients).filter(|_| record.recipient_headers) {
        if store.get(Family::Body, &format::recipient_header_key(id, index))?.is_none() {
            found.push(format!("BODY: message {id:02x?} has no header block of recipient {index}"));
        }
    }
    let ended = store.get(Family::Recipient, &format::recipient_key(id, ENDED_GROUPS_INDEX))?.unwrap_or_default();
    for group in 0..u16::try_from(record.domains.len()).unwrap_or(u16::MAX) {
        let has_ended = ended.get(usize::from(group / 8)).is_some_and(|byte| byte >> (group % 8) & 1 == 1);
        let count = places.and_then(|places| places.get(&group)).copied().unwrap_or(0);
        if count != usize::from(!has_ended) {
            found.push(format!("DUE: group {group} of {id:02x?}: ended {has_ended}, due or held {count} times"));
        }
    }
    Ok(())
}

fn check_counter(store: &dyn Store, name: &str, real: u64, found: &mut Vec<String>) -> Result<(), StoreError> {
    let counter = store.get(Family::Meta, name.as_bytes())?;
    let counter = counter.map_or(Ok(0), |bytes| format::decode_meta_number(&bytes));
    if counter.as_ref().ok() != Some(&real) {
        found.push(format!("COUNTER: {real} {name}, the counter says {counter:?}"));
    }
    Ok(())
}

fn check_outbox(store: &dyn Store, found: &mut Vec<String>) -> Result<(), StoreError> {
    let mut expected = None;
    for (key, _) in all(store, Family::Outbox)? {
        let id = format::parse_outbox_key(&key);
        if let (Some(id), Some(expected)) = (id, expected)
            && id != expected
        {
            found.push(format!("EVENTS: event {id} follows {}", expected - 1));
        }
        expected = id.map(|id| id + 1);
    }
    Ok(())
}

fn check_charges(store: &dyn Store, found: &mut Vec<String>) -> Result<(), StoreError> {
    for (key, value) in all(store, Family::Counter)? {
        let record = format::decode_counter(&value);
        let is_right = match (format::parse_counter_key(&key), &record) {
            (Some((kind, minute, _)), Ok((scope, count))) => {
                let is_known =
                    matches!(kind, format::COUNTER_QUOTA | format::COUNTER_REPORT) || Mark::from_code(kind).is_some();
                is_known && *count > 0 && key == format::counter_key(kind, minute, scope)
            }
            _ => false,
        };
        if !is_right {
            found.push(format!("CHARGE: counter {key:02x?} holds {record:?}"));
        }
    }
    Ok(())
}
