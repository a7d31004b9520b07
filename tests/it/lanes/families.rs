//! Scenario 25: a host that wants a PTR record of IPv6 addresses, as Gmail does, and takes the same mail over IPv4.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{A, FROM, ip, source};
use crate::harness::*;

/// The words are Gmail's.
const NO_PTR: &str = "550-5.7.1 [2001:db8::1] Our system has detected that this message does not\n\
    550-5.7.1 meet IPv6 sending guidelines regarding PTR records and\n\
    550-5.7.1 authentication. Please review\n\
    550-5.7.1  https://support.google.com/mail/?p=IPv6AuthError for more information\n\
    550 5.7.1 . a1-b2 - gsmtp";

/// `example.test` with one host name and both kinds of address: the host at IPv6, which refuses, and the one at IPv4.
fn hosts(lab: &Lab) -> [Mx; 2] {
    let address = Ipv6Addr::LOCALHOST;
    lab.dns.a("mx.example.test", lab.ip(2));
    lab.dns.aaaa("mx.example.test", address);
    lab.dns.mx("example.test", &[(10, "mx.example.test")]);
    let refuses = |ask: &Ask<'_>| if ask.stage == Stage::Dot { Answer::say(NO_PTR) } else { Answer::Usual };
    let at = SocketAddr::new(IpAddr::V6(address), lab.port());
    [Mx::start(at, MxOptions::default(), refuses), lab.mx(2)]
}

/// One message after the other until one met the refusal; and some more. All must arrive over IPv4, without waiting for a retry.
fn check(lab: &Lab, config: ConfigText) -> Daemon {
    let [six, four] = hosts(lab);
    let daemon = lab.daemon_with(config.set("retry.steps", "[\"10m\"]"));
    let mut client = lab.client(&daemon);
    let send = |client: &mut Client| {
        let before = four.accepted().len();
        client.send_simple(FROM, &["you@example.test"], "either way");
        four.wait_accepted(before + 1);
    };
    let look = || {
        send(&mut client);
        (!six.transactions().is_empty()).then_some(())
    };
    poll(look, || "IPv6 was never tried".to_owned());
    let refused = six.transactions().len();
    for _ in 0..10 {
        send(&mut client);
    }
    daemon.wait_empty();
    assert_eq!(six.transactions().len(), refused, "IPv6 is left alone for now");
    let events = Events::read_all(&daemon.events_path());
    assert!(!events.iter().any(|event| event["eventType"] == "Bounce"), "{events:#?}");
    daemon
}

#[test]
fn where_the_ipv6_source_is_refused_mail_goes_by_the_ipv4_source() {
    let lab = Lab::new();
    let config = lab.config().table(&source(&lab, A)).table("[[source]]\nname = \"six\"\naddress = \"::1\"\n");
    let daemon = check(&lab, config);
    let events = Events::read_all(&daemon.events_path());
    let blocked = super::changes(&events, "blocked", None);
    assert_eq!(blocked.len(), 1, "{blocked:#?}");
    assert_eq!(blocked[0]["lane"]["source"], "six");
    assert_eq!(blocked[0]["lane"]["rule"], "ipv6-refused");
    let deliveries = events.iter().filter(|event| event["eventType"] == "Delivery");
    for delivery in deliveries {
        assert_eq!(delivery["posthaste"]["source"], ip(&lab, A).to_string(), "{delivery:#}");
    }
}

#[test]
fn where_the_system_chooses_the_source_ipv4_is_tried_after_a_refusal_of_ipv6() {
    let lab = Lab::new();
    let config = lab.config();
    let daemon = check(&lab, config);
    let events = Events::read_all(&daemon.events_path());
    assert!(super::changes(&events, "blocked", None).is_empty(), "one family is not the source");
}
