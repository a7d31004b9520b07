//! What a world is made of, drawn from its seed: hosts and their natures, zones, messages, stops, settings.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use posthaste::types::{Domain, Timestamp};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::provider::ProviderPlan;
use super::senders::Senders;

/// 2026-03-01 00:00 UTC.
pub(super) const START: Timestamp = Timestamp::from_millis(1_772_323_200_000);
/// Where notifications go.
pub(super) const SENDERS: &str = "senders.test";
/// A job that is due stays without an outcome at most so long, whatever its hosts do to us, as long as they let us in:
/// probes at twenty minutes, an attempt at hosts that answer late, and a line before it.
const STALL_MAX: Duration = Duration::from_secs(3 * 3_600);
/// The same where all is well with its hosts: memory that is full of other jobs, a disk that does not write.
const STALL_GOOD_MAX: Duration = Duration::from_secs(600);
/// A job whose lifetime is over ends within this.
const EXPIRY_MAX: Duration = Duration::from_secs(3_600);
/// The same where messages wait in line for slow hosts.
const LINE_MAX: Duration = Duration::from_secs(12 * 3_600);
/// So many that no site waits for the connections of others.
const MANY_CONNECTIONS: usize = 50;
/// So many that no site waits for the room of others.
const MANY_JOBS: usize = 1_000;
pub(super) const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;

/// A span of virtual time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window<T> {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    pub(super) what: T,
}

impl<T: Copy> Window<T> {
    fn meets(windows: &[Self], from: Timestamp, to: Timestamp) -> bool {
        windows.iter().any(|window| window.from < to && from < window.to)
    }

    pub(super) fn at(windows: &[Self], now: Timestamp) -> Option<T> {
        windows.iter().find(|window| window.from <= now && now < window.to).map(|window| window.what)
    }
}

/// How a host behaves towards those that reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nature {
    Good,
    /// 451 to a recipient until so long after it was first seen from the same source.
    Greylists(Duration),
    /// Each reply takes so long.
    Tarpit(Duration),
    /// 421 to MAIL after so many messages on one connection.
    Tires(u32),
    /// Each recipient has a fate of its own; some improve.
    Mixed,
    /// Closes after the final dot, in so many percent of cases; half of those it keeps.
    Forgets(u8),
    /// Closes at any command, in so many percent of cases.
    Breaks(u8),
    /// Answers the final dot so late.
    Slow(Duration),
    /// Refuses content: 451 in so many percent, 554 in a few.
    Picky(u8),
    /// 452 above so many recipients.
    Narrow(usize),
}

/// A host that cannot be used for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outage {
    /// Connections are refused.
    Refuses,
    /// Nothing answers.
    Silent,
    /// 421 in place of a greeting.
    Busy,
    /// 554 in place of a greeting.
    Blocks,
}

#[derive(Clone, Debug)]
pub(super) struct HostPlan {
    pub(super) name: Domain,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) nature: Nature,
    pub(super) outages: Vec<Window<Outage>>,
    pub(super) reply_ms: u64,
    pub(super) pipelining: bool,
    /// Index of the provider that it belongs to.
    pub(super) provider: Option<usize>,
}

impl HostPlan {
    fn is_slow(&self) -> bool {
        matches!(self.nature, Nature::Slow(_) | Nature::Tarpit(_) | Nature::Breaks(_))
    }

    /// Sources that were blocked stay away for long, and longer each time.
    fn blocked_us(&self, now: Timestamp) -> bool {
        self.outages.iter().any(|outage| outage.what == Outage::Blocks && outage.from <= now)
    }

    pub(super) fn outage(&self, now: Timestamp) -> Option<Outage> {
        Window::at(&self.outages, now)
    }
}

/// A zone that gives no records for a while, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DnsTrouble {
    ServerFailure,
    NoSuchDomain,
}

/// What the file system does to event files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileTrouble {
    /// Room for so many octets more.
    Full(usize),
    /// So many syncs fail.
    Syncs(u32),
    /// From then on a write takes so many octets at most.
    ShortWrites(usize),
}

#[derive(Clone, Debug)]
pub(super) struct ZonePlan {
    pub(super) domain: Domain,
    /// Preference and index of the host; empty: null MX (RFC 7505).
    pub(super) mx: Vec<(u16, usize)>,
    pub(super) troubles: Vec<Window<DnsTrouble>>,
    pub(super) ttl: Duration,
}

impl ZonePlan {
    pub(super) fn trouble(&self, now: Timestamp) -> Option<DnsTrouble> {
        Window::at(&self.troubles, now)
    }
}

/// One message that an application has to get rid of.
#[derive(Clone, Debug)]
pub(super) struct MessagePlan {
    pub(super) at: Timestamp,
    /// Of each recipient: index of its zone, NOTIFY.
    pub(super) recipients: Vec<(usize, Option<&'static str>)>,
    pub(super) body_bytes: usize,
    /// Index of the pool that it asks for.
    pub(super) pool: usize,
    pub(super) priority: Option<&'static str>,
}

/// How the world goes on after a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopKind {
    Orderly,
    /// SIGKILL: what was written is there.
    Kill,
    /// A power cut: what was not synced is gone.
    Power,
    /// The same on a disk that was ahead of its syncs, and that left zeros in the files.
    PowerWithGarbage,
    /// The same where new files survive and renames do not.
    PowerReordered,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct StopPlan {
    pub(super) at: Timestamp,
    pub(super) kind: StopKind,
    /// Steps of the world from then on before it happens: so that it happens amid things.
    pub(super) steps: u64,
    pub(super) down: Duration,
}

#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) hosts: Vec<HostPlan>,
    pub(super) zones: Vec<ZonePlan>,
    pub(super) providers: Vec<ProviderPlan>,
    pub(super) senders: Senders,
    /// The daemon's clock is set: when, in true time, and by how many milliseconds.
    pub(super) clock_steps: Vec<(Timestamp, i64)>,
    /// By application, in order.
    pub(super) messages: Vec<Vec<MessagePlan>>,
    pub(super) stops: Vec<StopPlan>,
    /// The queue's disk does not write.
    pub(super) disk_outages: Vec<(Timestamp, Timestamp)>,
    pub(super) file_troubles: Vec<Window<FileTrouble>>,
    pub(super) lifetime: Duration,
    pub(super) disk: Duration,
    pub(super) connections_max: usize,
    pub(super) connections_per_site_max: usize,
    pub(super) recipients_per_transaction_max: usize,
    pub(super) messages_per_connection_max: u32,
    pub(super) jobs_max: usize,
    pub(super) body_cache_bytes: usize,
    pub(super) rotate_bytes: Option<u64>,
    pub(super) mail_bounces: bool,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        let mut plan = Draw(SmallRng::seed_from_u64(seed)).plan(seed);
        // What was added later, by chances of its own: all else stays what it was with this seed.
        Draw(SmallRng::seed_from_u64(!seed)).add_ways(&mut plan);
        plan
    }

    /// In every other world hosts see return paths of ours, one for each recipient.
    pub(super) fn return_path_domain(&self) -> Option<Domain> {
        (self.seed % 2 == 1).then(|| Domain::parse("bounces.test").unwrap())
    }

    pub(super) fn zone(&self, domain: &str) -> Option<&ZonePlan> {
        self.zones.iter().find(|zone| zone.domain.as_str() == domain)
    }

    /// Whether nothing but greylisting can keep a recipient's message from being taken.
    pub(super) fn is_greylister(&self, address: &str) -> bool {
        let zone = address.rsplit_once('@').and_then(|(_, domain)| self.zone(domain));
        zone.is_some_and(|zone| {
            let greylists = |host: &HostPlan| matches!(host.nature, Nature::Greylists(_)) && host.outages.is_empty();
            zone.troubles.is_empty() && zone.mx.iter().all(|(_, host)| greylists(&self.hosts[*host]))
        })
    }

    /// How long a job of a zone may be due without an outcome at `now`; `None`: as long as its hosts send us away,
    /// which is no attempt, or the names fail.
    pub(super) fn stall_max(&self, zone: &ZonePlan, now: Timestamp) -> Option<Duration> {
        let since = now.minus(STALL_MAX);
        let hosts: Vec<&HostPlan> = zone.mx.iter().map(|(_, host)| &self.hosts[*host]).collect();
        let was_down = hosts.iter().any(|host| Window::meets(&host.outages, since, now) || host.blocked_us(now));
        if was_down || Window::meets(&zone.troubles, since, now) {
            return None;
        }
        // Nor by limits of ours, or of hosts.
        if hosts.iter().any(|host| host.provider.is_some()) || self.senders.are_limited() {
            return None;
        }
        let is_good = hosts.iter().all(|host| host.nature == Nature::Good && host.outages.is_empty());
        let is_alone = self.connections_max >= MANY_CONNECTIONS && self.jobs_max >= MANY_JOBS;
        let is_well = is_good && is_alone && zone.troubles.is_empty();
        Some(if is_well { STALL_GOOD_MAX } else { self.line_max(&hosts).unwrap_or(STALL_MAX) })
    }

    /// How long after its lifetime a job of a zone may end: it may be in an attempt, or in line for one.
    pub(super) fn expiry_max(&self, zone: &ZonePlan) -> Duration {
        let hosts: Vec<&HostPlan> = zone.mx.iter().map(|(_, host)| &self.hosts[*host]).collect();
        self.line_max(&hosts).unwrap_or(EXPIRY_MAX)
    }

    /// Where hosts take minutes for a message, or break so often that they get single probes, those behind it wait; with
    /// few connections, for the hosts of others too.
    fn line_max(&self, hosts: &[&HostPlan]) -> Option<Duration> {
        let is_slow = |host: &HostPlan| host.is_slow() || host.provider.is_some();
        let shares = self.connections_max < MANY_CONNECTIONS || self.jobs_max < MANY_JOBS;
        let slow = hosts.iter().any(|host| is_slow(host)) || (shares && self.hosts.iter().any(is_slow));
        slow.then_some(LINE_MAX)
    }

    /// When the last message has been handed in, or its lifetime and those of notifications are over.
    pub(super) fn end(&self) -> Timestamp {
        let last = self.messages.iter().flatten().map(|message| message.at).max().unwrap_or(START);
        let down: Duration = self.stops.iter().map(|stop| stop.down).sum();
        last.plus(down).plus(self.lifetime * 2).plus(LINE_MAX)
    }
}

/// What a plan is drawn with.
pub(super) struct Draw(SmallRng);

impl Draw {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0.random_range(0..bound)
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(super) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    pub(super) fn seconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_secs(from + self.below(to - from + 1))
    }

    fn plan(&mut self, seed: u64) -> Plan {
        let lifetime = if self.chance(3) {
            Duration::from_secs(3 * 24 * HOUR)
        } else {
            Duration::from_secs(self.one(&[20 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR]))
        };
        let span = Duration::from_secs(self.one(&[5 * MINUTE, 30 * MINUTE, 2 * HOUR]));
        let hosts = self.hosts(span + lifetime);
        let zones = self.zones(&hosts, span + lifetime);
        let messages = self.messages(span, zones.len());
        let stops = self.stops(&messages, lifetime);
        let disk_outages = if self.chance(15) {
            let from = self.moment(&messages);
            vec![(from, from.plus(self.seconds(1, 90)))]
        } else {
            Vec::new()
        };
        let file_troubles = self.file_troubles(&messages);
        Plan {
            seed,
            file_troubles,
            hosts,
            zones,
            providers: Vec::new(),
            senders: Senders { sources: Vec::new(), pools: Vec::new() },
            clock_steps: Vec::new(),
            messages,
            stops,
            disk_outages,
            lifetime,
            disk: Duration::from_millis(self.one(&[0, 2, 10, 40])),
            connections_max: usize::try_from(self.one(&[2, 5, MANY_CONNECTIONS as u64, MANY_CONNECTIONS as u64]))
                .unwrap(),
            connections_per_site_max: usize::try_from(self.one(&[1, 2, 5])).unwrap(),
            recipients_per_transaction_max: usize::try_from(self.one(&[1, 2, 50])).unwrap(),
            messages_per_connection_max: self.one(&[1, 3, 100]),
            jobs_max: usize::try_from(self.one(&[16, MANY_JOBS as u64, MANY_JOBS as u64])).unwrap(),
            body_cache_bytes: usize::try_from(self.one(&[0, 4_000, 1 << 20])).unwrap(),
            rotate_bytes: self.one(&[None, Some(4_000), Some(30_000)]),
            mail_bounces: self.chance(30),
        }
    }

    /// Sources, pools, providers, steps of the clock.
    fn add_ways(&mut self, plan: &mut Plan) {
        plan.senders = self.senders();
        for (index, host) in plan.hosts.iter_mut().enumerate().filter(|_| self.chance(30)) {
            let last = u16::try_from(index + 1).unwrap();
            host.addresses.push(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, last)));
        }
        let last = plan.messages.iter().flatten().map(|message| message.at).max().unwrap_or(START);
        let span = last.since(START) + plan.lifetime;
        self.providers(plan, span);
        let pools = plan.senders.pools.len() as u64;
        // In a line that moves each ten minutes, the higher ones keep the lower ones waiting for days: as they should.
        let has_priorities = !plan.hosts.iter().any(HostPlan::is_slow);
        for message in plan.messages.iter_mut().flatten() {
            message.pool = usize::try_from(self.below(pools)).unwrap();
            message.priority = self.one(&[None, None, Some("high"), Some("bulk")]).filter(|_| has_priorities);
        }
        if self.chance(10) {
            let at = START.plus(self.seconds(60, span.as_secs().min(3 * HOUR)));
            let step_ms = self.one(&[-3_600_000, -300_000, -30_000, -700, 500, 20_000, 120_000]);
            plan.clock_steps.push((at, step_ms));
        }
    }

    fn hosts(&mut self, span: Duration) -> Vec<HostPlan> {
        let count = 3 + self.below(5);
        // The first one is always good, and takes the notifications.
        (0..count).map(|index| self.host(index, index == 0, span)).collect()
    }

    fn host(&mut self, index: u64, good: bool, span: Duration) -> HostPlan {
        let nature = if good { Nature::Good } else { self.nature() };
        let outages = if good || self.chance(60) { Vec::new() } else { self.outages(span) };
        let addresses = (0..1 + self.below(2)).map(|number| {
            let last = u8::try_from(10 * index + number + 1).unwrap();
            IpAddr::V4(Ipv4Addr::new(198, 51, 100, last))
        });
        HostPlan {
            name: Domain::parse(&format!("mx{index}.hosts.test")).unwrap(),
            addresses: addresses.collect(),
            nature,
            outages,
            reply_ms: self.one(&[0, 1, 20, 300]),
            pipelining: self.chance(70),
            provider: None,
        }
    }

    fn nature(&mut self) -> Nature {
        match self.below(13) {
            0 => Nature::Greylists(self.seconds(60, 900)),
            1 => Nature::Tarpit(self.seconds(5, 50)),
            2 => Nature::Tires(1 + u32::try_from(self.below(3)).unwrap()),
            3 | 4 => Nature::Mixed,
            5 | 6 => Nature::Forgets(self.one(&[20, 50, 100])),
            7 => Nature::Breaks(self.one(&[3, 10, 30])),
            8 => Nature::Slow(Duration::from_secs(9 * MINUTE)),
            9 => Nature::Slow(Duration::from_secs(11 * MINUTE)),
            10 => Nature::Picky(self.one(&[30, 80])),
            11 => Nature::Narrow(1 + usize::try_from(self.below(2)).unwrap()),
            _ => Nature::Good,
        }
    }

    fn outages(&mut self, span: Duration) -> Vec<Window<Outage>> {
        (0..1 + self.below(2))
            .map(|_| {
                let from = START.plus(self.seconds(0, span.as_secs()));
                let length = self.one(&[MINUTE, 10 * MINUTE, HOUR, 100 * HOUR]);
                let what = self.one(&[Outage::Refuses, Outage::Silent, Outage::Busy, Outage::Blocks]);
                Window { from, to: from.plus(Duration::from_secs(length)), what }
            })
            .collect()
    }

    fn zones(&mut self, hosts: &[HostPlan], span: Duration) -> Vec<ZonePlan> {
        let count = 3 + self.below(6);
        let ttl = Duration::from_secs(300);
        let senders = Domain::parse(SENDERS).unwrap();
        let mut zones = vec![ZonePlan { domain: senders, mx: vec![(10, 0)], troubles: Vec::new(), ttl }];
        for index in 0..count {
            let mut mx: Vec<(u16, usize)> = (0..1 + self.below(3))
                .map(|_| (self.one(&[10, 10, 20]), usize::try_from(self.below(hosts.len() as u64)).unwrap()))
                .collect();
            mx.sort_unstable();
            mx.dedup_by_key(|(_, host)| *host);
            if self.chance(4) {
                mx.clear();
            }
            let troubles = if self.chance(80) { Vec::new() } else { self.troubles(span) };
            let domain = Domain::parse(&format!("d{index}.test")).unwrap();
            zones.push(ZonePlan { domain, mx, troubles, ttl: self.seconds(30, 3_600) });
        }
        zones
    }

    fn troubles(&mut self, span: Duration) -> Vec<Window<DnsTrouble>> {
        let from = START.plus(self.seconds(0, span.as_secs() / 2));
        let length = self.one(&[MINUTE, 15 * MINUTE, HOUR, 1_000 * HOUR]);
        let what = self.one(&[DnsTrouble::ServerFailure, DnsTrouble::NoSuchDomain]);
        vec![Window { from, to: from.plus(Duration::from_secs(length)), what }]
    }

    fn messages(&mut self, span: Duration, zones: usize) -> Vec<Vec<MessagePlan>> {
        let applications = 1 + self.below(3);
        (0..applications)
            .map(|_| {
                let count = 3 + self.below(20);
                let mut messages: Vec<MessagePlan> = (0..count).map(|_| self.message(span, zones)).collect();
                messages.sort_by_key(|message| message.at);
                messages
            })
            .collect()
    }

    fn message(&mut self, span: Duration, zones: usize) -> MessagePlan {
        let burst = self.chance(40);
        let at = START.plus(if burst { Duration::from_secs(10) } else { self.seconds(0, span.as_secs()) });
        let at = at.plus(Duration::from_millis(self.below(1_000)));
        let recipients = (0..self.one(&[1, 1, 1, 2, 3, 6])).map(|_| {
            // The first zone is that of the senders.
            let zone = 1 + usize::try_from(self.below(zones as u64 - 1)).unwrap();
            (zone, self.one(&[None, None, None, Some("NEVER"), Some("SUCCESS,FAILURE,DELAY")]))
        });
        let recipients = recipients.collect();
        let body_bytes = match self.below(60) {
            0 => 1_100_000 + usize::try_from(self.below(1_200_000)).unwrap(),
            1..6 => 50_000 + usize::try_from(self.below(50_000)).unwrap(),
            _ => 40 + usize::try_from(self.below(3_000)).unwrap(),
        };
        MessagePlan { at, recipients, body_bytes, pool: 0, priority: None }
    }

    fn file_troubles(&mut self, messages: &[Vec<MessagePlan>]) -> Vec<Window<FileTrouble>> {
        if self.chance(70) {
            return Vec::new();
        }
        let from = self.moment(messages);
        let what = match self.below(3) {
            0 => FileTrouble::Full(usize::try_from(self.below(5_000)).unwrap()),
            1 => FileTrouble::Syncs(1 + u32::try_from(self.below(3)).unwrap()),
            _ => FileTrouble::ShortWrites(1 + usize::try_from(self.below(500)).unwrap()),
        };
        vec![Window { from, to: from.plus(self.seconds(1, 600)), what }]
    }

    /// Around the time of a message, since then there is most to break.
    fn moment(&mut self, messages: &[Vec<MessagePlan>]) -> Timestamp {
        let all: Vec<Timestamp> = messages.iter().flatten().map(|message| message.at).collect();
        self.one(&all).plus(Duration::from_millis(self.one(&[0, 1, 50, 1_000, 10_000, 60_000])))
    }

    fn stops(&mut self, messages: &[Vec<MessagePlan>], lifetime: Duration) -> Vec<StopPlan> {
        let mut stops: Vec<StopPlan> = (0..1 + self.below(3))
            .map(|_| {
                let at = if self.chance(80) {
                    self.moment(messages)
                } else {
                    START.plus(self.seconds(0, lifetime.as_secs()))
                };
                StopPlan {
                    at,
                    kind: self.one(&[
                        StopKind::Orderly,
                        StopKind::Kill,
                        StopKind::Power,
                        StopKind::Power,
                        StopKind::PowerWithGarbage,
                        StopKind::PowerReordered,
                    ]),
                    steps: self.below(150),
                    down: Duration::from_secs(self.one(&[0, 1, 30, 20 * MINUTE])),
                }
            })
            .collect();
        stops.sort_by_key(|stop| stop.at);
        stops
    }
}
