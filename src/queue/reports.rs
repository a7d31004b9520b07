//! Reports of receivers (DMARC, TLS): their rows as events, each exactly once, though the same report comes again.
//!
//! A report goes in in parts of some hundred rows, so that no batch is large and mail goes between. Each part is one batch: its rows, as
//! events of the outbox, and a mark under a hash of what names the report and the part. Where the mark is there, nothing is written. So a
//! crash between two parts repeats none: the host got no 250, brings the report again, and only what is missing is written.
//!
//! Marks stand beside the counters, by the hour at which the time of the report ends, which is the same whenever it comes. They are removed
//! by range when no report of that time is taken any more ([`REPORT_AGE_MAX`]), so that nothing that is taken has lost its mark.
//! Promises: a part is `Taken` once, in all processes that ever had this store, and synced when that returns; after an error nothing of it
//! was written. Does not: know what is in a report.

use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use queue_format as format;

use super::Queue;
use super::committer::Transaction;
use super::feedback::Mark;
use super::intake::AcceptError;
use super::store::{Change, Family, Key};
use crate::events::EventLine;
use crate::types::Timestamp;

/// A report about a time that ended longer ago is not taken.
pub const REPORT_AGE_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Likewise one about a time that ends later than this from now.
pub const REPORT_AHEAD_MAX: Duration = Duration::from_secs(2 * 86_400);
/// Rows in one batch.
pub const REPORT_ROWS_MAX: usize = 500;
/// Reports may use this part of the events that may wait for the files: mail goes on where they cannot be written.
const WAITING_SHARE: u64 = 2;
/// Time between two removals of old marks, and how much longer than needed these stay.
const SWEEP_EACH: Duration = Duration::from_secs(3_600);

/// What a report is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportName {
    hash: String,
    hour: u64,
}

impl ReportName {
    /// `None`: the time of the report ended too long ago, or ends too far ahead. `parts` are what names it besides.
    pub fn new(parts: &[&str], begins_at: Timestamp, ends_at: Timestamp, now: Timestamp) -> Option<Self> {
        if ends_at.plus(REPORT_AGE_MAX) < now || ends_at > now.plus(REPORT_AHEAD_MAX) {
            return None;
        }
        let mut text = Vec::new();
        for part in parts {
            text.extend_from_slice(&(part.len() as u64).to_be_bytes());
            text.extend_from_slice(part.as_bytes());
        }
        text.extend_from_slice(&begins_at.millis().to_be_bytes());
        text.extend_from_slice(&ends_at.millis().to_be_bytes());
        let hash = digest(&SHA256, &text).as_ref().iter().map(|octet| format!("{octet:02x}")).collect();
        Some(Self { hash, hour: hour_of(ends_at) })
    }

    fn scope(&self, part: u32) -> String {
        format!("{}/{part}", self.hash)
    }
}

fn hour_of(time: Timestamp) -> u64 {
    time.seconds() / 3_600
}

/// What became of a part of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportEffect {
    /// Its rows are on disk.
    Taken,
    /// They were before: nothing was written.
    AlreadyKnown,
}

impl Queue {
    /// Commits the rows of one part of a report, counted from 0, unless that was done before. Synced when it returns. An error is a reply
    /// of 4yz, so that the report comes again. Runs to its end even where the returned future is dropped once it was handed over.
    pub async fn take_report(
        &self,
        report: &ReportName,
        part: u32,
        rows: Vec<EventLine>,
    ) -> Result<ReportEffect, AcceptError> {
        assert!(rows.len() <= REPORT_ROWS_MAX, "{} rows in one batch", rows.len());
        let scope = report.scope(part);
        let key = Key::new(&format::counter_key(format::COUNTER_REPORT, report.hour, &scope));
        let look = self.reading(move |queue| queue.0.store.get(Family::Counter, key.as_ref())).await;
        let not_durable = |error: String| AcceptError::NotDurable(error);
        match look.map_err(|error| not_durable(error.to_string()))? {
            Ok(Some(_)) => return Ok(ReportEffect::AlreadyKnown),
            Ok(None) => {}
            Err(error) => return Err(not_durable(error.to_string())),
        }
        self.report_room(rows.iter().map(|row| row.json.len() as u64).sum())?;
        let mut value = Vec::new();
        // A part without rows, too, is one that was taken.
        format::encode_counter(&scope, (rows.len() as u64).max(1), &mut value);
        let mut changes = vec![Change::Put { family: Family::Counter, key, value: value.into() }];
        changes.extend(self.report_sweep());
        let transaction = Transaction { changes, events: rows, sync: true, may_fail: true, ..Transaction::empty() };
        Ok(match self.commit_once(transaction, Mark::at(Family::Counter, key), Vec::new()).await? {
            true => ReportEffect::Taken,
            false => ReportEffect::AlreadyKnown,
        })
    }

    /// Whether the outbox and the disk have room for so many octets of rows.
    fn report_room(&self, bytes: u64) -> Result<(), AcceptError> {
        self.room_for(bytes)?;
        let limit = self.0.events_pending_max.load(Ordering::Relaxed) / WAITING_SHARE;
        if self.0.outbox.pending() >= limit {
            return Err(AcceptError::QueueFull { limit });
        }
        Ok(())
    }

    /// The removal of marks that no report asks for any more, now and then.
    fn report_sweep(&self) -> Option<Change> {
        let now = self.0.clock.now();
        let swept_at = Timestamp::from_millis(self.0.reports_swept_at_ms.load(Ordering::Relaxed));
        // A clock that was set back is looked at anew.
        if now >= swept_at && now.since(swept_at) < SWEEP_EACH {
            return None;
        }
        self.0.reports_swept_at_ms.store(now.millis(), Ordering::Relaxed);
        let last = hour_of(now.minus(REPORT_AGE_MAX + SWEEP_EACH)).checked_sub(1)?;
        let (from, to) = format::counter_range(format::COUNTER_REPORT, 0, last);
        Some(Change::DeleteRange { family: Family::Counter, from: Key::new(&from), to: Key::new(&to) })
    }
}
