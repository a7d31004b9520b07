//! Memory for messages that are being received.
//!
//! A session reserves before it reads: what the client declared, or [`FIRST_BYTES`]; where more comes, at once all that
//! a session ever holds ([`SESSION_BYTES_MAX`]). So sessions that hold everything they need always finish, and those
//! that wait hold little; the budget cannot lock up while it is above `connections_max` times [`FIRST_BYTES`]. Where
//! it does (a small budget, clients that declare less than they send), the data timeout ends the wait with a 452.
//!
//! One client has at most half of it: connections that begin messages and never end them leave the rest to others.

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

/// A client address may have the budget divided by this.
const CLIENT_DIVISOR: usize = 2;

/// The budget of all sessions, or of those of one client; shared by its clones. Full: [`Reservation::grow`] waits.
#[derive(Clone, Debug)]
pub(super) struct MemoryBudget {
    bytes: Arc<Semaphore>,
    total_bytes: usize,
}

/// What the sessions of one client draw from: their own budget, and that of all.
#[derive(Clone, Debug)]
pub(super) struct ClientMemory {
    own: MemoryBudget,
    all: MemoryBudget,
}

/// What one message has of both budgets; given back when dropped.
#[derive(Default)]
pub(super) struct Reservation {
    own: Option<OwnedSemaphorePermit>,
    all: Option<OwnedSemaphorePermit>,
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

    /// Brings what is held to `bytes`, or to the whole budget; waits until `deadline`. `false`: not granted.
    async fn grow(&self, held: &mut Option<OwnedSemaphorePermit>, bytes: usize, deadline: Instant) -> bool {
        let has = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = bytes.min(self.total_bytes).saturating_sub(has);
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        let more = match Arc::clone(&self.bytes).try_acquire_many_owned(missing) {
            Ok(more) => more,
            Err(TryAcquireError::Closed) => return false,
            Err(TryAcquireError::NoPermits) => {
                let wait = Arc::clone(&self.bytes).acquire_many_owned(missing);
                let Ok(Ok(more)) = tokio::time::timeout_at(deadline, wait).await else {
                    return false;
                };
                more
            }
        };
        match held {
            Some(permit) => permit.merge(more),
            None => *held = Some(more),
        }
        true
    }
}

impl ClientMemory {
    /// For the sessions of one client.
    pub(super) fn new(all: &MemoryBudget) -> Self {
        Self { own: MemoryBudget::new(all.total_bytes / CLIENT_DIVISOR), all: all.clone() }
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

    /// Grows to `bytes`; waits until `deadline` where a budget is used up. `false`: not granted.
    pub(super) async fn grow(&mut self, memory: &ClientMemory, bytes: usize, deadline: Instant) -> bool {
        // In this order, so that who waits for its own share holds nothing of the others'. A message larger than a whole
        // budget may have the whole budget.
        let granted = memory.own.grow(&mut self.own, bytes, deadline).await
            && memory.all.grow(&mut self.all, bytes, deadline).await;
        if granted {
            self.bytes = self.bytes.max(bytes);
        }
        granted
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
        let (one, other) = (ClientMemory::new(&budget), ClientMemory::new(&budget));
        let (mut first, mut second) = (Reservation::default(), Reservation::default());
        assert!(first.grow(&one, 80, soon()).await);
        assert!(first.covers(80) && !first.covers(81));
        assert!(!second.grow(&other, 30, soon()).await);
        let waits = async { second.grow(&other, 30, soon()).await };
        let frees = async { drop(first) };
        assert!(tokio::join!(waits, frees).0);
        drop(second);
        assert_eq!(budget.free_bytes(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_above_the_budget_gets_all_of_it() {
        let budget = MemoryBudget::new(100);
        let client = ClientMemory::new(&budget);
        let mut only = Reservation::default();
        assert!(only.grow(&client, 60, soon()).await);
        assert!(only.grow(&client, 1_000, soon()).await);
        assert!(only.covers(1_000));
        assert_eq!(budget.free_bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn many_messages_of_one_client_leave_half_of_the_budget_to_others() {
        let budget = MemoryBudget::new(100);
        let (one, other) = (ClientMemory::new(&budget), ClientMemory::new(&budget));
        let mut held = Vec::new();
        for _ in 0..10 {
            let mut message = Reservation::default();
            message.grow(&one, 10, soon()).await;
            held.push(message);
        }
        assert_eq!(held.iter().filter(|message| message.covers(10)).count(), 5);
        assert_eq!(budget.free_bytes(), 50);
        assert!(Reservation::default().grow(&other, 50, soon()).await);
    }

    #[test]
    fn a_declared_size_is_reserved_up_to_what_a_session_holds() {
        assert_eq!(Reservation::first_bytes(None), FIRST_BYTES);
        assert_eq!(Reservation::first_bytes(Some(10_000)), 14_096);
        assert_eq!(Reservation::first_bytes(Some(u64::MAX)), SESSION_BYTES_MAX);
    }
}
