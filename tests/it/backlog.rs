//! More mail than memory has room for: what waits for one destination is no burden for the others.

use crate::harness::*;

#[test]
fn a_dead_destination_with_more_mail_than_memory_holds_up_nobody_and_loses_nothing() {
    let lab = Lab::new();
    let living = lab.mx(3);
    lab.domain("dead.test", &[2]);
    lab.domain("living.test", &[3]);
    let mut daemon = lab.daemon_with(lab.config().set("queue.ready_max", "1000"));
    let load = Load::start(daemon.smtp_addr(), 8, &["dead.test"]);
    load.wait_accepted(1_500);
    let mut accepted = load.stop().accepted;
    assert!(accepted.len() > 1_000, "more than the table holds");
    let site = &daemon.status()["sites"][0];
    assert_eq!((&site["mode"], &site["more_on_disk"]), (&"down".into(), &true.into()), "{site:#}");
    let last = accepted.keys().next_back().unwrap();
    let shown = daemon.cli(&["queue", "show", last]);
    let waits_for = shown["recipients"][0]["waits_for"].as_str().unwrap_or_default();
    assert!(waits_for.contains("is down"), "no silent wait: {shown:#}");

    let mut deliver = |daemon: &Daemon, subject: &str| {
        let id = lab.client(daemon).send_simple("app@sender.example", &["you@living.test"], subject);
        daemon.events().wait_kind("Delivery", &id, "you@living.test");
        accepted.insert(id, subject.to_owned());
    };
    deliver(&daemon, "past the dead one");
    daemon.kill();
    daemon.start_again();
    deliver(&daemon, "and after a crash");

    let back = lab.mx(2);
    daemon.signal(Signal::USR2);
    assert_all_ends_well(&daemon, &accepted, [&living, &back]);
}
