//! Scenario 14 at the receiver: a slow host with two connections, and the order in which mail arrives there.
//!
//! Everything waits while the host holds its first two messages; so the order behind them is the scheduler's alone.

use super::{FROM, send_some};
use crate::harness::*;

const SECRET: &str = "correct-horse-battery-staple";
const TENANTS: usize = 50;
const OF_THE_LARGE: usize = 400;
const OF_A_SMALL: usize = 2;
/// Messages that the host holds at first.
const HELD: usize = 2;

/// Waits until so many deliveries are ready, all others of a lab's daemon being under way.
fn wait_ready(daemon: &Daemon, count: usize) {
    let look = || (daemon.status()["queue"]["ready"].as_u64() >= Some(count as u64)).then_some(());
    poll(look, || format!("{:#}", daemon.status()["queue"]));
}

/// Opens the gate; the subjects in the order in which they were taken.
fn order(mx: &Mx, gate: &Watched<bool>, count: usize) -> Vec<String> {
    gate.change(|open| *open = true);
    mx.wait_accepted(count).iter().map(Transaction::subject).collect()
}

fn narrow(lab: &Lab) -> ConfigText {
    lab.config().set("delivery.connections_per_site_max", &HELD.to_string())
}

#[test]
fn forty_nine_small_tenants_are_served_while_one_with_hundreds_waits() {
    let lab = Lab::new();
    lab.domain("example.test", &[2]);
    let (mx, gate) = lab.mx_holding_dots(2);
    let listener = "[[listener]]\nname = \"smtp\"\naddress = \"127.0.0.1:0\"\nauth = \"clear\"\n";
    let hash = hashed(SECRET);
    let config = narrow(&lab).without_tables("listener").table(listener);
    let config = (0..TENANTS).fold(config, |config, number| {
        config.table(&format!(
            "[[tenant]]\nname = \"t{number}\"\nsenders = \"any\"\n\
             [[credential]]\nuser = \"u{number}\"\ntenant = \"t{number}\"\nsecrets = [{hash:?}]\n"
        ))
    });
    let daemon = lab.daemon_with(config);
    let log_in = |number: usize| {
        let mut client = lab.client(&daemon);
        assert_eq!(client.command(&auth_plain(&format!("u{number}"), SECRET)).unwrap().code, 235);
        client
    };
    send_some(&mut log_in(0), "example.test", OF_THE_LARGE);
    for number in 1..TENANTS {
        let mut client = log_in(number);
        for _ in 0..OF_A_SMALL {
            client.send_simple(FROM, &["you@example.test"], &format!("small {number}"));
        }
    }
    let small = (TENANTS - 1) * OF_A_SMALL;
    wait_ready(&daemon, OF_THE_LARGE + small - HELD);
    let subjects = order(&mx, &gate, OF_THE_LARGE + small);
    let last = subjects.iter().rposition(|subject| subject.starts_with("small")).unwrap();
    // The large one has its turn, too: one in each round, as everybody.
    let due_by = HELD + small + OF_A_SMALL + HELD;
    assert!(last < due_by, "the last of the small ones came as number {last}, not within {due_by}");
    daemon.wait_empty();
}

#[test]
fn what_is_urgent_goes_before_bulk_of_its_own_tenant() {
    const BULK: usize = 100;
    let lab = Lab::new();
    lab.domain("example.test", &[2]);
    let (mx, gate) = lab.mx_holding_dots(2);
    let config = narrow(&lab)
        .table("[[configuration_set]]\nname = \"news\"\nbulk = true\n")
        .table("[[configuration_set]]\nname = \"codes\"\npriority = \"high\"\n");
    let daemon = lab.daemon_with(config);
    let mut client = lab.client(&daemon);
    let mut send = |field: &str, subject: &str| {
        client.send(FROM, &["you@example.test"], &format!("{field}\r\n{}", simple(subject)));
    };
    for _ in 0..BULK {
        send("X-SES-CONFIGURATION-SET: news", "bulk");
    }
    for _ in 0..5 {
        send("X-Note: none", "normal");
        send("X-SES-CONFIGURATION-SET: codes", "high");
        send("X-Posthaste-Priority: high", "high");
    }
    wait_ready(&daemon, BULK + 15 - HELD);
    let subjects = order(&mx, &gate, BULK + 15);
    let last = |subject: &str| subjects.iter().rposition(|other| other == subject).unwrap();
    let before = |subject: &str, of: &str| subjects[..last(of)].iter().filter(|other| *other == subject).count();
    // One connection may be slow to end what it began, while the other one goes on.
    const OVERTAKE: usize = 3;
    assert!(before("normal", "high") <= OVERTAKE, "{subjects:?}");
    assert!(before("bulk", "high") <= HELD, "{subjects:?}");
    assert!(before("bulk", "normal") <= HELD + OVERTAKE, "{subjects:?}");
    daemon.wait_empty();
}
