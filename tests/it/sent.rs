//! What is remembered of recipients, by the whole daemon: through kill -9, and shown to an administrator.

use serde_json::Value;

use crate::harness::*;

/// The recipient of this address, as `queue sent` shows it.
fn recipient<'a>(report: &'a Value, address: &str) -> &'a Value {
    let recipients = report["recipients"].as_array().unwrap();
    recipients.iter().find(|recipient| recipient["address"] == address).unwrap_or_else(|| panic!("{report:#}"))
}

#[test]
fn what_became_of_a_message_is_remembered_when_it_has_left_the_queue_and_the_daemon_was_killed() {
    let lab = Lab::new();
    let _mx = lab.mx_scripted(2, |ask| {
        let is_bad = ask.stage == Stage::Rcpt && ask.line.contains("nobody");
        if is_bad { Answer::say("550 5.1.1 No such user") } else { Answer::Usual }
    });
    lab.domain("example.test", &[2]);
    let mut daemon = lab.daemon();
    let to = ["you@example.test", "nobody@example.test"];
    let id = lab.client(&daemon).send_simple("app@sender.example", &to, "kept");
    let mut events = daemon.events();
    events.wait_kind("Delivery", &id, to[0]);
    events.wait_kind("Bounce", &id, to[1]);
    assert!(daemon.cli_or_none(&["queue", "show", &id]).is_none(), "it left the queue");
    daemon.kill();
    daemon.start_again();
    let report = daemon.cli(&["queue", "sent", &id]);
    assert_eq!(report["sender"], "app@sender.example");
    assert!(report["tenant"].as_str().is_some_and(|tenant| !tenant.is_empty()), "{report:#}");
    let (good, bad) = (recipient(&report, to[0]), recipient(&report, to[1]));
    assert_eq!((&good["outcome"], &good["bounced_at"], &good["index"]), (&"delivered".into(), &Value::Null, &0.into()));
    assert_eq!((&bad["outcome"], &bad["bounced_at"]), (&"bounced".into(), &bad["ended_at"]));
    for recipient in [good, bad] {
        assert!(recipient["source"].is_string() && recipient["site"].is_string(), "{recipient:#}");
    }
    daemon.stop();
}
