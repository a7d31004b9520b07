//! What of a lane is kept over a restart, as plain data: `policy::lane` makes and reads it, `queue` stores it.

use std::sync::Arc;
use std::time::Duration;

use super::Timestamp;

/// See the module. Times are the wall clock's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneState {
    /// When it was made.
    pub saved_at: Timestamp,
    /// Made at an orderly stop with nothing in flight: the counts are of all that was sent.
    pub is_last: bool,
    /// Learned connections; `None`: as many as the limits allow.
    pub connections: Option<ConnectionsState>,
    /// Learned messages on one connection; `None`: as many as the limits allow.
    pub messages: Option<Learning>,
    /// Failures to reach the site, one after the other.
    pub failures: u32,
    /// Connections that it may have by the ramp after a recovery; 0: no ramp.
    pub ramp: u32,
    /// Unreachable until then.
    pub unreachable_until: Option<Timestamp>,
    /// At most so many connections until then.
    pub fewer: Option<(u32, Timestamp)>,
    /// At most so many messages in each of so many seconds, until then.
    pub slow: Option<(u32, Duration, Timestamp)>,
    /// Nothing until then.
    pub suspended_until: Option<Timestamp>,
    /// The source is blocked there, or was lately.
    pub block: Option<BlockState>,
    /// What it was told last, and what that made of it.
    pub told: Option<ToldState>,
    /// Messages that may have been sent beyond those in `counts`: in flight, or granted ahead.
    pub outstanding: u32,
    /// What was sent lately, by the time of each limit. At an orderly stop all limits', else those of hour and day.
    pub counts: Vec<CountsState>,
}

/// Learned connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionsState {
    /// How many it may have.
    pub window: u32,
    /// When the host last refused one.
    pub refused_at: Timestamp,
    /// How many the host let in when it refused one more.
    pub ceiling: Option<Learning>,
}

/// A number that a host taught us, and how long it is kept to before more is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learning {
    /// The number.
    pub count: u32,
    /// Until then nothing above it is tried.
    pub held_until: Timestamp,
    /// How often it was found right again: each time doubles the hold.
    pub level: u8,
}

/// A block, or the memory of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockState {
    /// Its end; then one probe decides.
    pub until: Timestamp,
    /// How long it lasts: the next one, if it comes soon, lasts twice as long.
    pub lasts: Duration,
    /// When a probe went well; `None`: none did.
    pub returned_at: Option<Timestamp>,
}

/// A reply that made something of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldState {
    /// What: a number of `policy::lane`.
    pub mode: u8,
    /// The rule; `None`: not by a rule.
    pub rule: Option<Arc<str>>,
    /// The reply or failure.
    pub words: Box<str>,
}

/// What was sent in the last times of one limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CountsState {
    /// The time of the limit.
    pub span: Duration,
    /// The end of the newest of the parts that the time is cut into.
    pub newest_end: Timestamp,
    /// Messages in each part, newest first; the last one is not 0.
    pub counts: Vec<u32>,
}
