//! The warm-up of one lane: what it may send now, and what the receiver's answers make of it.

use std::sync::Arc;
use std::time::Duration;

use super::brake::{Brake, FROZEN_MAX, WINDOW};
use super::change::WarmupChange;
use super::pace::{self, Used, day_of, hour_of};
use super::plan::Plan;
use crate::types::Timestamp;

/// A block takes a lane back no more often.
const STEP_BACK_EVERY: Duration = Duration::from_secs(24 * 3_600);
/// A freeze that begins within this time of the one before lasts twice as long.
const FREEZES_REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Changes that nobody asked for yet. Full: the oldest one is forgotten, so that no event tells of it.
const PENDING_MAX: usize = 16;
/// The cap where there is none.
pub(super) const UNCAPPED: u32 = u32::MAX;

/// What came of the messages of one assignment. `sent`: transactions that reached the host; of those the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages that reached the host.
    pub sent: u32,
    /// Messages that it took.
    pub delivered: u32,
    /// Messages that it deferred: by its replies, not by waits of ours.
    pub deferred: u32,
    /// Messages that it refused for good.
    pub bounced: u32,
    /// Complaints that came in, about messages of any time.
    pub complained: u32,
}

/// Why nothing may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// When to ask again; sooner where messages in flight come back unsent.
    pub until: Timestamp,
    /// Messages that it may send today.
    pub cap: u32,
    /// How far it is in its plan.
    pub position: u32,
    /// It is frozen; else its share is used up for now, or for today.
    pub frozen: bool,
}

/// See the module. About 300 octets, and the words of a reason while it is slowed or frozen.
#[derive(Clone, Debug)]
pub struct Warming {
    pub(super) plan: Arc<Plan>,
    pub(super) today: Day,
    /// The day before that, should the clock be set back.
    pub(super) before: Option<Day>,
    /// A later day and what was sent on it before the clock was set back.
    pub(super) ahead: Option<(u32, u32)>,
    pub(super) in_flight: u32,
    /// Hours since the epoch.
    pub(super) hour: u32,
    pub(super) hour_used: u32,
    pub(super) brake: Brake,
    pub(super) pressed: Pressed,
    pub(super) paused: bool,
    pub(super) freezes: u8,
    /// Since when it is pressed so, or paused.
    pub(super) since: Timestamp,
    pub(super) reason: Option<Box<str>>,
    pub(super) last_sent_at: Once,
    pub(super) set_at: Timestamp,
    pub(super) stepped_back_at: Once,
    pub(super) frozen_at: Once,
    pub(super) pending: Option<Box<Pending>>,
    /// The latest time that was ever told: time does not go back.
    pub(super) latest: Timestamp,
}

/// One UTC day of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Day {
    /// Days since the epoch.
    pub(super) day: u32,
    pub(super) position: u32,
    /// The plan's, or less for today; [`UNCAPPED`].
    pub(super) cap: u32,
    /// Those in flight included.
    pub(super) used: u32,
    pub(super) delivered: u32,
    /// It does not advance when the day ends.
    pub(super) held: bool,
}

/// Changes that nobody asked for yet: mostly none.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending(Vec<WarmupChange>);

/// A time, or never (the epoch): half as large as an `Option` of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Once(Timestamp);

impl Once {
    pub(super) fn get(self) -> Option<Timestamp> {
        Some(self.0).filter(|at| *at != Timestamp::EPOCH)
    }

    /// The same, but not after that.
    pub(super) fn within(self, latest: Timestamp) -> Self {
        Self(self.0.min(latest))
    }
}

impl From<Timestamp> for Once {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

impl From<Option<Timestamp>> for Once {
    fn from(at: Option<Timestamp>) -> Self {
        Self(at.unwrap_or(Timestamp::EPOCH))
    }
}

/// How hard the brake is pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pressed {
    Not,
    /// Slowed.
    Half,
    /// Frozen.
    Full {
        until: Timestamp,
    },
}

impl Warming {
    /// A lane that begins its plan today.
    pub fn new(plan: Arc<Plan>, now: Timestamp) -> Self {
        let cap = plan.cap(1).unwrap_or(UNCAPPED);
        Self {
            plan,
            today: Day { day: day_of(now), position: 1, cap, used: 0, delivered: 0, held: false },
            before: None,
            ahead: None,
            in_flight: 0,
            hour: hour_of(now),
            hour_used: 0,
            brake: Brake::default(),
            pressed: Pressed::Not,
            paused: false,
            freezes: 0,
            since: now,
            reason: None,
            last_sent_at: Once::default(),
            set_at: now,
            stepped_back_at: Once::default(),
            frozen_at: Once::default(),
            pending: None,
            latest: now,
        }
    }

    /// Its plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Whether the plan is behind it, so that it has no cap.
    pub fn is_over(&self) -> bool {
        self.today.position > self.plan.len()
    }

    /// How many messages (transactions) may be begun now, at most `wanted`; not 0 where it is `Ok`.
    pub fn admits(&mut self, wanted: u32, now: Timestamp) -> Result<u32, Hold> {
        let now = self.move_to(now);
        let wanted = wanted.max(1);
        let Some(cap) = self.cap() else { return Ok(wanted) };
        let position = self.today.position;
        if let Pressed::Full { until } = self.pressed {
            return Err(Hold { until, cap, position, frozen: true });
        }
        match pace::room(cap, self.used(), now) {
            0 => Err(Hold { until: pace::next_at(cap, self.used(), now), cap, position, frozen: false }),
            room => Ok(wanted.min(room)),
        }
    }

    /// How many more may be begun today, whatever the minute and the hour; `None`: no limit. What is granted ahead on disk need
    /// not be more.
    pub fn left_today(&mut self, now: Timestamp) -> Option<u32> {
        self.move_to(now);
        self.cap().map(|cap| cap.saturating_sub(self.today.used))
    }

    /// So many messages were given to a connection. After [`Warming::admits`] said so.
    pub fn take(&mut self, messages: u32, now: Timestamp) {
        self.move_to(now);
        self.in_flight = self.in_flight.saturating_add(messages);
        self.today.used = self.today.used.saturating_add(messages);
        self.hour_used = self.hour_used.saturating_add(messages);
    }

    /// So many of those came to their end, `sent` of them having reached the host (as far as is known); the others are given
    /// back.
    pub fn done(&mut self, taken: u32, sent: u32, now: Timestamp) {
        let now = self.move_to(now);
        let unsent = taken.saturating_sub(sent);
        self.in_flight = self.in_flight.saturating_sub(taken);
        self.today.used = self.today.used.saturating_sub(unsent).max(self.in_flight);
        self.hour_used = self.hour_used.saturating_sub(unsent).max(self.in_flight);
        if sent > 0 {
            self.last_sent_at = now.into();
        }
    }

    /// Counts what came of messages, or complaints. What changed of that, or since the last look.
    pub fn counted(&mut self, tally: &Tally, now: Timestamp) -> Vec<WarmupChange> {
        let now = self.move_to(now);
        self.today.delivered = self.today.delivered.saturating_add(tally.delivered);
        self.brake.add(tally, now);
        self.judge(now);
        self.changes()
    }

    /// The source is blocked at the site: a step back, at most once in 24 hours. A plan that is over stays so.
    pub fn blocked(&mut self, now: Timestamp) -> Vec<WarmupChange> {
        let now = self.move_to(now);
        let is_soon = self.stepped_back_at.get().is_some_and(|at| now.since(at) < STEP_BACK_EVERY);
        if self.is_over() {
            return self.changes();
        }
        self.today.held = true;
        if is_soon {
            return self.changes();
        }
        let (from, to) = (self.today.position, self.plan.back(self.today.position));
        if to < from {
            self.stepped_back_at = now.into();
            self.place(to, self.today.cap);
            self.push(WarmupChange::SteppedBack { from, to, reason: "the site blocked the source".into() });
        }
        self.changes()
    }

    /// Moves on to `now`. What changed by time alone, or since the last look.
    pub fn roll(&mut self, now: Timestamp) -> Vec<WarmupChange> {
        self.move_to(now);
        self.changes()
    }

    /// What holds now of today's cap; `None`: no limit.
    pub(super) fn cap(&self) -> Option<u32> {
        let cap = self.today.cap;
        match self.pressed {
            _ if self.is_over() => None,
            Pressed::Half => Some((cap / 2).max(1)),
            Pressed::Not | Pressed::Full { .. } => Some(cap),
        }
    }

    pub(super) fn used(&self) -> Used {
        Used { today: self.today.used, this_hour: self.hour_used }
    }

    /// Whether it may not advance now.
    pub(super) fn is_held(&self) -> bool {
        self.paused || self.pressed != Pressed::Not
    }

    /// Another position, from now on: with its cap, but no more than `cap_max` today.
    pub(super) fn place(&mut self, position: u32, cap_max: u32) {
        self.today.position = position;
        self.today.cap = self.plan.cap(position).unwrap_or(UNCAPPED).min(cap_max);
        if let Some(before) = &mut self.before {
            before.position = position;
            before.cap = before.cap.min(self.today.cap);
        }
    }

    pub(super) fn press(&mut self, pressed: Pressed, reason: Option<Box<str>>, since: Timestamp) {
        self.pressed = pressed;
        self.reason = reason;
        self.since = since;
        self.today.held |= self.is_held();
    }

    pub(super) fn push(&mut self, change: WarmupChange) {
        let Pending(changes) = &mut **self.pending.get_or_insert_default();
        if changes.len() == PENDING_MAX {
            changes.remove(0);
        }
        changes.push(change);
    }

    pub(super) fn changes(&mut self) -> Vec<WarmupChange> {
        self.pending.take().map_or_else(Vec::new, |pending| pending.0)
    }

    /// One step of the brake at most, so that each is seen.
    fn judge(&mut self, now: Timestamp) {
        if self.is_over() {
            return;
        }
        let thresholds = *self.plan.thresholds();
        let counts = self.brake.counts(now);
        match self.pressed {
            Pressed::Not => {
                if let Some(reason) = thresholds.slows(&counts) {
                    self.press(Pressed::Half, Some(reason.clone()), now);
                    self.push(WarmupChange::Slowed { reason });
                }
            }
            Pressed::Half => {
                if let Some(reason) = thresholds.freezes(&counts) {
                    self.freeze(reason, now);
                } else if now.since(self.since) >= thresholds.dwell && thresholds.recovers(&counts) {
                    self.recover(now);
                }
            }
            Pressed::Full { .. } => {}
        }
    }

    fn freeze(&mut self, reason: Box<str>, now: Timestamp) {
        let is_soon = self.frozen_at.get().is_some_and(|at| now.since(at) <= FREEZES_REMEMBERED);
        self.freezes = if is_soon { self.freezes.saturating_add(1) } else { 1 };
        let doublings = u32::from(self.freezes.saturating_sub(1)).min(16);
        let lasts = self.plan.thresholds().frozen_for.saturating_mul(1 << doublings).min(FROZEN_MAX);
        let until = now.plus(lasts);
        self.frozen_at = now.into();
        self.press(Pressed::Full { until }, Some(reason.clone()), now);
        self.push(WarmupChange::Frozen { until, reason });
    }

    fn recover(&mut self, now: Timestamp) {
        self.press(Pressed::Not, None, now);
        self.push(WarmupChange::Recovered);
    }

    /// What time alone ends: a freeze, and slowness where for a whole window too little was sent to say anything.
    pub(super) fn ease(&mut self, now: Timestamp) {
        if let Pressed::Full { until } = self.pressed
            && until <= now
        {
            self.brake.clear();
            let reason: Box<str> = "the time of the freeze is over".into();
            self.press(Pressed::Half, Some(reason.clone()), until);
            self.push(WarmupChange::Slowed { reason });
        }
        if self.pressed == Pressed::Half && now.since(self.since) >= WINDOW {
            let counts = self.brake.counts(now);
            if self.plan.thresholds().says_nothing(&counts) {
                self.recover(now);
            }
        }
    }

    /// Octets that it takes, its heap included; the plan is shared.
    #[cfg(test)]
    pub(in crate::policy) fn bytes(&self) -> usize {
        let pending = self.pending.as_ref().map_or(0, |pending| pending.0.capacity() * size_of::<WarmupChange>());
        size_of::<Self>() + self.reason.as_ref().map_or(0, |reason| reason.len()) + pending
    }
}
