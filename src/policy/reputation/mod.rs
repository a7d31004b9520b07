//! Reputation: which share of a sender's mail bounces, which share is complained about, and when that is too much.
//!
//! | part | holds |
//! |---|---|
//! | [`counting`] | what counts at all |
//! | [`hours`] | what was counted of one scope, hour by hour, and the sums over a representative volume |
//! | [`limits`] | thresholds, and how a rate is held against them |
//! | [`standing`] | how a scope stands: healthy, warned, critical, paused; forgiven through a manual resume |
//! | [`judge`] | all scopes together: which of them changes, and whether a tenant or one of its sets is to be paused |
//!
//! Pure: the time is an argument, what is to be kept goes out as plain data. docs/REPUTATION.md tells the administrator the
//! same. Does not: know where the counts come from (`queue`), or whom it stops (`admission`).

pub mod counting;
pub mod hours;
pub mod judge;
pub mod limits;
pub mod standing;
#[cfg(test)]
mod tests;

pub use counting::Counting;
pub use hours::{Hours, Rates};
pub use judge::{Judge, Row, Verdict};
pub use limits::{Limits, Settings, Share, Steps};
pub use standing::{Change, Level, Pause, PausedBy, Standing, State};

use super::{BounceClass, BounceType};

/// Whether a bounce says that the address is bad: only such bounces make the bounce rate. What a host refuses for the
/// message, its sender, our address or a rule of its own says nothing of the list that the sender mails to.
pub fn is_hard(verdict: &super::Verdict) -> bool {
    is_hard_bounce(verdict.bounce_type, verdict.class)
}

/// [`is_hard`], of type and class.
pub fn is_hard_bounce(bounce_type: BounceType, class: BounceClass) -> bool {
    bounce_type == BounceType::Permanent && (class.says_nobody_is_there() || class == BounceClass::Other)
}
