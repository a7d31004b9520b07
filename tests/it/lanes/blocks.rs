//! Scenarios 16 and 17: a host does not want one of our addresses.
//!
//! Retries are ten minutes away: what is delivered sooner was not retried but went by another source, or as a lane came back.

use std::time::{Duration, Instant};

use super::{A, B, BLOCKED, FROM, block_rule, by_source, changes, config_with, ip, wait_change, with_replies};
use crate::harness::*;

/// A host that refuses mail from some addresses, and when it did.
struct Blocking {
    mx: Mx,
    /// Host numbers of the addresses that are refused.
    refuses: Watched<Vec<u8>>,
    refused: Watched<Vec<(u8, Instant)>>,
    /// Shut: messages of A are held.
    gate: Watched<bool>,
}

/// For `example.test`. As MAIL comes, as most do it.
fn blocking(lab: &Lab, refused: &[u8]) -> Blocking {
    let (refuses, gate) = (Watched::new(refused.to_vec()), Watched::new(true));
    let refused = Watched::new(Vec::new());
    let (listed, seen, shut) = (refuses.clone(), refused.clone(), gate.clone());
    let hosts: Vec<_> = [A, B].iter().map(|host| (*host, ip(lab, *host))).collect();
    let mx = lab.mx_scripted(2, move |ask| {
        let host = hosts.iter().find(|(_, address)| *address == ask.peer.ip()).map_or(0, |(host, _)| *host);
        match ask.stage {
            Stage::Rcpt if ask.recipient.starts_with("nobody") => Answer::say("550 5.1.1 no such user here"),
            Stage::Mail if listed.lock().contains(&host) => {
                seen.change(|seen| seen.push((host, now())));
                Answer::say(BLOCKED)
            }
            Stage::Dot if host == A => Answer::Hold(shut.clone(), Box::new(Answer::Usual)),
            _ => Answer::Usual,
        }
    });
    lab.domain("example.test", &[2]);
    Blocking { mx, refuses, refused, gate }
}

fn config(lab: &Lab, lasts: &str) -> ConfigText {
    with_replies(lab, config_with(lab, &[A, B]), &block_rule(lasts)).set("retry.steps", "[\"10m\"]")
}

/// Sends one message after the other to `example.test`, each of which must arrive, until `is_enough`.
fn send_until(client: &mut Client, mx: &Mx, mut is_enough: impl FnMut() -> bool) {
    let look = || {
        let before = mx.accepted().len();
        client.send_simple(FROM, &["you@example.test"], "steady");
        mx.wait_accepted(before + 1);
        is_enough().then_some(())
    };
    poll(look, || format!("sent in vain: {:?}", by_source(&mx.accepted())));
}

#[test]
fn a_blocked_source_is_out_at_that_site_alone_and_mail_goes_by_another() {
    let lab = Lab::new();
    let host = blocking(&lab, &[A]);
    let other = lab.mx(3);
    lab.domain("other.test", &[3]);
    let daemon = lab.daemon_with(config(&lab, "1h"));
    let mut client = lab.client(&daemon);
    // Everything arrives, though A had its turn.
    send_until(&mut client, &host.mx, || !host.refused.lock().is_empty());
    let mut events = daemon.events();
    let event = wait_change(&mut events, "blocked", 'a');
    assert_eq!(event["lane"]["rule"], "test-block", "{event:#}");
    assert!(event["lane"]["reply"].as_str().unwrap().contains("on the list of this test"), "{event:#}");
    for _ in 0..20 {
        client.send_simple(FROM, &["you@example.test"], "after");
    }
    // A goes on elsewhere.
    let elsewhere = || {
        let before = other.accepted().len();
        client.send_simple(FROM, &["you@other.test"], "elsewhere");
        other.wait_accepted(before + 1);
        by_source(&other.accepted()).contains_key(&ip(&lab, A)).then_some(())
    };
    poll(elsewhere, || "A does not serve the other site".to_owned());
    daemon.wait_empty();
    assert_eq!(host.refused.lock().len(), 1, "blocked once, it did not come again");
    assert_eq!(by_source(&host.mx.accepted()).into_keys().collect::<Vec<_>>(), [ip(&lab, B)]);
    let seen = events.seen();
    assert_eq!(changes(seen, "blocked", None).len(), 1);
    assert!(changes(seen, "pool-blocked", None).is_empty());
    assert!(!seen.iter().any(|event| event["eventType"] == "Bounce"), "a block is no bounce");
    // The recipient who met the block is on no list: mail for it arrived since.
    let delays = seen.iter().filter(|event| event["eventType"] == "DeliveryDelay").count();
    assert_eq!(delays, 0);
}

#[test]
fn a_blocked_source_comes_back_by_one_probe_when_its_time_is_up() {
    let lab = Lab::new();
    let host = blocking(&lab, &[A]);
    let daemon = lab.daemon_with(config(&lab, "2s"));
    let (mut client, a) = (lab.client(&daemon), ip(&lab, A));
    send_until(&mut client, &host.mx, || !host.refused.lock().is_empty());
    let blocked_at = host.refused.lock()[0].1;
    let connections = || host.mx.peers().iter().filter(|peer| **peer == a).count();
    // What was on its way by A goes by B.
    daemon.wait_empty();
    let before = connections();
    host.refuses.change(Vec::clear);
    host.gate.change(|open| *open = false);
    // By B, until the time is up; then one message takes A, and is held.
    let look = || {
        client.send_simple(FROM, &["you@example.test"], "steady");
        (connections() > before).then(now)
    };
    let probed_at = poll(look, || "A does not come back".to_owned());
    assert!(probed_at.duration_since(blocked_at) >= Duration::from_secs(2), "before its time is up");
    let arrived = host.mx.accepted().len();
    for _ in 0..20 {
        client.send_simple(FROM, &["you@example.test"], "meanwhile");
    }
    host.mx.wait_accepted(arrived + 20);
    assert_eq!(connections(), before + 1, "one probe, and nothing else while it is under way");
    host.gate.change(|open| *open = true);
    let mut events = daemon.events();
    wait_change(&mut events, "unblocked", 'a');
    let probes = by_source(&host.mx.accepted())[&a];
    send_until(&mut client, &host.mx, || by_source(&host.mx.accepted())[&a] > probes + 3);
    daemon.wait_empty();
    let seen = events.seen();
    assert_eq!((changes(seen, "blocked", None).len(), changes(seen, "unblocked", None).len()), (1, 1));
    assert_eq!(host.refused.lock().len(), 1);
}

#[test]
fn a_probe_for_somebody_who_is_not_there_leaves_the_source_blocked_until_a_message_is_taken() {
    let lab = Lab::new();
    let host = blocking(&lab, &[A]);
    // It bounces a lot.
    let daemon = lab.daemon_with(config(&lab, "2s").set("reputation.automatic_pause", "false"));
    let (mut client, a) = (lab.client(&daemon), ip(&lab, A));
    send_until(&mut client, &host.mx, || !host.refused.lock().is_empty());
    host.refuses.change(Vec::clear);
    daemon.wait_empty();
    let connections = || host.mx.peers().iter().filter(|peer| **peer == a).count();
    let before = connections();
    let mut number = 0;
    let look = || {
        // Another one each time: whom a host does not know gets nothing more.
        number += 1;
        client.send_simple(FROM, &[&format!("nobody{number}@example.test")], "in vain");
        (connections() > before).then_some(())
    };
    poll(look, || "A does not come back".to_owned());
    daemon.wait_empty();
    assert!(!by_source(&host.mx.accepted()).contains_key(&a));
    send_until(&mut client, &host.mx, || by_source(&host.mx.accepted()).contains_key(&a));
    let mut events = daemon.events();
    wait_change(&mut events, "unblocked", 'a');
    let seen = events.seen();
    let place = |is_it: &dyn Fn(&serde_json::Value) -> bool| seen.iter().position(is_it).unwrap();
    let by_a = |kind: &str| place(&|event| event["eventType"] == kind && event["posthaste"]["source"] == a.to_string());
    let unblocked = place(&|event| event["lane"]["change"] == "unblocked");
    let (in_vain, taken) = (by_a("Bounce"), by_a("Delivery"));
    assert!(in_vain < taken && taken < unblocked, "{in_vain} {taken} {unblocked}");
}

#[test]
fn where_all_sources_are_blocked_mail_waits_one_event_tells_and_it_is_delivered_in_the_end() {
    const MESSAGES: usize = 10;
    let lab = Lab::new();
    let host = blocking(&lab, &[A, B]);
    let daemon = lab.daemon_with(config(&lab, "5s"));
    let mut client = lab.client(&daemon);
    client.send_simple(FROM, &["first@example.test"], "first");
    let mut events = daemon.events();
    events.wait_until(|seen| changes(seen, "pool-blocked", None).first().map(|_| ()));
    for number in 1..MESSAGES {
        client.send_simple(FROM, &[&format!("user{number}@example.test")], "waits");
    }
    assert_eq!(daemon.queue().len(), MESSAGES, "all wait");
    let asked = host.refused.lock().clone();
    assert_eq!(asked.len(), 2, "each source was told once: {asked:?}");
    host.refuses.change(Vec::clear);
    let all = host.mx.wait_accepted(MESSAGES);
    daemon.wait_empty();
    let blocked_at = asked.iter().map(|(_, at)| *at).min().unwrap();
    assert!(
        all.iter().all(|one| one.at.duration_since(blocked_at) >= Duration::from_secs(5)),
        "nothing goes before the time is up"
    );
    events.wait_until(|seen| changes(seen, "pool-unblocked", None).first().map(|_| ()));
    daemon.stop();
    let events = Events::read_all(&daemon.events_path());
    let count = |change: &str| changes(&events, change, None).len();
    assert_eq!((count("pool-blocked"), count("pool-unblocked"), count("blocked")), (1, 1, 2));
    assert!(!events.iter().any(|event| event["eventType"] == "Bounce"), "{events:#?}");
    let attempts = |event: &serde_json::Value| event["posthaste"]["attempt"].as_u64();
    let most = events.iter().filter(|event| event["eventType"] == "Delivery").filter_map(attempts).max();
    assert_eq!(most, Some(3), "two blocks and the delivery: who waits makes no attempts");
}
