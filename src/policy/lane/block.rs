//! A source that is blocked at a site: nothing for a time, then one probe of one message that decides. Blocked again soon, it lasts twice
//! as long.

use std::time::Duration;

use crate::types::{BlockState, Timestamp};

/// No block lasts longer.
pub(super) const BLOCK_MAX: Duration = Duration::from_secs(24 * 3_600);

/// A block, or the memory of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    state: BlockState,
    /// Messages of a probe that is under way.
    probing: u32,
}

impl Block {
    /// A first one.
    pub(super) fn new(lasts: Duration, now: Timestamp) -> Self {
        let lasts = lasts.min(BLOCK_MAX);
        Self { state: BlockState { until: now.plus(lasts), lasts, returned_at: None }, probing: 0 }
    }

    /// As it was kept.
    pub(super) fn restore(state: BlockState) -> Self {
        Self { state, probing: 0 }
    }

    pub(super) fn state(&self) -> BlockState {
        self.state
    }

    /// A reply says that it is blocked. Whether that is news: not while it is blocked already.
    pub(super) fn hit(&mut self, lasts: Duration, now: Timestamp) -> bool {
        if self.blocked_until(now).is_some() {
            // Said to messages that were under way.
            self.state.until = self.state.until.max(now.plus(lasts.min(BLOCK_MAX)));
            return false;
        }
        let longer = if self.is_over(now) { lasts } else { self.state.lasts.saturating_mul(2).max(lasts) };
        *self = Self::new(longer, now);
        true
    }

    pub(super) fn blocked_until(&self, now: Timestamp) -> Option<Timestamp> {
        (self.state.returned_at.is_none() && now < self.state.until).then_some(self.state.until)
    }

    /// Whether its time is over and no probe went well yet.
    pub(super) fn awaits_probe(&self, now: Timestamp) -> bool {
        self.state.returned_at.is_none() && now >= self.state.until
    }

    /// Whether a probe is under way.
    pub(super) fn is_probing(&self) -> bool {
        self.probing > 0
    }

    pub(super) fn take(&mut self, messages: u32, now: Timestamp) {
        if self.awaits_probe(now) {
            self.probing = self.probing.saturating_add(messages);
        }
    }

    pub(super) fn done(&mut self, messages: u32) {
        self.probing = self.probing.saturating_sub(messages);
    }

    /// A transaction went well. Whether that ends the block.
    pub(super) fn good(&mut self, now: Timestamp) -> bool {
        let ends = self.awaits_probe(now);
        if ends {
            self.state.returned_at = Some(now);
        }
        ends
    }

    /// Whether it may be forgotten: the next one would last no longer for it.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        let remembered = self.state.lasts.saturating_mul(2);
        self.state.returned_at.is_some_and(|returned_at| now.since(returned_at) > remembered)
    }

    pub(super) fn clock_went_back(&mut self, by: Duration) {
        self.state.until = self.state.until.minus(by);
        self.state.returned_at = self.state.returned_at.map(|at| at.minus(by));
    }
}
