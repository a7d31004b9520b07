//! What decides single turns: whose it is, who gives way, who waits, and what is written meanwhile.

use std::time::Duration;

use super::testing::{NOW, World, due_again, settings};
use super::*;
use crate::policy::lane::{Health, Hit, Learned};
use crate::policy::limits::{LaneLimits, Rates};
use crate::policy::pools::{Family, Member, PoolSettings, Pools, SourceSettings};
use crate::policy::reaction::{Reaction, ReactionKind};
use crate::scheduler::sites::SiteQueue;

const HOUR: Duration = Duration::from_secs(3_600);
const SECOND: Duration = Duration::from_secs(1);

fn name(source: &str) -> SourceName {
    SourceName::parse(source).unwrap()
}

/// A world of these sources, in one pool, IPv6 ones marked `/6`, each with so many connections to a site.
fn world(sources: &[&str], connections: u32) -> World {
    World::new(settings_of(sources, LaneLimits { connections, ..LaneLimits::default() }))
}

fn settings_of(sources: &[&str], limits: LaneLimits) -> Settings {
    let bare = |text: &str| name(text.trim_end_matches("/6"));
    let source = |text: &&str| {
        let family = if text.ends_with("/6") { Family::V6 } else { Family::V4 };
        SourceSettings { name: bare(text), family, rates: Rates::default() }
    };
    let pool = PoolSettings {
        name: PoolName::parse("default").unwrap(),
        members: sources.iter().map(|text| Member { source: bare(text), weight: 1 }).collect(),
        overflow: None,
        rates: Rates::default(),
        managed: None,
    };
    let pools = Pools::new(sources.iter().map(source).collect(), vec![pool]).unwrap();
    Settings { pools: Arc::new(pools), limits, connections_max: 100, ..settings() }
}

fn unreachable() -> Report {
    Report::of(Health::Unreachable("refused".into()))
}

/// Connections that were opened, and by whom.
fn opened(world: &mut World) -> Vec<(ConnectionId, String)> {
    let open = |action: Action| match action {
        Action::Open { connection, source, .. } => Some((connection, source.to_string())),
        _ => None,
    };
    world.actions.drain(..).filter_map(open).collect()
}

fn close(world: &mut World, connection: ConnectionId, report: Report) {
    world.scheduler.connection_closed(connection, report, Vec::new(), world.now, &mut world.actions);
}

/// A destination at this site, of other hosts and by a provider's rule.
fn resolve_at(world: &mut World, domain: &str, site: &str, hosts: &str, provider: Option<&str>) {
    let destination = Destination {
        hosts: SiteName::new(hosts),
        provider: provider.map(Into::into),
        ..Destination::of_hosts(SiteName::new(site), world.now.plus(HOUR))
    };
    world.scheduler.resolved(&Domain::parse(domain).unwrap(), destination, world.now, &mut world.actions);
}

#[test]
fn where_all_connections_lead_elsewhere_one_of_them_gives_way() {
    let mut world = world(&["a"], 2);
    let first = [world.accept(&["one.test"]), world.accept(&["one.test"])];
    world.resolve("one.test", "mx");
    let connections = opened(&mut world);
    first.into_iter().for_each(|id| world.settle(id, Settled::Out));
    for (connection, _) in &connections {
        world.idle(*connection, Report::of(Health::Good));
    }
    world.done();
    for _ in 0..2 {
        world.accept(&["two.test"]);
    }
    resolve_at(&mut world, "two.test", "mx", "mx.two", None);
    // The one that was not used for longest; the other one not before it is gone.
    assert_eq!(world.done(), ["resolve two.test", &format!("close {}", connections[0].0.0)]);
    close(&mut world, connections[0].0, Report::default());
    let done = world.done();
    assert!(
        matches!(&done[..], [open, close] if open.starts_with("open") && *close == format!("close {}", connections[1].0.0)),
        "{done:?}"
    );
}

#[test]
fn a_source_that_was_busy_catches_up_on_no_more_turns_than_an_idle_connection_is_worth() {
    let mut world = world(&["a", "b"], 1);
    let long = world.accept(&["one.test"]);
    world.resolve("one.test", "mx");
    let (busy, _) = opened(&mut world).remove(0);
    // The site works, so that the other source may connect, too.
    world.scheduler.connection_learned(
        busy,
        &Learned { health: Health::Good, ..Learned::default() },
        NOW,
        &mut world.actions,
    );
    let second = world.accept(&["one.test"]);
    let (other, _) = opened(&mut world).remove(0);
    world.settle(second, Settled::Out);
    world.idle(other, Report::of(Health::Good));
    let way = |world: &mut World| {
        let id = world.accept(&["one.test"]);
        let taken = world.actions.drain(..).find_map(|action| match action {
            Action::Assign { connection, .. } => Some(connection),
            _ => None,
        });
        let taken = taken.unwrap();
        world.settle(id, Settled::Out);
        world.idle(taken, Report::of(Health::Good));
        taken
    };
    for _ in 0..40 {
        assert_eq!(way(&mut world), other);
    }
    world.settle(long, Settled::Out);
    world.idle(busy, Report::of(Health::Good));
    world.done();
    let ways: Vec<_> = (0..30).map(|_| way(&mut world)).collect();
    let of_busy = |ways: &[ConnectionId]| ways.iter().filter(|way| **way == busy).count();
    assert_eq!(of_busy(&ways[10..]), 10, "{ways:?}");
}

#[test]
fn jobs_that_keep_their_source_take_turns_with_others() {
    let mut world = world(&["a"], 1);
    let kept: Vec<_> = (0..3).map(|_| world.accept(&["one.test"])).collect();
    world.resolve("one.test", "mx");
    let (connection, _) = opened(&mut world).remove(0);
    let at = world.now.plus(SECOND);
    for id in kept {
        world.settle(id, Settled::Due { at, attempts: 1, source: Some(name("a")), blocked: false });
    }
    world.done();
    // Numbers 4 to 6; the connection is still at work.
    for _ in 0..3 {
        world.accept(&["one.test"]);
    }
    world.advance(SECOND);
    world.done();
    let mut order = Vec::new();
    for _ in 0..6 {
        world.idle(connection, Report::of(Health::Good));
        order.extend(world.done());
    }
    let is_kept = |word: &String| word.rsplit(' ').next().unwrap().parse::<u8>().unwrap() <= 3;
    let order: Vec<bool> = order.iter().map(is_kept).collect();
    assert!(
        order == [true, false, true, false, true, false] || order == [false, true, false, true, false, true],
        "{order:?}"
    );
}

#[test]
fn what_expires_while_it_is_in_line_is_sent_no_more() {
    let mut world = world(&["a"], 1);
    world.accept(&["one.test"]);
    world.accept(&["one.test"]);
    world.resolve("one.test", "mx");
    let (connection, _) = opened(&mut world).remove(0);
    world.done();
    world.now = world.now.plus(Duration::from_secs(86_401));
    world.idle(connection, Report::of(Health::Good));
    let done = world.done();
    assert!(matches!(&done[..], [settle] if settle.starts_with("settle Expired")), "{done:?}");
}

#[test]
fn after_a_crash_the_last_state_of_an_earlier_stop_is_not_exact() {
    let limits = LaneLimits {
        rates: Rates { minute: Some(10), hour: Some(1_000), ..Rates::default() },
        ..LaneLimits::default()
    };
    let mut before = World::new(settings_of(&["a"], limits));
    before.accept(&["one.test"]);
    before.resolve("one.test", "mx");
    assert_eq!(before.run_lanes(SECOND), 1);
    let saved = before.scheduler.all_lanes(before.now).put;
    assert!(saved.iter().any(|saved| matches!(saved.name, LaneName::Lane(..)) && saved.state.is_last));
    for (unclean, expected) in [(true, 0..=0), (false, 8..=10)] {
        let mut world = World::restored(settings_of(&["a"], limits), saved.clone(), unclean);
        for _ in 0..50 {
            world.accept(&["one.test"]);
        }
        world.resolve("one.test", "mx");
        let sent = world.run_lanes(Duration::from_secs(50));
        assert!(expected.contains(&sent), "unclean: {unclean}, sent {sent}");
    }
}

#[test]
fn who_must_wait_for_a_source_of_one_family_lets_others_go_before() {
    let mut world = world(&["six/6", "four"], 1);
    // Of its hosts nobody has an IPv4 address.
    let narrow = world.accept(&["narrow.test"]);
    world.resolve("narrow.test", "mx");
    let mut connections = opened(&mut world);
    while connections.last().is_some_and(|(_, source)| source == "four") {
        let (connection, _) = connections.pop().unwrap();
        let jobs = vec![Lease::of(JobKey { id: narrow, group: 0 }, Some(world.now))];
        let report = Report { no_address: true, ..Report::default() };
        world.scheduler.connection_closed(connection, report, jobs, world.now, &mut world.actions);
        connections = opened(&mut world);
    }
    let (six, source) = connections.remove(0);
    assert_eq!(source, "six");
    // Its only connection by IPv6 is at work, and blocked soon.
    world.settle(narrow, Settled::Out);
    world.scheduler.connection_learned(six, &blocked(), world.now, &mut world.actions);
    world.done();
    world.accept(&["narrow.test"]);
    assert_eq!(world.done(), [""; 0], "it waits");
    world.accept(&["wide.test"]);
    world.resolve("wide.test", "mx");
    let ways: Vec<String> = opened(&mut world).into_iter().map(|(_, source)| source).collect();
    assert_eq!(ways, ["four"]);
}

/// A reply that has the source blocked for an hour.
fn blocked() -> Learned {
    let reaction = Reaction { kind: ReactionKind::Block, lasts: HOUR, after: None };
    let hit = Hit { rule: "block".into(), reaction, words: "553 5.7.1 blocked".into() };
    Learned { health: Health::Good, reactions: vec![hit], ..Learned::default() }
}

#[test]
fn a_lane_that_is_being_written_is_not_written_again_meanwhile() {
    let mut world = world(&["a"], 2);
    world.accept(&["one.test"]);
    world.resolve("one.test", "mx");
    let (connection, _) = opened(&mut world).remove(0);
    let put = |world: &mut World| {
        world.scheduler.flush_lanes(world.now, &mut world.actions);
        let saves = world.actions.drain(..).filter_map(|action| match action {
            Action::SaveLanes(save) => Some(save),
            _ => None,
        });
        saves.flat_map(|save| save.put).map(|saved| saved.name).collect::<Vec<_>>()
    };
    world.scheduler.connection_learned(connection, &blocked(), world.now, &mut world.actions);
    let first = put(&mut world);
    assert!(matches!(&first[..], [LaneName::Lane(..)]), "{first:?}");
    // It changes again.
    world.now = world.now.plus(2 * HOUR);
    world.scheduler.connection_learned(connection, &blocked(), world.now, &mut world.actions);
    world.scheduler.dirty.extend(first.iter().cloned());
    assert_eq!(put(&mut world), []);
    world.scheduler.lanes_saved(&first, world.now, &mut world.actions);
    assert_eq!(put(&mut world), first);
}

#[test]
fn that_one_customers_hosts_are_down_is_no_matter_of_the_providers_site_until_others_are() {
    let mut world = world(&["a"], 4);
    for (domain, hosts) in [("one.test", "mx.one"), ("two.test", "mx.two")] {
        world.accept(&[domain]);
        resolve_at(&mut world, domain, "provider", hosts, Some("provider"));
    }
    let connections = opened(&mut world);
    assert_eq!(connections.len(), 2);
    let down = |world: &World| world.scheduler.sites.values().next().unwrap().down_until(world.now).is_some();
    close(&mut world, connections[0].0, unreachable());
    assert!(!down(&world), "its own hosts alone");
    close(&mut world, connections[1].0, unreachable());
    assert!(down(&world), "another one's as well");
}

#[test]
fn a_job_carries_how_often_in_a_row_a_block_ended_its_attempt() {
    let mut world = world(&["a"], 2);
    let id = world.accept(&["one.test"]);
    world.resolve("one.test", "mx");
    for (blocks, blocked) in [(0, true), (1, true), (2, false), (0, true), (1, true)] {
        let given = world.actions.drain(..).find_map(|action| match action {
            Action::Open { connection, jobs, .. } => Some((connection, jobs)),
            _ => None,
        });
        let (connection, jobs) = given.unwrap();
        assert_eq!(jobs[0].blocks, blocks);
        close(&mut world, connection, Report::of(Health::Good));
        let at = world.now.plus(SECOND);
        world.settle(id, Settled::Due { at, attempts: 1, source: None, blocked });
        world.advance(SECOND);
    }
}

#[test]
fn where_a_second_source_cannot_reach_a_site_all_wait() {
    let mut world = world(&["a", "b", "c"], 1);
    let mut tried = Vec::new();
    let id = world.accept(&["one.test"]);
    world.resolve("one.test", "mx");
    let down = |world: &World| world.scheduler.sites.values().next().unwrap().down_until(world.now).is_some();
    for attempts in 1..=2 {
        let (connection, source) = opened(&mut world).remove(0);
        assert!(!down(&world), "{tried:?}");
        tried.push(source);
        world.settle(id, due_again(world.now.plus(SECOND), attempts));
        close(&mut world, connection, unreachable());
        world.advance(SECOND);
    }
    assert_ne!(tried[0], tried[1]);
    assert!(down(&world), "though the third has not tried");
    assert_eq!(opened(&mut world), []);
}

#[test]
fn a_site_that_was_down_gets_one_connection_of_all_sources_until_it_is_reached() {
    let mut world = world(&["a", "b"], 1);
    for _ in 0..4 {
        world.accept(&["one.test"]);
    }
    world.resolve("one.test", "mx");
    let a = world.scheduler.fleet.id(&name("a")).unwrap();
    let (first, _) = opened(&mut world).remove(0);
    let site = world.scheduler.sites.values_mut().next().unwrap();
    // It works, so that more than one connection may be opened, and then cannot be reached by anybody.
    site.limits.connections = 10;
    site.learn(&Health::Good, a, true, NOW);
    site.learn(&Health::Unreachable("refused".into()), a, true, NOW);
    let until = site.down_until(NOW).unwrap();
    close(&mut world, first, Report::default());
    assert_eq!(opened(&mut world), []);
    world.advance(until.since(NOW) + SECOND);
    world.accept(&["one.test"]);
    assert_eq!(opened(&mut world).len(), 1);
}

#[test]
fn a_site_of_which_nothing_is_known_gets_as_many_connections_as_one_source_may_have() {
    let mut world = world(&["a", "b", "c"], 2);
    for _ in 0..10 {
        world.accept(&["one.test"]);
    }
    world.resolve("one.test", "mx");
    let first = opened(&mut world);
    assert_eq!(first.len(), 2);
    let good = Learned { health: Health::Good, ..Learned::default() };
    world.scheduler.connection_learned(first[0].0, &good, world.now, &mut world.actions);
    assert_eq!(opened(&mut world).len(), 4, "two of each source");
}

#[test]
fn a_lane_with_a_quarter_of_its_connections_has_a_quarter_of_the_turns() {
    let mut fleet = Fleet::default();
    let settings = settings_of(&["a", "b"], LaneLimits::default());
    fleet.reload(&settings.pools, &settings.warmup, NOW);
    let pool = PoolName::parse("default").unwrap();
    let mut queue = SiteQueue::new(&SiteName::new("mx"), (pool, ""), &fleet);
    let (a, b) = (fleet.id(&name("a")).unwrap(), fleet.id(&name("b")).unwrap());
    let mut turns = [0_u32; 2];
    for _ in 0..100 {
        let next = queue.slots.iter().min_by_key(|slot| slot.pass).unwrap().source;
        let (at, window) = if next == a { (0, 2) } else { (1, 8) };
        turns[at] += 1;
        queue.took_turn(next, window, 8);
    }
    assert!((19..=21).contains(&turns[0]) && turns[0] + turns[1] == 100 && a != b, "{turns:?}");
}

#[test]
fn a_job_whose_key_stands_twice_in_a_line_is_ready_once_after_the_line_found_its_way_anew() {
    let mut world = world(&["a"], 1);
    world.accept(&["one.test"]);
    let waits = world.accept(&["one.test"]);
    world.resolve("one.test", "mx");
    assert_eq!(opened(&mut world).len(), 1);
    let key = JobKey { id: waits, group: 0 };
    assert_eq!(world.scheduler.totals().ready, 1);
    let site = SiteName::new("mx");
    let class = Arc::clone(&world.scheduler.jobs[&key].class);
    // As where it was left on disk and read again while its key still stood there.
    world.scheduler.sites.get_mut(&site).unwrap().queues[0].fair.push(&class, key);
    let keys = world.scheduler.take_line(&site);
    assert_eq!(keys, [key, key]);
    world.scheduler.reroute(&site, keys, NOW, &mut world.actions);
    assert_eq!(world.scheduler.totals().ready, 1);
    assert_eq!(world.scheduler.sites[&site].queues[0].fair.flow(&class).unwrap().ready.len(), 1);
}
