//! How many messages a host takes on one connection, as far as it ended connections to say so.
//!
//! A connection that was ended behind so many messages sets the number at once. After [`HOLD`] a quarter more is tried, and so on each
//! [`HOLD`]; where the host ends connections at the same number again, the hold doubles.

use std::time::Duration;

use crate::types::{Learning, Timestamp};

/// How long a number is kept to before more is tried; twice as long each time it is found right again.
pub(super) const HOLD: Duration = Duration::from_secs(3_600);
/// No longer than that.
pub(super) const HOLD_MAX: Duration = Duration::from_secs(24 * 3_600);

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Messages {
    learned: Option<Learned>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Learned {
    /// What the host was seen to take, and how long more is not tried.
    taught: Learning,
    /// What is tried now.
    count: u32,
}

impl Messages {
    /// As it was kept.
    pub(super) fn restore(state: Option<Learning>) -> Self {
        let learned = state.filter(|taught| taught.count > 0).map(|taught| Learned { taught, count: taught.count });
        Self { learned }
    }

    /// What is to be kept.
    pub(super) fn state(&self) -> Option<Learning> {
        self.learned.map(|learned| learned.taught)
    }

    /// How many go on one connection, at most `limit`.
    pub(super) fn count(&self, limit: u32) -> u32 {
        self.learned.map_or(limit, |learned| learned.count.min(limit)).max(1)
    }

    /// The host ended a connection behind so many.
    pub(super) fn spent(&mut self, after: u32, limit: u32, now: Timestamp) {
        let after = after.max(1);
        if after >= limit {
            return;
        }
        let known = self.learned.map(|learned| learned.taught);
        let taught = match known {
            // Ended by connections that were under way when it was learned.
            Some(known) if after >= known.count && self.count(limit) <= known.count => return,
            Some(known) if after >= known.count => {
                let level = known.level.saturating_add(1);
                let hold = HOLD.saturating_mul(1 << level.min(8)).min(HOLD_MAX);
                // It may take a little more than was known by now.
                Learning { count: after, held_until: now.plus(hold), level }
            }
            _ => Learning { count: after, held_until: now.plus(HOLD), level: 0 },
        };
        self.learned = Some(Learned { taught, count: taught.count });
    }

    /// A transaction went well.
    pub(super) fn good(&mut self, limit: u32, now: Timestamp) {
        let Some(learned) = &mut self.learned else { return };
        if now < learned.taught.held_until {
            return;
        }
        learned.count = learned.count.saturating_add((learned.count / 4).max(1));
        learned.taught.held_until = now.plus(HOLD);
        if learned.count >= limit {
            self.learned = None;
        }
    }

    pub(super) fn is_forgettable(&self) -> bool {
        self.learned.is_none()
    }

    pub(super) fn clock_went_back(&mut self, by: Duration) {
        if let Some(learned) = &mut self.learned {
            learned.taught.held_until = learned.taught.held_until.minus(by);
        }
    }
}
