//! The mailbox simulator from outside: mail to each mailbox ends in its event, with no host, no DNS and no return path configured; and
//! nothing of it counts anywhere.

use serde_json::Value;

use crate::harness::*;

const FROM: &str = "app@sender.example";
const DOMAIN: &str = "simulator.op.test";

fn to(mailbox: &str) -> String {
    format!("{mailbox}@{DOMAIN}")
}

/// No private address is allowed, and no name is in any DNS.
fn config(lab: &Lab) -> ConfigText {
    lab.config()
        .set("simulator.domain", &format!("{DOMAIN:?}"))
        .set("delivery.allow_private_addresses", "false")
        .set("delivery.idle_timeout", "\"1s\"")
}

fn message(header: &str) -> String {
    format!("{header}From: {FROM}\r\nSubject: tagged\r\nX-SES-MESSAGE-TAGS: campaign=spring\r\n\r\nhello\r\n")
}

fn send(lab: &Lab, daemon: &Daemon, mailbox: &str) -> String {
    lab.client(daemon).send(FROM, &[&to(mailbox)], &message(""))
}

/// Kinds of the events of this message, `Send` aside, in order.
fn kinds(daemon: &Daemon, id: &str) -> Vec<String> {
    let events = Events::read_all(&daemon.events_path()).into_iter();
    let of_message = events.filter(|event| event["mail"]["messageId"] == id && event["eventType"] != "Send");
    of_message.map(|event| event["eventType"].as_str().unwrap().to_owned()).collect()
}

/// A metric's value; 0 where there is none.
fn metric(address: std::net::SocketAddr, line: &str) -> u64 {
    let text = posthaste_metrics(address);
    let found = text.lines().find_map(|one| one.strip_prefix(line));
    found.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

fn posthaste_metrics(address: std::net::SocketAddr) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn free_address() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn the_five_mailboxes_of_the_reference_have_their_events_with_tags_and_labels() {
    let lab = Lab::new();
    let metrics = free_address();
    let daemon = lab.daemon_with(config(&lab).set("metrics.address", &format!("\"{metrics}\"")));
    let mut events = daemon.events();
    let mut wait = |mailbox: &str, kinds: &[&str]| -> (String, Value) {
        let id = send(&lab, &daemon, mailbox);
        let told: Vec<Value> = kinds
            .iter()
            .map(|kind| match *kind {
                "Complaint" => {
                    events.wait_for(|event| event["eventType"] == "Complaint" && event["mail"]["messageId"] == id)
                }
                kind => events.wait_kind(kind, &id, &to(mailbox)),
            })
            .collect();
        for event in &told {
            assert_eq!(event["mail"]["tags"]["campaign"], serde_json::json!(["spring"]), "{event:#}");
            assert_eq!(event["mail"]["destination"], serde_json::json!([to(mailbox)]), "{event:#}");
            assert_eq!(event["mail"]["source"], FROM, "{event:#}");
        }
        (id, told.last().unwrap().clone())
    };

    let (success, event) = wait("success+order.17", &["Delivery"]);
    assert_eq!(event["delivery"]["recipients"], serde_json::json!([to("success+order.17")]));
    assert_eq!(event["posthaste"]["site"], "simulator:built-in", "{event:#}");

    let (bounce, event) = wait("bounce+Label", &["Bounce"]);
    assert_eq!(event["bounce"]["bounceType"], "Permanent");
    assert_eq!(event["bounce"]["bouncedRecipients"][0]["emailAddress"], to("bounce+Label"));
    assert_eq!(event["bounce"]["bouncedRecipients"][0]["status"], "5.1.1");

    let (ooto, _) = wait("ooto+a", &["Delivery"]);

    let (complaint, event) = wait("complaint+b", &["Delivery", "Complaint"]);
    assert_eq!(event["complaint"]["complaintFeedbackType"], "abuse");
    assert_eq!(event["complaint"]["complainedRecipients"][0]["emailAddress"], to("complaint+b"));

    let (listed, event) = wait("suppressionlist+c", &["Bounce"]);
    assert_eq!(
        (&event["bounce"]["bounceType"], &event["bounce"]["bounceSubType"]),
        (&"Permanent".into(), &"Suppressed".into())
    );
    assert_eq!(event["posthaste"]["rule"], "suppressed-global", "{event:#}");

    let (late, event) = wait("latebounce+d", &["Delivery", "Bounce"]);
    assert_eq!(event["bounce"]["reportingMTA"], format!("dns; {DOMAIN}"));
    assert_eq!(event["bounce"]["bouncedRecipients"][0]["status"], "5.1.1");

    // The automatic answer came home, was understood, and is no event.
    let answers = || metric(metrics, "posthaste_feedback_messages_total{report=\"auto-reply\"}");
    poll(|| (answers() == 1).then_some(()), || posthaste_metrics(metrics));
    daemon.wait_empty();
    for (id, expected) in [
        (&success, &["Delivery"][..]),
        (&bounce, &["Bounce"]),
        (&ooto, &["Delivery"]),
        (&complaint, &["Delivery", "Complaint"]),
        (&listed, &["Bounce"]),
        (&late, &["Delivery", "Bounce"]),
    ] {
        assert_eq!(kinds(&daemon, id), expected);
    }
    assert!(!lab.dir().join("queue/feedback").exists(), "every report was understood");
    daemon.stop();
}

#[test]
fn scenarios_of_our_own_delay_refuse_and_take() {
    let lab = Lab::new();
    let daemon = lab.daemon_with(config(&lab));
    let mut events = daemon.events();
    let sent: Vec<(&str, &str, String)> = [
        ("defer", "Delivery"),
        ("greylist+x", "Delivery"),
        ("block", "Delivery"),
        ("421", "Delivery"),
        ("slow", "Delivery"),
        ("policy", "Bounce"),
        ("nobody", "Bounce"),
    ]
    .into_iter()
    .map(|(mailbox, kind)| (mailbox, kind, send(&lab, &daemon, mailbox)))
    .collect();
    for (mailbox, kind, id) in &sent {
        events.wait_kind(kind, id, &to(mailbox));
    }
    let status = |mailbox: &str| {
        let id = &sent.iter().find(|(name, ..)| *name == mailbox).unwrap().2;
        let event = daemon.events().wait_kind("Bounce", id, &to(mailbox));
        event["bounce"]["bouncedRecipients"][0]["status"].as_str().unwrap().to_owned()
    };
    assert_eq!([status("policy"), status("nobody")], ["5.7.1", "5.1.1"]);
    // What was deferred is deferred anew for the next message, and the block held nobody else up.
    let before = daemon.status()["deferred"].as_u64().unwrap();
    assert!(before >= 3, "defer, greylist, block");
    let again = send(&lab, &daemon, "defer");
    events.wait_kind("Delivery", &again, &to("defer"));
    assert_eq!(daemon.status()["deferred"].as_u64().unwrap(), before + 1);
    daemon.wait_empty();
    let lanes = &daemon.status()["lanes"];
    assert_eq!(
        (&lanes["blocked"], &lanes["suspended"], &lanes["slowed"]),
        (&0.into(), &0.into(), &0.into()),
        "{lanes:#}"
    );
    assert!(events.seen().iter().all(|event| event["eventType"] != "Lane"), "no source was blocked");
    daemon.stop();
}

#[test]
fn nothing_of_it_counts_in_quota_reputation_lists_or_warm_up() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let set = "[[configuration_set]]\nname = \"news\"\nwarmup = \"test\"\n";
    let config = config(&lab)
        .set("delivery.allow_private_addresses", "true")
        .set("sending.quota_per_day", "1")
        .set("reputation.recipients_min", "10")
        .table(&format!("[[source]]\nname = \"a\"\naddress = \"{}\"\nwarmup = \"test\"\n", lab.ip(9)))
        .table("[[warmup_plan]]\nname = \"test\"\ndays = { 1 = 24 }\n")
        .table(set);
    let mut daemon = lab.daemon_with(config);
    let mut events = daemon.events();
    let in_set =
        |mailbox: &str| lab.client(&daemon).send(FROM, &[&to(mailbox)], &message("X-SES-CONFIGURATION-SET: news\r\n"));
    // More than a quota, a plan's day, and every threshold of reputation let through; the same address bounces each time.
    for number in 0..30 {
        let id = in_set("bounce");
        let event = events.wait_kind("Bounce", &id, &to("bounce"));
        assert_eq!(event["bounce"]["bouncedRecipients"][0]["status"], "5.1.1", "{number}: {event:#}");
    }
    for mailbox in ["complaint", "latebounce"] {
        for _ in 0..3 {
            let id = in_set(mailbox);
            let kind = if mailbox == "complaint" { "Complaint" } else { "Bounce" };
            events.wait_for(|event| event["eventType"] == kind && event["mail"]["messageId"] == id);
        }
    }
    assert!(events.seen().iter().all(|event| event["eventType"] != "Reputation"));
    let scopes = daemon.cli(&["reputation"])["scopes"].as_array().cloned().unwrap_or_default();
    assert!(
        scopes
            .iter()
            .all(|scope| scope["delivered"].as_u64().unwrap_or(0) == 0 && scope["bounces"].as_u64().unwrap_or(0) == 0),
        "{scopes:#?}"
    );
    let quota = daemon.cli(&["quota"]);
    let used = |quota: &Value| {
        quota["scopes"].as_array().unwrap().iter().map(|row| row["used"].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!(used(&quota), 0, "{quota:#}");
    let listed = daemon.cli(&["suppression", "list", "--tenant", "local"]);
    assert!(listed["entries"].as_array().unwrap().is_empty(), "{listed:#}");
    let warmups = daemon.cli(&["warmup", "status"])["warmups"].as_array().cloned().unwrap_or_default();
    assert!(warmups.is_empty(), "{warmups:#?}");

    // The quota of one is all there, for one recipient beside any number of the simulator's, over a restart, too.
    daemon.restart();
    // What was counted is on the disk after a stop.
    let history = daemon.cli(&["warmup", "history", "--days", "2"]);
    assert!(!history.to_string().contains("simulator"), "{history:#}");
    let mut client = lab.client(&daemon);
    let both = ["real@example.test".to_owned(), to("success+1"), to("success+2")];
    let both: Vec<&str> = both.iter().map(String::as_str).collect();
    client.send(FROM, &both, &message(""));
    mx.wait_accepted(1);
    assert_eq!(mx.accepted()[0].recipients, ["real@example.test"]);
    client.envelope(FROM, &["other@example.test"]).unwrap();
    assert_eq!(client.body(message("").as_bytes()).unwrap().code, 454);
    let id = client.send(FROM, &[&to("success")], &message(""));
    daemon.events().wait_kind("Delivery", &id, &to("success"));
    daemon.stop();
}

#[test]
fn a_sandboxed_tenant_reaches_the_simulator_and_nobody_else() {
    let lab = Lab::new();
    let tenant = "[[tenant]]\nname = \"local\"\nsenders = \"any\"\nsandbox = true\n";
    let daemon = lab.daemon_with(config(&lab).table(tenant));
    // More than one a second.
    for number in 0..5 {
        let mailbox = format!("success+{number}");
        let id = send(&lab, &daemon, &mailbox);
        daemon.events().wait_kind("Delivery", &id, &to(&mailbox));
    }
    for stranger in ["you@example.test", "success@below.simulator.op.test"] {
        let mut client = lab.client(&daemon);
        client.envelope(FROM, &[stranger]).unwrap();
        let reply = client.body(message("").as_bytes()).unwrap();
        assert_eq!(reply.code, 554, "{reply:?}");
    }
    daemon.stop();
}

#[test]
fn it_comes_before_every_route_and_dns_leads_nobody_else_there() {
    let lab = Lab::new();
    let (relay, mx) = (lab.mx(3), lab.mx(2));
    lab.domain("example.test", &[2]);
    // Who names the simulator as his mail host gets what DNS says of it, which is nothing.
    lab.dns.mx("trick.test", &[(10, DOMAIN)]);
    lab.dns.a(&format!("mx.{DOMAIN}"), lab.ip(2));
    lab.dns.mx("below.simulator.op.test", &[(10, &format!("mx.{DOMAIN}"))]);
    let route = format!(
        "[[route]]\ndomains = [\"{DOMAIN}\", \"relayed.test\"]\nhost = \"{}\"\nport = {}\n",
        lab.ip(3),
        lab.port()
    );
    let config = config(&lab).set("delivery.allow_private_addresses", "true").table(&route);
    let daemon = lab.daemon_with(config);
    let id = send(&lab, &daemon, "success");
    daemon.events().wait_kind("Delivery", &id, &to("success"));
    let mut client = lab.client(&daemon);
    let others = ["a@relayed.test", "b@example.test", "success@below.simulator.op.test"];
    others.iter().for_each(|other| drop(client.send(FROM, &[other], &message(""))));
    relay.wait_accepted(1);
    mx.wait_accepted(2);
    assert_eq!(
        relay.accepted().iter().chain(&mx.accepted()).filter(|sent| sent.recipients == [to("success")]).count(),
        0
    );
    client.send(FROM, &["success@trick.test"], &message(""));
    let waits = || daemon.queue().first().and_then(|one| one["waits_for"].as_str().map(str::to_owned));
    poll(waits, || daemon.log_tail());
    assert_eq!(daemon.queue()[0]["recipients"], serde_json::json!(["success@trick.test"]));
    let explained = daemon.cli(&["explain", DOMAIN]);
    assert_eq!(explained["route"]["kind"], "simulator", "{explained:#}");
    assert_eq!(explained["site"]["pool"], "simulator", "{explained:#}");
    daemon.stop();
}

#[test]
fn a_return_path_of_the_operator_is_used_and_a_message_that_must_be_encrypted_passes() {
    let lab = Lab::new();
    let set = "[[configuration_set]]\nname = \"strict\"\ntls = \"require\"\nreturn_path = \"per-message\"\n";
    let daemon = lab.daemon_with(config(&lab).set("return_path.domain", "\"bounces.op.test\"").table(set));
    let both = [to("complaint+1"), to("complaint+2")];
    let both: Vec<&str> = both.iter().map(String::as_str).collect();
    let id = lab.client(&daemon).send(FROM, &both, &message("X-SES-CONFIGURATION-SET: strict\r\n"));
    let mut events = daemon.events();
    for one in &both {
        let complained = |event: &Value| event["complaint"]["complainedRecipients"][0]["emailAddress"] == *one;
        events.wait_for(|event| event["mail"]["messageId"] == id && complained(event));
    }
    daemon.stop();
}

#[test]
fn a_reload_turns_it_on_and_off_and_moves_it() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain(DOMAIN, &[2]);
    let plain = || lab.config();
    let mut daemon = lab.daemon_with(plain());
    let mut events = daemon.events();
    send(&lab, &daemon, "bounce");
    mx.wait_accepted(1);
    daemon.reload(|config| config.set("simulator.domain", &format!("{DOMAIN:?}")));
    let complained = send(&lab, &daemon, "complaint");
    events.wait_for(|event| event["eventType"] == "Complaint" && event["mail"]["messageId"] == complained);
    // A reload that changes nothing of it keeps what waits to be reported.
    let late = send(&lab, &daemon, "latebounce");
    events.wait_kind("Delivery", &late, &to("latebounce"));
    daemon.reload(|config| config.set("log.level", "\"debug\""));
    events.wait_kind("Bounce", &late, &to("latebounce"));
    daemon.reload(|config| config.set("simulator.domain", "\"other.op.test\""));
    let moved = lab.client(&daemon).send(FROM, &["bounce@other.op.test"], &message(""));
    events.wait_kind("Bounce", &moved, "bounce@other.op.test");
    send(&lab, &daemon, "bounce");
    mx.wait_accepted(2);
    daemon.reload(|_| plain());
    send(&lab, &daemon, "success");
    mx.wait_accepted(3);
    assert!(mx.accepted().iter().all(|sent| sent.from == FROM), "real hosts see the sender that was submitted");
    daemon.stop();
}
