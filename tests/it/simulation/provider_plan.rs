//! Draws big providers, the domains that they host, and campaigns of mail to these.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use posthaste::policy::limits::Rates;
use posthaste::types::Domain;

use super::plan::{Draw, HostPlan, MINUTE, MessagePlan, Nature, Plan, START, Window, ZonePlan};
use super::provider::{Kind, ProviderPlan};
use super::senders::Senders;

/// Connections that a lane may have where nobody tells of limits: what a Microsoft that nobody told of takes for each domain.
const UNTOLD_CONNECTIONS: u64 = 2;

impl Draw {
    /// In two worlds of five there are providers, and in those much of the mail goes to them.
    pub(super) fn providers(&mut self, plan: &mut Plan, span: Duration) {
        if !self.chance(40) {
            return;
        }
        // As administrators do, or do not, for all of them.
        let told = self.chance(70);
        let kinds: Vec<Kind> =
            [Kind::Gmail, Kind::Yahoo, Kind::Microsoft].into_iter().filter(|_| self.chance(55)).collect();
        let mut zones = Vec::new();
        for kind in kinds {
            let provider = plan.providers.len();
            let first_zone = plan.zones.len();
            let hosted = 1 + usize::try_from(self.below(4)).unwrap();
            let drawn = self.provider(kind, told, hosted, &plan.senders, span);
            plan.providers.push(drawn);
            self.hosted_zones(plan, kind, provider, hosted);
            zones.extend(first_zone..plan.zones.len());
        }
        if !zones.is_empty() {
            let campaign = self.campaign(&zones);
            plan.messages.push(campaign);
        }
    }

    fn small(&mut self, from: u64, to: u64) -> u32 {
        u32::try_from(from + self.below(to - from + 1)).unwrap()
    }

    fn provider(&mut self, kind: Kind, told: bool, hosted: usize, senders: &Senders, span: Duration) -> ProviderPlan {
        let addresses: Vec<IpAddr> = senders.addresses().collect();
        let refuses_v6 = kind == Kind::Gmail && self.chance(50);
        // Not so many at once that one message finds them all: what is said of it is then taken for its own fault.
        let refuses_v6 = refuses_v6 && addresses.iter().filter(|address| address.is_ipv6()).count() <= 2;
        let listed = (kind != Kind::Gmail && self.chance(40)).then(|| {
            let from = START.plus(self.seconds(0, span.as_secs() / 2));
            let length = Duration::from_secs(self.one(&[20 * MINUTE, 180 * MINUTE, 600 * MINUTE]));
            Window { from, to: from.plus(length), what: self.one(&addresses) }
        });
        let busy = (0..if kind == Kind::Microsoft { self.below(3) } else { 0 }).map(|_| {
            let from = START.plus(self.seconds(0, span.as_secs() / 2));
            Window { from, to: from.plus(self.seconds(30, 600)), what: () }
        });
        let busy = busy.collect();
        let for_each = if told { 0 } else { UNTOLD_CONNECTIONS * hosted as u64 };
        ProviderPlan {
            kind,
            told,
            connections: self.small(1, 5).max(u32::try_from(for_each).unwrap()),
            messages_per_connection: if kind == Kind::Yahoo { 20 } else { self.one(&[2, 5, 20, 50]) },
            rates: if told { self.rates_told(kind) } else { self.rates_to_learn(kind) },
            defers_for: self.seconds(MINUTE, 15 * MINUTE),
            refuses_v6,
            busy,
            listed,
        }
    }

    fn rates_told(&mut self, kind: Kind) -> Rates {
        let mut rates = Rates::default();
        if kind == Kind::Gmail || self.chance(30) {
            rates.minute = Some(self.small(3, 20));
        }
        if kind == Kind::Yahoo || self.chance(20) {
            rates.hour = Some(self.small(10, 60));
        }
        if self.chance(20) {
            rates.second = Some(self.small(1, 4));
        }
        if self.chance(25) {
            rates.day = Some(self.small(30, 150));
        }
        rates
    }

    /// What reply rules can bring us to: they slow down to ten in a minute, or stop for two hours.
    fn rates_to_learn(&mut self, kind: Kind) -> Rates {
        match kind {
            Kind::Gmail => Rates { minute: Some(self.small(12, 25)), ..Rates::default() },
            Kind::Yahoo => Rates { hour: Some(self.small(30, 60)), ..Rates::default() },
            Kind::Microsoft => Rates::default(),
        }
    }

    /// Domains under the names of a provider: Microsoft has a name for each.
    fn hosted_zones(&mut self, plan: &mut Plan, kind: Kind, provider: usize, hosted: usize) {
        let shared = (kind != Kind::Microsoft).then(|| {
            let count = 1 + self.below(2);
            (0..count).map(|number| self.provider_host(plan, kind, provider, &format!("mx{number}"))).collect()
        });
        for number in 0..hosted {
            let letter = kind.rule().chars().next().unwrap();
            let name = format!("{letter}{number}");
            let mx: Vec<(u16, usize)> = match &shared {
                Some(shared) => Vec::clone(shared),
                None => vec![self.provider_host(plan, kind, provider, &name)],
            };
            let domain = Domain::parse(&format!("{name}.test")).unwrap();
            let ttl = self.seconds(30, 3_600);
            plan.zones.push(ZonePlan { domain, mx, troubles: Vec::new(), ttl });
        }
    }

    /// Preference and index of a new one.
    fn provider_host(&mut self, plan: &mut Plan, kind: Kind, provider: usize, label: &str) -> (u16, usize) {
        let index = plan.hosts.len();
        let last = u8::try_from(10 + index).unwrap();
        let mut addresses = vec![IpAddr::V4(Ipv4Addr::new(198, 51, 101, last))];
        if self.chance(50) {
            addresses.push(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, u16::from(last))));
        }
        plan.hosts.push(HostPlan {
            name: Domain::parse(&format!("{label}.{}", kind.parent())).unwrap(),
            addresses,
            nature: Nature::Good,
            outages: Vec::new(),
            reply_ms: self.one(&[0, 1, 20, 100]),
            pipelining: true,
            provider: Some(provider),
        });
        (10, index)
    }

    /// Small messages in a short time: enough to meet limits.
    fn campaign(&mut self, zones: &[usize]) -> Vec<MessagePlan> {
        let count = self.one(&[15, 40, 40, 120]);
        let seconds = self.one(&[1, MINUTE, 10 * MINUTE, 60 * MINUTE, 180 * MINUTE]);
        let start = self.below(60);
        let mut messages: Vec<MessagePlan> = (0..count)
            .map(|_| {
                let at = START.plus(Duration::from_secs(start) + Duration::from_millis(self.below(seconds * 1_000)));
                let recipients = (0..self.one(&[1, 1, 1, 2])).map(|_| (self.one(zones), None)).collect();
                MessagePlan { at, recipients, body_bytes: 100, pool: 0, priority: None }
            })
            .collect();
        messages.sort_by_key(|message| message.at);
        messages
    }
}
