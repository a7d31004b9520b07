//! Warm-ups from outside: caps judged by what hosts got, over kills and restarts; what has no room; sets, marks, managed pools.

use super::{A, B, C, FROM, by_source, config_with, ip, send_some, source};
use crate::harness::*;

/// One day with this cap. In an hour at most twice an even share, so that a test may cross from one hour to the next.
fn plan(name: &str, cap: u32) -> String {
    format!("[[warmup_plan]]\nname = \"{name}\"\ndays = {{ 1 = {cap} }}\n")
}

/// The source at this host number, which warms up by the plan `test`.
fn warming(lab: &Lab, host: u8) -> String {
    format!("{}warmup = \"test\"\n", source(lab, host))
}

fn from(lab: &Lab, mx: &Mx, host: u8) -> usize {
    by_source(&mx.accepted()).get(&ip(lab, host)).copied().unwrap_or_default()
}

#[test]
fn a_days_cap_holds_over_kills_and_restarts_and_warm_sources_take_the_rest() {
    const HOURS_MAX: usize = 2 * 2 * 2;
    let lab = Lab::new();
    lab.domain("example.test", &[2]);
    let mx = lab.mx(2);
    let config = config_with(&lab, &[A]).table(&warming(&lab, B)).table(&plan("test", 48));
    let mut daemon = lab.daemon_with(config);
    send_some(&mut lab.client(&daemon), "example.test", 30);
    mx.wait_accepted(30);
    let warmed = from(&lab, &mx, B);
    assert!((1..=HOURS_MAX).contains(&warmed), "{warmed} of an hour's share of 2, twice that at most");
    for (round, stop) in [Daemon::kill as fn(&Daemon), Daemon::stop, Daemon::kill].into_iter().enumerate() {
        stop(&daemon);
        daemon.start_again();
        send_some(&mut lab.client(&daemon), "example.test", 10);
        mx.wait_accepted(30 + 10 * (round + 1));
        assert!(from(&lab, &mx, B) <= HOURS_MAX, "round {round}: {:?}", by_source(&mx.accepted()));
    }
    daemon.wait_empty();
}

#[test]
fn what_has_no_room_waits_until_an_operator_ends_the_warm_up() {
    let lab = Lab::new();
    lab.domain("example.test", &[2]);
    let mx = lab.mx(2);
    let daemon = lab.daemon_with(lab.config().table(&warming(&lab, A)).table(&plan("test", 24)));
    let ids = send_some(&mut lab.client(&daemon), "example.test", 12);
    mx.wait_accepted(1);
    let waits = |daemon: &Daemon| {
        let told = ids.iter().map(|id| daemon.cli_or_none(&["why", id])).collect::<Vec<_>>();
        told.into_iter().flatten().find_map(|why| {
            let first = why["recipients"][0].clone();
            first["waits_for"]
                .as_str()
                .is_some_and(|text| text.contains("warm-up of source a there is running"))
                .then_some(first)
        })
    };
    let why = poll(|| waits(&daemon), || daemon.log_tail());
    assert!(why["waits_for"].as_str().unwrap().contains("of 24 messages of today, day 1 of 1 of plan test"), "{why:#}");
    assert!(why["waits_until"].is_string(), "{why:#}");
    assert!(mx.accepted().len() <= 4, "two hours at most");
    let status = daemon.cli(&["warmup", "status"]);
    let row = &status["warmups"][0];
    assert_eq!(
        (&row["source"], &row["plan"], &row["cap"], &row["mode"]),
        (&"a".into(), &"test".into(), &24.into(), &"running".into())
    );
    assert_eq!(status["sources"][0]["life"], "warming");
    assert_eq!(daemon.cli(&["warmup", "pause", "a"])["changed"], 1);
    assert_eq!(daemon.cli(&["warmup", "status"])["warmups"][0]["mode"], "paused");
    assert_eq!(daemon.cli(&["warmup", "resume", "a"])["changed"], 1);
    assert_eq!(daemon.cli(&["warmup", "set-day", "a", "2"])["changed"], 1);
    mx.wait_accepted(12);
    daemon.wait_empty();
    let mut events = daemon.events();
    for change in ["warmup-paused", "warmup-resumed", "warmup-set"] {
        events.wait_until(|events| {
            let found = events.iter().find(|event| event["lane"]["change"] == change)?;
            assert_eq!(found["lane"]["source"], "a");
            Some(())
        });
    }
}

#[test]
fn a_configuration_set_that_warms_up_keeps_its_own_cap_and_others_go_on() {
    let lab = Lab::new();
    lab.domain("example.test", &[2]);
    let mx = lab.mx(2);
    let config = config_with(&lab, &[A, B])
        .table(&plan("test", 24))
        .table("[[configuration_set]]\nname = \"campaign\"\nwarmup = \"test\"\n");
    let mut daemon = lab.daemon_with(config);
    let mut client = lab.client(&daemon);
    let send = |client: &mut Client, subject: &str, count: usize| {
        for number in 0..count {
            let text = format!("X-SES-CONFIGURATION-SET: campaign\r\n{}", simple(subject));
            client.send(FROM, &[&format!("set{number}@example.test")], &text);
        }
    };
    send(&mut client, "campaign", 8);
    send_some(&mut client, "example.test", 20);
    let of_set = |mx: &Mx| mx.accepted().iter().filter(|one| one.recipients[0].starts_with("set")).count();
    poll(|| (mx.accepted().len() - of_set(&mx) == 20).then_some(()), || daemon.log_tail());
    poll(|| (of_set(&mx) > 0).then_some(()), || daemon.log_tail());
    daemon.kill();
    daemon.start_again();
    send_some(&mut lab.client(&daemon), "example.test", 10);
    poll(|| (mx.accepted().len() - of_set(&mx) == 30).then_some(()), || daemon.log_tail());
    assert!(of_set(&mx) <= 4, "two hours at most: {}", of_set(&mx));
    let status = daemon.cli(&["warmup", "status", "--set", "campaign"]);
    assert_eq!((&status["warmups"][0]["set"], &status["warmups"][0]["cap"]), (&"campaign".into(), &24.into()));
    let explained = daemon.cli(&["explain", "you@example.test"]);
    let queues = explained["site"]["queues"].as_array().unwrap();
    assert!(queues.iter().any(|queue| queue["set"] == "campaign"), "{explained:#}");
    // Once the set warms up no more, its mail goes as all other does.
    daemon.reload(|config| {
        config.without_tables("configuration_set").table("[[configuration_set]]\nname = \"campaign\"\n")
    });
    mx.wait_accepted(38);
    daemon.wait_empty();
}

#[test]
fn marked_mail_goes_by_a_source_that_warms_up_and_the_mark_is_not_sent() {
    let lab = Lab::new();
    lab.domain("example.test", &[2]);
    let mx = lab.mx(2);
    let pool = "[[pool]]\nname = \"default\"\nsources = [\"a\", \"b\"]\nweights = { a = 1000 }\n";
    let config =
        lab.config().table(&source(&lab, A)).table(&warming(&lab, B)).table(&plan("test", 1_000_000)).table(pool);
    let daemon = lab.daemon_with(config);
    let mut client = lab.client(&daemon);
    for number in 0..10 {
        let text = format!("X-Posthaste-Warmup: preferred\r\n{}", simple("marked"));
        client.send(FROM, &[&format!("marked{number}@example.test")], &text);
    }
    mx.wait_accepted(10);
    assert_eq!(from(&lab, &mx, B), 10);
    assert!(mx.accepted().iter().all(|one| !String::from_utf8_lossy(&one.data).contains("X-Posthaste-Warmup")));
    send_some(&mut client, "example.test", 10);
    mx.wait_accepted(20);
    // Its connection that is open gets some more; then whose weight is a thousand times as much.
    assert!(from(&lab, &mx, A) > 0, "{:?}", by_source(&mx.accepted()));
    client.envelope(FROM, &["you@example.test"]).unwrap();
    let reply = client.body(format!("X-Posthaste-Warmup: never\r\n{}", simple("wrong")).as_bytes()).unwrap();
    assert_eq!(reply.code, 554, "{}", reply.text);
    assert!(reply.text.contains("X-Posthaste-Warmup \"never\" is not preferred"), "{}", reply.text);
}

#[test]
fn the_history_has_what_was_sent_over_a_restart() {
    let lab = Lab::new();
    lab.domain("example.test", &[2]);
    let mx = lab.mx_scripted(2, |ask| match ask.stage {
        Stage::Rcpt if ask.recipient.contains("nobody") => Answer::say("550 5.1.1 No such user"),
        _ => Answer::Usual,
    });
    let mut daemon = lab.daemon_with(config_with(&lab, &[A]));
    let mut client = lab.client(&daemon);
    send_some(&mut client, "example.test", 25);
    client.send_simple(FROM, &["nobody@example.test"], "bounces");
    mx.wait_accepted(25);
    daemon.wait_empty();
    daemon.restart();
    send_some(&mut lab.client(&daemon), "example.test", 5);
    mx.wait_accepted(30);
    daemon.wait_empty();
    daemon.restart();
    let history = daemon.cli(&["warmup", "history", "--days", "2"]);
    let rows = history["rows"].as_array().unwrap();
    let sum = |key: &str| rows.iter().map(|row| row[key].as_u64().unwrap_or_default()).sum::<u64>();
    assert_eq!((sum("sent"), sum("delivered"), sum("bounced"), sum("deferred")), (31, 30, 1, 0), "{history:#}");
    assert!(rows.iter().all(|row| row["source"] == "a" && row["site"] == "mx2.example.test"), "{history:#}");
    assert!(rows.iter().any(|row| row["bounced_by_class"]["bad-mailbox"] == 1), "{history:#}");
}

#[test]
fn a_managed_pool_uses_as_many_sources_as_it_needs() {
    let lab = Lab::new();
    lab.domain("example.test", &[2]);
    let mx = lab.mx(2);
    let pool = "[[pool]]\nname = \"default\"\nsources = [\"a\", \"b\", \"c\"]\nmanaged = true\n";
    let config = [A, B, C].into_iter().fold(lab.config(), |config, host| config.table(&source(&lab, host))).table(pool);
    let mut daemon = lab.daemon_with(config);
    send_some(&mut lab.client(&daemon), "example.test", 20);
    mx.wait_accepted(20);
    assert_eq!(by_source(&mx.accepted()).len(), 1, "{:?}", by_source(&mx.accepted()));
    let lives = |daemon: &Daemon| -> Vec<String> {
        let status = daemon.cli(&["warmup", "status"]);
        let rows = status["sources"].as_array().unwrap();
        rows.iter().map(|row| row["life"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(lives(&daemon), ["active", "parked", "parked"]);
    daemon.events().wait_until(|events| {
        let found = events.iter().find(|event| event["lane"]["change"] == "source-activated")?;
        assert_eq!((&found["lane"]["source"], &found["lane"]["pool"]), (&"a".into(), &"default".into()));
        Some(())
    });
    // Two at least, from now on; known over a restart.
    daemon.reload(|config| config.without_tables("pool").table(&format!("{pool}active_min = 2\n")));
    assert_eq!(lives(&daemon), ["active", "active", "parked"]);
    daemon.restart();
    assert_eq!(lives(&daemon), ["active", "active", "parked"]);
    send_some(&mut lab.client(&daemon), "example.test", 20);
    mx.wait_accepted(40);
    assert_eq!(by_source(&mx.accepted()).len(), 2, "{:?}", by_source(&mx.accepted()));
}
