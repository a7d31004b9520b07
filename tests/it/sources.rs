//! Sources, pools and priorities as an administrator sets them: what hosts see, what events tell, what is refused.

use crate::harness::*;

const FROM: &str = "app@sender.example";

fn source(name: &str, text: &str) -> String {
    format!("[[source]]\nname = \"{name}\"\n{text}\n")
}

fn pool(name: &str, sources: &str) -> String {
    format!("[[pool]]\nname = \"{name}\"\nsources = [{sources}]\n")
}

#[test]
fn a_source_says_its_own_name_and_events_tell_the_pool() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let config = lab
        .config()
        .table(&source("near", &format!("address = \"{}\"\nehlo_name = \"near.sender.example\"", lab.ip(9))))
        .table(&pool("default", "\"near\""))
        .table(&pool("own", "\"near\""))
        .table("[[tenant]]\nname = \"local\"\nsenders = \"any\"\npool = \"own\"\n");
    let daemon = lab.daemon_with(config);
    let id = lab.client(&daemon).send_simple(FROM, &["you@example.test"], "named");
    assert_eq!(mx.wait_accepted(1)[0].peer.ip(), lab.ip(9));
    assert!(mx.commands().iter().any(|(_, line)| line == "EHLO near.sender.example"), "{:?}", mx.commands());
    let delivery = daemon.events().wait_kind("Delivery", &id, "you@example.test");
    assert_eq!(delivery["posthaste"]["pool"], "own", "{delivery:#}");
    assert_eq!(delivery["posthaste"]["source"], lab.ip(9).to_string(), "{delivery:#}");
}

#[test]
fn a_priority_is_read_stripped_and_refused_where_it_is_none() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let daemon = lab.daemon();
    let with = |priority: &str| format!("X-Posthaste-Priority: {priority}\r\n{}", simple(priority));
    let mut client = lab.client(&daemon);
    client.send(FROM, &["you@example.test"], &with("High"));
    assert_eq!(mx.wait_accepted(1)[0].subject(), "High");
    assert!(!mx.accepted()[0].text().to_ascii_lowercase().contains("x-posthaste"), "{}", mx.accepted()[0].text());
    client.envelope(FROM, &["you@example.test"]).unwrap();
    let reply = client.body(with("urgent").as_bytes()).unwrap();
    let expected = "Message rejected: X-Posthaste-Priority \"urgent\" is not high, normal or bulk";
    assert_eq!(reply.code, 554, "{}", reply.text);
    assert!(reply.text.contains(expected), "{}", reply.text);
}

#[test]
fn a_reload_takes_sources_and_pools_away_and_their_mail_goes_on() {
    let lab = Lab::new();
    let mx = lab.mx_scripted(2, |ask| {
        let defers = ask.stage == Stage::Rcpt && ask.asked == 1;
        if defers { Answer::say("451 4.2.1 Not now") } else { Answer::Usual }
    });
    lab.domain("example.test", &[2]);
    let two = |config: ConfigText| {
        config
            .table(&source("old", &format!("address = \"{}\"", lab.ip(9))))
            .table(&source("new", &format!("address = \"{}\"", lab.ip(8))))
            .table(&pool("default", "\"old\""))
            .table(&pool("own", "\"old\""))
            .table(&pool("other", "\"new\""))
            .table("[[tenant]]\nname = \"local\"\nsenders = \"any\"\npool = \"own\"\n")
    };
    // By then the connection from the old source is gone.
    let config = lab.config().set("retry.steps", "[\"5s\"]").set("delivery.idle_timeout", "\"1s\"");
    let mut daemon = lab.daemon_with(two(config));
    lab.client(&daemon).send_simple(FROM, &["you@example.test"], "moved");
    mx.wait_asked("you@example.test", 1);
    daemon.reload(|config| {
        let config = config.without_tables("source").without_tables("pool").without_tables("tenant");
        config.table(&source("new", &format!("address = \"{}\"", lab.ip(8))))
    });
    assert_eq!(mx.wait_accepted(1)[0].peer.ip(), lab.ip(8));
    daemon.wait_empty();
}
