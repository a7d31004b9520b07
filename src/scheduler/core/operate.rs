//! What operators and the end of the daemon ask of the scheduler.

use std::time::Duration;

use super::{Job, JobState, Scheduler};
use crate::queue::{DueJob, DueKey};
use crate::scheduler::{Action, Command, Verdict, job_from_due};
use crate::types::{SourceName, Timestamp};

impl Scheduler {
    /// Sites follow what limits, pools and warm-ups say now.
    pub(super) fn refit_sites(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        for name in self.site_names() {
            let keys = self.take_line(&name);
            if let Some(site) = self.sites.get_mut(&name) {
                let limits = self.settings.providers.limits(site.provider.as_deref(), self.settings.limits);
                site.reload(&name, limits, &self.fleet, now);
            }
            self.reload_warmups(&name, now);
            self.reroute(&name, keys, now, actions);
        }
    }

    /// The wall clock went back: what was set by it moves along, so that nothing waits for the old time to come again.
    pub fn clock_went_back(&mut self, by: Duration, now: Timestamp) {
        let alarms = std::mem::take(&mut self.alarms);
        self.alarms = alarms.into_iter().map(|(at, site)| (at.minus(by), site)).collect();
        let postponed = std::mem::take(&mut self.postponed);
        self.postponed = postponed.into_iter().map(|(at, key)| (at.minus(by), key)).collect();
        for site in self.sites.values_mut() {
            site.alarm = site.alarm.map(|at| at.minus(by));
            site.reach.clock_went_back(by);
            for lane in site.all_lanes_mut() {
                lane.clock_went_back(by);
            }
        }
        for (_, meter) in self.fleet.all_meters() {
            meter.lane.clock_went_back(by);
        }
        self.started_at = self.started_at.minus(by);
        self.fleet.clock_went_back(now);
        (self.history_at, self.lives_at) = (self.history_at.min(now), self.lives_at.min(now));
        self.next_sweep = now;
        self.patrol_began = self.patrol_began.min(now);
    }

    /// Everything deferred is due now, suspended sites are tried at once (SIGUSR2).
    pub fn flush(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        self.window.flush();
        for name in self.site_names() {
            self.unsuspend(&name, now);
            self.serve(&name, now, actions);
        }
        for (_, key) in std::mem::take(&mut self.waiting) {
            self.make_ready(key, now, actions);
        }
        self.room = true;
        self.page_in(now, actions);
    }

    /// Applies an operator's command to a job; `false` where it is in flight and the command must be given again.
    pub fn command(&mut self, due: &DueJob, command: &Command, now: Timestamp, actions: &mut Vec<Action>) -> bool {
        if self.jobs.get(&due.key).is_some_and(|job| job.state == JobState::Leased) {
            return false;
        }
        if !self.jobs.contains_key(&due.key) {
            let place = DueKey::of(due.due_at, due.key);
            let Some((domain, expires_at)) = job_from_due(due) else { return false };
            // What the window covers and memory has not, and was not left on disk, is not as the caller saw it; what has
            // no room must wait.
            let full = self.jobs.len() >= self.settings.jobs_max;
            let class = self.classes.of(&due.entry);
            if full || (self.window.covers(place) && !self.is_left_behind(&domain, &class, place)) {
                return false;
            }
            let mut job = Job::waiting(domain, class, due.due_at, expires_at);
            (job.attempts, job.source) = (due.entry.attempts, SourceName::parse(&due.entry.source));
            job.ambiguous = self.unclean_since.is_some_and(|since| due.due_at <= since);
            job.unverified = true;
            self.jobs.insert(due.key, job);
            self.waiting.insert((due.due_at, due.key));
        }
        let verdict = match command {
            Command::Retry => {
                self.unpark(due.key);
                let domain = self.jobs.get(&due.key).map(|job| job.domain.clone());
                self.unsuspend_domain(domain.as_ref(), now);
                self.make_ready(due.key, now, actions);
                return true;
            }
            Command::Hold(reason) => Verdict::Hold(reason.clone()),
            Command::Cancel => Verdict::Cancelled,
        };
        self.unpark(due.key);
        self.settle(due.key, verdict, actions);
        true
    }

    /// No new work from now on; what is in flight goes on.
    pub fn drain(&mut self, actions: &mut Vec<Action>) {
        self.draining = true;
        for id in self.idle.clone() {
            self.close(id, actions);
        }
    }

    /// Whether nothing is in flight.
    pub fn is_quiet(&self) -> bool {
        self.in_flight == 0 && self.connections.is_empty()
    }
}
