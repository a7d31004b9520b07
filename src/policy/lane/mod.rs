//! One lane, a source at a site: how much of it may be used now, and what it learned.
//!
//! Pure: the time is an argument, and what is to be kept over a restart is plain data ([`LaneState`]).

mod reach;

use std::sync::Arc;
use std::time::Duration;

use super::limits::LaneLimits;
use super::reaction::Reaction;
use crate::types::Timestamp;

pub use crate::types::LaneState;
pub use reach::{PROBE_INTERVALS, Reach};

/// What a connection learned of its lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// Whether the host could be reached and worked with.
    pub health: Health,
    /// The host ended the connection behind so many messages, in a way that says it takes no more on one connection.
    pub spent_after: Option<u32>,
    /// What replies make us do.
    pub reactions: Vec<Hit>,
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Lane {
    limits: LaneLimits,
}

impl Lane {
    /// A lane of which nothing is known.
    pub fn new(limits: LaneLimits, now: Timestamp) -> Self {
        let _ = now;
        Self { limits }
    }

    /// Sets what its jitter depends on: another number for each lane.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        let _ = seed;
        self
    }

    /// A lane as it was saved. `unclean`: the daemon did not stop in order, so more may have been sent than was saved.
    pub fn restore(state: &LaneState, limits: LaneLimits, unclean: bool, now: Timestamp) -> Self {
        let (_, _) = (state, unclean);
        Self::new(limits, now)
    }

    /// Other limits, from now on; what was counted and learned stays, within them.
    pub fn set_limits(&mut self, limits: LaneLimits, now: Timestamp) {
        let _ = now;
        self.limits = limits;
    }

    /// Connections it may have now. 0 while it is suspended or blocked.
    pub fn window(&self, now: Timestamp) -> u32 {
        let _ = now;
        self.limits.connections
    }

    /// How many messages (transactions) may be begun now, at most `wanted`; not 0 where it is `Ok`.
    pub fn admits(&mut self, wanted: u32, now: Timestamp) -> Result<u32, Wait> {
        let _ = now;
        Ok(wanted)
    }

    /// So many messages were given to a connection. After [`Lane::admits`] said so.
    pub fn take(&mut self, messages: u32, now: Timestamp) {
        let (_, _) = (messages, now);
    }

    /// So many of those came to their end, `sent` of them having reached the host (as far as is known); the others are
    /// given back.
    pub fn done(&mut self, messages: u32, sent: u32, now: Timestamp) {
        let (_, _, _) = (messages, sent, now);
    }

    /// Messages on one connection before it is closed: the limit, or what was learned.
    pub fn messages_per_connection(&self) -> u32 {
        self.limits.messages_per_connection
    }

    /// Takes in what a connection learned. `connections`: how many the lane had, this one included.
    pub fn learn(&mut self, learned: &Learned, connections: u32, now: Timestamp) -> Vec<Change> {
        let (_, _, _) = (learned, connections, now);
        Vec::new()
    }

    /// An operator wants it tried at once: waits of unreachable and suspended lanes end. A block stays.
    pub fn unsuspend(&mut self, now: Timestamp) {
        let _ = now;
    }

    /// When something changes by time alone (a suspension, block, backoff ends), for the caller's alarm; `None`: nothing does.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let _ = now;
        None
    }

    /// Why it is not used as much as its limits allow, in words for operators and events; `None`: it is.
    pub fn trouble(&self, now: Timestamp) -> Option<Trouble> {
        let _ = now;
        None
    }

    /// Whether what is on disk differs from this in what matters, or more may be sent only after a save.
    pub fn wants_save(&self, now: Timestamp) -> bool {
        let _ = now;
        false
    }

    /// What to write to disk now, with a reservation ahead for what hour's and day's limits let it send. One save at a time.
    pub fn save(&mut self, now: Timestamp) -> LaneState {
        let _ = now;
        LaneState::default()
    }

    /// Whether the next save asks for a sync of its own (a block, a grant ahead). To be asked before [`Lane::save`].
    pub fn wants_sync(&self) -> bool {
        false
    }

    /// At an orderly stop, with nothing in flight and no save under way: what to write, so that the next start knows exactly
    /// what was sent. `None`: nothing needs to be remembered.
    pub fn last_save(&mut self, now: Timestamp) -> Option<LaneState> {
        (!self.is_forgettable(now)).then(|| self.save(now))
    }

    /// The last [`Lane::save`] is durable, or (`false`) failed.
    pub fn saved(&mut self, durable: bool, now: Timestamp) {
        let (_, _) = (durable, now);
    }

    /// Nothing is remembered that a new lane would not have: it may be dropped.
    pub fn is_forgettable(&self, now: Timestamp) -> bool {
        let _ = now;
        true
    }

    /// The wall clock went back by so much.
    pub fn clock_went_back(&mut self, by: Duration) {
        let _ = by;
    }
}

/// See [`Lane::trouble`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// `blocked`, `suspended`, `unreachable`, `slowed`, `fewer-connections`, `ramping`.
    pub mode: &'static str,
    /// Its end, where it has one.
    pub until: Option<Timestamp>,
    /// The rule that caused it, where one did.
    pub rule: Option<Arc<str>>,
    /// The reply or failure.
    pub words: Box<str>,
}
