//! What is kept of lanes over a restart: one record for each source and site of which something is to be remembered.
//!
//! The scheduler says when a record is written or removed; changes that an event tells of go in one batch with it. Records
//! are read once, at the start. Promises: whoever saved is told only after a sync. Does not: know what the numbers mean
//! (`policy::lane`).

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use queue_format as format;

use super::committer::Transaction;
use super::store::{Change, Family, Key, Store, StoreError};
use super::{Queue, pages};
use crate::events::{EventLine, metric};
use crate::types::{
    BlockState, ConnectionsState, CountsState, LaneState, Learning, SourceName, Timestamp, ToldState, WarmupDay,
    WarmupState,
};

/// A lane as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneRecord {
    /// Its source.
    pub source: SourceName,
    /// Its site.
    pub site: Box<str>,
    /// What is kept of it.
    pub state: LaneState,
}

/// What is to be written as one.
#[derive(Debug, Default)]
pub struct LaneChanges {
    /// Records to write, in place of what is there.
    pub put: Vec<LaneRecord>,
    /// Records to remove, by source and site.
    pub remove: Vec<(SourceName, Box<str>)>,
    /// The events that tell of it.
    pub events: Vec<EventLine>,
    /// Asks for a sync. Otherwise it is written at once, and is on disk with the next sync, 100 ms later at most.
    pub sync: bool,
}

impl Queue {
    /// Up to `limit` lanes, in no order that means anything. Damaged records are told of and left out. Blocks.
    pub fn lanes(&self, limit: usize) -> Result<Vec<LaneRecord>, StoreError> {
        read(&*self.0.store, limit)
    }

    /// Writes these changes as one. `done` is called on the committer's thread when they are on disk, whether or not they asked
    /// for a sync; where the disk fails, they are tried again until then, or until the process ends. Waits only for room in the
    /// committer's queue.
    pub async fn save_lanes(&self, changes: LaneChanges, done: impl FnOnce() + Send + 'static) {
        let LaneChanges { put, remove, events, sync } = changes;
        let removed =
            remove.iter().map(|(source, site)| Change::Delete { family: Family::Lane, key: key(source, site) });
        let changes = removed.chain(put.iter().map(put_change)).collect();
        let done = Box::new(move |result: Result<(), &StoreError>| {
            if result.is_ok() {
                done();
            }
        });
        self.submit(Transaction { changes, events, sync, told_when_synced: true, done, ..Transaction::empty() }).await;
    }
}

fn put_change(record: &LaneRecord) -> Change {
    let (record, key) = (to_format(record), key(&record.source, &record.site));
    let mut value = Vec::with_capacity(record.encoded_len_hint());
    record.encode(&mut value);
    Change::Put { family: Family::Lane, key, value: value.into() }
}

/// The names of sites may come from others' DNS: so a hash that nobody finds two equal ones of.
fn key(source: &SourceName, site: &str) -> Key {
    raw_key(source.as_str(), site)
}

pub(super) fn raw_key(source: &str, site: &str) -> Key {
    Key::new(digest(&SHA256, &[source.as_bytes(), b"\0", site.as_bytes()].concat()).as_ref())
}

pub(super) fn read(store: &dyn Store, limit: usize) -> Result<Vec<LaneRecord>, StoreError> {
    let mut lanes = Vec::new();
    pages::each(store, Family::Lane, |key, value| {
        match decode(key, value) {
            Ok(lane) => lanes.push(lane),
            Err(error) => {
                tracing::error!(?key, %error, "the record of a lane is damaged: what was learned and counted there is forgotten");
                metrics::counter!(metric::DAMAGED_RECORDS, "record" => "lane").increment(1);
            }
        }
        lanes.len() < limit
    })?;
    Ok(lanes)
}

/// The lane that a record holds, or what is wrong with it.
pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<LaneRecord, String> {
    let record = format::LaneRecord::decode(value).map_err(|error| error.to_string())?;
    if raw_key(&record.source, &record.site).as_ref() != key {
        return Err(format!("it is that of {} at {} and stands elsewhere", record.source, record.site));
    }
    let source = SourceName::parse(&record.source).ok_or_else(|| format!("{:?} is no source", record.source))?;
    Ok(from_format(record, source))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn learning_to(learning: Learning) -> format::LaneLearning {
    let Learning { count, held_until, level } = learning;
    format::LaneLearning { count, held_until_ms: held_until.millis(), level }
}

fn learning_from(learning: format::LaneLearning) -> Learning {
    let format::LaneLearning { count, held_until_ms, level } = learning;
    Learning { count, held_until: Timestamp::from_millis(held_until_ms), level }
}

fn to_format(record: &LaneRecord) -> format::LaneRecord {
    let state = &record.state;
    let until_ms = |until: Option<Timestamp>| until.map(Timestamp::millis);
    format::LaneRecord {
        source: record.source.as_str().to_owned(),
        site: record.site.to_string(),
        saved_at_ms: state.saved_at.millis(),
        is_last: state.is_last,
        connections: state.connections.map(|connections| format::LaneConnections {
            window: connections.window,
            refused_at_ms: connections.refused_at.millis(),
            ceiling: connections.ceiling.map(learning_to),
        }),
        messages: state.messages.map(learning_to),
        failures: state.failures,
        ramp: state.ramp,
        unreachable_until_ms: until_ms(state.unreachable_until),
        fewer: state.fewer.map(|(connections, until)| (connections, until.millis())),
        slow: state.slow.map(|(count, per, until)| format::LaneSlow {
            count,
            per_ms: millis(per),
            until_ms: until.millis(),
        }),
        suspended_until_ms: until_ms(state.suspended_until),
        block: state.block.map(|block| format::LaneBlock {
            until_ms: block.until.millis(),
            lasts_ms: millis(block.lasts),
            returned_at_ms: until_ms(block.returned_at),
        }),
        told: state.told.as_ref().map(|told| format::LaneTold {
            mode: told.mode,
            rule: told.rule.as_deref().map(str::to_owned),
            words: told.words.to_string(),
        }),
        outstanding: state.outstanding,
        counts: state.counts.iter().map(counts_to).collect(),
        warmup: state.warmup.as_ref().map(warmup_to),
    }
}

fn warmup_to(state: &WarmupState) -> format::LaneWarmup {
    let at_ms = |at: Option<Timestamp>| at.map(Timestamp::millis);
    let day = |WarmupDay { day, position, cap, used, delivered, held }| format::LaneWarmupDay {
        day,
        position,
        cap,
        used,
        delivered,
        held,
    };
    format::LaneWarmup {
        plan: state.plan.as_ref().to_owned(),
        position: state.position,
        cap: state.cap,
        day: state.day,
        used: state.used,
        hour: state.hour,
        used_this_hour: state.used_this_hour,
        delivered_today: state.delivered_today,
        held_today: state.held_today,
        before: state.before.map(day),
        ahead: state.ahead,
        mode: state.mode,
        paused: state.paused,
        since_ms: state.since.millis(),
        until_ms: at_ms(state.until),
        reason: state.reason.as_deref().map(str::to_owned),
        last_sent_at_ms: at_ms(state.last_sent_at),
        set_at_ms: state.set_at.millis(),
        stepped_back_at_ms: at_ms(state.stepped_back_at),
        frozen_at_ms: at_ms(state.frozen_at),
        freezes: state.freezes,
        newest_end_ms: state.newest_end.millis(),
        parts: state.parts.iter().take(format::WARMUP_PARTS_MAX).copied().collect(),
    }
}

fn warmup_from(record: format::LaneWarmup) -> WarmupState {
    let at = |ms: Option<u64>| ms.map(Timestamp::from_millis);
    let day = |format::LaneWarmupDay { day, position, cap, used, delivered, held }| WarmupDay {
        day,
        position,
        cap,
        used,
        delivered,
        held,
    };
    WarmupState {
        plan: record.plan.into(),
        position: record.position,
        cap: record.cap,
        day: record.day,
        used: record.used,
        hour: record.hour,
        used_this_hour: record.used_this_hour,
        delivered_today: record.delivered_today,
        held_today: record.held_today,
        before: record.before.map(day),
        ahead: record.ahead,
        mode: record.mode,
        paused: record.paused,
        since: Timestamp::from_millis(record.since_ms),
        until: at(record.until_ms),
        reason: record.reason.map(Into::into),
        last_sent_at: at(record.last_sent_at_ms),
        set_at: Timestamp::from_millis(record.set_at_ms),
        stepped_back_at: at(record.stepped_back_at_ms),
        frozen_at: at(record.frozen_at_ms),
        freezes: record.freezes,
        newest_end: Timestamp::from_millis(record.newest_end_ms),
        parts: record.parts,
    }
}

fn counts_to(counts: &CountsState) -> format::LaneCounts {
    let CountsState { span, part, newest_end, counts } = counts;
    format::LaneCounts {
        span_ms: millis(*span),
        part_ms: millis(*part),
        newest_end_ms: newest_end.millis(),
        counts: counts.clone(),
    }
}

fn from_format(record: format::LaneRecord, source: SourceName) -> LaneRecord {
    let until = |ms: Option<u64>| ms.map(Timestamp::from_millis);
    let state = LaneState {
        saved_at: Timestamp::from_millis(record.saved_at_ms),
        is_last: record.is_last,
        connections: record.connections.map(|connections| ConnectionsState {
            window: connections.window,
            refused_at: Timestamp::from_millis(connections.refused_at_ms),
            ceiling: connections.ceiling.map(learning_from),
        }),
        messages: record.messages.map(learning_from),
        failures: record.failures,
        ramp: record.ramp,
        unreachable_until: until(record.unreachable_until_ms),
        fewer: record.fewer.map(|(connections, until_ms)| (connections, Timestamp::from_millis(until_ms))),
        slow: record
            .slow
            .map(|slow| (slow.count, Duration::from_millis(slow.per_ms), Timestamp::from_millis(slow.until_ms))),
        suspended_until: until(record.suspended_until_ms),
        block: record.block.map(|block| BlockState {
            until: Timestamp::from_millis(block.until_ms),
            lasts: Duration::from_millis(block.lasts_ms),
            returned_at: until(block.returned_at_ms),
        }),
        told: record.told.map(|told| ToldState {
            mode: told.mode,
            rule: told.rule.map(Arc::from),
            words: told.words.into(),
        }),
        warmup: record.warmup.map(warmup_from),
        outstanding: record.outstanding,
        counts: record.counts.into_iter().map(counts_from).collect(),
    };
    LaneRecord { source, site: record.site.into(), state }
}

fn counts_from(counts: format::LaneCounts) -> CountsState {
    let format::LaneCounts { span_ms, part_ms, newest_end_ms, counts } = counts;
    CountsState {
        span: Duration::from_millis(span_ms),
        part: Duration::from_millis(part_ms),
        newest_end: Timestamp::from_millis(newest_end_ms),
        counts,
    }
}

/// What is wrong with the records of a store.
pub(super) fn violations(store: &dyn Store) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    pages::each(store, Family::Lane, |key, value| {
        found.extend(decode(key, value).err());
        true
    })?;
    Ok(found)
}
