//! The warm-up of one lane, a source at a site: how much it may send today and now, when it may send more, and when less.
//!
//! | part | decides |
//! |---|---|
//! | `plan` | how many messages on which day or stage |
//! | `pace` | how many of a day's messages now: spread over the day, minute by minute and hour by hour |
//! | `brake` | whether replies and complaints of the last 24 hours say to go slower, or not at all |
//! | `warming` | what a lane may send; what it counted |
//! | `days` | what midnight brings: the next step, or steps back for a lane that was idle; clocks that go back |
//! | `operator` | what an operator or a reload asks for |
//! | `settings` | nothing: it says who warms up by which plan |
//! | `state`, `report` | what is kept over a restart; what is shown |
//! | `calendar` | nothing: it says what a plan would do in the days ahead |
//!
//! A message (transaction) counts for every UTC day that it was in flight on, so that whenever the receiver counted it, no
//! day sees more than its cap. Modes:
//!
//! | mode | cap | position | leaves by |
//! |---|---|---|---|
//! | running | the plan's | advances at midnight | rates above `slow`: slowed; plan at its end: over |
//! | slowed | half | stays | rates above `freeze`: frozen; good rates for a while: running |
//! | frozen | nothing | stays | its time: slowed, counts cleared |
//! | over | none | - | idle for more than 14 days: running |
//!
//! An operator may pause it in any mode: its position stays. Promises: pure, the time is an argument; a clock that goes back
//! frees nothing; whatever state is read, nothing panics. Does not: choose another lane for what waits, or keep anything.

mod brake;
mod calendar;
mod change;
mod days;
mod operator;
mod pace;
mod plan;
mod report;
mod settings;
mod state;
#[cfg(test)]
mod tests;
mod warming;

pub use crate::types::WarmupState;
pub use brake::{Limits, Thresholds};
pub use calendar::{Expected, Row, calendar};
pub use change::WarmupChange;
pub use plan::{Advance, PLAN_STEPS_MAX, Plan, PlanError, Steps};
pub use report::{Mode, WarmupReport};
pub use settings::Warmups;
pub use warming::{Hold, Tally, Warming};
