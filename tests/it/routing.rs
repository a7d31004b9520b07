//! Where mail goes: MX records good, bad and missing, smart hosts, TLS, source addresses.

use serde_json::Value;

use crate::harness::*;

const FROM: &str = "app@sender.example";

#[test]
fn a_null_mx_bounces_at_once() {
    let lab = Lab::new();
    lab.dns.mx("null.test", &[(0, ".")]);
    let daemon = lab.daemon();
    let id = lab.client(&daemon).send_simple(FROM, &["you@null.test"], "nobody");
    let bounce = daemon.events().wait_kind("Bounce", &id, "you@null.test");
    assert_eq!(bounce["bounce"]["bounceType"], "Permanent", "{bounce:#}");
    assert_eq!(bounce["bounce"]["bouncedRecipients"][0]["status"], "5.1.10", "{bounce:#}");
    assert_eq!(bounce["posthaste"]["attempt"], 1);
    assert_eq!(bounce["posthaste"]["rule"], "null-mx");
    daemon.wait_empty();
}

/// The only message of the queue waits after an attempt.
fn is_deferred(queue: &[Value]) -> bool {
    queue.len() == 1 && queue[0]["state"] == "deferred" && queue[0]["attempts"].as_u64() >= Some(1)
}

#[test]
fn servfail_never_bounces_and_mail_flows_again_when_dns_does() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("broken.test", &[2]);
    lab.dns.set_mode("broken.test", DnsMode::ServFail);
    let daemon = lab.daemon();
    let id = lab.client(&daemon).send_simple(FROM, &["you@broken.test"], "patience");
    let mut events = daemon.events();
    daemon.wait_queue("the message waits for DNS", is_deferred);
    // A few more attempts make no difference.
    for _ in 0..2 {
        lab.dns.wait_asked("broken.test", lab.dns.asked("broken.test"));
    }
    lab.dns.set_mode("broken.test", DnsMode::Normal);
    events.wait_kind("Delivery", &id, "you@broken.test");
    assert!(events.seen().iter().all(|event| event["eventType"] != "Bounce"), "{}", events.summary());
    assert_eq!(mx.accepted().len(), 1);
}

#[test]
fn dns_that_does_not_answer_is_no_bounce_either() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("silent.test", &[2]);
    lab.dns.set_mode("silent.test", DnsMode::Silent);
    let daemon = lab.daemon_with(lab.config().set("dns.timeout", "\"100ms\""));
    let id = lab.client(&daemon).send_simple(FROM, &["you@silent.test"], "patience");
    daemon.wait_queue("the message waits for DNS", is_deferred);
    lab.dns.set_mode("silent.test", DnsMode::Normal);
    daemon.events().wait_kind("Delivery", &id, "you@silent.test");
    assert_eq!(mx.accepted().len(), 1);
}

#[test]
fn nxdomain_does_not_bounce_at_the_first_look() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    let daemon = lab.daemon();
    let id = lab.client(&daemon).send_simple(FROM, &["you@young.test"], "too early");
    daemon.wait_queue("the message waits for DNS", is_deferred);
    lab.domain("young.test", &[2]);
    // NXDOMAIN is looked at again after ten minutes; an operator who knows better need not wait. For a second it is
    // remembered, so the first words of the operator may bring nothing.
    let mut events = daemon.events();
    let before = lab.dns.asked("young.test");
    let ask = || {
        daemon.cli(&["queue", "retry", "--all"]);
        (lab.dns.asked("young.test") > before).then_some(())
    };
    poll(ask, || daemon.log_tail());
    let seen = events.wait_until(|seen| seen.iter().find(|event| event["eventType"] != "Send").cloned());
    assert_eq!(seen["eventType"], "Delivery", "{}", events.summary());
    assert_eq!(seen["mail"]["messageId"], *id);
    assert_eq!(mx.accepted().len(), 1);
}

#[test]
fn where_the_best_mx_is_dead_the_second_gets_the_mail_in_the_same_attempt() {
    let lab = Lab::new();
    let mx = lab.mx(3);
    // Nobody listens at host 2.
    lab.domain("example.test", &[2, 3]);
    let daemon = lab.daemon();
    let mut client = lab.client(&daemon);
    let ids: Vec<_> = (0..20).map(|n| client.send_simple(FROM, &["you@example.test"], &format!("{n}"))).collect();
    mx.wait_accepted(20);
    let mut events = daemon.events();
    for id in ids {
        let delivery = events.wait_kind("Delivery", &id, "you@example.test");
        assert_eq!(delivery["posthaste"]["attempt"], 1, "{delivery:#}");
        assert_eq!(delivery["delivery"]["remoteMtaIp"], lab.ip(3).to_string());
    }
}

#[test]
fn the_better_mx_gets_the_mail_while_it_lives() {
    let lab = Lab::new();
    let (best, second) = (lab.mx(2), lab.mx(3));
    lab.domain("example.test", &[2, 3]);
    let daemon = lab.daemon();
    let mut client = lab.client(&daemon);
    for number in 0..20 {
        client.send_simple(FROM, &["you@example.test"], &format!("{number}"));
    }
    best.wait_accepted(20);
    assert_eq!(second.connections(), 0);
}

#[test]
fn a_site_that_is_down_is_tried_when_an_operator_says_so() {
    let lab = Lab::new();
    lab.domain("example.test", &[2]);
    let daemon = lab.daemon();
    let id = lab.client(&daemon).send_simple(FROM, &["you@example.test"], "down");
    daemon.wait_queue("the message waits", is_deferred);
    let _mx = lab.mx(2);
    daemon.cli(&["queue", "retry", &id]);
    let delivery = daemon.events().wait_kind("Delivery", &id, "you@example.test");
    assert_eq!(delivery["posthaste"]["attempt"], 2);
}

#[test]
fn a_domain_without_mx_gets_its_mail_at_its_own_address() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.dns.a("plain.test", lab.ip(2));
    let daemon = lab.daemon();
    lab.client(&daemon).send_simple(FROM, &["you@plain.test"], "implicit");
    assert_eq!(mx.wait_accepted(1)[0].recipients, ["you@plain.test"]);
}

#[test]
fn a_domain_with_mx_never_gets_mail_at_its_own_address() {
    let lab = Lab::new();
    let own = lab.mx(2);
    lab.dns.a("example.test", lab.ip(2));
    // The MX host is dead.
    lab.domain("example.test", &[3]);
    let daemon = lab.daemon();
    lab.client(&daemon).send_simple(FROM, &["you@example.test"], "not here");
    daemon.wait_queue("the message waits", is_deferred);
    assert_eq!(own.connections(), 0);
}

#[test]
fn an_mx_that_is_an_alias_is_followed() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.dns.mx("example.test", &[(10, "alias.example.test")]);
    lab.dns.cname("alias.example.test", "real.example.test");
    lab.dns.a("real.example.test", lab.ip(2));
    let daemon = lab.daemon();
    lab.client(&daemon).send_simple(FROM, &["you@example.test"], "alias");
    mx.wait_accepted(1);
}

#[test]
fn a_route_of_the_config_goes_before_dns_and_others_are_left_alone() {
    let lab = Lab::new();
    let (smart, direct) = (lab.mx(2), lab.mx(3));
    lab.domain("routed.test", &[3]);
    lab.domain("direct.test", &[3]);
    let route = format!(
        "[[route]]\ndomains = [\"routed.test\", \".below.test\"]\nhost = \"{}\"\nport = {}\n",
        lab.ip(2),
        lab.port()
    );
    let daemon = lab.daemon_with(lab.config().table(&route));
    let mut client = lab.client(&daemon);
    client.send_simple(FROM, &["a@routed.test", "b@direct.test", "c@deep.below.test"], "three ways");
    smart.wait_until(|all| all.iter().map(|one| one.recipients.len()).sum::<usize>() == 2);
    let direct = direct.wait_accepted(1);
    assert_eq!(direct[0].recipients, ["b@direct.test"]);
    daemon.wait_empty();
}

#[test]
fn mail_leaves_from_the_configured_source_address() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let daemon = lab.daemon_with(lab.config().set("delivery.sources", &format!("[\"{}\"]", lab.ip(9))));
    let id = lab.client(&daemon).send_simple(FROM, &["you@example.test"], "bound");
    assert_eq!(mx.wait_accepted(1)[0].peer.ip(), lab.ip(9));
    let delivery = daemon.events().wait_kind("Delivery", &id, "you@example.test");
    assert_eq!(delivery["posthaste"]["source"], lab.ip(9).to_string());
}

fn with_tls(tls: MxTls) -> MxOptions {
    MxOptions { tls: Some(tls), ..MxOptions::default() }
}

#[test]
fn offered_tls_is_used_even_with_an_unknown_certificate() {
    let lab = Lab::new();
    let certificate = Certificate::for_name("elsewhere.test");
    let mx = lab.mx_with(2, with_tls(MxTls::Works(certificate)), |_| Answer::Usual);
    lab.domain("example.test", &[2]);
    let daemon = lab.daemon();
    let id = lab.client(&daemon).send_simple(FROM, &["you@example.test"], "sealed");
    assert!(mx.wait_accepted(1)[0].is_tls);
    let delivery = daemon.events().wait_kind("Delivery", &id, "you@example.test");
    assert_eq!(delivery["posthaste"]["tls"], "TLSv1.3");
}

#[test]
fn after_a_broken_handshake_opportunistic_mail_goes_in_clear_on_a_new_connection() {
    let lab = Lab::new();
    let mx = lab.mx_with(2, with_tls(MxTls::Broken), |_| Answer::Usual);
    lab.domain("example.test", &[2]);
    let daemon = lab.daemon();
    let id = lab.client(&daemon).send_simple(FROM, &["you@example.test"], "open");
    let got = mx.wait_accepted(1);
    assert_eq!((got[0].connection, got[0].is_tls), (2, false));
    let delivery = daemon.events().wait_kind("Delivery", &id, "you@example.test");
    assert_eq!(delivery["posthaste"]["attempt"], 1, "{delivery:#}");
    assert!(delivery["posthaste"].get("tls").is_none(), "{delivery:#}");
}

#[test]
fn where_tls_is_required_no_envelope_leaves_in_clear_or_to_an_unknown_certificate() {
    let impostor = Certificate::for_name("elsewhere.test");
    for tls in [None, Some(MxTls::Broken), Some(MxTls::Works(impostor))] {
        let lab = Lab::new();
        let mx = lab.mx_with(2, MxOptions { tls, ..MxOptions::default() }, |_| Answer::Usual);
        lab.domain("example.test", &[2]);
        let daemon = lab.daemon_with(lab.config().set("delivery.tls", "\"require\""));
        lab.client(&daemon).send_simple(FROM, &["you@example.test"], "secret");
        let queue = daemon.wait_queue("the message waits", is_deferred);
        let reason = queue[0]["waits_for"].as_str().unwrap_or_default().to_ascii_lowercase();
        assert!(reason.contains("tls") || reason.contains("certificate"), "{queue:#?}");
        let envelopes: Vec<_> = mx.commands().into_iter().filter(|(_, line)| line.starts_with("MAIL")).collect();
        assert!(envelopes.is_empty(), "{envelopes:?}");
    }
}
