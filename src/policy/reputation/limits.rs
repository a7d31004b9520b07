//! Thresholds of reputation, and how a rate is held against them.

use std::collections::BTreeMap;
use std::fmt;

use crate::types::{ReputationScope, ScopeKind};

/// All, in millionths.
pub const MILLION: u32 = 1_000_000;
/// A rate that was above a threshold must fall below four fifths of it: so it does not swing.
const BELOW: (u128, u128) = (4, 5);
/// Fewer complaints warn of nothing: of few recipients a single one would be too many.
const WARNING_COMPLAINTS_MIN: u64 = 3;
/// Fewer pause nothing.
const PAUSE_COMPLAINTS_MIN: u64 = 5;

/// So many of so many. Complaints may be more than what they are of: they come late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// So many.
    pub count: u64,
    /// Of so many.
    pub of: u64,
}

impl Share {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { count: self.count.saturating_add(other.count), of: self.of.saturating_add(other.of) }
    }

    /// In millionths, rounded down; at most all.
    pub fn millionths(self) -> u32 {
        let all = u128::from(MILLION);
        let share = (u128::from(self.count) * all).checked_div(u128::from(self.of)).unwrap_or(0).min(all);
        u32::try_from(share).unwrap_or(MILLION)
    }

    /// Whether it is at `millionths` or above.
    fn reaches(self, millionths: u32, (part, whole): (u128, u128)) -> bool {
        let limit = u128::from(self.of) * u128::from(millionths) * part;
        self.count > 0 && u128::from(self.count) * u128::from(MILLION) * whole >= limit
    }
}

impl fmt::Display for Share {
    /// `5.25 %`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        percent(self.millionths(), f)
    }
}

/// `0.1 %`, `5 %`: to a thousandth of a percent, rounded down.
fn percent(millionths: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (whole, rest) = (millionths / 10_000, millionths % 10_000 / 10);
    if rest == 0 {
        return write!(f, "{whole} %");
    }
    write!(f, "{whole}.{} %", format!("{rest:03}").trim_end_matches('0'))
}

/// A threshold in millionths, as people read it.
pub(super) struct Percent(pub(super) u32);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        percent(self.0, f)
    }
}

/// Two thresholds, in millionths: at the first one somebody is warned, at the second one sending is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    /// The first; at most the second.
    pub warning: u32,
    /// The second.
    pub pause: u32,
}

/// What a scope may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Hard bounces of recipients that ended.
    pub bounces: Steps,
    /// Complaints of recipients that were delivered to.
    pub complaints: Steps,
    /// Whether it is paused by itself, where it is a tenant or a configuration set.
    pub automatic_pause: bool,
}

impl Default for Limits {
    /// Those of Amazon SES.
    fn default() -> Self {
        Self {
            bounces: Steps { warning: 50_000, pause: 100_000 },
            complaints: Steps { warning: 1_000, pause: 5_000 },
            automatic_pause: true,
        }
    }
}

/// How far a rate went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Degree {
    #[default]
    Fine,
    Warning,
    Pause,
}

impl Limits {
    /// Where these shares are with respect to the thresholds; and where they at least are when the way down counts.
    pub(super) fn degrees(&self, rates: &super::Rates, recipients_min: u32) -> (Degree, Degree) {
        let up = self.degree(rates, recipients_min, (1, 1));
        (up, self.degree(rates, recipients_min, BELOW).max(up))
    }

    fn degree(&self, rates: &super::Rates, recipients_min: u32, scale: (u128, u128)) -> Degree {
        let enough = |share: Share| share.of >= u64::from(recipients_min);
        let of = |share: Share, steps: Steps, (warning_min, pause_min): (u64, u64)| {
            if !enough(share) {
                Degree::Fine
            } else if share.count >= pause_min && share.reaches(steps.pause, scale) {
                Degree::Pause
            } else if share.count >= warning_min && share.reaches(steps.warning, scale) {
                Degree::Warning
            } else {
                Degree::Fine
            }
        };
        let bounces = of(rates.bounces, self.bounces, (1, 1));
        bounces.max(of(rates.complaints, self.complaints, (WARNING_COMPLAINTS_MIN, PAUSE_COMPLAINTS_MIN)))
    }

    /// Which rates are at their thresholds of this degree, in words.
    pub(super) fn reason(&self, rates: &super::Rates, degree: Degree, recipients_min: u32) -> String {
        let at = |steps: Steps| if degree == Degree::Pause { steps.pause } else { steps.warning };
        let mut parts = Vec::with_capacity(2);
        let (bounces, complaints) = (rates.bounces, rates.complaints);
        let only = |limits: Limits| limits.degree(rates, recipients_min, (1, 1)) >= degree;
        let never = Steps { warning: u32::MAX, pause: u32::MAX };
        if only(Limits { complaints: never, ..*self }) {
            let limit = Percent(at(self.bounces));
            parts.push(format!("{bounces} of {} recipients bounced, the limit is {limit}", bounces.of));
        }
        if only(Limits { bounces: never, ..*self }) {
            let limit = Percent(at(self.complaints));
            parts.push(format!(
                "{complaints} of {} delivered were complained about, the limit is {limit}",
                complaints.of
            ));
        }
        parts.join("; ")
    }
}

/// Of the administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Of all for which nothing else is said.
    pub limits: Limits,
    /// So many recipients are representative.
    pub volume: u32,
    /// Fewer recipients say nothing.
    pub recipients_min: u32,
    /// Of tenants that have their own.
    pub tenants: BTreeMap<Box<str>, Limits>,
    /// Of configuration sets that have their own.
    pub sets: BTreeMap<Box<str>, Limits>,
}

impl Default for Settings {
    fn default() -> Self {
        let limits = Limits::default();
        Self { limits, volume: 10_000, recipients_min: 500, tenants: BTreeMap::new(), sets: BTreeMap::new() }
    }
}

impl Settings {
    /// Those of a scope.
    pub fn of(&self, scope: &ReputationScope) -> &Limits {
        let own = match scope.kind {
            ScopeKind::Tenant => self.tenants.get(&*scope.name),
            ScopeKind::ConfigurationSet => self.sets.get(&*scope.name),
            _ => None,
        };
        own.unwrap_or(&self.limits)
    }
}
