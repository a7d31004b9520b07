//! Orderly stops and what a new start makes of what was left.

use std::time::Duration;

use crate::harness::*;

#[test]
fn a_message_arrives_and_its_events_are_written() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let daemon = lab.daemon();
    let id = lab.client(&daemon).send_simple("app@sender.example", &["you@example.test"], "first");
    let got = mx.wait_accepted(1);
    assert_eq!(got[0].subject(), "first");
    assert_eq!(got[0].recipients, ["you@example.test"]);
    let mut events = daemon.events();
    let send = events.wait_kind("Send", &id, "you@example.test");
    let delivery = events.wait_kind("Delivery", &id, "you@example.test");
    assert_eq!(send["mail"]["source"], "app@sender.example");
    assert_eq!(delivery["delivery"]["smtpResponse"], "250 2.0.0 Taken");
    assert_eq!(delivery["delivery"]["remoteMtaIp"], lab.ip(2).to_string());
    assert_eq!(delivery["posthaste"]["attempt"], 1);
    assert_eq!(delivery["posthaste"]["ambiguous"], false);
    daemon.wait_empty();
    daemon.stop();
}

#[test]
fn deferred_mail_keeps_its_due_time_and_its_count_of_attempts_across_a_restart() {
    const PAUSE: Duration = Duration::from_secs(4);
    let lab = Lab::new();
    let asked_at = Watched::new(Vec::new());
    let times = asked_at.clone();
    let mx = lab.mx_scripted(2, move |ask| {
        if ask.stage != Stage::Rcpt {
            return Answer::Usual;
        }
        times.change(|times| times.push(now()));
        if ask.asked == 1 { Answer::say("450 4.2.0 Not now") } else { Answer::Usual }
    });
    lab.domain("example.test", &[2]);
    let mut daemon = lab.daemon_with(lab.config().set("retry.steps", "[\"4s\"]"));
    let id = lab.client(&daemon).send_simple("app@sender.example", &["you@example.test"], "later");
    let is_deferred =
        |queue: &[serde_json::Value]| queue.len() == 1 && queue[0]["state"] == "deferred" && queue[0]["attempts"] == 1;
    let before = daemon.wait_queue("the message is deferred", is_deferred);
    daemon.restart();
    let after = daemon.queue();
    assert_eq!(after[0]["next_attempt_at"], before[0]["next_attempt_at"]);
    assert_eq!(after[0]["attempts"], 1);
    let delivery = daemon.events().wait_kind("Delivery", &id, "you@example.test");
    assert_eq!(delivery["posthaste"]["attempt"], 2, "{delivery:#}");
    assert_eq!(delivery["posthaste"]["ambiguous"], false, "the stop was orderly: {delivery:#}");
    let times = asked_at.lock().clone();
    assert_eq!(times.len(), 2);
    // The queue counts in milliseconds, and from a moment before the reply was settled.
    assert!(times[1] - times[0] + Duration::from_millis(50) >= PAUSE, "{:?} too early", times[1] - times[0]);
    assert_eq!(mx.accepted().len(), 1);
}

#[test]
fn sigterm_under_load_exits_with_0_and_loses_and_doubles_nothing() {
    let lab = Lab::new();
    let hosts = lab.one_and_two();
    let mut daemon = lab.daemon();
    let mut accepted = std::collections::BTreeMap::new();
    for _ in 0..2 {
        let load = Load::start(daemon.smtp_addr(), 4, &["one.test", "two.test"]);
        load.wait_accepted(100);
        daemon.signal(Signal::TERM);
        let status = daemon.wait_exit(Duration::from_secs(30));
        assert!(status.success(), "{status}");
        daemon.wait_log_from(0, "stopped quiet=true");
        accepted.extend(load.join().accepted);
        daemon.start_again();
    }
    daemon.wait_empty();
    daemon.stop();
    let events = Events::read_all(&daemon.events_path());
    let marked: Vec<_> = events.iter().filter(|event| event["posthaste"]["ambiguous"] == true).collect();
    assert!(marked.is_empty(), "after orderly stops nothing is in doubt: {marked:#?}");
    assert_nothing_lost_or_doubled(&accepted, &events, &[&hosts[0], &hosts[1]]);
}

#[test]
fn a_delivery_under_way_comes_to_its_end_before_the_stop() {
    let lab = Lab::new();
    let (mx, gate) = lab.mx_holding_dots(2);
    lab.domain("example.test", &[2]);
    let daemon = lab.daemon();
    let id = lab.client(&daemon).send_simple("app@sender.example", &["you@example.test"], "slow");
    mx.wait_transactions(1);
    daemon.signal(Signal::TERM);
    daemon.wait_log_from(0, "stopping: no new mail");
    assert!(!daemon.has_exited());
    gate.change(|open| *open = true);
    assert!(daemon.wait_exit(PATIENCE).success());
    let events = Events::read_all(&daemon.events_path());
    let delivered = |event: &&serde_json::Value| event["eventType"] == "Delivery" && event["mail"]["messageId"] == *id;
    assert_eq!(events.iter().filter(delivered).count(), 1, "{events:#?}");
    assert_eq!(mx.accepted().len(), 1);
}

#[test]
fn a_second_sigterm_ends_at_once_and_what_it_cuts_off_is_repeated_and_marked() {
    let lab = Lab::new();
    let gate = Watched::new(false);
    let shut = gate.clone();
    let mx = lab.mx_scripted(2, move |ask| {
        let holds = ask.stage == Stage::Dot && ask.connection == 1;
        if holds { Answer::Hold(shut.clone(), Box::new(Answer::Usual)) } else { Answer::Usual }
    });
    lab.domain("example.test", &[2]);
    // Far longer than anybody waits here: an exit is due to the second signal.
    let mut daemon = lab.daemon_with(lab.config().set("shutdown.deadline", "\"1h\""));
    let id = lab.client(&daemon).send_simple("app@sender.example", &["you@example.test"], "stuck");
    mx.wait_transactions(1);
    daemon.signal(Signal::TERM);
    daemon.wait_log_from(0, "stopping: no new mail");
    daemon.signal(Signal::TERM);
    daemon.wait_exit(PATIENCE);
    daemon.wait_log_from(0, "a second signal: deliveries in flight are cut");
    gate.change(|open| *open = true);
    daemon.start_again();
    let delivery = daemon.events().wait_kind("Delivery", &id, "you@example.test");
    assert_eq!(delivery["posthaste"]["ambiguous"], true, "{delivery:#}");
    assert_eq!(mx.accepted().len(), 2);
}
