//! Reputation of the running daemon, from outside: a set that mails to addresses that do not exist is warned, then paused, alone,
//! over a kill; resumed, its old sins do not count.

use serde_json::Value;

use crate::harness::*;

const PAUSED: &str = "4.7.0 Sending is paused for configuration set news";

/// A host that knows nobody whose address begins with `gone`.
fn strict_host(lab: &Lab) -> Mx {
    let mx = lab.mx_scripted(2, |ask| {
        let is_gone = ask.stage == Stage::Rcpt && ask.recipient.starts_with("gone");
        if is_gone { Answer::say("550 5.1.1 No such user") } else { Answer::Usual }
    });
    lab.domain("example.test", &[2]);
    mx
}

fn config(lab: &Lab) -> ConfigText {
    // The same addresses bounce again and again: none of them is held back.
    let set = |name: &str| format!("[[configuration_set]]\nname = \"{name}\"\nsuppression = []\n");
    lab.config().set("reputation.recipients_min", "40").table(&set("news")).table(&set("receipts"))
}

/// A message by a set, to so many addresses that exist and so many that do not; the reply that decided.
fn offer(client: &mut Client, set: &str, good: usize, gone: usize) -> Reply {
    let good = (0..good).map(|number| format!("user{number}@example.test"));
    let gone = (0..gone).map(|number| format!("gone{number}@example.test"));
    let to: Vec<String> = good.chain(gone).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    client.envelope("app@sender.example", &to).unwrap();
    let message = format!("X-SES-CONFIGURATION-SET: {set}\r\n{}", simple("reputation"));
    client.body(message.as_bytes()).unwrap()
}

/// Offers mail of the set until it is refused: the event is on its way a moment before.
fn wait_refused(client: &mut Client) -> Reply {
    let refused = || Some(offer(client, "news", 1, 0)).filter(|reply| reply.code != 250);
    poll(refused, || "mail of the set is still taken".to_owned())
}

fn is_change(event: &Value, scope: &str, name: &str, to: &str) -> bool {
    let of = &event["reputation"];
    event["eventType"] == "Reputation" && of["scope"] == scope && of["name"] == name && of["to"] == to
}

/// How a scope stands, by the command line.
fn standing(daemon: &Daemon, scope: &str, name: &str) -> Value {
    let page = daemon.cli(&["reputation", "--scope", scope]);
    let rows = page["scopes"].as_array().unwrap();
    rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {scope} {name}: {page:#}")).clone()
}

#[test]
fn a_set_that_bounces_is_warned_then_paused_alone_over_a_kill_and_goes_on_when_it_is_resumed() {
    let lab = Lab::new();
    let mx = strict_host(&lab);
    let mut daemon = lab.daemon_with(config(&lab));
    let mut events = daemon.events();
    let mut client = lab.client(&daemon);
    assert_eq!(offer(&mut client, "news", 47, 3).code, 250);
    let warned = events.wait_for(|event| is_change(event, "configuration_set", "news", "warned"));
    let of = &warned["reputation"];
    assert_eq!((&of["from"], &of["by"]), (&"healthy".into(), &"rates".into()));
    assert_eq!((&of["bounces"], &of["recipients"], &of["bounceRate"]), (&3.into(), &50.into(), &0.06.into()));
    assert_eq!(warned.get("mail"), None);
    assert_eq!(offer(&mut client, "receipts", 50, 0).code, 250);
    assert_eq!(offer(&mut client, "news", 0, 10).code, 250, "a warning stops nothing");

    let paused = events.wait_for(|event| is_change(event, "configuration_set", "news", "paused"));
    assert_eq!(paused["reputation"]["reason"], "21.666 % of 60 recipients bounced, the limit is 10 %");
    let refusal = wait_refused(&mut client);
    assert_eq!((refusal.code, refusal.text.as_str()), (454, PAUSED));
    assert_eq!(offer(&mut client, "receipts", 1, 0).code, 250, "another set of the same tenant goes on");
    let row = standing(&daemon, "configuration_set", "news");
    assert_eq!((&row["state"], &row["paused_by"]), (&"paused".into(), &"rates".into()));
    assert_ne!(standing(&daemon, "tenant", "local")["state"], "paused");

    daemon.kill();
    daemon.start_again();
    let mut client = lab.client(&daemon);
    assert_eq!(offer(&mut client, "news", 1, 0).text, PAUSED, "from the first message on");
    assert_eq!(standing(&daemon, "configuration_set", "news"), row, "a restart changes nothing");
    assert_eq!(offer(&mut client, "receipts", 1, 0).code, 250);

    let resumed = daemon.cli(&["reputation", "resume", "--set", "news", "--reason", "list cleaned"]);
    assert_eq!(resumed["state"], "healthy");
    let told = daemon.events().wait_for(|event| is_change(event, "configuration_set", "news", "healthy"));
    assert_eq!(
        (&told["reputation"]["from"], &told["reputation"]["by"], &told["reputation"]["reason"]),
        (&"paused".into(), &"operator".into(), &"list cleaned".into())
    );
    let before = mx.accepted().len();
    let id = offer(&mut client, "news", 1, 0).message_id();
    daemon.events().wait_kind("Delivery", &id, "user0@example.test");
    assert!(mx.accepted().len() > before);
    daemon.kill();
    daemon.start_again();
    // Judged again at the start, and two more times: each answer of the task is behind a look.
    let mut client = lab.client(&daemon);
    for _ in 0..3 {
        assert_eq!(offer(&mut client, "news", 1, 0).code, 250);
        assert_ne!(standing(&daemon, "configuration_set", "news")["state"], "paused");
    }
    daemon.stop();
    let all = Events::read_all(&daemon.events_path());
    let changes: Vec<_> = all.iter().filter(|event| event["reputation"]["name"] == "news").collect();
    let states: Vec<_> = changes.iter().map(|event| event["reputation"]["to"].as_str().unwrap()).collect();
    assert_eq!(states, ["warned", "paused", "healthy"], "each once, whatever was killed when");
    let audit: Vec<_> = audit_lines(lab.dir()).into_iter().filter(|line| line["type"] == "sending").collect();
    assert_eq!(audit.len(), 2, "{audit:#?}");
    assert_eq!((&audit[0]["enabled"], &audit[1]["by"]), (&false.into(), &"operator".into()));
}

#[test]
fn an_operator_pauses_a_tenant_and_the_command_says_what_is_wrong() {
    let lab = Lab::new();
    let _mx = strict_host(&lab);
    let daemon = lab.daemon_with(config(&lab));
    let mut client = lab.client(&daemon);
    assert_eq!(offer(&mut client, "news", 1, 0).code, 250);
    assert_eq!(daemon.cli(&["reputation", "pause", "--tenant", "local", "--reason", "asked to"])["state"], "paused");
    let refusal = client.command("MAIL FROM:<app@sender.example>").unwrap();
    assert_eq!((refusal.code, refusal.text.as_str()), (454, "4.7.0 Sending is paused for tenant local"));
    assert_eq!(daemon.cli_or_none(&["reputation", "pause", "--tenant", "local"]), None, "it is paused already");
    assert_eq!(daemon.cli_or_none(&["reputation", "pause", "--set", "unknown"]), None);
    assert_eq!(daemon.cli_or_none(&["reputation", "resume", "--set", "news"]), None, "it is not paused");
    let row = standing(&daemon, "tenant", "local");
    assert_eq!((&row["paused_by"], &row["reason"]), (&"operator".into(), &"asked to".into()));
    // A reload changes nothing of it.
    daemon.cli(&["status"]);
    assert_eq!(daemon.cli(&["reputation", "resume", "--tenant", "local"])["state"], "healthy");
    assert_eq!(offer(&mut client, "news", 1, 0).code, 250);
    daemon.stop();
}

#[test]
fn where_the_automatic_pause_is_off_a_reload_switches_it_on() {
    let lab = Lab::new();
    let _mx = strict_host(&lab);
    let mut daemon = lab.daemon_with(config(&lab).set("reputation.automatic_pause", "false"));
    let mut events = daemon.events();
    let mut client = lab.client(&daemon);
    assert_eq!(offer(&mut client, "news", 10, 40).code, 250);
    events.wait_for(|event| is_change(event, "configuration_set", "news", "critical"));
    assert_eq!(offer(&mut client, "news", 1, 0).code, 250);
    daemon.reload(|config| config.set("reputation.automatic_pause", "true"));
    events.wait_for(|event| is_change(event, "configuration_set", "news", "paused"));
    wait_refused(&mut client);
    // And what is paused stays so over a reload.
    daemon.reload(|config| config.set("reputation.automatic_pause", "false"));
    assert_eq!(offer(&mut client, "news", 1, 0).code, 454);
    daemon.stop();
}
