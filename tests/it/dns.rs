//! The resolver and the router against a real authoritative server: Knot DNS with a zone file, on a loopback port.
//!
//! `knotd` must be installed (Debian: package `knot`); without it the tests fail and say what to run.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not see as tests")]

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use posthaste::delivery::route::{RouteKind, RouteOutcome, Router};
use posthaste::delivery::settings::Settings;
use posthaste::net::Resolver;
use posthaste::net::dns::HickoryResolver;
use posthaste::net::settings::DnsSettings;
use posthaste::policy::pools::Family;
use posthaste::types::{Domain, ManualClock, SystemClock, Timestamp};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const ZONE: &str = r"$ORIGIN example.test.
$TTL 300
@         IN SOA  ns hostmaster 1 3600 600 86400 60
@         IN NS   ns
@         IN MX   20 mx2
@         IN MX   10 mx1
ns        IN A    127.0.0.1
mx1       IN A    192.0.2.1
mx1       IN AAAA 2001:db8::1
mx2       IN CNAME real
real      IN A    192.0.2.2
null      IN MX   0 .
bare      IN A    192.0.2.3
text      IN TXT  'neither mail nor address'
www       IN CNAME example.test.
inside    IN MX   10 local
local     IN A    127.0.0.1
";

/// Directories where Debian and others put `knotd`; users' PATH often lacks the sbin ones.
const SBIN: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/sbin"];

fn knotd() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates = std::env::split_paths(&path).chain(SBIN.map(PathBuf::from)).map(|dir| dir.join("knotd"));
    candidates.into_iter().find(|file| file.is_file()).expect(
        "knotd (Knot DNS) is needed for this test and was not found: run `scripts/setup test` \
         (Debian: apt-get install knot)",
    )
}

/// A port that is free for UDP and TCP now. Another process may take it before knotd does: then knotd does not start,
/// and another port is tried.
fn free_port() -> u16 {
    loop {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = tcp.local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return address.port();
        }
    }
}

struct Knot {
    address: SocketAddr,
    _process: Child,
    _dir: tempfile::TempDir,
}

impl Knot {
    /// Starts it, and returns once it answers.
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut zone = ZONE.to_owned();
        for number in 0..100 {
            writeln!(zone, "big IN MX {number} a-rather-long-host-name-{number}.example.net.").unwrap();
        }
        std::fs::write(dir.path().join("example.test.zone"), zone).unwrap();
        for _ in 0..5 {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
            if let Some(process) = launch(dir.path(), address).await {
                return Self { address, _process: process, _dir: dir };
            }
        }
        panic!("knotd did not start on five different ports");
    }

    fn resolver(&self) -> Arc<HickoryResolver> {
        let settings = DnsSettings { servers: vec![self.address], ..DnsSettings::default() };
        Arc::new(HickoryResolver::new(&settings, Arc::new(SystemClock)).unwrap())
    }
}

async fn launch(dir: &Path, address: SocketAddr) -> Option<Child> {
    let shown = dir.display();
    let config = format!(
        "server:\n    rundir: \"{shown}\"\n    listen: {}@{}\n    udp-workers: 1\n    tcp-workers: 1\n\
         database:\n    storage: \"{shown}\"\n\
         log:\n  - target: stdout\n    any: info\n\
         zone:\n  - domain: example.test\n    storage: \"{shown}\"\n    file: example.test.zone\n",
        address.ip(),
        address.port()
    );
    let file = dir.join("knot.conf");
    std::fs::write(&file, config).unwrap();
    let mut process = Command::new(knotd())
        .arg("-c")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let (mut has_zone, mut has_started) = (false, false);
    while let Some(line) = lines.next_line().await.unwrap() {
        assert!(!line.contains("error:") || line.contains("bind"), "{line}");
        has_zone |= line.contains("[example.test.] loaded");
        has_started |= line.contains("server started");
        if has_zone && has_started {
            // Keeps reading, so that knotd never waits for us.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Some(process);
        }
    }
    None
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

#[tokio::test]
async fn names_of_a_real_zone_get_their_fates() {
    let knot = Knot::start().await;
    let settings = Settings { hostname: "out.example.org".to_owned(), ..Settings::default() };
    let router = Router::new(&settings, &[], knot.resolver(), Arc::new(SystemClock), 1);
    for (name, expected) in [
        ("example.test", "mx1.example.test,mx2.example.test"),
        ("www.example.test", "mx1.example.test,mx2.example.test"),
        ("bare.example.test", "bare.example.test"),
        ("null.example.test", "5.1.10"),
        ("gone.example.test", "nxdomain"),
        ("elsewhere.test", "4.4.3"),
    ] {
        let shown = match router.route(&domain(name)).await {
            RouteOutcome::Route(route) => route.site.to_string(),
            RouteOutcome::Permanent { status, .. } | RouteOutcome::Temporary { status, .. } => status.to_string(),
            RouteOutcome::NoSuchDomain { .. } => "nxdomain".to_owned(),
        };
        assert_eq!(shown, expected, "{name}");
    }
}

#[tokio::test]
async fn hosts_of_a_real_zone_get_their_addresses() {
    let knot = Knot::start().await;
    let router = Router::new(&Settings::default(), &[], knot.resolver(), Arc::new(SystemClock), 1);
    for (name, expected) in [
        ("example.test", "[2001:db8::1]:25 192.0.2.1:25, 192.0.2.2:25"),
        ("bare.example.test", "192.0.2.3:25"),
        ("text.example.test", "5.4.4 no-address"),
        ("inside.example.test", "5.4.6 refused-address"),
    ] {
        let RouteOutcome::Route(route) = router.route(&domain(name)).await else { panic!("{name} has no route") };
        let mut shown = Vec::new();
        for hop in route.order(1) {
            shown.push(match router.addresses(&route, hop, Family::Any).await {
                Ok(addresses) => addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" "),
                Err(failure) => format!("{} {}", failure.status(), failure.rule()),
            });
        }
        assert_eq!(shown.join(", "), expected, "{name}");
        assert_eq!(route.kind == RouteKind::Mx, !name.starts_with("bare") && !name.starts_with("text"), "{name}");
    }
}

#[tokio::test]
async fn an_answer_too_large_for_udp_comes_by_tcp() {
    let knot = Knot::start().await;
    let answer = knot.resolver().mx(&domain("big.example.test")).await.unwrap();
    assert_eq!(answer.records.len(), 64, "of 100");
    assert!(answer.records.iter().all(|mx| mx.preference < 64));
}

#[tokio::test]
async fn a_server_that_ends_gives_a_failure_and_stale_answers() {
    let knot = Knot::start().await;
    let settings = DnsSettings {
        servers: vec![knot.address],
        attempts: 1,
        timeout: Duration::from_secs(2),
        ..DnsSettings::default()
    };
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1)));
    let resolver = HickoryResolver::new(&settings, clock.clone()).unwrap();
    let known = resolver.addresses(&domain("bare.example.test")).await.unwrap();
    assert_eq!(known.records, [IpAddr::from([192, 0, 2, 3])]);
    drop(knot);
    clock.advance(Duration::from_secs(3_600));
    let stale = resolver.addresses(&domain("bare.example.test")).await.unwrap();
    assert!(stale.stale);
    assert_eq!(stale.records, known.records);
    assert!(resolver.mx(&domain("example.test")).await.is_err());
}
