//! The history: what each source sent to each site on each day, kept for 400 days.
//!
//! The scheduler's ledger says what a row holds; a row is written over as its day goes on. Promises: the rows of one source and
//! day that are saved together survive a power cut together or not at all, so that what moves from one row to another is
//! counted once. Does not: sync by itself; rows ride on the next sync, 100 ms later at most. A damaged row is told of and left out.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use queue_format as format;

use super::committer::Transaction;
use super::store::{Change, Family, Key, Store, StoreError};
use super::{Queue, pages};
use crate::events::metric;
use crate::types::{DayTotals, SourceName};

/// Days that are kept, today included.
pub const HISTORY_KEPT_DAYS: u32 = 400;
/// Rows of one transaction. Beyond: the rest is the next one, and mail goes between; the rows of one source stay together.
const BATCH_ROWS_MAX: usize = 1_024;
/// Rows that one call reads. Beyond: the caller goes on from there.
const SCANNED_ROWS_MAX: usize = 65_536;

/// What one source sent to one site on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRow {
    /// The day: Unix time / 24 h, UTC.
    pub day: u32,
    /// The source.
    pub source: SourceName,
    /// The site; empty: all those together that have no row of their own.
    pub site: Arc<str>,
    /// The provider whose site it is.
    pub provider: Option<Arc<str>>,
    /// The numbers.
    pub totals: DayTotals,
}

/// Which rows are asked for.
#[derive(Clone, Debug)]
pub struct HistoryQuery {
    /// Of these days.
    pub days: RangeInclusive<u32>,
    /// Of this source; `None`: of all.
    pub source: Option<SourceName>,
    /// Of this site; `None`: of all.
    pub site: Option<Arc<str>>,
    /// Of this provider; `None`: of all, and of none.
    pub provider: Option<Arc<str>>,
    /// From here on: [`HistoryPage::next`] of the page before.
    pub from: Option<HistoryPlace>,
    /// So many rows at most.
    pub limit: usize,
}

/// A place between two rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HistoryPlace(Key);

/// Some rows.
#[derive(Clone, Debug, Default)]
pub struct HistoryPage {
    /// By day; those of one day in no order that means anything.
    pub rows: Vec<HistoryRow>,
    /// Where to go on; `None`: these were the last ones. There may be more even where `rows` is empty.
    pub next: Option<HistoryPlace>,
}

impl Queue {
    /// The rows that were asked for. Blocks.
    pub fn history(&self, query: &HistoryQuery) -> Result<HistoryPage, StoreError> {
        read(&*self.0.store, query)
    }

    /// Writes these rows in place of what is there. Sorted by day and source, or else those of one source may be torn by a power cut.
    /// Waits only for room in the committer's queue; where the disk fails, they are tried again until it works.
    pub async fn save_history(&self, rows: &[HistoryRow]) {
        for batch in batches(rows) {
            let changes = batch.iter().map(put_change).collect();
            self.submit(Transaction { changes, ..Transaction::empty() }).await;
        }
    }

    /// Removes all rows of days before this one, by one range.
    pub async fn prune_history(&self, before_day: u32) {
        let Some(last_day) = before_day.checked_sub(1) else { return };
        let (from, to) = format::history_range(0, last_day);
        let range = Change::DeleteRange { family: Family::History, from: Key::new(&from), to: Key::new(&to) };
        self.submit(Transaction { changes: vec![range], ..Transaction::empty() }).await;
    }
}

/// As many rows as fit, but all that follow each other of one day and source in one.
pub(super) fn batches(rows: &[HistoryRow]) -> impl Iterator<Item = &[HistoryRow]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let mut len = 0;
        for group in rest.chunk_by(|left, right| (left.day, &left.source) == (right.day, &right.source)) {
            if len > 0 && len + group.len() > BATCH_ROWS_MAX {
                break;
            }
            len += group.len();
        }
        let (batch, after) = rest.split_at(len);
        rest = after;
        (!batch.is_empty()).then_some(batch)
    })
}

pub(super) fn put_change(row: &HistoryRow) -> Change {
    let record = to_format(row);
    let mut value = Vec::with_capacity(record.encoded_len_hint());
    record.encode(&mut value);
    Change::Put { family: Family::History, key: key(row.day, row.source.as_str(), &row.site), value: value.into() }
}

/// The names of sites may come from others' DNS: so a hash that nobody finds two equal ones of.
fn key(day: u32, source: &str, site: &str) -> Key {
    let hash = digest(&SHA256, &[source.as_bytes(), b"\0", site.as_bytes()].concat());
    let names = hash.as_ref().first_chunk().expect("SHA-256 has 32 octets");
    Key::new(&format::history_key(day, names))
}

pub(super) fn read(store: &dyn Store, query: &HistoryQuery) -> Result<HistoryPage, StoreError> {
    let mut page = HistoryPage::default();
    if query.days.is_empty() {
        return Ok(page);
    }
    let (first, end) = format::history_range(*query.days.start(), *query.days.end());
    let from = query.from.map_or_else(|| first.to_vec(), |place| place.0.as_ref().to_vec());
    let mut scanned = 0;
    pages::each_from(store, Family::History, &from, &end, |key, value| {
        if page.rows.len() >= query.limit || scanned >= SCANNED_ROWS_MAX {
            page.next = Some(HistoryPlace(Key::new(key)));
            return false;
        }
        scanned += 1;
        match decode(key, value) {
            Ok(row) if query.asks_for(&row) => page.rows.push(row),
            Ok(_) => {}
            Err(error) => {
                tracing::error!(?key, %error, "a row of the history is damaged: it is left out");
                metrics::counter!(metric::DAMAGED_RECORDS, "record" => "history").increment(1);
            }
        }
        true
    })?;
    Ok(page)
}

impl HistoryQuery {
    /// All rows of these days.
    pub fn of_days(days: RangeInclusive<u32>, limit: usize) -> Self {
        Self { days, source: None, site: None, provider: None, from: None, limit }
    }

    fn asks_for(&self, row: &HistoryRow) -> bool {
        self.source.as_ref().is_none_or(|source| *source == row.source)
            && self.site.as_ref().is_none_or(|site| *site == row.site)
            && self.provider.as_ref().is_none_or(|provider| row.provider.as_ref() == Some(provider))
    }
}

/// The row that a record holds, or what is wrong with it.
pub(super) fn decode(at: &[u8], value: &[u8]) -> Result<HistoryRow, String> {
    let record = format::HistoryRecord::decode(value).map_err(|error| error.to_string())?;
    let (day, _) = format::parse_history_key(at).ok_or("its key is malformed")?;
    if key(day, &record.source, &record.site).as_ref() != at {
        return Err(format!("it is that of {} at {} and stands elsewhere", record.source, record.site));
    }
    let source = SourceName::parse(&record.source).ok_or_else(|| format!("{:?} is no source", record.source))?;
    Ok(from_format(day, record, source))
}

fn to_format(row: &HistoryRow) -> format::HistoryRecord {
    let DayTotals { sent, delivered, deferred, bounced, complained, blocked, cap, position } = &row.totals;
    format::HistoryRecord {
        source: row.source.as_str().to_owned(),
        site: row.site.to_string(),
        provider: row.provider.as_deref().map(str::to_owned),
        sent: *sent,
        delivered: *delivered,
        deferred: *deferred,
        bounced: bounced.iter().map(|(class, count)| (*class, *count)).collect(),
        complained: *complained,
        blocked: *blocked,
        cap: *cap,
        position: *position,
    }
}

fn from_format(day: u32, record: format::HistoryRecord, source: SourceName) -> HistoryRow {
    let totals = DayTotals {
        sent: record.sent,
        delivered: record.delivered,
        deferred: record.deferred,
        bounced: record.bounced.into_iter().collect::<BTreeMap<_, _>>(),
        complained: record.complained,
        blocked: record.blocked,
        cap: record.cap,
        position: record.position,
    };
    HistoryRow { day, source, site: record.site.into(), provider: record.provider.map(Arc::from), totals }
}

/// What is wrong with the rows of a store.
pub(super) fn violations(store: &dyn Store) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    pages::each(store, Family::History, |key, value| {
        found.extend(decode(key, value).err());
        true
    })?;
    Ok(found)
}
