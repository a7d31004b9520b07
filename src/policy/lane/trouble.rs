//! What holds a lane back, in words: the strongest cause of this moment, and what the host said.

use std::sync::Arc;

use crate::types::{Timestamp, ToldState};

/// Octets of a reply or failure that are kept; what is longer is cut.
const WORDS_BYTES_MAX: usize = 160;

/// See [`Lane::trouble`](super::Lane::trouble).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// How it is held back.
    pub mode: Mode,
    /// Its end, where it has one.
    pub until: Option<Timestamp>,
    /// The rule that caused it, where one did.
    pub rule: Option<Arc<str>>,
    /// The reply or failure.
    pub words: Box<str>,
}

/// How a lane is held back, the strongest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// It comes back by and by.
    Ramping = 1,
    /// It may have fewer connections than its limits say: learned, or by a reply's reaction.
    Fewer,
    /// A reply's reaction lowered its rate.
    Slowed,
    /// The site could not be reached from its source at the last try.
    Unreachable,
    /// A reply's reaction stopped it for a time.
    Suspended,
    /// Its source is blocked there, until a probe goes well.
    Blocked,
}

impl Mode {
    pub(super) const ALL: [Mode; 6] =
        [Mode::Ramping, Mode::Fewer, Mode::Slowed, Mode::Unreachable, Mode::Suspended, Mode::Blocked];

    /// As events, the API and texts spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Ramping => "ramping",
            Mode::Fewer => "fewer-connections",
            Mode::Slowed => "slowed",
            Mode::Unreachable => "unreachable",
            Mode::Suspended => "suspended",
            Mode::Blocked => "blocked",
        }
    }

    const fn code(self) -> u8 {
        self as u8
    }
}

/// What was said last, and what that made of the lane. One for each lane: the strongest that still holds.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) mode: Mode,
    pub(super) rule: Option<Arc<str>>,
    pub(super) words: Box<str>,
}

impl Told {
    pub(super) fn new(mode: Mode, rule: Option<&Arc<str>>, words: &str) -> Self {
        let kept = words.get(..words.floor_char_boundary(WORDS_BYTES_MAX)).unwrap_or_default();
        Self { mode, rule: rule.cloned(), words: kept.into() }
    }

    pub(super) fn restore(state: &ToldState) -> Option<Self> {
        let mode = Mode::ALL.into_iter().find(|mode| mode.code() == state.mode)?;
        Some(Self::new(mode, state.rule.as_ref(), &state.words))
    }

    pub(super) fn state(&self) -> ToldState {
        ToldState { mode: self.mode.code(), rule: self.rule.clone(), words: self.words.clone() }
    }
}
