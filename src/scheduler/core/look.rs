//! Which source takes a job at a site, and how: looked at, nothing given out. `pick` does what this finds, `explain` tells it.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::policy::lane::{Cause, Wait};
use crate::scheduler::fleet::{Families, Fleet, MeterKey, SourceId, SourceSet};
use crate::scheduler::sites::{LaneEntry, SetEntry, Slot, lane_place};
use crate::scheduler::{ConnectionId, LaneName, SiteName};
use crate::types::{PoolName, Timestamp};

/// A pool's mail goes by its overflow pool where all its own sources are closed for at least this long.
pub(super) const OVERFLOW_AFTER: Duration = Duration::from_secs(60);
/// Turns that a source may be ahead of the others at a site while it has an idle connection there: a new connection costs
/// more than a turn.
const IDLE_TURNS_AHEAD: u64 = 8;
/// How long a site waits for a limit of a pool or source as a whole, or for room for a lane, before it looks again.
pub(super) const METER_PAUSE: Duration = Duration::from_secs(1);

/// How a source can take a job now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Means {
    /// On a connection that is idle.
    Idle(ConnectionId),
    /// On a new connection.
    New,
    /// Once this connection, which leads to other hosts, is closed.
    Swap(ConnectionId),
    /// Not before something that is under way has ended.
    Full(Holds),
    /// Not before that time.
    Closed(Timestamp, Holds),
}

impl Means {
    /// Whether it is closed for so long that an overflow pool takes its turn. What a warm-up has no room for goes elsewhere at
    /// once.
    pub(super) fn is_closed_for_long(self, now: Timestamp) -> bool {
        match self {
            Means::Closed(_, Holds::Lane(Cause::WarmUp)) => true,
            Means::Closed(until, _) => until >= now.plus(OVERFLOW_AFTER),
            _ => false,
        }
    }
}

/// What keeps a source from taking a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// All connections that it may have are at work.
    Connections,
    /// All connections that all sources together may have there are at work.
    SiteConnections,
    /// What may be sent: there, by the source to all sites, or by the pool.
    Lane(Cause),
    Source(Cause),
    Pool(Cause),
    /// The warm-up of its configuration set.
    Set(Cause),
    /// There is no room for one more lane.
    NoRoom,
}

/// The source that takes a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// This one: on that idle connection, or on a new one.
    Take(SourceId, Option<ConnectionId>),
    /// One of them, once this connection, which leads to other hosts, is closed.
    Swap(ConnectionId),
    /// There are too many connections to open one more.
    NoConnection,
    /// None before then.
    Wait(Timestamp),
}

/// What is looked at, for one job.
pub(super) struct Look<'a> {
    pub(super) site: &'a SiteName,
    pub(super) pool: &'a PoolName,
    /// Where the job goes, and the families of which these have no address.
    pub(super) hosts: &'a SiteName,
    pub(super) lacks: Families,
    /// As far as the site says, and as far as the server does.
    pub(super) may_open: bool,
    pub(super) may_connect: bool,
    pub(super) lanes: &'a mut [LaneEntry],
    /// The sources that have an idle connection there, wherever it leads.
    pub(super) with_idle: &'a SourceSet,
    /// What its configuration set may send there, where that warms up.
    pub(super) set: Option<&'a mut SetEntry>,
    /// Sources that warm up are asked first.
    pub(super) prefers_warming: bool,
    pub(super) fleet: &'a mut Fleet,
    /// What must be on disk before it can send is noted here.
    pub(super) dirty: &'a mut BTreeSet<LaneName>,
    pub(super) now: Timestamp,
}

impl Look<'_> {
    /// How a source can take the job.
    pub(super) fn means(&mut self, source: SourceId) -> Means {
        if let Some(entry) = &mut self.set
            && let Err(wait) = entry.lane.admits(1, self.now)
        {
            if wait.cause == Cause::Saving {
                self.dirty.insert(LaneName::Set(self.site.clone(), entry.set.clone()));
            }
            let until = if wait.until == Timestamp::MAX { self.now.plus(METER_PAUSE) } else { wait.until };
            return Means::Closed(until, Holds::Set(wait.cause));
        }
        for (key, meter) in self.fleet.meters(source, self.pool) {
            let Err(wait) = meter.lane.admits(1, self.now) else { continue };
            if wait.cause == Cause::Saving {
                self.dirty.insert(key.lane_name());
            }
            // What ends at another site may make room.
            let until = if wait.until == Timestamp::MAX { self.now.plus(METER_PAUSE) } else { wait.until };
            return match key {
                MeterKey::Source(_) => Means::Closed(until, Holds::Source(wait.cause)),
                MeterKey::Pool(_) => Means::Closed(until, Holds::Pool(wait.cause)),
            };
        }
        let Some(entry) = lane_place(self.lanes, source).and_then(|at| self.lanes.get_mut(at)) else {
            return if self.may_open { Means::New } else { Means::Full(Holds::SiteConnections) };
        };
        match entry.lane.admits(1, self.now) {
            Ok(_) => {}
            Err(Wait { cause: Cause::Saving, .. }) => {
                self.dirty.insert(LaneName::Lane(self.site.clone(), self.fleet.name(source)));
                return Means::Full(Holds::Lane(Cause::Saving));
            }
            // As soon as a message ends.
            Err(Wait { cause: cause @ Cause::Rate(_), until: Timestamp::MAX }) => {
                return Means::Full(Holds::Lane(cause));
            }
            Err(wait) => {
                let until = entry.lane.closed_until(self.now).unwrap_or(wait.until);
                return Means::Closed(until, Holds::Lane(wait.cause));
            }
        }
        if let Some((idle, _)) = entry.idle.iter().rev().find(|(_, hosts)| hosts == self.hosts) {
            return Means::Idle(*idle);
        }
        let has_room = entry.connections < entry.lane.window(self.now);
        if has_room && self.may_open {
            return Means::New;
        }
        // The one that was not used for longest; one at a time.
        let idle = if entry.closing == 0 { entry.idle.first() } else { None };
        let busy = if has_room { Holds::SiteConnections } else { Holds::Connections };
        idle.map_or(Means::Full(busy), |(idle, _)| Means::Swap(*idle))
    }

    /// Whether a source may reach the hosts, as far as is known. Where none may, the one whose turn it is finds that out anew.
    pub(super) fn reaches(&self, source: SourceId) -> bool {
        self.lacks == Families::default()
            || self.fleet.source(source).is_none_or(|source| !self.lacks.has(source.family))
    }

    /// The source that takes the job, of a queue's `slots`: the one whose turn it is, or of those that warm up, where the job wants
    /// that and one of them can.
    pub(super) fn choose(&mut self, slots: &[Slot], turn: &mut u64) -> Choice {
        if self.prefers_warming {
            let warming: Vec<Slot> =
                slots.iter().filter(|slot| slot.tier == 0 && self.is_warming(slot.source)).copied().collect();
            let choice = self.choose_of(&warming, turn);
            let saves = |means| means == Means::Full(Holds::Lane(Cause::Saving));
            // A note on disk is a matter of milliseconds.
            let mut is_soon = || warming.iter().any(|slot| saves(self.means(slot.source)));
            if !matches!(choice, Choice::Wait(_)) || is_soon() {
                return choice;
            }
        }
        self.choose_of(slots, turn)
    }

    fn is_warming(&self, source: SourceId) -> bool {
        match lane_place(self.lanes, source).and_then(|at| self.lanes.get(at)) {
            Some(entry) => entry.lane.is_warming(),
            // As it would be made: the plan may be another one there, but there is one.
            None => self.fleet.plan(source, None).is_some(),
        }
    }

    /// The source whose turn it is among those that can take the job. `turn`: the least pass that counts;
    /// it moves on with the least of those that may be able to.
    fn choose_of(&mut self, slots: &[Slot], turn: &mut u64) -> Choice {
        let anyway = !slots.iter().any(|slot| self.reaches(slot.source));
        let mut seen = Seen::default();
        // By tier, in order: the next one where all of one are closed for long.
        for tier in slots.chunk_by(|slot, next| slot.tier == next.tier) {
            let taken = self.take_of(&Tier { slots: tier, anyway, floor: *turn }, turn, &mut seen);
            if let Some((source, connection)) = taken {
                return Choice::Take(source, connection);
            }
            if seen.has_open {
                break;
            }
        }
        match seen.swap {
            Some(connection) => Choice::Swap(connection),
            None if seen.no_connection => Choice::NoConnection,
            None => Choice::Wait(seen.until),
        }
    }

    /// Of one tier. Lanes are looked at in the order of their turns, until one can: half a million of them fit no cache.
    fn take_of(
        &mut self,
        tier: &Tier<'_>,
        turn: &mut u64,
        seen: &mut Seen,
    ) -> Option<(SourceId, Option<ConnectionId>)> {
        let mut asked: Option<Rank> = None;
        let mut new: Option<(u64, SourceId)> = None;
        let mut idle: Option<(u64, SourceId, ConnectionId)> = None;
        while let Some((rank, slot)) = self.unasked(tier, asked).min_by_key(|(rank, _)| *rank) {
            if new.is_some_and(|(least, _)| least <= rank.0) {
                break;
            }
            let pass = tier.pass(slot);
            asked = Some(rank);
            let means = self.means(slot.source);
            seen.has_open |= !means.is_closed_for_long(self.now);
            match means {
                Means::Closed(end, _) => seen.until = seen.until.min(end),
                Means::Full(_) => {}
                Means::Swap(connection) => seen.swap = seen.swap.or(Some(connection)),
                Means::New if !self.may_connect => seen.no_connection = true,
                Means::Idle(connection) => {
                    idle = Some((pass, slot.source, connection));
                    break;
                }
                // Its idle connections lead elsewhere: it is ahead of nobody.
                Means::New if new.is_none_or(|(least, _)| pass < least) => new = Some((pass, slot.source)),
                Means::New => {}
            }
        }
        let taken = match (idle, new) {
            (Some((_, source, connection)), _) => (source, Some(connection)),
            (None, Some((_, source))) => (source, None),
            (None, None) => return None,
        };
        let able = idle.map(|(pass, ..)| pass).into_iter().chain(new.map(|(pass, _)| pass));
        let maybe = self.unasked(tier, asked).map(|(_, slot)| tier.pass(slot));
        *turn = able.chain(maybe).min().unwrap_or(*turn);
        Some(taken)
    }

    /// The slots that come after `asked`, in no order.
    fn unasked<'s>(&self, tier: &Tier<'s>, asked: Option<Rank>) -> impl Iterator<Item = (Rank, &'s Slot)> {
        let tier = *tier;
        let reachable = move |(_, slot): &(usize, &Slot)| tier.anyway || self.reaches(slot.source);
        let ranked = move |(at, slot): (usize, &'s Slot)| {
            let ahead = if self.with_idle.contains(slot.source) { IDLE_TURNS_AHEAD * slot.stride } else { 0 };
            (Rank(tier.pass(slot).saturating_sub(ahead), at), slot)
        };
        let comes_after = move |(rank, _): &(Rank, &Slot)| asked.is_none_or(|asked| *rank > asked);
        tier.slots.iter().enumerate().filter(reachable).map(ranked).filter(comes_after)
    }
}

/// The slots of one tier of a queue.
#[derive(Clone, Copy)]
struct Tier<'s> {
    slots: &'s [Slot],
    /// No source may reach the hosts, as far as is known: all are asked.
    anyway: bool,
    /// The least pass that counts.
    floor: u64,
}

impl Tier<'_> {
    fn pass(&self, slot: &Slot) -> u64 {
        slot.pass.max(self.floor)
    }
}

/// Whose turn it is: the least pass, less what an idle connection is worth; then the place in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(u64, usize);

/// What was met on the way to a source that takes the job.
#[derive(Debug)]
struct Seen {
    /// One that could, once this connection is closed.
    swap: Option<ConnectionId>,
    /// One that could, were there not too many connections.
    no_connection: bool,
    /// One that is not closed for long.
    has_open: bool,
    /// When the first of the closed ones is open.
    until: Timestamp,
}

impl Default for Seen {
    fn default() -> Self {
        Self { swap: None, no_connection: false, has_open: false, until: Timestamp::MAX }
    }
}
