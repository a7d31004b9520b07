//! What one source sent to one site on one UTC day, as plain data: `scheduler::ledger` adds it up, `queue` stores it.

use std::collections::BTreeMap;

/// See the module. Counts are messages, as all our limits count them. They stay at the largest number instead of overflowing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DayTotals {
    /// Sent.
    pub sent: u32,
    /// Taken by the host.
    pub delivered: u32,
    /// Deferred by the host: not our own waits.
    pub deferred: u32,
    /// Bounced, by the number of the class. The numbers are stored; one that is not known is kept.
    pub bounced: BTreeMap<u8, u32>,
    /// Complaints.
    pub complained: u32,
    /// Blocks of the source.
    pub blocked: u32,
    /// The cap of the day, where the source has a plan there.
    pub cap: Option<u32>,
    /// How far it is in that plan, from 1.
    pub position: Option<u32>,
}

impl DayTotals {
    /// Adds what came later: its counts, and its cap and position where it has them.
    pub fn add(&mut self, later: &DayTotals) {
        let DayTotals { sent, delivered, deferred, bounced, complained, blocked, cap, position } = later;
        self.sent = self.sent.saturating_add(*sent);
        self.delivered = self.delivered.saturating_add(*delivered);
        self.deferred = self.deferred.saturating_add(*deferred);
        for (class, count) in bounced {
            let sum = self.bounced.entry(*class).or_default();
            *sum = sum.saturating_add(*count);
        }
        self.complained = self.complained.saturating_add(*complained);
        self.blocked = self.blocked.saturating_add(*blocked);
        self.cap = cap.or(self.cap);
        self.position = position.or(self.position);
    }

    /// Bounces of all classes.
    pub fn bounces(&self) -> u32 {
        self.bounced.values().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_has_all_counts_and_the_latest_cap() {
        let mut sum = DayTotals { sent: 5, bounced: [(1, 2)].into(), cap: Some(10), ..DayTotals::default() };
        let later = DayTotals {
            sent: u32::MAX,
            delivered: 1,
            deferred: 2,
            bounced: [(1, 3), (200, 4)].into(),
            complained: 3,
            blocked: 4,
            cap: None,
            position: Some(7),
        };
        sum.add(&later);
        let expected = DayTotals { bounced: [(1, 5), (200, 4)].into(), cap: Some(10), ..later };
        assert_eq!((sum.bounces(), sum), (9, expected));
    }
}
