//! What was sent and blocked is known over restarts, orderly or not; judged by what the hosts got before and after.

use super::{A, B, BLOCKED, FROM, block_rule, by_source, config_with, ip, mark, marker, send_some, wait_change};
use super::{with_providers, with_replies};
use crate::harness::*;

fn provider(limit: &str) -> String {
    format!("[[provider]]\nname = \"limited\"\ndomains = [\"example.test\"]\n{limit}\n")
}

#[test]
fn an_hours_limit_holds_over_kills_and_restarts() {
    const HOUR_MAX: usize = 60;
    let lab = Lab::new();
    lab.domain("example.test", &[2]);
    let (mx, marker) = (lab.mx(2), marker(&lab));
    let rule = |count: usize| provider(&format!("messages_per_hour = {count}"));
    let mut daemon = lab.daemon_with(with_providers(&lab, config_with(&lab, &[A, B]), &rule(HOUR_MAX)));
    let mut client = lab.client(&daemon);
    send_some(&mut client, "example.test", 3 * HOUR_MAX);
    mx.wait_accepted(HOUR_MAX / 2);
    let most = |mx: &Mx| by_source(&mx.accepted()).into_values().max().unwrap();
    for round in 0..3 {
        daemon.kill();
        daemon.start_again();
        client = lab.client(&daemon);
        mark(&mut client, &marker);
        assert!(most(&mx) <= HOUR_MAX, "kill {round}: {:?}", by_source(&mx.accepted()));
    }
    daemon.restart();
    client = lab.client(&daemon);
    mark(&mut client, &marker);
    assert!(most(&mx) <= HOUR_MAX, "restart: {:?}", by_source(&mx.accepted()));
    // What kills cost is a few messages each: nothing stands still until the hour is over.
    mx.wait_accepted(HOUR_MAX + 1);
    // The rest goes with a higher limit, and not one above that.
    let before = by_source(&mx.accepted());
    assert!(before.values().all(|count| *count <= HOUR_MAX), "{before:?}");
    let text = rule(2 * HOUR_MAX);
    daemon.reload(|config| with_providers(&lab, config, &text));
    mx.wait_accepted(3 * HOUR_MAX);
    daemon.wait_empty();
    assert!(most(&mx) <= 2 * HOUR_MAX, "{:?}", by_source(&mx.accepted()));
}

#[test]
fn a_minutes_limit_holds_over_a_kill() {
    let lab = Lab::new();
    lab.domain("example.test", &[2]);
    let (mx, marker) = (lab.mx(2), marker(&lab));
    let config = with_providers(&lab, config_with(&lab, &[A]), &provider("messages_per_minute = 1"));
    let mut daemon = lab.daemon_with(config);
    send_some(&mut lab.client(&daemon), "example.test", 2);
    mx.wait_accepted(1);
    for stop in [Daemon::kill as fn(&Daemon), Daemon::stop] {
        stop(&daemon);
        daemon.start_again();
        for _ in 0..5 {
            mark(&mut lab.client(&daemon), &marker);
        }
        assert_eq!(mx.transactions().len(), 1, "the minute is not over");
    }
    daemon.reload(|config| with_providers(&lab, config, ""));
    mx.wait_accepted(2);
    daemon.wait_empty();
}

#[test]
fn a_source_as_a_whole_keeps_to_its_minute_over_a_kill() {
    let lab = Lab::new();
    lab.domain("example.test", &[2]);
    lab.domain("other.test", &[3]);
    let (mx, other) = (lab.mx(2), lab.mx(3));
    let limited = format!("{}messages_per_minute = 1\n", super::source(&lab, A));
    let mut daemon = lab.daemon_with(lab.config().table(&limited));
    send_some(&mut lab.client(&daemon), "example.test", 1);
    mx.wait_accepted(1);
    daemon.wait_empty();
    daemon.kill();
    daemon.start_again();
    let mut client = lab.client(&daemon);
    client.send_simple(FROM, &["you@other.test"], "waits");
    daemon.wait_queue("it is not ready", |queue| queue.len() == 1 && queue[0]["state"] == "ready");
    daemon.status();
    assert_eq!(other.connections(), 0, "the minute is not over");
    daemon.reload(|config| config.without_tables("source").table(&super::source(&lab, A)));
    other.wait_accepted(1);
}

#[test]
fn a_block_holds_over_restart_and_kill() {
    let lab = Lab::new();
    lab.domain("example.test", &[2]);
    let a = ip(&lab, A);
    let mx = lab.mx_scripted(2, move |ask| {
        let is_refused = ask.stage == Stage::Mail && ask.peer.ip() == a;
        if is_refused { Answer::say(BLOCKED) } else { Answer::Usual }
    });
    let config = with_replies(&lab, config_with(&lab, &[A, B]), &block_rule("1h")).set("retry.steps", "[\"10m\"]");
    let mut daemon = lab.daemon_with(config);
    let of_a = |mx: &Mx| mx.peers().iter().filter(|peer| **peer == a).count();
    send_some(&mut lab.client(&daemon), "example.test", 10);
    mx.wait_accepted(10);
    wait_change(&mut daemon.events(), "blocked", 'a');
    let known = of_a(&mx);
    assert!(known > 0);
    for (round, stop) in [(1, Daemon::kill as fn(&Daemon)), (2, Daemon::stop), (3, Daemon::kill)] {
        stop(&daemon);
        daemon.start_again();
        send_some(&mut lab.client(&daemon), "example.test", 10);
        mx.wait_accepted(10 + 10 * round);
        assert_eq!(of_a(&mx), known, "round {round}: A is blocked for an hour");
    }
    daemon.wait_empty();
    assert!(by_source(&mx.accepted()).keys().all(|source| *source == ip(&lab, B)));
}
