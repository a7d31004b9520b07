//! How often each recipient was asked for, by the return path that asked.

use std::collections::HashMap;

use crate::types::{EmailAddress, ReversePath};

/// Recipients whose visits are counted. Full: all counts begin again, and who was greylisted is so once more.
const VISITS_MAX: usize = 10_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Visits(HashMap<(ReversePath, EmailAddress), u32>);

impl Visits {
    /// Counts a visit; its number, from 1.
    pub(super) fn visit(&mut self, from: &ReversePath, recipient: &EmailAddress) -> u32 {
        if self.0.len() >= VISITS_MAX {
            self.0.clear();
        }
        let count = self.0.entry((from.clone(), recipient.clone())).or_default();
        *count = count.saturating_add(1);
        *count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_return_path_begins_anew_and_no_more_are_counted_than_there_is_room_for() {
        let address = |text: &str| EmailAddress::parse(text, false).unwrap();
        let (one, other) = (ReversePath::Mailbox(address("t1@b.test")), ReversePath::Mailbox(address("t2@b.test")));
        let mut visits = Visits::default();
        let to = address("greylist@s.test");
        assert_eq!([visits.visit(&one, &to), visits.visit(&one, &to), visits.visit(&other, &to)], [1, 2, 1]);
        for number in 0..3 * VISITS_MAX {
            visits.visit(&ReversePath::Null, &address(&format!("defer+{number}@s.test")));
        }
        assert!(visits.0.len() <= VISITS_MAX);
        assert_eq!(visits.visit(&one, &to), 1);
    }
}
