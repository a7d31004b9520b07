//! Months of warm-up in seconds: three sources, five providers, volume that rises, falls, stops and comes back, receivers that
//! complain, machines that crash, clocks that jump, configs that change. Whatever happens, no receiver sees more on a day than the
//! plan allows, and all mail arrives. Scenarios 18 and 19 of the project.

#[path = "warmup_cases_tests.rs"]
mod cases;
#[path = "warmup_config_tests.rs"]
mod config;
#[path = "warmup_receivers_tests.rs"]
mod receivers;
#[path = "warmup_harness_tests.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::RngExt;

use self::config::{PROVIDERS, fleet, plan, pools, settings, site, source_name, warmups};
use self::receivers::Mood;
use self::world::{DAY, Event, HOUR, MINUTE, Mail, START, World, sent_of};
use super::*;
use crate::policy::fleet_life::{LifeState, ManagedPool};
use crate::policy::lane::{Change, WarmupOrder};
use crate::policy::limits::Rates;
use crate::policy::pools::{Pools, SourceSettings};
use crate::policy::warmup::{Advance, Mode, WarmupChange};
use crate::scheduler::LaneEventKind;
use crate::scheduler::warmup::WarmupFilter;

const START_DAY: u64 = 20_000;

/// A world whose sources `warming` follow one plan, and its sets another.
fn world(seed: u64, texts: &[&str], warming: &[&str], steps: &[(u32, u32)], set_steps: &[(u32, u32)]) -> World {
    let (of_sources, table) = plan("steps", steps, Advance::Daily);
    let (of_sets, set_table) = plan("sets", set_steps, Advance::Daily);
    let sources: Vec<_> = warming.iter().map(|name| (*name, &of_sources)).collect();
    let sets: Vec<_> = if set_steps.len() > 1 { vec![("news", &of_sets)] } else { Vec::new() };
    let mut world = World::new(seed, settings(fleet(pools(texts)), warmups(&sources, &sets)));
    for name in warming {
        world.allowed.first.insert((*name).to_owned(), table.cap(1));
    }
    world.allowed.first.insert("set:news".to_owned(), set_table.cap(1));
    world.allowed.tables = BTreeMap::from([("steps".to_owned(), table), ("sets".to_owned(), set_table)]);
    world
}

fn seeds() -> u64 {
    std::env::var("POSTHASTE_WARMUP_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

fn first_seed() -> u64 {
    std::env::var("POSTHASTE_WARMUP_FIRST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

const STEPS: [(u32, u32); 7] = [(1, 10), (2, 20), (4, 40), (7, 80), (11, 160), (16, 300), (22, 600)];
const SLOWER: [(u32, u32); 4] = [(1, 8), (3, 25), (6, 60), (12, 200)];
const SET_STEPS: [(u32, u32); 4] = [(1, 5), (3, 15), (6, 40), (10, 120)];

// What a wild world's own events are.
const DAWN: u32 = 0;
const CRASH: u32 = 1;
const RESTART: u32 = 2;
const CLOCK_AHEAD: u32 = 3;
const CLOCK_BACK: u32 = 4;
const SLEEP: u32 = 5;
const OTHER_PLAN: u32 = 6;
const SOURCE_LEAVES: u32 = 7;
const SOURCE_RETURNS: u32 = 8;
const TROUBLE: u32 = 9;
const COMPLAINTS: u32 = 10;
const LAST_DAY: u64 = 60;

struct Wild {
    world: World,
    day: u64,
    per_cent: u64,
    has_all: bool,
    is_slower: bool,
}

impl Wild {
    fn new(seed: u64) -> Self {
        let texts: &[&str] = match seed % 3 {
            0 => &["default=w1,w2,w3>spare", "spare=spare1"],
            1 => &["default=w1,w2,w3,old>spare", "spare=spare1"],
            _ => &["default=w1,w2,w3"],
        };
        let mut world = world(seed, texts, &["w1", "w2", "w3"], &STEPS, &SET_STEPS);
        let (_, slower) = plan("slower", &SLOWER, Advance::Daily);
        world.allowed.tables.insert("slower".to_owned(), slower);
        world.broken_one_in = 40;
        let most = if seed % 3 == 2 { 40 } else { 120 };
        let per_cent = world.rng.random_range(20..most);
        world.at(START, Event::Call(DAWN));
        Self { world, day: 0, per_cent, has_all: true, is_slower: false }
    }

    /// Messages for each provider: the volume rises, falls, stops for three weeks and comes back.
    fn volume(&self) -> u32 {
        let of_profile = match self.day {
            0..14 => 20 + 25 * self.day,
            14..20 => 370 - 50 * (self.day - 14),
            20..41 => 0,
            41..LAST_DAY => 60 + 15 * (self.day - 41),
            _ => 0,
        };
        u32::try_from(of_profile * self.per_cent / 100).unwrap()
    }

    fn run(&mut self) {
        let end = START.plus(DAY * u32::try_from(LAST_DAY).unwrap());
        while let Some(call) = self.world.run(end) {
            self.happen(call);
        }
        self.call_back();
        self.world.receivers.end_all();
        self.world.run_out(60 * DAY);
    }

    fn call_back(&mut self) {
        self.happen(CLOCK_BACK);
        self.happen(SOURCE_RETURNS);
    }

    fn dawn(&mut self) {
        let volume = self.volume();
        for provider in 0..PROVIDERS.len() {
            let is_campaign = self.world.rng.random_ratio(1, 3);
            for _ in 0..volume {
                let set = if self.world.rng.random_ratio(1, 6) { "news" } else { "" };
                let prefers_warming = self.world.rng.random_ratio(1, 10);
                let within = if is_campaign { 30 * MINUTE } else { DAY };
                let at = self.world.millis(0, u64::try_from(within.as_millis()).unwrap());
                let start = if is_campaign { 9 * HOUR } else { Duration::ZERO };
                self.world.after(start + at, Event::Arrive(Mail { provider, set, prefers_warming }));
            }
        }
        let odds = [
            (CRASH, 60),
            (RESTART, 30),
            (CLOCK_AHEAD, 15),
            (SLEEP, 10),
            (OTHER_PLAN, 7),
            (SOURCE_LEAVES, 7),
            (TROUBLE, 15),
            (COMPLAINTS, 7),
        ];
        for (call, per_cent) in odds {
            if self.world.rng.random_range(0..100) < per_cent {
                let at = self.world.millis(0, 86_400_000);
                self.world.after(at, Event::Call(call));
            }
        }
        self.day += 1;
        self.world.at(START.plus(DAY * u32::try_from(self.day).unwrap()), Event::Call(DAWN));
    }

    fn happen(&mut self, call: u32) {
        let world = &mut self.world;
        match call {
            DAWN => self.dawn(),
            CRASH | RESTART => {
                let down = world.millis(500, 7_200_000);
                if world.rng.random_ratio(1, 2) && !world.ahead.is_zero() {
                    // Somebody saw to the clock meanwhile.
                    world.ahead = Duration::ZERO;
                }
                world.restart(call == RESTART, down);
            }
            CLOCK_AHEAD if world.ahead.is_zero() => {
                world.ahead = world.millis(60_000, 40 * 3_600_000);
                let lasts = world.millis(60_000, 10 * 3_600_000);
                world.after(lasts, Event::Call(CLOCK_BACK));
            }
            CLOCK_BACK if !world.ahead.is_zero() => {
                let by = std::mem::take(&mut world.ahead);
                let now = world.clock();
                world.scheduler.clock_went_back(by, now);
                world.sample_now();
            }
            SLEEP => world.now = world.now.plus(world.rng.random_range(1..300) * MINUTE),
            OTHER_PLAN => {
                self.is_slower = !self.is_slower;
                self.reload();
            }
            SOURCE_LEAVES if self.has_all => {
                self.has_all = false;
                self.reload();
                let lasts = self.world.millis(60_000, 3 * 86_400_000);
                self.world.after(lasts, Event::Call(SOURCE_RETURNS));
            }
            SOURCE_RETURNS if !self.has_all => {
                self.has_all = true;
                self.reload();
            }
            TROUBLE => {
                let per_mille = world.rng.random_range(30..600);
                let moods = [Mood::Blocks, Mood::Defers(per_mille), Mood::Bounces(per_mille)];
                let mood = moods[world.rng.random_range(0..3)];
                let until = world.now.plus(world.millis(60_000, 30 * 3_600_000));
                let provider = world.rng.random_range(0..PROVIDERS.len());
                let source = world.rng.random_ratio(1, 2).then_some("w1");
                world.receivers.begin(mood, provider, source, until);
            }
            COMPLAINTS => {
                let (count, provider) = (world.rng.random_range(1..8), world.rng.random_range(0..PROVIDERS.len()));
                complain(world, "w1", provider, count);
            }
            _ => {}
        }
    }

    fn reload(&mut self) {
        let world = &mut self.world;
        let (table, name) = if self.is_slower { (&SLOWER[..], "slower") } else { (&STEPS[..], "steps") };
        let (of_sources, _) = plan(name, table, Advance::Daily);
        let (of_sets, _) = plan("sets", &SET_STEPS, Advance::Daily);
        let names: &[&str] = if self.has_all { &["w1", "w2", "w3"] } else { &["w1", "w3"] };
        let sources: Vec<_> = names.iter().map(|name| (*name, &of_sources)).collect();
        let mut new: Vec<_> = world.settings.pools.pools().cloned().collect();
        let of_default = new.iter_mut().find(|pool| pool.name == PoolName::default()).unwrap();
        of_default.members.retain(|member| member.source.as_str() != "w2");
        if self.has_all {
            let member = crate::policy::pools::Member { source: source_name("w2"), weight: 1 };
            of_default.members.insert(1, member);
        }
        let new = settings(fleet(new), warmups(&sources, &[("news", &of_sets)]));
        world.reload(new);
    }
}

fn complain(world: &mut World, source: &str, provider: usize, count: u32) {
    let filter = WarmupFilter {
        source: Some(source_name(source)),
        site: Some(site(provider).as_str().into()),
        ..WarmupFilter::default()
    };
    let now = world.clock();
    let order = WarmupOrder::Complaints(count);
    world.scheduler.order_warmup(&filter, order, now, &mut world.actions);
}

#[test]
fn no_receiver_sees_more_than_the_plan_allows_whatever_happens() {
    for seed in first_seed()..first_seed() + seeds() {
        println!("seed {seed}");
        let mut wild = Wild::new(seed);
        wild.run();
        let World { accepted, delivered, waited, late, overflowed, bounced, told, .. } = &wild.world;
        let part = |count: usize| 100.0 * count as f64 / (*accepted).max(1) as f64;
        println!(
            "{accepted} messages, {} delivered, {bounced} bounced: {:.1} % waited above an hour, {:.1} % overflowed, {:.1} % were \
             late by a day; {} events",
            delivered.len(),
            part(*waited),
            part(*overflowed),
            part(*late),
            told.len()
        );
    }
}
