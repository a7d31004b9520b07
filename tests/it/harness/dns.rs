//! An authoritative DNS server on UDP whose data, and failures, a test changes while it runs.
//!
//! Answers stay below the 1,232 octets that resolvers take by UDP, so there is no TCP. Names without records do not exist (NXDOMAIN); names with records
//! of other types have none of this (NODATA). TTLs are 1 s, so that changes count at once.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::Watched;

const TTL_SECONDS: u32 = 1;
const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_SOA: u16 = 6;
const TYPE_PTR: u16 = 12;
const TYPE_MX: u16 = 15;
const TYPE_TXT: u16 = 16;
const TYPE_AAAA: u16 = 28;

/// How the server treats a name and all names below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DnsMode {
    Normal,
    ServFail,
    NxDomain,
    /// No answer at all.
    Silent,
}

#[derive(Default)]
struct World {
    records: BTreeMap<String, Vec<Record>>,
    modes: BTreeMap<String, DnsMode>,
    /// Every question: name, type.
    asked: Vec<(String, u16)>,
}

#[derive(Clone)]
enum Record {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Cname(String),
    Mx(u16, String),
    Ptr(String),
    /// Its strings.
    Txt(Vec<String>),
}

impl Record {
    fn kind(&self) -> u16 {
        match self {
            Record::A(_) => TYPE_A,
            Record::Aaaa(_) => TYPE_AAAA,
            Record::Cname(_) => TYPE_CNAME,
            Record::Mx(..) => TYPE_MX,
            Record::Ptr(_) => TYPE_PTR,
            Record::Txt(_) => TYPE_TXT,
        }
    }

    fn data(&self) -> Vec<u8> {
        match self {
            Record::A(address) => address.octets().to_vec(),
            Record::Aaaa(address) => address.octets().to_vec(),
            Record::Cname(name) | Record::Ptr(name) => encode_name(name),
            Record::Txt(strings) => {
                let with_length =
                    |text: &String| [vec![u8::try_from(text.len()).unwrap()], text.clone().into()].concat();
                strings.iter().flat_map(with_length).collect()
            }
            Record::Mx(preference, name) => [preference.to_be_bytes().to_vec(), encode_name(name)].concat(),
        }
    }
}

/// Stops when dropped.
pub(crate) struct Dns {
    address: SocketAddr,
    world: Watched<World>,
    stops: Arc<AtomicBool>,
}

impl Dns {
    /// On a free port of `host`.
    pub(crate) fn start(host: Ipv4Addr) -> Self {
        let socket = UdpSocket::bind((host, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let (world, stops) = (Watched::new(World::default()), Arc::new(AtomicBool::new(false)));
        let (shared, stopping) = (world.clone(), Arc::clone(&stops));
        thread::spawn(move || serve(&socket, &shared, &stopping));
        Self { address, world, stops }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn a(&self, name: &str, address: Ipv4Addr) {
        self.add(name, Record::A(address));
    }

    pub(crate) fn aaaa(&self, name: &str, address: Ipv6Addr) {
        self.add(name, Record::Aaaa(address));
    }

    pub(crate) fn cname(&self, name: &str, target: &str) {
        self.add(name, Record::Cname(target.to_owned()));
    }

    /// Replaces the MX records of `domain`; the host `"."` makes a null MX.
    pub(crate) fn mx(&self, domain: &str, hosts: &[(u16, &str)]) {
        self.world.change(|world| {
            let records = world.records.entry(domain.to_ascii_lowercase()).or_default();
            records.retain(|record| record.kind() != TYPE_MX);
            records.extend(hosts.iter().map(|(preference, host)| Record::Mx(*preference, (*host).to_owned())));
        });
    }

    /// Adds a TXT record of these strings.
    pub(crate) fn txt(&self, name: &str, strings: &[&str]) {
        self.add(name, Record::Txt(strings.iter().map(|string| (*string).to_owned()).collect()));
    }

    /// Adds a PTR record of an address.
    pub(crate) fn ptr(&self, address: Ipv4Addr, target: &str) {
        self.add(&reverse_name(address), Record::Ptr(target.to_owned()));
    }

    /// Forgets the TXT records of a name whose text, all strings together, begins so.
    pub(crate) fn remove_txt(&self, name: &str, beginning: &str) {
        let goes = |record: &Record| matches!(record, Record::Txt(strings) if strings.concat().starts_with(beginning));
        self.world.change(|world| {
            world.records.entry(name.to_ascii_lowercase()).or_default().retain(|record| !goes(record));
        });
    }

    /// Forgets all records of a name.
    pub(crate) fn remove(&self, name: &str) {
        self.world.change(|world| world.records.remove(&name.to_ascii_lowercase()));
    }

    /// From now on, for the name and all below it.
    pub(crate) fn set_mode(&self, name: &str, mode: DnsMode) {
        self.world.change(|world| world.modes.insert(name.to_ascii_lowercase(), mode));
    }

    /// Questions about this name so far, of any type.
    pub(crate) fn asked(&self, name: &str) -> usize {
        self.world.lock().asked.iter().filter(|(asked, _)| asked == name).count()
    }

    /// Waits until there were more than `before` questions about this name.
    pub(crate) fn wait_asked(&self, name: &str, before: usize) {
        let more = |world: &mut World| {
            let count = world.asked.iter().filter(|(asked, _)| asked == name).count();
            (count > before).then_some(())
        };
        self.world.wait(super::PATIENCE, more).unwrap_or_else(|| panic!("nobody asks for {name} any more"));
    }

    fn add(&self, name: &str, record: Record) {
        self.world.change(|world| world.records.entry(name.to_ascii_lowercase()).or_default().push(record));
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stops.store(true, Ordering::Relaxed);
        // Any datagram wakes the thread.
        let _ = UdpSocket::bind((self.address.ip(), 0)).and_then(|socket| socket.send_to(&[0], self.address));
    }
}

fn serve(socket: &UdpSocket, world: &Watched<World>, stops: &AtomicBool) {
    let mut buffer = [0; 4_096];
    loop {
        let received: io::Result<_> = socket.recv_from(&mut buffer);
        if stops.load(Ordering::Relaxed) {
            return;
        }
        let Ok((count, client)) = received else { continue };
        if let Some(answer) = world.change(|world| answer(world, &buffer[..count])) {
            let _ = socket.send_to(&answer, client);
        }
    }
}

/// RFC 1035 §4.1. `None`: no answer.
fn answer(world: &mut World, query: &[u8]) -> Option<Vec<u8>> {
    let (name, end) = question_name(query)?;
    let kind = u16::from_be_bytes([*query.get(end)?, *query.get(end + 1)?]);
    let question = &query[12..end + 4];
    world.asked.push((name.clone(), kind));
    let matches = |suffix: &str| name == suffix || name.ends_with(&format!(".{suffix}"));
    let mode = world.modes.iter().rev().find(|(suffix, _)| matches(suffix)).map_or(DnsMode::Normal, |(_, mode)| *mode);
    let (code, records) = match mode {
        DnsMode::Silent => return None,
        DnsMode::ServFail => (2, Vec::new()),
        DnsMode::NxDomain => (3, Vec::new()),
        DnsMode::Normal => look_up(world, &name, kind),
    };
    let is_negative = records.is_empty() && code != 2;
    let mut out = query[..2].to_vec();
    // QR, AA, and RD as asked; then RA and the code.
    out.extend([0x84 | (query[2] & 1), 0x80 | code]);
    for count in [1, u16::try_from(records.len()).unwrap(), u16::from(is_negative), 0] {
        out.extend(count.to_be_bytes());
    }
    out.extend(question);
    for (owner, record) in &records {
        put_record(&mut out, owner, record.kind(), &record.data());
    }
    if is_negative {
        let zone = name.rsplit_once('.').map_or(name.as_str(), |(_, last)| last);
        let numbers = [1_u32, 3_600, 600, 86_400, TTL_SECONDS].map(u32::to_be_bytes).concat();
        put_record(&mut out, zone, TYPE_SOA, &[encode_name("ns.test"), encode_name("root.test"), numbers].concat());
    }
    Some(out)
}

fn look_up(world: &World, name: &str, kind: u16) -> (u8, Vec<(String, Record)>) {
    let mut found = Vec::new();
    let mut owner = name.to_owned();
    // A chain of aliases ends, even if a test closes it to a loop.
    for _ in 0..10 {
        let Some(records) = world.records.get(&owner) else { return (if found.is_empty() { 3 } else { 0 }, found) };
        let alias = records.iter().find(|record| record.kind() == TYPE_CNAME && kind != TYPE_CNAME);
        let Some(Record::Cname(target)) = alias else {
            found.extend(records.iter().filter(|record| record.kind() == kind).map(|one| (owner.clone(), one.clone())));
            break;
        };
        found.push((owner.clone(), Record::Cname(target.clone())));
        owner = target.to_ascii_lowercase();
    }
    (0, found)
}

/// RFC 1035 §3.5.
pub(crate) fn reverse_name(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("{d}.{c}.{b}.{a}.in-addr.arpa")
}

fn put_record(out: &mut Vec<u8>, owner: &str, kind: u16, data: &[u8]) {
    out.extend(encode_name(owner));
    out.extend(kind.to_be_bytes());
    out.extend(1_u16.to_be_bytes());
    out.extend(TTL_SECONDS.to_be_bytes());
    out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    out.extend(data);
}

fn encode_name(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(u8::try_from(label.len()).unwrap());
        out.extend(label.as_bytes());
    }
    out.push(0);
    out
}

/// The name of the only question in lower case, and where it ends.
fn question_name(query: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        if length == 0 {
            break;
        }
        let label = query.get(at + 1..at + 1 + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += 1 + length;
    }
    Some((labels.join("."), at + 1))
}
