//! What time does to a warm-up: the step at midnight, steps back for a lane that is idle, and a clock that is set back.
//!
//! A clock that is set back over a midnight undoes that midnight: the day before goes on, with what was sent on both counted,
//! so that a clock that was wrong for a while costs a lane neither its position nor a cap.

use std::time::Duration;

use super::change::WarmupChange;
use super::pace::{day_of, hour_of};
use super::plan::Advance;
use super::warming::{Day, Pressed, UNCAPPED, Warming};
use crate::types::Timestamp;

/// So many idle days in a row are steps of a daily plan; further ones are not.
const IDLE_STEPS: u32 = 3;
/// Each idle day after so many in a row takes a lane a step back.
const IDLE_DAYS: u32 = 14;
/// After so many it begins anew.
const FORGOTTEN_DAYS: u32 = 30;
/// Behind so many days nothing is left to change.
const DAYS_LOOKED_AT: u32 = 2 * FORGOTTEN_DAYS;

impl Warming {
    /// The time as it counts here, with all that it brought.
    pub(super) fn move_to(&mut self, now: Timestamp) -> Timestamp {
        let now = now.max(self.latest);
        self.latest = now;
        let was_held = self.is_held();
        self.ease(now);
        let (day, hour) = (day_of(now), hour_of(now));
        if let Some((ahead, _)) = self.ahead.filter(|(ahead, _)| *ahead > self.today.day && *ahead < day) {
            // What is known of it is known of the day before, should the clock be set back once more.
            self.change_day(ahead, was_held);
        }
        if day > self.today.day {
            self.change_day(day, was_held);
        }
        if hour > self.hour {
            self.hour = hour;
            self.hour_used = self.in_flight;
        }
        now
    }

    fn change_day(&mut self, to: u32, was_held: bool) {
        let ended = self.today;
        let held = was_held || self.is_held();
        let position = self.position_after(ended, to, held);
        // It stands for its day and the one before: see `undo_day`.
        let ahead =
            self.ahead.filter(|(day, _)| *day == to || *day == to.saturating_add(1)).map_or(0, |(_, used)| used);
        self.ahead = self.ahead.filter(|(day, _)| *day > to);
        let cap = self.plan.cap(position).unwrap_or(UNCAPPED);
        let used = self.in_flight.saturating_add(ahead);
        self.before = Some(ended);
        self.today = Day { day: to, position, cap, used, delivered: 0, held };
        if position < ended.position {
            self.push(WarmupChange::Decayed { from: ended.position, to: position });
        } else if position > ended.position {
            let advanced = WarmupChange::Advanced { from: ended.position, to: position, cap };
            self.push(if self.is_over() { WarmupChange::Over } else { advanced });
        }
    }

    /// Where it is after all the days from `ended` to the one before `to`.
    fn position_after(&self, ended: Day, to: u32, held: bool) -> u32 {
        let busy_at = self.last_sent_at.get().unwrap_or(Timestamp::EPOCH).max(self.set_at);
        let mut position = ended.position;
        for day in ended.day..to.min(ended.day.saturating_add(DAYS_LOOKED_AT)) {
            let idle_days = day.saturating_sub(day_of(busy_at));
            position = if idle_days > FORGOTTEN_DAYS {
                1
            } else if idle_days > IDLE_DAYS {
                self.plan.back(position)
            } else if idle_days <= IDLE_STEPS && self.is_step(ended, day, held) {
                position.saturating_add(1).min(self.plan.end())
            } else {
                position
            };
        }
        position
    }

    /// Whether this day brings it on.
    fn is_step(&self, ended: Day, day: u32, held: bool) -> bool {
        let (held, delivered) = if day == ended.day { (ended.held, ended.delivered) } else { (held, 0) };
        // The plan begins with the first message.
        if held || self.last_sent_at.get().is_none() {
            return false;
        }
        match (self.plan.advance(), self.plan.cap(ended.position)) {
            (Advance::Daily, _) => true,
            (Advance::Delivered { .. }, None) => false,
            (Advance::Delivered { percent }, Some(cap)) => {
                u64::from(delivered) * 100 >= u64::from(percent) * u64::from(cap)
            }
        }
    }

    /// The wall clock went back by so much. To be kept at once where that is over a midnight: what was sent on the day that is
    /// undone counts when it comes again.
    pub fn clock_went_back(&mut self, by: Duration) {
        if by.is_zero() {
            return;
        }
        self.latest = self.latest.minus(by);
        let now = self.latest;
        if let Pressed::Full { until } = &mut self.pressed {
            *until = until.minus(by);
        }
        // What was before the clock went wrong stays; what was after it was just now.
        self.since = self.since.min(now);
        self.set_at = self.set_at.min(now);
        for at in [&mut self.last_sent_at, &mut self.stepped_back_at, &mut self.frozen_at] {
            *at = at.within(now);
        }
        self.brake.clock_went_back(now);
        if self.hour > hour_of(now).saturating_add(1) {
            // Else that hour comes again soon, and what was sent in it counts.
            self.hour = hour_of(now);
        }
        if day_of(now) < self.today.day {
            self.undo_day(day_of(now));
        }
    }

    /// The last of the days that are undone, and what was sent on it, or on the one before it where that is undone as well: when
    /// they come again, whichever clock was right, it counts on each of them. Of a clock that was wrong over more than two
    /// midnights, the first days are not known any more.
    fn undone_days(&self, day: u32) -> (u32, u32) {
        let undone = self.today;
        let of_before = self.before.filter(|before| before.day > day && before.day.saturating_add(1) == undone.day);
        let used = of_before.map_or(undone.used, |before| before.used.max(undone.used));
        // Undone earlier, and not come again yet.
        match self.ahead {
            Some((last, of_last)) if last == undone.day.saturating_add(1) => (last, of_last.max(used)),
            _ => (undone.day, used),
        }
    }

    /// It is an earlier day again.
    fn undo_day(&mut self, day: u32) {
        let undone = self.today;
        self.ahead = Some(self.undone_days(day));
        let Some(before) = self.before.take() else {
            self.today.day = day;
            return;
        };
        self.today = Day { held: before.held || self.is_held(), ..before };
        if before.day < day {
            self.change_day(day, self.is_held());
            self.today.used = self.today.used.max(undone.used);
            self.today.delivered = undone.delivered;
            return;
        }
        self.today.day = day;
        self.today.used = before.used.saturating_add(undone.used);
        self.today.delivered = before.delivered.saturating_add(undone.delivered);
        if before.day > day {
            // What was sent on this day is not known any more: all that it allows. The step to `before` was taken already.
            self.today.held = true;
            if before.cap != UNCAPPED {
                self.today.used = self.today.used.max(before.cap);
            }
        }
    }
}
