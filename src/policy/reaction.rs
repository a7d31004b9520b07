//! What a reply makes us do beyond the message that it was said of: to the lane (source and site) that heard it.

use std::fmt;
use std::time::Duration;

use super::limits::RateLimit;
use crate::tables::units::format_duration;

/// See the module. Part of a reply rule, next to the outcome for the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaction {
    /// What.
    pub kind: ReactionKind,
    /// For how long. A block that comes again soon after the last one lasts twice as long as that, up to a limit.
    pub lasts: Duration,
    /// Only when the rule hit so often within that time on this lane, this time included; `None`: at once.
    pub after: Option<(u32, Duration)>,
}

/// Kinds of reactions, from mild to strong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReactionKind {
    /// One connection less at once, and slowly back: as after a 421.
    FewerConnections,
    /// At most so many connections.
    Connections(u32),
    /// At most so many messages.
    Slow(RateLimit),
    /// Nothing from this source; mail of the pool goes by its other sources, a greylisted message waits.
    Suspend,
    /// The source is blocked there: as `Suspend`, it returns by one probe, and an event tells of it.
    Block,
}

/// For people: `10/minute for 30m, after 2 within 1h`.
impl fmt::Display for Reaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ReactionKind::FewerConnections => f.write_str("one connection fewer")?,
            ReactionKind::Connections(count) => write!(f, "connections: {count}")?,
            ReactionKind::Slow(rate) => write!(f, "{}/{}", rate.count, rate.per.name())?,
            ReactionKind::Suspend => f.write_str("suspended")?,
            ReactionKind::Block => f.write_str("blocked")?,
        }
        if !self.lasts.is_zero() {
            write!(f, " for {}", format_duration(self.lasts))?;
        }
        match self.after {
            Some((count, within)) => write!(f, ", after {count} within {}", format_duration(within)),
            None => Ok(()),
        }
    }
}
