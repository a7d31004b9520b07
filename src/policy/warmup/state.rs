//! What of a warm-up is kept over a restart ([`WarmupState`]), and what is made of it, whatever it says.

use std::sync::Arc;

use super::brake::{Brake, FROZEN_MAX};
use super::pace::{hour_of, start_of_day, start_of_hour};
use super::plan::Plan;
use super::warming::{Day, Pressed, UNCAPPED, Warming};
use crate::types::{Timestamp, WarmupDay, WarmupState};

/// Octets of a reason. Longer: cut.
const REASON_BYTES_MAX: usize = 160;
const RUNNING: u8 = 0;
const SLOWED: u8 = 1;
const FROZEN: u8 = 2;
const OVER: u8 = 3;

impl Warming {
    /// A lane as it was kept, with the plan that is its plan now: if that is another one, as after [`Warming::set_plan`].
    /// `extra_used`: messages that may have been sent beyond those in `state`, since they were in flight or granted ahead.
    pub fn restore(plan: Arc<Plan>, state: &WarmupState, extra_used: u32, now: Timestamp) -> Self {
        let last_hour = last_hour_of(state.day);
        // Where the clock was set back it may be the first one of the next day.
        let hour = state.hour.clamp(hour_of(start_of_day(state.day)), last_hour.saturating_add(1));
        let latest = start_of_hour(hour.min(last_hour));
        // Where the clock was set back meanwhile: as if it had been since.
        let at = now.max(latest);
        let day_end = start_of_hour(last_hour.saturating_add(1));
        let past = |time: Timestamp| time.min(day_end).min(at);
        let is_over = state.mode == OVER;
        let position = if is_over { plan.end() } else { state.position.clamp(1, plan.len()) };
        let cap = state.cap.or(plan.cap(position)).filter(|_| !is_over).unwrap_or(UNCAPPED);
        let mut lane = Self {
            today: Day {
                day: state.day,
                position,
                cap,
                used: state.used.saturating_add(extra_used),
                delivered: state.delivered_today,
                held: state.held_today,
            },
            before: state.before.filter(|before| before.day < state.day).map(Day::restore),
            ahead: state.ahead.filter(|(day, _)| *day > state.day),
            in_flight: extra_used,
            hour,
            hour_used: state.used_this_hour.saturating_add(extra_used),
            brake: Brake::restore(state.newest_end, &state.parts, at),
            pressed: pressed(state, at),
            paused: state.paused && !is_over,
            freezes: state.freezes,
            since: past(state.since),
            reason: state.reason.as_deref().map(cut),
            last_sent_at: state.last_sent_at.map(past).into(),
            set_at: past(state.set_at),
            stepped_back_at: state.stepped_back_at.map(past).into(),
            frozen_at: state.frozen_at.map(past).into(),
            pending: None,
            latest,
            plan,
        };
        lane.fit(&state.plan, is_over);
        lane.move_to(at);
        lane.clock_went_back(at.since(now));
        // They are counted; nobody will tell of their end.
        lane.in_flight = 0;
        lane
    }

    /// What is to be kept. Messages in flight are not in it: whoever keeps it notes how many there are, and how many may follow
    /// before the next one is kept.
    pub fn state(&self) -> WarmupState {
        let (newest_end, parts) = self.brake.state();
        let (mode, until) = match self.pressed {
            _ if self.is_over() => (OVER, None),
            Pressed::Not => (RUNNING, None),
            Pressed::Half => (SLOWED, None),
            Pressed::Full { until } => (FROZEN, Some(until)),
        };
        let Day { day, position, cap, used, delivered, held } = self.today;
        WarmupState {
            plan: Arc::clone(self.plan.name()),
            position,
            cap: Some(cap).filter(|cap| *cap != UNCAPPED),
            day,
            used: used.saturating_sub(self.in_flight),
            hour: self.hour,
            used_this_hour: self.hour_used.saturating_sub(self.in_flight),
            delivered_today: delivered,
            held_today: held,
            before: self.before.map(Day::state),
            ahead: self.ahead,
            mode,
            paused: self.paused,
            since: self.since,
            until,
            reason: self.reason.clone(),
            last_sent_at: self.last_sent_at.get(),
            set_at: self.set_at,
            stepped_back_at: self.stepped_back_at.get(),
            frozen_at: self.frozen_at.get(),
            freezes: self.freezes,
            newest_end,
            parts,
        }
    }
}

impl Day {
    fn restore(state: WarmupDay) -> Self {
        let WarmupDay { day, position, cap, used, delivered, held } = state;
        Self { day, position: position.max(1), cap: cap.unwrap_or(UNCAPPED), used, delivered, held }
    }

    fn state(self) -> WarmupDay {
        let Self { day, position, cap, used, delivered, held } = self;
        WarmupDay { day, position, cap: Some(cap).filter(|cap| *cap != UNCAPPED), used, delivered, held }
    }
}

fn pressed(state: &WarmupState, at: Timestamp) -> Pressed {
    match state.mode {
        SLOWED => Pressed::Half,
        // No freeze lasts longer, whatever stands there.
        FROZEN => Pressed::Full { until: state.until.unwrap_or(at).min(at.plus(FROZEN_MAX)) },
        _ => Pressed::Not,
    }
}

fn last_hour_of(day: u32) -> u32 {
    hour_of(start_of_day(day)).saturating_add(23)
}

fn cut(text: &str) -> Box<str> {
    text.get(..text.floor_char_boundary(REASON_BYTES_MAX)).unwrap_or_default().into()
}
