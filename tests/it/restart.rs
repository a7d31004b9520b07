//! Orderly stops and what a new start makes of what was left.

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
    events.wait_kind("Send", &id, "you@example.test");
    events.wait_kind("Delivery", &id, "you@example.test");
    daemon.wait_empty();
    daemon.stop();
}
