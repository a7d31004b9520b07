//! What of a lane and of its warm-up is kept over a restart, as plain data: `policy::lane` and `policy::warmup` make and read it, `queue`
//! stores it.

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
    /// Its warm-up; `None`: it has none.
    pub warmup: Option<super::WarmupState>,
    /// Messages that may have been sent beyond those in `counts` and `warmup`: in flight, or granted ahead.
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
    /// Into parts of which length it is cut.
    pub part: Duration,
    /// The end of the newest part.
    pub newest_end: Timestamp,
    /// Messages in each part, newest first; the last one is not 0.
    pub counts: Vec<u32>,
}

/// How far the warm-up of a lane is. Times are the wall clock's, days and hours UTC's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WarmupState {
    /// The name of its plan.
    pub plan: Arc<str>,
    /// How far it is in the plan: a day or stage, from 1.
    pub position: u32,
    /// Messages that it may send on that day; `None`: no limit, the plan is over.
    pub cap: Option<u32>,
    /// Which day the counts are of: days since the epoch.
    pub day: u32,
    /// Messages sent on that day, without those in flight.
    pub used: u32,
    /// Which hour: hours since the epoch.
    pub hour: u32,
    /// Messages sent in that hour, without those in flight.
    pub used_this_hour: u32,
    /// Recipients' servers took so many on that day.
    pub delivered_today: u32,
    /// It does not advance at the end of that day.
    pub held_today: bool,
    /// The day before that one, should the clock be set back.
    pub before: Option<WarmupDay>,
    /// A later day, and what was sent on it before the clock was set back.
    pub ahead: Option<(u32, u32)>,
    /// A number of `policy::warmup`: runs, is slowed, frozen, or over.
    pub mode: u8,
    /// An operator holds its position.
    pub paused: bool,
    /// Since when it is in that mode, or paused.
    pub since: Timestamp,
    /// The end of a freeze.
    pub until: Option<Timestamp>,
    /// Why it is slowed or frozen. At most 160 octets.
    pub reason: Option<Box<str>>,
    /// When it last sent something; `None`: never.
    pub last_sent_at: Option<Timestamp>,
    /// When it began, or an operator set its position.
    pub set_at: Timestamp,
    /// When a block last took it a step back.
    pub stepped_back_at: Option<Timestamp>,
    /// When it was last frozen.
    pub frozen_at: Option<Timestamp>,
    /// So many freezes, each soon after the one before.
    pub freezes: u8,
    /// The end of the newest part of `parts`.
    pub newest_end: Timestamp,
    /// What was sent, deferred, bounced and complained about in each three hours, newest first: at most 8; the last one is not all 0.
    pub parts: Vec<[u32; 4]>,
}

/// A day of a warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WarmupDay {
    /// Days since the epoch.
    pub day: u32,
    /// How far it was in the plan.
    pub position: u32,
    /// Messages that it could send; `None`: no limit.
    pub cap: Option<u32>,
    /// Messages that were sent.
    pub used: u32,
    /// Messages that were delivered.
    pub delivered: u32,
    /// It did not advance at the end of that day.
    pub held: bool,
}
