//! Scenarios 12 and 13: what 421 says is learned, and costs no message an attempt.
//!
//! That the number of connections climbs again takes holds of minutes: the tests of `src/policy/lane/window.rs` and the simulation show
//! it, in virtual time.

use std::time::Duration;

use super::{A, assert_first_attempts, config_with, send_some};
use crate::harness::*;

/// Connections that the host lets in, of the ten that it could get.
const LET_IN: usize = 3;
const MESSAGES: usize = 600;

/// One who turns away every connection above [`LET_IN`]; and whether it did so, by connection.
fn crowded(lab: &Lab) -> (Mx, Watched<Vec<bool>>) {
    let refused = Watched::new(Vec::new());
    let told = refused.clone();
    let mx = lab.mx_scripted(2, move |ask| match ask.stage {
        Stage::Connect => {
            let is_full = ask.open > LET_IN;
            told.change(|all| all.push(is_full));
            if is_full { Answer::say_and_close("421 4.3.2 All lines are busy") } else { Answer::Usual }
        }
        Stage::Dot => Answer::slow(Duration::from_millis(15)),
        _ => Answer::Usual,
    });
    lab.domain("example.test", &[2]);
    (mx, refused)
}

/// Short connections, so that there are many of them.
fn config(lab: &Lab) -> ConfigText {
    config_with(lab, &[A]).set("delivery.messages_per_connection_max", "5").set("retry.steps", "[\"10m\"]")
}

#[test]
fn a_host_that_turns_connections_away_is_left_with_as_many_as_it_lets_in() {
    let lab = Lab::new();
    let (mx, refused) = crowded(&lab);
    let daemon = lab.daemon_with(config(&lab));
    send_some(&mut lab.client(&daemon), "example.test", MESSAGES);
    mx.wait_accepted(MESSAGES);
    daemon.wait_empty();
    let refused = refused.lock().clone();
    let settled = &refused[refused.len() / 4..];
    assert!(refused.contains(&true), "more than {LET_IN} were tried");
    assert!(settled.len() > 60, "{}", settled.len());
    let late = settled.iter().filter(|is_refused| **is_refused).count();
    assert!(late * 20 < settled.len(), "{late} of {} are refused once it is known", settled.len());
    assert_eq!(mx.peaks().values().max(), Some(&LET_IN), "what it lets in is used");
    assert_first_attempts(&daemon, MESSAGES);
}

#[test]
fn what_was_learned_of_connections_outlives_a_restart() {
    let lab = Lab::new();
    let (mx, refused) = crowded(&lab);
    let mut daemon = lab.daemon_with(config(&lab));
    send_some(&mut lab.client(&daemon), "example.test", 200);
    mx.wait_accepted(200);
    daemon.wait_empty();
    daemon.restart();
    let before = refused.lock().len();
    send_some(&mut lab.client(&daemon), "example.test", 200);
    mx.wait_accepted(400);
    daemon.wait_empty();
    let refused = refused.lock().clone();
    let late = refused[before..].iter().filter(|is_refused| **is_refused).count();
    // Above what is known nothing is tried for five minutes.
    assert!(late <= 1, "{late} of {}", refused.len() - before);
    assert_first_attempts(&daemon, 400);
}

/// Messages that the host takes on one connection.
const TAKES: usize = 7;

/// One who ends each connection behind [`TAKES`] messages; and how often it had to.
fn impatient(lab: &Lab) -> (Mx, Watched<usize>) {
    let ended = Watched::new(0);
    let told = ended.clone();
    let mx = lab.mx_scripted(2, move |ask| match ask.stage {
        Stage::Mail if ask.messages == TAKES => {
            told.change(|count| *count += 1);
            Answer::say_and_close("421 4.7.0 Enough on this connection")
        }
        _ => Answer::Usual,
    });
    lab.domain("example.test", &[2]);
    (mx, ended)
}

#[test]
fn a_host_that_ends_connections_behind_some_messages_gets_no_more_on_one() {
    const CONNECTIONS: usize = 3;
    let lab = Lab::new();
    let (mx, ended) = impatient(&lab);
    let config = config_with(&lab, &[A]).set("delivery.connections_per_site_max", &CONNECTIONS.to_string());
    let mut daemon = lab.daemon_with(config.set("retry.steps", "[\"10m\"]"));
    send_some(&mut lab.client(&daemon), "example.test", 210);
    mx.wait_accepted(210);
    daemon.wait_empty();
    let taught = *ended.lock();
    // Connections that were under way when one was ended; twice, since each lesson takes at most a quarter: 100, 25, 7.
    assert!((2..=2 * CONNECTIONS).contains(&taught), "ended {taught} times");
    assert_first_attempts(&daemon, 210);

    daemon.restart();
    send_some(&mut lab.client(&daemon), "example.test", 70);
    mx.wait_accepted(280);
    daemon.wait_empty();
    assert_eq!(*ended.lock(), taught, "it was known after the restart");
    assert_first_attempts(&daemon, 280);
}
