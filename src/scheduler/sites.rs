//! One site: its lanes, its queues by pool, its connections, and whether it can be reached at all.
//!
//! A lane is what one source may do there (`policy::lane`). Whether the site is there at all is known for all sources
//! together: where two of them cannot reach it, or the only one, all wait, and one probe goes out at growing intervals. Until a
//! site has taken a message, all sources together may have no more connections than one of them may.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::ConnectionId;
use super::SiteName;
use super::class::Class;
use super::fair::FairQueue;
use super::fleet::{Fleet, SourceId, SourceSet};
use crate::policy::lane::{Health, Lane, Reach};
use crate::policy::limits::LaneLimits;
use crate::queue::{JobKey, fnv1a};
use crate::types::{PoolName, Timestamp};

/// What a slot's turn costs, divided by its weight.
const STRIDE: u64 = 1 << 24;

/// A lane with its connections.
#[derive(Clone, Debug)]
pub(super) struct LaneEntry {
    pub(super) source: SourceId,
    pub(super) lane: Box<Lane>,
    /// Open connections.
    pub(super) connections: u32,
    /// Of those, the unused ones with the hosts that they lead to, most recently used last.
    pub(super) idle: Vec<(ConnectionId, SiteName)>,
    /// Connections that were told to close and have not yet.
    pub(super) closing: u32,
    pub(super) used_at: Timestamp,
}

impl LaneEntry {
    /// A lane without connections.
    pub(super) fn new(source: SourceId, lane: Lane, now: Timestamp) -> Self {
        Self { source, lane: Box::new(lane), connections: 0, idle: Vec::new(), closing: 0, used_at: now }
    }
}

/// A source's place in a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) source: SourceId,
    pub(super) tier: u8,
    /// What one turn costs it: less with more weight.
    pub(super) stride: u64,
    /// The sum of its turns: who has the least is next.
    pub(super) pass: u64,
}

/// What a configuration set that warms up may send to a site, by all sources.
#[derive(Clone, Debug)]
pub(super) struct SetEntry {
    pub(super) set: Box<str>,
    /// Without limits but those of the warm-up.
    pub(super) lane: Box<Lane>,
}

/// What waits at a site for the sources of one pool.
#[derive(Debug)]
pub(super) struct SiteQueue {
    pub(super) pool: PoolName,
    /// A configuration set that warms up has queues of its own; otherwise empty.
    pub(super) set: Box<str>,
    pub(super) slots: Vec<Slot>,
    /// The least pass of those that could take the last job: who comes back has no turns to catch up on.
    pub(super) turn: u64,
    pub(super) fair: FairQueue,
    /// Jobs that keep the source of their last attempt (greylisted ones).
    pub(super) pinned: BTreeMap<SourceId, VecDeque<JobKey>>,
    /// An event told that all its sources are blocked.
    pub(super) blocked: bool,
    /// No lane could take any job when it was last looked at: nothing changes that but an event of the site.
    pub(super) stuck: bool,
    /// The last turn was that of a job that keeps its source.
    pub(super) kept_last: bool,
}

impl SiteQueue {
    /// One in which nothing waits.
    pub(super) fn new(site: &SiteName, (pool, set): (PoolName, &str), fleet: &Fleet) -> Self {
        let mut queue = Self {
            pool,
            set: set.into(),
            slots: Vec::new(),
            turn: 0,
            fair: FairQueue::default(),
            pinned: BTreeMap::new(),
            blocked: false,
            stuck: false,
            kept_last: false,
        };
        queue.reload(site, fleet);
        queue
    }

    /// The sources of its pool now. Each begins somewhere within its stride, by the name of the site, so that sites with one
    /// message each do not all begin with the same source.
    fn reload(&mut self, site: &SiteName, fleet: &Fleet) {
        let turn = self.turn;
        let slot = |member: &super::fleet::PoolMember| {
            let stride = STRIDE / u64::from(member.weight);
            let name = fleet.name(member.source);
            let hash = fnv1a(format!("{site} {name}").as_bytes());
            let start = u64::try_from(hash % u128::from(stride.max(1))).unwrap_or_default();
            Slot { source: member.source, tier: member.tier, stride, pass: turn + start }
        };
        self.slots = fleet.pool(&self.pool).iter().map(slot).collect();
    }

    /// Whether nothing waits, as far as is known without a look at the jobs.
    pub(super) fn is_idle(&self) -> bool {
        self.fair.is_idle() && self.pinned.values().all(VecDeque::is_empty)
    }

    /// All keys out of all lines, in order.
    pub(super) fn drain(&mut self) -> Vec<JobKey> {
        let pinned = std::mem::take(&mut self.pinned);
        pinned.into_values().flatten().chain(self.fair.drain()).collect()
    }

    /// A slot had its turn.
    pub(super) fn took_turn(&mut self, source: SourceId, window: u32, full_window: u32) {
        let turn = self.turn;
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.source == source) else { return };
        // A lane that recovers has a share of the mail that fits its share of the connections.
        let slowdown = u64::from(full_window.max(1)) / u64::from(window.max(1));
        let pass = slot.pass.max(turn);
        slot.pass = pass + slot.stride * slowdown.clamp(1, 64);
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) provider: Option<Arc<str>>,
    /// See [`super::fleet::Destination::own_pool`].
    pub(super) own_pool: Option<PoolName>,
    pub(super) limits: LaneLimits,
    pub(super) lanes: Vec<LaneEntry>,
    /// The sources that have an idle connection here.
    pub(super) with_idle: SourceSet,
    pub(super) sets: Vec<SetEntry>,
    pub(super) queues: Vec<SiteQueue>,
    /// Whose turn it is, among the queues.
    pub(super) next_queue: usize,
    /// Open connections of all lanes.
    pub(super) connections: usize,
    /// It stands in the line for a connection.
    pub(super) in_line: bool,
    /// Whether it can be reached, by any source.
    pub(super) reach: Reach,
    /// The last failure to reach it.
    pub(super) failure: Option<Box<str>>,
    /// The source that could not reach it, since the last that could.
    pub(super) failed_by: Option<SourceId>,
    /// At a provider's site: the hosts that could not be reached last. Others must fail, too, before it is the site.
    pub(super) failed_hosts: Option<SiteName>,
    /// When it is looked at again.
    pub(super) alarm: Option<Timestamp>,
}

impl Site {
    /// A site of which nothing is known.
    pub(super) fn new(name: &SiteName, provider: Option<Arc<str>>, limits: LaneLimits) -> Self {
        Self {
            provider,
            own_pool: None,
            limits,
            lanes: Vec::new(),
            with_idle: SourceSet::default(),
            sets: Vec::new(),
            queues: Vec::new(),
            next_queue: 0,
            connections: 0,
            in_line: false,
            reach: Reach::new(seed_of(name)),
            failure: None,
            failed_by: None,
            failed_hosts: None,
            alarm: None,
        }
    }

    /// One whose mail all goes by this pool, if any.
    pub(super) fn with_pool(self, own_pool: Option<PoolName>) -> Self {
        Self { own_pool, ..self }
    }

    /// It is the mailbox simulator: nothing that it says is of a source, and nothing that goes there is of a warm-up.
    pub(super) fn is_simulated(&self) -> bool {
        self.own_pool.is_some()
    }

    /// The queue that mail of a pool, and of a set where that warms up, stands in.
    pub(super) fn place<'s>(&self, pool: &PoolName, set: &'s str, fleet: &Fleet) -> (PoolName, &'s str) {
        match &self.own_pool {
            Some(own) => (fleet.effective(own), ""),
            None => (fleet.effective(pool), fleet.effective_set(set)),
        }
    }

    /// Something of the site changed: all its queues are looked at again.
    pub(super) fn unstick(&mut self) {
        for queue in &mut self.queues {
            queue.stuck = false;
        }
    }

    /// Whether it is known to work: mail went there, and since then it could be reached.
    pub(super) fn is_proven(&self) -> bool {
        self.reach.is_proven()
    }

    /// Until when nothing is sent there by any source, if that is so at `now`.
    pub(super) fn down_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.reach.suspended_until(now)
    }

    /// Whether one more connection may be opened, as far as the site as a whole says.
    pub(super) fn may_open(&self, now: Timestamp) -> bool {
        let total = self.connections_max(now).unwrap_or(u32::MAX);
        self.down_until(now).is_none() && self.connections < usize::try_from(total).unwrap_or(usize::MAX)
    }

    /// Connections that all sources together may have now, where that is limited.
    pub(super) fn connections_max(&self, now: Timestamp) -> Option<u32> {
        let total = self.limits.connections_total;
        let total = if self.is_proven() { total } else { Some(total.unwrap_or(u32::MAX).min(self.limits.connections)) };
        if self.reach.is_probing(now) { Some(1) } else { total }
    }

    pub(super) fn lane(&self, source: SourceId) -> Option<&LaneEntry> {
        self.lanes.get(lane_place(&self.lanes, source)?)
    }

    pub(super) fn lane_mut(&mut self, source: SourceId) -> Option<&mut LaneEntry> {
        let at = lane_place(&self.lanes, source)?;
        self.lanes.get_mut(at)
    }

    /// Those of sources and of sets.
    pub(super) fn all_lanes_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        let sets = self.sets.iter_mut().map(|entry| &mut *entry.lane);
        self.lanes.iter_mut().map(|entry| &mut *entry.lane).chain(sets)
    }

    /// Puts a lane where there is none.
    pub(super) fn add_lane(&mut self, entry: LaneEntry) {
        if let Err(at) = self.lanes.binary_search_by_key(&entry.source, |entry| entry.source) {
            self.lanes.insert(at, entry);
        }
    }

    /// A connection has nothing to do.
    pub(super) fn put_idle(&mut self, source: SourceId, id: ConnectionId, hosts: SiteName) {
        let Some(entry) = self.lane_mut(source) else { return };
        entry.idle.push((id, hosts));
        self.with_idle.set(source, true);
    }

    /// It has, or is gone.
    pub(super) fn take_idle(&mut self, source: SourceId, id: ConnectionId) {
        let Some(entry) = self.lane_mut(source) else { return };
        entry.idle.retain(|(idle, _)| *idle != id);
        let has_more = !entry.idle.is_empty();
        self.with_idle.set(source, has_more);
    }

    /// Whether all sources of a queue are blocked here.
    pub(super) fn is_blocked(&self, queue: &SiteQueue) -> bool {
        let blocked = |slot: &Slot| self.lane(slot.source).is_some_and(|entry| entry.lane.is_blocked());
        !queue.slots.is_empty() && queue.slots.iter().all(blocked)
    }

    /// The queues of which it is not told yet that all their sources are blocked, or are no more; from now on it is.
    pub(super) fn newly_blocked(&mut self) -> Vec<(PoolName, bool)> {
        let now_blocked: Vec<bool> = self.queues.iter().map(|queue| self.is_blocked(queue)).collect();
        let changed =
            self.queues.iter_mut().zip(now_blocked).filter(|(queue, is_blocked)| queue.blocked != *is_blocked);
        let mut told: Vec<(PoolName, bool)> = Vec::new();
        for (queue, is_blocked) in changed {
            queue.blocked = is_blocked;
            // Queues of one pool have the same sources.
            if told.iter().all(|(pool, _)| *pool != queue.pool) {
                told.push((queue.pool.clone(), is_blocked));
            }
        }
        told
    }

    /// The queue of a class; made where there is none.
    pub(super) fn queue_of(&mut self, name: &SiteName, class: &Class, fleet: &Fleet) -> &mut SiteQueue {
        let (pool, set) = self.place(&class.pool, &class.set, fleet);
        let at = self.queues.iter().position(|queue| queue.pool == pool && *queue.set == *set).unwrap_or_else(|| {
            self.queues.push(SiteQueue::new(name, (pool, set), fleet));
            self.queues.len() - 1
        });
        self.queues.get_mut(at).expect("it was pushed if it was not there")
    }

    /// The queue of a class, if there is one.
    pub(super) fn queue(&self, class: &Class, fleet: &Fleet) -> Option<&SiteQueue> {
        self.queue_named(&class.pool, &class.set, fleet)
    }

    /// The queue of a pool, and of a set where that is not empty.
    pub(super) fn queue_named(&self, pool: &PoolName, set: &str, fleet: &Fleet) -> Option<&SiteQueue> {
        let (pool, set) = self.place(pool, set, fleet);
        self.queues.iter().find(|queue| queue.pool == pool && *queue.set == *set)
    }

    /// What a set that warms up may send here.
    pub(super) fn set_mut(&mut self, set: &str) -> Option<&mut Lane> {
        self.sets.iter_mut().find(|entry| *entry.set == *set).map(|entry| &mut *entry.lane)
    }

    /// Ready jobs in memory.
    pub(super) fn ready_jobs(&self) -> usize {
        self.queues.iter().map(|queue| queue.fair.ready_jobs()).sum()
    }

    /// Other limits, other pools. The jobs in line must have been taken out before. What sets may send stays, for when they come back.
    pub(super) fn reload(&mut self, name: &SiteName, limits: LaneLimits, fleet: &Fleet, now: Timestamp) {
        self.limits = limits;
        self.unstick();
        for entry in &mut self.lanes {
            entry.lane.set_limits(limits, now);
        }
        let is_there = |queue: &SiteQueue| {
            fleet.effective(&queue.pool) == queue.pool && *fleet.effective_set(&queue.set) == *queue.set
        };
        self.queues.retain(is_there);
        for queue in &mut self.queues {
            queue.reload(name, fleet);
        }
    }

    /// Takes in whether a source could reach it. `alone`: no other source could try.
    pub(super) fn learn(&mut self, health: &Health, source: SourceId, alone: bool, now: Timestamp) {
        match health {
            Health::Good => {
                (self.failed_by, self.failure, self.failed_hosts) = (None, None, None);
                self.reach.good(self.limits.connections);
            }
            Health::Unreachable(words) => {
                self.failure = Some(words.clone());
                let other = self.failed_by.is_some_and(|first| first != source);
                if alone || other || self.reach.is_probing(now) {
                    self.reach.failed(now);
                }
                self.failed_by.get_or_insert(source);
            }
            Health::Unknown | Health::Busy(_) => {}
        }
    }

    /// Why mail waits here, in the words of the last reply or failure; of the whole site, or of any lane.
    pub(super) fn reason(&self, now: Timestamp) -> Option<String> {
        let of_site = || self.failure.as_deref().map(str::to_owned);
        let of_lane =
            || self.lanes.iter().find_map(|entry| entry.lane.trouble(now)).map(|trouble| trouble.words.into());
        if self.down_until(now).is_some() { of_site() } else { of_lane().or_else(of_site) }
    }

    /// Until when no lane of a queue can be used for more than a moment, where that is so: it cannot be reached, or all its
    /// sources are suspended or blocked.
    pub(super) fn suspended_until(&self, queue: &SiteQueue, now: Timestamp) -> Option<Timestamp> {
        if let Some(until) = self.down_until(now) {
            return Some(until);
        }
        let closed = |slot: &Slot| {
            let entry = self.lane(slot.source)?;
            if entry.lane.window(now) > 0 { None } else { entry.lane.closed_until(now).or(Some(Timestamp::MAX)) }
        };
        let ends: Option<Vec<Timestamp>> = queue.slots.iter().map(closed).collect();
        ends?.into_iter().min()
    }

    /// The same for all its queues together.
    pub(super) fn all_suspended_until(&self, now: Timestamp) -> Option<Timestamp> {
        let ends: Option<Vec<Timestamp>> = self.queues.iter().map(|queue| self.suspended_until(queue, now)).collect();
        ends?.into_iter().min().or_else(|| self.down_until(now))
    }

    /// Nothing is left that is worth remembering.
    pub(super) fn is_forgettable(&self, now: Timestamp) -> bool {
        let unused = self.queues.iter().all(|queue| queue.fair.is_forgettable() && queue.is_idle());
        let lanes = self.lanes.iter().all(|entry| entry.lane.is_forgettable(now));
        let sets = self.sets.iter().all(|entry| entry.lane.is_forgettable(now));
        unused && lanes && sets && self.connections == 0 && !self.in_line && self.down_until(now).is_none()
    }
}

/// Where the lane of a source stands. Sources of a pool mostly have numbers in a row: then no search is needed, each step of
/// which reads memory that is in no cache.
pub(super) fn lane_place(lanes: &[LaneEntry], source: SourceId) -> Option<usize> {
    let guess = source.steps_after(lanes.first()?.source)?;
    if lanes.get(guess).is_some_and(|entry| entry.source == source) {
        return Some(guess);
    }
    lanes.binary_search_by_key(&source, |entry| entry.source).ok()
}

/// What spreads the probes of different sites.
fn seed_of(name: &SiteName) -> u64 {
    u64::try_from(fnv1a(name.as_str().as_bytes()) & u128::from(u64::MAX)).unwrap_or_default()
}
