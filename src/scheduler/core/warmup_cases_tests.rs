//! What must hold of warm-up in worlds where one thing happens.

use std::time::Duration;

use super::*;

const DAYS_45: u64 = 45;
/// At least ten messages an hour from the first day.
const LARGE_STEPS: [(u32, u32); 5] = [(1, 240), (3, 320), (5, 480), (7, 600), (9, 720)];

#[test]
fn with_enough_mail_each_day_sends_its_cap_and_each_hour_an_even_share() {
    let mut world = world(1, &["default=w1,w2>spare", "spare=spare1"], &["w1", "w2"], &LARGE_STEPS, &[(1, 1)]);
    world.slow_one_in = 0;
    for day in 0..8_u32 {
        for provider in 0..2 {
            world.at(START.plus(DAY * day), Event::Call(provider));
        }
        while let Some(provider) = world.run(START.plus(DAY * day + Duration::from_secs(1))) {
            world.send(2_000, DAY, Mail { provider: usize::try_from(provider).unwrap(), ..Mail::default() });
        }
        world.run(START.plus(DAY * (day + 1)).minus(Duration::from_millis(1)));
        for name in ["w1", "w2"] {
            for at in [site(0), site(1)] {
                check_full_day(&world, name, &at, day);
            }
        }
    }
    // What nobody counted yet is on its way to the history.
    world.run_out(2 * DAY);
    world.restart(true, MINUTE);
    let of_history = sent_of(&world.history);
    assert_eq!(of_history.sent, ["w1", "w2", "spare1"].iter().map(|name| world.receivers.of(name)).sum::<u32>());
}

#[track_caller]
fn check_full_day(world: &World, name: &str, at: &SiteName, day: u32) {
    let cap = LARGE_STEPS.iter().rev().find(|(first, _)| *first <= day + 1).unwrap().1;
    let date = START_DAY + u64::from(day);
    // The last message may be on its way.
    let count = world.receivers.on(name, at, date);
    assert!((cap - 1..=cap).contains(&count), "{name} at {at}, day {day}: {count} of {cap}");
    let position = world.allowed.positions.get(&(name.to_owned(), at.clone(), date)).copied();
    assert_eq!(position.unwrap_or(1), day + 1);
    for hour in 0..24 {
        let count = world.receivers.in_hour(name, at, date * 24 + hour);
        let is_even = (count * 24).abs_diff(cap) * 10 <= cap;
        assert!(is_even, "{name} at {at}, day {day}, hour {hour}: {count} of {cap}");
    }
}

#[test]
fn a_plan_of_45_days_is_followed_day_by_day_over_crashes() {
    let steps: Vec<(u32, u32)> = (1..=45).map(|day| (day, day * 4)).collect();
    let mut world = world(2, &["default=w1>spare", "spare=spare1"], &["w1"], &steps, &[(1, 1)]);
    for day in 0..DAYS_45 {
        let start = START.plus(DAY * u32::try_from(day).unwrap());
        world.at(start, Event::Call(0));
        let crash = world.millis(3_600_000, 80_000_000);
        world.at(start.plus(crash), Event::Call(1));
    }
    while let Some(call) = world.run(START.plus(DAY * 45)) {
        match call {
            0 => world.send(250, DAY, Mail::default()),
            _ => world.restart(false, MINUTE),
        }
    }
    let (mut sum, mut caps) = (0, 0);
    for day in 0..DAYS_45 {
        let (count, cap) = (world.receivers.on("w1", &site(0), START_DAY + day), 4 * u32::try_from(day + 1).unwrap());
        assert!(count <= cap, "day {day}: {count} of {cap}");
        (sum, caps) = (sum + count, caps + cap);
        let key = ("w1".to_owned(), site(0), START_DAY + day);
        let expected = u32::try_from(day + 1).unwrap();
        assert_eq!(world.allowed.positions.get(&key).copied().unwrap_or(1), expected, "day {day}");
    }
    assert!(sum * 100 >= caps * 95, "a crash a day costs a few messages: {sum} of {caps}");
    world.run_out(2 * DAY);
    assert!(world.entries().iter().any(|entry| entry.report.mode == Mode::Over));
}

#[test]
fn what_a_first_grant_let_go_counts_after_a_crash() {
    let mut world = world(3, &["default=w1"], &["w1"], &[(1, 10), (2, 500)], &[(1, 1)]);
    world.slow_one_in = 0;
    world.send(40, Duration::from_secs(1), Mail::default());
    for _ in 0..15 {
        world.run(world.now.plus(Duration::from_secs(5)));
        world.restart(false, Duration::from_secs(1));
    }
    let count = world.receivers.on("w1", &site(0), START_DAY);
    assert!((1..=10).contains(&count), "{count}");
    world.run_out(3 * DAY);
}

#[test]
fn a_source_that_leaves_and_returns_goes_on_where_it_was() {
    let steps = [(1, 100), (2, 200), (3, 300)];
    let mut world = world(4, &["default=w1,w2>spare", "spare=spare1"], &["w1", "w2"], &steps, &[(1, 1)]);
    world.send(800, DAY, Mail::default());
    world.run(START.plus(DAY + 12 * HOUR));
    world.send(800, 12 * HOUR, Mail::default());
    world.run(START.plus(DAY + 18 * HOUR));
    let with = world.settings.clone();
    let (of_sources, _) = plan("steps", &steps, Advance::Daily);
    let without = settings(fleet(pools(&["default=w1>spare", "spare=spare1"])), warmups(&[("w1", &of_sources)], &[]));
    let used = world.receivers.on("w2", &site(0), START_DAY + 1);
    assert!(used > 0);
    world.reload(without);
    world.run(START.plus(DAY + 20 * HOUR));
    world.reload(with);
    let entry = world.entries().into_iter().find(|entry| entry.source == Some(source_name("w2"))).unwrap();
    assert_eq!((entry.report.position, entry.report.cap), (2, Some(200)));
    assert!(entry.report.used >= used, "{} of {used}", entry.report.used);
    world.run_out(3 * DAY);
}

fn warmup_events(world: &World, source: &str) -> Vec<WarmupChange> {
    let change = |kind: &LaneEventKind| match kind {
        LaneEventKind::Lane(name, Change::WarmUp(change)) if name.as_str() == source => Some(change.clone()),
        _ => None,
    };
    world.told.iter().filter_map(|(_, _, kind)| change(kind)).collect()
}

/// Ten days of mail for one provider, whose receiver is in this mood from the fifth day on, for so long.
fn troubled(mood: Mood, lasts: Duration) -> World {
    let steps = [(1, 200), (3, 400), (5, 800), (7, 1_600), (9, 3_200)];
    let mut world = world(5, &["default=w1>spare", "spare=spare1"], &["w1"], &steps, &[(1, 1)]);
    let begin = START.plus(4 * DAY + HOUR);
    world.at(begin, Event::Call(1));
    for day in 0..10 {
        world.at(START.plus(DAY * day), Event::Call(0));
    }
    while let Some(call) = world.run(START.plus(10 * DAY)) {
        match call {
            0 => world.send(1_000, DAY, Mail::default()),
            _ => world.receivers.begin(mood, 0, Some("w1"), begin.plus(lasts)),
        }
    }
    world.run_out(20 * DAY);
    world
}

#[track_caller]
fn check_brake(world: &World, word: &str) {
    let changes = warmup_events(world, "w1");
    let names: Vec<&str> = changes.iter().map(WarmupChange::name).collect();
    let of_brake: Vec<&str> = names.iter().filter(|name| !matches!(**name, "advanced" | "over")).copied().collect();
    let frozen = of_brake.iter().position(|name| *name == "frozen").unwrap_or_else(|| panic!("{names:?}"));
    assert_eq!(of_brake.first(), Some(&"slowed"), "{names:?}");
    assert_eq!(of_brake.last(), Some(&"recovered"), "{names:?}");
    assert!(frozen > 0);
    let reason = changes.iter().find_map(|change| match change {
        WarmupChange::Slowed { reason } => Some(reason.to_string()),
        _ => None,
    });
    assert!(reason.as_deref().is_some_and(|reason| reason.contains(word)), "{reason:?}");
    // Held for two days at least.
    let positions: BTreeMap<u64, u32> = (0..10)
        .map(|day| (day, world.allowed.positions[&("w1".to_owned(), site(0), START_DAY + day.max(1))]))
        .collect();
    assert!(positions[&9] < 10, "{positions:?}");
}

#[test]
fn a_receiver_that_defers_slows_then_freezes_and_time_heals() {
    check_brake(&troubled(Mood::Defers(700), 20 * HOUR), "deferrals");
}

#[test]
fn a_receiver_that_refuses_slows_then_freezes_and_time_heals() {
    check_brake(&troubled(Mood::Bounces(300), 20 * HOUR), "bounces");
}

#[test]
fn complaints_slow_then_freeze_and_time_heals() {
    let steps = [(1, 200), (3, 400), (5, 800), (7, 1_600)];
    let mut world = world(6, &["default=w1>spare", "spare=spare1"], &["w1"], &steps, &[(1, 1)]);
    for day in 0..8 {
        world.at(START.plus(DAY * day), Event::Call(0));
    }
    world.at(START.plus(DAY + 12 * HOUR), Event::Call(1));
    world.at(START.plus(DAY + 13 * HOUR), Event::Call(1));
    while let Some(call) = world.run(START.plus(8 * DAY)) {
        match call {
            0 => world.send(500, DAY, Mail::default()),
            _ => complain(&mut world, "w1", 0, 2),
        }
    }
    let names: Vec<_> = world.changes_of("w1", &site(0)).into_iter().filter(|name| *name != "advanced").collect();
    assert_eq!(names[..4], ["slowed", "frozen", "slowed", "recovered"], "{names:?}");
    let frozen = world.told.iter().find_map(|(at, _, kind)| match kind {
        LaneEventKind::Lane(_, Change::WarmUp(WarmupChange::Frozen { until, reason })) => Some((*at, *until, reason)),
        _ => None,
    });
    let (at, until, reason) = frozen.unwrap();
    assert!(reason.contains("complaints"), "{reason}");
    assert_eq!(until.since(at), 6 * HOUR);
    let during =
        (at.seconds() / 3_600 + 1..until.seconds() / 3_600).map(|hour| world.receivers.in_hour("w1", &site(0), hour));
    assert_eq!(during.sum::<u32>(), 0, "nothing while it is frozen");
    world.run_out(5 * DAY);
}

#[test]
fn a_block_takes_a_source_a_step_back_once_a_day() {
    let world = troubled(Mood::Blocks, 10 * HOUR);
    let changes = warmup_events(&world, "w1");
    let back: Vec<_> = changes.iter().filter(|change| change.name() == "stepped_back").collect();
    assert!(matches!(back[..], [WarmupChange::SteppedBack { from: 5, to: 3, .. }]), "{changes:?}");
    let blocks =
        world.told.iter().filter(|(_, _, kind)| matches!(kind, LaneEventKind::Lane(_, Change::Blocked { .. })));
    assert!(blocks.count() >= 2, "again by each probe");
    let next = &world.allowed.positions[&("w1".to_owned(), site(0), START_DAY + 5)];
    assert_eq!(*next, 3, "it does not advance at that midnight");
}

#[test]
fn three_idle_weeks_take_a_source_back() {
    let steps: Vec<(u32, u32)> = (1..=40).map(|day| (day, 20 + day)).collect();
    let mut world = world(7, &["default=w1>spare", "spare=spare1"], &["w1"], &steps, &[(1, 1)]);
    for day in 0..20 {
        world.at(START.plus(DAY * day), Event::Call(0));
    }
    while world.run(START.plus(41 * DAY - HOUR)).is_some() {
        world.send(30, DAY - HOUR, Mail::default());
    }
    let names = world.changes_of("w1", &site(0));
    assert_eq!(names.iter().filter(|name| **name == "decayed").count(), 6, "{names:?}");
    let entry = &world.entries()[0];
    // On day 20 it was at 20, went on for three idle days, and lost one for each day beyond two weeks.
    assert_eq!(entry.report.position, 20 + 4 - 6);
    // Another week, then a month is over: anew.
    world.run(START.plus(52 * DAY));
    assert_eq!(world.entries()[0].report.position, 1);
    world.run_out(DAY);
}

/// The same with limits by hour for some sources.
fn with_hours(mut base: Settings, limits: &[(&str, u32)]) -> Settings {
    let limited = |source: &SourceSettings| {
        let hour = limits.iter().find(|(name, _)| source.name.as_str() == *name).map(|(_, count)| *count);
        SourceSettings { rates: Rates { hour, ..Rates::default() }, ..source.clone() }
    };
    let sources = base.pools.sources().map(limited).collect();
    base.pools = Arc::new(Pools::new(sources, base.pools.pools().cloned().collect()).unwrap());
    base
}

#[test]
fn what_has_no_room_goes_to_a_warm_source_then_to_the_overflow_pool_then_waits() {
    let texts = ["default=w1,w2,old>spare", "spare=spare1"];
    let mut world = world(8, &texts, &["w1", "w2"], &[(1, 48), (2, 96), (3, 192)], &[(1, 1)]);
    let limited = with_hours(world.settings.clone(), &[("old", 20), ("spare1", 10)]);
    world.reload(limited);
    world.given = Some(Vec::new());
    world.slow_one_in = 0;
    world.send(1_500, HOUR, Mail::default());
    world.run(START.plus(DAY));
    let on = |name: &str| world.receivers.on(name, &site(0), START_DAY);
    assert_eq!([on("w1"), on("w2")], [48, 48]);
    // 24 full hours, but for the twentieth part of an hour that limits cost.
    assert!((440..=480).contains(&on("old")) && (200..=240).contains(&on("spare1")), "{} {}", on("old"), on("spare1"));
    let given = world.given.take().unwrap();
    let first_spare = given.iter().position(|given| given.source.as_str() == "spare1").unwrap();
    let before: BTreeMap<&str, usize> = given[..first_spare].iter().fold(BTreeMap::new(), |mut counts, given| {
        *counts.entry(given.source.as_str()).or_default() += 1;
        counts
    });
    assert!((18..=20).contains(&before["old"]), "{before:?}");
    assert!(world.due.len() > 500, "{} wait", world.due.len());
    world.run_out(5 * DAY);
}

#[test]
fn marked_messages_go_by_a_warming_source_while_it_has_room() {
    let mut world = world(
        9,
        &["default=w1,old>spare", "spare=spare1"],
        &["w1", "spare1"],
        &[(1, 240), (2, 480), (3, 960)],
        &[(1, 1)],
    );
    world.given = Some(Vec::new());
    world.slow_one_in = 0;
    let marked = Mail { prefers_warming: true, ..Mail::default() };
    world.send(120, DAY, marked);
    world.run(START.plus(DAY));
    let given = world.given.replace(Vec::new()).unwrap();
    assert!(given.iter().all(|given| given.source.as_str() == "w1"), "{given:?}");
    // More than it has room for: the rest goes by the pool's other source, not by one that warms up elsewhere.
    world.send(1_000, DAY, marked);
    world.run(START.plus(2 * DAY));
    assert_eq!(world.receivers.on("spare1", &site(0), START_DAY + 1), 0);
    let count = world.receivers.on("w1", &site(0), START_DAY + 1);
    assert!((478..=480).contains(&count), "{count}");
    world.run_out(DAY);
}

#[test]
fn a_set_keeps_its_cap_over_all_sources_and_others_go_on() {
    let set_steps = [(1, 48), (2, 96), (3, 192), (4, 384)];
    let mut world = world(10, &["default=a,b>spare", "spare=spare1"], &[], &[(1, 1)], &set_steps);
    for provider in 0..2 {
        world.send(400, HOUR, Mail { provider, set: "news", ..Mail::default() });
        world.send(400, 20 * HOUR, Mail { provider, ..Mail::default() });
    }
    for day in 0..2 {
        world.run(START.plus(DAY * day + 15 * HOUR));
        world.restart(day == 0, MINUTE);
        world.run(START.plus(DAY * (day + 1)).minus(MINUTE));
        for provider in 0..2 {
            let count = world.receivers.on("set:news", &site(provider), START_DAY + u64::from(day));
            let cap = set_steps[usize::try_from(day).unwrap()].1;
            assert!(count <= cap && count + 6 >= cap, "day {day}: {count} of {cap}");
        }
    }
    let others = world.delivered.len() - usize::try_from(world.receivers.of("set:news")).unwrap();
    assert!(others >= 790, "{others}");
    world.run_out(10 * DAY);
    let is_of_set =
        |kind: &LaneEventKind| matches!(kind, LaneEventKind::Set(set, Change::WarmUp(_)) if &**set == "news");
    assert!(world.told.iter().any(|(_, _, kind)| is_of_set(kind)));
}

/// How many sources of the managed pool are active, after each event that told of one.
fn actives(world: &World) -> Vec<(u64, usize, LifeState)> {
    let mut active = BTreeSet::new();
    let mut found = Vec::new();
    for (at, _, kind) in &world.told {
        let LaneEventKind::Life(_, change) = kind else { continue };
        match change.to {
            LifeState::Active => active.insert(change.source.clone()),
            LifeState::Resting | LifeState::Parked => active.remove(&change.source),
        };
        found.push((at.seconds() / 86_400 - START_DAY, active.len(), change.to));
    }
    found
}

fn managed_world(seed: u64, daily: impl Fn(u32) -> u32, restarts: u32) -> World {
    let (of_sources, table) = plan("steps", &[(1, 100), (2, 150), (3, 250)], Advance::Daily);
    let mut of_default = pools(&["default=m1,m2,m3,m4>spare", "spare=spare1"]);
    let rules = ManagedPool { active_min: 1, messages_per_source: 200, ..ManagedPool::default() };
    of_default[0].managed = Some(rules);
    let names = ["m1", "m2", "m3", "m4"];
    let sources: Vec<_> = names.iter().map(|name| (*name, &of_sources)).collect();
    let mut world = World::new(seed, settings(fleet(of_default), warmups(&sources, &[])));
    world.allowed.first.extend(names.iter().map(|name| ((*name).to_owned(), table.cap(1))));
    world.allowed.tables.insert("steps".to_owned(), table);
    for day in 0..30 {
        world.at(START.plus(DAY * day), Event::Call(0));
        for _ in 0..restarts {
            let at = world.millis(0, 86_400_000);
            world.at(START.plus(DAY * day).plus(at), Event::Call(1));
        }
    }
    while let Some(call) = world.run(START.plus(30 * DAY)) {
        match call {
            0 => {
                let day = u32::try_from(world.now.since(START).as_secs() / 86_400).unwrap();
                world.send(daily(day), DAY - MINUTE, Mail::default());
            }
            _ => {
                let clean = world.rng.random_ratio(1, 2);
                world.restart(clean, MINUTE);
            }
        }
        let is_active = |life: &&crate::queue::SourceLife| LifeState::from_code(life.life) == LifeState::Active;
        assert!(world.lives.values().filter(is_active).count() >= 1);
    }
    world
}

#[test]
fn a_managed_pool_takes_sources_into_use_as_the_volume_rises_and_rests_them_as_it_falls() {
    let daily = |day| match day {
        0..5 => 100,
        5..12 => 450,
        12..18 => 620,
        _ => 60,
    };
    for restarts in [0, 2] {
        let mut world = managed_world(11, daily, restarts);
        let actives = actives(&world);
        println!("{restarts} restarts a day: {actives:?}");
        assert_eq!(actives[0].1, 1);
        assert!(actives.iter().all(|(_, count, _)| *count >= 1), "{actives:?}");
        let at_end_of = |day: u64| actives.iter().rev().find(|(on, ..)| *on <= day).unwrap().1;
        assert_eq!(at_end_of(4), 1, "{actives:?}");
        assert_eq!(at_end_of(11), 3, "{actives:?}");
        assert_eq!(at_end_of(17), 4, "{actives:?}");
        assert_eq!(at_end_of(29), 1, "{actives:?}");
        let is_rest = |(on, _, to): &&(u64, usize, LifeState)| *to == LifeState::Resting && *on < 20;
        assert_eq!(actives.iter().find(is_rest), None, "not for three low days: {actives:?}");
        let known: BTreeMap<&SourceName, u8> = world.lives.values().map(|life| (&life.source, life.life)).collect();
        assert_eq!(known.len(), 4);
        world.run_out(2 * DAY);
    }
}
