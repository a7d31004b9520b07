//! Clients that hold what they get: connections without a word, half commands, half messages, half handshakes, replies that
//! nobody reads. Others are served meanwhile, memory is bounded, and each of them is ended by its timeout.
//!
//! How many there are is [`CONNECTIONS`], or POSTHASTE_HOSTILE_CONNECTIONS. What such clients cost in speed is no test but a
//! benchmark: `cargo bench --bench relay -- --work hostile`.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::harness::*;

/// Hostile connections, unless POSTHASTE_HOSTILE_CONNECTIONS says otherwise.
const CONNECTIONS: usize = 2_000;

/// What one of them may cost in memory, on average: buffers, TLS, the task. In docs/RELIABILITY.md, too.
const CONNECTION_KIB_MAX: u64 = 32;

/// Messages of honest clients while the others hold on.
const HONEST: usize = 50;

/// Ways to hold a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Says nothing.
    Silent,
    /// Begins a command.
    HalfCommand,
    /// Begins a message.
    HalfMessage,
    /// Begins a TLS handshake, on the listener with TLS from the first octet.
    HalfHandshake,
    /// Says STARTTLS, and nothing more.
    AfterStartTls,
    /// Sends commands without end, and reads no reply.
    Deaf,
}

const KINDS: [Kind; 6] =
    [Kind::Silent, Kind::HalfCommand, Kind::HalfMessage, Kind::HalfHandshake, Kind::AfterStartTls, Kind::Deaf];

/// Where a daemon with all kinds of listeners listens.
struct Target {
    clear: SocketAddr,
    implicit: SocketAddr,
}

impl Target {
    /// Both listeners of a daemon that [`config`] made.
    fn of(daemon: &Daemon) -> Self {
        Self { clear: daemon.listener_addr("smtp"), implicit: daemon.listener_addr("tls") }
    }

    /// Opens a hostile connection from an address.
    fn open(&self, kind: Kind, source: Ipv4Addr) -> TcpStream {
        let address = if kind == Kind::HalfHandshake { self.implicit } else { self.clear };
        let mut stream = connect_from(source, address);
        let message =
            "EHLO slow.example\r\nMAIL FROM:<a@slow.example>\r\nRCPT TO:<b@example.test>\r\nDATA\r\nSubject: ne";
        let words: &[u8] = match kind {
            Kind::Silent => b"",
            Kind::HalfCommand => b"EHLO slow.exam",
            Kind::HalfMessage => message.as_bytes(),
            // The head of a ClientHello that says it has 512 octets, and one of them.
            Kind::HalfHandshake => &[22, 3, 1, 2, 0, 1],
            Kind::AfterStartTls => b"EHLO slow.example\r\nSTARTTLS\r\n",
            Kind::Deaf => {
                flood(&mut stream);
                b""
            }
        };
        stream.write_all(words).unwrap();
        stream
    }
}

/// Commands until nobody takes more: the server no longer reads, and both sides' buffers are full; or until it hung up.
fn flood(stream: &mut TcpStream) {
    let commands = b"NOOP nobody reads the reply to this\r\n".repeat(1_000);
    stream.set_write_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    loop {
        match stream.write(&commands) {
            Ok(written) => assert!(written > 0),
            Err(error) => {
                let is_full = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                let is_over = matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
                assert!(is_full || is_over, "{error}");
                return;
            }
        }
    }
}

fn connect_from(source: Ipv4Addr, address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect_timeout(&address.into(), PATIENCE).unwrap();
    socket.into()
}

/// A daemon that offers TLS in both ways, and lets clients send commands that carry nothing.
fn config(lab: &Lab, connections_max: usize, per_client_max: usize) -> ConfigText {
    let certificate = Certificate::for_name("sender.example");
    let (certificate, key) = certificate.write(lab.dir());
    let listener = |name: &str, tls: &str| {
        format!(
            "[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\ntls = \"{tls}\"\n\
             certificate = {certificate:?}\nkey = {key:?}\n"
        )
    };
    lab.config()
        .without_tables("listener")
        .table(&listener("smtp", "starttls"))
        .table(&listener("tls", "implicit"))
        .set("log.level", "\"info\"")
        .set("reception.idle_commands_max", "1000000")
        .set("reception.connections_max", &connections_max.to_string())
        .set("reception.connections_per_client_max", &per_client_max.to_string())
}

/// As many file handles as this process may have; the daemon inherits that.
fn raise_files(wanted: usize) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = u64::try_from(wanted).unwrap();
    let enough = limit.maximum.is_none_or(|maximum| maximum >= wanted);
    assert!(enough, "{wanted} file handles are needed, {limit:?} are allowed: lower POSTHASTE_HOSTILE_CONNECTIONS");
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

/// The daemon's resident memory.
fn resident_kib(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn wait_clients(daemon: &Daemon, is_wanted: impl Fn(u64) -> bool) {
    let clients = || daemon.status()["connections"]["clients"].as_u64().unwrap();
    poll(|| is_wanted(clients()).then_some(()), || format!("{} clients\n{}", clients(), daemon.log_tail()));
}

#[test]
fn while_thousands_of_clients_stall_others_are_served_and_memory_is_bounded() {
    let count = std::env::var("POSTHASTE_HOSTILE_CONNECTIONS").map_or(CONNECTIONS, |count| count.parse().unwrap());
    // Five hostile hosts, none above its limit: they hold half of all places.
    let per_client = count.div_ceil(5);
    raise_files(count + 500);
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let daemon = lab.daemon_with(config(&lab, 2 * count, per_client));
    let target = Target::of(&daemon);
    // What a daemon that works has anyway is no cost of the hostile.
    let mut early = Client::hello(target.clear);
    for number in 0..HONEST {
        early.send_simple("app@sender.example", &["you@example.test"], &format!("before {number}"));
    }
    mx.wait_accepted(HONEST);
    let before_kib = resident_kib(&daemon);

    let hosts: Vec<Ipv4Addr> = (101..=105).map(|host| lab.ip(host)).collect();
    let kind = |number: usize| {
        // A deaf one fills socket buffers of the kernel, which are not without end: a few are enough.
        let kind = KINDS[number / hosts.len() % KINDS.len()];
        if kind == Kind::Deaf && number > 100 { Kind::Silent } else { kind }
    };
    let held: Vec<TcpStream> =
        (0..count).map(|number| target.open(kind(number), hosts[number % hosts.len()])).collect();
    wait_clients(&daemon, |clients| clients > u64::try_from(count).unwrap());

    let mut late = Client::hello(target.clear);
    for number in 0..HONEST {
        late.send_simple("app@sender.example", &["you@example.test"], &format!("during {number}"));
        early.send_simple("app@sender.example", &["you@example.test"], &format!("beside {number}"));
    }
    mx.wait_accepted(3 * HONEST);
    // They still hold on: what was measured was measured with them.
    wait_clients(&daemon, |clients| clients >= u64::try_from(count).unwrap() + 2);
    let after_kib = resident_kib(&daemon);
    let each_kib = after_kib.saturating_sub(before_kib) / u64::try_from(count).unwrap();
    println!("{count} hostile connections: {before_kib} KiB before, {after_kib} KiB with them, {each_kib} KiB each");
    assert!(each_kib <= CONNECTION_KIB_MAX, "{each_kib} KiB a connection: {before_kib} KiB became {after_kib} KiB");

    drop(held);
    wait_clients(&daemon, |clients| clients == 2);
    late.send_simple("app@sender.example", &["you@example.test"], "after");
    mx.wait_accepted(3 * HONEST + 1);
    daemon.stop();
}

#[test]
fn above_its_limit_a_client_gets_421_and_others_are_served_until_all_places_are_taken() {
    let lab = Lab::new();
    let daemon = lab.daemon_with(config(&lab, 5, 3));
    let target = Target::of(&daemon);
    let greeting = |source: u8| {
        let mut stream = connect_from(lab.ip(source), target.clear);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = [0; 100];
        let length = stream.read(&mut text).unwrap();
        (stream, String::from_utf8_lossy(&text[..length]).into_owned())
    };
    let mut held = Vec::new();
    for (source, expected) in [
        (101, "220 "),
        (101, "220 "),
        (101, "220 "),
        (101, "421 4.7.0 "),
        (102, "220 "),
        (103, "220 "),
        (104, "421 4.3.2 "),
    ] {
        let (stream, said) = greeting(source);
        assert!(said.starts_with(expected), "{source}: {said}");
        held.push(stream);
    }
    drop(held);
    wait_clients(&daemon, |clients| clients == 0);
    assert!(greeting(101).1.starts_with("220 "));
}

#[test]
fn each_way_to_stall_ends_by_its_timeout() {
    let lab = Lab::new();
    let config =
        config(&lab, 1_000, 1_000).set("reception.command_timeout", "\"1s\"").set("reception.data_timeout", "\"1s\"");
    let daemon = lab.daemon_with(config);
    let target = Target::of(&daemon);
    for kind in KINDS {
        let mut stream = target.open(kind, lab.ip(101));
        wait_clients(&daemon, |clients| clients == 0);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut said = Vec::new();
        // A reset is an end, too.
        drop(stream.read_to_end(&mut said));
        let said = String::from_utf8_lossy(&said);
        match kind {
            Kind::Silent | Kind::HalfCommand | Kind::HalfMessage => {
                assert!(said.ends_with("451 4.4.2 Timeout waiting for data from client.\r\n"), "{kind:?}: {said}");
            }
            Kind::HalfHandshake => assert_eq!(said, "", "{kind:?}"),
            Kind::AfterStartTls => assert!(said.ends_with("220 2.0.0 Ready to start TLS\r\n"), "{kind:?}: {said}"),
            Kind::Deaf => assert!(!said.contains("\r\n4"), "{kind:?}: only replies to its commands"),
        }
    }
}

#[test]
fn a_storm_of_handshakes_leaves_others_their_turn() {
    const STORM: usize = 4;
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let certificate = Certificate::for_name("sender.example");
    let daemon = lab.daemon_with(config(&lab, 1_000, 1_000));
    let target = Target::of(&daemon);
    // Not the one that the daemon has: each handshake costs the daemon its signature, and then fails.
    let (implicit, source) = (target.implicit, lab.ip(101));
    let stops = Watched::new(false);
    let made = Watched::new(0_usize);
    let storm: Vec<_> = (0..STORM)
        .map(|_| {
            let (certificate, stops, made) = (certificate.clone(), stops.clone(), made.clone());
            thread::spawn(move || {
                while !*stops.lock() {
                    assert!(certificate.connect(connect_from(source, implicit)).is_err());
                    made.change(|made| *made += 1);
                }
            })
        })
        .collect();
    made.wait(PATIENCE, |made| (*made > 50).then_some(())).expect("a storm");
    let mut honest = Client::hello(target.clear);
    for number in 0..HONEST {
        honest.send_simple("app@sender.example", &["you@example.test"], &format!("storm {number}"));
    }
    mx.wait_accepted(HONEST);
    stops.change(|stops| *stops = true);
    for thread in storm {
        thread.join().unwrap();
    }
    wait_clients(&daemon, |clients| clients == 1);
    daemon.stop();
}

#[test]
fn a_pipeline_of_many_messages_in_one_piece_is_taken_whole_and_in_order() {
    const MESSAGES: usize = 500;
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let daemon = lab.daemon_with(config(&lab, 100, 100));
    let mut client = Client::hello(daemon.smtp_addr());
    let mut pipeline = String::new();
    for number in 0..MESSAGES {
        let message = simple(&format!("piped {number}"));
        pipeline += &format!(
            "MAIL FROM:<app@sender.example> BODY=8BITMIME\r\nRCPT TO:<you@example.test>\r\nBDAT {} LAST\r\n{message}",
            message.len()
        );
    }
    client.write(pipeline.as_bytes()).unwrap();
    for number in 0..3 * MESSAGES {
        let reply = client.reply().unwrap();
        assert_eq!(reply.code, 250, "reply {number}: {reply:?}");
    }
    let got = mx.wait_accepted(MESSAGES);
    let subjects: std::collections::BTreeSet<String> = got.iter().map(Transaction::subject).collect();
    assert_eq!(subjects.len(), MESSAGES);
    daemon.wait_empty();
}
