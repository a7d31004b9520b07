//! The scheduler's state machine against small worlds: what it does, in which order, and within which bounds.

use std::time::Duration;

use super::testing::{NOW, PAYLOAD_BYTES, World, due, due_again, settings};
use bytes::Bytes;

use super::*;
use crate::policy::lane::Health;
use crate::policy::limits::LaneLimits;
use crate::queue::{DuePage, RecipientHeaders, StoredBody};
use crate::scheduler::{Command, Totals, Whereabouts};
use crate::types::{EnhancedStatus, MessageId};

#[test]
fn an_accepted_message_is_given_to_a_connection_without_any_timer() {
    let mut world = World::new(settings());
    world.accept(&["a.test"]);
    assert_eq!(world.done(), ["resolve a.test"]);
    world.accept(&["a.test"]);
    assert_eq!(world.done(), [""; 0], "one lookup for both");
    world.resolve("a.test", "mx.a");
    assert_eq!(world.done(), ["open 0 mx.a 1", "open 1 mx.a 2"]);
    world.accept(&["a.test"]);
    assert_eq!(world.done(), [""; 0], "the site has two connections");
    world.idle(ConnectionId(0), Report::of(Health::Good));
    assert_eq!(world.done(), ["assign 0 3"]);
    world.idle(ConnectionId(1), Report::of(Health::Good));
    world.accept(&["a.test"]);
    assert_eq!(world.done(), ["assign 1 4"], "an idle connection is used again");
}

#[test]
fn domains_of_one_message_that_share_a_site_share_a_transaction() {
    let mut world = World::new(settings());
    world.accept(&["a.test"]);
    world.accept(&["b.test"]);
    world.resolve("a.test", "mx");
    world.resolve("b.test", "mx");
    world.done();
    world.accept(&["a.test", "b.test"]);
    world.accept(&["a.test"]);
    world.idle(ConnectionId(0), Report::of(Health::Good));
    world.idle(ConnectionId(1), Report::of(Health::Good));
    assert_eq!(world.done(), ["assign 0 3+3", "assign 1 4"]);
}

#[test]
fn one_site_never_holds_up_another_and_the_last_connection_goes_round() {
    let mut world = World::new(Settings { connections_max: 2, ..settings() });
    for domain in ["a.test", "b.test", "c.test"] {
        world.accept(&[domain]);
        world.accept(&[domain]);
    }
    world.resolve("a.test", "a");
    assert_eq!(world.done().split_off(3), ["open 0 a 1", "open 1 a 2"]);
    world.resolve("b.test", "b");
    world.resolve("c.test", "c");
    assert_eq!(world.done(), [""; 0], "all connections are taken");
    world.idle(ConnectionId(0), Report::of(Health::Good));
    assert_eq!(world.done(), ["close 0"], "an idle connection makes room");
    world.scheduler.connection_closed(ConnectionId(0), Report::default(), Vec::new(), world.now, &mut world.actions);
    assert_eq!(world.done(), ["open 2 b 3"]);
    world.scheduler.connection_closed(ConnectionId(1), Report::default(), Vec::new(), world.now, &mut world.actions);
    assert_eq!(world.done(), ["open 3 c 5"]);
}

#[test]
fn a_connection_counts_until_it_is_gone_though_its_last_assignment_came_back() {
    let mut world =
        World::new(Settings { limits: LaneLimits { connections: 1, ..LaneLimits::default() }, ..settings() });
    world.accept(&["a.test"]);
    world.resolve("a.test", "a");
    world.accept(&["a.test"]);
    world.done();
    world.idle(ConnectionId(0), Report::of(Health::Good));
    let Some(Action::Assign { jobs, .. }) = world.actions.pop() else { panic!("nothing was assigned") };
    world.scheduler.returned(jobs, world.now, &mut world.actions);
    assert_eq!(world.done(), [""; 0], "it still says QUIT");
    world.scheduler.connection_closed(ConnectionId(0), Report::default(), Vec::new(), world.now, &mut world.actions);
    assert_eq!(world.done(), ["open 1 a 2"]);
}

#[test]
fn a_site_whose_connection_ends_stands_behind_those_that_wait_for_one() {
    let mut world = World::new(Settings { connections_max: 1, ..settings() });
    for domain in ["a.test", "a.test", "a.test", "b.test"] {
        world.accept(&[domain]);
    }
    world.resolve("a.test", "a");
    world.resolve("b.test", "b");
    assert_eq!(world.done().split_off(2), ["open 0 a 1"]);
    // The first site was in line for a second connection before the other one came.
    for (connection, next) in [(0, "open 1 a 2"), (1, "open 2 b 4"), (2, "open 3 a 3")] {
        let connection = ConnectionId(connection);
        world.scheduler.connection_closed(
            connection,
            Report::of(Health::Good),
            Vec::new(),
            world.now,
            &mut world.actions,
        );
        assert_eq!(world.done(), [next]);
    }
}

#[test]
fn a_dead_site_gets_one_probe_at_a_time_and_its_jobs_no_attempt() {
    let mut world = World::new(settings());
    let first = world.accept(&["a.test"]);
    for _ in 0..5 {
        world.accept(&["a.test"]);
    }
    world.resolve("a.test", "mx");
    world.done();
    for connection in [0, 1] {
        let feedback = Report::of(Health::Unreachable("refused".into()));
        world.scheduler.connection_closed(
            ConnectionId(connection),
            feedback,
            Vec::new(),
            world.now,
            &mut world.actions,
        );
    }
    assert_eq!(world.done(), [""; 0]);
    let place = world.scheduler.whereabouts(&due(first, NOW, "a.test"), world.now);
    assert_eq!(place, Some(Whereabouts::InFlight), "what was tried is settled by its own message");
    world.advance(Duration::from_secs(17));
    assert_eq!(world.done(), ["open 2 mx 3"], "one probe");
    world.idle(ConnectionId(2), Report::of(Health::Good));
    assert_eq!(world.done(), ["assign 2 4", "open 3 mx 5"], "and a ramp when it succeeds");
}

#[test]
fn a_site_that_stays_dead_is_reported_with_its_reason() {
    let mut world = World::new(settings());
    for _ in 0..3 {
        world.accept(&["a.test"]);
    }
    world.resolve("a.test", "mx");
    for connection in 0..2 {
        let refused = Report::of(Health::Unreachable("refused".into()));
        world.scheduler.connection_closed(ConnectionId(connection), refused, Vec::new(), world.now, &mut world.actions);
    }
    world.accept(&["a.test"]);
    let site = world.scheduler.report(1, world.now).remove(0);
    assert_eq!((site.ready, site.connections, site.window), (2, 0, 0));
    let wait = site.suspended_until.unwrap().since(world.now);
    assert!((13..17).contains(&wait.as_secs()), "{wait:?}");
    assert_eq!(site.reason.as_deref(), Some("refused"));
}

#[test]
fn a_deferred_job_comes_back_when_it_is_due_and_not_before() {
    let mut world = World::new(settings());
    let id = world.accept(&["a.test"]);
    world.resolve("a.test", "mx");
    world.done();
    let at = world.now.plus(Duration::from_secs(20));
    world.settle(id, due_again(at, 1));
    world.idle(ConnectionId(0), Report::of(Health::Good));
    assert_eq!(world.scheduler.next_wakeup(), at);
    world.advance(Duration::from_secs(19));
    assert_eq!(world.done(), [""; 0]);
    world.advance(Duration::from_secs(1));
    assert_eq!(world.done(), ["assign 0 1"]);
}

#[test]
fn what_is_due_later_costs_no_memory_and_is_paged_in_on_time() {
    let mut world = World::new(settings());
    let id = world.accept(&["a.test"]);
    world.resolve("a.test", "mx");
    let at = world.now.plus(Duration::from_secs(7_200));
    world.settle(id, due_again(at, 1));
    assert_eq!(world.scheduler.totals().jobs, 0);
    world.done();
    world.now = at.minus(Duration::from_secs(20));
    world.scheduler.tick(world.now, &mut world.actions);
    let page = world.actions.iter().any(|action| matches!(action, Action::PageIn { .. }));
    assert!(page, "the window moves on");
    world.actions.clear();
    let jobs = vec![due(id, at, "a.test")];
    world.scheduler.paged(DuePage { jobs, next: None, damaged: Vec::new() }, world.now, &mut world.actions);
    assert_eq!(world.done(), [""; 0]);
    world.advance(Duration::from_secs(20));
    assert_eq!(world.done(), ["resolve a.test"], "the route is looked up again after this time");
}

#[test]
fn a_site_fills_its_share_of_memory_and_the_rest_is_read_again_when_there_is_room() {
    let mut world = World::new(Settings { jobs_max: 20_000, ..settings() });
    for _ in 0..20_005 {
        world.accept(&["a.test"]);
    }
    assert_eq!(world.scheduler.totals().jobs, 2_500, "an eighth");
    world.resolve("a.test", "mx");
    assert!(world.scheduler.report(1, world.now)[0].more_on_disk);
    assert_eq!(world.scheduler.totals().sites_behind, 1);
    world.actions.clear();
    for number in 1..=1_200_u128 {
        world.settle(MessageId::new(NOW, number), Settled::Out);
    }
    assert!(!world.actions.iter().any(|action| matches!(action, Action::PageIn { .. })), "not for each that ends");
    for number in 1_201..=1_300_u128 {
        world.settle(MessageId::new(NOW, number), Settled::Out);
    }
    let pages: Vec<_> = world
        .actions
        .drain(..)
        .filter_map(|action| if let Action::PageIn { from, .. } = action { Some(from) } else { None })
        .collect();
    let first_left = JobKey { id: MessageId::new(NOW, 2_501), group: 0 };
    assert_eq!(pages, [DueKey::of(NOW, first_left)], "the oldest that was left");
}

#[test]
fn a_dead_site_with_a_long_backlog_leaves_room_for_all_others() {
    let mut world = World::new(Settings { jobs_max: 1_000, ..settings() });
    world.accept(&["dead.test"]);
    world.resolve("dead.test", "dead");
    let refused = Report::of(Health::Unreachable("refused".into()));
    world.scheduler.connection_closed(ConnectionId(0), refused, Vec::new(), world.now, &mut world.actions);
    for _ in 0..5_000 {
        world.accept(&["dead.test"]);
    }
    world.done();
    let last = world.accept(&["dead.test"]);
    let place = world.scheduler.whereabouts(&due(last, NOW, "dead.test"), world.now);
    assert!(matches!(place, Some(Whereabouts::Behind(site)) if matches!(*site, Whereabouts::Suspended { .. })));
    assert!(world.scheduler.command(&due(last, NOW, "dead.test"), &Command::Cancel, NOW, &mut world.actions));
    assert_eq!(world.done(), ["settle Cancelled"], "operators reach what was left on disk");
    world.accept(&["living.test"]);
    world.resolve("living.test", "living");
    assert_eq!(world.done(), ["resolve living.test", "open 1 living 139"]);
}

#[test]
fn what_a_dead_site_left_on_disk_expires_and_its_senders_hear_of_the_delay() {
    let mut world = World::new(Settings { jobs_max: 1_000, ..settings() });
    for _ in 0..200 {
        world.accept(&["dead.test"]);
    }
    let domain = Domain::parse("dead.test").unwrap();
    world.scheduler.resolved(
        &domain,
        Destination::of_hosts(SiteName::new("dead"), Timestamp::MAX),
        NOW,
        &mut world.actions,
    );
    world.actions.clear();
    // The last one is on disk only: an eighth of the table is taken by those before it.
    let last = due(MessageId::new(NOW, 200), NOW, "dead.test");
    assert!(!world.scheduler.knows(last.key));
    let patrol = |world: &mut World, after_s: u64| {
        world.now = NOW.plus(Duration::from_secs(after_s));
        let site = world.scheduler.sites.values_mut().next().unwrap();
        let source = site.lanes[0].source;
        site.learn(&Health::Unreachable("refused".into()), source, true, world.now);
        // Pages ahead and behind take turns; the patrol is the one that finds the last job.
        for _ in 0..6 {
            world.scheduler.tick(world.now, &mut world.actions);
            let jobs = if world.scheduler.knows(last.key) { Vec::new() } else { vec![last.clone()] };
            world.scheduler.paged(DuePage { jobs, next: None, damaged: Vec::new() }, world.now, &mut world.actions);
        }
        let settles = |action: &Action| match action {
            Action::Settle { lease, verdict } if lease.key == last.key => Some(verdict.clone()),
            _ => None,
        };
        world.actions.drain(..).collect::<Vec<_>>().iter().filter_map(settles).collect::<Vec<_>>()
    };
    assert_eq!(patrol(&mut world, 1_800), []);
    assert_eq!(patrol(&mut world, 3_700), [Verdict::Notice("refused".to_owned())]);
    world.settle(last.key.id, Settled::Unchanged);
    assert_eq!(patrol(&mut world, 7_400), [], "once");
    assert_eq!(patrol(&mut world, 86_401), [Verdict::Expired(Some("refused".to_owned()))]);
}

#[test]
fn bodies_in_memory_are_bounded() {
    let mut world = World::new(settings());
    for _ in 0..101 {
        world.accept(&["a.test"]);
    }
    assert_eq!(world.scheduler.payload_bytes, 100 * PAYLOAD_BYTES);
    world.resolve("a.test", "mx");
    assert_eq!(world.scheduler.payload_bytes, 98 * PAYLOAD_BYTES, "two are with their connections");
    let refused = Report::of(Health::Unreachable("refused".into()));
    world.scheduler.connection_closed(ConnectionId(0), refused, Vec::new(), world.now, &mut world.actions);
    assert_eq!(world.scheduler.payload_bytes, 0, "what waits for a dead site is read back when it goes");
    world.accept(&["a.test"]);
    assert_eq!(world.scheduler.payload_bytes, 0);
}

#[test]
fn a_flush_makes_deferred_jobs_due_once() {
    let mut world = World::new(settings());
    let id = world.accept(&["a.test"]);
    world.resolve("a.test", "mx");
    let at = world.now.plus(Duration::from_secs(30));
    world.settle(id, due_again(at, 1));
    world.idle(ConnectionId(0), Report::of(Health::Good));
    world.done();
    world.scheduler.flush(world.now, &mut world.actions);
    assert_eq!(world.done(), ["assign 0 1"]);
    // Deferred again while the flush still reads: it is not made due a second time.
    let at = world.now.plus(Duration::from_secs(5_000));
    world.settle(id, due_again(at, 2));
    let page = DuePage { jobs: vec![due(id, at, "a.test")], next: None, damaged: Vec::new() };
    world.scheduler.paged(page, world.now, &mut world.actions);
    world.idle(ConnectionId(0), Report::of(Health::Good));
    assert_eq!(world.done(), [""; 0]);
}

#[test]
fn operators_reach_every_job_that_is_not_in_flight() {
    let mut world = World::new(settings());
    let flying = world.accept(&["a.test"]);
    world.resolve("a.test", "mx");
    world.done();
    let now = world.now;
    let near = due(MessageId::new(NOW, 79), NOW.plus(Duration::from_secs(5)), "b.test");
    let command =
        |world: &mut World, job: &DueJob, command| world.scheduler.command(job, &command, now, &mut world.actions);
    assert!(!command(&mut world, &due(flying, NOW, "a.test"), Command::Cancel));
    assert!(!command(&mut world, &near, Command::Retry), "what is not where the window has it was seen too late");
    let on_disk = due(MessageId::new(NOW, 77), NOW.plus(Duration::from_secs(9_000)), "b.test");
    assert!(command(&mut world, &on_disk, Command::Hold("why".to_owned())));
    assert_eq!(world.done(), ["settle Hold(\"why\")"]);
    let other = due(MessageId::new(NOW, 78), NOW.plus(Duration::from_secs(9_000)), "b.test");
    assert!(command(&mut world, &other, Command::Retry));
    assert_eq!(world.done(), ["resolve b.test"]);
    assert!(command(&mut world, &other, Command::Cancel), "also while it waits for DNS");
    assert_eq!(world.done(), ["settle Cancelled"]);
}

#[test]
fn an_assignment_that_crossed_the_end_of_its_connection_is_not_lost() {
    let mut world = World::new(settings());
    world.accept(&["a.test"]);
    world.resolve("a.test", "mx");
    let Some(Action::Open { jobs, .. }) = world.actions.pop() else { panic!("a connection is opened") };
    world.done();
    world.scheduler.connection_closed(ConnectionId(0), Report::default(), Vec::new(), NOW, &mut world.actions);
    world.scheduler.connection_closed(ConnectionId(0), Report::default(), jobs, NOW, &mut world.actions);
    assert_eq!(world.done(), ["open 1 mx 1"]);
    assert_eq!(world.scheduler.totals().in_flight, 1);
}

#[test]
fn a_domain_without_a_route_settles_its_jobs() {
    let mut world = World::new(settings());
    world.accept(&["a.test"]);
    world.done();
    let failure = RoutingFailure {
        kind: crate::scheduler::RoutingFailureKind::Permanent,
        status: EnhancedStatus::new(5, 1, 10).unwrap(),
        text: "null MX".to_owned(),
        rule: "null-mx",
    };
    world.scheduler.unroutable(&Domain::parse("a.test").unwrap(), &failure, &mut world.actions);
    assert_eq!(world.done().len(), 1);
    assert_eq!(world.scheduler.totals().in_flight, 1, "until it is committed");
}

#[test]
fn a_drain_starts_nothing_new_and_is_quiet_when_all_is_settled() {
    let mut world = World::new(settings());
    let id = world.accept(&["a.test"]);
    world.resolve("a.test", "mx");
    world.done();
    world.scheduler.drain(&mut world.actions);
    world.accept(&["a.test"]);
    assert_eq!(world.done(), [""; 0]);
    assert!(!world.scheduler.is_quiet());
    world.settle(id, Settled::Out);
    world.idle(ConnectionId(0), Report::of(Health::Good));
    assert_eq!(world.done(), ["close 0"], "a connection that becomes idle is closed");
    world.scheduler.connection_closed(ConnectionId(0), Report::default(), Vec::new(), NOW, &mut world.actions);
    assert!(world.scheduler.is_quiet());
}

#[test]
fn a_message_that_a_page_showed_first_is_not_taken_for_a_second_one() {
    let mut world = World::new(settings());
    world.accept(&["a.test"]);
    world.resolve("a.test", "mx");
    let Some(Action::Open { jobs, .. }) = world.actions.pop() else { panic!("a connection is opened") };
    world.done();
    let id = jobs[0].key.id;
    let message = Arc::clone(&jobs[0].payload.as_ref().unwrap().message);
    let body = StoredBody::Inline(Bytes::new());
    world.scheduler.accepted(
        Handoff { message, body, recipient_headers: RecipientHeaders::default(), due_at: NOW },
        NOW,
        &mut world.actions,
    );
    assert_eq!(world.done(), [""; 0]);
    assert_eq!(world.scheduler.totals().in_flight, 1);
    world.settle(id, Settled::Out);
    assert_eq!(world.scheduler.totals(), Totals { connections: 1, sites: 1, lanes: 1, ..Totals::default() });
}

#[test]
fn a_job_that_was_told_of_its_delay_expires_once() {
    let mut world = World::new(settings());
    for _ in 0..3 {
        world.accept(&["a.test"]);
    }
    let domain = Domain::parse("a.test").unwrap();
    world.scheduler.resolved(
        &domain,
        Destination::of_hosts(SiteName::new("mx"), Timestamp::MAX),
        NOW,
        &mut world.actions,
    );
    world.done();
    let ids: Vec<MessageId> = (1..=3).map(|number| MessageId::new(NOW, number)).collect();
    // Two are tried and deferred for long; the third waits at the dead site.
    for (id, connection) in [(ids[0], 0), (ids[1], 1)] {
        world.settle(id, due_again(NOW.plus(Duration::from_secs(80_000)), 1));
        let dead = Report::of(Health::Unreachable("refused".into()));
        world.scheduler.connection_closed(ConnectionId(connection), dead, Vec::new(), world.now, &mut world.actions);
    }
    // A probe right before each look keeps the site suspended.
    let look = |world: &mut World, after_s: u64| {
        world.now = NOW.plus(Duration::from_secs(after_s));
        let site = world.scheduler.sites.values_mut().next().unwrap();
        let source = site.lanes[0].source;
        site.learn(&Health::Unreachable("refused".into()), source, true, world.now);
        world.scheduler.tick(world.now, &mut world.actions);
        world.done()
    };
    assert_eq!(look(&mut world, 3_700), ["settle Notice(\"refused\")"]);
    world.settle(ids[2], Settled::Unchanged);
    assert_eq!(world.scheduler.totals().ready, 1);
    assert_eq!(look(&mut world, 86_401), ["settle Expired(Some(\"refused\"))"]);
    assert_eq!(world.scheduler.totals().in_flight, 1);
}

#[test]
fn what_waits_at_a_dead_host_follows_a_new_route_after_a_reload() {
    let mut world = World::new(settings());
    for _ in 0..4 {
        world.accept(&["a.test"]);
    }
    world.resolve("a.test", "old");
    world.done();
    world.scheduler.reload(settings(), world.now, &mut world.actions);
    assert_eq!(world.done(), ["resolve a.test"]);
    world.resolve("a.test", "new");
    assert_eq!(world.done(), ["open 2 new 3", "open 3 new 4"]);
}

#[test]
fn a_clock_that_goes_back_stalls_nobody() {
    let mut world = World::new(settings());
    for _ in 0..4 {
        world.accept(&["a.test"]);
    }
    world.resolve("a.test", "mx");
    world.done();
    for connection in [0, 1] {
        let dead = Report::of(Health::Unreachable("refused".into()));
        world.scheduler.connection_closed(ConnectionId(connection), dead, Vec::new(), world.now, &mut world.actions);
    }
    let hour = Duration::from_secs(3_600);
    world.now = world.now.minus(hour);
    world.scheduler.clock_went_back(hour, world.now);
    assert!(world.scheduler.next_wakeup() <= world.now.plus(Duration::from_secs(17)));
    world.advance(Duration::from_secs(17));
    assert_eq!(world.done(), ["open 2 mx 3"], "the probe comes when it would have come");
}

#[test]
fn a_small_table_does_not_read_the_same_page_for_ever() {
    let mut world = World::new(Settings { jobs_max: 1_000, ..settings() });
    for number in 0..1_001 {
        world.accept(&[&format!("d{number}.test")]);
    }
    assert_eq!(world.scheduler.totals().jobs, 1_000);
    world.actions.clear();
    world.scheduler.tick(world.now, &mut world.actions);
    let pages = world.actions.iter().filter(|action| matches!(action, Action::PageIn { .. })).count();
    assert_eq!(pages, 0, "there is no room");
}
