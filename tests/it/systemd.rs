//! The unit of `systemd/` under a real systemd: process 1 of a machine in namespaces, which starts, watches, reloads and stops
//! the daemon as it does on a server. docs/OPERATIONS.md, "systemd", says what is promised.

mod sandbox;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::harness::*;

/// One domain, whose host takes all mail, and a daemon that knows both.
fn lab(system: &System) -> (Lab, Mx) {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    system.write_config(&System::installed(lab.config()));
    (lab, mx)
}

/// Owner and mode of a file of the machine.
fn owner_and_mode(system: &System, path: &str) -> (u32, u32) {
    let metadata = std::fs::metadata(system.path(path)).unwrap();
    (metadata.uid(), metadata.permissions().mode() & 0o7777)
}

#[test]
fn a_started_service_accepts_on_port_25_as_its_own_user_and_delivers() {
    let system = System::boot();
    system.inside(|smtp| {
        let (_lab, mx) = lab(&system);
        // As in systemd/README.md.
        system.must(&["systemctl", "daemon-reload"]);
        system.must(&["systemctl", "enable", "--now", "posthaste"]);
        // Said by the daemon, and heard: the start ended when mail was accepted, not before.
        assert_eq!(system.property("ActiveState"), "active");
        assert_eq!(system.property("StatusText"), "accepting mail");
        assert_eq!(system.property("WatchdogUSec"), "30s");
        let id = Client::hello(smtp).send_simple("app@sender.example", &["you@example.test"], "unit");
        mx.wait_accepted(1);
        let events = system.path("var/log/posthaste/events.jsonl");
        Events::open(&events).wait_kind("Delivery", &id, "you@example.test");

        let user: u32 = system.must(&["id", "-u", "posthaste"]).parse().unwrap();
        assert_ne!(user, 0);
        let process = system.must(&["cat", &format!("/proc/{}/status", system.property("MainPID"))]);
        let field = |name: &str| {
            let line = process.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(field("Uid"), format!("{user} {user} {user} {user}"));
        // Bit 10 is CAP_NET_BIND_SERVICE.
        for set in ["CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(set), "0000000000000400", "{set}");
        }
        assert_eq!(owner_and_mode(&system, "var/lib/posthaste"), (user, 0o700));
        assert_eq!(owner_and_mode(&system, "var/log/posthaste"), (user, 0o750));
        assert_eq!(owner_and_mode(&system, "var/log/posthaste/events.jsonl"), (user, 0o640));
        let runtime = system.must(&["stat", "-c", "%U %G %a", "/run/posthaste", "/run/posthaste/admin.sock"]);
        assert_eq!(runtime, "posthaste posthaste 750\nposthaste posthaste 660");
    });
}

#[test]
fn a_reload_applies_a_good_config_and_refuses_a_broken_one() {
    let system = System::boot();
    system.inside(|smtp| {
        let (lab, _mx) = lab(&system);
        system.must(&["systemctl", "start", "posthaste"]);
        let pid = system.property("MainPID");
        let with_limit = |limit: &str| System::installed(lab.config()).set("reception.message_size_max", limit);
        let limit_now = || {
            let (mut client, _) = Client::connect(smtp).unwrap();
            let hello = client.command("EHLO app.example").unwrap();
            hello.text.lines().find_map(|line| line.strip_prefix("SIZE ")).unwrap().to_owned()
        };
        let before = limit_now();

        system.write_config(&with_limit("\"many\""));
        let refused = system.run(&["systemctl", "reload", "posthaste"]);
        assert!(!refused.status.success(), "{}", system.journal());
        system.wait_journal("message_size_max");
        assert_eq!(system.property("ActiveState"), "active");
        assert_eq!(limit_now(), before);

        system.write_config(&with_limit("\"1MB\""));
        // From here on, systemd tells which messages it gets.
        system.must(&["systemctl", "log-level", "debug"]);
        system.must(&["systemctl", "reload", "posthaste"]);
        poll(|| (limit_now() == "1000000").then_some(()), || system.journal());
        for word in ["RELOADING=1", "READY=1"] {
            let said = |line: &&str| line.contains("Got notification message") && line.contains(word);
            poll(|| system.journal().lines().any(|line| said(&line)).then_some(()), || system.journal());
        }
        system.wait_property("ActiveState", |state| state == "active");
        assert_eq!(system.property("MainPID"), pid, "a reload is no restart");
    });
}

/// Hands in mail, does something to the daemon that ends it, and waits until systemd has started another.
fn end_under_load(system: &System, accepted: &mut BTreeMap<String, String>, end: impl FnOnce()) {
    let pid = system.property("MainPID");
    let load = Load::start(SMTP.parse().unwrap(), 4, &["example.test"]);
    load.wait_accepted(20);
    end();
    accepted.extend(load.join().accepted);
    system.wait_property("MainPID", |now| now != "0" && now != pid);
    system.wait_property("ActiveState", |state| state == "active");
}

/// Ends the run: all mail is delivered, none is lost.
fn assert_all_delivered(system: &System, accepted: &BTreeMap<String, String>, mx: &Mx) {
    system.wait_empty();
    system.must(&["systemctl", "stop", "posthaste"]);
    let events = Events::read_all(&system.path("var/log/posthaste/events.jsonl"));
    assert_nothing_lost_or_doubled(accepted, &events, &[mx]);
}

#[test]
fn a_daemon_that_hangs_is_ended_and_started_again_by_the_watchdog_and_nothing_is_lost() {
    let system = System::boot();
    system.inside(|_| {
        let (_lab, mx) = lab(&system);
        // Shorter than the unit's, so that the test is.
        system.edit_unit("[Service]\nWatchdogSec=5s\n");
        system.must(&["systemctl", "start", "posthaste"]);
        let mut accepted = BTreeMap::new();
        end_under_load(&system, &mut accepted, || {
            system.must(&["systemctl", "kill", "--signal=STOP", "--kill-who=main", "posthaste"]);
        });
        system.wait_journal("Watchdog timeout");
        assert_all_delivered(&system, &accepted, &mx);
    });
}

#[test]
fn a_daemon_that_is_killed_again_and_again_is_started_each_time_and_nothing_is_lost() {
    // More than systemd's own limit of 5 starts in 10 s, after which it would give up for good.
    const KILLS: u32 = 7;
    let system = System::boot();
    system.inside(|_| {
        let (_lab, mx) = lab(&system);
        // Quicker than the unit's, so that the kills come within those 10 s.
        system.edit_unit("[Service]\nRestartSec=100ms\n");
        system.must(&["systemctl", "start", "posthaste"]);
        let mut accepted = BTreeMap::new();
        for _ in 0..KILLS {
            end_under_load(&system, &mut accepted, || {
                system.must(&["systemctl", "kill", "--signal=KILL", "--kill-who=main", "posthaste"]);
            });
        }
        assert_eq!(system.property("NRestarts"), KILLS.to_string());
        assert_all_delivered(&system, &accepted, &mx);
    });
}

#[test]
fn a_stop_lets_the_delivery_under_way_come_to_its_end() {
    let system = System::boot();
    system.inside(|smtp| {
        let lab = Lab::new();
        let (mx, gate) = lab.mx_holding_dots(2);
        lab.domain("example.test", &[2]);
        system.write_config(&System::installed(lab.config()));
        system.must(&["systemctl", "start", "posthaste"]);
        let id = Client::hello(smtp).send_simple("app@sender.example", &["you@example.test"], "slow");
        mx.wait_transactions(1);
        system.must(&["systemctl", "stop", "--no-block", "posthaste"]);
        system.wait_journal("stopping: no new mail");
        assert_eq!(system.property("ActiveState"), "deactivating");
        assert!(Client::connect(smtp).is_err(), "no new mail");
        gate.change(|open| *open = true);
        system.wait_property("ActiveState", |state| state == "inactive");
        assert_eq!(system.property("Result"), "success");
        system.wait_journal("stopped quiet=true");
        let events = Events::read_all(&system.path("var/log/posthaste/events.jsonl"));
        let is_delivery =
            |event: &&serde_json::Value| event["eventType"] == "Delivery" && event["mail"]["messageId"] == *id;
        assert_eq!(events.iter().filter(is_delivery).count(), 1, "{events:#?}");
        assert_eq!(mx.accepted().len(), 1);
    });
}
