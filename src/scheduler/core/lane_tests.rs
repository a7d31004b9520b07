//! Pools, sources and lanes: who sends what, and what happens when one of them cannot.

use std::time::Duration;

use super::testing::{NOW, World, due_again, settings};
use super::*;
use crate::policy::lane::{Health, Hit, Learned};
use crate::policy::limits::{LaneLimits, Rates};
use crate::policy::pools::{Family, Member, PoolSettings, Pools, SourceSettings};
use crate::policy::reaction::{Reaction, ReactionKind};
use crate::scheduler::explanation::{Question, SiteExplanation};
use crate::scheduler::{LaneEventKind, Terms};

const HOUR: Duration = Duration::from_secs(3_600);

fn source(name: &str) -> SourceSettings {
    let (name, family) = match name.strip_suffix("/6") {
        Some(name) => (name, Family::V6),
        None => (name, Family::V4),
    };
    SourceSettings { name: SourceName::parse(name).unwrap(), family, rates: Rates::default() }
}

/// `"default=a,b*3>spare"`: sources with weights, and an overflow pool.
fn pool(text: &str) -> PoolSettings {
    let (name, rest) = text.split_once('=').unwrap();
    let (members, overflow) = rest.split_once('>').map_or((rest, None), |(members, over)| (members, Some(over)));
    let member = |text: &str| {
        let (source, weight) = text.split_once('*').unwrap_or((text, "1"));
        Member { source: SourceName::parse(source).unwrap(), weight: weight.parse().unwrap() }
    };
    PoolSettings {
        name: PoolName::parse(name).unwrap(),
        members: members.split(',').map(member).collect(),
        overflow: overflow.map(|name| PoolName::parse(name).unwrap()),
        rates: Rates::default(),
        managed: None,
    }
}

fn world(sources: &[&str], pools: &[&str]) -> World {
    let pools =
        Pools::new(sources.iter().map(|name| source(name)).collect(), pools.iter().map(|text| pool(text)).collect());
    World::new(Settings { pools: Arc::new(pools.unwrap()), connections_max: 100, ..settings() })
}

/// A reply that has the source blocked for an hour.
fn blocked() -> Learned {
    let reaction = Reaction { kind: ReactionKind::Block, lasts: HOUR, after: None };
    let hit = Hit { rule: "yahoo-block".into(), reaction, words: "553 5.7.1 [BL21]".into() };
    Learned { reactions: vec![hit], ..Learned::default() }
}

/// Where each job that was given out goes from: `source id`.
fn given(world: &mut World) -> Vec<(ConnectionId, String, Terms)> {
    let open = |action: Action| match action {
        Action::Open { connection, source, terms, .. } => Some((connection, source.to_string(), terms)),
        _ => None,
    };
    world.actions.drain(..).filter_map(open).collect()
}

fn sources_of(given: &[(ConnectionId, String, Terms)]) -> String {
    given.iter().map(|(_, source, _)| source.as_str()).collect::<Vec<_>>().join(" ")
}

#[test]
fn sources_take_turns_by_weight() {
    let mut world = world(&["a", "b"], &["default=a,b*3"]);
    let limits = LaneLimits { connections: 100, ..LaneLimits::default() };
    world.scheduler.reload(
        Settings { limits, pools: Arc::clone(&world.scheduler.settings.pools), connections_max: 100, ..settings() },
        NOW,
        &mut world.actions,
    );
    for _ in 0..40 {
        world.accept(&["a.test"]);
    }
    world.resolve("a.test", "mx");
    let given = given(&mut world);
    let of_a = given.iter().filter(|(_, source, _)| source == "a").count();
    assert_eq!((given.len(), of_a), (40, 10), "{}", sources_of(&given));
}

/// A message for the domain, whose hosts are `mx`: where it goes. Its connection stays at work.
fn next_way(world: &mut World, domain: &str) -> String {
    world.accept(&[domain]);
    let way = |action: Action| match action {
        Action::Open { source, .. } => Some(format!("new {source}")),
        Action::Assign { connection, .. } => Some(format!("idle {}", connection.0)),
        _ => None,
    };
    let ways: Vec<String> = world.actions.drain(..).filter_map(way).collect();
    ways.join(" ")
}

/// A world with this site, two sources and two connections of each, by their numbers; all of them at work.
fn two_connections_each() -> (World, Vec<ConnectionId>, Vec<ConnectionId>) {
    let mut world = world(&["a", "b"], &["default=a,b"]);
    let limits = LaneLimits { connections: 100, ..LaneLimits::default() };
    let pools = Arc::clone(&world.scheduler.settings.pools);
    let other = Settings { limits, pools, connections_max: 100, ..settings() };
    world.scheduler.reload(other, NOW, &mut world.actions);
    let ids: Vec<_> = (0..4).map(|_| world.accept(&["a.test"])).collect();
    world.resolve("a.test", "mx");
    let given = given(&mut world);
    ids.into_iter().for_each(|id| world.settle(id, Settled::Out));
    let of = |name: &str| given.iter().filter(|(_, source, _)| source == name).map(|(id, ..)| *id).collect::<Vec<_>>();
    let (of_a, of_b) = (of("a"), of("b"));
    assert_eq!((of_a.len(), of_b.len()), (2, 2));
    (world, of_a, of_b)
}

#[test]
fn idle_connections_are_used_before_new_ones_of_others_while_there_is_one() {
    let (mut world, of_a, of_b) = two_connections_each();
    for connection in of_b {
        world.scheduler.connection_closed(connection, Report::default(), Vec::new(), NOW, &mut world.actions);
    }
    let idle: Vec<String> = of_a.iter().map(|id| format!("idle {}", id.0)).collect();
    of_a.into_iter().for_each(|connection| world.idle(connection, Report::of(Health::Good)));
    let mut ways = [next_way(&mut world, "a.test"), next_way(&mut world, "a.test")];
    ways.sort();
    assert_eq!(ways.to_vec(), idle);
    assert_eq!(next_way(&mut world, "a.test"), "new b", "it has turns to catch up on");
}

#[test]
fn a_source_whose_idle_connections_lead_elsewhere_is_ahead_of_nobody() {
    let (mut world, of_a, _) = two_connections_each();
    world.idle(of_a[0], Report::of(Health::Good));
    assert!(next_way(&mut world, "a.test").starts_with("idle"));
    world.idle(of_a[1], Report::of(Health::Good));
    let elsewhere =
        Destination { hosts: SiteName::new("mx.other"), ..Destination::of_hosts(SiteName::new("mx"), NOW.plus(HOUR)) };
    world.accept(&["o.test"]);
    world.actions.clear();
    world.scheduler.resolved(&Domain::parse("o.test").unwrap(), elsewhere, NOW, &mut world.actions);
    assert_eq!(sources_of(&given(&mut world)), "b", "whose turn it is");
}

#[test]
fn an_overflow_pool_takes_nothing_while_the_pools_own_source_is_only_busy() {
    let mut world = world(&["a", "s"], &["default=a>spare", "spare=s"]);
    let limits = LaneLimits { connections: 1, ..LaneLimits::default() };
    let pools = Arc::clone(&world.scheduler.settings.pools);
    let other = Settings { limits, pools, connections_max: 100, ..settings() };
    world.scheduler.reload(other, NOW, &mut world.actions);
    let first = world.accept(&["a.test"]);
    world.resolve("a.test", "mx");
    let opened = given(&mut world);
    // Not only because a site that is not known yet gets one connection.
    world.settle(first, Settled::Out);
    world.idle(opened[0].0, Report::of(Health::Good));
    assert_eq!(next_way(&mut world, "a.test"), format!("idle {}", opened[0].0.0));
    assert_eq!(next_way(&mut world, "a.test"), "", "it waits for its own source");
    world.scheduler.connection_learned(opened[0].0, &blocked(), NOW, &mut world.actions);
    assert_eq!(sources_of(&given(&mut world)), "s");
}

#[test]
fn jobs_that_a_connection_gives_back_to_a_site_of_one_connection_go_by_a_source_of_the_other_family() {
    let mut world = world(&["a/6", "b"], &["default=a*9,b"]);
    let limits = LaneLimits { connections: 1, ..LaneLimits::default() };
    let pools = Arc::clone(&world.scheduler.settings.pools);
    let other = Settings { limits, pools, connections_max: 100, ..settings() };
    world.scheduler.reload(other, NOW, &mut world.actions);
    // Two domains of the same hosts: of the second nobody knows yet that they have no IPv6 address.
    world.accept(&["one.test", "two.test"]);
    world.resolve("one.test", "mx");
    world.resolve("two.test", "mx");
    let mut tried = Vec::new();
    while let Some(at) = world.actions.iter().position(|action| matches!(action, Action::Open { .. })) {
        let Action::Open { connection, source, jobs, .. } = world.actions.remove(at) else { unreachable!() };
        tried.push(source.to_string());
        if source.as_str() == "b" {
            jobs.iter().for_each(|job| world.scheduler.settled(job.key, Settled::Out, NOW, &mut world.actions));
            world.idle(connection, Report::of(Health::Good));
        } else {
            let report = Report { no_address: true, ..Report::default() };
            world.scheduler.connection_closed(connection, report, jobs, NOW, &mut world.actions);
        }
    }
    assert_eq!(tried.last().map(String::as_str), Some("b"), "{tried:?}");
    assert_eq!(world.scheduler.totals().ready, 0, "{tried:?}");
}

#[test]
fn a_blocked_source_is_out_for_its_site_alone_and_returns_by_one_probe() {
    let mut world = world(&["a", "b"], &["default=a,b"]);
    let first = world.accept(&["s.test"]);
    world.resolve("s.test", "mx");
    let (connection, source, _) = given(&mut world).remove(0);
    world.scheduler.connection_learned(connection, &blocked(), world.now, &mut world.actions);
    world.settle(first, Settled::Due { at: world.now, attempts: 1, source: None, blocked: true });
    let other = given(&mut world);
    assert_eq!(other.len(), 1, "the message goes on at once");
    assert_ne!(other[0].1, source);
    assert!(!other[0].2.alternative, "the first is no way out");
    world.scheduler.connection_closed(connection, Report::default(), Vec::new(), world.now, &mut world.actions);
    // At other sites the source goes on.
    for number in 0..4 {
        world.accept(&[&format!("o{number}.test")]);
        world.resolve(&format!("o{number}.test"), &format!("mx{number}"));
    }
    assert!(sources_of(&given(&mut world)).contains(source.as_str()));
    // Its events.
    world.scheduler.flush_lanes(world.now, &mut world.actions);
    let saves: Vec<LaneEventKind> = world.saved_events();
    assert!(matches!(&saves[..], [LaneEventKind::Lane(name, _)] if name.as_str() == source), "{saves:?}");
    // When the time is up: one message, one connection.
    world.now = world.now.plus(HOUR + Duration::from_secs(1));
    world.scheduler.tick(world.now, &mut world.actions);
    for _ in 0..20 {
        world.accept(&["s.test"]);
        world.resolve("s.test", "mx");
    }
    let probes = given(&mut world).into_iter().filter(|(_, name, _)| *name == source).count();
    assert_eq!(probes, 1);
}

#[test]
fn where_all_sources_are_blocked_mail_waits_without_an_attempt_and_one_event_tells() {
    let mut world = world(&["a", "b"], &["default=a,b"]);
    let id = world.accept(&["s.test"]);
    world.resolve("s.test", "mx");
    for _ in 0..2 {
        let (connection, ..) = given(&mut world).remove(0);
        world.scheduler.connection_learned(connection, &blocked(), world.now, &mut world.actions);
        world.settle(id, Settled::Due { at: world.now, attempts: 1, source: None, blocked: true });
        world.scheduler.connection_closed(connection, Report::default(), Vec::new(), world.now, &mut world.actions);
    }
    world.accept(&["s.test"]);
    assert_eq!(sources_of(&given(&mut world)), "");
    world.scheduler.flush_lanes(world.now, &mut world.actions);
    let pools = |events: Vec<LaneEventKind>| {
        events.into_iter().filter(|event| matches!(event, LaneEventKind::PoolBlocked(..))).count()
    };
    assert_eq!(pools(world.saved_events()), 1);
    assert_eq!(world.scheduler.totals().ready, 2);
    world.advance(Duration::from_secs(1_800));
    assert_eq!(sources_of(&given(&mut world)), "", "not before its time");
    world.advance(HOUR);
    world.resolve("s.test", "mx");
    let probe = given(&mut world);
    assert_eq!(probe.len(), 2, "a probe each");
    world.scheduler.connection_idle(probe[0].0, Report::of(Health::Good), world.now, &mut world.actions);
    world.scheduler.flush_lanes(world.now, &mut world.actions);
    let back = world.saved_events();
    assert!(back.iter().any(|event| matches!(event, LaneEventKind::PoolUnblocked(_))), "{back:?}");
}

#[test]
fn mail_overflows_where_no_source_of_the_pool_can_take_it_for_long() {
    let mut world = world(&["a", "spare"], &["default=a>over", "over=spare"]);
    let id = world.accept(&["s.test"]);
    world.resolve("s.test", "mx");
    let first = given(&mut world);
    assert_eq!(sources_of(&first), "a");
    // Busy is no reason.
    for _ in 0..5 {
        world.accept(&["s.test"]);
    }
    let second = given(&mut world);
    assert_eq!(sources_of(&second), "a");
    world.scheduler.connection_learned(first[0].0, &blocked(), world.now, &mut world.actions);
    for (connection, ..) in first.iter().chain(&second) {
        world.scheduler.connection_closed(*connection, Report::default(), Vec::new(), world.now, &mut world.actions);
    }
    world.settle(id, Settled::Due { at: world.now, attempts: 1, source: None, blocked: true });
    let over = given(&mut world);
    assert!(!over.is_empty() && over.iter().all(|(_, source, _)| source == "spare"), "{}", sources_of(&over));
}

#[test]
fn a_greylisted_job_keeps_its_source_until_that_is_blocked_or_gone() {
    let mut world = world(&["a", "b", "c"], &["default=a,b,c"]);
    let id = world.accept(&["s.test"]);
    world.resolve("s.test", "mx");
    let (connection, _, _) = given(&mut world).remove(0);
    world.scheduler.connection_closed(connection, Report::of(Health::Good), Vec::new(), world.now, &mut world.actions);
    let keep = |source: &str| SourceName::parse(source);
    for (kept, expected) in [("c", "c"), ("a", "a"), ("c", "c")] {
        let at = world.now.plus(Duration::from_secs(4));
        world.settle(id, Settled::Due { at, attempts: 1, source: keep(kept), blocked: false });
        world.advance(Duration::from_secs(5));
        let out = given(&mut world);
        assert_eq!(sources_of(&out), expected);
        world.scheduler.connection_closed(
            out[0].0,
            Report::of(Health::Good),
            Vec::new(),
            world.now,
            &mut world.actions,
        );
    }
    // Blocked: another one.
    let at = world.now.plus(Duration::from_secs(4));
    world.settle(id, Settled::Due { at, attempts: 1, source: keep("c"), blocked: false });
    let other = world.accept(&["s.test"]);
    let out = given(&mut world);
    let site = world.scheduler.sites.values_mut().next().unwrap();
    let c = world.scheduler.fleet.id(&keep("c").unwrap()).unwrap();
    site.lane_mut(c).unwrap().lane.learn(&blocked(), 1, world.now);
    world.settle(other, Settled::Out);
    world.scheduler.connection_closed(out[0].0, Report::of(Health::Good), Vec::new(), world.now, &mut world.actions);
    world.advance(Duration::from_secs(5));
    let out = given(&mut world);
    assert!(out.len() == 1 && out[0].1 != "c", "{}", sources_of(&out));
    world.scheduler.connection_closed(out[0].0, Report::of(Health::Good), Vec::new(), world.now, &mut world.actions);
    // Gone from the config: another one.
    let at = world.now.plus(Duration::from_secs(4));
    world.settle(id, Settled::Due { at, attempts: 1, source: keep("never-there"), blocked: false });
    world.advance(Duration::from_secs(5));
    assert_eq!(given(&mut world).len(), 1);
}

#[test]
fn hosts_without_an_address_of_a_source_get_another_source() {
    let mut world = world(&["v6/6", "v4"], &["default=v6,v4"]);
    for _ in 0..8 {
        world.accept(&["s.test"]);
    }
    world.resolve("s.test", "mx");
    let mut tries = 0;
    loop {
        let out = given(&mut world);
        let Some((connection, source, terms)) = out.first() else { break };
        tries += 1;
        assert!(tries < 20, "it would go on for ever");
        if source == "v6" {
            assert!(terms.alternative);
            let report = Report { no_address: true, ..Report::default() };
            world.scheduler.connection_closed(*connection, report, Vec::new(), world.now, &mut world.actions);
        } else {
            let report = Report::of(Health::Good);
            world.scheduler.connection_idle(*connection, report, world.now, &mut world.actions);
        }
    }
    world.accept(&["s.test"]);
    let out: Vec<_> = world.actions.drain(..).filter(|action| matches!(action, Action::Open { .. })).collect();
    assert!(out.iter().all(|action| matches!(action, Action::Open { source, .. } if source.as_str() == "v4")));
}

#[test]
fn a_limit_of_a_source_holds_for_all_sites_together() {
    let rates = Rates { minute: Some(3), ..Rates::default() };
    let sources = vec![SourceSettings { rates, ..source("a") }];
    let pools = Pools::new(sources, vec![pool("default=a")]).unwrap();
    let mut world = World::new(Settings { pools: Arc::new(pools), connections_max: 100, ..settings() });
    let mut sent = 0;
    for number in 0..10 {
        world.accept(&[&format!("d{number}.test")]);
        world.resolve(&format!("d{number}.test"), &format!("mx{number}"));
    }
    for _ in 0..59 {
        for (connection, ..) in given(&mut world) {
            sent += 1;
            world.scheduler.connection_idle(connection, Report::of(Health::Good), world.now, &mut world.actions);
        }
        world.advance(Duration::from_secs(1));
    }
    assert!((1..=3).contains(&sent), "{sent} in a minute");
    for _ in 0..180 {
        world.advance(Duration::from_secs(1));
        for (connection, ..) in given(&mut world) {
            sent += 1;
            world.scheduler.connection_idle(connection, Report::of(Health::Good), world.now, &mut world.actions);
        }
    }
    assert_eq!(sent, 10);
}

#[test]
fn lanes_are_bounded_and_those_in_use_stay() {
    let mut world = World::new(Settings { lanes_max: 20, connections_max: 100, ..settings() });
    for number in 0..60 {
        world.accept(&[&format!("d{number}.test")]);
        world.resolve(&format!("d{number}.test"), &format!("mx{number}"));
        for (connection, ..) in given(&mut world) {
            world.scheduler.connection_closed(
                connection,
                Report::of(Health::Good),
                Vec::new(),
                world.now,
                &mut world.actions,
            );
        }
        assert!(world.scheduler.totals().lanes <= 20);
    }
    assert_eq!(world.scheduler.totals().ready, 0, "all of them went");
}

#[test]
fn what_was_kept_of_lanes_that_nobody_uses_any_more_makes_room_oldest_first() {
    let saved = |number: u64| SavedLane {
        name: LaneName::Lane(SiteName::new(&format!("old{number}")), SourceName::default()),
        state: LaneState { saved_at: Timestamp::from_millis(1_000 + number), ..LaneState::default() },
    };
    let settings = Settings { lanes_max: 20, connections_max: 100, ..settings() };
    let mut world = World::restored(settings, (0..30).map(saved).collect(), false);
    let mut removed = BTreeSet::new();
    for number in 0..15 {
        world.accept(&[&format!("d{number}.test")]);
        world.resolve(&format!("d{number}.test"), &format!("mx{number}"));
        assert_eq!(given(&mut world).len(), 1);
        world.scheduler.flush_lanes(world.now, &mut world.actions);
        for action in std::mem::take(&mut world.actions) {
            let Action::SaveLanes(save) = action else { continue };
            removed.extend(save.remove);
        }
    }
    // 30 records and 15 lanes are 25 more than there may be.
    let expected: BTreeSet<LaneName> = (0..25).map(|number| saved(number).name).collect();
    assert_eq!(removed, expected);
    assert_eq!(world.scheduler.totals().lanes, 15);
}

#[test]
fn what_a_lane_sends_under_an_hours_limit_waits_for_the_disk() {
    let limits = LaneLimits { rates: Rates { hour: Some(100), ..Rates::default() }, ..LaneLimits::default() };
    let mut world = World::new(Settings { limits, ..settings() });
    world.accept(&["s.test"]);
    world.resolve("s.test", "mx");
    assert_eq!(given(&mut world).len(), 0, "nothing is reserved yet");
    world.scheduler.flush_lanes(world.now, &mut world.actions);
    let Some(Action::SaveLanes(save)) = world.actions.pop() else { panic!("nothing is saved") };
    assert!(save.urgent && save.put.len() == 1);
    let names: Vec<LaneName> = save.put.iter().map(|saved| saved.name.clone()).collect();
    world.scheduler.lanes_saved(&names, world.now, &mut world.actions);
    assert_eq!(given(&mut world).len(), 1);
    // Another life begins with what was reserved, not with what was sent.
    let settings = Settings { limits, ..settings() };
    let mut world = World::restored(settings, save.put, true);
    for _ in 0..300 {
        world.accept(&["s.test"]);
    }
    world.resolve("s.test", "mx");
    let sent = world.run_lanes(Duration::from_secs(3_000));
    assert!((90..100).contains(&sent), "{sent}");
}

#[test]
fn after_a_crash_the_minute_of_a_source_counts_as_used_up_also_where_nothing_was_saved() {
    let rates = Rates { minute: Some(10), ..Rates::default() };
    let sources = vec![SourceSettings { rates, ..source("a") }];
    let pools = Arc::new(Pools::new(sources, vec![pool("default=a")]).unwrap());
    for (unclean, expected) in [(true, 0..1), (false, 8..11)] {
        let settings = Settings { pools: Arc::clone(&pools), ..settings() };
        let mut world = World::restored(settings, Vec::new(), unclean);
        for _ in 0..50 {
            world.accept(&["s.test"]);
        }
        world.resolve("s.test", "mx");
        let sent = world.run_lanes(Duration::from_secs(58));
        assert!(expected.contains(&sent), "unclean: {unclean}, sent {sent}");
        assert!(world.run_lanes(Duration::from_secs(70)) > 0, "it goes on");
    }
}

#[test]
fn jobs_that_were_given_back_after_a_421_carry_how_often() {
    let mut world = world(&["a"], &["default=a"]);
    let id = world.accept(&["s.test"]);
    world.resolve("s.test", "mx");
    for spared in 0..3 {
        let action = world.actions.pop().unwrap();
        let Action::Open { connection, jobs, .. } = action else { panic!("{action:?}") };
        assert_eq!((jobs[0].key.id, jobs[0].spared, jobs[0].attempts), (id, spared, 0));
        let learned = Learned { spent_after: Some(5), ..Learned::default() };
        let report = Report { learned, ..Report::default() };
        world.scheduler.connection_closed(connection, report, jobs, world.now, &mut world.actions);
        world.actions.retain(|action| matches!(action, Action::Open { .. }));
    }
    world.settle(id, due_again(world.now.plus(Duration::from_secs(1)), 1));
}

#[test]
fn a_site_with_a_pool_of_its_own_takes_all_mail_by_it_and_what_it_says_teaches_nothing() {
    let mut world = world(&["a", "own"], &["default=a", "inside=own"]);
    let site = |own_pool| Destination {
        own_pool,
        ..Destination::of_hosts(SiteName::new("simulator:built-in"), NOW.plus(HOUR))
    };
    let domain = Domain::parse("s.test").unwrap();
    world.accept(&["s.test"]);
    world.actions.clear();
    world.scheduler.resolved(&domain, site(PoolName::parse("inside")), NOW, &mut world.actions);
    let first = given(&mut world);
    assert_eq!(sources_of(&first), "own");
    let unreachable = Learned { health: Health::Unreachable("gone".into()), ..Learned::default() };
    for learned in [blocked(), unreachable] {
        world.scheduler.connection_learned(first[0].0, &learned, NOW, &mut world.actions);
    }
    assert_eq!(next_way(&mut world, "s.test"), "new own", "nothing holds it back");
    let mut save = Vec::new();
    world.scheduler.flush_lanes(NOW, &mut save);
    assert!(!format!("{save:?}").contains("Blocked"), "{save:?}");
    let Some(SiteExplanation { pool, .. }) = world
        .scheduler
        .explain(&Question { domain: Some(domain), destination: None, site: None, pool: PoolName::default() }, NOW)
    else {
        panic!("it is known")
    };
    assert_eq!(pool.as_str(), "inside");
}
