//! Scenario 11: what a site takes from one source holds for all domains behind it together.

use std::time::Duration;

use super::{A, B, by_source, config_with, ip, mark, marker, most_within, prove, send_to_each, with_providers};
use crate::harness::*;

const DOMAINS: usize = 400;
/// From one source.
const CONNECTIONS: usize = 3;
const MINUTE_MAX: usize = 180;

/// 400 domains with the same MX host.
fn domains_on_one_host(lab: &Lab) -> Vec<String> {
    lab.dns.a("mx.shared.test", lab.ip(2));
    let domains: Vec<String> = (0..DOMAINS).map(|number| format!("d{number}.test")).collect();
    for domain in &domains {
        lab.dns.mx(domain, &[(10, "mx.shared.test")]);
    }
    domains
}

#[test]
fn four_hundred_domains_on_one_host_keep_to_its_rate_and_connections_for_each_source() {
    let lab = Lab::new();
    let domains = domains_on_one_host(&lab);
    let mx = lab.mx_scripted(2, |ask| match ask.stage {
        Stage::Dot => Answer::slow(Duration::from_millis(200)),
        _ => Answer::Usual,
    });
    let rule = format!(
        "[[provider]]\nname = \"shared\"\nmx = [\"mx.shared.test\"]\nconnections = {CONNECTIONS}\n\
         messages_per_minute = {MINUTE_MAX}\n"
    );
    let daemon = lab.daemon_with(with_providers(&lab, config_with(&lab, &[A, B]), &rule));
    send_to_each(&mut lab.client(&daemon), domains);
    // A good minute's worth, so that the first messages leave the window while others still wait.
    mx.wait_accepted(DOMAINS / 2);
    let all = mx.wait_accepted(DOMAINS);
    daemon.wait_empty();
    for source in [ip(&lab, A), ip(&lab, B)] {
        let most = most_within(&all, source, Duration::from_secs(60));
        assert!(most <= MINUTE_MAX, "{most} in a minute from {source}");
        assert!(most > MINUTE_MAX * 8 / 10, "{source} does not use what it may: {most}");
        let peak = mx.peaks()[&source];
        assert!(peak <= CONNECTIONS, "{peak} connections from {source}");
    }
    assert_eq!(all.len(), DOMAINS);
    super::assert_first_attempts(&daemon, DOMAINS);
}

#[test]
fn connections_from_each_source_reach_the_sites_limit_and_never_pass_it() {
    let lab = Lab::new();
    let domains = domains_on_one_host(&lab);
    let (marker, gate) = (marker(&lab), Watched::new(true));
    let shut = gate.clone();
    let mx = lab.mx_scripted(2, move |ask| match ask.stage {
        Stage::Dot => Answer::Hold(shut.clone(), Box::new(Answer::Usual)),
        _ => Answer::Usual,
    });
    let config = config_with(&lab, &[A, B]).set("delivery.connections_per_site_max", &CONNECTIONS.to_string());
    let daemon = lab.daemon_with(config);
    let (mut client, sources) = (lab.client(&daemon), [ip(&lab, A), ip(&lab, B)]);
    prove(&mut client, &mx, "d0.test", &sources);
    let before = mx.accepted().len();
    gate.change(|open| *open = false);
    send_to_each(&mut client, domains);
    mx.wait_open(&sources, CONNECTIONS);
    mark(&mut client, &marker);
    gate.change(|open| *open = true);
    mx.wait_accepted(before + DOMAINS);
    daemon.wait_empty();
    assert_eq!(mx.peaks(), sources.map(|source| (source, CONNECTIONS)).into());
}

#[test]
fn domains_with_mx_names_of_their_own_below_a_providers_name_share_its_limits() {
    const HOSTED: usize = 60;
    const SECOND_MAX: usize = 8;
    let lab = Lab::new();
    let mx = lab.mx(2);
    let domains: Vec<String> = (0..HOSTED).map(|number| format!("hosted{number}.test")).collect();
    for (number, domain) in domains.iter().enumerate() {
        let host = format!("customer{number}.mail.filter.test");
        lab.dns.a(&host, lab.ip(2));
        lab.dns.mx(domain, &[(10, &host)]);
    }
    let rule = format!(
        "[[provider]]\nname = \"filter\"\nmx = [\".filter.test\"]\nconnections = 2\nmessages_per_second = {SECOND_MAX}\n"
    );
    let daemon = lab.daemon_with(with_providers(&lab, config_with(&lab, &[A, B]), &rule));
    send_to_each(&mut lab.client(&daemon), domains);
    let all = mx.wait_accepted(HOSTED);
    daemon.wait_empty();
    assert_eq!(by_source(&all).len(), 2, "both sources are used");
    for source in [ip(&lab, A), ip(&lab, B)] {
        let most = most_within(&all, source, Duration::from_secs(1));
        assert!(most <= SECOND_MAX, "{most} in a second from {source}");
        assert!(mx.peaks()[&source] <= 2, "{:?}", mx.peaks());
    }
    super::assert_first_attempts(&daemon, HOSTED);
    let events = Events::read_all(&daemon.events_path());
    let delivered = events.iter().filter(|event| event["eventType"] == "Delivery");
    let sites: std::collections::BTreeSet<_> = delivered.map(|event| event["posthaste"]["site"].to_string()).collect();
    assert_eq!(sites.len(), 1, "{sites:?}");
}
