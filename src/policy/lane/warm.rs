//! The warm-up of a lane: what its plan lets it send today and now, beside all its other limits.
//!
//! What may be sent under a day's cap stands on disk before, as for limits by hour and day (`rates`): after a stop that was not
//! orderly, all that was granted counts as sent.

use std::sync::Arc;

use super::{Change, Lane, LaneState};
use crate::policy::warmup::{Mode, Plan, Tally, Warming, WarmupChange, WarmupReport};
use crate::types::Timestamp;

/// What an operator wants of a warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarmupOrder {
    /// It stays at its position.
    Pause,
    /// It goes on, also where it was slowed or frozen.
    Resume,
    /// It stands at this position, from 1 on.
    SetPosition(u32),
    /// So many complaints came in by another way.
    Complaints(u32),
}

impl Lane {
    /// By this plan from now on; what was sent today counts. `None`: it does not warm up, and what it had of a warm-up is
    /// forgotten.
    pub fn set_warmup(&mut self, plan: Option<&Arc<Plan>>, now: Timestamp) -> Vec<Change> {
        let now = self.tell_time(now);
        let changes = match (plan, &mut self.warming) {
            (None, warming) => {
                *warming = None;
                return Vec::new();
            }
            (Some(plan), Some(warming)) => warming.set_plan(Arc::clone(plan), now),
            (Some(plan), warming) => {
                *warming = Some(Box::new(Warming::new(Arc::clone(plan), now)));
                return Vec::new();
            }
        };
        self.warmed(changes)
    }

    /// Its warm-up as it was saved with it, by the plan that holds now. After [`Lane::restore`].
    pub fn restore_warmup(&mut self, plan: &Arc<Plan>, state: &LaneState, unclean: bool, now: Timestamp) {
        let is_exact = state.is_last && !unclean;
        let extra = if is_exact { 0 } else { state.outstanding };
        // A first grant is written before there is anything else to write of it.
        let new = || Warming::new(Arc::clone(plan), state.saved_at.min(now)).state();
        let warming = match &state.warmup {
            Some(kept) => Warming::restore(Arc::clone(plan), kept, extra, now),
            None if extra > 0 => Warming::restore(Arc::clone(plan), &new(), extra, now),
            None => Warming::new(Arc::clone(plan), now),
        };
        self.warming = Some(Box::new(warming));
    }

    /// Whether it has a cap: it warms up, and its plan is not over.
    pub fn is_warming(&self) -> bool {
        self.warming.as_ref().is_some_and(|warming| !warming.is_over())
    }

    /// Whether it has a warm-up, be it over.
    pub fn has_warmup(&self) -> bool {
        self.warming.is_some()
    }

    /// Position and cap of today, where it warms up.
    pub fn warmup_place(&self) -> Option<(u32, Option<u32>)> {
        self.warming.as_ref().map(|warming| warming.place_today())
    }

    /// Mode, cap and what was sent of it, of the day that it last looked at.
    pub fn warmup_summary(&self) -> Option<(Mode, Option<u32>, u32)> {
        self.warming.as_ref().map(|warming| warming.summary())
    }

    /// When its warm-up lets more be sent, where it lets nothing now. Makes a copy: for status, not for each message.
    pub fn warmup_waits_until(&self, now: Timestamp) -> Option<Timestamp> {
        let mut warming = self.warming.clone()?;
        warming.admits(1, now.max(self.latest)).err().map(|hold| hold.until)
    }

    /// How its warm-up stands; `None`: it has none.
    pub fn warmup(&self, now: Timestamp) -> Option<WarmupReport> {
        self.warming.as_ref().map(|warming| warming.report(now.max(self.latest)))
    }

    /// Counts what came of messages, or complaints about them.
    pub fn counted(&mut self, tally: &Tally, now: Timestamp) -> Vec<Change> {
        let now = self.tell_time(now);
        let Some(warming) = &mut self.warming else { return Vec::new() };
        let changes = warming.counted(tally, now);
        self.saving.changed();
        self.warmed(changes)
    }

    /// What time alone changed of its warm-up.
    pub fn roll(&mut self, now: Timestamp) -> Vec<Change> {
        let now = self.tell_time(now);
        let Some(warming) = &mut self.warming else { return Vec::new() };
        let changes = warming.roll(now);
        self.warmed(changes)
    }

    /// Does what the operator says; `None`: it does not warm up.
    pub fn order_warmup(&mut self, order: WarmupOrder, now: Timestamp) -> Option<Vec<Change>> {
        let now = self.tell_time(now);
        let warming = self.warming.as_mut()?;
        let changes = match order {
            WarmupOrder::Pause => warming.pause(now),
            WarmupOrder::Resume => warming.resume(now),
            WarmupOrder::SetPosition(position) => warming.set_position(position, now),
            WarmupOrder::Complaints(complained) => {
                let tally = Tally { complained, ..Tally::default() };
                warming.counted(&tally, now)
            }
        };
        self.saving.changed_at_once();
        Some(self.warmed(changes))
    }

    /// The site blocked its source.
    pub(super) fn step_back(&mut self, now: Timestamp) -> Vec<Change> {
        let Some(warming) = &mut self.warming else { return Vec::new() };
        let changes = warming.blocked(now);
        self.warmed(changes)
    }

    /// How many more may be sent today by its warm-up; `None`: no limit.
    pub(super) fn left_today(&mut self, now: Timestamp) -> Option<u32> {
        self.warming.as_mut().and_then(|warming| warming.left_today(now))
    }

    fn warmed(&mut self, changes: Vec<WarmupChange>) -> Vec<Change> {
        if !changes.is_empty() {
            self.saving.changed_at_once();
        }
        changes.into_iter().map(Change::WarmUp).collect()
    }
}
