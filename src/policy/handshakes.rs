//! Who may begin a TLS handshake now.
//!
//! A handshake costs the server a key exchange and a signature before it knows anything of its client, and the client one
//! packet. So handshakes that come to nothing are limited, by client and in all; one is given back as soon as a client of it
//! shows that it is in earnest (a message accepted). A client that showed it lately is not held up by the
//! limit for all, so that a storm from many addresses does not lock out those who work here.

use std::net::IpAddr;
use std::time::Duration;

use super::bounded::Bounded;
use super::rate::{Meter, Rate};

/// Clients that are remembered. Full: those that owe nothing are forgotten; where all owe, a new one counts for all only.
pub const HANDSHAKE_CLIENTS_MAX: usize = 20_000;
/// So many seconds' worth may come at once.
const BURST_SECONDS: u32 = 5;
/// A client was in earnest lately: so long ago at most.
const EARNEST_US: u64 = 3_600_000_000;

/// Limits of handshakes that come to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeLimits {
    client: Rate,
    all: Rate,
}

impl HandshakeLimits {
    /// Handshakes a second of one client, and of all that were not in earnest lately; five seconds' worth at once.
    pub fn new(per_client: u32, all: u32) -> Self {
        let rate = |count: u32| Rate::per_second(count, count.saturating_mul(BURST_SECONDS));
        Self { client: rate(per_client), all: rate(all) }
    }
}

/// What the clients owe. Time is in microseconds of one clock that does not go back.
#[derive(Debug)]
pub struct Handshakes {
    clients: Bounded<IpAddr, Client>,
    all: Meter,
}

/// A handshake that was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// How long to wait before it.
    pub wait: Duration,
    /// It counts for all, too: its client was not in earnest lately.
    counts_for_all: bool,
}

#[derive(Debug, Default)]
struct Client {
    meter: Meter,
    in_earnest_at_us: Option<u64>,
}

impl Client {
    fn is_in_earnest(&self, now_us: u64) -> bool {
        self.in_earnest_at_us.is_some_and(|at_us| now_us.saturating_sub(at_us) < EARNEST_US)
    }
}

impl Default for Handshakes {
    fn default() -> Self {
        Self { clients: Bounded::new(HANDSHAKE_CLIENTS_MAX), all: Meter::default() }
    }
}

impl Handshakes {
    /// When this client may begin its handshake; it is counted now, so that the next one waits longer. `None`: it would have to
    /// wait longer than `patience`, and is not counted.
    pub fn begin(&mut self, client: IpAddr, limits: HandshakeLimits, patience: Duration, now_us: u64) -> Option<Turn> {
        let stays = |client: &Client| !client.meter.is_idle(now_us) || client.is_in_earnest(now_us);
        let mut known = self.clients.entry(client, now_us, stays);
        let of_client = known.as_ref().map_or(Duration::ZERO, |known| known.meter.wait(limits.client, 1, now_us));
        let is_in_earnest = known.as_ref().is_some_and(|known| known.is_in_earnest(now_us));
        let of_all = if is_in_earnest { Duration::ZERO } else { self.all.wait(limits.all, 1, now_us) };
        let wait = of_client.max(of_all);
        if wait > patience {
            return None;
        }
        if let Some(known) = &mut known {
            known.meter.take(limits.client, 1, now_us);
        }
        if !is_in_earnest {
            self.all.take(limits.all, 1, now_us);
        }
        Some(Turn { wait, counts_for_all: !is_in_earnest })
    }

    /// The client of a handshake has shown that it is in earnest: the handshake is given back. Once for each.
    pub fn in_earnest(&mut self, client: IpAddr, turn: Turn, limits: HandshakeLimits, now_us: u64) {
        if turn.counts_for_all {
            self.all.give_back(limits.all, 1);
        }
        let Some(known) = self.clients.get_mut(&client) else { return };
        known.meter.give_back(limits.client, 1);
        known.in_earnest_at_us = Some(now_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_US: u64 = 1_000_000;
    const PATIENCE: Duration = Duration::from_secs(60);

    fn client(number: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + number).to_be_bytes())
    }

    /// Waits of `count` handshakes of one client.
    fn begin(handshakes: &mut Handshakes, number: u32, count: u32, limits: HandshakeLimits) -> Vec<Option<Duration>> {
        (0..count).map(|_| handshakes.begin(client(number), limits, PATIENCE, NOW_US).map(|turn| turn.wait)).collect()
    }

    /// A handshake that may begin at once and leads to a message.
    fn earnest(handshakes: &mut Handshakes, number: u32, limits: HandshakeLimits) {
        let turn = handshakes.begin(client(number), limits, PATIENCE, NOW_US).unwrap();
        assert_eq!(turn.wait, Duration::ZERO);
        handshakes.in_earnest(client(number), turn, limits, NOW_US);
    }

    #[test]
    fn a_client_without_earnest_waits_after_its_burst_and_others_do_not() {
        let limits = HandshakeLimits::new(2, 100);
        let mut handshakes = Handshakes::default();
        let waits = begin(&mut handshakes, 1, 12, limits);
        assert_eq!(waits.iter().filter(|wait| **wait == Some(Duration::ZERO)).count(), 10);
        assert_eq!(waits.last().copied().flatten(), Some(Duration::from_secs(1)));
        assert_eq!(begin(&mut handshakes, 2, 1, limits), [Some(Duration::ZERO)]);
    }

    #[test]
    fn a_client_whose_handshakes_lead_to_messages_never_waits() {
        let limits = HandshakeLimits::new(2, 10);
        let mut handshakes = Handshakes::default();
        for _ in 0..1_000 {
            earnest(&mut handshakes, 1, limits);
        }
    }

    #[test]
    fn a_storm_from_many_addresses_holds_up_strangers_but_not_who_works_here() {
        let limits = HandshakeLimits::new(10, 10);
        let mut handshakes = Handshakes::default();
        earnest(&mut handshakes, 1, limits);
        for number in 100..150 {
            assert_eq!(begin(&mut handshakes, number, 1, limits), [Some(Duration::ZERO)]);
        }
        assert_ne!(begin(&mut handshakes, 200, 1, limits), [Some(Duration::ZERO)]);
        assert_eq!(begin(&mut handshakes, 1, 1, limits), [Some(Duration::ZERO)]);
    }

    #[test]
    fn who_would_wait_beyond_patience_is_refused_and_not_counted() {
        let limits = HandshakeLimits::new(1, 1_000);
        let mut handshakes = Handshakes::default();
        let waits = begin(&mut handshakes, 1, 100, limits);
        assert_eq!(waits.iter().filter(|wait| wait.is_none()).count(), 35, "5 at once, 60 within patience");
        let later = NOW_US + 5_000_000;
        let waits: Vec<_> = (0..6).map(|_| handshakes.begin(client(1), limits, PATIENCE, later)).collect();
        assert_eq!(waits.iter().flatten().count(), 5);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_those_who_owe_nothing() {
        let limits = HandshakeLimits::new(1, 1_000_000);
        let mut handshakes = Handshakes::default();
        let clients = u32::try_from(HANDSHAKE_CLIENTS_MAX).unwrap();
        for number in 0..clients + 10 {
            assert_eq!(begin(&mut handshakes, number, 1, limits), [Some(Duration::ZERO)]);
        }
        assert_eq!(handshakes.clients.values().len(), HANDSHAKE_CLIENTS_MAX);
        let later = NOW_US + 10_000_000;
        assert!(handshakes.begin(client(clients + 20), limits, PATIENCE, later).is_some());
        assert_eq!(handshakes.clients.values().len(), 1);
    }
}
