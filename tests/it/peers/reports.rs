//! Bounces that a real mail server makes: it takes a message, cannot deliver it, and says so to the return path.

use std::net::{IpAddr, SocketAddr};

use super::postfix::Postfix;
use crate::harness::*;

#[test]
fn what_postfix_bounces_after_it_took_it_comes_home_as_a_bounce_of_the_right_message() {
    let lab = Lab::new();
    lab.domain("receiver.test", &[2]);
    let config = lab
        .config()
        .set("return_path.domain", "\"bounces.op.test\"")
        .table("[[listener]]\nname = \"home\"\naddress = \"127.0.0.1:0\"\ntakes = \"feedback\"\n");
    let daemon = lab.daemon_with(config);
    // The host behind Postfix refuses what Postfix has taken.
    let last = lab.mx_scripted(3, |ask| match (ask.stage, ask.recipient) {
        (Stage::Rcpt, "gone@receiver.test") => Answer::say("550 5.1.1 no such user here"),
        (Stage::Rcpt, "strict@receiver.test") => Answer::say("550 5.7.1 not from you"),
        _ => Answer::Usual,
    });
    let (ip, port) = (last.address().ip(), last.address().port());
    let settings = format!("transport_maps = inline:{{ {{ receiver.test = smtp:[{ip}]:{port} }} }}\n");
    let receiver = SocketAddr::new(IpAddr::V4(lab.ip(2)), lab.port());
    let postfix = Postfix::upstream(receiver, daemon.listener_addr("home"), &settings);
    let message = format!("X-SES-MESSAGE-TAGS: campaign=spring\r\n{}", simple("to Postfix"));
    let mut events = daemon.events();
    for (to, class, kinds) in [
        ("gone@receiver.test", "bad-mailbox", ("Permanent", "NoEmail")),
        ("strict@receiver.test", "policy", ("Transient", "General")),
    ] {
        let id = lab.client(&daemon).send("app@sender.example", &[to], &message);
        events.wait_kind("Delivery", &id, to);
        let event = events.wait_kind("Bounce", &id, to);
        let bounce = &event["bounce"];
        assert_eq!((&bounce["bounceType"], &bounce["bounceSubType"]), (&kinds.0.into(), &kinds.1.into()), "{event:#}");
        assert_eq!(bounce["reportingMTA"], "dns; upstream.sender.example");
        assert_eq!(event["posthaste"]["class"], class, "{event:#}");
        assert_eq!(event["mail"]["tags"]["campaign"], serde_json::json!(["spring"]));
    }
    postfix.wait_log(&["removed"]);
    // Only one of them is not there.
    let mut outcome = |to: &str| {
        let id = lab.client(&daemon).send("app@sender.example", &[to], &message);
        let subtype = |event: &serde_json::Value| event["bounce"]["bounceSubType"] == "OnAccountSuppressionList";
        events
            .wait_for(|event| event["mail"]["messageId"] == id && (event["eventType"] == "Delivery" || subtype(event)))
            ["eventType"]
            .clone()
    };
    assert_eq!((outcome("gone@receiver.test"), outcome("strict@receiver.test")), ("Bounce".into(), "Delivery".into()));
    daemon.stop();
}
