//! The command line against a served fake: what an administrator sees, and the exit codes.

use std::fs;

use super::main_with;
use crate::daemon::admin::AdminError;
use crate::daemon::admin::fake::{Fake, Served, id, serve};
use crate::daemon::admin::query::{Action, Selection};

struct Ran {
    code: u8,
    out: String,
    err: String,
}

fn posthaste(arguments: &[&str]) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let arguments = std::iter::once("posthaste").chain(arguments.iter().copied()).map(Into::into);
    let code = main_with(arguments, &mut out, &mut err);
    Ran { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

fn at(served: &Served, arguments: &[&str]) -> Ran {
    let socket = served.socket.display().to_string();
    posthaste(&[arguments, &["--socket", &socket]].concat())
}

#[test]
fn status_shows_health_and_sites() {
    let mut fake = Fake::with_messages(0);
    fake.status.uptime_s = 192;
    fake.status.queue.messages = 7;
    let ran = at(&serve(fake), &["status"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.starts_with("posthaste 0.1.0, up 3m12s, healthy\nqueue        7 messages;"), "{}", ran.out);
    assert!(ran.out.contains("mx.r.test"), "{}", ran.out);
}

#[test]
fn status_of_an_unhealthy_daemon_exits_with_5() {
    let mut fake = Fake::with_messages(0);
    fake.status.healthy = false;
    fake.status.health_reason = Some("the disk is full".to_owned());
    let ran = at(&serve(fake), &["status"]);
    assert_eq!(ran.code, 5);
    assert!(ran.out.contains("UNHEALTHY: the disk is full"), "{}", ran.out);
}

#[test]
fn quotas_are_shown_with_their_limits_and_shares() {
    let ran = at(&serve(Fake::with_messages(0)), &["quota"]);
    let lines: Vec<Vec<&str>> = ran.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[1], ["server", "-", "42", "-", "-", "-"], "{}", ran.out);
    assert_eq!(lines[2], ["tenant", "shop", "42", "60", "70", "%", "5"], "{}", ran.out);
    let ran = at(&serve(Fake::with_messages(0)), &["quota", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["scopes"][1]["per_day"], 60);
}

#[test]
fn reputations_are_shown_with_their_rates_limits_and_pauses() {
    let served = serve(Fake::with_messages(0));
    let ran = at(&served, &["reputation"]);
    let lines: Vec<String> =
        ran.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let news = "configuration_set news paused 12 % 600 5 % / 10 % 0 % 528 0.1 % / 0.5 % paused by rates since \
                2026-11-21T23:00:00.000Z: 12 % of 600 recipients bounced, the limit is 10 %";
    assert_eq!(lines[1], news, "{}", ran.out);
    assert_eq!(lines[2], "server - healthy (0 %) 40 0 % / 0 % (0 %) 40 0.1 % / 0.5 % -", "{}", ran.out);
    assert!(lines[3].contains("fewer than 500 recipients"), "{}", ran.out);
    let ran = at(&served, &["reputation", "--scope", "server", "--json"]);
    let page: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&page["scopes"][0]["scope"], &page["recipients_min"]), (&"server".into(), &500.into()));
    assert_eq!(at(&served, &["reputation", "--scope", "nothing"]).code, 1);
}

#[test]
fn a_set_or_a_tenant_is_paused_and_resumed_by_name() {
    let served = serve(Fake::with_messages(0));
    let ran = at(&served, &["reputation", "resume", "--set", "news", "--reason", "list cleaned"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "configuration_set news is healthy now\n"), "{}", ran.err);
    let ran = at(&served, &["reputation", "pause", "--tenant", "news"]);
    assert_eq!(ran.out, "tenant news is paused now\n", "{}", ran.err);
    assert_eq!(at(&served, &["reputation", "resume", "--set", "other"]).code, 4);
    assert_eq!(at(&served, &["reputation", "pause"]).code, 2);
    assert_eq!(at(&served, &["reputation", "pause", "--set", "a", "--tenant", "b"]).code, 2);
}

#[test]
fn a_destination_is_explained_with_its_sources_and_why_others_are_not_next() {
    let served = serve(Fake::with_messages(0));
    let ran = at(&served, &["explain", "you@r.test", "--pool", "shop"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for line in [
        "domain    r.test\n",
        "      5   mx1.r.test\n",
        "provider  yahoo (built in)\n",
        "limits    5 connections a source (provider); 100 messages a connection (config)\n",
        "waiting   pool shop: 1 high, 0 normal, 40 bulk\n",
        "a1: takes the next message: source a1 may open a connection\n",
        "by rule yahoo-block (553 ?[31m)\n",
    ] {
        assert!(ran.out.contains(line), "{line:?} is not in\n{}", ran.out);
    }
    let row = ran.out.lines().find(|line| line.starts_with("next")).unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells, ["next", "a1", "0", "1", "5", "20", "3", "of", "10/minute", "free"]);
    let ran = at(&served, &["explain", "r.test", "--json"]);
    let explained: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(explained["site"]["pool"], "default");
    assert_eq!(at(&served, &["explain", "you@"]).code, 1);
}

#[test]
fn why_names_rule_end_and_reply_and_answers_for_messages_that_are_gone() {
    let served = serve(Fake::with_messages(1));
    let ran = at(&served, &["why", &id(0).to_string()]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for text in
        ["waits    retry step 3\n", "rule     greylist ", "until    20", "goes     by pool default to site mx.r.test\n"]
    {
        assert!(ran.out.contains(text), "{text:?} is not in\n{}", ran.out);
    }
    assert!(ran.out.contains("reply    451 4.7.1 greylisted ?[31m by mx.r.test (rule greylist)"), "{}", ran.out);
    let ran = at(&served, &["why", &id(7).to_string()]);
    assert_eq!(ran.code, 4);
    assert!(ran.err.contains("waits for nothing") && ran.err.contains("event files"), "{}", ran.err);
}

#[test]
fn what_is_remembered_of_a_message_is_shown_with_what_was_told_since() {
    let served = serve(Fake::with_messages(1));
    let ran = at(&served, &["queue", "sent", &id(0).to_string()]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for text in [
        "sender     a0@s.test\n",
        "tenant     shop\nset        receipts\nrecipient  b0@r.test\n  outcome  delivered 20",
        "  went     by pool default, source 192.0.2.7, site mx.r.test ?[31m\n  complaint told 20",
    ] {
        assert!(ran.out.contains(text), "{text:?} is not in\n{}", ran.out);
    }
    let ran = at(&served, &["queue", "sent", "--json", &id(0).to_string()]);
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["recipients"][0]["outcome"], "delivered");
    let ran = at(&served, &["queue", "sent", &id(7).to_string()]);
    assert_eq!(ran.code, 4);
    assert!(ran.err.contains("nothing is remembered"), "{}", ran.err);
    assert_eq!(at(&served, &["queue", "sent", "x"]).code, 2);
}

#[test]
fn json_output_is_what_the_api_answered() {
    let ran = at(&serve(Fake::with_messages(2)), &["queue", "list", "--json"]);
    let page: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(page["messages"][1]["id"], id(1).to_string());
}

#[test]
fn a_long_list_is_fetched_in_pages() {
    let served = serve(Fake::with_messages(2_300));
    let ran = at(&served, &["queue", "list", "--limit", "2200"]);
    assert_eq!(ran.out.lines().count(), 2_201);
    assert_eq!(ran.err, format!("there may be more: add --after {}\n", id(2_199)));
    let after = id(2_199).to_string();
    let ran = at(&served, &["queue", "list", "--after", &after, "--sender", "@s.test"]);
    assert_eq!((ran.out.lines().count(), ran.err.as_str()), (101, ""));
    let ran = at(&served, &["queue", "list", "--domain", "other.test"]);
    assert_eq!(ran.out, "no messages\n");
}

#[test]
fn a_list_has_age_state_next_attempt_and_reason() {
    let ran = at(&serve(Fake::with_messages(1)), &["queue", "list"]);
    let words: Vec<&str> = ran.out.lines().nth(1).unwrap().split_whitespace().collect();
    let own_id = id(0).to_string();
    assert_eq!(words[0], own_id);
    assert_eq!(
        words[2..],
        ["1.5KiB", "deferred", "2", "now", "a0@s.test", "b0@r.test", "and", "4", "more", "retry", "step", "3"]
    );
}

#[test]
fn show_tells_every_recipients_story_without_escape_sequences() {
    let served = serve(Fake::with_messages(1));
    let ran = at(&served, &["queue", "show", &id(0).to_string()]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let story = "recipient  b0@r.test\n  state    deferred, tried 2 times\n  last     2023-11-14T22:13:20.000Z (";
    assert!(ran.out.contains(story), "{}", ran.out);
    let reply = "  reply    451 4.7.1 greylisted ?[31m by mx.r.test (rule greylist)\n  next     ";
    assert!(ran.out.contains(reply), "{}", ran.out);
    assert!(ran.out.ends_with("  waits    retry step 3\n"), "{}", ran.out);
    let ran = at(&served, &["queue", "show", &id(9).to_string()]);
    assert_eq!(ran.code, 4);
    assert!(ran.err.starts_with("posthaste: the queue holds no message "), "{}", ran.err);
}

#[test]
fn actions_report_what_they_changed() {
    let served = serve(Fake::with_messages(3));
    let ran = at(&served, &["queue", "retry", "--domain", "r.test"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "retry: 3 messages changed, 0 left as they were\n"));
    let (first, second) = (id(0).to_string(), id(1).to_string());
    let ran = at(&served, &["queue", "hold", &first, &second, "--reason", "looking"]);
    assert_eq!(ran.out, "hold: 2 messages changed, 0 left as they were\n");
    assert_eq!(at(&served, &["queue", "cancel", "--all", "--yes"]).code, 0);
    let acts = served.backend.acts.lock().unwrap();
    assert_eq!(acts.len(), 4);
    assert_eq!(acts[1], (Selection::One(id(0)), Action::Hold { reason: "looking".to_owned() }));
}

#[test]
fn careless_actions_are_refused_before_they_reach_the_daemon() {
    let served = serve(Fake::with_messages(1));
    let own_id = id(0).to_string();
    for arguments in [
        vec!["queue", "cancel"],
        vec!["queue", "cancel", "--all"],
        vec!["queue", "retry", "--all", "--domain", "r.test"],
        vec!["queue", "retry", &own_id, "--all"],
        vec!["queue", "retry", "17"],
        vec!["queue", "list", "--state", "asleep"],
        vec!["queue", "list", "--limit", "0"],
    ] {
        assert_eq!(at(&served, &arguments).code, 2, "{arguments:?}");
    }
    assert!(served.backend.acts.lock().unwrap().is_empty());
}

#[test]
fn a_daemon_that_is_not_there_is_said_so_with_exit_3() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock").display().to_string();
    let ran = posthaste(&["status", "--socket", &socket]);
    assert_eq!(ran.code, 3);
    let expected =
        format!("posthaste: cannot reach the daemon at {socket}: No such file or directory (os error 2); is it");
    assert!(ran.err.starts_with(&expected), "{}", ran.err);
}

#[test]
fn an_error_of_the_daemon_is_shown_with_exit_1() {
    let mut fake = Fake::with_messages(0);
    fake.broken = Some(AdminError::Internal("the store is broken".to_owned()));
    let ran = at(&serve(fake), &["status"]);
    assert_eq!((ran.code, ran.err.as_str()), (1, "posthaste: the store is broken\n"));
}

#[test]
fn the_socket_is_found_through_the_config() {
    let served = serve(Fake::with_messages(0));
    let config = served.directory.path().join("config.toml");
    let text = format!(
        "hostname = \"a.test\"\nlistener = [{{ name = \"a\", address = \"127.0.0.1:0\" }}]\n[admin]\nsocket = \"{}\"\n",
        served.socket.display()
    );
    fs::write(&config, text).unwrap();
    let config = config.display().to_string();
    assert_eq!(posthaste(&["status", "--config", &config]).code, 0);
    fs::write(&config, "hostname = 1").unwrap();
    let ran = posthaste(&["status", "--config", &config]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("config.toml:1:12: hostname: "), "{}", ran.err);
}

#[test]
fn check_prints_all_errors_or_a_summary() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    let shown = path.display().to_string();
    fs::write(&path, include_str!("../../config.toml.example")).unwrap();
    let ran = posthaste(&["check", "--config", &shown]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    assert!(ran.out.starts_with(&format!("{shown}: good\n  hostname   mail.example.com\n")), "{}", ran.out);
    assert!(ran.out.contains("  bounces    told in event files only, "), "{}", ran.out);
    fs::write(&path, "hostname = \"localhost\"\nx = 1\n").unwrap();
    let ran = posthaste(&["check", "--config", &shown]);
    assert_eq!(ran.code, 1);
    assert_eq!(ran.out.lines().count(), 2, "{}", ran.out);
    assert!(ran.err.starts_with("warning: ") && ran.err.ends_with("posthaste: 2 errors\n"), "{}", ran.err);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    struct Gone;
    impl std::io::Write for Gone {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let served = serve(Fake::with_messages(1));
    let socket = served.socket.display().to_string();
    for command in [vec!["status"], vec!["queue", "list", "--json"]] {
        let arguments = [&["posthaste"], &command[..], &["--socket", &socket]].concat();
        let mut err = Vec::new();
        assert_eq!(main_with(arguments.into_iter().map(Into::into), &mut Gone, &mut err), 0, "{command:?}");
        assert!(err.is_empty());
    }
}

#[test]
fn help_and_version_exit_with_0_and_nonsense_with_2() {
    assert_eq!(posthaste(&["--help"]).code, 0);
    assert!(posthaste(&["--version"]).out.starts_with("posthaste "));
    let ran = posthaste(&["explode"]);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
}

/// A config that names files of rules with these texts; the directory must live.
fn with_rules(replies: &str, providers: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (replies, providers) = (file("r.toml", replies), file("p.toml", providers));
    let config = format!(
        "hostname = \"a.test\"\nlistener = [{{ name = \"a\", address = \"127.0.0.1:0\" }}]\n\
         [rules]\nreplies = \"{replies}\"\nproviders = \"{providers}\"\n"
    );
    let config = file("config.toml", &config);
    (directory, config)
}

const OWN_RULE: &str = "[[rule]]\nname = \"own\"\nproviders = [\"partner\"]\ntext = [\"closed\"]\nclass = \"system\"\n\
    action = \"defer\"\nreact = { do = \"suspend\", for = \"1h\" }\n";
const OWN_PROVIDER: &str = "[[provider]]\nname = \"partner\"\nmx = [\".p.test\"]\nmessages_per_hour = 500\n";

#[test]
fn a_reply_is_tried_against_built_in_and_own_rules() {
    let (directory, config) = with_rules(OWN_RULE, OWN_PROVIDER);
    let classify =
        |rest: &[&str]| posthaste(&[&["rules", "classify", "--config", &config, "--stage", "rcpt"], rest].concat());
    let ran = classify(&["550 5.1.1 no such user"]);
    let expected = "rule      no-such-user (built in)\noutcome   bounced\nclass     bad-mailbox\nconcerns  the recipient\n\
        bounce    Permanent/General\nreaction  none\n";
    assert_eq!((ran.code, ran.out.as_str()), (0, expected), "{}", ran.err);
    let ran = classify(&["--provider", "partner", "554-closed\n554 retry in 5 minutes"]);
    let place = directory.path().join("r.toml");
    let expected = format!(
        "rule      own ({}:1)\noutcome   deferred\nclass     system\nconcerns  the recipient\nretry     normal\nasked for 5m\n\
         delay     RecipientServerError\nbounce    Transient/General, if it is never delivered\nreaction  suspended for 1h\n",
        place.display()
    );
    assert_eq!((ran.code, ran.out), (0, expected), "{}", ran.err);
    assert_eq!(classify(&["250 2.0.0 ok"]).out, "rule      delivered\noutcome   delivered\n");
    let ran = classify(&["--provider", "nobody", "550 no"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.starts_with("posthaste: there is no provider \"nobody\"; there are partner, google, "),
        "{}",
        ran.err
    );
    for nonsense in ["", "no such user", "250 a\n250 b"] {
        assert_eq!(classify(&[nonsense]).code, 2, "{nonsense}");
    }
    assert_eq!(posthaste(&["rules", "classify", "--stage", "noon", "550 no"]).code, 2);
}

#[test]
fn rules_are_listed_in_their_order_and_shown_whole() {
    let (_directory, config) = with_rules(OWN_RULE, OWN_PROVIDER);
    let rules = |rest: &[&str]| posthaste(&[&["rules"], rest, &["--config", &config]].concat());
    let list = rules(&["list"]).out;
    let names: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!((names[1], *names.last().unwrap()), ("own", "unexpected"), "{list}");
    let providers = rules(&["list", "--providers"]).out;
    let row: Vec<&str> = providers.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..6], ["partner", "-", "-", "-", "500/hour", ".p.test"]);
    assert!(rules(&["show", "yahoo-rate"]).out.contains("\nreaction  1/minute for 30m\ntext      [ts01]\n"));
    assert!(rules(&["show", "google"]).out.contains("\nconnections  5 from one source\n"));
    assert_eq!(rules(&["show", "nothing"]).code, 4);
}

#[test]
fn check_tells_errors_of_rule_files_with_their_own_names_and_lines() {
    let (directory, config) =
        with_rules("[[rule]]\nname = \"own\"\ncodes = [250]\nclass = \"spam\"\n", "[[provider]]\n");
    let ran = posthaste(&["check", "--config", &config]);
    assert_eq!((ran.code, ran.err.as_str()), (1, "posthaste: 2 errors\n"), "{}", ran.out);
    let shown = directory.path().display();
    assert!(
        ran.out.contains(&format!("{shown}/r.toml:3:10: rule.codes: 250 is not a code of a refusal")),
        "{}",
        ran.out
    );
    assert!(ran.out.contains(&format!("{shown}/p.toml:1:1: provider.name: is missing")), "{}", ran.out);
    assert_eq!(posthaste(&["rules", "list", "--config", &config]).code, 1);
    fs::remove_file(directory.path().join("p.toml")).unwrap();
    fs::write(directory.path().join("r.toml"), OWN_RULE.replace("providers", "#")).unwrap();
    let ran = posthaste(&["check", "--config", &config]);
    assert!(
        ran.out.contains("config.toml:5:13: rules.providers: ") && ran.out.contains("p.toml cannot be read"),
        "{}",
        ran.out
    );
    fs::write(directory.path().join("p.toml"), OWN_PROVIDER).unwrap();
    let ran = posthaste(&["check", "--config", &config]);
    assert_eq!(ran.code, 0, "{}", ran.out);
    assert!(ran.out.contains("1 of them own or changed; providers: 14, 1 of them\n"), "{}", ran.out);
}

#[test]
fn warm_ups_are_shown_ordered_about_and_planned() {
    let served = serve(Fake::with_messages(0));
    let ran = at(&served, &["warmup", "status"]);
    let lines: Vec<Vec<&str>> = ran.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[1][..7], ["a1", "provider:gmail", "doubling", "3/24", "running", "4200", "10000"], "{}", ran.out);
    assert!(ran.out.contains("bounces 6 % ?[31m"), "what a host says is made safe: {}", ran.out);
    assert!(ran.out.contains("warming"), "{}", ran.out);
    let ran = at(&served, &["warmup", "status", "--source", "a2", "--json"]);
    let page: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((page["warmups"].as_array().unwrap().len(), &page["warmups"][0]["mode"]), (1, &"slowed".into()));
    let ran = at(&served, &["warmup", "pause", "a1", "--site", "google"]);
    assert_eq!((ran.code, &*ran.out), (0, "pause: 1 warm-up of a1\n"), "{}", ran.err);
    let ran = at(&served, &["warmup", "set-day", "gone", "3"]);
    assert!(ran.code != 0 && ran.err.contains("no warm-up of that name is known"), "{}", ran.err);
    let ran = at(&served, &["warmup", "complaints", "a1", "5"]);
    assert!(ran.code != 0 && ran.err.contains("site"), "{}", ran.err);
    let ran = at(&served, &["warmup", "history", "--days", "40"]);
    assert!(ran.out.contains("2026-01-31") && ran.err.contains("the oldest are left out"), "{}{}", ran.out, ran.err);
}

#[test]
fn a_plan_is_printed_day_by_day_without_a_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("c.toml");
    let text = "hostname = \"mail.example.com\"\nlistener = [{ name = \"a\", address = \"127.0.0.1:25\" }]\n\
                [[warmup_plan]]\nname = \"two\"\ndays = { 1 = 100, 2 = 1000 }\ndelivered_percent = 50\n";
    fs::write(&config, text).unwrap();
    let plan = |arguments: &[&str]| {
        posthaste(&[&["warmup", "plan", "--config", config.to_str().unwrap()], arguments].concat())
    };
    let ran = plan(&[]);
    assert!(ran.out.contains("doubling") && ran.out.contains("50 % delivered"), "{}{}", ran.out, ran.err);
    let ran = plan(&["two", "--volume", "400", "--json"]);
    let rows: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let row = |n: usize| {
        (rows[n]["day"].as_u64(), rows[n]["cap"].as_u64(), rows[n]["sent"].as_u64(), rows[n]["overflow"].as_u64())
    };
    assert_eq!(row(0), (Some(1), Some(100), Some(100), Some(300)));
    assert_eq!(row(1), (Some(2), Some(1_000), Some(400), Some(0)));
    assert_eq!(rows.as_array().unwrap().len(), 2);
    let ran = plan(&["two", "--volume", "400"]);
    assert!(ran.out.contains("it stays at day 2: the next one needs 50 % delivered"), "{}", ran.out);
    let ran = plan(&["none"]);
    assert!(ran.code != 0 && ran.err.contains("there is no plan \"none\"; there are "), "{}", ran.err);
}
