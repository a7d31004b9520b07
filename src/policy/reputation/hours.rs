//! What was counted of one scope, hour by hour, and the sums over a representative volume.
//!
//! A rate goes back from the newest hour until the hours hold enough recipients *and* a time has passed: 24 hours for
//! bounces, 72 for complaints, which come late and count for the hour of their mail. At most 30 days. So a sender of
//! millions is judged by what it does today, and one of hundreds by its month.
//!
//! Hours ahead of the clock count up to a day: the clock was set back. What is further ahead is not looked at; a clock that
//! jumps ahead by 30 days or more leaves nothing to judge.

use std::collections::VecDeque;

use super::limits::Share;
use crate::types::{Hour, Mark};

/// No rate goes back further.
pub const WINDOW_HOURS_MAX: u32 = 720;
/// The bounce rate goes back at least so far, where there is something.
const BOUNCE_HOURS_MIN: u32 = 24;
/// The complaint rate does.
const COMPLAINT_HOURS_MIN: u32 = 72;
/// Hours that are further ahead are not looked at.
pub(super) const AHEAD_MAX: u32 = 24;

/// What was counted in one hour, or several. Stays at the largest number instead of overflowing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Taken by a host.
    pub delivered: u32,
    /// Refused for good, for the address.
    pub hard: u32,
    /// Ended otherwise.
    pub other: u32,
    /// Of those delivered, bounced by a report.
    pub late: u32,
    /// Complained about.
    pub complained: u32,
}

impl Counts {
    /// Recipients that ended.
    pub fn ended(&self) -> u64 {
        u64::from(self.delivered) + u64::from(self.hard) + u64::from(self.other)
    }

    /// Those that bounced for their address.
    pub fn bounced(&self) -> u64 {
        u64::from(self.hard) + u64::from(self.late)
    }

    fn of(&mut self, mark: Mark) -> &mut u32 {
        match mark {
            Mark::Delivered => &mut self.delivered,
            Mark::HardBounce => &mut self.hard,
            Mark::OtherBounce => &mut self.other,
            Mark::LateBounce => &mut self.late,
            Mark::Complaint => &mut self.complained,
        }
    }

    fn map2(self, other: Self, join: impl Fn(u32, u32) -> u32) -> Self {
        Self {
            delivered: join(self.delivered, other.delivered),
            hard: join(self.hard, other.hard),
            other: join(self.other, other.other),
            late: join(self.late, other.late),
            complained: join(self.complained, other.complained),
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.map2(other, u32::saturating_add)
    }

    /// This without the other.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.map2(other, u32::saturating_sub)
    }
}

/// The two rates of a scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Hard bounces of recipients that ended.
    pub bounces: Share,
    /// Complaints of recipients that were delivered to.
    pub complaints: Share,
}

/// What was counted of one scope. 24 octets for each of the last 720 hours in which there was something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hours {
    /// In order; only hours in which something was counted.
    buckets: VecDeque<(Hour, Counts)>,
}

impl Hours {
    /// There are so many of this mark in this hour; fewer than were known by then are old news.
    pub fn set(&mut self, hour: Hour, mark: Mark, sum: u64) {
        let place = self.buckets.partition_point(|(known, _)| *known < hour);
        if self.buckets.get(place).is_none_or(|(known, _)| *known != hour) {
            self.buckets.insert(place, (hour, Counts::default()));
        }
        let Some((_, counts)) = self.buckets.get_mut(place) else { return };
        let count = counts.of(mark);
        *count = u32::try_from(sum).unwrap_or(u32::MAX).max(*count);
    }

    /// What was counted in this hour.
    pub fn at(&self, hour: Hour) -> Counts {
        let place = self.buckets.binary_search_by_key(&hour, |(known, _)| *known).ok();
        place.and_then(|place| self.buckets.get(place)).map_or_else(Counts::default, |(_, counts)| *counts)
    }

    /// The newest hour that is looked at.
    pub fn newest(&self, now: Hour) -> Option<Hour> {
        self.buckets.iter().rev().map(|(hour, _)| *hour).find(|hour| *hour <= now.plus(AHEAD_MAX))
    }

    /// Forgets what no rate goes back to, nor would if the clock were set back by another 30 days.
    pub fn forget(&mut self, now: Hour) {
        while self.buckets.front().is_some_and(|(hour, _)| hour.plus(2 * WINDOW_HOURS_MAX) <= now) {
            self.buckets.pop_front();
        }
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// The rates over a volume that is representative: `volume` recipients. Hours up to `forgiven` are not looked at, and of
    /// each other one not what `left_out` says of it.
    pub fn rates(&self, now: Hour, volume: u32, forgiven: Option<Hour>, left_out: impl Fn(Hour) -> Counts) -> Rates {
        let is_over =
            |hour: Hour| forgiven.is_some_and(|forgiven| hour <= forgiven) || hour.plus(WINDOW_HOURS_MAX) <= now;
        let is_far = |hour: Hour, hours_min: u32| hour.plus(hours_min) <= now;
        let (mut bounces, mut complaints) = (Share::default(), Share::default());
        let looked_at = self.buckets.iter().rev().filter(|(hour, _)| *hour <= now.plus(AHEAD_MAX));
        for (hour, counts) in looked_at.take_while(|(hour, _)| !is_over(*hour)) {
            let counts = counts.minus(left_out(*hour));
            let takes_bounces = bounces.of < u64::from(volume) || !is_far(*hour, BOUNCE_HOURS_MIN);
            if takes_bounces {
                bounces = bounces.plus(Share { count: counts.bounced(), of: counts.ended() });
            }
            let takes_complaints = complaints.of < u64::from(volume) || !is_far(*hour, COMPLAINT_HOURS_MIN);
            if takes_complaints {
                let share = Share { count: counts.complained.into(), of: counts.delivered.into() };
                complaints = complaints.plus(share);
            }
            if !takes_bounces && !takes_complaints {
                break;
            }
        }
        Rates { bounces, complaints }
    }
}
