//! What a site lets one source do: connections, messages in each, messages in a time. Plain data: provider rules hold it, lanes
//! keep to it.

use std::time::Duration;

/// The time that a rate limit is counted in. Any such time, not only full minutes or UTC days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Span {
    /// One second.
    Second,
    /// 60 seconds.
    Minute,
    /// 60 minutes.
    Hour,
    /// 24 hours.
    Day,
}

impl Span {
    /// All, short ones first.
    pub const ALL: [Span; 4] = [Span::Second, Span::Minute, Span::Hour, Span::Day];

    /// How long it is.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(match self {
            Span::Second => 1,
            Span::Minute => 60,
            Span::Hour => 3_600,
            Span::Day => 86_400,
        })
    }

    /// As configs and texts name it.
    pub const fn name(self) -> &'static str {
        match self {
            Span::Second => "second",
            Span::Minute => "minute",
            Span::Hour => "hour",
            Span::Day => "day",
        }
    }
}

/// At most so many messages in each such time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// At least 1.
    pub count: u32,
    /// In which time.
    pub per: Span,
}

/// Messages in a time, by each span; `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// In any second.
    pub second: Option<u32>,
    /// In any minute.
    pub minute: Option<u32>,
    /// In any hour.
    pub hour: Option<u32>,
    /// In any 24 hours.
    pub day: Option<u32>,
}

impl Rates {
    /// The limit by this span.
    pub const fn by(&self, span: Span) -> Option<u32> {
        match span {
            Span::Second => self.second,
            Span::Minute => self.minute,
            Span::Hour => self.hour,
            Span::Day => self.day,
        }
    }

    /// Whether there is none.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

/// What a site lets one source do, and all sources together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLimits {
    /// Open connections from one source. At least 1.
    pub connections: u32,
    /// Open connections from all sources together; `None`: no limit.
    pub connections_total: Option<u32>,
    /// Messages on one connection. At least 1.
    pub messages_per_connection: u32,
    /// Messages from one source.
    pub rates: Rates,
}

impl Default for LaneLimits {
    fn default() -> Self {
        Self { connections: 10, connections_total: None, messages_per_connection: 100, rates: Rates::default() }
    }
}
