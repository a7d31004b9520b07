//! What an operator is shown of a warm-up. To look changes nothing.

use std::sync::Arc;

use super::pace;
use super::warming::{Pressed, Warming};
use crate::types::Timestamp;

/// How it stands, the strongest word first where more than one is true: over, frozen, slowed, paused, running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// By its plan.
    Running,
    /// Half the cap, no advance.
    Slowed,
    /// Nothing is sent.
    Frozen,
    /// The whole cap, but no advance: an operator wants it so.
    Paused,
    /// The plan is behind it: no cap.
    Over,
}

impl Mode {
    /// All.
    pub const ALL: [Mode; 5] = [Mode::Running, Mode::Slowed, Mode::Frozen, Mode::Paused, Mode::Over];

    /// As events, metrics and scripts name it.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Running => "running",
            Mode::Slowed => "slowed",
            Mode::Frozen => "frozen",
            Mode::Paused => "paused",
            Mode::Over => "over",
        }
    }
}

/// A warm-up at a moment. Counts are of messages (transactions).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmupReport {
    /// The plan.
    pub plan: Arc<str>,
    /// How far it is in the plan, from 1; one more than `len` where that is over.
    pub position: u32,
    /// Positions of the plan that have a cap.
    pub len: u32,
    /// How much of the plan is behind it, in percent.
    pub percent: u8,
    /// What it may send on this UTC day, slowness included; `None`: no limit.
    pub cap: Option<u32>,
    /// What it sent of that, those in flight included.
    pub used: u32,
    /// What went out on this UTC day and was taken.
    pub delivered_today: u32,
    /// An even share of an hour; the double of it is the most that any hour sends. `None`: no limit.
    pub hour_share: Option<u32>,
    /// What it sent in this hour, those in flight included.
    pub hour_used: u32,
    /// How it stands.
    pub mode: Mode,
    /// An operator holds its position, whatever its mode.
    pub paused: bool,
    /// Since when it is in that mode.
    pub since: Timestamp,
    /// The end of a freeze.
    pub until: Option<Timestamp>,
    /// Why it is slowed or frozen.
    pub reason: Option<Box<str>>,
    /// When it last sent something.
    pub last_sent_at: Option<Timestamp>,
}

impl Warming {
    /// Whether nothing came of it yet: a new one would be the same.
    pub fn is_untouched(&self) -> bool {
        // What may have been sent before a restart counts, too.
        let is_unused =
            self.today.used == 0 && self.before.is_none_or(|before| before.used == 0) && self.ahead.is_none();
        let is_new = self.last_sent_at.get().is_none() && self.today.position == 1 && is_unused;
        is_new && !self.paused && self.pressed == Pressed::Not
    }

    /// Position, and what it may send on the day that it last looked at; `None`: no limit.
    pub fn place_today(&self) -> (u32, Option<u32>) {
        (self.today.position, self.cap())
    }

    /// Mode, cap and what was sent of it, of the day that it last looked at.
    pub fn summary(&self) -> (Mode, Option<u32>, u32) {
        (self.mode(), self.cap(), self.today.used)
    }

    /// How it stands at `now`. Makes a copy: for status, not for each message.
    pub fn report(&self, now: Timestamp) -> WarmupReport {
        let mut lane = self.clone();
        lane.move_to(now);
        let cap = lane.cap();
        WarmupReport {
            plan: Arc::clone(lane.plan.name()),
            position: lane.today.position,
            len: lane.plan.len(),
            percent: lane.plan.percent(lane.today.position),
            cap,
            used: lane.today.used,
            delivered_today: lane.today.delivered,
            hour_share: cap.map(pace::hour_share),
            hour_used: lane.hour_used,
            mode: lane.mode(),
            paused: lane.paused,
            since: lane.since,
            until: match lane.pressed {
                Pressed::Full { until } => Some(until),
                Pressed::Not | Pressed::Half => None,
            },
            reason: lane.reason,
            last_sent_at: lane.last_sent_at.get(),
        }
    }

    /// How it stood when it was last asked for something.
    pub fn mode(&self) -> Mode {
        match self.pressed {
            _ if self.is_over() => Mode::Over,
            Pressed::Full { .. } => Mode::Frozen,
            Pressed::Half => Mode::Slowed,
            Pressed::Not if self.paused => Mode::Paused,
            Pressed::Not => Mode::Running,
        }
    }
}
