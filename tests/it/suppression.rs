//! Suppression lists with the real daemon: mail that is held back, lists that are changed while it runs and while it does
//! not, and files that come and go.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::*;

/// Tenant of relay clients where the config names none.
const TENANT: &str = "local";
/// Entries of a file that goes round.
const ENTRIES: usize = 3_000;

struct Ran {
    code: i32,
    out: String,
    err: String,
}

/// `posthaste suppression` with the daemon's config, wherever the daemon is.
fn suppression(daemon: &Daemon, arguments: &[&str], input: Option<&[u8]>) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste"));
    command.arg("suppression").args(arguments).arg("--config").arg(daemon.config_path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.unwrap_or_default().to_vec();
    // Where it fails early, nobody reads.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Ran {
        code: status.code().unwrap(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

#[track_caller]
fn ok(ran: Ran) -> String {
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    ran.out
}

fn kinds(daemon: &Daemon, id: &str) -> Vec<String> {
    let events = Events::read_all(&daemon.events_path());
    let of_message = events.iter().filter(|event| event["mail"]["messageId"] == id);
    of_message.map(|event| event["eventType"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn mail_to_a_listed_address_is_taken_and_bounced_and_goes_again_when_it_is_off_the_list() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let daemon = lab.daemon();
    ok(suppression(&daemon, &["add", "Gone@Example.test", "--reason", "bounce"], None));
    let mut client = lab.client(&daemon);
    let both = client.send_simple("app@sender.example", &["gone@example.test", "you@example.test"], "both");
    let alone = client.send_simple("app@sender.example", &["gone@example.test"], "alone");
    let mut events = daemon.events();
    for id in [&both, &alone] {
        let bounce = events.wait_kind("Bounce", id, "gone@example.test");
        assert_eq!(bounce["bounce"]["bounceType"], "Permanent");
        assert_eq!(bounce["bounce"]["bounceSubType"], "Suppressed");
        assert_eq!(bounce["posthaste"]["rule"], "suppressed-global");
        assert_eq!(bounce["posthaste"]["class"], "suppressed");
        assert_eq!(bounce["posthaste"].get("attempt"), None, "nothing was tried");
    }
    events.wait_kind("Delivery", &both, "you@example.test");
    daemon.wait_empty();
    assert_eq!(kinds(&daemon, &alone), ["Send", "Bounce"]);
    assert_eq!(mx.asked("gone@example.test"), 0);
    assert_eq!(daemon.status()["bounced"], 2);
    ok(suppression(&daemon, &["remove", "GONE@example.test"], None));
    let later = client.send_simple("app@sender.example", &["gone@example.test"], "later");
    events.wait_kind("Delivery", &later, "gone@example.test");
    daemon.stop();
}

#[test]
fn the_tenants_list_gives_bounces_and_complaints_by_its_reasons() {
    let lab = Lab::new();
    let _mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let daemon = lab.daemon();
    let of_tenant = ["--tenant", TENANT];
    ok(suppression(&daemon, &[&["add", "b@example.test", "--reason", "bounce"], &of_tenant[..]].concat(), None));
    ok(suppression(&daemon, &[&["add", "c@example.test", "--reason", "COMPLAINT"], &of_tenant[..]].concat(), None));
    let of_nobody = suppression(&daemon, &["add", "d@example.test", "--reason", "bounce", "--tenant", "other"], None);
    assert_eq!(of_nobody.err, "the config has no tenant other: until it has, this list holds nothing back\n");
    ok(of_nobody);
    let to = ["b@example.test", "c@example.test", "d@example.test"];
    let id = lab.client(&daemon).send_simple("app@sender.example", &to, "three");
    let mut events = daemon.events();
    let bounce = events.wait_kind("Bounce", &id, "b@example.test");
    assert_eq!(bounce["bounce"]["bounceSubType"], "OnAccountSuppressionList");
    let is_complaint = |event: &Value| event["eventType"] == "Complaint" && event["mail"]["messageId"] == id;
    let complaint = events.wait_for(is_complaint);
    assert_eq!(complaint["complaint"]["complainedRecipients"][0]["emailAddress"], "c@example.test");
    assert_eq!(complaint["complaint"]["complaintSubType"], "OnAccountSuppressionList");
    assert_eq!(complaint["posthaste"]["rule"], "suppressed-tenant");
    events.wait_kind("Delivery", &id, "d@example.test");
    daemon.stop();
}

#[test]
fn an_entry_that_comes_while_a_message_waits_bounces_it_before_the_next_attempt() {
    let lab = Lab::new();
    let mx = lab.mx_scripted(2, |ask| {
        let defers = ask.stage == Stage::Rcpt && ask.recipient == "gone@example.test";
        if defers { Answer::say("450 4.2.0 Not now") } else { Answer::Usual }
    });
    lab.domain("example.test", &[2]);
    let daemon = lab.daemon_with(lab.config().set("retry.steps", "[\"1h\"]"));
    let id = lab.client(&daemon).send_simple("app@sender.example", &["gone@example.test"], "waits");
    let is_deferred = |queue: &[Value]| queue.len() == 1 && queue[0]["state"] == "deferred";
    daemon.wait_queue("the message is deferred", is_deferred);
    ok(suppression(&daemon, &["add", "gone@example.test", "--reason", "complaint"], None));
    daemon.cli(&["queue", "retry", "--all"]);
    let bounce = daemon.events().wait_kind("Bounce", &id, "gone@example.test");
    assert_eq!(bounce["bounce"]["bounceSubType"], "Suppressed");
    assert_eq!(bounce["posthaste"]["attempt"], 1, "the attempt before: {bounce:#}");
    daemon.wait_empty();
    assert_eq!(mx.asked("gone@example.test"), 1);
    daemon.stop();
}

#[test]
fn notifications_go_out_for_bounces_that_ask_for_them_and_never_for_complaints() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("sender.test", &[2]);
    let daemon = lab.daemon();
    for (address, reason) in [("b@example.test", "bounce"), ("c@example.test", "complaint")] {
        ok(suppression(&daemon, &["add", address, "--reason", reason], None));
    }
    let mut client = lab.client(&daemon);
    let to = ["<c@example.test> NOTIFY=FAILURE", "<b@example.test> NOTIFY=FAILURE"];
    client.send_simple("app@sender.test", &to, "asks");
    let got = mx.wait_accepted(1);
    assert!(got[0].text().contains("Final-Recipient: rfc822; b@example.test"), "{}", got[0].text());
    assert!(!got[0].text().contains("c@example.test\r\nAction"), "{}", got[0].text());
    daemon.wait_empty();
    assert_eq!(mx.accepted().len(), 1);
    daemon.stop();
}

#[test]
fn entries_survive_kills_and_can_be_changed_while_no_daemon_runs() {
    let lab = Lab::new();
    let mut daemon = lab.daemon();
    ok(suppression(&daemon, &["add", "a@example.test", "--reason", "bounce"], None));
    daemon.kill();
    let offline = ok(suppression(&daemon, &["get", "A@example.test", "--json"], None));
    let entry: Value = serde_json::from_str(&offline).unwrap();
    assert_eq!((&entry["EmailAddress"], &entry["Reason"]), (&"a@example.test".into(), &"BOUNCE".into()));
    ok(suppression(&daemon, &["add", "b@example.test", "--reason", "complaint", "--set", "news"], None));
    ok(suppression(&daemon, &["remove", "a@example.test"], None));
    daemon.start_again();
    assert_eq!(suppression(&daemon, &["get", "a@example.test"], None).code, 4);
    let shown = ok(suppression(&daemon, &["get", "b@example.test", "--set", "news"], None));
    assert!(shown.contains("reason     COMPLAINT"), "{shown}");
    daemon.restart();
    ok(suppression(&daemon, &["get", "b@example.test", "--set", "news"], None));
    daemon.stop();
}

#[test]
fn what_is_not_there_is_an_error_with_an_exit_code_of_its_own() {
    let lab = Lab::new();
    let daemon = lab.daemon();
    let check = |daemon: &Daemon| {
        for command in ["get", "remove"] {
            let ran = suppression(daemon, &[command, "no@example.test", "--tenant", "shop"], None);
            assert_eq!(ran.code, 4, "{}", ran.err);
            let expected = "no@example.test is not on the suppression list of tenant shop";
            assert!(ran.err.contains(expected), "{}", ran.err);
        }
    };
    check(&daemon);
    for wrong in [
        &["get", "no address"][..],
        &["add", "a@example.test"],
        &["add", "a@example.test", "--reason", "spam"],
        &["list", "--tenant", "a b"],
        &["list", "--tenant", "a", "--set", "b"],
    ] {
        assert_eq!(suppression(&daemon, wrong, None).code, 2, "{wrong:?}");
    }
    assert_eq!(ok(suppression(&daemon, &["list"], None)), "no entries\n");
    daemon.stop();
    check(&daemon);
}

/// Distinct addresses, some of them in need of quotes.
fn csv(entries: usize) -> String {
    let mut text = "EmailAddress,Reason,LastUpdateTime\r\n".to_owned();
    for number in 0..entries {
        let reason = if number % 3 == 0 { "COMPLAINT" } else { "BOUNCE" };
        let address = match number % 10 {
            7 => format!("\"\"\"a,{number}\"\"@example.test\""),
            8 => format!("grün{number}@münchen.example"),
            _ => format!("User.{number}@example.test"),
        };
        text.push_str(&format!("{address},{reason},2026-01-02T03:04:05.{:03}Z\r\n", number % 1_000));
    }
    text
}

#[test]
fn lists_come_back_from_files_as_they_went() {
    let lab = Lab::new();
    let mut daemon = lab.daemon();
    let path = lab.dir().join("list.csv");
    std::fs::write(&path, csv(ENTRIES)).unwrap();
    let path = path.to_str().unwrap();
    let said = ok(suppression(&daemon, &["import", path], None));
    assert_eq!(said, format!("{ENTRIES} imported: {ENTRIES} added, 0 changed, 0 unchanged\n"));
    let again = ok(suppression(&daemon, &["import", path, "--strict"], None));
    assert_eq!(again, format!("{ENTRIES} imported: 0 added, 0 changed, {ENTRIES} unchanged\n"));
    let exported = ok(suppression(&daemon, &["export"], None));
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&exported), sorted(&csv(ENTRIES)));
    // The other format, another list, and without the daemon.
    let json = ok(suppression(&daemon, &["export", "--format", "jsonl"], None));
    daemon.stop();
    ok(suppression(&daemon, &["import", "--tenant", "shop"], Some(json.as_bytes())));
    assert_eq!(ok(suppression(&daemon, &["export", "--tenant", "shop"], None)), exported);
    daemon.start_again();
    assert_eq!(ok(suppression(&daemon, &["export", "--tenant", "shop", "--format", "jsonl"], None)), json);
    let page = ok(suppression(&daemon, &["list", "--tenant", "shop", "--limit", "5", "--json"], None));
    let page: Value = serde_json::from_str(&page).unwrap();
    assert_eq!((page["entries"].as_array().unwrap().len(), &page["total"]), (5, &ENTRIES.into()));
    let next = page["next"].as_str().unwrap();
    let rest = ["list", "--tenant", "shop", "--limit", "100000", "--after", next, "--json"];
    let rest: Value = serde_json::from_str(&ok(suppression(&daemon, &rest, None))).unwrap();
    assert_eq!(rest["entries"].as_array().unwrap().len(), ENTRIES - 5);
    daemon.stop();
}

#[test]
fn bad_lines_are_named_and_the_rest_is_imported_unless_that_is_not_wanted() {
    let lab = Lab::new();
    let daemon = lab.daemon();
    let mut file = b"\xef\xbb\xbfemailaddress,reason\n\n".to_vec();
    file.extend(b"good@example.test,bounce\n");
    file.extend(b"no address,BOUNCE\n");
    file.extend(b"x@example.test,SPAM\n");
    file.extend(b"x@example.test,BOUNCE,yesterday\n");
    file.extend(b"x@example.test\n");
    file.extend(b"x@exa\xffmple.test,BOUNCE\n");
    file.extend(b"\"x@example.test,BOUNCE\n");
    file.extend(vec![b'x'; 3 << 20]);
    file.extend(b"\nx@example.test,1,2,3,4,5,6,7,8,9\n");
    file.extend(b"also@example.test,Complaint,1700000000.5");
    let ran = suppression(&daemon, &["import"], Some(&file));
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert_eq!(ran.out, "2 imported: 2 added, 0 changed, 0 unchanged\n");
    let expected = [
        "line 4: EmailAddress \"no address\": address has no domain",
        "line 5: Reason \"SPAM\": write BOUNCE, COMPLAINT or UNSUBSCRIBE",
        "line 6: LastUpdateTime \"yesterday\": write it as 2026-01-31T23:59:59Z",
        "line 7: one column only: write EmailAddress,Reason,LastUpdateTime",
        "line 8: not UTF-8 at byte 6",
        "line 9: one column only: write EmailAddress,Reason,LastUpdateTime",
        "line 10: longer than 16384 bytes",
        "line 11: more than 8 columns: write EmailAddress,Reason,LastUpdateTime",
        "posthaste: 8 bad lines left out",
    ];
    assert_eq!(ran.err.lines().collect::<Vec<_>>(), expected);
    let shown = ok(suppression(&daemon, &["get", "also@example.test"], None));
    assert!(shown.contains("updated    2023-11-14T22:13:20.500Z"), "{shown}");

    let path = lab.dir().join("bad.jsonl");
    let lines =
        "{\"EmailAddress\":\"y@example.test\",\"Reason\":\"BOUNCE\"}\n{\"EmailAddress\":\"z@example.test\"}\n[]\n";
    std::fs::write(&path, lines).unwrap();
    let strict = suppression(&daemon, &["import", "--strict", path.to_str().unwrap()], None);
    assert_eq!((strict.code, strict.out.as_str()), (1, ""));
    assert!(strict.err.contains("line 2: not an entry in JSON: missing field `Reason`"), "{}", strict.err);
    assert!(strict.err.contains("nothing was imported"), "{}", strict.err);
    assert_eq!(suppression(&daemon, &["get", "y@example.test"], None).code, 4);
    let missing = suppression(&daemon, &["import", "/nowhere/list.csv"], None);
    assert!(missing.err.contains("cannot read /nowhere/list.csv"), "{}", missing.err);
    daemon.stop();
}
