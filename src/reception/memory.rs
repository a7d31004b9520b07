//! Memory for messages that are being received.
//!
//! A session reserves before it reads: what the client declared, or [`FIRST_BYTES`]; where more comes, at once all that
//! a session ever holds ([`SESSION_BYTES_MAX`]). So sessions that hold everything they need always finish, and those
//! that wait hold little; the budget cannot lock up while it is above `connections_max` times [`FIRST_BYTES`]. Where
//! it does (a small budget, clients that declare less than they send), the data timeout ends the wait with a 452.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::Instant;

use crate::queue::intake::SPOOL_PART_BYTES;

/// Kept beyond a part, so that the end of a part never touches the current line.
pub(super) const SPOOL_SLACK_BYTES: usize = 16 * 1024;
/// Most that one read brings.
pub(super) const READ_BYTES_MAX: usize = 64 * 1024;
/// Most that a session holds of one message: a part, slack, one read.
pub(super) const SESSION_BYTES_MAX: usize = SPOOL_PART_BYTES + SPOOL_SLACK_BYTES + READ_BYTES_MAX;
/// Reserved for a message of undeclared size.
const FIRST_BYTES: usize = 64 * 1024;
/// Header fields, line ends and dots that a declared size may not count.
const DECLARED_SLACK_BYTES: usize = 4 * 1024;

/// The budget of all sessions. Full: [`Reservation::grow`] waits.
pub(super) struct MemoryBudget {
    bytes: Arc<Semaphore>,
    total_bytes: usize,
}

/// What one message has of the budget; given back when dropped.
#[derive(Default)]
pub(super) struct Reservation {
    permit: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

impl MemoryBudget {
    pub(super) fn new(bytes_max: usize) -> Self {
        let total_bytes = bytes_max.clamp(1, Semaphore::MAX_PERMITS);
        Self { bytes: Arc::new(Semaphore::new(total_bytes)), total_bytes }
    }

    #[cfg(test)]
    pub(super) fn free_bytes(&self) -> usize {
        self.bytes.available_permits()
    }
}

impl Reservation {
    /// How much to reserve for a message that is declared to have so many octets.
    pub(super) fn first_bytes(declared_bytes: Option<u64>) -> usize {
        let declared = declared_bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        declared.map_or(FIRST_BYTES, |bytes| bytes.saturating_add(DECLARED_SLACK_BYTES)).min(SESSION_BYTES_MAX)
    }

    /// Whether `bytes` are covered.
    pub(super) fn covers(&self, bytes: usize) -> bool {
        self.bytes >= bytes.min(SESSION_BYTES_MAX)
    }

    /// Grows to `bytes`; waits until `deadline` where the budget is used up. `false`: not granted.
    pub(super) async fn grow(&mut self, budget: &MemoryBudget, bytes: usize, deadline: Instant) -> bool {
        // A message larger than the whole budget may have the whole budget.
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = bytes.min(budget.total_bytes).saturating_sub(held);
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        let more = match Arc::clone(&budget.bytes).try_acquire_many_owned(missing) {
            Ok(more) => more,
            Err(TryAcquireError::Closed) => return false,
            Err(TryAcquireError::NoPermits) => {
                let wait = Arc::clone(&budget.bytes).acquire_many_owned(missing);
                let Ok(Ok(more)) = tokio::time::timeout_at(deadline, wait).await else {
                    return false;
                };
                more
            }
        };
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        self.bytes = self.bytes.max(bytes);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_budget_waits_until_memory_comes_back() {
        let budget = MemoryBudget::new(100);
        let (mut first, mut second) = (Reservation::default(), Reservation::default());
        assert!(first.grow(&budget, 80, soon()).await);
        assert!(first.covers(80) && !first.covers(81));
        assert!(!second.grow(&budget, 30, soon()).await);
        let waits = async { second.grow(&budget, 30, soon()).await };
        let frees = async { drop(first) };
        assert!(tokio::join!(waits, frees).0);
        drop(second);
        assert_eq!(budget.free_bytes(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_above_the_budget_gets_all_of_it() {
        let budget = MemoryBudget::new(100);
        let mut only = Reservation::default();
        assert!(only.grow(&budget, 60, soon()).await);
        assert!(only.grow(&budget, 1_000, soon()).await);
        assert!(only.covers(1_000));
    }

    #[test]
    fn a_declared_size_is_reserved_up_to_what_a_session_holds() {
        assert_eq!(Reservation::first_bytes(None), FIRST_BYTES);
        assert_eq!(Reservation::first_bytes(Some(10_000)), 14_096);
        assert_eq!(Reservation::first_bytes(Some(u64::MAX)), SESSION_BYTES_MAX);
    }
}
