//! What is told of a lane is what it does, and to look at it changes nothing.

use super::*;

#[test]
fn what_a_lane_would_say_is_what_it_says_and_nothing_is_taken() {
    let mut lane = Lane::new(limits(rate(Span::Minute, 2)), NOW);
    let mut now = NOW;
    for _ in 0..200 {
        let (looked, usage) = (lane.clone().admits(1, now), lane.usage(now));
        let said = lane.admits(1, now);
        assert_eq!(looked, said);
        if said.is_ok() {
            lane.take(1, now);
            lane.done(1, 1, now);
            assert!(usage[0].used < lane.usage(now)[0].used, "{usage:?}");
        }
        now = now.plus(seconds(7));
    }
}

#[test]
fn usage_counts_what_is_in_flight_and_says_which_limits_a_reply_made() {
    let mut lane = Lane::new(limits(rate(Span::Hour, 100)), NOW);
    let before = lane.admits(1, NOW).err().map(|wait| wait.cause);
    assert_eq!(before, Some(Cause::Saving));
    lane.save(NOW);
    lane.saved(true, NOW);
    assert!(lane.admits(1, NOW).is_ok());
    lane.take(1, NOW);
    let slow = RateLimit { count: 10, per: Span::Minute };
    lane.learn(&hit(ReactionKind::Slow(slow), seconds(600)), 1, NOW);
    let usage: Vec<_> = lane.usage(NOW).iter().map(|usage| (usage.limit, usage.used, usage.by_reply)).collect();
    assert_eq!(usage, [(slow, 1, true), (RateLimit { count: 100, per: Span::Hour }, 1, false)]);
    assert_eq!(lane.mode(NOW), Some(Mode::Slowed));
    assert_eq!(lane.mode(NOW), lane.trouble(NOW).map(|trouble| trouble.mode));
}
