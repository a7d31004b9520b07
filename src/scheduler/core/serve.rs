//! The inside of the scheduler: jobs into memory, to their sites, out on leases.

use super::{Connection, Job, JobState, Scheduler};
use crate::queue::{DueKey, JobKey};
use crate::scheduler::sites::Site;
use crate::scheduler::{Action, ConnectionId, Lease, Payload, SiteName, Verdict};
use crate::types::{Domain, Timestamp};

impl Scheduler {
    /// Takes a job into memory, or leaves it on disk. An urgent one is due now, whatever its due time says.
    pub(super) fn insert(&mut self, key: JobKey, job: Job, urgent: bool, now: Timestamp, actions: &mut Vec<Action>) {
        let place = DueKey::of(job.due_at, key);
        if !urgent && job.due_at > now && !self.window.covers(place) {
            return self.window.deferred(key, place);
        }
        if self.jobs.len() >= self.settings.jobs_max {
            return self.leave_stray(place);
        }
        self.payload_bytes += job.payload.as_ref().map_or(0, |payload| payload.bytes());
        let due_at = job.due_at;
        self.jobs.insert(key, job);
        if due_at > now && !urgent {
            self.waiting.insert((due_at, key));
        } else {
            self.make_ready(key, now, actions);
        }
    }

    pub(super) fn remove(&mut self, key: JobKey) -> Option<Job> {
        let mut job = self.jobs.remove(&key)?;
        match job.state {
            JobState::Leased => {
                self.in_flight -= 1;
                self.settling -= usize::from(std::mem::take(&mut job.settling));
            }
            JobState::Waiting => {
                self.waiting.remove(&(job.due_at, key));
            }
            JobState::Ready => self.leave_line(job.queued_at.as_ref()),
            JobState::Resolving => {}
        }
        if let Some(payload) = job.payload.take() {
            self.payload_bytes -= payload.bytes();
        }
        Some(job)
    }

    /// Due now: to its site, or to find out which that is.
    pub(super) fn make_ready(&mut self, key: JobKey, now: Timestamp, actions: &mut Vec<Action>) {
        let share = self.share();
        let Some(job) = self.jobs.get_mut(&key) else { return };
        self.waiting.remove(&(job.due_at, key));
        if now >= job.expires_at {
            let reason = self.trouble_of(key);
            return self.settle(key, Verdict::Expired(reason), actions);
        }
        let (domain, place, early) = (job.domain.clone(), DueKey::of(job.due_at, key), job.is_early(now));
        let state = self.domains.entry(domain.clone()).or_default();
        match &state.site {
            Some((site, expires_at)) if *expires_at > now => {
                let site = site.clone();
                self.enqueue(key, &site, now);
                self.serve(&site, now, actions);
            }
            _ if !early && (state.parked.len() >= share || state.backlog.covers(place)) => {
                state.backlog.leave(place, self.window.page_number());
                self.remove(key);
            }
            _ => {
                job.state = JobState::Resolving;
                state.parked.push(key);
                if state.parked.len() == 1 {
                    actions.push(Action::Resolve(domain));
                }
            }
        }
    }

    /// Into the line of its site; a job whose key still stands there keeps its place. Where the line is longer than its
    /// share of memory, the job is left on disk.
    pub(super) fn enqueue(&mut self, key: JobKey, name: &SiteName, now: Timestamp) {
        let (share, connections_max) = (self.share(), self.settings.connections_per_site_max);
        let site = self.sites.entry(name.clone()).or_insert_with(|| Site::new(connections_max));
        let Some(job) = self.jobs.get_mut(&key) else { return };
        let place = DueKey::of(job.due_at, key);
        if !job.is_early(now) && (site.ready_jobs >= share || site.backlog.covers(place)) {
            self.remove(key);
            return self.leave_behind(name, place);
        }
        job.state = JobState::Ready;
        let in_line = job.queued_at.as_ref() == Some(name);
        job.queued_at = Some(name.clone());
        // It will wait for long: memory is for what goes soon.
        if let Some(payload) = job.payload.take_if(|_| site.suspended_until(now).is_some()) {
            self.payload_bytes -= payload.bytes();
        }
        site.ready_jobs += 1;
        if !in_line {
            site.ready.push_back(key);
        }
    }

    /// One job less is ready at a site.
    fn leave_line(&mut self, site: Option<&SiteName>) {
        let share = self.share();
        let waits = self.window.is_flush_stalled();
        if let Some(site) = site.and_then(|name| self.sites.get_mut(name)) {
            site.ready_jobs = site.ready_jobs.saturating_sub(1);
            self.room |= (waits || site.backlog.from().is_some()) && site.ready_jobs * 2 <= share;
        }
    }

    /// Where the route of a site's first job is out of date, all its jobs find their way anew: hosts that are dead may
    /// have been replaced.
    pub(super) fn reroute_if_stale(&mut self, name: &SiteName, now: Timestamp, actions: &mut Vec<Action>) {
        let first = self.sites.get(name).and_then(|site| site.ready.iter().find_map(|key| self.jobs.get(key)));
        let route = first.and_then(|job| self.domains.get(&job.domain)).and_then(|state| state.site.as_ref());
        if route.is_some_and(|(_, expires_at)| *expires_at <= now) {
            self.reroute(name, now, actions);
        }
    }

    /// Sends all ready jobs of a site through the look-up of their domains again.
    pub(super) fn reroute(&mut self, name: &SiteName, now: Timestamp, actions: &mut Vec<Action>) {
        let Some(site) = self.sites.get_mut(name) else { return };
        site.ready_jobs = 0;
        self.room |= site.backlog.from().is_some();
        let keys = std::mem::take(&mut site.ready);
        for key in keys {
            let Some(job) = self.jobs.get_mut(&key).filter(|job| job.queued_at.as_ref() == Some(name)) else {
                continue;
            };
            job.queued_at = None;
            if job.state == JobState::Ready {
                job.state = JobState::Waiting;
                self.make_ready(key, now, actions);
            }
        }
    }

    /// In order: what follows from it must not depend on a hash.
    pub(super) fn site_names(&self) -> Vec<SiteName> {
        let mut names: Vec<SiteName> = self.sites.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    pub(super) fn site_mut(&mut self, name: &SiteName) -> &mut Site {
        let connections_max = self.settings.connections_per_site_max;
        self.sites.entry(name.clone()).or_insert_with(|| Site::new(connections_max))
    }

    /// Gives ready jobs of a site to its idle connections, and opens more where that is allowed.
    pub(super) fn serve(&mut self, name: &SiteName, now: Timestamp, actions: &mut Vec<Action>) {
        while !self.draining {
            let Some(site) = self.sites.get_mut(name) else { return };
            let idle = site.idle.last().copied().filter(|_| site.suspended_until(now).is_none());
            let may_open = site.may_open(now);
            if site.ready.is_empty() || (idle.is_none() && !may_open) {
                return;
            }
            let is_proven = site.is_proven();
            if idle.is_none() && !self.may_connect(is_proven) {
                self.stand_in_line(name);
                return self.close_one_idle(actions);
            }
            let Some((domain, jobs)) = self.next_jobs(name, now, actions) else { continue };
            match idle {
                Some(connection) => {
                    self.take_idle(connection, name);
                    actions.push(Action::Assign { connection, jobs });
                }
                None => {
                    let connection = self.open(name);
                    actions.push(Action::Open { connection, site: name.clone(), domain, jobs });
                }
            }
        }
    }

    /// The next jobs of a site that can share a transaction: one message, several of its domains.
    pub(super) fn next_jobs(
        &mut self,
        name: &SiteName,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) -> Option<(Domain, Vec<Lease>)> {
        let mut leases: Vec<Lease> = Vec::new();
        let mut first_domain = None;
        while let Some(key) = self.sites.get(name)?.ready.front().copied() {
            if leases.first().is_some_and(|first| {
                first.key.id != key.id || leases.len() >= self.settings.recipients_per_transaction_max
            }) {
                break;
            }
            self.sites.get_mut(name)?.ready.pop_front();
            let Some(job) = self.jobs.get_mut(&key).filter(|job| job.queued_at.as_ref() == Some(name)) else {
                continue;
            };
            if job.state != JobState::Ready {
                job.queued_at = None;
                continue;
            }
            let expired = now >= job.expires_at;
            let domain = job.domain.clone();
            let Some(lease) = self.lease(key) else { continue };
            if let Some(job) = self.jobs.get_mut(&key) {
                job.queued_at = None;
            }
            if expired {
                let reason = self.sites.get(name).and_then(Site::reason).map(str::to_owned);
                self.at_clerk(key);
                actions.push(Action::Settle { lease, verdict: Verdict::Expired(reason) });
                continue;
            }
            first_domain.get_or_insert(domain);
            leases.push(lease);
        }
        Some((first_domain?, leases))
    }

    /// Gives a job out, unless it is out already.
    pub(super) fn lease(&mut self, key: JobKey) -> Option<Lease> {
        let job = self.jobs.get_mut(&key).filter(|job| job.state != JobState::Leased)?;
        self.waiting.remove(&(job.due_at, key));
        let was_ready = std::mem::replace(&mut job.state, JobState::Leased) == JobState::Ready;
        self.in_flight += 1;
        let payload = job.payload.take().map(|payload| *payload);
        self.payload_bytes -= payload.as_ref().map_or(0, Payload::bytes);
        let (due_at, attempts) = (Some(job.due_at), job.attempts);
        let lease = Lease { key, due_at, attempts, ambiguous: job.ambiguous, unverified: job.unverified, payload };
        let queued_at = job.queued_at.clone();
        if was_ready {
            self.leave_line(queued_at.as_ref());
        }
        Some(lease)
    }

    /// Gives a job out to be settled without a connection, unless it is out already.
    pub(super) fn settle(&mut self, key: JobKey, verdict: Verdict, actions: &mut Vec<Action>) {
        if let Some(lease) = self.lease(key) {
            self.at_clerk(key);
            actions.push(Action::Settle { lease, verdict });
        }
    }

    fn at_clerk(&mut self, key: JobKey) {
        if let Some(job) = self.jobs.get_mut(&key) {
            self.settling += usize::from(!std::mem::replace(&mut job.settling, true));
        }
    }

    /// What is wrong with the site of a job, as far as that is known.
    fn trouble_of(&self, key: JobKey) -> Option<String> {
        let (name, _) = self.domains.get(&self.jobs.get(&key)?.domain)?.site.as_ref()?;
        self.sites.get(name).and_then(Site::reason).map(str::to_owned)
    }

    pub(super) fn give_back(&mut self, lease: Lease, now: Timestamp, actions: &mut Vec<Action>) {
        let Some(job) = self.jobs.get_mut(&lease.key).filter(|job| job.state == JobState::Leased) else { return };
        self.in_flight -= 1;
        job.state = JobState::Waiting;
        if let Some(payload) = lease.payload {
            self.payload_bytes += payload.bytes();
            job.payload = Some(Box::new(payload));
        }
        self.make_ready(lease.key, now, actions);
    }

    pub(super) fn open(&mut self, name: &SiteName) -> ConnectionId {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.connections.insert(id, Connection { site: name.clone(), closing: false });
        let site = self.site_mut(name);
        site.connections += 1;
        let is_proven = site.is_proven();
        self.line.unproven_connections += usize::from(!is_proven);
        id
    }

    pub(super) fn take_idle(&mut self, id: ConnectionId, name: &SiteName) {
        self.site_mut(name).idle.retain(|idle| *idle != id);
        self.idle.remove(&id);
    }

    pub(super) fn unpark(&mut self, key: JobKey) {
        let Some(job) = self.jobs.get(&key).filter(|job| job.state == JobState::Resolving) else { return };
        if let Some(state) = self.domains.get_mut(&job.domain) {
            state.parked.retain(|parked| *parked != key);
        }
    }

    pub(super) fn unsuspend_domain(&mut self, domain: Option<&Domain>) {
        let state = domain.and_then(|domain| self.domains.get(domain));
        let Some((name, _)) = state.and_then(|state| state.site.as_ref()) else { return };
        if let Some(site) = self.sites.get_mut(name) {
            site.unsuspend();
        }
    }
}
