//! Which job goes next, by which source, on which connection.
//!
//! A site's queues (one a pool) take turns. Of a queue, jobs that keep their source go first where that source is free; of
//! the others, [`FairQueue`] says whose turn it is. The job then goes by the source whose turn it is among those that can
//! take it now: each turn moves a source on by a stride that is shorter the more weight it has.
//!
//! [`FairQueue`]: crate::scheduler::fair::FairQueue

use std::sync::Arc;
use std::time::Duration;

use super::look::{METER_PAUSE, Means, Place, look};
use super::{Connection, JobState, Scheduler};
use crate::policy::lane::{Lane, LaneState};
use crate::queue::JobKey;
use crate::scheduler::class::Class;
use crate::scheduler::fleet::{Families, Fleet, SourceId};
use crate::scheduler::sites::{Site, Slot};
use crate::scheduler::{Action, ConnectionId, LaneName, Lease, SiteName, Verdict};
use crate::types::{Domain, Timestamp};

/// A pool's mail goes by its overflow pool where all its own sources are closed for at least this long.
pub(super) const OVERFLOW_AFTER: Duration = Duration::from_secs(60);
/// Jobs of a flow that are looked through for one that an idle connection leads to.
const SAME_HOSTS_SCAN_MAX: usize = 16;

/// Turns that a source may be ahead of the others at a site while it has an idle connection there: a new connection costs
/// more than a turn.
pub(super) const IDLE_TURNS_AHEAD: u64 = 8;

/// After a start that was not preceded by an orderly stop, what was sent right before it is unknown for so long.
pub(super) const UNKNOWN_AFTER_START: Duration = Duration::from_secs(60);

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

/// Whether a lane is there.
enum Made {
    Known,
    New,
    /// There are too many, and all are in use.
    NoRoom,
}

/// The lane that takes a job.
enum Choice {
    Take(SourceId, Means),
    Swap(ConnectionId),
    /// There are too many connections to open one more.
    NoConnection,
    /// No lane can take it before then; `stuck`: nor any other job.
    Wait {
        until: Timestamp,
        stuck: bool,
    },
}

impl Scheduler {
    /// Gives ready jobs of a site to its idle connections, and opens more where that is allowed.
    pub(super) fn serve(&mut self, name: &SiteName, now: Timestamp, actions: &mut Vec<Action>) {
        let mut turns_without = 0;
        while !self.draining {
            let Some(site) = self.sites.get_mut(name) else { return };
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
        let is_stuck = self.sites.get(name).and_then(|site| site.queues.get(at)).is_none_or(|queue| queue.stuck);
        if is_stuck {
            return Turn::Nothing;
        }
        // Jobs that keep their source take turns with the others of their priority.
        let kept = self.next_kept(name, at, now);
        let next = self.next_task(name, at, now);
        let kept_last = self.sites.get(name).and_then(|site| site.queues.get(at)).is_some_and(|queue| queue.kept_last);
        let goes_first = |kept: &Task| {
            next.as_ref().is_none_or(|next| {
                let (own, other) = (kept.class.priority, next.class.priority);
                own < other || (own == other && !kept_last)
            })
        };
        if let Some((task, choice)) = kept {
            if goes_first(&task) {
                return self.give_turn(name, at, &task, choice, now, actions);
            }
            let Some(next) = next else { return Turn::Nothing };
            let next_choice = self.choose(name, at, &next, now);
            let waits = matches!(next_choice, Choice::Wait { .. });
            let (task, choice) = if waits { (task, choice) } else { (next, next_choice) };
            return self.give_turn(name, at, &task, choice, now, actions);
        }
        let Some(mut next) = next else { return Turn::Nothing };
        let mut choice = self.choose(name, at, &next, now);
        // Hosts of one address family may have to wait where others need not.
        for _ in 0..SAME_HOSTS_SCAN_MAX {
            if next.lacks == Families::default() || !matches!(choice, Choice::Wait { .. }) {
                break;
            }
            self.send_back(name, at, &next);
            let Some(other) = self.next_task(name, at, now) else { break };
            next = other;
            choice = self.choose(name, at, &next, now);
        }
        self.give_turn(name, at, &next, choice, now, actions)
    }

    /// The first of the jobs that keep their source whose source can take it.
    fn next_kept(&mut self, name: &SiteName, at: usize, now: Timestamp) -> Option<(Task, Choice)> {
        for source in self.kept_sources(name, at) {
            let Some(task) = self.kept_task(name, at, source, now) else { continue };
            // Where it has to wait, others need not.
            if let Some(choice) = self.choose_kept(name, at, &task, source, now) {
                return Some((task, choice));
            }
        }
        None
    }

    /// The first job of a class becomes its last.
    fn send_back(&mut self, name: &SiteName, at: usize, task: &Task) {
        if let Some(queue) = self.sites.get_mut(name).and_then(|site| site.queues.get_mut(at)) {
            queue.fair.send_back(&task.class);
        }
    }

    fn give_turn(
        &mut self,
        name: &SiteName,
        at: usize,
        task: &Task,
        choice: Choice,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) -> Turn {
        if let Some(queue) = self.sites.get_mut(name).and_then(|site| site.queues.get_mut(at)) {
            queue.kept_last = task.keeps.is_some();
        }
        self.perform(name, at, task, choice, now, actions)
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
                if let Some(queue) = self.sites.get_mut(name).and_then(|site| site.queues.get_mut(at)) {
                    queue.stuck = stuck;
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
        let lacks = self.fleet.source(source).is_some_and(|source| task.lacks.has(source.family));
        match self.means(name, at, source, task, now) {
            // What a limit or a busy host makes wait keeps its source: another one would begin anew.
            means if lacks || (matches!(means, Means::Closed(_)) && self.is_out(name, source, now)) => {
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

    /// Whether a source cannot be used at a site: it is blocked there, or could not reach it several times.
    fn is_out(&self, name: &SiteName, source: SourceId, now: Timestamp) -> bool {
        let lane = self.sites.get(name).and_then(|site| site.lane(source));
        let trouble = lane.and_then(|entry| entry.lane.trouble(now));
        let for_long = |until: Option<Timestamp>| until.is_none_or(|until| until >= now.plus(OVERFLOW_AFTER));
        trouble.is_some_and(|trouble| match trouble.mode {
            "blocked" => true,
            "unreachable" => for_long(trouble.until),
            _ => false,
        })
    }

    fn may_connect_to(&self, name: &SiteName) -> bool {
        self.sites.get(name).is_some_and(|site| self.may_connect(site.is_proven()))
    }

    /// The source whose turn it is among those that can take a job.
    fn choose(&mut self, name: &SiteName, at: usize, task: &Task, now: Timestamp) -> Choice {
        let may_connect = self.may_connect_to(name);
        let mut choice = self.look_at_slots(name, at, task, may_connect, now);
        // A new lane may have a limit that must be on disk before anything is sent.
        while let Choice::Take(source, Means::New) = choice {
            match self.make_lane(name, source, now) {
                Made::Known => break,
                Made::New => choice = self.look_at_slots(name, at, task, may_connect, now),
                Made::NoRoom => return Choice::Wait { until: now.plus(METER_PAUSE), stuck: false },
            }
        }
        choice
    }

    fn look_at_slots(&mut self, name: &SiteName, at: usize, task: &Task, may_connect: bool, now: Timestamp) -> Choice {
        let Some(site) = self.sites.get_mut(name) else { return Choice::Wait { until: Timestamp::MAX, stuck: false } };
        let may_open = site.may_open(now);
        let Site { lanes, queues, .. } = site;
        let Some(queue) = queues.get_mut(at) else { return Choice::Wait { until: Timestamp::MAX, stuck: false } };
        let mut least_pass = u64::MAX;
        let fleet = &mut self.fleet;
        // Where no source is of a family that the hosts have, the one whose turn it is finds that out anew.
        let reaches = |fleet: &Fleet, slot: &Slot| {
            task.lacks == Families::default()
                || fleet.source(slot.source).is_none_or(|source| !task.lacks.has(source.family))
        };
        let anyway = !queue.slots.iter().any(|slot| reaches(fleet, slot));
        let mut best: Option<(u64, SourceId, Means)> = None;
        let (mut swap, mut no_connection) = (None, false);
        let (mut until, mut tier, mut closed) = (Timestamp::MAX, 0, true);
        for slot in &queue.slots {
            if slot.tier > tier {
                if !closed || best.is_some() {
                    break;
                }
                tier = slot.tier;
            }
            let pass = slot.pass.max(queue.turn);
            let if_idle = pass.saturating_sub(IDLE_TURNS_AHEAD * slot.stride);
            let is_better = |rank: u64| best.is_none_or(|(least, ..)| rank < least);
            // Only who has the least is looked for.
            if !is_better(if_idle) || !(anyway || reaches(fleet, slot)) {
                continue;
            }
            let place = Place { site: name, pool: &queue.pool, hosts: &task.hosts, may_open };
            match look(lanes, fleet, slot.source, &place, &mut self.dirty, now) {
                Means::Closed(end) => {
                    until = until.min(end);
                    closed &= end >= now.plus(OVERFLOW_AFTER);
                    continue;
                }
                Means::Full => {}
                Means::Swap(connection) => swap = swap.or(Some(connection)),
                Means::New if !may_connect => no_connection = true,
                means @ Means::Idle(_) => {
                    least_pass = least_pass.min(pass);
                    best = Some((if_idle, slot.source, means));
                }
                Means::New => {
                    least_pass = least_pass.min(pass);
                    if is_better(pass) {
                        best = Some((pass, slot.source, Means::New));
                    }
                }
            }
            closed = false;
        }
        if least_pass < u64::MAX {
            queue.turn = queue.turn.max(least_pass);
        }
        match (best, swap) {
            (Some((_, source, means)), _) => Choice::Take(source, means),
            (None, Some(connection)) => Choice::Swap(connection),
            (None, None) if no_connection => Choice::NoConnection,
            // Hosts of another family may be within reach of another source.
            (None, None) => Choice::Wait { until, stuck: task.lacks == Families::default() },
        }
    }

    /// How the source that a job keeps can take it now.
    fn means(&mut self, name: &SiteName, at: usize, source: SourceId, task: &Task, now: Timestamp) -> Means {
        if matches!(self.make_lane(name, source, now), Made::NoRoom) {
            return Means::Closed(now.plus(METER_PAUSE));
        }
        let Some(site) = self.sites.get_mut(name) else { return Means::Full };
        let may_open = site.may_open(now);
        let Site { lanes, queues, .. } = site;
        let Some(queue) = queues.get(at) else { return Means::Full };
        let place = Place { site: name, pool: &queue.pool, hosts: &task.hosts, may_open };
        look(lanes, &mut self.fleet, source, &place, &mut self.dirty, now)
    }

    /// Makes the lane of a source at a site, where there is none and room for one.
    fn make_lane(&mut self, name: &SiteName, source: SourceId, now: Timestamp) -> Made {
        let Some(site) = self.sites.get(name) else { return Made::NoRoom };
        if site.lane(source).is_some() {
            return Made::Known;
        }
        if self.lanes >= self.settings.lanes_max && !self.forget_lanes(now) {
            return Made::NoRoom;
        }
        let source_name = self.fleet.name(source);
        let seed = crate::queue::fnv1a(format!("{name} {source_name}").as_bytes()) & u128::from(u64::MAX);
        let saved = self.saved.remove(&LaneName::Lane(name.clone(), source_name));
        let Some(site) = self.sites.get_mut(name) else { return Made::NoRoom };
        let lane = match saved {
            Some(state) => Lane::restore(&state, site.limits, self.unclean, now),
            // What the run before sent in its last minute may not be known.
            None if self.unclean && now < self.started_at.plus(UNKNOWN_AFTER_START) => {
                Lane::restore(&LaneState::default(), site.limits, true, self.started_at)
            }
            None => Lane::new(site.limits, now),
        };
        site.add_lane(source, lane.with_seed(u64::try_from(seed).unwrap_or_default()), now);
        site.note_blocked(source, now);
        self.lanes += 1;
        Made::New
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
        let (terms, taken) = self.charge(name, &pool, source, &jobs, task.lacks, now);
        let source_name = self.fleet.name(source);
        if let Some(queue) = self.sites.get_mut(name).and_then(|site| site.queues.get_mut(at)) {
            queue.fair.served(&task.class, jobs.len().max(usize::try_from(taken).unwrap_or(1)));
        }
        self.count_turn(name, at, source, now);
        match means {
            Means::Idle(connection) => {
                self.take_idle(connection);
                if let Some(connection) = self.connections.get_mut(&connection) {
                    (connection.taken, connection.pool) = (taken, pool);
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
                    taken,
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
                let ready = self
                    .jobs
                    .get(&key)
                    .is_some_and(|job| job.queued_at.as_ref() == Some(name) && job.state == JobState::Ready);
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
