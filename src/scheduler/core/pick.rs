//! Which job goes next, by which source, on which connection.
//!
//! A site's queues (one a pool) take turns. Of a queue, jobs that keep their source go first where that source is free; of
//! the others, [`FairQueue`] says whose turn it is. The job then goes by the source whose turn it is among those that can
//! take it now: each turn moves a source on by a stride that is shorter the more weight it has.
//!
//! [`FairQueue`]: crate::scheduler::fair::FairQueue

use std::sync::Arc;
use std::time::Duration;

use super::{Connection, JobState, Scheduler};
use crate::policy::lane::{Cause, Lane, LaneState};
use crate::policy::limits::Span;
use crate::queue::JobKey;
use crate::scheduler::class::Class;
use crate::scheduler::fleet::{Families, SourceId};
use crate::scheduler::sites::Slot;
use crate::scheduler::{Action, ConnectionId, LaneName, Lease, Payload, SiteName, Terms, Verdict};
use crate::types::{Domain, PoolName, Timestamp};

/// A pool's mail goes by its overflow pool where all its own sources are closed for at least this long.
const OVERFLOW_AFTER: Duration = Duration::from_secs(60);
/// Jobs of a flow that are looked through for one that an idle connection leads to.
const SAME_HOSTS_SCAN_MAX: usize = 16;
/// Transactions that a message may take of which nothing is in memory: what it does not take is given back.
const UNKNOWN_TRANSACTIONS: u32 = 8;

/// How long a site waits for a limit of a pool or source as a whole, or for room for a lane, before it looks again.
const METER_PAUSE: Duration = Duration::from_secs(1);

/// What became of a turn of a queue.
enum Turn {
    /// A job was given out, or settled.
    Served,
    /// There is none, or none that could go now.
    Nothing,
    /// It needs a connection, and there are too many.
    NoConnection,
}

/// The job whose turn it is.
struct Task {
    key: JobKey,
    class: Arc<Class>,
    /// It stands in the line of those that keep this source.
    keeps: Option<SourceId>,
    domain: Domain,
    hosts: SiteName,
    lacks: Families,
    expired: bool,
}

/// How a lane can take a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    /// On a connection that is idle.
    Idle(ConnectionId),
    /// On a new connection.
    New,
    /// Once this connection, which leads to other hosts, is closed.
    Swap(ConnectionId),
    /// Not before one of its connections has ended.
    Full,
    /// Not before that time.
    Closed(Timestamp),
}

/// The lane that takes a job.
enum Choice {
    Take(SourceId, Means),
    Swap(ConnectionId),
    /// There are too many connections to open one more.
    NoConnection,
    /// No lane can take it before then; `stuck`: nor any other job.
    Wait { until: Timestamp, stuck: bool },
}

impl Scheduler {
    /// Gives ready jobs of a site to its idle connections, and opens more where that is allowed.
    pub(super) fn serve(&mut self, name: &SiteName, now: Timestamp, actions: &mut Vec<Action>) {
        let mut turns_without = 0;
        while !self.draining {
            let Some(site) = self.sites.get_mut(name).filter(|site| !site.stuck) else { return };
            if let Some(until) = site.down_until(now) {
                return self.set_alarm(name, until);
            }
            if turns_without >= site.queues.len() {
                return;
            }
            let at = site.next_queue % site.queues.len();
            site.next_queue = at + 1;
            match self.turn(name, at, now, actions) {
                Turn::Served => turns_without = 0,
                Turn::Nothing => turns_without += 1,
                Turn::NoConnection => {
                    self.stand_in_line(name);
                    return self.close_one_idle(actions);
                }
            }
        }
    }

    fn turn(&mut self, name: &SiteName, at: usize, now: Timestamp, actions: &mut Vec<Action>) -> Turn {
        for source in self.kept_sources(name, at) {
            let Some(task) = self.kept_task(name, at, source, now) else { continue };
            // Where it has to wait, others need not.
            if let Some(choice) = self.choose_kept(name, at, &task, source, now) {
                return self.perform(name, at, &task, choice, now, actions);
            }
        }
        let Some(task) = self.next_task(name, at, now) else { return Turn::Nothing };
        let choice = self.choose(name, at, &task, now);
        self.perform(name, at, &task, choice, now, actions)
    }

    fn perform(
        &mut self,
        name: &SiteName,
        at: usize,
        task: &Task,
        choice: Choice,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) -> Turn {
        match choice {
            _ if task.expired => {
                let reason = self.sites.get(name).and_then(|site| site.reason(now));
                self.settle(task.key, Verdict::Expired(reason), actions);
                Turn::Served
            }
            Choice::Take(source, means) => self.give_out(name, at, task, source, means, now, actions),
            Choice::Swap(connection) => {
                self.close(connection, actions);
                Turn::Nothing
            }
            Choice::NoConnection => Turn::NoConnection,
            Choice::Wait { until, stuck } => {
                if let Some(site) = self.sites.get_mut(name) {
                    site.stuck = stuck && site.queues.len() == 1;
                }
                self.set_alarm(name, until);
                Turn::Nothing
            }
        }
    }

    /// The site is looked at again then, at the latest.
    pub(super) fn set_alarm(&mut self, name: &SiteName, until: Timestamp) {
        let Some(site) = self.sites.get_mut(name) else { return };
        if until == Timestamp::MAX || site.alarm.is_some_and(|alarm| alarm <= until) {
            return;
        }
        if let Some(later) = site.alarm.replace(until) {
            self.alarms.remove(&(later, name.clone()));
        }
        self.alarms.insert((until, name.clone()));
    }

    /// Sources for which jobs wait that keep theirs.
    fn kept_sources(&self, name: &SiteName, at: usize) -> Vec<SourceId> {
        let queue = self.sites.get(name).and_then(|site| site.queues.get(at));
        queue.map_or_else(Vec::new, |queue| queue.pinned.keys().copied().collect())
    }

    /// The first job that keeps this source.
    fn kept_task(&mut self, name: &SiteName, at: usize, source: SourceId, now: Timestamp) -> Option<Task> {
        loop {
            let queue = self.sites.get_mut(name)?.queues.get_mut(at)?;
            let line = queue.pinned.get_mut(&source)?;
            let Some(key) = line.front().copied() else {
                queue.pinned.remove(&source);
                return None;
            };
            if let Some(task) = self.task(name, key, Some(source), now) {
                return Some(task);
            }
            let queue = self.sites.get_mut(name)?.queues.get_mut(at)?;
            queue.pinned.get_mut(&source)?.pop_front();
        }
    }

    /// The job whose turn it is.
    fn next_task(&mut self, name: &SiteName, at: usize, now: Timestamp) -> Option<Task> {
        let queue = self.sites.get_mut(name)?.queues.get_mut(at)?;
        let jobs = &mut self.jobs;
        let in_line = |key| {
            let Some(job) = jobs.get_mut(&key).filter(|job| job.queued_at.as_ref() == Some(name)) else { return false };
            let ready = job.state == JobState::Ready;
            if !ready {
                job.queued_at = None;
            }
            ready
        };
        let (_, key) = queue.fair.front(in_line)?;
        self.task(name, key, None, now)
    }

    fn task(&mut self, name: &SiteName, key: JobKey, keeps: Option<SourceId>, now: Timestamp) -> Option<Task> {
        let job = self.jobs.get_mut(&key).filter(|job| job.queued_at.as_ref() == Some(name))?;
        if job.state != JobState::Ready {
            job.queued_at = None;
            return None;
        }
        let state = self.domains.get(&job.domain);
        let hosts = state.and_then(|state| state.destination.as_ref()).map(|destination| destination.hosts.clone());
        Some(Task {
            key,
            class: Arc::clone(&job.class),
            keeps,
            domain: job.domain.clone(),
            hosts: hosts.unwrap_or_else(|| name.clone()),
            lacks: state.map(|state| state.lacks).unwrap_or_default(),
            expired: now >= job.expires_at,
        })
    }

    /// Whether and how the source that a job keeps takes it. Where that is closed for long, the job keeps it no more.
    fn choose_kept(
        &mut self,
        name: &SiteName,
        at: usize,
        task: &Task,
        source: SourceId,
        now: Timestamp,
    ) -> Option<Choice> {
        match self.means(name, at, source, task, now) {
            Means::Closed(until) if until >= now.plus(OVERFLOW_AFTER) => {
                let (site, job) = (self.sites.get_mut(name)?, self.jobs.get_mut(&task.key)?);
                let queue = site.queues.get_mut(at)?;
                queue.pinned.get_mut(&source)?.pop_front();
                job.source = None;
                queue.fair.push(&task.class, task.key);
                None
            }
            Means::Closed(until) => {
                self.set_alarm(name, until);
                None
            }
            Means::Full => None,
            Means::Swap(connection) => Some(Choice::Swap(connection)),
            Means::New if !self.may_connect_to(name) => Some(Choice::NoConnection),
            means => Some(Choice::Take(source, means)),
        }
    }

    fn may_connect_to(&self, name: &SiteName) -> bool {
        self.sites.get(name).is_some_and(|site| self.may_connect(site.is_proven()))
    }

    /// The source whose turn it is among those that can take a job.
    fn choose(&mut self, name: &SiteName, at: usize, task: &Task, now: Timestamp) -> Choice {
        let may_connect = self.may_connect_to(name);
        let queue = self.sites.get(name).and_then(|site| site.queues.get(at));
        let (turn, slots) = queue.map_or((0, Vec::new()), |queue| (queue.turn, queue.slots.clone()));
        // Where no source is of a family that the hosts have, the one whose turn it is finds that out anew.
        let lacks = |slot: &Slot| self.fleet.source(slot.source).is_some_and(|source| task.lacks.has(source.family));
        let reaches: Vec<bool> = slots.iter().map(|slot| !lacks(slot)).collect();
        let anyway = !reaches.contains(&true);
        let mut best: Option<(u64, SourceId, Means)> = None;
        let (mut swap, mut no_connection) = (None, false);
        let (mut until, mut tier, mut closed) = (Timestamp::MAX, 0, true);
        for (slot, _) in slots.iter().zip(reaches).filter(|(_, reaches)| *reaches || anyway) {
            if slot.tier > tier {
                if !closed || best.is_some() {
                    break;
                }
                tier = slot.tier;
            }
            let pass = slot.pass.max(turn);
            match self.means(name, at, slot.source, task, now) {
                Means::Closed(end) => {
                    until = until.min(end);
                    closed &= end >= now.plus(OVERFLOW_AFTER);
                    continue;
                }
                Means::Full => {}
                Means::Swap(connection) => swap = swap.or(Some(connection)),
                Means::New if !may_connect => no_connection = true,
                means if best.is_none_or(|(least, ..)| pass < least) => best = Some((pass, slot.source, means)),
                Means::New | Means::Idle(_) => {}
            }
            closed = false;
        }
        match (best, swap) {
            (Some((_, source, means)), _) => Choice::Take(source, means),
            (None, Some(connection)) => Choice::Swap(connection),
            (None, None) if no_connection => Choice::NoConnection,
            // Hosts of another family may be within reach of another source.
            (None, None) => Choice::Wait { until, stuck: task.lacks == Families::default() },
        }
    }

    /// How a source can take a job now.
    fn means(&mut self, name: &SiteName, at: usize, source: SourceId, task: &Task, now: Timestamp) -> Means {
        let pool = self.sites.get(name).and_then(|site| site.queues.get(at)).map(|queue| queue.pool.clone());
        let pool = pool.unwrap_or_default();
        for (key, meter) in self.fleet.meters(source, &pool) {
            if let Err(wait) = meter.lane.admits(1, now) {
                if wait.cause == Cause::Saving {
                    self.dirty.insert(key.lane_name());
                }
                // What ends at another site may make room.
                return Means::Closed(wait.until.min(now.plus(METER_PAUSE)));
            }
        }
        if !self.has_lane(name, source, now) {
            return Means::Closed(now.plus(METER_PAUSE));
        }
        let Some(site) = self.sites.get_mut(name) else { return Means::Full };
        let may_open = site.may_open(now);
        let Some(entry) = site.lane_mut(source) else { return Means::Full };
        let window = entry.lane.window(now);
        if window == 0 {
            return Means::Closed(entry.lane.next_change(now).unwrap_or(Timestamp::MAX));
        }
        if let Err(wait) = entry.lane.admits(1, now) {
            if wait.cause == Cause::Saving {
                let source = self.fleet.name(source);
                self.dirty.insert(LaneName::Lane(name.clone(), source));
            }
            return Means::Closed(wait.until);
        }
        if let Some((idle, _)) = entry.idle.iter().rev().find(|(_, hosts)| *hosts == task.hosts) {
            return Means::Idle(*idle);
        }
        if entry.connections < window && may_open {
            return Means::New;
        }
        // The one that was not used for longest; one at a time.
        let idle = if entry.closing == 0 { entry.idle.first() } else { None };
        idle.map_or(Means::Full, |(idle, _)| Means::Swap(*idle))
    }

    /// Whether a source has a lane at a site; it is made where there is room for one.
    fn has_lane(&mut self, name: &SiteName, source: SourceId, now: Timestamp) -> bool {
        let Some(site) = self.sites.get(name) else { return false };
        if site.lane(source).is_some() {
            return true;
        }
        if self.lanes >= self.settings.lanes_max && !self.forget_lanes(now) {
            return false;
        }
        let lane_name = LaneName::Lane(name.clone(), self.fleet.name(source));
        let Some(site) = self.sites.get_mut(name) else { return false };
        // After an unclean stop nobody knows what lanes without a record sent in the minute before.
        let is_early = self.unclean && now.since(self.started_at) <= Span::Minute.duration();
        let lane = match self.saved.remove(&lane_name).or_else(|| is_early.then(LaneState::default)) {
            Some(state) => Lane::restore(&state, site.limits, self.unclean, self.started_at),
            None => Lane::new(site.limits, now),
        };
        site.add_lane(source, lane, now);
        self.lanes += 1;
        true
    }

    /// Gives the job out whose turn it is, with others of its message that can share its transaction.
    #[allow(clippy::too_many_arguments, reason = "a step of one algorithm, cut out to be readable")]
    fn give_out(
        &mut self,
        name: &SiteName,
        at: usize,
        task: &Task,
        source: SourceId,
        means: Means,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) -> Turn {
        let jobs = self.take_jobs(name, at, task);
        if jobs.is_empty() {
            return Turn::Served;
        }
        let pool = self.sites.get(name).and_then(|site| site.queues.get(at)).map(|queue| queue.pool.clone());
        let pool = pool.unwrap_or_default();
        let terms = self.charge(name, &pool, source, &jobs, now);
        let source_name = self.fleet.name(source);
        if let Some(queue) = self.sites.get_mut(name).and_then(|site| site.queues.get_mut(at)) {
            queue.fair.served(&task.class, jobs.len());
        }
        self.count_turn(name, at, source, now);
        match means {
            Means::Idle(connection) => {
                self.take_idle(connection);
                if let Some(connection) = self.connections.get_mut(&connection) {
                    (connection.taken, connection.pool) = (terms.transactions_max, pool);
                }
                actions.push(Action::Assign { connection, jobs, terms });
            }
            Means::New | Means::Swap(_) | Means::Full | Means::Closed(_) => {
                let connection = self.open(Connection {
                    site: name.clone(),
                    source,
                    pool,
                    hosts: task.hosts.clone(),
                    domain: task.domain.clone(),
                    taken: terms.transactions_max,
                    closing: false,
                });
                let (site, domain) = (name.clone(), task.domain.clone());
                actions.push(Action::Open { connection, site, source: source_name, domain, jobs, terms });
            }
        }
        Turn::Served
    }

    fn count_turn(&mut self, name: &SiteName, at: usize, source: SourceId, now: Timestamp) {
        let Some(site) = self.sites.get_mut(name) else { return };
        let full = site.limits.connections;
        let Some(entry) = site.lane_mut(source) else { return };
        entry.used_at = now;
        let window = entry.lane.window(now);
        if let Some(queue) = site.queues.get_mut(at) {
            queue.took_turn(source, window, full);
        }
    }

    /// The job whose turn it is, and those of its message that stand behind it and lead to the same hosts.
    fn take_jobs(&mut self, name: &SiteName, at: usize, task: &Task) -> Vec<Lease> {
        let mut leases = Vec::new();
        if let Some(source) = task.keeps {
            let queue = self.sites.get_mut(name).and_then(|site| site.queues.get_mut(at));
            if let Some(line) = queue.and_then(|queue| queue.pinned.get_mut(&source)) {
                line.pop_front();
            }
            leases.extend(self.lease(task.key));
        } else {
            while leases.len() < self.settings.recipients_per_transaction_max {
                let Some(queue) = self.sites.get_mut(name).and_then(|site| site.queues.get_mut(at)) else { break };
                let Some((_, key)) = queue.fair.peek(&task.class, 1).next().filter(|(_, key)| key.id == task.key.id)
                else {
                    break;
                };
                if !self.leads_to(key, &task.hosts) {
                    break;
                }
                let Some(queue) = self.sites.get_mut(name).and_then(|site| site.queues.get_mut(at)) else { break };
                queue.fair.take(&task.class, 0);
                let ready = self.jobs.get(&key).is_some_and(|job| {
                    job.queued_at.as_ref() == Some(name) && job.state == JobState::Ready
                });
                leases.extend(if ready { self.lease(key) } else { None });
            }
        }
        for lease in &leases {
            if let Some(job) = self.jobs.get_mut(&lease.key) {
                job.queued_at = None;
            }
        }
        leases
    }

    /// Whether the hosts of a job's domain are these. A job that is gone leads anywhere: it is dropped on the way.
    fn leads_to(&self, key: JobKey, hosts: &SiteName) -> bool {
        let Some(job) = self.jobs.get(&key) else { return true };
        let destination = self.domains.get(&job.domain).and_then(|state| state.destination.as_ref());
        destination.is_none_or(|destination| destination.hosts == *hosts)
    }

    /// Takes what these jobs may send from all that limits it.
    fn charge(
        &mut self,
        name: &SiteName,
        pool: &PoolName,
        source: SourceId,
        jobs: &[Lease],
        now: Timestamp,
    ) -> Terms {
        let per_transaction = self.settings.recipients_per_transaction_max;
        let wanted = transactions_of(jobs, per_transaction);
        let alternative = self.has_alternative(name, pool, source, now);
        let mut allowed = wanted;
        for (_, meter) in self.fleet.meters(source, pool) {
            allowed = allowed.min(meter.lane.admits(wanted, now).unwrap_or(1));
        }
        let mut messages_per_connection_max = u32::MAX;
        if let Some(entry) = self.sites.get_mut(name).and_then(|site| site.lane_mut(source)) {
            allowed = allowed.min(entry.lane.admits(allowed, now).unwrap_or(1)).max(1);
            entry.lane.take(allowed, now);
            messages_per_connection_max = entry.lane.messages_per_connection();
        }
        for (key, meter) in self.fleet.meters(source, pool) {
            meter.lane.take(allowed, now);
            if meter.lane.wants_save(now) {
                self.dirty.insert(key.lane_name());
            }
        }
        self.note_dirty(name, source, now);
        Terms { transactions_max: allowed, messages_per_connection_max, alternative }
    }

    /// Whether another source of the pool could try what this one fails at for reasons of its own.
    pub(super) fn has_alternative(&self, name: &SiteName, pool: &PoolName, source: SourceId, now: Timestamp) -> bool {
        let Some(site) = self.sites.get(name) else { return false };
        let others = self.fleet.pool(pool).iter().filter(|member| member.source != source && member.tier == 0);
        others.into_iter().any(|member| site.lane(member.source).is_none_or(|entry| entry.lane.window(now) > 0))
    }

    /// An idle connection takes the next job that leads to its hosts, of those whose turn is near, before others have it closed.
    pub(super) fn serve_same_hosts(&mut self, id: ConnectionId, now: Timestamp) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (name, hosts) = (connection.site.clone(), connection.hosts.clone());
        let queues = self.sites.get(&name).map_or(0, |site| site.queues.len());
        for at in 0..queues {
            let Some(task) = self.next_task(&name, at, now).filter(|task| task.hosts != hosts) else { continue };
            let Some(queue) = self.sites.get(&name).and_then(|site| site.queues.get(at)) else { continue };
            let near = queue.fair.peek(&task.class, SAME_HOSTS_SCAN_MAX);
            let Some(place) = near.into_iter().find_map(|(place, key)| {
                let is_ready = self.jobs.get(&key).is_some_and(|job| job.state == JobState::Ready);
                (is_ready && self.leads_to(key, &hosts)).then_some(place)
            }) else {
                continue;
            };
            // To the front: the turn that follows finds it there.
            if let Some(queue) = self.sites.get_mut(&name).and_then(|site| site.queues.get_mut(at)) {
                queue.fair.bring_forward(&task.class, place);
            }
        }
    }
}

/// How many transactions jobs of one message may take.
fn transactions_of(jobs: &[Lease], recipients_per_transaction: usize) -> u32 {
    let known = jobs.iter().find_map(|lease| lease.payload.as_ref());
    let Some(Payload { message, .. }) = known else { return UNKNOWN_TRANSACTIONS };
    let recipients: usize = jobs.iter().map(|lease| message.pending(lease.key.group).count()).sum();
    let each_alone = message.sends_each_alone();
    let transactions = if each_alone { recipients } else { recipients.div_ceil(recipients_per_transaction.max(1)) };
    u32::try_from(transactions.max(1)).unwrap_or(u32::MAX)
}
