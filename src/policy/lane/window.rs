//! How many connections a host wants from one source: halved when it refuses one, one more for each [`GOOD_PER_STEP`] transactions
//! that went well with all of them in use.
//!
//! The number that the host let in when it refused one more is the *ceiling*. Up to it the window climbs steadily; above it
//! only when its hold is over, by one connection. Refused again, the hold doubles; otherwise the ceiling is forgotten. So a host with a
//! fixed number of connections refuses one in an hour.

use std::time::Duration;

use crate::types::{ConnectionsState, Learning, Timestamp};

/// Transactions that must go well before there is one more connection.
pub(super) const GOOD_PER_STEP: u32 = 20;
/// How long nothing above a ceiling is tried; twice as long each time it is found right again.
pub(super) const CEILING_HOLD: Duration = Duration::from_secs(300);
/// No longer than that.
pub(super) const CEILING_HOLD_MAX: Duration = Duration::from_secs(3_600);
/// When nothing was refused for so long, what was learned is forgotten.
pub(super) const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    window: u32,
    good: u32,
    ceiling: Option<Learning>,
    refused_at: Timestamp,
}

/// What a refusal comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There are fewer now.
    Fewer,
    /// There are fewer already: the refusal is of the time before.
    Known,
    /// The host does not want even one.
    All,
}

impl Window {
    /// All that the limit allows: what works today gets it at once.
    pub(super) fn new(limit: u32) -> Self {
        Self { window: limit.max(1), good: 0, ceiling: None, refused_at: Timestamp::EPOCH }
    }

    /// As it was kept.
    pub(super) fn restore(state: Option<ConnectionsState>, limit: u32) -> Self {
        let full = Self::new(limit);
        let Some(state) = state else { return full };
        let window = state.window.clamp(1, full.window);
        let ceiling = state.ceiling.filter(|_| window < full.window);
        Self { window, good: 0, ceiling, refused_at: state.refused_at }
    }

    /// What is to be kept; `None`: a new one would be the same.
    pub(super) fn state(&self, limit: u32) -> Option<ConnectionsState> {
        let Window { window, ceiling, refused_at, .. } = *self;
        (window < limit).then_some(ConnectionsState { window, refused_at, ceiling })
    }

    /// How many there may be.
    pub(super) fn count(&self) -> u32 {
        self.window
    }

    /// The limit changed.
    pub(super) fn set_limit(&mut self, old: u32, new: u32) {
        let was_full = self.window >= old;
        self.window = if was_full { new } else { self.window.min(new) }.max(1);
        if self.window >= new {
            self.ceiling = None;
        }
    }

    /// The host refused one of `connections`. `half`: it said so in a way that asks for half of them, not only for one less.
    pub(super) fn refused(&mut self, connections: u32, half: bool, now: Timestamp) -> Refused {
        self.refused_at = now;
        self.good = 0;
        let Some(below) = connections.checked_sub(1).filter(|below| *below > 0) else {
            (self.window, self.ceiling) = (1, None);
            return Refused::All;
        };
        if connections > self.window {
            // Opened before the window became smaller: it tells more of where the ceiling is.
            if let Some(ceiling) = &mut self.ceiling {
                ceiling.count = ceiling.count.min(below);
            }
            return Refused::Known;
        }
        let level = match self.ceiling {
            Some(known) if known.count == below => known.level.saturating_add(1),
            _ => 0,
        };
        let was_tried = self.ceiling.is_some_and(|known| known.count == below && self.window == connections);
        let hold = CEILING_HOLD.saturating_mul(1 << level.min(8)).min(CEILING_HOLD_MAX);
        self.ceiling = Some(Learning { count: below, held_until: now.plus(hold), level });
        // One more than the ceiling was tried, and is too much: the others work.
        self.window = if was_tried || !half { below } else { below.min(connections.div_ceil(2)) };
        Refused::Fewer
    }

    /// A transaction went well while there were so many connections.
    pub(super) fn good(&mut self, connections: u32, limit: u32, now: Timestamp) {
        if self.window >= limit {
            return;
        }
        if self.is_forgotten(now) {
            *self = Self::new(limit);
            return;
        }
        // Where not all are used, nobody knows whether more would be let in.
        if connections < self.window {
            return;
        }
        self.good += 1;
        if self.good < GOOD_PER_STEP {
            return;
        }
        self.good = 0;
        match self.ceiling {
            Some(ceiling) if self.window == ceiling.count && now < ceiling.held_until => return,
            Some(ceiling) if self.window > ceiling.count => self.ceiling = None,
            _ => {}
        }
        self.window += 1;
        if self.window >= limit {
            self.ceiling = None;
        }
    }

    fn is_forgotten(&self, now: Timestamp) -> bool {
        now.since(self.refused_at) >= FORGOTTEN_AFTER
    }

    /// Whether a new one would be the same.
    pub(super) fn is_forgettable(&self, limit: u32, now: Timestamp) -> bool {
        self.window >= limit || self.is_forgotten(now)
    }

    pub(super) fn clock_went_back(&mut self, by: Duration) {
        self.refused_at = self.refused_at.minus(by);
        if let Some(ceiling) = &mut self.ceiling {
            ceiling.held_until = ceiling.held_until.minus(by);
        }
    }
}
