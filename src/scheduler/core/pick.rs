//! Which job goes next, by which source, on which connection.
//!
//! A site's queues (one a pool) take turns. Of a queue, [`FairQueue`] says whose turn it is; jobs that keep their source take
//! turns with the others of their priority, where that source is free. The job goes by the source whose turn it is
//! among those that can take it now ([`Look`]): each turn moves a source on by a stride that is shorter the more weight it has.
//!
//! [`FairQueue`]: crate::scheduler::fair::FairQueue

use std::sync::Arc;
use std::time::Duration;

use super::look::{Choice, Holds, Look, METER_PAUSE, Means, OVERFLOW_AFTER};
use super::{Connection, JobState, Scheduler};
use crate::policy::lane::{Cause, Lane, LaneState, Mode, WarmupOrder};
use crate::policy::limits::{LaneLimits, Rates};
use crate::queue::JobKey;
use crate::scheduler::class::Class;
use crate::scheduler::fleet::{Families, SourceId, meter_limits};
use crate::scheduler::sites::{LaneEntry, SetEntry, Site, SiteQueue, Slot};
use crate::scheduler::{Action, ConnectionId, LaneName, Lease, SiteName, Verdict};
use crate::types::{Domain, Timestamp};

/// Jobs of a flow that are looked through for one that an idle connection leads to, or that another address family reaches.
const SCAN_MAX: usize = 16;
/// A job keeps its source over the shares of a warm-up, up to this long a wait: a greylisting host would let another one begin anew.
const UNPINNED_AFTER: Duration = Duration::from_secs(4 * 3_600);
/// After a start that was not preceded by an orderly stop, what was sent right before it is unknown for so long.
const UNKNOWN_AFTER_START: Duration = Duration::from_secs(60);

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
        let Some(queue) = self.queue_at(name, at).filter(|queue| !queue.stuck) else { return Turn::Nothing };
        let kept_last = queue.kept_last;
        let kept = self.next_kept(name, at, now);
        let next = self.next_task(name, at, now);
        let kept_first = match (&kept, &next) {
            (Some((kept, _)), Some(next)) if kept.class.priority == next.class.priority => !kept_last,
            (Some((kept, _)), Some(next)) => kept.class.priority < next.class.priority,
            _ => true,
        };
        let (task, choice) = match (kept, next) {
            (Some((task, choice)), _) if kept_first => (task, choice),
            (kept, Some(next)) => {
                let (next, choice) = self.choose_next(name, at, next, now);
                match kept {
                    Some(kept) if matches!(choice, Choice::Wait(_)) => kept,
                    _ => (next, choice),
                }
            }
            _ => return Turn::Nothing,
        };
        let turn = self.perform(name, at, &task, choice, now, actions);
        // Who only waits had no turn.
        if matches!(turn, Turn::Served)
            && let Some(queue) = self.queue_at(name, at)
        {
            queue.kept_last = task.keeps.is_some();
        }
        turn
    }

    fn queue_at(&mut self, name: &SiteName, at: usize) -> Option<&mut SiteQueue> {
        self.sites.get_mut(name)?.queues.get_mut(at)
    }

    /// Which source takes the job whose turn it is. Hosts of one address family may have to wait where others need not: then
    /// the next ones are asked.
    fn choose_next(&mut self, name: &SiteName, at: usize, mut task: Task, now: Timestamp) -> (Task, Choice) {
        let mut choice = self.choose(name, at, &task, now);
        for _ in 0..SCAN_MAX {
            if task.lacks == Families::default() || !matches!(choice, Choice::Wait(_)) {
                break;
            }
            if let Some(queue) = self.queue_at(name, at) {
                queue.fair.send_back(&task.class);
            }
            let Some(other) = self.next_task(name, at, now) else { break };
            choice = self.choose(name, at, &other, now);
            task = other;
        }
        (task, choice)
    }

    /// The first of the jobs that keep their source whose source can take it.
    fn next_kept(&mut self, name: &SiteName, at: usize, now: Timestamp) -> Option<(Task, Choice)> {
        let sources: Vec<SourceId> = self.queue_at(name, at)?.pinned.keys().copied().collect();
        for source in sources {
            let Some(task) = self.kept_task(name, at, source, now) else { continue };
            // Where it has to wait, others need not.
            if let Some(choice) = self.choose_kept(name, at, &task, source, now) {
                return Some((task, choice));
            }
        }
        None
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
            Choice::Take(source, connection) => self.give_out(name, at, task, (source, connection), now, actions),
            Choice::Swap(connection) => {
                self.close(connection, actions);
                Turn::Nothing
            }
            Choice::NoConnection => Turn::NoConnection,
            Choice::Wait(until) => {
                if let Some(queue) = self.queue_at(name, at) {
                    // Hosts of another family may be within reach of another source.
                    queue.stuck = task.lacks == Families::default();
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

    /// The first job that keeps this source.
    fn kept_task(&mut self, name: &SiteName, at: usize, source: SourceId, now: Timestamp) -> Option<Task> {
        loop {
            let queue = self.queue_at(name, at)?;
            let line = queue.pinned.get_mut(&source)?;
            let Some(key) = line.front().copied() else {
                queue.pinned.remove(&source);
                return None;
            };
            if let Some(task) = self.task(name, key, Some(source), now) {
                return Some(task);
            }
            self.queue_at(name, at)?.pinned.get_mut(&source)?.pop_front();
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

    /// Whether and how the source that a job keeps takes it. Where that is out, the job keeps it no more.
    fn choose_kept(
        &mut self,
        name: &SiteName,
        at: usize,
        task: &Task,
        source: SourceId,
        now: Timestamp,
    ) -> Option<Choice> {
        let has_set = task.class.set.is_empty() || self.make_set(name, at, now);
        let made = if has_set { self.make_lane(name, source, now) } else { Made::NoRoom };
        let (means, reaches) = match made {
            Made::NoRoom => (Means::Closed(now.plus(METER_PAUSE), Holds::NoRoom), true),
            Made::Known | Made::New => {
                self.look(name, at, task, now, |look, _| (look.means(source), look.reaches(source)))?
            }
        };
        match means {
            // What a limit or a busy host makes wait keeps its source: another one would begin anew.
            means
                if !reaches
                    || (matches!(means, Means::Closed(..)) && self.is_out(name, source, now))
                    || is_frozen(means, now) =>
            {
                let job = self.jobs.get_mut(&task.key)?;
                job.source = None;
                let queue = self.queue_at(name, at)?;
                queue.pinned.get_mut(&source)?.pop_front();
                queue.fair.push(&task.class, task.key);
                None
            }
            Means::Closed(until, _) => {
                self.set_alarm(name, until);
                None
            }
            Means::Full(_) => None,
            Means::Swap(connection) => Some(Choice::Swap(connection)),
            Means::New if !self.may_connect_to(name) => Some(Choice::NoConnection),
            Means::New => Some(Choice::Take(source, None)),
            Means::Idle(connection) => Some(Choice::Take(source, Some(connection))),
        }
    }

    /// Whether a source cannot be used at a site: it is blocked there, or could not reach it several times.
    fn is_out(&self, name: &SiteName, source: SourceId, now: Timestamp) -> bool {
        let Some(entry) = self.sites.get(name).and_then(|site| site.lane(source)) else { return false };
        match entry.lane.mode(now) {
            Some(Mode::Blocked) => true,
            Some(Mode::Unreachable) => {
                entry.lane.closed_until(now).is_some_and(|until| until >= now.plus(OVERFLOW_AFTER))
            }
            _ => false,
        }
    }

    fn may_connect_to(&self, name: &SiteName) -> bool {
        self.sites.get(name).is_some_and(|site| self.may_connect(site.is_proven()))
    }

    /// Looks at the lanes of a site for a job of one of its queues.
    fn look<T>(
        &mut self,
        name: &SiteName,
        at: usize,
        task: &Task,
        now: Timestamp,
        question: impl FnOnce(&mut Look<'_>, (&[Slot], &mut u64)) -> T,
    ) -> Option<T> {
        let may_connect = self.may_connect_to(name);
        let site = self.sites.get_mut(name)?;
        let may_open = site.may_open(now);
        let Site { lanes, with_idle, queues, sets, .. } = site;
        let SiteQueue { pool, set, slots, turn, .. } = queues.get_mut(at)?;
        let mut look = Look {
            site: name,
            pool,
            hosts: &task.hosts,
            lacks: task.lacks,
            may_open,
            may_connect,
            lanes,
            with_idle,
            set: sets.iter_mut().find(|entry| entry.set == *set),
            prefers_warming: task.class.prefers_warming,
            fleet: &mut self.fleet,
            dirty: &mut self.dirty,
            now,
        };
        Some(question(&mut look, (slots, turn)))
    }

    /// The source whose turn it is among those that can take a job.
    fn choose(&mut self, name: &SiteName, at: usize, task: &Task, now: Timestamp) -> Choice {
        if !task.class.set.is_empty() && !self.make_set(name, at, now) {
            return Choice::Wait(now.plus(METER_PAUSE));
        }
        loop {
            let choice = self.look(name, at, task, now, |look, (slots, turn)| look.choose(slots, turn));
            let choice = choice.unwrap_or(Choice::Wait(Timestamp::MAX));
            let Choice::Take(source, None) = choice else { return choice };
            match self.make_lane(name, source, now) {
                Made::Known => return choice,
                // It may have a limit that must be on disk before anything is sent.
                Made::New => {}
                Made::NoRoom => return Choice::Wait(now.plus(METER_PAUSE)),
            }
        }
    }

    /// Makes the lane of a source at a site, where there is none and room for one.
    fn make_lane(&mut self, name: &SiteName, source: SourceId, now: Timestamp) -> Made {
        let Some(site) = self.sites.get(name) else { return Made::NoRoom };
        if site.lane(source).is_some() {
            return Made::Known;
        }
        let (limits, provider) = (site.limits, site.provider.clone());
        let lane_name = LaneName::Lane(name.clone(), self.fleet.name(source));
        if !self.has_room_for(&lane_name, now) {
            return Made::NoRoom;
        }
        let lane = self.lane_of_old(&lane_name, limits, provider.as_deref(), now);
        self.saved.remove(&lane_name);
        // Its record is needed again.
        self.forgotten.remove(&lane_name);
        let seed = crate::queue::fnv1a(format!("{name} {}", self.fleet.name(source)).as_bytes()) & u128::from(u64::MAX);
        let Some(site) = self.sites.get_mut(name) else { return Made::NoRoom };
        let lane = lane.with_seed(u64::try_from(seed).unwrap_or_default());
        site.add_lane(LaneEntry::new(source, lane, now));
        if site.lane(source).is_some_and(|entry| entry.lane.is_blocked()) {
            // An event told of it before the start.
            site.newly_blocked();
        }
        self.lanes += 1;
        Made::New
    }

    /// A lane that is not in memory: as it was saved before the start, or new.
    pub(super) fn lane_of_old(
        &self,
        name: &LaneName,
        limits: LaneLimits,
        provider: Option<&str>,
        now: Timestamp,
    ) -> Lane {
        let plan = match name {
            LaneName::Lane(_, source) => self.settings.warmup.of_source(source, provider),
            LaneName::Set(_, set) => self.settings.warmup.of_set(set, provider),
            LaneName::Source(_) | LaneName::Pool(_) => None,
        };
        let mut lane = match self.saved.get(name) {
            Some(state) => {
                let mut lane = Lane::restore(state, limits, self.unclean, now);
                if let Some(plan) = plan {
                    lane.restore_warmup(plan, state, self.unclean, now);
                }
                return lane;
            }
            // What the run before sent in its last minute may not be known.
            None if self.unclean && now < self.started_at.plus(UNKNOWN_AFTER_START) => {
                Lane::restore(&LaneState::default(), limits, true, self.started_at)
            }
            None => Lane::new(limits, now),
        };
        // Of a new one there is nothing to tell.
        lane.set_warmup(plan, now);
        if let LaneName::Lane(_, source) = name
            && let Some(first) = self.settings.warmup.first_days.get(source)
        {
            lane.order_warmup(WarmupOrder::SetPosition(*first), now);
        }
        lane
    }

    /// Whether there is room for a lane that is not in memory. Those of before the start count: their records are on disk.
    fn has_room_for(&mut self, name: &LaneName, now: Timestamp) -> bool {
        let is_full = self.lanes + self.saved.len() >= self.settings.lanes_max;
        !is_full || self.saved.contains_key(name) || self.forget_lanes(now)
    }

    /// Makes what the configuration set of a queue may send there, where that warms up. `false`: there is no room for it.
    fn make_set(&mut self, name: &SiteName, at: usize, now: Timestamp) -> bool {
        let Some(site) = self.sites.get(name) else { return false };
        let Some(queue) = site.queues.get(at).filter(|queue| !queue.set.is_empty()) else { return true };
        let set = queue.set.clone();
        if site.sets.iter().any(|entry| entry.set == set) {
            return true;
        }
        let provider = site.provider.clone();
        let lane_name = LaneName::Set(name.clone(), set.clone());
        if !self.has_room_for(&lane_name, now) {
            return false;
        }
        let lane = self.lane_of_old(&lane_name, meter_limits(Rates::default()), provider.as_deref(), now);
        self.saved.remove(&lane_name);
        self.forgotten.remove(&lane_name);
        let Some(site) = self.sites.get_mut(name) else { return false };
        site.sets.push(SetEntry { set, lane: Box::new(lane) });
        self.lanes += 1;
        true
    }

    /// Gives the job out whose turn it is, with others of its message that can share its transaction: by a source, on its idle
    /// connection or a new one.
    fn give_out(
        &mut self,
        name: &SiteName,
        at: usize,
        task: &Task,
        (source, idle): (SourceId, Option<ConnectionId>),
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) -> Turn {
        let jobs = self.take_jobs(name, at, task);
        let queue = self.queue_at(name, at).map(|queue| (queue.pool.clone(), queue.set.clone()));
        let Some((pool, set)) = queue.filter(|_| !jobs.is_empty()) else {
            return Turn::Served;
        };
        let (terms, taken) = self.charge(name, (&pool, &set), source, &jobs, task.lacks, now);
        if let Some(queue) = self.queue_at(name, at) {
            queue.fair.served(&task.class, jobs.len().max(usize::try_from(taken).unwrap_or(1)));
        }
        self.count_turn(name, at, source, now);
        if let Some(id) = idle {
            self.take_idle(id);
            if let Some(connection) = self.connections.get_mut(&id) {
                (connection.taken, connection.pool, connection.set) = (taken, pool, set);
            }
            actions.push(Action::Assign { connection: id, jobs, terms });
            return Turn::Served;
        }
        let (site, domain, hosts) = (name.clone(), task.domain.clone(), task.hosts.clone());
        let connection = self.open(Connection { site, source, pool, set, hosts, domain, taken, closing: false });
        let (site, source, domain) = (name.clone(), self.fleet.name(source), task.domain.clone());
        actions.push(Action::Open { connection, site, source, domain, jobs, terms });
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
            if let Some(line) = self.queue_at(name, at).and_then(|queue| queue.pinned.get_mut(&source)) {
                line.pop_front();
            }
            leases.extend(self.lease(task.key));
        } else {
            while leases.len() < self.settings.recipients_per_transaction_max {
                let first = self.queue_at(name, at).and_then(|queue| queue.fair.peek(&task.class, 1).next());
                let Some((place, key)) = first.filter(|(_, key)| key.id == task.key.id) else { break };
                if !self.leads_to(key, &task.hosts) {
                    break;
                }
                if let Some(queue) = self.queue_at(name, at) {
                    queue.fair.take(&task.class, place);
                }
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
            let near = queue.fair.peek(&task.class, SCAN_MAX);
            let Some(place) = near.into_iter().find_map(|(place, key)| {
                let is_ready = self.jobs.get(&key).is_some_and(|job| job.state == JobState::Ready);
                (is_ready && self.leads_to(key, &hosts)).then_some(place)
            }) else {
                continue;
            };
            // To the front: the turn that follows finds it there.
            if let Some(queue) = self.queue_at(&name, at) {
                queue.fair.bring_forward(&task.class, place);
            }
        }
    }
}

/// Whether the warm-up of its source there is frozen: what keeps its source would wait for hours.
fn is_frozen(means: Means, now: Timestamp) -> bool {
    matches!(means, Means::Closed(until, Holds::Lane(Cause::WarmUp)) if until >= now.plus(UNPINNED_AFTER))
}
