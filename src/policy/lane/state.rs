//! What of a lane is kept over a restart, and when it is to be written: a block or a backoff at once, what was learned at most
//! once in [`LEARNED_EVERY`], a grant of messages ahead as soon as it is asked for.

use std::time::Duration;

use super::super::limits::{LaneLimits, RateLimit, Span};
use super::backoff::Backoff;
use super::block::Block;
use super::messages::Messages;
use super::rates::{Limits, Sent};
use super::reach::Reach;
use super::trouble::{Mode, Told};
use super::window::Window;
use super::{Lane, LaneState};
use crate::types::{ConnectionsState, Learning, Timestamp};

/// What was learned is written no more often.
const LEARNED_EVERY: Duration = Duration::from_secs(10);
/// A write that failed is asked for again after that.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What is not on disk yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Unsaved {
    learned: bool,
    urgent: bool,
}

/// When to save.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Saving {
    unsaved: Unsaved,
    /// What the write under way holds.
    writing: Option<Unsaved>,
    written_at: Timestamp,
    failed: bool,
}

/// What may change by each transaction.
pub(super) type LearnedState = (Option<ConnectionsState>, Option<Learning>, (u32, u32, Option<Timestamp>), Option<u32>);

impl Saving {
    /// Something changed that may be written later.
    pub(super) fn changed(&mut self) {
        self.unsaved.learned = true;
    }

    /// Something changed that is to be written now.
    pub(super) fn changed_at_once(&mut self) {
        self.unsaved.urgent = true;
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.writing.is_some()
    }

    /// When to save; `None`: no need, or one is under way.
    pub(super) fn due_at(&self, wants_grant: bool) -> Option<Timestamp> {
        if self.writing.is_some() {
            return None;
        }
        match self.unsaved {
            _ if wants_grant => Some(self.soon()),
            Unsaved { urgent: true, .. } => Some(self.soon()),
            Unsaved { learned: true, .. } => Some(self.written_at.plus(LEARNED_EVERY)),
            _ => None,
        }
    }

    fn soon(&self) -> Timestamp {
        if self.failed { self.written_at.plus(AGAIN_AFTER) } else { Timestamp::EPOCH }
    }

    pub(super) fn clock_went_back(&mut self, by: Duration) {
        self.written_at = self.written_at.minus(by);
    }
}

impl Lane {
    /// A lane as it was saved. `unclean`: the daemon did not stop in order, so more may have been sent than was saved.
    ///
    /// What was sent in the last second and minute is known only from [`Lane::last_save`] and an orderly stop; otherwise it counts as
    /// all that the limits allow, from `now` on. So a lane without a record, too, is made by this with a default state
    /// within the first minute of the daemon, `now` being its start.
    pub fn restore(state: &LaneState, limits: LaneLimits, unclean: bool, now: Timestamp) -> Self {
        // Where the clock was set back meanwhile: as if it had been since.
        let at = now.max(state.saved_at);
        let mut lane = Self::restored(state, limits, unclean, at);
        lane.clock_went_back(at.since(now));
        lane
    }

    fn restored(state: &LaneState, limits: LaneLimits, unclean: bool, now: Timestamp) -> Self {
        let span_of = |per: Duration| Span::ALL.into_iter().find(|span| span.duration() == per);
        let slow = state.slow.and_then(|(count, per, until)| Some((RateLimit { count, per: span_of(per)? }, until)));
        let backoff = Backoff::restore(state, slow);
        let backoff = (!backoff.is_over(now)).then(|| Box::new(backoff));
        let slow = backoff.as_ref().and_then(|backoff| backoff.slow(now));
        let block = state.block.map(Block::restore).filter(|block| !block.is_over(now));
        let is_exact = state.is_last && !unclean;
        let mut lane = Self {
            limits,
            window: Window::restore(state.connections, limits.connections),
            messages: Messages::restore(state.messages),
            reach: Reach::restore(0, state.failures, state.ramp, state.unreachable_until),
            sent: Sent::restore(Limits::new(&limits.rates, slow), state, is_exact, now),
            backoff,
            block: block.map(Box::new),
            told: None,
            warming: None,
            saving: Saving { written_at: now, ..Saving::default() },
            latest: now,
        };
        let is_in_trouble = lane.is_in_any(now);
        lane.told = state.told.as_ref().filter(|_| is_in_trouble).and_then(Told::restore).map(Box::new);
        lane
    }

    fn is_in_any(&self, now: Timestamp) -> bool {
        Mode::ALL.into_iter().any(|mode| self.is_in(mode, now))
    }

    /// Whether what is on disk differs from this in what matters, or more may be sent only after a save.
    pub fn wants_save(&self, now: Timestamp) -> bool {
        self.saving.due_at(self.sent.wants_grant()).is_some_and(|due_at| due_at <= now.max(self.latest))
    }

    /// Whether the next save asks for a sync of its own (a block, a backoff, a grant ahead). To be asked before [`Lane::save`].
    pub fn wants_sync(&self) -> bool {
        self.saving.unsaved.urgent || self.sent.wants_grant()
    }

    /// What to write to disk now, with a reservation ahead for what hour's and day's limits let it send. One save at a time.
    pub fn save(&mut self, now: Timestamp) -> LaneState {
        let now = self.tell_time(now);
        let mut state = self.state(now);
        let limits = Limits { left: self.left_today(now), ..Limits::new(&self.limits.rates, None) };
        self.sent.save(&mut state, limits, now);
        self.saving.writing = Some(std::mem::take(&mut self.saving.unsaved));
        self.saving.written_at = now;
        state
    }

    /// The last [`Lane::save`] is durable, or (`false`) failed: then it may be on disk or not, and is asked for again.
    pub fn saved(&mut self, durable: bool, now: Timestamp) {
        let now = self.tell_time(now);
        let Some(written) = self.saving.writing.take() else { return };
        self.sent.saved(durable);
        self.saving.failed = !durable;
        if !durable {
            self.saving.written_at = now;
            self.saving.unsaved.learned |= written.learned;
            self.saving.unsaved.urgent |= written.urgent;
        }
    }

    /// At an orderly stop, with nothing in flight and no save under way: what to write, so that the next start knows exactly
    /// what was sent. `None`: nothing needs to be remembered.
    pub fn last_save(&mut self, now: Timestamp) -> Option<LaneState> {
        let now = self.tell_time(now);
        if self.is_forgettable(now) {
            return None;
        }
        let mut state = self.state(now);
        state.is_last = true;
        self.sent.last_save(&mut state, now);
        Some(state)
    }

    /// What may change by each transaction.
    pub(super) fn learned(&self) -> LearnedState {
        let window = self.window.state(self.limits.connections);
        let fewer = self.backoff.as_ref().and_then(|backoff| backoff.connections());
        (window, self.messages.state(), self.reach.parts(), fewer)
    }

    fn state(&self, now: Timestamp) -> LaneState {
        let (failures, ramp, unreachable_until) = self.reach.parts();
        let mut state = LaneState {
            saved_at: now,
            connections: self.window.state(self.limits.connections),
            messages: self.messages.state(),
            failures,
            ramp,
            unreachable_until,
            block: self.block.as_ref().filter(|block| !block.is_over(now)).map(|block| block.state()),
            told: self.told.as_ref().filter(|_| self.is_in_any(now)).map(|told| told.state()),
            warmup: self.warming.as_ref().filter(|warming| !warming.is_untouched()).map(|warming| warming.state()),
            ..LaneState::default()
        };
        if let Some(backoff) = &self.backoff {
            backoff.save(&mut state, now);
        }
        state
    }
}
