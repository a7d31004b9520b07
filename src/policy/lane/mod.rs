//! One lane, a source at a site: how much of it may be used now, and what it learned.
//!
//! | part | decides |
//! |---|---|
//! | `window` | connections, by what the host refuses |
//! | `messages` | messages on one connection, by when the host ends it |
//! | `reach` | when to try again what cannot be reached; of whole sites, too |
//! | `rates`, `counter` | messages in a second, minute, hour and day, as the receiver counts them |
//! | `backoff` | what replies ask for: fewer connections, lower rates, nothing for a time |
//! | `block` | a source that is blocked at the site |
//! | `trouble` | why it is not used as much as its limits allow |
//! | `usage` | nothing: it looks at a lane and leaves it as it is |
//! | `warm` | what a warm-up lets it send (`policy::warmup`) |
//! | `state` | what is kept over a restart ([`LaneState`]), and when it is to be written |
//!
//! Pure: the time is an argument. A clock that goes back frees nothing, whether or not [`Lane::clock_went_back`] tells of it.

mod backoff;
mod block;
mod counter;
mod messages;
mod rates;
mod reach;
mod state;
#[cfg(test)]
mod tests;
mod trouble;
mod usage;
mod warm;
mod window;

use std::sync::Arc;
use std::time::Duration;

use super::limits::LaneLimits;
use super::reaction::{Reaction, ReactionKind};
use super::warmup::{Warming, WarmupChange};
use crate::types::Timestamp;

pub use crate::types::LaneState;
pub use reach::{PROBE_INTERVALS, Reach};
pub use trouble::{Mode, Trouble};
pub use usage::Usage;
pub use warm::WarmupOrder;

use backoff::Backoff;
use block::Block;
use messages::Messages;
use rates::{Limits, Sent};
use state::Saving;
use trouble::Told;
use window::{Refused, Window};

/// What a connection learned of its lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// Whether the host could be reached and worked with.
    pub health: Health,
    /// The host ended the connection behind so many messages, in a way that says it takes no more on one connection.
    pub spent_after: Option<u32>,
    /// What replies make us do.
    pub reactions: Vec<Hit>,
    /// The host worked, and took no message: a block that is told at the end of the data was not put to the test.
    pub took_nothing: bool,
}

/// A reply met a rule with a reaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The rule's name.
    pub rule: Arc<str>,
    /// What it asks for.
    pub reaction: Reaction,
    /// The reply.
    pub words: Box<str>,
}

/// What the end of an assignment or connection says of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Nothing.
    #[default]
    Unknown,
    /// It took a transaction, whatever its replies to single recipients were.
    Good,
    /// It wants fewer connections (421 and the like); in its words.
    Busy(Box<str>),
    /// It could not be reached, or the connection was lost.
    Unreachable(Box<str>),
}

/// Why nothing may be sent by a lane now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// When to ask again. [`Timestamp::MAX`]: when something else happens (a message ends, a state is saved).
    pub until: Timestamp,
    /// What it waits for.
    pub cause: Cause,
}

/// What a lane waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A limit on messages in a time: the provider's, or one of backoff or ramp.
    Rate(super::limits::RateLimit),
    /// What may be sent under an hour's or day's limit is not on disk yet.
    Saving,
    /// The site cannot be reached from this source.
    Unreachable,
    /// A reply's reaction suspended it.
    Suspended,
    /// The source is blocked there.
    Blocked,
    /// A probe is under way.
    Probing,
    /// Its warm-up: the share of this time or day is used up, or it is frozen.
    WarmUp,
}

/// What changed of a lane, so that an event may tell of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Blocked until then.
    Blocked {
        /// The end.
        until: Timestamp,
        /// The rule.
        rule: Arc<str>,
        /// The reply.
        words: Box<str>,
    },
    /// A backoff began: suspended, slowed or with fewer connections.
    BackedOff {
        /// The end.
        until: Timestamp,
        /// The rule.
        rule: Arc<str>,
        /// The reply.
        words: Box<str>,
        /// What it does.
        kind: super::reaction::ReactionKind,
    },
    /// A block is over: the probe went well.
    Unblocked,
    /// Of its warm-up.
    WarmUp(WarmupChange),
}

/// See the module. Below 1 KB with all rates on, what it was told included.
#[derive(Clone, Debug)]
pub struct Lane {
    limits: LaneLimits,
    window: Window,
    messages: Messages,
    reach: Reach,
    sent: Sent,
    backoff: Option<Box<Backoff>>,
    block: Option<Box<Block>>,
    told: Option<Box<Told>>,
    warming: Option<Box<Warming>>,
    saving: Saving,
    /// The latest time that was ever told: time does not go back.
    latest: Timestamp,
}

impl Lane {
    /// A lane of which nothing is known.
    pub fn new(limits: LaneLimits, now: Timestamp) -> Self {
        Self {
            limits,
            window: Window::new(limits.connections),
            messages: Messages::default(),
            reach: Reach::new(0),
            sent: Sent::new(&limits.rates, now),
            backoff: None,
            block: None,
            told: None,
            warming: None,
            saving: Saving::default(),
            latest: now,
        }
    }

    /// Sets what its jitter depends on: another number for each lane.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.reach.set_seed(seed);
        self
    }

    /// Other limits, from now on; what was counted and learned stays, within them. A limit in a time that had none before counts
    /// from now on.
    pub fn set_limits(&mut self, limits: LaneLimits, now: Timestamp) {
        let now = self.tell_time(now);
        self.window.set_limit(self.limits.connections, limits.connections);
        self.limits = limits;
        let slow = self.slow(now);
        self.sent.fit(Limits::new(&self.limits.rates, slow), now);
    }

    /// Connections it may have now. 0 while it is suspended or blocked.
    pub fn window(&self, now: Timestamp) -> u32 {
        let now = now.max(self.latest);
        let fewer = match &self.backoff {
            Some(backoff) if backoff.suspended_until(now).is_some() => return 0,
            Some(backoff) => backoff.connections().unwrap_or(u32::MAX),
            None => u32::MAX,
        };
        let probes = match &self.block {
            Some(block) if block.blocked_until(now).is_some() => return 0,
            Some(block) if block.awaits_probe(now) => 1,
            _ => u32::MAX,
        };
        self.reach.window(self.window.count(), now).min(fewer).min(probes)
    }

    /// Until when nothing at all may be sent, if that is so: blocked, suspended, or not reachable.
    pub fn closed_until(&self, now: Timestamp) -> Option<Timestamp> {
        let blocked = self.block.as_ref().and_then(|block| block.blocked_until(now));
        let suspended = self.backoff.as_ref().and_then(|backoff| backoff.suspended_until(now));
        [blocked, suspended, self.reach.suspended_until(now)].into_iter().flatten().max()
    }

    /// How many messages (transactions) may be begun now, at most `wanted`; not 0 where it is `Ok`.
    pub fn admits(&mut self, wanted: u32, now: Timestamp) -> Result<u32, Wait> {
        let now = self.tell_time(now);
        let mut wanted = wanted.max(1);
        let wait = |until, cause| Err(Wait { until, cause });
        if let Some(block) = &self.block {
            if let Some(until) = block.blocked_until(now) {
                return wait(until, Cause::Blocked);
            }
            if block.awaits_probe(now) {
                if block.is_probing() {
                    return wait(Timestamp::MAX, Cause::Probing);
                }
                wanted = 1;
            }
        }
        if let Some(until) = self.backoff.as_ref().and_then(|backoff| backoff.suspended_until(now)) {
            return wait(until, Cause::Suspended);
        }
        if let Some(until) = self.reach.suspended_until(now) {
            return wait(until, Cause::Unreachable);
        }
        if let Some(warming) = &mut self.warming {
            match warming.admits(wanted, now) {
                Ok(admitted) => wanted = admitted,
                Err(hold) => return wait(hold.until, Cause::WarmUp),
            }
        }
        let (slow, left) = (self.slow(now), self.left_today(now));
        let limits = Limits { left, ..Limits::new(&self.limits.rates, slow) };
        let mut admitted = self.sent.admits(wanted, limits, now);
        if let (Err(wait), Some(backoff)) = (&mut admitted, &self.backoff) {
            // By then the limit is another one.
            wait.until = backoff.slow_changes_at(now).map_or(wait.until, |at| wait.until.min(at));
        }
        admitted
    }

    /// So many messages were given to a connection. After [`Lane::admits`] said so.
    pub fn take(&mut self, messages: u32, now: Timestamp) {
        let now = self.tell_time(now);
        let slow = self.slow(now);
        self.sent.take(messages, Limits::new(&self.limits.rates, slow), now);
        if let Some(warming) = &mut self.warming {
            warming.take(messages, now);
        }
        if let Some(block) = &mut self.block {
            block.take(messages, now);
        }
    }

    /// So many of those came to their end, `sent` of them having reached the host (as far as is known); the others are
    /// given back.
    pub fn done(&mut self, messages: u32, sent: u32, now: Timestamp) {
        let now = self.tell_time(now);
        let slow = self.slow(now);
        self.sent.done(messages, sent, Limits::new(&self.limits.rates, slow), now);
        if let Some(warming) = &mut self.warming {
            warming.done(messages, sent, now);
        }
        if let Some(block) = &mut self.block {
            block.done(messages);
        }
    }

    /// Messages on one connection before it is closed: the limit, or what was learned.
    pub fn messages_per_connection(&self) -> u32 {
        self.messages.count(self.limits.messages_per_connection)
    }

    /// Takes in what a connection learned. `connections`: how many the lane had, this one included.
    pub fn learn(&mut self, learned: &Learned, connections: u32, now: Timestamp) -> Vec<Change> {
        let now = self.tell_time(now);
        let before = self.learned();
        let mut changes = Vec::new();
        let mut stopped = false;
        for hit in &learned.reactions {
            stopped |= self.react(hit, connections, now, &mut changes);
        }
        match &learned.health {
            Health::Good if !stopped => changes.extend(self.good(connections, learned.took_nothing, now)),
            Health::Busy(words) => self.refused(connections, true, None, words, now),
            Health::Unreachable(words) => {
                self.tell(Mode::Unreachable, None, words, now);
                self.reach.failed(now);
            }
            Health::Good | Health::Unknown => {}
        }
        if let Some(after) = learned.spent_after {
            self.messages.spent(after, self.limits.messages_per_connection, now);
        }
        if self.backoff.as_ref().is_some_and(|backoff| backoff.is_over(now)) {
            self.backoff = None;
            self.sent.fit(Limits::new(&self.limits.rates, None), now);
        }
        if !changes.is_empty() {
            self.saving.changed_at_once();
        } else if self.learned() != before {
            self.saving.changed();
        }
        changes
    }

    /// Does what a rule asks for. Whether nothing is to be sent for now.
    fn react(&mut self, hit: &Hit, connections: u32, now: Timestamp, changes: &mut Vec<Change>) -> bool {
        let Hit { rule, reaction: Reaction { kind, lasts, after }, words } = hit;
        let is_verdict =
            *kind == ReactionKind::Block && self.block.as_ref().is_some_and(|block| block.awaits_probe(now));
        if let Some(after) = after.filter(|_| !is_verdict)
            && !self.backoff.get_or_insert_default().hit(rule, after, now)
        {
            return false;
        }
        let until = now.plus(*lasts);
        let (is_new, mode) = match kind {
            ReactionKind::FewerConnections => {
                self.refused(connections, false, Some(rule), words, now);
                return false;
            }
            ReactionKind::Block => {
                let is_new = self.block_for(*lasts, now);
                let until = self.block.as_ref().map_or(until, |block| block.state().until);
                self.tell(Mode::Blocked, Some(rule), words, now);
                if is_new {
                    changes.push(Change::Blocked { until, rule: Arc::clone(rule), words: words.clone() });
                    changes.extend(self.step_back(now));
                } else {
                    self.saving.changed();
                }
                return true;
            }
            ReactionKind::Connections(most) => {
                (self.backoff.get_or_insert_default().limit_connections(*most, until, now), Mode::Fewer)
            }
            ReactionKind::Slow(limit) => {
                let is_new = self.backoff.get_or_insert_default().slow_down(*limit, until, now);
                let slow = self.slow(now);
                self.sent.fit(Limits::new(&self.limits.rates, slow), now);
                (is_new, Mode::Slowed)
            }
            ReactionKind::Suspend => {
                self.reach.ramp_from(1);
                (self.backoff.get_or_insert_default().suspend(until, now), Mode::Suspended)
            }
        };
        self.tell(mode, Some(rule), words, now);
        if is_new {
            let (rule, words) = (Arc::clone(rule), words.clone());
            changes.push(Change::BackedOff { until, rule, words, kind: *kind });
        } else {
            self.saving.changed();
        }
        *kind == ReactionKind::Suspend
    }

    /// Whether it was not blocked before.
    fn block_for(&mut self, lasts: Duration, now: Timestamp) -> bool {
        self.reach.ramp_from(1);
        match &mut self.block {
            Some(block) => block.hit(lasts, now),
            None => {
                self.block = Some(Box::new(Block::new(lasts, now)));
                true
            }
        }
    }

    /// The host does not want so many connections.
    fn refused(&mut self, connections: u32, half: bool, rule: Option<&Arc<str>>, words: &str, now: Timestamp) {
        match self.window.refused(connections, half, now) {
            Refused::Known => {}
            Refused::Fewer => self.tell(Mode::Fewer, rule, words, now),
            Refused::All => {
                self.tell(Mode::Unreachable, rule, words, now);
                self.reach.refused(now);
            }
        }
    }

    /// A transaction went well, as far as the host's health goes.
    fn good(&mut self, connections: u32, took_nothing: bool, now: Timestamp) -> Option<Change> {
        let is_blocked = self.block.as_ref().is_some_and(|block| block.blocked_until(now).is_some());
        let is_suspended = self.backoff.as_ref().is_some_and(|backoff| backoff.suspended_until(now).is_some());
        if is_blocked || is_suspended {
            // It was under way before.
            return None;
        }
        self.messages.good(self.limits.messages_per_connection, now);
        self.reach.good(self.window.count());
        self.window.good(connections, self.limits.connections, now);
        if let Some(backoff) = &mut self.backoff {
            backoff.good(self.window.count(), now);
        }
        let block = self.block.as_mut()?;
        if took_nothing && block.awaits_probe(now) {
            // The next message is the probe.
            return None;
        }
        if block.good(now) {
            return Some(Change::Unblocked);
        }
        if block.is_over(now) {
            self.block = None;
            self.saving.changed();
        }
        None
    }

    /// An operator wants it tried at once: waits of unreachable and suspended lanes end. A block stays.
    pub fn unsuspend(&mut self, now: Timestamp) {
        self.tell_time(now);
        self.reach.unsuspend();
        if let Some(backoff) = &mut self.backoff {
            backoff.unsuspend();
        }
        self.saving.changed();
    }

    /// When something changes by time alone: a suspension, block or backoff ends, a save is due. `None`: nothing does.
    #[cfg(test)]
    fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let now = now.max(self.latest);
        let backoff = self.backoff.as_ref();
        let changes = [
            self.reach.suspended_until(now),
            self.block.as_ref().and_then(|block| block.blocked_until(now)),
            backoff.and_then(|backoff| backoff.suspended_until(now)),
            backoff.and_then(|backoff| backoff.slow_changes_at(now)),
            backoff.and_then(|backoff| backoff.fewer_until(now)),
            self.saving.due_at(self.sent.wants_grant()).filter(|due_at| now < *due_at),
        ];
        changes.into_iter().flatten().min()
    }

    /// Why it is not used as much as its limits allow, in words for operators and events; `None`: it is.
    pub fn trouble(&self, now: Timestamp) -> Option<Trouble> {
        let now = now.max(self.latest);
        let mode = self.mode(now)?;
        let backoff = self.backoff.as_ref();
        let until = match mode {
            Mode::Blocked => self.block.as_ref().and_then(|block| block.blocked_until(now)),
            Mode::Suspended => backoff.and_then(|backoff| backoff.suspended_until(now)),
            Mode::Unreachable => self.reach.suspended_until(now),
            Mode::Slowed => backoff.and_then(|backoff| backoff.slow_until(now)),
            Mode::Fewer => backoff.and_then(|backoff| backoff.fewer_until(now)),
            Mode::Ramping => None,
        };
        let told = self.told.as_ref().filter(|told| told.mode == mode || mode == Mode::Ramping);
        let rule = told.and_then(|told| told.rule.clone());
        let words = told.map_or_else(|| "".into(), |told| told.words.clone());
        Some(Trouble { mode, until, rule, words })
    }

    /// The strongest trouble that holds; `None`: none does.
    pub fn mode(&self, now: Timestamp) -> Option<Mode> {
        let now = now.max(self.latest);
        Mode::ALL.into_iter().rev().find(|mode| self.is_in(*mode, now))
    }

    /// Whether its source is blocked there: until a probe goes well, also while that is awaited.
    pub fn is_blocked(&self) -> bool {
        self.block.as_ref().is_some_and(|block| block.state().returned_at.is_none())
    }

    fn is_in(&self, mode: Mode, now: Timestamp) -> bool {
        let backoff = self.backoff.as_ref();
        match mode {
            Mode::Blocked => self.is_blocked(),
            Mode::Suspended => backoff.is_some_and(|backoff| backoff.suspended_until(now).is_some()),
            Mode::Unreachable => self.reach.has_failed(),
            Mode::Slowed => backoff.is_some_and(|backoff| backoff.slow_until(now).is_some()),
            Mode::Fewer => {
                let is_learned = self.window.state(self.limits.connections).is_some();
                is_learned || backoff.is_some_and(|backoff| backoff.fewer_until(now).is_some())
            }
            Mode::Ramping => {
                let ramps = |backoff: &Backoff| backoff.connections().is_some() || backoff.slow(now).is_some();
                !self.reach.is_well() || backoff.is_some_and(|backoff| ramps(backoff))
            }
        }
    }

    /// Keeps the words of the strongest trouble that holds.
    fn tell(&mut self, mode: Mode, rule: Option<&Arc<str>>, words: &str, now: Timestamp) {
        let is_weaker = |told: &Told| mode < told.mode && self.is_in(told.mode, now);
        if !self.told.as_deref().is_some_and(is_weaker) {
            self.told = Some(Box::new(Told::new(mode, rule, words)));
        }
    }

    /// What of the rate replies leave.
    fn slow(&self, now: Timestamp) -> Option<super::limits::RateLimit> {
        self.backoff.as_ref().and_then(|backoff| backoff.slow(now))
    }

    /// Nothing is remembered that a new lane would not have: it may be dropped.
    pub fn is_forgettable(&self, now: Timestamp) -> bool {
        let now = now.max(self.latest);
        self.sent.is_idle(now)
            && !self.saving.is_under_way()
            && self.window.is_forgettable(self.limits.connections, now)
            && self.messages.is_forgettable()
            && self.reach.is_well()
            && self.backoff.as_ref().is_none_or(|backoff| backoff.is_over(now))
            && self.block.as_ref().is_none_or(|block| block.is_over(now))
            && self.warming.as_ref().is_none_or(|warming| warming.is_untouched())
    }

    /// The wall clock went back by so much.
    pub fn clock_went_back(&mut self, by: Duration) {
        self.latest = self.latest.minus(by);
        self.window.clock_went_back(by);
        self.messages.clock_went_back(by);
        self.reach.clock_went_back(by);
        self.sent.clock_went_back(by);
        self.saving.clock_went_back(by);
        if let Some(backoff) = &mut self.backoff {
            backoff.clock_went_back(by);
        }
        if let Some(block) = &mut self.block {
            block.clock_went_back(by);
        }
        if let Some(warming) = &mut self.warming {
            warming.clock_went_back(by);
            // It may be another day: what was sent on both must be known after a crash.
            self.saving.changed_at_once();
        }
    }

    /// The time as it counts here.
    fn tell_time(&mut self, now: Timestamp) -> Timestamp {
        self.latest = self.latest.max(now);
        self.latest
    }

    /// Octets that it takes, its heap included; the names of rules are shared.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        let backoff = self.backoff.as_ref().map_or(0, |backoff| size_of::<Backoff>() + backoff.heap_bytes());
        let block = self.block.as_ref().map_or(0, |_| size_of::<Block>());
        let told = self.told.as_ref().map_or(0, |told| size_of::<Told>() + told.words.len());
        let warming = self.warming.as_ref().map_or(0, |warming| warming.bytes());
        size_of::<Self>() + self.sent.heap_bytes() + backoff + block + told + warming
    }
}
