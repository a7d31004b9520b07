//! What replies make of a lane: lower rates, fewer connections, suspensions, blocks; and how it comes back.

use super::super::super::limits::RateLimit;
use super::super::block::BLOCK_MAX;
use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

fn names(changes: &[Change]) -> Vec<&'static str> {
    let name = |change: &Change| match change {
        Change::Blocked { .. } => "blocked",
        Change::BackedOff { .. } => "backed off",
        Change::Unblocked => "unblocked",
        Change::WarmUp(change) => change.name(),
    };
    changes.iter().map(name).collect()
}

#[test]
fn a_block_ends_with_one_probe_of_one_message() {
    let mut lane = lane();
    let blocked = hit(ReactionKind::Block, HOUR);
    let changes = lane.learn(&blocked, 5, NOW);
    let until = NOW.plus(HOUR);
    assert_eq!(changes, [Change::Blocked { until, rule: "rule".into(), words: "421 4.7.0 slow down".into() }]);
    assert_eq!(lane.learn(&blocked, 4, NOW), [], "told once");
    lane.learn(&good(), 3, NOW);
    assert_eq!(lane.window(NOW), 0, "what was under way before changes nothing");
    assert_eq!(lane.admits(9, NOW), Err(Wait { until, cause: Cause::Blocked }));
    assert_eq!(lane.next_change(NOW), Some(until));
    let trouble = lane.trouble(NOW).unwrap();
    assert_eq!((trouble.mode, trouble.until, trouble.rule.as_deref()), (Mode::Blocked, Some(until), Some("rule")));
    lane.unsuspend(NOW);
    assert_eq!(lane.window(NOW), 0, "a block stays");

    assert_eq!((lane.window(until), lane.admits(9, until)), (1, Ok(1)));
    lane.take(1, until);
    assert_eq!(lane.admits(9, until), Err(Wait { until: Timestamp::MAX, cause: Cause::Probing }));
    lane.done(1, 1, until);
    assert_eq!(names(&lane.learn(&good(), 1, until)), ["unblocked"]);
    let windows = [(); 4].map(|()| {
        let window = lane.window(until);
        lane.learn(&good(), 1, until);
        window
    });
    assert_eq!(windows, [2, 4, 8, 10], "a ramp");
    assert_eq!(lane.admits(9, until), Ok(9));
}

#[test]
fn a_probe_of_which_the_host_took_nothing_ends_no_block_and_the_next_message_is_the_probe() {
    let mut lane = lane();
    lane.learn(&hit(ReactionKind::Block, HOUR), 1, NOW);
    let until = NOW.plus(HOUR);
    let nobody_there = Learned { took_nothing: true, ..good() };
    for _ in 0..3 {
        assert_eq!(lane.admits(9, until), Ok(1), "one at a time");
        lane.take(1, until);
        lane.done(1, 1, until);
        assert_eq!(lane.learn(&nobody_there, 1, until), []);
        assert_eq!(lane.window(until), 1);
    }
    assert_eq!(names(&lane.learn(&good(), 1, until)), ["unblocked"]);
}

#[test]
fn a_block_that_comes_again_soon_lasts_twice_as_long_up_to_a_day() {
    let mut lane = lane();
    let blocked = hit(ReactionKind::Block, HOUR);
    let mut now = NOW;
    for hours in [1, 2, 4, 8, 16, 24, 24] {
        assert_eq!(names(&lane.learn(&blocked, 1, now)), ["blocked"], "the probe was refused");
        let Err(Wait { until, .. }) = lane.admits(1, now) else { panic!("it is blocked") };
        assert_eq!(until.since(now), HOUR * hours);
        now = until;
    }
    lane.learn(&good(), 1, now);
    let soon = now.plus(BLOCK_MAX * 2);
    lane.learn(&blocked, 1, soon);
    assert_eq!(lane.admits(1, soon).unwrap_err().until.since(soon), BLOCK_MAX, "remembered for twice its length");
    let back = soon.plus(BLOCK_MAX);
    lane.learn(&good(), 1, back);
    let late = back.plus(BLOCK_MAX * 2).plus(seconds(1));
    lane.learn(&blocked, 1, late);
    assert_eq!(lane.admits(1, late).unwrap_err().until.since(late), HOUR);
}

#[test]
fn a_probe_that_meets_the_block_again_counts_whatever_number_of_hits_the_rule_asks_for() {
    let mut lane = lane();
    let twice = hit_after(ReactionKind::Block, HOUR, Some((2, seconds(60))));
    assert_eq!(lane.learn(&twice, 1, NOW), []);
    assert_eq!(names(&lane.learn(&twice, 1, NOW)), ["blocked"]);
    let until = NOW.plus(HOUR);
    assert_eq!(names(&lane.learn(&twice, 1, until)), ["blocked"]);
}

#[test]
fn a_rule_with_a_number_reacts_when_it_was_hit_so_often_in_its_time() {
    let mut lane = lane();
    let rule = hit_after(ReactionKind::Suspend, seconds(600), Some((3, seconds(60))));
    for at in [0, 10, 100, 110, 230] {
        assert_eq!(lane.learn(&rule, 1, NOW.plus(seconds(at))), [], "{at} s");
    }
    let mut other = rule.clone();
    other.reactions[0].rule = "other".into();
    assert_eq!(lane.learn(&other, 1, NOW.plus(seconds(235))), [], "another rule");
    assert_eq!(lane.learn(&rule, 1, NOW.plus(seconds(240))), []);
    let at = NOW.plus(seconds(285));
    assert_eq!(names(&lane.learn(&rule, 1, at)), ["backed off"]);
    assert_eq!(lane.admits(1, at), Err(Wait { until: at.plus(seconds(600)), cause: Cause::Suspended }));
    let again = at.plus(seconds(10));
    assert_eq!(lane.learn(&rule, 1, again), [], "it goes on, which is no news");
    assert_eq!(lane.admits(1, again).unwrap_err().until, again.plus(seconds(600)));
    let over = again.plus(seconds(600));
    assert_eq!((lane.window(over.minus(seconds(1))), lane.window(over)), (0, 1), "then it begins with one");
}

#[test]
fn fewer_connections_for_a_time_then_twice_as_many_with_each_success() {
    let mut lane = lane();
    assert_eq!(names(&lane.learn(&hit(ReactionKind::Connections(2), HOUR), 8, NOW)), ["backed off"]);
    assert_eq!(names(&lane.learn(&hit(ReactionKind::Connections(5), HOUR * 2), 8, NOW)), Vec::<&str>::new());
    assert_eq!(names(&lane.learn(&hit(ReactionKind::Connections(1), HOUR), 8, NOW)), ["backed off"], "stricter");
    let until = NOW.plus(HOUR * 2);
    lane.learn(&good(), 1, until.minus(seconds(1)));
    assert_eq!(lane.window(until.minus(seconds(1))), 1);
    let windows = [(); 5].map(|()| {
        lane.learn(&good(), 1, until);
        lane.window(until)
    });
    assert_eq!(windows, [2, 4, 8, 10, 10]);
    assert!(lane.is_forgettable(until));
}

#[test]
fn a_connection_less_is_regained_as_after_a_421() {
    let mut lane = lane();
    let rule = hit(ReactionKind::FewerConnections, HOUR);
    assert_eq!(lane.learn(&rule, 10, NOW), []);
    assert_eq!(lane.window(NOW), 9);
    assert_eq!(lane.trouble(NOW).unwrap().rule.as_deref(), Some("rule"));
    lane.learn(&rule, 9, NOW);
    assert_eq!(lane.window(NOW), 8);
}

#[test]
fn a_lower_rate_for_a_time_then_twice_as_much_each_minute_for_six() {
    let mut lane = lane();
    let slow = RateLimit { count: 10, per: Span::Minute };
    assert_eq!(names(&lane.learn(&hit(ReactionKind::Slow(slow), seconds(600)), 8, NOW)), ["backed off"]);
    let faster = RateLimit { count: 1, per: Span::Second };
    assert_eq!(lane.learn(&hit(ReactionKind::Slow(faster), seconds(600)), 8, NOW), [], "no stricter");
    assert_eq!(lane.trouble(NOW).unwrap().mode, Mode::Slowed);
    let mut sent = Vec::new();
    let mut now = NOW;
    while now < NOW.plus(seconds(600 + 7 * 60)) {
        match send(&mut lane, now) {
            Ok(()) => sent.push(now.since(NOW).as_secs() / 60),
            Err(wait) => {
                assert!(wait.until > now && matches!(wait.cause, Cause::Rate(_)), "{wait:?}");
                now = wait.until;
            }
        }
        if sent.len() > 5_000 {
            break;
        }
    }
    let in_minute = |minute: u64| sent.iter().filter(|at| **at == minute).count();
    for minute in 0..10 {
        assert!((9..=10).contains(&in_minute(minute)), "minute {minute}: {}", in_minute(minute));
    }
    for (minute, most) in [(10, 20), (11, 40), (12, 80), (13, 160), (14, 320), (15, 640)] {
        let got = in_minute(minute);
        assert!(got <= most && got * 2 > most, "minute {minute}: {got} of {most}");
    }
    assert!(in_minute(16) > 2_000, "then it is over");
    lane.learn(&good(), 1, now);
    assert_eq!(lane.trouble(now), None);
}

#[test]
fn the_strongest_trouble_is_told_with_its_own_words() {
    let mut lane = lane();
    lane.learn(&hit(ReactionKind::Block, HOUR), 2, NOW);
    lane.learn(&unreachable(), 1, NOW);
    assert_eq!(&*lane.trouble(NOW).unwrap().words, "421 4.7.0 slow down");
    let back = NOW.plus(HOUR);
    lane.learn(&good(), 1, back);
    lane.learn(&unreachable(), 1, back);
    let trouble = lane.trouble(back).unwrap();
    assert_eq!((trouble.mode, &*trouble.words, trouble.rule), (Mode::Unreachable, "connection refused", None));
}
