//! Pure decisions: what a reply means, and when to try again.
//!
//! Promises: no clock, no randomness, no I/O: time and seeds are arguments, so that the same input gives the same
//! decision, and four days of retries are a table test. Does not: keep state (`scheduler` and `queue` do).

pub mod bounded;
pub mod classify;
pub mod fault;
pub mod fleet_life;
pub mod handshakes;
mod hint;
pub mod lane;
pub mod limits;
pub mod listing;
pub mod logins;
pub mod mailing;
mod phrase;
pub mod pools;
pub mod providers;
pub mod quota;
pub mod rate;
pub mod reaction;
pub mod replies;
pub mod reputation;
pub mod retry;
pub mod routing;
pub mod token;
pub mod verdict;
pub mod warmup;

pub use crate::types::Stage;
pub use classify::Rules;
pub use fault::Fault;
pub use providers::{Provider, Providers};
pub use reaction::{Reaction, ReactionKind};
pub use verdict::{BounceClass, BounceSubType, BounceType, DelayType, Disposition, RetryKind, Scope, Verdict};
