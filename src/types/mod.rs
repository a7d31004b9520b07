//! The vocabulary that every other module shares: addresses, ids, envelopes, replies and time.
//!
//! Promises: a value of one of these types is valid by construction; nothing here does I/O or reads a clock (except
//! [`SystemClock`], the one place that does). Does not: decide anything.

mod address;
mod bounce;
mod clock;
mod day_totals;
mod delay;
mod envelope;
mod lane_state;
mod message_id;
mod reply;
mod reputation;
mod sending;
mod stage;
mod suppression;

pub use address::{AddressError, Domain, DomainError, EmailAddress, ReversePath};
pub use bounce::BounceKind;
pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use day_totals::DayTotals;
pub use delay::DelayType;
pub use envelope::{BodyKind, DsnReturn, Envelope, Notify, OriginalRecipient, Recipient};
pub use lane_state::{
    BlockState, ConnectionsState, CountsState, LaneState, Learning, ToldState, WarmupDay, WarmupState,
};
pub use message_id::{MessageId, MessageIdError};
pub use reply::{EnhancedStatus, Reply, ReplyCode, Severity};
pub use reputation::{Hour, Mark, ReputationScope, ScopeKind, Scopes, Sender};
pub use sending::{PoolName, Priority, SourceName, provider_of_site, site_of_provider};
pub use stage::Stage;
pub use suppression::{Suppressed, SuppressionReason, SuppressionReasons, SuppressionTier};
