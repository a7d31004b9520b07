//! What connections have taught about addresses, as pure structures: `now` is passed in, nothing is persisted.
//!
//! Both memories are bounded. Full: what ends soonest is forgotten, which costs a connection attempt and nothing else.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::types::Timestamp;

/// Pairs of address and source that are remembered as dead. Full: the half that ends soonest is forgotten.
pub const DEAD_HOSTS_MAX: usize = 16_384;
/// Addresses that are remembered for a failed handshake. Full: the half that ends soonest is forgotten.
pub const CLEAR_HOSTS_MAX: usize = 16_384;
/// How long an address counts as dead the first time.
const DEAD_FIRST: Duration = Duration::from_secs(120);
/// And at most, after it failed again and again.
const DEAD_MAX: Duration = Duration::from_secs(900);
/// An address that was left alone this long after its time starts again at [`DEAD_FIRST`].
const DEAD_FORGOTTEN_AFTER: Duration = Duration::from_secs(900);

#[derive(Clone, Copy, Debug)]
struct Span<T> {
    value: T,
    /// A time before this comes from a clock that was set back: then nothing is remembered.
    from: Timestamp,
    until: Timestamp,
}

impl<T> Span<T> {
    fn holds(&self, now: Timestamp) -> bool {
        self.from <= now && now < self.until
    }
}

/// A map whose entries end. `keep_for` is how long an ended one is still of use.
#[derive(Debug)]
struct Spans<K, T> {
    map: HashMap<K, Span<T>>,
    entries_max: usize,
    keep_for: Duration,
}

impl<K: Copy + Eq + Hash, T> Spans<K, T> {
    fn new(entries_max: usize, keep_for: Duration) -> Self {
        Self { map: HashMap::new(), entries_max, keep_for }
    }

    fn holds(&self, key: K, now: Timestamp) -> bool {
        self.map.get(&key).is_some_and(|span| span.holds(now))
    }

    fn put(&mut self, key: K, span: Span<T>) {
        if self.map.len() >= self.entries_max && !self.map.contains_key(&key) {
            self.make_room(span.from);
        }
        self.map.insert(key, span);
    }

    fn make_room(&mut self, now: Timestamp) {
        let keep_for = self.keep_for;
        self.map.retain(|_, span| span.from <= now && now < span.until.plus(keep_for));
        if self.map.len() < self.entries_max {
            return;
        }
        let mut ends: Vec<Timestamp> = self.map.values().map(|span| span.until).collect();
        let middle = ends.len() / 2;
        let (_, median, _) = ends.select_nth_unstable(middle);
        let median = *median;
        self.map.retain(|_, span| span.until > median);
    }
}

/// Addresses that refused a connection or did not answer, by source: a firewall may block one source only. A dead
/// address is tried last, not never, so that a site whose hosts are all marked still gets its mail.
#[derive(Debug)]
pub struct DeadHosts(Spans<(SocketAddr, Option<IpAddr>), Duration>);

impl Default for DeadHosts {
    fn default() -> Self {
        Self(Spans::new(DEAD_HOSTS_MAX, DEAD_FORGOTTEN_AFTER))
    }
}

impl DeadHosts {
    /// A connection from `source` (`None`: the system chose) to `address` failed before a greeting. Dead for 2 minutes,
    /// and twice as long each time it fails after such a time, up to 15 minutes. Failures while it is dead count once.
    pub fn mark(&mut self, address: SocketAddr, source: Option<IpAddr>, now: Timestamp) {
        let key = (address, source);
        let span = match self.0.map.get(&key) {
            Some(known) if known.holds(now) => known.value,
            Some(known) if known.from <= now && now < known.until.plus(DEAD_FORGOTTEN_AFTER) => {
                (known.value * 2).min(DEAD_MAX)
            }
            _ => DEAD_FIRST,
        };
        self.0.put(key, Span { value: span, from: now, until: now.plus(span) });
    }

    /// A connection succeeded.
    pub fn clear(&mut self, address: SocketAddr, source: Option<IpAddr>) {
        self.0.map.remove(&(address, source));
    }

    /// Whether others should be tried first.
    pub fn is_dead(&self, address: SocketAddr, source: Option<IpAddr>, now: Timestamp) -> bool {
        self.0.holds((address, source), now)
    }

    /// Addresses to try now, and those to try when all others have failed; each in the order given.
    pub fn split(
        &self,
        addresses: Vec<SocketAddr>,
        source: Option<IpAddr>,
        now: Timestamp,
    ) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        addresses.into_iter().partition(|address| !self.is_dead(*address, source, now))
    }
}

/// Addresses whose STARTTLS handshake failed: opportunistic mail goes there in clear, at once, for a time. Never to be
/// asked where TLS is required.
#[derive(Debug)]
pub struct ClearHosts(Spans<SocketAddr, ()>);

impl Default for ClearHosts {
    fn default() -> Self {
        Self(Spans::new(CLEAR_HOSTS_MAX, Duration::ZERO))
    }
}

impl ClearHosts {
    /// The handshake with `address` failed; remember it for `memory` (`delivery::Settings::clear_memory`).
    pub fn mark(&mut self, address: SocketAddr, memory: Duration, now: Timestamp) {
        self.0.put(address, Span { value: (), from: now, until: now.plus(memory) });
    }

    /// A handshake succeeded.
    pub fn clear(&mut self, address: SocketAddr) {
        self.0.map.remove(&address);
    }

    /// Whether STARTTLS is left out.
    pub fn is_clear(&self, address: SocketAddr, now: Timestamp) -> bool {
        self.0.holds(address, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_000_000_000);

    fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(60 * minutes)
    }

    fn address(number: u32) -> SocketAddr {
        SocketAddr::from((std::net::Ipv4Addr::from(0x0a00_0000 + number), 25))
    }

    #[test]
    fn an_address_is_dead_for_2_4_8_and_then_15_minutes() {
        let mut dead = DeadHosts::default();
        let mut now = START;
        for span in [2, 4, 8, 15, 15].map(minutes) {
            dead.mark(address(1), None, now);
            assert!(dead.is_dead(address(1), None, now.plus(span - Duration::from_millis(1))));
            now = now.plus(span);
            assert!(!dead.is_dead(address(1), None, now));
        }
        now = now.plus(DEAD_FORGOTTEN_AFTER);
        dead.mark(address(1), None, now);
        assert!(!dead.is_dead(address(1), None, now.plus(minutes(2))), "long ago is forgotten");
    }

    #[test]
    fn failures_of_one_moment_count_once() {
        let mut dead = DeadHosts::default();
        for _ in 0..100 {
            dead.mark(address(1), None, START);
        }
        assert!(!dead.is_dead(address(1), None, START.plus(minutes(2))));
    }

    #[test]
    fn sources_and_ports_are_told_apart_and_success_clears() {
        let mut dead = DeadHosts::default();
        let (a, b) = (Some(IpAddr::from([192, 0, 2, 1])), Some(IpAddr::from([192, 0, 2, 2])));
        dead.mark(address(1), a, START);
        assert!(dead.is_dead(address(1), a, START));
        assert!(!dead.is_dead(address(1), b, START));
        assert!(!dead.is_dead(address(1), None, START));
        assert!(!dead.is_dead(SocketAddr::new(address(1).ip(), 26), a, START));
        dead.clear(address(1), a);
        assert!(!dead.is_dead(address(1), a, START));
    }

    #[test]
    fn the_dead_come_last_and_not_never() {
        let mut dead = DeadHosts::default();
        dead.mark(address(1), None, START);
        let split = dead.split(vec![address(1), address(2), address(3)], None, START);
        assert_eq!(split, (vec![address(2), address(3)], vec![address(1)]));
    }

    #[test]
    fn a_clock_that_was_set_back_frees_all() {
        let mut dead = DeadHosts::default();
        dead.mark(address(1), None, START);
        assert!(!dead.is_dead(address(1), None, START.minus(minutes(60))));
        dead.mark(address(1), None, START.minus(minutes(60)));
        assert!(!dead.is_dead(address(1), None, START.minus(minutes(58))));
    }

    #[test]
    fn memories_are_bounded_and_forget_the_oldest_first() {
        let mut dead = DeadHosts::default();
        let mut clear = ClearHosts::default();
        for number in 0..100_000_u32 {
            let now = START.plus(Duration::from_millis(u64::from(number)));
            dead.mark(address(number), None, now);
            clear.mark(address(number), minutes(4_320), now);
            assert!(dead.0.map.len() <= DEAD_HOSTS_MAX && clear.0.map.len() <= CLEAR_HOSTS_MAX);
            assert!(dead.is_dead(address(number), None, now) && clear.is_clear(address(number), now));
        }
        assert!(dead.0.map.len() >= DEAD_HOSTS_MAX / 2);
    }

    #[test]
    fn a_failed_handshake_is_remembered_until_its_time_or_a_success() {
        let mut clear = ClearHosts::default();
        clear.mark(address(1), minutes(10), START);
        clear.mark(address(2), minutes(10), START);
        clear.clear(address(2));
        assert!(clear.is_clear(address(1), START.plus(minutes(9))));
        assert!(!clear.is_clear(address(1), START.plus(minutes(10))));
        assert!(!clear.is_clear(address(2), START));
    }
}
