//! Which part of the due index is in memory: everything before the horizon is, everything at or after it is on disk.
//!
//! The window reaches a little into the future, so that a job that becomes due is there on time; whatever is due later
//! costs no memory. While a page is being read, jobs that change are noted, since the page may show them as they were.

use std::collections::HashSet;
use std::time::Duration;

use crate::queue::{DueKey, JobKey};
use crate::types::Timestamp;

/// How far the window reaches into the future after a page was read.
const AHEAD: Duration = Duration::from_secs(60);
/// How much future must be left before the next page is read.
const AHEAD_MIN: Duration = Duration::from_secs(30);
/// Jobs in one page.
pub(super) const PAGE_JOBS: usize = 8_192;

#[derive(Debug)]
pub(super) struct Window {
    horizon: DueKey,
    paging: Option<Paging>,
    /// An operator made everything due: the window reaches to the end of time until all was read once.
    flushing: bool,
}

#[derive(Debug)]
struct Paging {
    until: DueKey,
    changed: HashSet<JobKey>,
    overflow: Option<DueKey>,
}

impl Window {
    /// Nothing is in memory yet.
    pub(super) fn new() -> Self {
        Self { horizon: DueKey::START, paging: None, flushing: false }
    }

    /// Whether a job at this place belongs into memory. While a page is read, its whole range does; while everything
    /// is made due, all that is deferred again does, so that no later page makes it due once more.
    pub(super) fn covers(&self, place: DueKey) -> bool {
        self.flushing || place < self.paging.as_ref().map_or(self.horizon, |paging| paging.until.max(self.horizon))
    }

    /// A job at `place` had no room in memory: it must be read again from there.
    pub(super) fn leave_on_disk(&mut self, place: DueKey) {
        match &mut self.paging {
            Some(paging) => paging.overflow = Some(paging.overflow.map_or(place, |least| least.min(place))),
            None => self.horizon = self.horizon.min(place),
        }
    }

    /// A job changed: a page that is being read may show it as it was.
    pub(super) fn changed(&mut self, key: JobKey) {
        if let Some(paging) = &mut self.paging {
            paging.changed.insert(key);
        }
    }

    /// Everything is due now: read all of the index once.
    pub(super) fn flush(&mut self) {
        self.flushing = true;
    }

    /// Whether jobs are due whatever their due time says.
    pub(super) fn is_flushing(&self) -> bool {
        self.flushing
    }

    /// The page to read next, if one is needed and none is being read.
    pub(super) fn next_page(&mut self, now: Timestamp) -> Option<(DueKey, Timestamp)> {
        let wanted = if self.flushing { DueKey::at(Timestamp::MAX) } else { DueKey::at(now.plus(AHEAD_MIN)) };
        if self.paging.is_some() || self.horizon >= wanted {
            return None;
        }
        let until = if self.flushing { Timestamp::MAX } else { now.plus(AHEAD) };
        self.paging = Some(Paging { until: DueKey::at(until), changed: HashSet::new(), overflow: None });
        Some((self.horizon, until))
    }

    /// Whether a job of the page that just arrived is still as the page shows it.
    pub(super) fn is_current(&self, key: JobKey) -> bool {
        self.paging.as_ref().is_none_or(|paging| !paging.changed.contains(&key))
    }

    /// The page was taken in; `next` is where it ended, `None` at the end of its range.
    pub(super) fn paged(&mut self, next: Option<DueKey>, now: Timestamp) {
        let Some(paging) = self.paging.take() else { return };
        self.horizon = next.unwrap_or(paging.until);
        // A page that was under way when the flush began does not reach to its end.
        let read_all = next.is_none() && paging.until == DueKey::at(Timestamp::MAX);
        if self.flushing && read_all && paging.overflow.is_none() {
            self.flushing = false;
            self.horizon = DueKey::at(now.plus(AHEAD));
        }
        if let Some(overflow) = paging.overflow {
            self.horizon = self.horizon.min(overflow);
        }
    }

    /// The page could not be read.
    pub(super) fn page_failed(&mut self) {
        if let Some(overflow) = self.paging.take().and_then(|paging| paging.overflow) {
            self.horizon = self.horizon.min(overflow);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::MessageId;

    fn job(id: u128) -> JobKey {
        JobKey { id: MessageId::new(Timestamp::from_millis(1), id), group: 0 }
    }

    fn place(due_ms: u64, id: u128) -> DueKey {
        DueKey::of(Timestamp::from_millis(due_ms), job(id))
    }

    #[test]
    fn a_job_deferred_into_a_page_that_is_being_read_stays_in_memory() {
        let mut window = Window::new();
        let now = Timestamp::from_millis(1_000_000);
        let (from, until) = window.next_page(now).unwrap();
        assert_eq!(from, DueKey::START);
        assert_eq!(until, now.plus(AHEAD));
        window.changed(job(7));
        assert!(window.covers(place(1_059_000, 7)), "the page may have been read past this place already");
        assert!(!window.is_current(job(7)));
        window.paged(None, now);
        assert!(window.covers(place(1_059_000, 7)));
        assert!(!window.covers(place(1_061_000, 7)));
        assert_eq!(window.next_page(now), None, "a minute is in memory");
    }

    #[test]
    fn what_had_no_room_is_read_again() {
        let mut window = Window::new();
        let now = Timestamp::from_millis(1_000_000);
        window.next_page(now).unwrap();
        window.leave_on_disk(place(5, 1));
        window.leave_on_disk(place(9, 1));
        window.paged(None, now);
        assert_eq!(window.next_page(now).unwrap().0, place(5, 1));
    }

    #[test]
    fn a_flush_reads_everything_once() {
        let mut window = Window::new();
        let now = Timestamp::from_millis(1_000_000);
        window.next_page(now).unwrap();
        window.paged(None, now);
        window.flush();
        assert_eq!(window.next_page(now).unwrap().1, Timestamp::MAX);
        window.paged(Some(place(2_000_000, 1)), now);
        assert_eq!(window.next_page(now).unwrap().0, place(2_000_000, 1));
        window.paged(None, now);
        assert!(!window.is_flushing());
        assert!(!window.covers(place(3_000_000, 1)), "what is deferred later goes to disk again");
    }
}
