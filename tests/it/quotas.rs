//! Quotas of the running daemon: exact over restarts, kills and reloads, and answered as SES answers.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::*;

const DAILY: &str = "4.7.0 Throttling failure: Daily message quota exceeded";
const RATE: &str = "4.7.0 Throttling failure: Maximum sending rate exceeded";

/// Hands in a message to so many recipients; the reply that decided.
fn offer(client: &mut Client, recipients: usize) -> Reply {
    let mail = client.command("MAIL FROM:<app@sender.example>").unwrap();
    if mail.code != 250 {
        return mail;
    }
    for number in 0..recipients {
        assert_eq!(client.command(&format!("RCPT TO:<r{number}@example.test>")).unwrap().code, 250);
    }
    assert_eq!(client.command("DATA").unwrap().code, 354);
    client.body(simple("quota").as_bytes()).unwrap()
}

#[track_caller]
fn refused(reply: &Reply, text: &str) {
    assert_eq!((reply.code, reply.text.as_str()), (454, text));
}

/// Recipients of the last 24 hours by scope and name.
fn used(daemon: &Daemon) -> BTreeMap<String, u64> {
    let report = daemon.cli(&["quota"]);
    let scopes = report["scopes"].as_array().unwrap().iter();
    let row = |row: &Value| {
        let [scope, name] = ["scope", "name"].map(|key| row[key].as_str().unwrap().to_owned());
        (format!("{scope}/{name}"), row["used"].as_u64().unwrap())
    };
    scopes.map(row).collect()
}

fn used_by_server(daemon: &Daemon) -> u64 {
    used(daemon)["server/"]
}

#[test]
fn a_daily_quota_is_exact_over_restart_kill_and_reload() {
    let lab = Lab::new();
    let _mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let mut daemon = lab.daemon_with(lab.config().set("sending.quota_per_day", "10"));
    let mut client = lab.client(&daemon);
    assert_eq!(offer(&mut client, 4).code, 250);
    refused(&offer(&mut client, 7), DAILY);
    assert_eq!(used_by_server(&daemon), 4, "what was refused costs nothing");
    assert_eq!(offer(&mut client, 2).code, 250);

    daemon.restart();
    assert_eq!(used_by_server(&daemon), 6);
    let mut client = lab.client(&daemon);
    assert_eq!(offer(&mut client, 3).code, 250);
    daemon.kill();
    daemon.start_again();
    assert_eq!(used_by_server(&daemon), 9);
    let mut client = lab.client(&daemon);
    refused(&offer(&mut client, 2), DAILY);
    assert_eq!(offer(&mut client, 1).code, 250);
    // Now that nothing is left, MAIL is refused, in the session that is open as in others.
    refused(&client.command("MAIL FROM:<app@sender.example>").unwrap(), DAILY);

    daemon.reload(|config| config.set("sending.quota_per_day", "12"));
    refused(&offer(&mut client, 3), DAILY);
    assert_eq!(offer(&mut client, 2).code, 250);
    daemon.reload(|config| config.set("sending.quota_per_day", "5"));
    refused(&client.command("MAIL FROM:<app@sender.example>").unwrap(), DAILY);
    daemon.reload(|config| config.set("sending.quota_per_day", "13"));
    assert_eq!(offer(&mut client, 1).code, 250);
    assert_eq!(used_by_server(&daemon), 13);
}

#[test]
fn killed_under_load_the_daemon_counts_what_it_accepted_and_nothing_else() {
    let lab = Lab::new();
    let _hosts = lab.one_and_two();
    let mut daemon = lab.daemon();
    for round in 1..=3 {
        let load = Load::start(daemon.smtp_addr(), 4, &["one.test", "two.test"]);
        load.wait_accepted(40 * round);
        daemon.kill();
        load.join();
        daemon.start_again();
    }
    daemon.wait_empty();
    let counted = used_by_server(&daemon);
    daemon.stop();
    let events = Events::read_all(&daemon.events_path());
    let sent = events.iter().filter(|event| event["eventType"] == "Send" && event["mail"]["source"] != "");
    let recipients: usize = sent.map(|event| event["mail"]["destination"].as_array().unwrap().len()).sum();
    assert_eq!(counted, u64::try_from(recipients).unwrap());
    assert!(recipients >= 120);
}

#[test]
fn a_recovered_queue_keeps_what_was_charged() {
    let lab = Lab::new();
    let _mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let mut daemon = lab.daemon_with(lab.config().set("sending.quota_per_day", "10"));
    assert_eq!(offer(&mut lab.client(&daemon), 9).code, 250);
    daemon.wait_empty();
    daemon.stop();
    let (code, answer) = daemon.recover();
    assert_eq!(code, 0, "{answer:#}");
    daemon.start_again();
    assert_eq!(used_by_server(&daemon), 9);
    refused(&offer(&mut lab.client(&daemon), 2), DAILY);
}

#[test]
fn a_rate_lets_one_large_message_pass_and_refuses_the_next_with_its_own_text() {
    let lab = Lab::new();
    let _mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let daemon = lab.daemon_with(lab.config().set("sending.quota_per_second", "1"));
    let mut client = lab.client(&daemon);
    // 50 seconds' worth: whatever comes next is too early, however slow this machine is.
    assert_eq!(offer(&mut client, 50).code, 250);
    refused(&offer(&mut client, 1), RATE);
    assert_eq!(used_by_server(&daemon), 50);
}

#[test]
fn a_tenant_is_charged_beside_the_server_and_each_has_its_own_limit() {
    let lab = Lab::new();
    let _mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let tenant = |limit: u32| format!("[[tenant]]\nname = \"shop\"\nsenders = \"any\"\nquota_per_day = {limit}\n");
    let config = lab.config().set("relay.tenant", "\"shop\"").table(&tenant(5)).set("sending.quota_per_day", "100");
    let mut daemon = lab.daemon_with(config);
    let mut client = lab.client(&daemon);
    assert_eq!(offer(&mut client, 5).code, 250);
    refused(&offer(&mut client, 1), DAILY);
    let expected = [("server/".to_owned(), 5), ("tenant/shop".to_owned(), 5)];
    assert_eq!(used(&daemon), BTreeMap::from(expected));
    daemon.reload(|config| config.without_tables("tenant").table(&tenant(6)));
    assert_eq!(offer(&mut client, 1).code, 250);
}

#[test]
fn warnings_are_logged_once_at_80_and_100_percent_and_not_again_after_a_restart() {
    let lab = Lab::new();
    let _mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let mut daemon = lab.daemon_with(lab.config().set("sending.quota_per_day", "20"));
    let warnings = |daemon: &Daemon| {
        let lines = daemon.log_from(0).into_iter().filter(|line| line.contains("a daily quota is"));
        lines.map(|line| line.split("percent=").nth(1).unwrap().trim().to_owned()).collect::<Vec<_>>()
    };
    let mut client = lab.client(&daemon);
    for _ in 0..17 {
        assert_eq!(offer(&mut client, 1).code, 250);
    }
    daemon.wait_log_from(0, "a daily quota is");
    assert_eq!(warnings(&daemon), ["80"]);
    daemon.restart();
    let mut client = lab.client(&daemon);
    for _ in 0..3 {
        assert_eq!(offer(&mut client, 1).code, 250);
    }
    refused(&offer(&mut client, 1), DAILY);
    daemon.wait_log_from(0, "a daily quota is");
    assert_eq!(warnings(&daemon), ["100"]);
}
