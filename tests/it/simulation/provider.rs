//! Big mailbox providers as receivers: what they enforce for each address that sends to any of their hosts, in which words, and
//! whether we keep to it. docs/RELIABILITY.md has the table.
//!
//! All times are true ones, whatever the daemon's clock says.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use posthaste::policy::limits::Rates;
use posthaste::types::Timestamp;

use super::plan::Window;
use super::senders::{Times, is_system};

/// What a lane is told of a block reaches all its connections within this: their messages are under way.
const UNDER_WAY: Duration = Duration::from_secs(20);
/// What is refused in the first time of a source at a provider whose limits nobody told: it has to learn.
pub(super) const SETTLING: Duration = Duration::from_secs(30 * 60);
/// A block lasts no longer for us.
const BLOCK_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Attempts that a provider hears while it defers a source before it blocks it.
const PUSHES_MAX: u32 = 8;
/// Clocks count milliseconds, and a probe may come as soon as its time is there.
const SLACK: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Gmail,
    Yahoo,
    Microsoft,
}

#[derive(Clone, Debug)]
pub(super) struct ProviderPlan {
    pub(super) kind: Kind,
    /// The daemon has a provider rule with these limits.
    pub(super) told: bool,
    /// From one source to all its hosts.
    pub(super) connections: u32,
    pub(super) messages_per_connection: u32,
    pub(super) rates: Rates,
    /// How long what goes above a rate is deferred.
    pub(super) defers_for: Duration,
    /// Sources of IPv6 have no PTR record.
    pub(super) refuses_v6: bool,
    /// Defers all for a while.
    pub(super) busy: Vec<Window<()>>,
    /// One source is on its block list.
    pub(super) listed: Option<Window<IpAddr>>,
}

impl Kind {
    /// The name of the built-in rule that stands for it.
    pub(super) const fn rule(self) -> &'static str {
        match self {
            Kind::Gmail => "google",
            Kind::Yahoo => "yahoo",
            Kind::Microsoft => "microsoft365",
        }
    }

    /// Above its hosts.
    pub(super) const fn parent(self) -> &'static str {
        match self {
            Kind::Gmail => "google.test",
            Kind::Yahoo => "yahoodns.test",
            Kind::Microsoft => "mail.protection.test",
        }
    }

    /// What a source is told that is blocked, and for how long the built-in reply rules keep it away.
    const fn block(self) -> (&'static str, Duration) {
        const HOURS: Duration = Duration::from_secs(2 * 3_600);
        match self {
            Kind::Gmail => {
                const TEXT: &str = "550 5.7.1 Our system has detected that this message does not meet IPv6 sending \
                    guidelines regarding PTR records and authentication";
                (TEXT, Duration::from_secs(3_600))
            }
            Kind::Yahoo => ("553 5.7.1 [BL21] Connections will not be accepted, you are on our list", HOURS),
            Kind::Microsoft => {
                const TEXT: &str = "550 5.7.1 Unfortunately, messages from your address weren't sent. Please contact \
                    your Internet service provider since part of their network is on our block list (S3140)";
                (TEXT, HOURS)
            }
        }
    }

    const fn too_many_connections(self) -> &'static str {
        match self {
            Kind::Gmail => "421 4.7.0 Too many concurrent connections from your address",
            Kind::Yahoo => "421 4.7.0 Too many concurrent connections",
            Kind::Microsoft => "421 4.3.2 The maximum number of concurrent connections has exceeded a limit, closing",
        }
    }

    const fn enough_on_connection(self) -> &'static str {
        match self {
            Kind::Gmail => "421 4.7.0 Too many messages on this connection",
            Kind::Yahoo => "421 Max message per connection reached, closing transmission channel",
            Kind::Microsoft => "421 4.7.0 Too many messages in this session",
        }
    }

    const fn too_fast(self) -> &'static str {
        match self {
            Kind::Gmail => {
                "421 4.7.28 Our system has detected an unusual rate of unsolicited mail originating from your address. \
                 To protect our users, mail sent from it has been temporarily rate limited"
            }
            Kind::Yahoo => {
                "421 4.7.0 [TSS04] Messages temporarily deferred due to unexpected volume or user complaints - 4.16.55.1"
            }
            Kind::Microsoft => "421 RP-001 The mail server connecting has exceeded the rate limit allowed",
        }
    }
}

/// What a provider says to MAIL, where it is not 250.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) text: &'static str,
    pub(super) closes: bool,
}

/// Transactions (and refused connections), and those that were refused since we passed a limit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) all: u64,
    pub(super) caused: u64,
}

impl Tally {
    fn count(&mut self, caused: bool) {
        self.all += 1;
        self.caused += u64::from(caused);
    }

    pub(super) fn add(&mut self, other: Self) {
        self.all += other.all;
        self.caused += other.caused;
    }
}

pub(super) struct Provider {
    pub(super) plan: ProviderPlan,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sources: BTreeMap<IpAddr, Source>,
    tally: Tally,
    settled: Tally,
    violations: Vec<String>,
}

/// What it knows of one address that sends.
#[derive(Default)]
struct Source {
    open: u32,
    first_at: Option<Timestamp>,
    taken: Times,
    deferred_until: Option<Timestamp>,
    pushes: u32,
    blocked_until: Option<Timestamp>,
    told: Option<Told>,
}

/// The daemon was told that the source is blocked.
#[derive(Clone, Copy)]
struct Told {
    at: Timestamp,
    lasts: Duration,
    /// A probe is under way.
    probing: bool,
}

impl Told {
    fn until(&self) -> Timestamp {
        self.at.plus(self.lasts)
    }
}

impl Provider {
    pub(super) fn new(plan: ProviderPlan) -> Self {
        Self { plan, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What was found since the last call.
    pub(super) fn violations(&self) -> Vec<String> {
        std::mem::take(&mut self.state().violations)
    }

    /// All, and those after the time of settling.
    pub(super) fn tallies(&self) -> (Tally, Tally) {
        let state = self.state();
        (state.tally, state.settled)
    }

    /// The daemon opens a connection.
    pub(super) fn opened(&self, address: IpAddr) {
        let mut state = self.state();
        let source = state.sources.entry(address).or_default();
        source.open += 1;
        if self.plan.told && source.open > self.plan.connections {
            let (open, limit) = (source.open, self.plan.connections);
            state.violation(self.plan.kind, format!("CONNECTIONS: {address} has {open} of {limit}"));
        }
    }

    /// It closes one.
    pub(super) fn closed(&self, address: IpAddr) {
        if let Some(source) = self.state().sources.get_mut(&address) {
            source.open -= 1;
        }
    }

    /// In place of a greeting.
    pub(super) fn greets(&self, address: IpAddr, now: Timestamp) -> Result<(), &'static str> {
        let mut state = self.state();
        let source = state.sources.entry(address).or_default();
        if source.open <= self.plan.connections {
            return Ok(());
        }
        state.count(address, true, now);
        Err(self.plan.kind.too_many_connections())
    }

    /// A transaction begins, with so many before it on its connection. `Ok(true)`: it is a probe after a block.
    pub(super) fn mail(&self, address: IpAddr, before: u32, now: Timestamp) -> Result<bool, Refusal> {
        let mut state = self.state();
        let probes = state.tries_while_blocked(self.plan.kind, address, now);
        let (limit, told) = (self.plan.messages_per_connection, self.plan.told);
        if before >= limit {
            state.count(address, true, now);
            state.probe_ended(address, probes, false);
            if told {
                state.violation(self.plan.kind, format!("MESSAGES: {address} sends more than {limit} on a connection"));
            }
            return Err(Refusal { text: self.plan.kind.enough_on_connection(), closes: true });
        }
        if self.is_blocked(state.sources.entry(address).or_default(), address, now) {
            state.count(address, false, now);
            let (text, lasts) = self.plan.kind.block();
            // Where nobody told that its hosts are one provider's, each of Microsoft's is blocked for itself.
            if self.plan.told || self.plan.kind != Kind::Microsoft {
                state.tell_block(address, lasts, now);
            }
            return Err(Refusal { text, closes: false });
        }
        if Window::at(&self.plan.busy, now).is_some() {
            state.count(address, false, now);
            state.probe_ended(address, probes, false);
            return Err(Refusal { text: "451 4.7.500 Server busy. Please try again later. (S77719)", closes: false });
        }
        if let Some(refusal) = self.over_rate(&mut state, address, now) {
            state.count(address, true, now);
            state.probe_ended(address, probes, false);
            return Err(refusal);
        }
        let source = state.sources.entry(address).or_default();
        source.taken.add(now);
        state.count(address, false, now);
        Ok(probes)
    }

    fn is_blocked(&self, source: &Source, address: IpAddr, now: Timestamp) -> bool {
        let is_listed = self
            .plan
            .listed
            .as_ref()
            .is_some_and(|listed| listed.what == address && listed.from <= now && now < listed.to);
        let by_pushing = source.blocked_until.is_some_and(|until| now < until);
        is_listed || by_pushing || (self.plan.refuses_v6 && address.is_ipv6())
    }

    fn over_rate(&self, state: &mut State, address: IpAddr, now: Timestamp) -> Option<Refusal> {
        let Provider { plan: ProviderPlan { kind, told, rates, defers_for, .. }, .. } = self;
        let source = state.sources.entry(address).or_default();
        let refusal = Refusal { text: kind.too_fast(), closes: true };
        if source.deferred_until.is_some_and(|until| now < until) {
            source.pushes += 1;
            if *kind == Kind::Yahoo && source.pushes > PUSHES_MAX {
                source.blocked_until = Some(now.plus(Duration::from_secs(3 * 3_600)));
            }
            return Some(refusal);
        }
        let (limit, span) = source.taken.passes(rates, now)?;
        (source.deferred_until, source.pushes) = (Some(now.plus(*defers_for)), 0);
        if *told {
            state.violation(*kind, format!("RATE: {address} sends more than {limit} in a {}", span.name()));
        }
        Some(refusal)
    }

    /// A transaction came to its end.
    pub(super) fn ended(&self, address: IpAddr, was_probe: bool, went_well: bool) {
        self.state().probe_ended(address, was_probe, went_well);
    }

    /// The daemon is gone; what it was told after `since` it may not know any more.
    pub(super) fn restarted(&self, since: Timestamp) {
        for source in self.state().sources.values_mut() {
            if let Some(told) = &mut source.told {
                told.probing = false;
            }
            source.told = source.told.filter(|told| told.at < since);
        }
    }

    /// The daemon's clock went ahead: by it, more time has passed than here. So it has here, too.
    pub(super) fn time_went_ahead(&self) {
        for source in self.state().sources.values_mut() {
            (source.taken, source.told, source.deferred_until) = (Times::default(), None, None);
        }
    }
}

impl State {
    fn violation(&mut self, kind: Kind, text: String) {
        self.violations.push(format!("{text} (at {})", kind.rule()));
    }

    fn count(&mut self, address: IpAddr, caused: bool, now: Timestamp) {
        let first_at = *self.sources.entry(address).or_default().first_at.get_or_insert(now);
        self.tally.count(caused);
        if now.since(first_at) > SETTLING {
            self.settled.count(caused);
        }
    }

    /// Whether it is a probe. BLOCKED: nothing but one probe, once the block's time is over.
    fn tries_while_blocked(&mut self, kind: Kind, address: IpAddr, now: Timestamp) -> bool {
        let Some(told) = &mut self.sources.entry(address).or_default().told else { return false };
        if now < told.at.plus(UNDER_WAY) {
            return false;
        }
        let (until, was_probing) = (told.until(), told.probing);
        told.probing = true;
        if now.plus(SLACK) < until {
            self.violation(kind, format!("BLOCKED: {address} sends at {now}, and is blocked until {until}"));
        } else if was_probing {
            self.violation(kind, format!("BLOCKED: {address} sends a second message at {now}, amid a probe"));
        }
        true
    }

    fn tell_block(&mut self, address: IpAddr, lasts: Duration, now: Timestamp) {
        // A system that chooses among its addresses keeps away from one of them in another way.
        if is_system(address) {
            return;
        }
        let source = self.sources.entry(address).or_default();
        match &mut source.told {
            Some(told) if now < told.until() => told.probing = false,
            Some(told) => *told = Told { at: now, lasts: told.lasts.saturating_mul(2).min(BLOCK_MAX), probing: false },
            None => source.told = Some(Told { at: now, lasts, probing: false }),
        }
    }

    fn probe_ended(&mut self, address: IpAddr, was_probe: bool, went_well: bool) {
        let Some(source) = self.sources.get_mut(&address) else { return };
        let Some(told) = source.told.as_mut().filter(|_| was_probe) else { return };
        told.probing = false;
        if went_well {
            source.told = None;
        }
    }
}
