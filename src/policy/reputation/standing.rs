//! How one scope stands.
//!
//! ```text
//!             warning threshold          pause threshold
//! healthy ─────────────────────▶ warned ─────────────────▶ critical ──▶ paused   (tenants and sets, where that is automatic)
//!    ▲  ◀───────────────────────      ◀───────────────────                │
//!    │       below 4/5 of it              below 4/5 of it                 │ an operator resumes it:
//!    └────────────────────────────────────────────────────────────────────┘ all up to this hour is forgiven
//! ```
//! An operator may pause from any state. What is paused stays so, whatever the rates, until an operator resumes it.

use super::hours::AHEAD_MAX;
use super::limits::Degree;
use crate::types::{Hour, Timestamp};

/// How bad the rates are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Below all thresholds, or too little to say.
    #[default]
    Healthy,
    /// A rate is at the first threshold.
    Warned,
    /// A rate is at the second one.
    Critical,
}

impl Level {
    /// The number in stored records.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The level of that number; critical for what a newer release wrote.
    pub const fn from_code(code: u8) -> Self {
        match code {
            0 => Level::Healthy,
            1 => Level::Warned,
            _ => Level::Critical,
        }
    }

    fn of(degree: Degree) -> Self {
        match degree {
            Degree::Fine => Level::Healthy,
            Degree::Warning => Level::Warned,
            Degree::Pause => Level::Critical,
        }
    }

    /// The level after one look.
    pub(super) fn after(self, (up, down): (Degree, Degree)) -> Self {
        Self::of(up).max(self.min(Self::of(down)))
    }
}

/// Who paused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PausedBy {
    /// Its rates.
    Rates,
    /// An operator.
    Operator,
}

impl PausedBy {
    /// The number in stored records.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// From that number; an operator for what a newer release wrote.
    pub const fn from_code(code: u8) -> Self {
        if code == 0 { PausedBy::Rates } else { PausedBy::Operator }
    }

    /// As events and the command line spell it.
    pub const fn name(self) -> &'static str {
        match self {
            PausedBy::Rates => "rates",
            PausedBy::Operator => "operator",
        }
    }
}

/// A pause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// By whom.
    pub by: PausedBy,
    /// Since when.
    pub since: Timestamp,
    /// Why, for people.
    pub reason: Box<str>,
}

/// A scope's state, as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// All is well, or there is too little to say.
    Healthy,
    /// A rate is at the first threshold.
    Warned,
    /// A rate is at the second one, and nothing is paused: it is none that can be, or must not be.
    Critical,
    /// New mail of it is refused.
    Paused,
}

impl State {
    /// All.
    pub const ALL: [State; 4] = [State::Healthy, State::Warned, State::Critical, State::Paused];

    /// As events and the command line spell it.
    pub const fn name(self) -> &'static str {
        match self {
            State::Healthy => "healthy",
            State::Warned => "warned",
            State::Critical => "critical",
            State::Paused => "paused",
        }
    }
}

/// How a scope stands. Plain data: what is kept over a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// How bad its rates are; while it is paused, how bad they were.
    pub level: Level,
    /// Since when.
    pub since: Timestamp,
    /// What was counted up to this hour is not judged.
    pub forgiven_through: Option<Hour>,
    /// Whether new mail of it is refused.
    pub pause: Option<Pause>,
}

/// A change of state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Before.
    pub from: State,
    /// After.
    pub to: State,
    /// Why, for people.
    pub reason: Box<str>,
}

impl Standing {
    /// As it is shown.
    pub fn state(&self) -> State {
        match (&self.pause, self.level) {
            (Some(_), _) => State::Paused,
            (None, Level::Healthy) => State::Healthy,
            (None, Level::Warned) => State::Warned,
            (None, Level::Critical) => State::Critical,
        }
    }

    /// The hours that are forgiven. Where the clock was set back since by more than a day, they end now.
    pub fn forgiven(&self, now: Hour) -> Option<Hour> {
        self.forgiven_through.map(|hour| if hour > now.plus(AHEAD_MAX) { now } else { hour })
    }

    /// The level after a look, of one that is not paused. `None`: as before.
    pub(super) fn move_to(&mut self, level: Level, reason: impl FnOnce() -> String, now: Timestamp) -> Option<Change> {
        if self.pause.is_some() || level == self.level {
            return None;
        }
        let from = self.state();
        (self.level, self.since) = (level, now);
        Some(Change { from, to: self.state(), reason: reason().into() })
    }

    /// Refuses its mail from now on. `None`: it is paused already.
    pub(super) fn pause(&mut self, by: PausedBy, reason: &str, now: Timestamp) -> Option<Change> {
        if self.pause.is_some() {
            return None;
        }
        let from = self.state();
        self.pause = Some(Pause { by, since: now, reason: reason.into() });
        Some(Change { from, to: State::Paused, reason: reason.into() })
    }

    /// Takes its mail again, and begins anew: nothing of what is counted by the end of this hour, or was up to `newest`, is
    /// judged. `None`: it is not paused.
    pub(super) fn resume(&mut self, reason: &str, newest: Option<Hour>, now: Timestamp) -> Option<Change> {
        self.pause.take()?;
        let through = newest.unwrap_or_default().max(Hour::of(now));
        (self.level, self.since, self.forgiven_through) = (Level::Healthy, now, Some(through));
        Some(Change { from: State::Paused, to: State::Healthy, reason: reason.into() })
    }
}
