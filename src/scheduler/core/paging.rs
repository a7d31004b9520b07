//! What of the due index is in memory: pages in, jobs for whom there is no room out.
//!
//! No site holds up another, and no tenant another at the same site: each flow (pool, priority and tenant at a site) may fill
//! only a share of the table, smaller the fuller the table is, and whatever it has beyond that stays on disk, as a
//! backlog that costs a few words. It is read again, in order, when half of the flow's share is free.

use std::sync::Arc;

use super::{Job, Scheduler};
use crate::queue::{DueJob, DueKey, DuePage, JobKey};
use crate::scheduler::class::Class;
use crate::scheduler::window::{PAGE_JOBS, Page, Pass};
use crate::scheduler::{Action, SiteName, job_from_due};
use crate::types::{Domain, SourceName, Timestamp};

/// The part of the table that one flow may fill at most.
const SITE_SHARE: usize = 8;
/// The part of the table that is kept for flows that have next to nothing in it.
const RESERVE: usize = 64;
/// What a flow may have in memory however full the table is.
const SITE_JOBS_MIN: usize = 4;
/// Settlements without a connection that are out; above, no page is read and no sweep begun that could add to them.
pub(super) const SETTLING_MAX: usize = 16_384;

impl Scheduler {
    /// A page of the due index was read.
    pub fn paged(&mut self, page: DuePage, now: Timestamp, actions: &mut Vec<Action>) {
        let Some(asked) = self.window.page() else { return };
        if asked.pass != Pass::Flush {
            self.read_backlogs(asked, page.next);
        }
        for due in &page.jobs {
            if self.jobs.contains_key(&due.key) || !self.window.is_current(due.key) {
                continue;
            }
            let Some((domain, expires_at)) = job_from_due(due) else {
                tracing::error!(message_id = %due.key.id, domain = due.entry.domain, "due entry names no domain; it is left alone");
                continue;
            };
            let class = self.classes.of(&due.entry);
            let mut job = Job::waiting(domain, class, due.due_at, expires_at);
            job.source = SourceName::parse(&due.entry.source);
            (job.attempts, job.ambiguous) = (due.entry.attempts, self.is_ambiguous(due));
            match asked.pass {
                Pass::Ahead | Pass::Behind => self.insert(due.key, job, false, now, actions),
                Pass::Patrol => self.patrolled(due.key, job, now, actions),
                Pass::Flush => self.flushed(due.key, job, now, actions),
            }
        }
        if asked.pass == Pass::Patrol {
            self.patrol = page.next;
            self.patrol_pages = self.patrol_pages.saturating_add(1);
        }
        self.window.end(page.next);
        self.page_in(now, actions);
    }

    /// The page could not be read: the store fails; the next tick tries again.
    pub fn page_failed(&mut self) {
        self.window.failed();
        self.room = true;
    }

    /// Whether a job was due when the daemon last stopped without order.
    fn is_ambiguous(&self, due: &DueJob) -> bool {
        self.unclean_since.is_some_and(|since| due.due_at <= since)
    }

    /// Asks for the next page, if one is needed and there is room for it.
    pub(super) fn page_in(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.draining || self.window.is_reading() || self.settling >= SETTLING_MAX || !self.has_room() {
            return;
        }
        let Some(page) = self.next_page(now) else { return };
        self.window.begin(page);
        actions.push(Action::PageIn { from: page.from, until: page.until, limit: PAGE_JOBS });
    }

    /// Kinds of pages take turns: each is asked for where the one before it was not, or was the last.
    fn next_page(&mut self, now: Timestamp) -> Option<Page> {
        let crowded = self.waiting.len() > self.settings.jobs_max / 2;
        let ahead = self.window.ahead(now).filter(|_| !crowded);
        if self.window.page_number().is_multiple_of(2) && ahead.is_some() {
            return ahead;
        }
        let room = std::mem::take(&mut self.room);
        let behind = if room { self.least_behind() } else { None };
        if let Some(page) = behind.and_then(|from| self.window.behind(Pass::Behind, from)) {
            // There may be more of it.
            self.room = true;
            return Some(page);
        }
        if let Some(from) = self.patrol {
            let page = self.window.behind(Pass::Patrol, from);
            self.patrol = self.patrol.filter(|_| page.is_some());
            if page.is_some() {
                // A flush may wait for it.
                self.room = room;
                return page;
            }
        }
        self.window.flushing(room).or(ahead)
    }

    /// Where the reading of backlogs goes on: the first of those that have room.
    fn least_behind(&self) -> Option<DueKey> {
        let share = self.share();
        let flows = self.behind.iter().filter_map(|(site, class)| self.flow(site, class));
        let flows = flows.filter(|flow| flow.ready_jobs * 2 <= share).filter_map(|flow| flow.backlog.from());
        flows.chain(self.strays.from()).min().filter(|from| *from < self.window.horizon())
    }

    /// Whether the table has room for more than what must have room.
    fn has_room(&self) -> bool {
        self.settings.jobs_max.saturating_sub(self.jobs.len()) > self.settings.jobs_max / (2 * RESERVE)
    }

    /// How many jobs one flow, or one domain that is looked up, may have in memory now.
    pub(super) fn share(&self) -> usize {
        let max = self.settings.jobs_max;
        let free = max.saturating_sub(self.jobs.len());
        (free.saturating_sub(max / RESERVE) / 2).min(max / SITE_SHARE).max(SITE_JOBS_MIN)
    }

    /// A due job of a site is left on disk.
    pub(super) fn leave_behind(&mut self, name: &SiteName, class: &Arc<Class>, place: DueKey) {
        let page = self.window.page_number();
        let share = self.share();
        let Some(flow) = self.flow_mut(name, class) else { return self.leave_stray(place) };
        flow.backlog.leave(place, page);
        let has_room = flow.ready_jobs * 2 <= share;
        self.room |= has_room;
        let flow = (name.clone(), Arc::clone(class));
        self.behind.insert(flow);
    }

    /// A due job that belongs to no site is left on disk.
    pub(super) fn leave_stray(&mut self, place: DueKey) {
        self.strays.leave(place, self.window.page_number());
        self.room = true;
    }

    /// Whether a job that is not in memory may be one of those that were left on disk.
    pub(super) fn is_left_behind(&self, domain: &Domain, class: &Class, place: DueKey) -> bool {
        // Without a site, it may be a job of any.
        let state = self.domains.get(domain);
        let Some(state) = state.filter(|state| state.destination.is_some() || state.backlog.from().is_some()) else {
            return self.strays.from().is_some() || !self.behind.is_empty();
        };
        let site = state.destination.as_ref().and_then(|destination| self.sites.get(&destination.site));
        let flow = site.and_then(|site| site.queue(class, &self.fleet)?.fair.flow(class));
        self.strays.covers(place) || state.backlog.covers(place) || flow.is_some_and(|flow| flow.backlog.covers(place))
    }

    /// Backlogs that begin in this page end with it; what has no room this time is left again.
    fn read_backlogs(&mut self, asked: Page, end: Option<DueKey>) {
        let number = self.window.page_number();
        self.strays.read(asked.from, end, number);
        let (sites, fleet) = (&mut self.sites, &self.fleet);
        self.behind.retain(|(name, class)| {
            let Some(site) = sites.get_mut(name) else { return false };
            let flow = site.queue_of(name, class, fleet).fair.flow_mut(class);
            flow.backlog.read(asked.from, end, number);
            flow.backlog.from().is_some()
        });
    }

    /// A job that a flush found: due now, unless its site is down or has no room.
    fn flushed(&mut self, key: JobKey, job: Job, now: Timestamp, actions: &mut Vec<Action>) {
        let place = DueKey::of(job.due_at, key);
        if !self.window.is_flushable(key, place) {
            return;
        }
        let share = self.share();
        let state = self.domains.get(&job.domain);
        let parked = state.map_or(0, |state| state.parked.len());
        let name = state.and_then(|state| state.destination.as_ref()).map(|destination| &destination.site);
        let site = name.and_then(|name| self.sites.get(name));
        let queue = site.and_then(|site| site.queue(&job.class, &self.fleet));
        let flow = queue.and_then(|queue| queue.fair.flow(&job.class));
        let is_full = parked >= share
            || !self.has_room()
            || flow.is_some_and(|flow| flow.ready_jobs >= share || flow.backlog.from().is_some());
        let down = site.zip(queue).is_some_and(|(site, queue)| site.suspended_until(queue, now).is_some());
        if !is_full {
            return self.insert(key, job, true, now, actions);
        }
        // What a site that is down has no room for keeps its due time.
        if !down {
            self.window.flush_later(place);
        }
    }
}
