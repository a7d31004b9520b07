//! The inside of the scheduler: jobs into memory, to their sites, out on leases.

use std::sync::Arc;

use super::{Connection, Job, JobState, Scheduler};
use crate::queue::{DueKey, JobKey};
use crate::scheduler::class::Class;
use crate::scheduler::fair::Flow;
use crate::scheduler::fleet::Destination;
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
            JobState::Ready => self.leave_line(job.queued_at.as_ref(), &job.class),
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
            let reason = self.trouble_of(key, now);
            return self.settle(key, Verdict::Expired(reason), actions);
        }
        let (domain, place, early) = (job.domain.clone(), DueKey::of(job.due_at, key), job.is_early(now));
        let state = self.domains.entry(domain.clone()).or_default();
        match &state.destination {
            Some(destination) if destination.is_current(now) => {
                let site = destination.site.clone();
                self.enqueue(key, &site, now);
                self.serve(&site, now, actions);
            }
            _ if !early && (state.parked.len() >= share || state.backlog.covers(place)) => {
                state.backlog.leave(place, self.window.page_number());
                state.left.insert(Arc::clone(&job.class));
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
        let share = self.share();
        let Some(job) = self.jobs.get_mut(&key) else { return };
        let Some(site) = self.sites.get_mut(name) else { return };
        let place = DueKey::of(job.due_at, key);
        let queue = site.queue_of(name, &job.class, &self.fleet);
        let flow = queue.fair.flow_mut(&job.class);
        if !job.is_early(now) && (flow.ready_jobs >= share || flow.backlog.covers(place)) {
            let class = Arc::clone(&job.class);
            self.remove(key);
            return self.leave_behind(name, &class, place);
        }
        job.state = JobState::Ready;
        let in_line = job.queued_at.as_ref() == Some(name);
        job.queued_at = Some(name.clone());
        flow.ready_jobs += 1;
        if !in_line {
            let keeps = job.source.as_ref().and_then(|source| self.fleet.id(source));
            match keeps.filter(|source| queue.slots.iter().any(|slot| slot.source == *source)) {
                Some(source) => {
                    queue.stuck = false;
                    queue.pinned.entry(source).or_default().push_back(key);
                }
                None => queue.fair.push(&job.class, key),
            }
        }
        // It will wait for long: memory is for what goes soon.
        if site.down_until(now).is_some()
            && let Some(payload) = job.payload.take()
        {
            self.payload_bytes -= payload.bytes();
        }
    }

    /// One job less is ready at a site.
    fn leave_line(&mut self, site: Option<&SiteName>, class: &Arc<Class>) {
        let share = self.share();
        let waits = self.window.is_flush_stalled();
        let Some(flow) = site.and_then(|name| self.flow_mut(name, class)) else { return };
        flow.ready_jobs = flow.ready_jobs.saturating_sub(1);
        let has_room = (waits || flow.backlog.from().is_some()) && flow.ready_jobs * 2 <= share;
        self.room |= has_room;
    }

    /// The jobs of a class at a site, if there are any.
    pub(super) fn flow(&self, name: &SiteName, class: &Class) -> Option<&Flow> {
        self.sites.get(name)?.queue(class, &self.fleet)?.fair.flow(class)
    }

    /// The jobs of a class at a site.
    pub(super) fn flow_mut(&mut self, name: &SiteName, class: &Arc<Class>) -> Option<&mut Flow> {
        let site = self.sites.get_mut(name)?;
        Some(site.queue_of(name, class, &self.fleet).fair.flow_mut(class))
    }

    /// Where the route of a site's first job is out of date, all its jobs find their way anew: hosts that are dead may
    /// have been replaced.
    pub(super) fn reroute_if_stale(&mut self, name: &SiteName, now: Timestamp, actions: &mut Vec<Action>) {
        let jobs = &self.jobs;
        let mut first = None;
        for queue in self.sites.get_mut(name).into_iter().flat_map(|site| &mut site.queues) {
            let front = queue.fair.front(|key| jobs.contains_key(&key)).map(|(_, key)| key);
            let pinned = || queue.pinned.values().flatten().find(|key| jobs.contains_key(key)).copied();
            first = first.or(front).or_else(pinned);
        }
        let domain = first.and_then(|key| self.jobs.get(&key)).map(|job| &job.domain);
        let destination = domain.and_then(|domain| self.domains.get(domain)?.destination.as_ref());
        if destination.is_some_and(|destination| !destination.is_current(now)) {
            let keys = self.take_line(name);
            self.reroute(name, keys, now, actions);
        }
    }

    /// Takes all keys out of the lines of a site.
    pub(super) fn take_line(&mut self, name: &SiteName) -> Vec<JobKey> {
        let Some(site) = self.sites.get_mut(name) else { return Vec::new() };
        self.room |= site.queues.iter().any(|queue| queue.fair.is_behind());
        site.queues.iter_mut().flat_map(|queue| queue.drain()).collect()
    }

    /// Sends jobs that were taken out of the line of a site through the look-up of their domains again.
    pub(super) fn reroute(&mut self, name: &SiteName, keys: Vec<JobKey>, now: Timestamp, actions: &mut Vec<Action>) {
        // A key may stand there more than once: all are out before the first goes back in, or its job would be counted twice.
        let mut ready = Vec::new();
        for key in keys {
            let Some(job) = self.jobs.get_mut(&key).filter(|job| job.queued_at.as_ref() == Some(name)) else {
                continue;
            };
            job.queued_at = None;
            if job.state == JobState::Ready {
                job.state = JobState::Waiting;
                ready.push(key);
            }
        }
        for key in ready {
            self.make_ready(key, now, actions);
        }
    }

    /// In order: what follows from it must not depend on a hash.
    pub(super) fn site_names(&self) -> Vec<SiteName> {
        let mut names: Vec<SiteName> = self.sites.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// The site of a destination, made where it is not known.
    pub(super) fn make_site(&mut self, destination: &Destination) {
        let limits = self.settings.providers.limits(destination.provider.as_deref(), self.settings.limits);
        let name = &destination.site;
        if self.sites.contains_key(name) {
            return;
        }
        let site = Site::new(name, destination.provider.clone(), limits).with_pool(destination.own_pool.clone());
        self.sites.insert(name.clone(), site);
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
        let lease = Lease {
            key,
            due_at,
            attempts,
            ambiguous: job.ambiguous,
            unverified: job.unverified,
            blocks: job.blocks,
            spared: job.spared,
            source: job.source.clone(),
            payload,
        };
        let (queued_at, class) = (job.queued_at.clone(), Arc::clone(&job.class));
        if was_ready {
            self.leave_line(queued_at.as_ref(), &class);
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
    fn trouble_of(&self, key: JobKey, now: Timestamp) -> Option<String> {
        let destination = self.domains.get(&self.jobs.get(&key)?.domain)?.destination.as_ref()?;
        self.sites.get(&destination.site)?.reason(now)
    }

    pub(super) fn give_back(&mut self, lease: Lease, now: Timestamp, actions: &mut Vec<Action>) {
        let Some(job) = self.jobs.get_mut(&lease.key).filter(|job| job.state == JobState::Leased) else { return };
        self.in_flight -= 1;
        job.state = JobState::Waiting;
        job.spared = lease.spared;
        if let Some(payload) = lease.payload {
            self.payload_bytes += payload.bytes();
            job.payload = Some(Box::new(payload));
        }
        self.make_ready(lease.key, now, actions);
    }

    pub(super) fn open(&mut self, connection: Connection) -> ConnectionId {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        if let Some(site) = self.sites.get_mut(&connection.site) {
            site.connections += 1;
            self.line.unproven_connections += usize::from(!site.is_proven());
            if let Some(entry) = site.lane_mut(connection.source) {
                entry.connections += 1;
            }
        }
        self.connections.insert(id, connection);
        id
    }

    pub(super) fn take_idle(&mut self, id: ConnectionId) {
        self.idle.remove(&id);
        let Some(connection) = self.connections.get(&id) else { return };
        if let Some(site) = self.sites.get_mut(&connection.site) {
            site.take_idle(connection.source, id);
        }
    }

    pub(super) fn unpark(&mut self, key: JobKey) {
        let Some(job) = self.jobs.get(&key).filter(|job| job.state == JobState::Resolving) else { return };
        if let Some(state) = self.domains.get_mut(&job.domain) {
            state.parked.retain(|parked| *parked != key);
        }
    }

    pub(super) fn unsuspend_domain(&mut self, domain: Option<&Domain>, now: Timestamp) {
        let state = domain.and_then(|domain| self.domains.get(domain));
        let Some(destination) = state.and_then(|state| state.destination.as_ref()) else { return };
        let name = destination.site.clone();
        self.unsuspend(&name, now);
    }

    /// An operator wants a site tried at once, blocks excepted.
    pub(super) fn unsuspend(&mut self, name: &SiteName, now: Timestamp) {
        let Some(site) = self.sites.get_mut(name) else { return };
        site.unstick();
        site.reach.unsuspend();
        for entry in &mut site.lanes {
            entry.lane.unsuspend(now);
        }
    }
}
