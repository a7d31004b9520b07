//! Connections, messages on each, and what cannot be reached.

use super::super::window::{CEILING_HOLD, FORGOTTEN_AFTER, GOOD_PER_STEP};
use super::*;

/// So many transactions that go well.
fn succeed(lane: &mut Lane, times: u32, connections: u32, now: Timestamp) {
    for _ in 0..times {
        lane.learn(&good(), connections, now);
    }
}

#[test]
fn a_host_that_refuses_connections_loses_half_and_shows_where_its_ceiling_is() {
    let mut lane = lane();
    // Six of ten were let in.
    for connections in (7..=10).rev() {
        assert_eq!(lane.learn(&busy(), connections, NOW), []);
    }
    assert_eq!(lane.window(NOW), 5, "halved once");
    let trouble = lane.trouble(NOW).unwrap();
    assert_eq!((trouble.mode, &*trouble.words), (Mode::Fewer, "421 4.7.0 too many connections"));
    succeed(&mut lane, GOOD_PER_STEP - 1, 5, NOW);
    assert_eq!(lane.window(NOW), 5);
    succeed(&mut lane, 1, 5, NOW);
    assert_eq!(lane.window(NOW), 6);
    succeed(&mut lane, 10 * GOOD_PER_STEP, 6, NOW);
    assert_eq!(lane.window(NOW), 6, "the ceiling holds");
    let later = NOW.plus(CEILING_HOLD);
    succeed(&mut lane, 10 * GOOD_PER_STEP, 5, later);
    assert_eq!(lane.window(later), 6, "while not all are in use, nobody knows");
    succeed(&mut lane, GOOD_PER_STEP, 6, later);
    assert_eq!(lane.window(later), 7, "one more is tried");
    lane.learn(&busy(), 7, later);
    assert_eq!(lane.window(later), 6, "and was too much: the six work");
    let twice = later.plus(CEILING_HOLD * 2);
    succeed(&mut lane, 10 * GOOD_PER_STEP, 6, twice.minus(seconds(1)));
    assert_eq!(lane.window(twice), 6, "it holds twice as long now");
    succeed(&mut lane, 5 * GOOD_PER_STEP, 10, twice);
    assert_eq!((lane.window(twice), lane.trouble(twice)), (10, None), "let in again");
}

#[test]
fn a_host_that_wants_not_even_one_is_probed_like_one_that_is_down() {
    let mut lane = lane();
    lane.learn(&busy(), 1, NOW);
    assert_eq!(lane.window(NOW), 0);
    let wait = lane.admits(1, NOW).unwrap_err();
    assert_eq!(wait.cause, Cause::Unreachable);
    let first = wait.until.since(NOW);
    assert!(first >= seconds(13) && first <= seconds(17), "{first:?}");
    assert_eq!(lane.window(wait.until), 1);
    lane.learn(&busy(), 1, wait.until);
    let second = lane.admits(1, wait.until).unwrap_err().until.since(wait.until);
    assert!(second >= seconds(27) && second <= seconds(33), "{second:?}");
}

#[test]
fn what_was_refused_a_day_ago_is_forgotten() {
    let mut lane = lane();
    lane.learn(&busy(), 10, NOW);
    assert!(!lane.is_forgettable(NOW));
    let later = NOW.plus(FORGOTTEN_AFTER);
    assert!(lane.is_forgettable(later));
    lane.learn(&good(), 1, later);
    assert_eq!(lane.window(later), 10);
}

#[test]
fn other_limits_keep_what_was_learned_within_them() {
    let mut lane = lane();
    let with = |connections| LaneLimits { connections, ..LaneLimits::default() };
    lane.set_limits(with(20), NOW);
    assert_eq!(lane.window(NOW), 20, "it had all of the old limit");
    lane.learn(&busy(), 20, NOW);
    lane.set_limits(with(40), NOW);
    assert_eq!(lane.window(NOW), 10, "it had not");
    lane.set_limits(with(3), NOW);
    assert_eq!((lane.window(NOW), lane.trouble(NOW)), (3, None));
}

/// A host with room for some connections of a source, and a sender that uses all that its lane lets it have.
struct Host {
    room: u32,
    per_connection: u32,
    /// Messages that each open connection has yet to carry.
    open: Vec<u32>,
    attempts: u32,
    refused: u32,
    most: u32,
}

impl Host {
    fn new(room: u32, per_connection: u32) -> Self {
        Self { room, per_connection, open: Vec::new(), attempts: 0, refused: 0, most: 0 }
    }

    /// Half a second: every connection carries a message, and what the lane allows is opened.
    fn step(&mut self, lane: &mut Lane, now: Timestamp) {
        let connections = u32::try_from(self.open.len()).unwrap();
        for _ in 0..connections {
            lane.learn(&good(), connections, now);
        }
        self.open.iter_mut().for_each(|left| *left -= 1);
        self.open.retain(|left| *left > 0);
        let wanted = lane.window(now).saturating_sub(u32::try_from(self.open.len()).unwrap());
        self.attempts += wanted;
        let open = u32::try_from(self.open.len()).unwrap();
        let let_in = wanted.min(self.room.saturating_sub(open));
        // Not all of them come to their end in the same message.
        let length = |number: u32| self.per_connection - number % self.per_connection.min(7);
        self.open.extend((0..let_in).map(length));
        for turned_away in (0..wanted - let_in).rev() {
            self.refused += 1;
            lane.learn(&busy(), open + let_in + turned_away + 1, now);
        }
        self.most = self.most.max(open + let_in);
    }

    /// So many seconds; what was attempted and refused in them.
    fn run(&mut self, lane: &mut Lane, from: Timestamp, duration_s: u64) -> (u32, u32) {
        (self.attempts, self.refused) = (0, 0);
        for step in 0..2 * duration_s {
            self.step(lane, from.plus(Duration::from_millis(500 * step)));
        }
        (self.attempts, self.refused)
    }
}

#[test]
fn connections_settle_at_what_a_host_takes_and_climb_when_it_takes_more() {
    for (limit, room, per_connection) in [(10, 6, 20), (20, 3, 100), (50, 31, 10), (20, 1, 5), (8, 7, 1), (100, 2, 50)]
    {
        let mut lane = Lane::new(LaneLimits { connections: limit, ..LaneLimits::default() }, NOW);
        let mut host = Host::new(room, per_connection);
        host.run(&mut lane, NOW, 1_800);
        let steady = NOW.plus(seconds(1_800));
        let (attempts, refused) = host.run(&mut lane, steady, 6 * 3_600);
        let case = format!("{limit} allowed, room for {room}, {per_connection} messages each: {refused} of {attempts}");
        assert!(refused * 20 < attempts, "{case}");
        assert!(lane.window(steady.plus(seconds(21_600))).abs_diff(room) <= 1, "{case}");
        assert_eq!(host.most, room, "all that it takes is used");
        host.room = limit * 2;
        let freed = steady.plus(seconds(21_600));
        host.run(&mut lane, freed, 3 * 3_600);
        assert_eq!(lane.window(freed.plus(seconds(10_800))), limit, "it climbs when the limit goes");
    }
}

#[test]
fn a_host_that_ends_connections_teaches_how_many_messages_it_takes() {
    let mut lane = lane();
    let spent = |after| Learned { spent_after: Some(after), health: Health::Good, ..Learned::default() };
    lane.learn(&spent(100), 1, NOW);
    assert_eq!(lane.messages_per_connection(), 100, "that is our own limit");
    lane.learn(&spent(12), 1, NOW);
    lane.learn(&spent(10), 1, NOW);
    lane.learn(&spent(11), 1, NOW);
    assert_eq!(lane.messages_per_connection(), 10);
    let hour = seconds(3_600);
    lane.learn(&good(), 1, NOW.plus(hour).minus(seconds(1)));
    assert_eq!(lane.messages_per_connection(), 10);
    let later = NOW.plus(hour);
    lane.learn(&good(), 1, later);
    assert_eq!(lane.messages_per_connection(), 12, "a quarter more is tried");
    lane.learn(&spent(10), 1, later);
    assert_eq!(lane.messages_per_connection(), 10);
    lane.learn(&good(), 1, later.plus(hour));
    assert_eq!(lane.messages_per_connection(), 10, "it is kept to for two hours now");
    let mut now = later;
    for _ in 0..40 {
        now = now.plus(hour);
        lane.learn(&good(), 1, now);
    }
    assert_eq!(lane.messages_per_connection(), 100, "it climbs back");
    assert!(lane.is_forgettable(now));
    lane.learn(&spent(0), 1, now);
    assert_eq!(lane.messages_per_connection(), 1, "one goes always");
}

#[test]
fn what_cannot_be_reached_is_probed_at_growing_intervals_and_ramps_up_when_it_comes_back() {
    let mut reach = Reach::new(7);
    let mut now = NOW;
    for interval in PROBE_INTERVALS.into_iter().chain([PROBE_INTERVALS[6]]) {
        assert!(reach.window(10, now) > 0);
        let until = reach.failed(now).unwrap();
        let within = interval / 10;
        assert!(until.since(now) >= interval - within && until.since(now) <= interval + within, "{interval:?}");
        assert_eq!((reach.window(10, now), reach.failed(now)), (0, None), "those that fail together count once");
        now = until;
        assert_eq!(reach.window(10, now), 1, "one probe");
        assert!(reach.is_probing(now));
    }
    let windows: Vec<u32> = (0..5)
        .map(|_| {
            reach.good(10);
            reach.window(10, now)
        })
        .collect();
    assert_eq!(windows, [2, 4, 8, 10, 10]);
    assert!(reach.is_well() && reach.is_proven());
    let first = reach.failed(now).unwrap().since(now);
    assert!(first <= seconds(17), "from the beginning again");
    let ends: std::collections::BTreeSet<_> = (0..20).map(|seed| Reach::new(seed).failed(NOW).unwrap()).collect();
    assert!(ends.len() > 15, "not all at once");
}

#[test]
fn an_operator_ends_the_wait_of_an_unreachable_lane() {
    let mut lane = lane();
    lane.learn(&unreachable(), 4, NOW);
    assert_eq!(lane.window(NOW), 0);
    assert_eq!(lane.next_change(NOW), Some(lane.admits(1, NOW).unwrap_err().until));
    assert_eq!(lane.trouble(NOW).unwrap().mode, Mode::Unreachable);
    lane.unsuspend(NOW);
    assert_eq!((lane.window(NOW), lane.admits(5, NOW)), (1, Ok(5)));
    lane.learn(&good(), 1, NOW);
    assert_eq!(lane.window(NOW), 2);
    assert_eq!(lane.trouble(NOW).unwrap().mode, Mode::Ramping);
}
