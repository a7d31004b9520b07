//! Whatever happens in whatever order, no day and no hour sees more than it should: a receiver counts, and each message counts for all
//! days and hours that it was in flight on.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::pace::hour_share;
use super::*;

#[derive(Clone, Debug)]
enum Act {
    Wait(u64),
    Send(u32),
    /// A batch in flight comes to its end: whether it was sent.
    End(usize, bool),
    Count(Tally),
    Block,
    Pause,
    Resume,
    SetPosition(u32),
    SetPlan(usize),
    Save(u32),
    /// A restart without order, after so many milliseconds.
    Crash(u64),
    ClockBack(u64),
}

fn acts() -> impl Strategy<Value = Act> {
    let wait = prop_oneof![0..70_000_u64, 0..7_200_000_u64, 0..40_000_000_u64, Just(86_400_000_u64)];
    let tally = (0..400_u32, 0..100_u32, 0..30_u32, 0..3_u32);
    prop_oneof![
        8 => wait.prop_map(Act::Wait),
        12 => (1..400_u32).prop_map(Act::Send),
        8 => (any::<usize>(), any::<bool>()).prop_map(|(index, sent)| Act::End(index, sent)),
        2 => tally.prop_map(|(sent, deferred, bounced, complained)| Act::Count(super::tally(sent, deferred, bounced, complained))),
        1 => Just(Act::Block),
        1 => Just(Act::Pause),
        2 => Just(Act::Resume),
        1 => (1..60_u32).prop_map(Act::SetPosition),
        1 => any::<usize>().prop_map(Act::SetPlan),
        4 => (0..200_u32).prop_map(Act::Save),
        2 => (0..30_000_000_u64).prop_map(Act::Crash),
        1 => (0..20_000_000_u64).prop_map(Act::ClockBack),
    ]
}

/// Messages of one take, with the days and hours on which they were in flight.
#[derive(Clone, Debug, Default)]
struct Batch {
    count: u32,
    days: BTreeSet<u64>,
    hours: BTreeSet<u64>,
}

struct World {
    plans: Vec<Arc<Plan>>,
    plan: usize,
    lane: Warming,
    now_ms: u64,
    /// The latest that the clock ever showed.
    latest_ms: u64,
    in_flight: Vec<Batch>,
    days: BTreeMap<u64, u64>,
    hours: BTreeMap<u64, u64>,
    disk: WarmupState,
    outstanding: u32,
    granted: u32,
}

impl World {
    fn new(plans: Vec<Arc<Plan>>) -> Self {
        let now = at(0, 20, 0);
        let lane = Warming::new(Arc::clone(&plans[0]), now);
        let mut world = Self {
            disk: lane.state(),
            plans,
            plan: 0,
            lane,
            now_ms: now.millis(),
            latest_ms: now.millis(),
            in_flight: Vec::new(),
            days: BTreeMap::new(),
            hours: BTreeMap::new(),
            outstanding: 0,
            granted: 0,
        };
        world.save(100);
        world
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now_ms)
    }

    /// All in flight are in flight now.
    fn touch(&mut self) {
        let (day, hour) = (self.now_ms / 86_400_000, self.now_ms / 3_600_000);
        for batch in &mut self.in_flight {
            for (known, all, unit) in
                [(&mut batch.days, &mut self.days, day), (&mut batch.hours, &mut self.hours, hour)]
            {
                if known.insert(unit) {
                    *all.entry(unit).or_default() += u64::from(batch.count);
                }
            }
        }
    }

    /// Through all hours in between, so that what is in flight counts for each.
    fn wait(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        while self.now_ms < end_ms {
            let next_hour_ms = (self.now_ms / 3_600_000 + 1) * 3_600_000;
            self.now_ms = next_hour_ms.min(end_ms);
            self.touch();
        }
        self.latest_ms = self.latest_ms.max(self.now_ms);
    }

    fn save(&mut self, grant: u32) {
        self.disk = self.lane.state();
        self.granted = grant;
        self.outstanding = grant + self.in_flight.iter().map(|batch| batch.count).sum::<u32>();
    }

    fn send(&mut self, wanted: u32) -> Result<(), TestCaseError> {
        let now = self.now();
        let admitted = self.lane.admits(wanted, now);
        let report = self.lane.report(now);
        let count = match admitted {
            Err(hold) => {
                prop_assert!(hold.until > now);
                return Ok(());
            }
            Ok(count) => count.min(self.granted),
        };
        prop_assert!(count <= wanted && report.mode != Mode::Frozen);
        self.granted -= count;
        self.lane.take(count, now);
        self.in_flight.push(Batch { count, ..Batch::default() });
        self.touch();
        let Some(cap) = report.cap.filter(|_| count > 0) else { return Ok(()) };
        let (day, hour) = (self.days[&(self.now_ms / 86_400_000)], self.hours[&(self.now_ms / 3_600_000)]);
        prop_assert!(day <= u64::from(cap), "{day} on a day of {cap} at {now}");
        let most = 2 * hour_share(cap);
        prop_assert!(hour <= u64::from(most), "{hour} in an hour of {most} at {now}");
        Ok(())
    }

    fn end(&mut self, index: usize, sent: bool) {
        if self.in_flight.is_empty() {
            return;
        }
        let batch = self.in_flight.swap_remove(index % self.in_flight.len());
        self.lane.done(batch.count, if sent { batch.count } else { 0 }, Timestamp::from_millis(self.now_ms));
        if sent {
            return;
        }
        for day in batch.days {
            *self.days.get_mut(&day).unwrap() -= u64::from(batch.count);
        }
        for hour in batch.hours {
            *self.hours.get_mut(&hour).unwrap() -= u64::from(batch.count);
        }
    }

    fn crash(&mut self, down_ms: u64) {
        self.in_flight.clear();
        self.wait(down_ms);
        let plan = Arc::clone(&self.plans[self.plan]);
        self.lane = Warming::restore(plan, &self.disk, self.outstanding, self.now());
        self.save(100);
    }

    fn clock_back(&mut self, ms: u64) {
        // So that no two midnights come twice.
        let to_ms = (self.now_ms - ms).max(self.latest_ms - 40_000_000);
        let by = self.now_ms.saturating_sub(to_ms);
        self.lane.roll(self.now());
        self.now_ms -= by;
        self.lane.clock_went_back(Duration::from_millis(by));
        let (hour, latest) = (self.now_ms / 3_600_000, self.latest_ms / 3_600_000);
        if hour < latest {
            // Hourly shares keep the flow even; an hour that comes again is promised one only where it is the next one.
            let is_kept = |known: u64| latest == hour + 1 && known == latest;
            self.hours.retain(|known, _| is_kept(*known));
            self.in_flight.iter_mut().for_each(|batch| batch.hours.retain(|known| is_kept(*known)));
        }
        self.touch();
        // As the lane's owner does.
        self.save(100);
    }

    fn act(&mut self, act: Act) -> Result<(), TestCaseError> {
        let now = self.now();
        match act {
            Act::Wait(ms) => self.wait(ms),
            Act::Send(wanted) => self.send(wanted)?,
            Act::End(index, sent) => self.end(index, sent),
            Act::Count(tally) => drop(self.lane.counted(&tally, now)),
            Act::Block => drop(self.lane.blocked(now)),
            Act::Pause => drop(self.lane.pause(now)),
            Act::Resume => drop(self.lane.resume(now)),
            Act::SetPosition(position) => drop(self.lane.set_position(position, now)),
            Act::SetPlan(index) => {
                self.plan = index % self.plans.len();
                self.lane.set_plan(Arc::clone(&self.plans[self.plan]), now);
            }
            Act::Save(grant) => self.save(grant),
            Act::Crash(down_ms) => self.crash(down_ms),
            Act::ClockBack(ms) => self.clock_back(ms),
        }
        Ok(())
    }
}

fn plans() -> Vec<Arc<Plan>> {
    let small = table("own", &[10, 30, 30, 90, 200], Advance::Daily);
    let other = table("own", &[50, 60, 700], Advance::Daily);
    vec![Arc::new(small), built_in("stages"), built_in("ses-45-days"), Arc::new(other)]
}

/// Random states: each field from a small number of odd values.
fn nonsense(seed: u64) -> WarmupState {
    let mut chance = seed;
    let mut next = || {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        chance >> 33
    };
    let odd = |pick: u64| {
        [0, 1, 2, 24, DAY - 1, DAY, DAY + 1, DAY * 24, 1_000_000, u32::MAX - 1, u32::MAX][(pick % 11) as usize]
    };
    let time = |pick: u64| {
        let times = [0, 1, at(0, 0, 0).millis(), at(3, 5, 0).millis(), u64::MAX / 2, u64::MAX - 1, u64::MAX];
        Timestamp::from_millis(times[(pick % 7) as usize])
    };
    let cap = |pick: u64| (!pick.is_multiple_of(3)).then(|| odd(pick / 3));
    WarmupState {
        plan: ["own", "stages", ""][(next() % 3) as usize].into(),
        position: odd(next()),
        cap: cap(next()),
        day: odd(next()),
        used: odd(next()),
        hour: odd(next()),
        used_this_hour: odd(next()),
        delivered_today: odd(next()),
        held_today: next().is_multiple_of(2),
        before: (next().is_multiple_of(2)).then(|| crate::types::WarmupDay {
            day: odd(next()),
            position: odd(next()),
            cap: cap(next()),
            used: odd(next()),
            delivered: odd(next()),
            held: next().is_multiple_of(2),
        }),
        ahead: (next().is_multiple_of(2)).then(|| (odd(next()), odd(next()))),
        mode: u8::try_from(next() % 6).unwrap(),
        paused: next().is_multiple_of(2),
        since: time(next()),
        until: (next().is_multiple_of(2)).then(|| time(next())),
        reason: (next().is_multiple_of(2)).then(|| "x".repeat((next() % 400) as usize).into()),
        last_sent_at: (next().is_multiple_of(2)).then(|| time(next())),
        set_at: time(next()),
        stepped_back_at: (next().is_multiple_of(2)).then(|| time(next())),
        frozen_at: (next().is_multiple_of(2)).then(|| time(next())),
        freezes: u8::try_from(next() % 256).unwrap(),
        newest_end: time(next()),
        parts: (0..next() % 12).map(|_| [odd(next()), odd(next()), odd(next()), odd(next())]).collect(),
    }
}

proptest! {
    #[test]
    fn no_day_sees_more_than_its_cap_and_no_hour_more_than_two_shares(acts in prop::collection::vec(acts(), 1..250)) {
        let mut world = World::new(plans());
        for act in acts {
            world.act(act)?;
        }
    }

    #[test]
    fn whatever_stands_on_disk_nothing_panics_and_it_goes_on(
        seed in any::<u64>(), extra in prop_oneof![Just(0), 0..1_000_u32, Just(u32::MAX)], acts in prop::collection::vec(acts(), 0..40)
    ) {
        for now in [Timestamp::EPOCH, at(0, 5, 0), Timestamp::MAX] {
            let mut lane = Warming::restore(Arc::clone(&plans()[0]), &nonsense(seed), extra, now);
            drop(lane.report(now));
            let _ = lane.admits(1, now);
            lane.take(u32::MAX, now);
            lane.take(u32::MAX, now);
            lane.clock_went_back(hours(70));
            lane.done(5, 9, now);
            prop_assert!(lane.state().parts.len() <= 8);
        }
        let mut world = World::new(plans());
        world.disk = nonsense(seed);
        world.outstanding = extra;
        world.lane = Warming::restore(Arc::clone(&world.plans[0]), &world.disk, extra, world.now());
        world.save(100);
        prop_assert_eq!(world.lane.state().day, u32::try_from(world.now_ms / 86_400_000).unwrap());
        for act in acts {
            world.act(act)?;
        }
        // Nothing holds it for ever: two days and a freeze later it sends again.
        world.in_flight.clear();
        let later = world.now().plus(hours(4 * 24));
        let state = world.lane.state();
        let mut lane = Warming::restore(Arc::clone(&world.plans[world.plan]), &state, 0, later);
        let noon = Timestamp::from_millis(later.millis() / 86_400_000 * 86_400_000 + 86_400_000 + 43_200_000);
        prop_assert!(lane.admits(1, noon).is_ok());
    }
}
