//! A reload changes limits, pools and weights, and mail that waits goes by what holds now.

use super::{A, B, BLOCKED, FROM, block_rule, by_source, config_with, ip, mark, marker, prove, send_some, source};
use super::{wait_change, with_providers, with_replies};
use crate::harness::*;

#[test]
fn a_new_limit_in_the_providers_file_holds_at_once() {
    let lab = Lab::new();
    lab.domain("example.test", &[2]);
    let (marker, gate) = (marker(&lab), Watched::new(true));
    let shut = gate.clone();
    let mx = lab.mx_scripted(2, move |ask| match ask.stage {
        Stage::Dot => Answer::Hold(shut.clone(), Box::new(Answer::Usual)),
        _ => Answer::Usual,
    });
    let rule = |count: usize| {
        format!("[[provider]]\nname = \"limited\"\ndomains = [\"example.test\"]\nconnections = {count}\n")
    };
    let mut daemon = lab.daemon_with(with_providers(&lab, config_with(&lab, &[A]), &rule(1)));
    let (mut client, a) = (lab.client(&daemon), ip(&lab, A));
    prove(&mut client, &mx, "example.test", &[a]);
    gate.change(|open| *open = false);
    send_some(&mut client, "example.test", 20);
    mx.wait_open(&[a], 1);
    mark(&mut client, &marker);
    assert_eq!(mx.peaks()[&a], 1);
    // A file with an error changes nothing.
    std::fs::write(lab.dir().join("providers.toml"), rule(4).replace("connections", "conections")).unwrap();
    let mark_of_log = daemon.log_len();
    daemon.signal(Signal::HUP);
    let error = daemon.wait_log_from(mark_of_log, "config not reloaded");
    assert!(error.contains("providers.toml:4"), "{error}");
    mark(&mut client, &marker);
    assert_eq!(mx.peaks()[&a], 1);
    daemon.reload(|config| with_providers(&lab, config, &rule(4)));
    mx.wait_open(&[a], 4);
    mark(&mut client, &marker);
    assert_eq!(mx.peaks()[&a], 4);
    gate.change(|open| *open = true);
    mx.wait_accepted(21);
    daemon.wait_empty();
}

#[test]
fn an_overflow_pool_takes_mail_while_the_pools_own_source_is_blocked_and_not_before() {
    let lab = Lab::new();
    lab.domain("example.test", &[2]);
    let (a, refuses) = (ip(&lab, A), Watched::new(false));
    let listed = refuses.clone();
    let mx = lab.mx_scripted(2, move |ask| {
        let is_refused = ask.stage == Stage::Mail && ask.peer.ip() == a && *listed.lock();
        if is_refused { Answer::say(BLOCKED) } else { Answer::Usual }
    });
    let config = with_replies(&lab, config_with(&lab, &[A, B]), &block_rule("1h"))
        .table("[[pool]]\nname = \"default\"\nsources = [\"a\"]\noverflow = \"spare\"\n")
        .table("[[pool]]\nname = \"spare\"\nsources = [\"b\"]\n")
        .set("retry.steps", "[\"10m\"]");
    let daemon = lab.daemon_with(config);
    let mut client = lab.client(&daemon);
    send_some(&mut client, "example.test", 30);
    assert_eq!(by_source(&mx.wait_accepted(30)), [(a, 30)].into());
    refuses.change(|refuses| *refuses = true);
    send_some(&mut client, "example.test", 30);
    mx.wait_accepted(60);
    daemon.wait_empty();
    assert_eq!(by_source(&mx.accepted()), [(a, 30), (ip(&lab, B), 30)].into());
    wait_change(&mut daemon.events(), "blocked", 'a');
}

#[test]
fn weights_show_at_the_receiver() {
    const MESSAGES: usize = 200;
    let lab = Lab::new();
    lab.domain("example.test", &[2]);
    let mx = lab.mx(2);
    let pool = |weight: usize| {
        format!("[[pool]]\nname = \"default\"\nsources = [\"a\", \"b\"]\nweights = {{ a = {weight} }}\n")
    };
    let mut daemon = lab.daemon_with(config_with(&lab, &[A, B]).table(&pool(3)));
    let mut client = lab.client(&daemon);
    // One at a time: each has its choice of both.
    let mut share_of_a = |from: usize| {
        for sent in from..from + MESSAGES {
            client.send_simple(FROM, &["you@example.test"], "weighed");
            mx.wait_accepted(sent + 1);
        }
        by_source(&mx.accepted()[from..])[&ip(&lab, A)]
    };
    let share = share_of_a(0);
    assert!((MESSAGES * 7 / 10..=MESSAGES * 8 / 10).contains(&share), "{share} of {MESSAGES}");
    daemon.reload(|config| config.without_tables("pool").table(&pool(1)));
    let share = share_of_a(MESSAGES);
    assert!((MESSAGES * 45 / 100..=MESSAGES * 55 / 100).contains(&share), "{share} of {MESSAGES}");
}

#[test]
fn a_source_that_a_reload_takes_away_is_used_no_more() {
    let lab = Lab::new();
    lab.domain("example.test", &[2]);
    let mx = lab.mx(2);
    let config = config_with(&lab, &[A, B]).set("delivery.idle_timeout", "\"1s\"");
    let mut daemon = lab.daemon_with(config);
    let mut client = lab.client(&daemon);
    prove(&mut client, &mx, "example.test", &[ip(&lab, A), ip(&lab, B)]);
    daemon.reload(|config| config.without_tables("source").table(&source(&lab, B)));
    let before = mx.accepted().len();
    send_some(&mut client, "example.test", 30);
    let all = mx.wait_accepted(before + 30);
    daemon.wait_empty();
    assert_eq!(by_source(&all[before..]), [(ip(&lab, B), 30)].into());
}
