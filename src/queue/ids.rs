//! New message ids, each above the one before it within its millisecond.
//!
//! Key order that is commit order is worth much: table files of the bodies then follow one another without overlap, and
//! RocksDB moves them down its levels as they are. With ids that are in random order within a millisecond, the edges of any
//! two files overlap, and every body is read and written once more (docs/PERFORMANCE.md, work `dead`).

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::types::{MessageId, Timestamp};

/// Bits of the random part above the version and variant bits of a UUID: they alone give the order.
const LEAD_BITS: u32 = 48;
/// The first lead of a millisecond is below 2^47, and a step below 2^31: 65,536 ids fit.
const FIRST_LEAD_BITS: u32 = LEAD_BITS - 1;
const STEP_BITS: u32 = 31;

/// The generator. One for a queue.
pub(super) struct Ids {
    rng: SmallRng,
    /// Millisecond and lead of the id before.
    last: (u64, u64),
}

impl Ids {
    pub(super) fn new(seed: u64) -> Self {
        Self { rng: SmallRng::seed_from_u64(seed), last: (0, 0) }
    }

    /// An id for a message of now. It shares with the id before it what time and order need; some 100 bits are random.
    pub(super) fn next(&mut self, now: Timestamp) -> MessageId {
        let (millis, lead) = self.last;
        let next = lead + 1 + (self.rng.random::<u64>() >> (u64::BITS - STEP_BITS));
        // Another millisecond (also an earlier one: the id tells the clock's time), or this one is full: ids stay unique
        // by what is random in them, and out of order costs some work only.
        let lead = if millis == now.millis() && next >> LEAD_BITS == 0 {
            next
        } else {
            self.rng.random::<u64>() >> (u64::BITS - FIRST_LEAD_BITS)
        };
        self.last = (now.millis(), lead);
        let tail = self.rng.random::<u128>() >> LEAD_BITS;
        MessageId::new(now, u128::from(lead) << (u128::BITS - LEAD_BITS) | tail)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_of_one_millisecond_rise() {
        let mut ids = Ids::new(1);
        let now = Timestamp::from_millis(1_700_000_000_000);
        let made: Vec<MessageId> = (0..60_000).map(|_| ids.next(now)).collect();
        assert!(made.is_sorted_by(|a, b| a < b));
        assert!(made.iter().all(|id| id.accepted_at() == now));
    }

    #[test]
    fn ids_of_a_full_millisecond_and_of_a_clock_that_goes_back_are_still_unique_and_tell_the_time() {
        let mut ids = Ids::new(2);
        let mut made = BTreeSet::new();
        for millis in [50, 50, 49, 50] {
            let now = Timestamp::from_millis(millis);
            for _ in 0..100_000 {
                let id = ids.next(now);
                assert_eq!(id.accepted_at(), now);
                assert!(made.insert(id));
            }
        }
    }

    #[test]
    fn two_generators_with_different_seeds_never_meet() {
        let now = Timestamp::from_millis(5);
        let (mut one, mut two) = (Ids::new(3), Ids::new(4));
        let made: BTreeSet<MessageId> = (0..1_000).flat_map(|_| [one.next(now), two.next(now)]).collect();
        assert_eq!(made.len(), 2_000);
    }
}
