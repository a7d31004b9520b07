//! What of a site's due mail was left on disk because memory has no room for it: everything from one place of the due
//! index on. It costs a few words, however many jobs it stands for; they are read again, in order, when the site has
//! room.

use crate::queue::DueKey;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    from: Option<DueKey>,
    /// The least place left since the page of this number was asked for: that page may not show it.
    fresh: Option<(u64, DueKey)>,
}

impl Backlog {
    /// Where it begins, if there is any.
    pub(super) fn from(&self) -> Option<DueKey> {
        self.from
    }

    /// Whether a job at this place belongs to it: whoever came later must not overtake those that were left before.
    pub(super) fn covers(&self, place: DueKey) -> bool {
        self.from.is_some_and(|from| from <= place)
    }

    /// A job is left on disk. `page` is the number of the page that is being read, or was read last.
    pub(super) fn leave(&mut self, place: DueKey, page: u64) {
        self.from = Some(self.from.map_or(place, |from| from.min(place)));
        self.fresh = match self.fresh {
            Some((number, least)) if number == page => Some((page, least.min(place))),
            _ => Some((page, place)),
        };
    }

    /// A page from `from` to before `end` was read and is about to be taken in; `None`: to the end of all that was read
    /// before. What finds no room this time is left anew.
    pub(super) fn read(&mut self, from: DueKey, end: Option<DueKey>, page: u64) {
        let begins_in_it = self.from.is_some_and(|own| from <= own && end.is_none_or(|end| own < end));
        if !begins_in_it {
            return;
        }
        let fresh = self.fresh.filter(|(number, _)| *number == page).map(|(_, least)| least);
        self.from = match (end, fresh) {
            (Some(end), Some(fresh)) => Some(end.min(fresh)),
            (end, fresh) => end.or(fresh),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Timestamp;

    fn place(due_ms: u64) -> DueKey {
        DueKey::at(Timestamp::from_millis(due_ms))
    }

    #[test]
    fn it_moves_on_with_the_pages_that_were_read() {
        let mut backlog = Backlog::default();
        backlog.leave(place(20), 1);
        backlog.leave(place(10), 1);
        assert_eq!(backlog.from(), Some(place(10)));
        assert!(backlog.covers(place(15)) && !backlog.covers(place(9)));
        backlog.read(place(5), Some(place(12)), 2);
        assert_eq!(backlog.from(), Some(place(12)));
        backlog.read(place(12), None, 3);
        assert_eq!(backlog.from(), None);
    }

    #[test]
    fn a_page_that_begins_after_it_does_not_change_it() {
        let mut backlog = Backlog::default();
        backlog.leave(place(10), 1);
        backlog.read(place(11), None, 2);
        assert_eq!(backlog.from(), Some(place(10)));
    }

    #[test]
    fn what_is_left_while_a_page_is_read_is_not_taken_for_read() {
        let mut backlog = Backlog::default();
        backlog.leave(place(10), 1);
        // Page 2 is asked for; then a job is left in its range.
        backlog.leave(place(30), 2);
        backlog.leave(place(11), 2);
        backlog.read(place(10), Some(place(20)), 2);
        assert_eq!(backlog.from(), Some(place(11)));
        backlog.read(place(11), None, 3);
        assert_eq!(backlog.from(), None);
    }
}
