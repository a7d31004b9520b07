//! Routes from zones as data, and two scenarios against a DNS server on loopback.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Mutex;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;

use super::*;
use crate::delivery::dispatch::destination_of;
use crate::delivery::settings::Source;
use crate::net::dns::HickoryResolver;
use crate::net::dns::responder::{Responder, Say, mx};
use crate::net::settings::DnsSettings;
use crate::net::{BoxFuture, DnsError};
use crate::policy::Providers;
use crate::types::{ManualClock, PoolName};

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Names with their MX records (`10 mx.test`) and addresses; names that are missing do not exist, `broken.test` fails.
#[derive(Default)]
struct Zones {
    mx: HashMap<String, Vec<Mx>>,
    addresses: HashMap<String, Vec<IpAddr>>,
    asked: Mutex<Vec<String>>,
}

impl Zones {
    fn with(mut self, name: &str, records: &[&str], addresses: &[&str]) -> Self {
        let parse = |record: &&str| {
            let (preference, host) = record.split_once(' ').unwrap();
            Mx { preference: preference.parse().unwrap(), host: (host != ".").then(|| domain(host)) }
        };
        self.mx.insert(name.to_owned(), records.iter().map(parse).collect());
        self.addresses.insert(name.to_owned(), addresses.iter().map(|address| ip(address)).collect());
        self
    }

    fn answer<T: Clone>(&self, table: &HashMap<String, Vec<T>>, name: &Domain) -> Result<Answer<T>, DnsError> {
        self.asked.lock().unwrap().push(name.to_string());
        if name.as_str() == "broken.test" {
            return Err(DnsError::Failed { name: name.clone(), reason: "SERVFAIL".to_owned() });
        }
        let records = table.get(name.as_str()).cloned().ok_or_else(|| DnsError::NoSuchDomain(name.clone()))?;
        Ok(Answer { records, expires_at: START.plus(Duration::from_secs(300)), stale: false })
    }
}

impl Resolver for Zones {
    fn mx<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Result<Answer<Mx>, DnsError>> {
        Box::pin(async move { self.answer(&self.mx, domain) })
    }

    fn addresses<'a>(&'a self, host: &'a Domain) -> BoxFuture<'a, Result<Answer<IpAddr>, DnsError>> {
        Box::pin(async move { self.answer(&self.addresses, host) })
    }
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(START))
}

fn router(zones: Zones, settings: &Settings) -> Router {
    Router::new(settings, &[], Arc::new(zones), clock(), 1)
}

fn settings() -> Settings {
    Settings { hostname: "own.test".to_owned(), ..Settings::default() }
}

async fn route(router: &Router, name: &str) -> Arc<Route> {
    match router.route(&domain(name)).await {
        RouteOutcome::Route(route) => route,
        other => panic!("{name}: {other:?}"),
    }
}

/// The site, or the rule and status of the refusal.
async fn outcome(router: &Router, name: &str) -> String {
    match router.route(&domain(name)).await {
        RouteOutcome::Route(route) => route.site.to_string(),
        RouteOutcome::Permanent { status, rule, .. } | RouteOutcome::Temporary { status, rule, .. } => {
            format!("{status} {rule}")
        }
        RouteOutcome::NoSuchDomain { .. } => "nxdomain".to_owned(),
    }
}

#[tokio::test]
async fn each_domain_gets_its_fate() {
    let zones = Zones::default()
        .with("a.test", &["20 mx2.a.test", "10 mx1.a.test"], &[])
        .with("b.test", &["10 mx2.a.test", "10 mx1.a.test"], &[])
        .with("bare.test", &[], &["192.0.2.1"])
        .with("null.test", &["0 ."], &["192.0.2.1"])
        .with("loop.test", &["10 own.test", "20 backup.test"], &[])
        .with("own.test", &[], &["192.0.2.9"]);
    let router = router(zones, &settings());
    for (name, expected) in [
        ("a.test", "mx1.a.test,mx2.a.test"),
        ("b.test", "mx1.a.test,mx2.a.test"),
        ("bare.test", "bare.test"),
        ("null.test", "5.1.10 null-mx"),
        ("loop.test", "5.4.6 mx-loop"),
        ("own.test", "5.4.6 mx-loop"),
        ("gone.test", "nxdomain"),
        ("broken.test", "4.4.3 dns-failure"),
    ] {
        assert_eq!(outcome(&router, name).await, expected, "{name}");
    }
    assert_eq!(route(&router, "bare.test").await.kind, RouteKind::ImplicitMx);
    assert_eq!(no_such_domain_status().to_string(), "5.1.2");
}

#[tokio::test]
async fn names_and_addresses_of_all_sources_are_ours() {
    let named = |name: &str, address: &str, egress| Source {
        name: crate::types::SourceName::parse(name).unwrap(),
        address: Some(ip(address)),
        ehlo_name: Some(domain(&format!("{name}.test"))),
        egress,
    };
    let far = Egress::HaProxy { proxy: "10.0.0.1:2525".parse().unwrap() };
    let sources = vec![named("near", "198.51.100.7", Egress::Direct), named("far", "198.51.100.8", far)];
    let settings = Settings { sources, ..settings() };
    let zones = Zones::default().with("a.test", &["10 near.test"], &[]).with("b.test", &["10 far.test"], &[]).with(
        "c.test",
        &["10 own.test"],
        &[],
    );
    let router = router(zones, &settings);
    for (name, expected) in [("a.test", "5.4.6 mx-loop"), ("b.test", "far.test"), ("c.test", "5.4.6 mx-loop")] {
        assert_eq!(outcome(&router, name).await, expected, "{name}");
    }
    for address in ["198.51.100.7", "198.51.100.8"] {
        let failure = check_addresses(&[address], &settings).await.unwrap_err();
        assert_eq!(failure.rule(), "refused-address", "{address}");
    }
}

fn rule(domains: &[&str], host: &str, port: u16) -> RouteRule {
    let is_parent = |name: &&&str| name.starts_with('.');
    let domains = match domains {
        ["*"] => DomainPattern::All,
        names => DomainPattern::Listed {
            exact: names.iter().filter(|name| !is_parent(name)).map(|name| domain(name)).collect(),
            parents: names.iter().filter(is_parent).map(|name| domain(&name[1..])).collect(),
        },
    };
    let host = host.parse().map_or_else(|_| NextHop::Host(domain(host)), NextHop::Address);
    RouteRule { domains, host, port, tls: TlsMode::Opportunistic, login: None }
}

#[tokio::test]
async fn the_first_matching_rule_wins_before_any_dns() {
    let routes = vec![
        rule(&["a.test", ".sub.test"], "first.test", 2525),
        rule(&[".a.test", "sub.test"], "10.0.0.2", 26),
        rule(&["*"], "rest.test", 587),
    ];
    let zones = Arc::new(Zones::default());
    let settings = Settings { routes, ..settings() };
    let router = Router::new(&settings, &[], zones.clone(), clock(), 1);
    for (name, expected) in [
        ("a.test", "smarthost:first.test:2525"),
        ("x.sub.test", "smarthost:first.test:2525"),
        ("y.x.sub.test", "smarthost:first.test:2525"),
        ("sub.test", "smarthost:10.0.0.2:26"),
        ("x.a.test", "smarthost:10.0.0.2:26"),
        ("xa.test", "smarthost:rest.test:587"),
        ("test", "smarthost:rest.test:587"),
    ] {
        assert_eq!(outcome(&router, name).await, expected, "{name}");
    }
    assert!(zones.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_simulators_own_domain_goes_there_before_every_route_and_nothing_that_dns_says_does() {
    let zones = Zones::default()
        .with("sim.test", &["10 mx.sim.test"], &["192.0.2.9"])
        .with("trick.test", &["10 sim.test"], &[])
        .with("below.sim.test", &["10 sim.test"], &[]);
    let relay = RouteRule {
        domains: DomainPattern::Listed { exact: vec![domain("sim.test")], parents: Vec::new() },
        host: NextHop::Address(ip("192.0.2.1")),
        port: 25,
        tls: TlsMode::Require,
        login: None,
    };
    let mut settings = Settings { routes: vec![relay], ..settings() };
    let address: SocketAddr = "127.0.0.1:2525".parse().unwrap();
    let simulated = Simulated { domain: domain("sim.test"), address };
    settings.simulate(simulated.clone()).unwrap();
    settings.clone().simulate(simulated).unwrap_err();
    let router = router(zones, &settings);
    let found = route(&router, "sim.test").await;
    assert_eq!((found.kind, found.tls, found.mail_hosts().count()), (RouteKind::Simulator, TlsMode::None, 0));
    assert_eq!(router.addresses(&found, &found.hops[0], Family::Any).await, Ok(vec![address]));
    let destination = destination_of(&Providers::built_in(), &domain("sim.test"), &found);
    assert_eq!(destination.own_pool.as_ref().map(PoolName::as_str), Some("simulator"));
    for other in ["trick.test", "below.sim.test"] {
        let found = route(&router, other).await;
        let expected: SocketAddr = "192.0.2.9:25".parse().unwrap();
        assert_eq!(router.addresses(&found, &found.hops[0], Family::Any).await, Ok(vec![expected]), "{other}");
        assert_eq!(destination_of(&Providers::built_in(), &domain(other), &found).own_pool, None);
    }
}

#[tokio::test]
async fn a_smart_host_carries_its_settings_and_may_be_local() {
    let login = Login { user: "app".to_owned(), password_file: PathBuf::from("/secret") };
    let relay = RouteRule { tls: TlsMode::Require, login: Some(login.clone()), ..rule(&["*"], "relay.test", 587) };
    let zones = Zones::default().with("relay.test", &["10 elsewhere.test"], &["127.0.0.1"]);
    let router = router(zones, &Settings { routes: vec![relay], ..settings() });
    let route = route(&router, "a.test").await;
    assert_eq!((route.kind, route.tls, route.login.as_ref()), (RouteKind::SmartHost, TlsMode::Require, Some(&login)));
    assert_eq!(
        router.addresses(&route, &route.hops[0], Family::Any).await.unwrap(),
        ["127.0.0.1:587".parse().unwrap()]
    );
}

/// Addresses of the first hop of `a.test` whose MX host has `addresses`.
async fn check_addresses(addresses: &[&str], settings: &Settings) -> Result<Vec<SocketAddr>, RouteFailure> {
    let zones = Zones::default().with("a.test", &["10 mx.test"], &[]).with("mx.test", &[], addresses);
    let router = router(zones, settings);
    let route = route(&router, "a.test").await;
    router.addresses(&route, &route.hops[0], settings.sources[0].family()).await
}

#[tokio::test]
async fn dns_cannot_send_mail_to_ourselves_or_inside() {
    let sources = vec![Source::of_address(ip("198.51.100.7"))];
    let settings = Settings { sources, ..settings() };
    for (address, status) in [
        ("127.0.0.1", "5.4.6"),
        ("::ffff:127.0.0.1", "5.4.6"),
        ("198.51.100.7", "5.4.6"),
        ("0.0.0.0", "5.4.6"),
        ("10.0.0.1", "5.4.4"),
        ("169.254.169.254", "5.4.4"),
    ] {
        let failure = check_addresses(&[address], &settings).await.unwrap_err();
        assert_eq!((failure.status().to_string().as_str(), failure.rule()), (status, "refused-address"), "{address}");
        let mixed = check_addresses(&[address, "192.0.2.1"], &settings).await.unwrap();
        assert_eq!(mixed, ["192.0.2.1:25".parse().unwrap()], "{address}");
        let lab = Settings { allow_private_addresses: true, ..settings.clone() };
        assert!(check_addresses(&[address], &lab).await.is_ok(), "{address} in a lab");
    }
}

#[tokio::test]
async fn addresses_alternate_and_are_limited_and_follow_the_families_of_the_sources() {
    let all = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2", "2001:db8::3"];
    let both = check_addresses(&all, &settings()).await.unwrap();
    let families: Vec<bool> = both.iter().map(SocketAddr::is_ipv6).collect();
    assert_eq!(families, [true, false, true, false, true], "5 of 6, in turn");
    let only_v4 = Settings { sources: vec![Source::of_address(ip("198.51.100.7"))], ..settings() };
    let v4 = check_addresses(&all, &only_v4).await.unwrap();
    assert!(v4.len() == 3 && v4.iter().all(SocketAddr::is_ipv4), "{v4:?}");
    let failure = check_addresses(&["2001:db8::1"], &only_v4).await.unwrap_err();
    assert_eq!((failure.status().to_string().as_str(), failure.rule()), ("4.3.5", "no-source"));
    assert!(failure.to_string().contains("IPv6"), "{failure}");
}

#[tokio::test]
async fn equal_addresses_take_turns() {
    let zones = Zones::default().with("a.test", &[], &["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
    let router = router(zones, &settings());
    let route = route(&router, "a.test").await;
    let mut first = HashSet::new();
    for _ in 0..50 {
        first.insert(router.addresses(&route, &route.hops[0], Family::Any).await.unwrap()[0]);
    }
    assert_eq!(first.len(), 3);
}

#[tokio::test]
async fn hosts_without_addresses_and_their_sum() {
    let zones = Zones::default()
        .with("a.test", &["10 gone.test", "20 bare.test", "30 inside.test", "40 broken.test"], &[])
        .with("bare.test", &[], &[])
        .with("inside.test", &[], &["10.0.0.1"]);
    let router = router(zones, &settings());
    let route = route(&router, "a.test").await;
    let mut failures = Vec::new();
    for hop in route.order(7) {
        failures.push(router.addresses(&route, hop, Family::Any).await.unwrap_err());
    }
    let rules: Vec<&str> = failures.iter().map(RouteFailure::rule).collect();
    assert_eq!(rules, ["no-address", "no-address", "refused-address", "dns-failure"]);
    let sum = |count: usize| RouteFailure::of_all(failures[4 - count..].to_vec()).map(|failure| failure.rule());
    assert_eq!(sum(4), Some("dns-failure"), "one that may pass makes all temporary");
    assert_eq!(RouteFailure::of_all(failures[..3].to_vec()), Some(failures[0].clone()));
    assert_eq!(RouteFailure::of_all(failures[2..3].to_vec()), Some(failures[2].clone()));
    assert_eq!(sum(0), None);
}

/// As a worker does it: all hops in order, the dead for last.
async fn plan(router: &Router, route: &Route, seed: u64, dead: &DeadHosts, now: Timestamp) -> Vec<SocketAddr> {
    let (mut plan, mut later) = (Vec::new(), Vec::new());
    for hop in route.order(seed) {
        let (live, dead) = dead.split(router.addresses(route, hop, Family::Any).await.unwrap(), None, now);
        plan.extend(live);
        later.extend(dead);
    }
    plan.extend(later);
    plan
}

#[tokio::test]
async fn a_dead_best_host_costs_one_attempt_and_then_none() {
    let zones = Zones::default()
        .with("a.test", &["10 best.test", "20 second.test"], &[])
        .with("best.test", &[], &["192.0.2.1"])
        .with("second.test", &[], &["192.0.2.2"]);
    let router = router(zones, &settings());
    let route = route(&router, "a.test").await;
    let mut dead = DeadHosts::default();
    let (best, second): (SocketAddr, SocketAddr) = ("192.0.2.1:25".parse().unwrap(), "192.0.2.2:25".parse().unwrap());
    let mut failed = 0;
    for seed in 0..60 {
        // One message a second; the best host refuses all.
        let now = START.plus(Duration::from_secs(seed));
        let order = plan(&router, &route, seed, &dead, now).await;
        assert_eq!(order.len(), 2);
        if order[0] == best {
            failed += 1;
            dead.mark(best, None, now);
            assert_eq!(order[1], second);
        }
    }
    assert_eq!(failed, 1, "only the first message tried the dead host");
    assert_eq!(plan(&router, &route, 1, &dead, START.plus(Duration::from_secs(121))).await[0], best, "it comes back");
}

struct Lab {
    server: Responder,
    clock: Arc<ManualClock>,
    router: Router,
}

async fn lab() -> Lab {
    let server = Responder::start().await;
    let clock = clock();
    let dns = DnsSettings { servers: vec![server.address], ..DnsSettings::default() };
    let resolver = Arc::new(HickoryResolver::new(&dns, clock.clone()).unwrap());
    let router = Router::new(&settings(), &[], resolver, clock.clone(), 1);
    Lab { server, clock, router }
}

#[tokio::test]
async fn scenario_21_servfail_for_two_hours_is_no_bounce_and_recovers_by_itself() {
    let lab = lab().await;
    lab.server.say_always(Some(Say::Code(ResponseCode::ServFail)));
    lab.server.say("a.test", RecordType::MX, Say::Records(vec![mx("a.test", "10 mx.a.test")]));
    for _ in 0..12 {
        assert_eq!(outcome(&lab.router, "a.test").await, "4.4.3 dns-failure");
        lab.clock.advance(Duration::from_secs(600));
    }
    lab.server.say_always(None);
    assert_eq!(outcome(&lab.router, "a.test").await, "mx.a.test");
    lab.server.say_always(Some(Say::Code(ResponseCode::ServFail)));
    for _ in 0..12 {
        lab.clock.advance(Duration::from_secs(600));
        assert_eq!(outcome(&lab.router, "a.test").await, "mx.a.test", "a known domain does not even notice");
    }
}

#[tokio::test]
async fn scenario_21_null_mx_at_once_and_nxdomain_with_a_real_second_look() {
    let lab = lab().await;
    lab.server.say("null.test", RecordType::MX, Say::Records(vec![mx("null.test", "0 .")]));
    lab.server.say("gone.test", RecordType::MX, Say::NxDomain(86_400));
    assert_eq!(outcome(&lab.router, "null.test").await, "5.1.10 null-mx");
    assert_eq!(outcome(&lab.router, "gone.test").await, "nxdomain");
    lab.clock.advance(Duration::from_secs(600));
    assert_eq!(outcome(&lab.router, "gone.test").await, "nxdomain");
    assert_eq!(lab.server.asked("gone.test", RecordType::MX), 2);
    lab.server.say("gone.test", RecordType::MX, Say::Records(vec![mx("gone.test", "10 mx.gone.test")]));
    lab.clock.advance(Duration::from_secs(600));
    assert_eq!(outcome(&lab.router, "gone.test").await, "mx.gone.test", "or it has come into being meanwhile");
}
