//! Which part of the due index is in memory, and which page of it is read next.
//!
//! Everything before the horizon was read once: it is in memory, or stands in a [`Backlog`]; everything at or after it is
//! on disk. The horizon reaches a little into the future, so that a job that becomes due is there on time; whatever is
//! due later costs no memory. While a page is being read, jobs that change are noted, since the page may show them as
//! they were.
//!
//! [`Backlog`]: super::backlog::Backlog

use std::time::Duration;

use super::Set;
use crate::queue::{DueKey, JobKey};
use crate::types::Timestamp;

/// How far the window reaches into the future after a page was read.
const AHEAD: Duration = Duration::from_secs(60);
/// How much future must be left before the next page is read.
const AHEAD_MIN: Duration = Duration::from_secs(30);
/// Jobs in one page.
pub(super) const PAGE_JOBS: usize = 8_192;
/// Jobs that one flush made due and that were deferred again: remembered, so that it does not make them due twice. Full:
/// the flush ends, and what it had not reached keeps its due time.
const FLUSHED_MAX: usize = 2_000_000;

/// Why a page is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// The horizon moves on.
    Ahead,
    /// What was left on disk before the horizon, where there is room for it now.
    Behind,
    /// The same, to find what expired and whose senders should hear of a delay.
    Patrol,
    /// Everything is made due, by an operator.
    Flush,
}

/// A page that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) pass: Pass,
    pub(super) from: DueKey,
    pub(super) until: DueKey,
}

#[derive(Debug)]
pub(super) struct Window {
    horizon: DueKey,
    page: Option<Page>,
    /// Changed since the page was asked for.
    changed: Set<JobKey>,
    /// Pages asked for so far.
    pages: u64,
    flush: Option<Flush>,
}

/// An operator made everything due: all of the index from here on is read, whatever its due times say.
#[derive(Debug)]
struct Flush {
    next: DueKey,
    /// The first job of which its site had no room.
    resume: Option<DueKey>,
    /// A pass came to the end and left some: it begins again when there is room.
    stalled: bool,
    /// Made due and deferred again.
    done: Set<JobKey>,
    /// The page under way was asked for by an earlier flush.
    restarted: bool,
}

impl Window {
    /// Nothing is in memory yet.
    pub(super) fn new() -> Self {
        Self { horizon: DueKey::START, page: None, changed: Set::default(), pages: 0, flush: None }
    }

    /// Before this place everything was read once.
    pub(super) fn horizon(&self) -> DueKey {
        self.horizon
    }

    /// The number of the page that is being read, or was read last.
    pub(super) fn page_number(&self) -> u64 {
        self.pages
    }

    /// Whether a page is being read: one at a time.
    pub(super) fn is_reading(&self) -> bool {
        self.page.is_some()
    }

    /// Whether a job at this place belongs into memory, or into a backlog. While the window moves on, its new range does.
    pub(super) fn covers(&self, place: DueKey) -> bool {
        match self.page {
            Some(Page { pass: Pass::Ahead, until, .. }) => place < until,
            _ => place < self.horizon,
        }
    }

    /// A job changed: a page that is being read may show it as it was.
    pub(super) fn changed(&mut self, key: JobKey) {
        if self.page.is_some() {
            self.changed.insert(key);
        }
    }

    /// A job is due later than the window reaches.
    pub(super) fn deferred(&mut self, key: JobKey, place: DueKey) {
        let Some(flush) = &mut self.flush else { return };
        if place >= flush.resume.unwrap_or(flush.next) {
            flush.done.insert(key);
        }
        if flush.done.len() >= FLUSHED_MAX {
            tracing::warn!(jobs = FLUSHED_MAX, "flush ended early: so many jobs were tried and deferred again");
            self.flush = None;
        }
    }

    /// The next step into the future, if one is needed.
    pub(super) fn ahead(&self, now: Timestamp) -> Option<Page> {
        let needed = self.horizon < DueKey::at(now.plus(AHEAD_MIN));
        needed.then(|| Page { pass: Pass::Ahead, from: self.horizon, until: DueKey::at(now.plus(AHEAD)) })
    }

    /// A look at what was left behind.
    pub(super) fn behind(&self, pass: Pass, from: DueKey) -> Option<Page> {
        (from < self.horizon).then_some(Page { pass, from, until: self.horizon })
    }

    /// The next step of a flush. `room`: some site has room again.
    pub(super) fn flushing(&mut self, room: bool) -> Option<Page> {
        let flush = self.flush.as_mut()?;
        flush.stalled &= !room;
        (!flush.stalled).then_some(Page { pass: Pass::Flush, from: flush.next, until: DueKey::at(Timestamp::MAX) })
    }

    /// The page is being read from now on.
    pub(super) fn begin(&mut self, page: Page) {
        self.page = Some(page);
        self.pages += 1;
    }

    /// Everything is due now.
    pub(super) fn flush(&mut self) {
        let restarted = self.page.is_some_and(|page| page.pass == Pass::Flush);
        let next = self.horizon;
        self.flush = Some(Flush { next, resume: None, stalled: false, done: Set::default(), restarted });
    }

    /// Whether a flush waits for room.
    pub(super) fn is_flush_stalled(&self) -> bool {
        self.flush.as_ref().is_some_and(|flush| flush.stalled)
    }

    /// Whether a flush has yet to make this job due.
    pub(super) fn is_flushable(&self, key: JobKey, place: DueKey) -> bool {
        place >= self.horizon && self.flush.as_ref().is_some_and(|flush| !flush.done.contains(&key))
    }

    /// A flush found no room for a job: it comes back to it.
    pub(super) fn flush_later(&mut self, place: DueKey) {
        if let Some(flush) = &mut self.flush {
            flush.resume = Some(flush.resume.map_or(place, |least| least.min(place)));
        }
    }

    /// Whether a job of the page that just arrived is still as the page shows it.
    pub(super) fn is_current(&self, key: JobKey) -> bool {
        !self.changed.contains(&key)
    }

    /// The page under way.
    pub(super) fn page(&self) -> Option<Page> {
        self.page
    }

    /// The page was taken in; `next` is where it ended, `None` at the end of its range.
    pub(super) fn end(&mut self, next: Option<DueKey>) {
        self.changed.clear();
        let Some(page) = self.page.take() else { return };
        match page.pass {
            Pass::Ahead => self.horizon = next.unwrap_or(page.until),
            Pass::Behind | Pass::Patrol => {}
            Pass::Flush => self.flush_read(next),
        }
    }

    fn flush_read(&mut self, next: Option<DueKey>) {
        let Some(flush) = &mut self.flush else { return };
        if std::mem::take(&mut flush.restarted) {
            return;
        }
        match (next, flush.resume.take()) {
            (Some(next), resume) => (flush.next, flush.resume) = (next, resume),
            (None, Some(resume)) => (flush.next, flush.stalled) = (resume, true),
            (None, None) => self.flush = None,
        }
    }

    /// The page could not be read.
    pub(super) fn failed(&mut self) {
        self.changed.clear();
        self.page = None;
        if let Some(flush) = &mut self.flush {
            flush.restarted = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::MessageId;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn job(id: u128) -> JobKey {
        JobKey { id: MessageId::new(Timestamp::from_millis(1), id), group: 0 }
    }

    fn place(due_ms: u64, id: u128) -> DueKey {
        DueKey::of(Timestamp::from_millis(due_ms), job(id))
    }

    /// A window that has read its first minute.
    fn read() -> Window {
        let mut window = Window::new();
        window.begin(window.ahead(NOW).unwrap());
        window.end(None);
        window
    }

    #[test]
    fn a_job_deferred_into_a_page_that_is_being_read_stays_in_memory() {
        let mut window = Window::new();
        let page = window.ahead(NOW).unwrap();
        assert_eq!((page.from, page.until), (DueKey::START, DueKey::at(NOW.plus(AHEAD))));
        window.begin(page);
        window.changed(job(7));
        assert!(window.covers(place(1_059_000, 7)), "the page may have been read past this place already");
        assert!(!window.is_current(job(7)));
        window.end(None);
        assert!(window.covers(place(1_059_000, 7)));
        assert!(!window.covers(place(1_061_000, 7)));
        assert_eq!(window.ahead(NOW), None, "a minute is in memory");
    }

    #[test]
    fn a_flush_reads_everything_once() {
        let mut window = read();
        window.flush();
        let page = window.flushing(false).unwrap();
        assert_eq!((page.from, page.until), (window.horizon(), DueKey::at(Timestamp::MAX)));
        window.begin(page);
        window.end(Some(place(2_000_000, 1)));
        window.deferred(job(3), place(2_500_000, 3));
        let page = window.flushing(false).unwrap();
        assert_eq!(page.from, place(2_000_000, 1));
        window.begin(page);
        assert!(!window.is_flushable(job(3), place(2_500_000, 3)), "it was tried a moment ago");
        assert!(window.is_flushable(job(4), place(2_500_000, 4)));
        window.end(None);
        assert_eq!(window.flushing(true), None);
        assert!(!window.covers(place(3_000_000, 1)), "what is deferred later goes to disk again");
    }

    #[test]
    fn a_flush_comes_back_to_what_had_no_room() {
        let mut window = read();
        window.flush();
        let page = window.flushing(false).unwrap();
        window.begin(page);
        window.flush_later(place(3_000_000, 1));
        window.flush_later(place(2_000_000, 1));
        window.end(None);
        assert!(window.is_flush_stalled());
        assert_eq!(window.flushing(false), None, "still no room");
        assert_eq!(window.flushing(true).unwrap().from, place(2_000_000, 1));
    }

    #[test]
    fn a_second_flush_begins_anew_whatever_page_of_the_first_is_under_way() {
        let mut window = read();
        window.flush();
        let page = window.flushing(false).unwrap();
        window.begin(page);
        window.flush();
        window.end(Some(place(2_000_000, 1)));
        assert_eq!(window.flushing(false).unwrap().from, page.from);
    }
}
