//! Limits judged at the receiver: whatever the delays, crashes and clocks, no time of a limit's length ever holds more messages.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What comes to its end at some time.
#[derive(Clone, Debug)]
enum End {
    /// A message; `None`: it never reached the host.
    Message(Option<u64>),
    /// A write: whether the disk says that it is durable.
    Write(bool),
}

/// Delays and accidents, all by chance.
#[derive(Clone, Debug)]
struct Plan {
    rates: Rates,
    /// Longest time from decision to receiver, and from there to our knowing, in milliseconds.
    delay_ms: u64,
    write_ms: u64,
    /// In so many steps, one crash, one orderly stop, one clock set back; 0: none.
    crashes: u32,
    unsent_percent: u32,
    failing_writes_percent: u32,
    /// Messages at most.
    messages: usize,
    duration: Duration,
}

/// A sender with always something to send, a disk and a receiver. Time here is the receiver's.
struct World {
    plan: Plan,
    chance: u64,
    now_ms: u64,
    /// How far our clock is behind.
    behind_ms: u64,
    lane: Lane,
    ends: BTreeMap<(u64, u64), End>,
    number: u64,
    disk: LaneState,
    writing: Option<LaneState>,
    received: Vec<u64>,
}

impl World {
    fn new(plan: Plan, chance: u64) -> Self {
        let lane = Lane::new(limits(plan.rates), NOW);
        let now_ms = NOW.millis();
        let (ends, received) = (BTreeMap::new(), Vec::new());
        let (disk, writing) = (LaneState::default(), None);
        Self { plan, chance, now_ms, behind_ms: 0, lane, ends, number: 0, disk, writing, received }
    }

    /// Below `most`, or 0.
    fn pick(&mut self, most: u64) -> u64 {
        self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.chance >> 33) % most.max(1)
    }

    fn hits(&mut self, percent: u32) -> bool {
        self.pick(100) < u64::from(percent)
    }

    fn clock(&self) -> Timestamp {
        Timestamp::from_millis(self.now_ms - self.behind_ms)
    }

    fn later(&mut self, after_ms: u64, end: End) {
        self.number += 1;
        self.ends.insert((self.now_ms + after_ms, self.number), end);
    }

    fn run(&mut self) {
        let end_ms = self.now_ms + u64::try_from(self.plan.duration.as_millis()).unwrap();
        let mut steps = 0;
        while self.now_ms < end_ms && self.received.len() < self.plan.messages && steps < 40 * self.plan.messages {
            steps += 1;
            self.finish();
            self.save();
            let wait = self.send();
            self.save();
            if self.accident() {
                continue;
            }
            let next = self.ends.keys().next().map_or(u64::MAX, |(at, _)| *at);
            let wait_ms = wait.map_or(self.now_ms, |wait| wait.until.millis().saturating_add(self.behind_ms));
            let change = self.lane.next_change(self.clock()).map_or(u64::MAX, |at| at.millis() + self.behind_ms);
            let next_ms = next.min(wait_ms).min(change);
            assert!(next_ms < u64::MAX, "nothing will ever happen: {:?}", self.lane);
            self.now_ms = self.now_ms.max(next_ms);
        }
    }

    fn finish(&mut self) {
        while let Some(((at, number), end)) = self.ends.pop_first() {
            if at > self.now_ms {
                self.ends.insert((at, number), end);
                return;
            }
            let clock = self.clock();
            match end {
                End::Message(reached) => {
                    self.lane.done(1, u32::from(reached.is_some()), clock);
                    self.received.extend(reached);
                }
                End::Write(durable) => {
                    let state = self.writing.take().unwrap();
                    // One that failed may be there all the same.
                    if durable || self.hits(50) {
                        self.disk = state;
                    }
                    self.lane.saved(durable, clock);
                }
            }
        }
    }

    fn save(&mut self) {
        let clock = self.clock();
        if self.writing.is_none() && self.lane.wants_save(clock) {
            self.writing = Some(self.lane.save(clock));
            let (after_ms, fails) = (self.pick(self.plan.write_ms), self.hits(self.plan.failing_writes_percent));
            self.later(after_ms, End::Write(!fails));
        }
    }

    /// As much as the lane lets it. Why not more.
    fn send(&mut self) -> Option<Wait> {
        let clock = self.clock();
        let wanted = 1 + u32::try_from(self.pick(40)).unwrap();
        let admitted = match self.lane.admits(wanted, clock) {
            Err(wait) => return Some(wait),
            Ok(admitted) => admitted,
        };
        assert!((1..=wanted).contains(&admitted));
        self.lane.take(admitted, clock);
        for _ in 0..admitted {
            let (to_ms, back_ms) = (self.pick(self.plan.delay_ms), self.pick(self.plan.delay_ms));
            let reached = (!self.hits(self.plan.unsent_percent)).then_some(self.now_ms + to_ms);
            self.later(to_ms + back_ms, End::Message(reached));
        }
        None
    }

    /// Whether one happened.
    fn accident(&mut self) -> bool {
        if self.plan.crashes == 0 || self.pick(self.plan.crashes.into()) > 0 {
            return false;
        }
        match self.pick(3) {
            0 => self.crash(),
            1 => self.stop(),
            _ => {
                let by_ms = self.pick(200_000);
                self.behind_ms += by_ms;
                if self.hits(50) {
                    self.lane.clock_went_back(Duration::from_millis(by_ms));
                }
            }
        }
        true
    }

    /// A power cut: what was under way may have reached the host, and the disk.
    fn crash(&mut self) {
        for end in std::mem::take(&mut self.ends).into_values() {
            if let End::Message(Some(reached)) = end
                && reached <= self.now_ms
            {
                self.received.push(reached);
            }
        }
        if let Some(state) = self.writing.take()
            && self.hits(50)
        {
            self.disk = state;
        }
        self.start(true);
    }

    /// An orderly stop: all comes to its end first.
    fn stop(&mut self) {
        while let Some((at, _)) = self.ends.keys().next() {
            self.now_ms = self.now_ms.max(*at);
            self.finish();
        }
        if let Some(state) = self.lane.last_save(self.clock()) {
            self.disk = state;
        } else {
            self.disk = LaneState::default();
        }
        self.start(false);
    }

    fn start(&mut self, unclean: bool) {
        self.now_ms += self.pick(3_000);
        self.lane = Lane::restore(&self.disk.clone(), limits(self.plan.rates), unclean, self.clock());
    }

    /// The most that the receiver saw in any such time.
    fn most_in(&mut self, span: Span) -> usize {
        self.received.sort_unstable();
        let span_ms = u64::try_from(span.duration().as_millis()).unwrap();
        let (mut first, mut most) = (0, 0);
        for last in 0..self.received.len() {
            while self.received[last] - self.received[first] >= span_ms {
                first += 1;
            }
            most = most.max(last - first + 1);
        }
        most
    }
}

fn plans() -> impl Strategy<Value = Plan> {
    let count = || prop::option::weighted(0.4, prop_oneof![1..10_u32, 1..200_u32]);
    let rates = (count(), count(), count(), count());
    let delays = prop_oneof![Just(0_u64), 1..300_u64, 1..100_000_u64];
    let accidents = (prop_oneof![Just(0_u32), 5..300_u32], 0..40_u32, 0..40_u32);
    (rates, delays, 0..2_000_u64, accidents).prop_map(|(rates, delay_ms, write_ms, accidents)| Plan {
        rates: Rates { second: rates.0, minute: rates.1, hour: rates.2, day: rates.3 },
        delay_ms,
        write_ms,
        crashes: accidents.0,
        unsent_percent: accidents.1,
        failing_writes_percent: accidents.2,
        messages: 1_500,
        duration: Duration::from_secs(4 * 86_400),
    })
}

/// Cases of the property below: more of them by `POSTHASTE_LANE_ROUNDS`.
fn rounds() -> u32 {
    std::env::var("POSTHASTE_LANE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(256)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: rounds(), ..ProptestConfig::default() })]

    #[test]
    fn no_receiver_ever_sees_more_than_a_limit_in_any_of_its_times(plan in plans(), chance in any::<u64>()) {
        let mut world = World::new(plan.clone(), chance);
        world.run();
        for span in Span::ALL {
            if let Some(limit) = plan.rates.by(span) {
                let most = world.most_in(span);
                prop_assert!(most <= usize::try_from(limit).unwrap(), "{most} in a {}", span.name());
            }
        }
    }
}

#[test]
fn a_limit_is_used_to_nine_tenths_where_there_is_always_mail() {
    for span in Span::ALL {
        for limit in [10, 100, 1_000, 20_000] {
            let span_ms = u64::try_from(span.duration().as_millis()).unwrap();
            let plan = Plan {
                rates: rate(span, limit),
                delay_ms: span_ms / 200,
                write_ms: 20,
                crashes: 0,
                unsent_percent: 0,
                failing_writes_percent: 0,
                messages: usize::MAX / 100,
                duration: span.duration() * 12,
            };
            let mut world = World::new(plan, 1);
            world.run();
            let sent = world.received.len();
            let share = sent as f64 / (12.0 * f64::from(limit));
            assert!(share >= 0.9, "{limit} in a {}: {share}", span.name());
            assert!(world.most_in(span) <= usize::try_from(limit).unwrap());
        }
    }
}

#[test]
fn messages_are_spread_over_a_minute_and_what_failed_is_given_back() {
    let mut lane = Lane::new(limits(rate(Span::Minute, 60)), NOW);
    assert_eq!(lane.admits(60, NOW), Ok(6), "a tenth at once");
    lane.take(6, NOW);
    let wait = lane.admits(60, NOW).unwrap_err();
    assert_eq!(wait.until.since(NOW), seconds(1));
    lane.done(6, 2, NOW);
    assert_eq!(lane.admits(60, NOW), Ok(4));
}

#[test]
fn a_wait_ends_in_the_millisecond_that_it_names() {
    let mut lane = Lane::new(limits(rate(Span::Day, 5)), NOW);
    let _ = lane.admits(1, NOW);
    save(&mut lane, NOW);
    let mut now = NOW;
    let mut sent = 0;
    while sent < 20 {
        match send(&mut lane, now) {
            Ok(()) => sent += 1,
            Err(Wait { cause: Cause::Saving, .. }) => {
                save(&mut lane, now);
            }
            Err(wait) => {
                let early = wait.until.minus(Duration::from_millis(1));
                assert!(matches!(lane.admits(1, early), Err(Wait { cause: Cause::Rate(_), .. })));
                let mut then = lane.clone();
                assert!(!matches!(then.admits(1, wait.until), Err(Wait { cause: Cause::Rate(_), .. })), "{wait:?}");
                now = wait.until;
            }
        }
    }
    assert!(now.since(NOW) <= seconds(3 * 90_000), "{:?}", now.since(NOW));
}
