//! What an operator or a reload does to a warm-up.

use std::sync::Arc;

use super::change::WarmupChange;
use super::plan::Plan;
use super::warming::{Day, Pressed, UNCAPPED, Warming};
use crate::types::Timestamp;

impl Warming {
    /// Holds its position: the cap stays as it is until [`Warming::resume`]. Nothing where the plan is over.
    pub fn pause(&mut self, now: Timestamp) -> Vec<WarmupChange> {
        let now = self.move_to(now);
        if !self.paused && !self.is_over() {
            self.paused = true;
            self.since = if self.pressed == Pressed::Not { now } else { self.since };
            self.today.held = true;
            self.push(WarmupChange::Paused);
        }
        self.changes()
    }

    /// Ends pause, freeze and slowness at once, and forgets what the brake counted. Today it does not advance.
    pub fn resume(&mut self, now: Timestamp) -> Vec<WarmupChange> {
        let now = self.move_to(now);
        if self.is_held() {
            self.free(now);
            self.push(WarmupChange::Resumed);
        }
        self.changes()
    }

    /// Sets its position, from 1; behind the last one the plan is over. What was sent today counts against the new cap.
    pub fn set_position(&mut self, position: u32, now: Timestamp) -> Vec<WarmupChange> {
        let now = self.move_to(now);
        let (from, to) = (self.today.position, position.clamp(1, self.plan.end()));
        let was_over = self.is_over();
        self.place(to, UNCAPPED);
        self.set_at = now;
        if was_over || self.is_over() {
            self.free(now);
        }
        if from != to {
            self.push(WarmupChange::Set { from, to });
        }
        self.changes()
    }

    /// Another plan, or the same one written anew. Its position is the last one whose cap is not above the old one; today's cap is
    /// not above the old one in any case, and what was sent counts. A plan that is over stays so.
    pub fn set_plan(&mut self, plan: Arc<Plan>, now: Timestamp) -> Vec<WarmupChange> {
        self.move_to(now);
        let (from, is_same) = (self.today.position, *self.plan == *plan);
        let was_over = self.is_over();
        let old = std::mem::replace(&mut self.plan, plan);
        if !is_same {
            self.fit(&old.name().clone(), was_over);
            let to = self.today.position;
            if from != to {
                self.push(WarmupChange::Set { from, to });
            }
        }
        self.changes()
    }

    /// Finds its place in its plan, where the position that it has is one of a plan of this name, maybe another one.
    pub(super) fn fit(&mut self, name: &str, was_over: bool) {
        let Day { position, cap, .. } = self.today;
        let is_kept = **self.plan.name() == *name && self.plan.cap(position) == Some(cap);
        if was_over {
            self.place(self.plan.end(), UNCAPPED);
        } else if !is_kept {
            self.place(self.plan.last_within(cap), cap);
        }
    }

    fn free(&mut self, now: Timestamp) {
        self.paused = false;
        self.brake.clear();
        self.press(Pressed::Not, None, now);
    }
}
