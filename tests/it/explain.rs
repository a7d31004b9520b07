//! No silent wait (scenario 35): `explain` and `why` name rule, reply, limit and end of what holds mail back.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::harness::*;

const FROM: &str = "app@sender.test";
const REFUSAL: &str = "550 5.7.1 Our partner wants nothing from this address";

/// Two sources, `a1` at host 9 and `a2` at host 8; mail of applications goes by the pool `own` of `a1` alone.
fn config(lab: &Lab) -> ConfigText {
    let source = |name: &str, host| format!("[[source]]\nname = \"{name}\"\naddress = \"{}\"\n", lab.ip(host));
    lab.config()
        .table(&source("a1", 9))
        .table(&source("a2", 8))
        .table("[[pool]]\nname = \"default\"\nsources = [\"a1\", \"a2\"]\n")
        .table("[[pool]]\nname = \"own\"\nsources = [\"a1\"]\n")
        .table("[[tenant]]\nname = \"local\"\nsenders = \"any\"\npool = \"own\"\n")
}

/// Writes a file of rules, and names it in the config.
fn with_rules(lab: &Lab, config: ConfigText, key: &str, text: &str) -> ConfigText {
    let path = lab.dir().join(format!("{key}.toml"));
    fs::write(&path, text).unwrap();
    config.set(&format!("rules.{key}"), &format!("{path:?}"))
}

/// Exit code and output of a command, as an administrator sees it.
fn told(lab: &Lab, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_posthaste"))
        .args(arguments)
        .arg("--socket")
        .arg(lab.dir().join("admin.sock"))
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

/// What `why` says of the first recipient, once it names what is waited for.
fn wait_why(daemon: &Daemon, id: &str, text: &str) -> Value {
    let first = || daemon.cli(&["why", id])["recipients"][0].clone();
    let look = || Some(first()).filter(|first| first["waits_for"].as_str().is_some_and(|reason| reason.contains(text)));
    poll(look, || format!("{:#}\n{}", first(), daemon.log_tail()))
}

fn source<'a>(explained: &'a Value, name: &str) -> &'a Value {
    let sources = explained["site"]["sources"].as_array().unwrap();
    sources.iter().find(|source| source["source"] == name).unwrap_or_else(|| panic!("{explained:#}"))
}

#[test]
fn a_blocked_source_is_named_with_its_rule_its_reply_and_its_end() {
    let lab = Lab::new();
    let blocked = lab.ip(9);
    let _mx = lab.mx_scripted(2, move |ask| match ask.stage {
        Stage::Mail if ask.peer.ip() == blocked => Answer::say(REFUSAL),
        _ => Answer::Usual,
    });
    lab.domain("example.test", &[2]);
    let rule = "[[rule]]\nname = \"partner-block\"\ntext = [\"our partner wants nothing\"]\nclass = \"ip-block\"\n\
        react = { do = \"block\", for = \"1h\" }\n";
    let daemon = lab.daemon_with(with_rules(&lab, config(&lab), "replies", rule));
    let id = lab.client(&daemon).send_simple(FROM, &["you@example.test"], "blocked");

    let why = wait_why(&daemon, &id, "source a1 is blocked there until ");
    assert_eq!(why["waits_rule"], "partner-block", "{why:#}");
    assert!(why["waits_reply"].as_str().unwrap().contains("Our partner wants nothing"), "{why:#}");
    assert_eq!((&why["pool"], &why["site"]), (&"own".into(), &"mx2.example.test".into()), "{why:#}");
    let until = why["waits_until"].as_str().unwrap().to_owned();
    let (code, text) = told(&lab, &["why", &id]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("by rule partner-block") && text.contains(&until), "{text}");

    let explained = daemon.cli(&["explain", "you@example.test"]);
    assert_eq!(explained["route"]["hosts"][0]["host"], "mx2.example.test", "{explained:#}");
    let (a1, a2) = (source(&explained, "a1"), source(&explained, "a2"));
    assert_eq!((&a1["state"], &a1["rule"], &a1["next"]), (&"blocked".into(), &"partner-block".into(), &false.into()));
    assert_eq!(a1["until"], until.as_str(), "{explained:#}");
    assert_eq!((&a2["state"], &a2["next"]), (&"free".into(), &true.into()), "{explained:#}");
    let of_pool = daemon.cli(&["explain", "example.test", "--pool", "own"]);
    assert_eq!(of_pool["site"]["sources"].as_array().unwrap().len(), 1, "{of_pool:#}");
    let queue = &of_pool["site"]["queues"][0];
    assert_eq!((&queue["pool"], &queue["normal"], &queue["blocked"]), (&"own".into(), &1.into(), &true.into()));
    let (code, text) = told(&lab, &["explain", "mx2.example.test"]);
    assert!(code == 0 && text.contains("by rule partner-block") && text.contains("next"), "{text}");
    let (code, text) = told(&lab, &["explain", "example.test", "--pool", "nobodys"]);
    assert!(code == 4 && text.contains("there are default, own"), "{text}");

    let status = daemon.status();
    assert_eq!((&status["lanes"]["blocked"], &status["lanes"]["pools_blocked"]), (&1.into(), &1.into()), "{status:#}");
}

#[test]
fn a_rate_limit_of_a_provider_is_told_as_what_a_message_waits_for() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let rule = "[[provider]]\nname = \"partner\"\ndomains = [\"example.test\"]\nmessages_per_minute = 1\n";
    let daemon = lab.daemon_with(with_rules(&lab, config(&lab), "providers", rule));
    let first = lab.client(&daemon).send_simple(FROM, &["one@example.test"], "first");
    mx.wait_accepted(1);
    let second = lab.client(&daemon).send_simple(FROM, &["two@example.test"], "second");
    let why = wait_why(&daemon, &second, "rate limit of 1 a minute of provider partner for source a1 until ");
    assert_eq!((&why["site"], &why["state"]), (&"provider:partner".into(), &"ready".into()), "{why:#}");
    assert!(why["waits_until"].is_string(), "{why:#}");

    let explained = daemon.cli(&["explain", "provider:partner", "--pool", "own"]);
    assert_eq!(explained["site"]["provider"], "partner", "{explained:#}");
    assert!(explained["site"]["provider_from"].as_str().unwrap().contains("providers.toml"), "{explained:#}");
    let limits = explained["site"]["limits"].as_array().unwrap();
    assert!(limits.iter().any(|limit| limit["name"] == "per_minute" && limit["from"] == "provider"), "{explained:#}");
    let rate = &source(&explained, "a1")["rates"][0];
    assert_eq!((&rate["limit"], &rate["per"], &rate["used"]), (&1.into(), &"minute".into(), &1.into()));

    daemon.wait_queue("the first is delivered", |queue| queue.len() == 1);
    let (code, text) = told(&lab, &["why", &first]);
    assert!(code == 4 && text.contains("waits for nothing") && text.contains("event files"), "{text}");
}

#[test]
fn a_domain_without_mail_or_route_is_explained() {
    let lab = Lab::new();
    let _mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let daemon = lab.daemon_with(config(&lab));
    let explained = daemon.cli(&["explain", "nobody@example.test"]);
    assert_eq!((&explained["lookup"], &explained["site"]["site"]), (&"unknown".into(), &"mx2.example.test".into()));
    assert!(source(&explained, "a1")["in_memory"] == false, "{explained:#}");
    let (code, text) = told(&lab, &["explain", "nowhere.test"]);
    assert!(code == 0 && text.contains("route     NONE: "), "{text}");
}
