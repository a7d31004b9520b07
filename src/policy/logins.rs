//! Guessing slows down: who may try a login now.
//!
//! Failures are counted by client address and by user name. From the [`FREE_FAILURES`]th in a row on, the next try waits: a
//! second, then twice as long with each failure, a minute at most; after [`FORGET`] without a failure all is forgotten.
//! While it waits, nothing is looked up and nothing hashed.
//!
//! An attacker must not be able to lock a user out. So a client from which a name was right within [`TRUST`] has a count of
//! its own for that name, which what others do to the name or to the address does not touch; and where only the name is
//! blocked, a secret that is known to be right without any work passes ([`Gate::KnownOnly`]).
//!
//! A right login does not clear the count of the address: who has one right secret could otherwise guess others between.

use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use super::bounded::Bounded;

/// Failures in a row before the first wait.
pub const FREE_FAILURES: u32 = 5;
/// Tries of one client, or for one name, that may be under way beyond those that are free.
pub const UNDER_WAY_MAX: u32 = 20;
/// After so long without a failure the failures are forgotten.
pub const FORGET: Duration = Duration::from_secs(15 * 60);
/// A client with which a name was right is trusted with it for so long.
pub const TRUST: Duration = Duration::from_secs(7 * 24 * 3_600);
/// The longest wait.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// Clients, names, and pairs of both that are remembered, each. Full: what is forgotten anyway goes, at most once a
/// second; with none such, new clients and names share one count, and new pairs are not trusted.
pub const LOGIN_SUBJECTS_MAX: usize = 20_000;

/// Whether a login may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Go on.
    Open,
    /// Only if the secret is known to be right without any work; otherwise [`Logins::guessed`], and later.
    KnownOnly,
    /// Not before so long.
    Closed(Duration),
}

/// A try that has begun.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Try {
    /// Counted with the pair of client and name, not with each.
    of_pair: bool,
}

/// All counts. Time is in microseconds of one clock that does not go back.
#[derive(Debug)]
pub struct Logins {
    clients: Table<IpAddr>,
    names: Table<Box<str>>,
    trusted: Bounded<(IpAddr, Box<str>), Count>,
}

#[derive(Debug)]
struct Table<K> {
    counts: Bounded<K, Count>,
    /// Of those for which there was no room.
    others: Count,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    failures: u32,
    under_way: u32,
    /// The last failure; of a trusted pair also the last time it was right.
    failed_at_us: u64,
    right_at_us: u64,
}

impl Logins {
    /// Whether `client` may try to log in as `user` now. Counts nothing.
    pub fn gate(&self, client: IpAddr, user: &str, now_us: u64) -> Gate {
        let pair = (client, user.into());
        if let Some(count) = self.trusted.get(&pair).filter(|count| count.is_trusted(now_us)) {
            return count.wait(now_us).map_or(Gate::Open, Gate::Closed);
        }
        if let Some(wait) = self.clients.get(&client).wait(now_us) {
            return Gate::Closed(wait);
        }
        match self.names.get(&pair.1).wait(now_us) {
            Some(_) => Gate::KnownOnly,
            None => Gate::Open,
        }
    }

    /// A try begins; it ends with [`Logins::failed`], [`Logins::succeeded`] or [`Logins::given_up`].
    pub fn begun(&mut self, client: IpAddr, user: &str, now_us: u64) -> Try {
        let pair = (client, user.into());
        let of_pair = self.trusted.get(&pair).is_some_and(|count| count.is_trusted(now_us));
        let begun = Try { of_pair };
        self.each(begun, pair, now_us, |count| count.under_way = count.under_way.saturating_add(1));
        begun
    }

    /// The secret was wrong, or there is no such user.
    pub fn failed(&mut self, begun: Try, client: IpAddr, user: &str, now_us: u64) {
        self.each(begun, (client, user.into()), now_us, |count| {
            count.under_way = count.under_way.saturating_sub(1);
            count.fail(now_us);
        });
    }

    /// It ended without an answer.
    pub fn given_up(&mut self, begun: Try, client: IpAddr, user: &str, now_us: u64) {
        let end = |count: &mut Count| count.under_way = count.under_way.saturating_sub(1);
        self.each(begun, (client, user.into()), now_us, end);
    }

    /// The secret was right: from now on this client is trusted with this name.
    pub fn succeeded(&mut self, begun: Try, client: IpAddr, user: &str, now_us: u64) {
        self.given_up(begun, client, user, now_us);
        self.known(client, user, now_us);
    }

    /// The secret was known to be right: a try that never began.
    pub fn known(&mut self, client: IpAddr, user: &str, now_us: u64) {
        let pair = (client, Box::from(user));
        if let Some(count) = self.trusted.entry(pair, now_us, |count| count.is_trusted(now_us)) {
            (count.failures, count.right_at_us) = (0, now_us);
        }
    }

    /// A secret that was not known to be right where only such pass: a failure of the client, not of the name.
    pub fn guessed(&mut self, client: IpAddr, now_us: u64) {
        self.clients.with(client, now_us, |count| count.fail(now_us));
    }

    fn each(&mut self, begun: Try, pair: (IpAddr, Box<str>), now_us: u64, change: impl Fn(&mut Count)) {
        if begun.of_pair {
            if let Some(count) = self.trusted.get_mut(&pair) {
                change(count);
            }
            return;
        }
        self.clients.with(pair.0, now_us, &change);
        self.names.with(pair.1, now_us, &change);
    }
}

impl Default for Logins {
    fn default() -> Self {
        Self { clients: Table::default(), names: Table::default(), trusted: Bounded::new(LOGIN_SUBJECTS_MAX) }
    }
}

impl<K: Eq + Hash> Default for Table<K> {
    fn default() -> Self {
        Self { counts: Bounded::new(LOGIN_SUBJECTS_MAX), others: Count::default() }
    }
}

impl<K: Eq + Hash> Table<K> {
    /// The count of `key`; of one that is not known, that of the others once the table is full.
    fn get(&self, key: &K) -> Count {
        let unknown = if self.counts.has_room(key) { Count::default() } else { self.others };
        self.counts.get(key).copied().unwrap_or(unknown)
    }

    fn with(&mut self, key: K, now_us: u64, change: impl Fn(&mut Count)) {
        let change = |count: &mut Count| {
            if !count.remembers(now_us) {
                count.failures = 0;
            }
            change(count);
        };
        match self.counts.entry(key, now_us, |count| count.under_way > 0 || count.remembers(now_us)) {
            Some(count) => change(count),
            None => {
                change(&mut self.others);
                // Tries that began together may end apart, when there is room again.
                self.others.under_way = 0;
            }
        }
    }
}

impl Count {
    fn fail(&mut self, now_us: u64) {
        self.failures = self.failures.saturating_add(1);
        self.failed_at_us = now_us;
    }

    fn remembers(&self, now_us: u64) -> bool {
        self.failures > 0 && now_us.saturating_sub(self.failed_at_us) < micros(FORGET)
    }

    fn is_trusted(&self, now_us: u64) -> bool {
        self.right_at_us > 0 && now_us.saturating_sub(self.right_at_us) < micros(TRUST)
    }

    /// How long until the next try; `None`: now.
    fn wait(&self, now_us: u64) -> Option<Duration> {
        let failures = if self.remembers(now_us) { self.failures } else { 0 };
        if failures.saturating_add(self.under_way) >= FREE_FAILURES + UNDER_WAY_MAX && self.under_way > 0 {
            return Some(Duration::from_secs(1));
        }
        let beyond = failures.checked_sub(FREE_FAILURES)?;
        let wait = Duration::from_secs(1 << beyond.min(6)).min(WAIT_MAX);
        let left_us = self.failed_at_us.saturating_add(micros(wait)).saturating_sub(now_us);
        (left_us > 0).then(|| Duration::from_micros(left_us))
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const NOW_US: u64 = 1_000_000;
    const SECOND_US: u64 = 1_000_000;

    fn client(number: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + number).to_be_bytes())
    }

    /// One try with a wrong secret, where the gate is open.
    fn guess(logins: &mut Logins, number: u32, user: &str, now_us: u64) -> Gate {
        let gate = logins.gate(client(number), user, now_us);
        match gate {
            Gate::Open => {
                let begun = logins.begun(client(number), user, now_us);
                logins.failed(begun, client(number), user, now_us);
            }
            Gate::KnownOnly => logins.guessed(client(number), now_us),
            Gate::Closed(_) => {}
        }
        gate
    }

    fn succeed(logins: &mut Logins, number: u32, user: &str, now_us: u64) {
        let begun = logins.begun(client(number), user, now_us);
        logins.succeeded(begun, client(number), user, now_us);
    }

    /// Guesses as fast as it may for a day; how many were let through.
    fn guesses_in_a_day(logins: &mut Logins, mut next: impl FnMut(u64) -> (u32, String)) -> u64 {
        let (mut now_us, mut tried) = (NOW_US, 0);
        while now_us < 86_400 * SECOND_US {
            let (number, user) = next(tried);
            match guess(logins, number, &user, now_us) {
                Gate::Closed(wait) => now_us += micros(wait),
                _ => tried += 1,
            }
        }
        tried
    }

    #[test]
    fn the_sixth_try_waits_a_second_and_each_further_one_twice_as_long_up_to_a_minute() {
        let mut logins = Logins::default();
        let mut now_us = NOW_US;
        for _ in 0..FREE_FAILURES {
            assert_eq!(guess(&mut logins, 1, "app", now_us), Gate::Open);
        }
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            assert_eq!(guess(&mut logins, 1, "app", now_us), Gate::Closed(Duration::from_secs(seconds)));
            now_us += seconds * SECOND_US;
            assert_eq!(guess(&mut logins, 1, "other", now_us), Gate::Open, "the name changes nothing");
        }
    }

    #[test]
    fn a_client_guesses_some_hundred_times_a_day_whatever_names_it_takes() {
        let one_name = guesses_in_a_day(&mut Logins::default(), |_| (1, "app".to_owned()));
        let many_names = guesses_in_a_day(&mut Logins::default(), |count| (1, format!("app-{count}")));
        assert!(one_name < 1_500 && many_names < 1_500, "{one_name} {many_names}");
    }

    #[test]
    fn a_right_secret_of_its_own_does_not_help_a_client_to_guess_others() {
        let mut logins = Logins::default();
        let (mut now_us, mut guesses) = (NOW_US, 0);
        while now_us < 3_600 * SECOND_US {
            succeed(&mut logins, 1, "mine", now_us);
            match guess(&mut logins, 1, "theirs", now_us) {
                Gate::Closed(wait) => now_us += micros(wait),
                _ => guesses += 1,
            }
        }
        assert!(guesses < 80, "{guesses}");
    }

    #[test]
    fn a_name_under_attack_from_everywhere_stays_open_to_who_was_right_before() {
        let mut logins = Logins::default();
        succeed(&mut logins, 1, "app", NOW_US);
        for number in 100..600 {
            guess(&mut logins, number, "app", NOW_US);
        }
        assert_eq!(logins.gate(client(1), "app", NOW_US), Gate::Open);
        assert_eq!(logins.gate(client(2), "app", NOW_US), Gate::KnownOnly, "a new client, with a secret that is known");
        assert_eq!(logins.gate(client(2), "other", NOW_US), Gate::Open);
    }

    #[test]
    fn one_broken_application_does_not_lock_out_its_neighbours_on_the_same_host() {
        let mut logins = Logins::default();
        succeed(&mut logins, 1, "good", NOW_US);
        for _ in 0..100 {
            guess(&mut logins, 1, "broken", NOW_US);
        }
        assert!(matches!(logins.gate(client(1), "new", NOW_US), Gate::Closed(_)));
        assert_eq!(logins.gate(client(1), "good", NOW_US), Gate::Open);
    }

    #[test]
    fn trust_is_not_a_licence_to_guess() {
        let mut logins = Logins::default();
        succeed(&mut logins, 1, "app", NOW_US);
        let guesses = guesses_in_a_day(&mut logins, |_| (1, "app".to_owned()));
        assert!(guesses < 1_500, "{guesses}");
    }

    #[test]
    fn guesses_at_what_is_known_count_against_the_client() {
        let mut logins = Logins::default();
        for number in 100..600 {
            guess(&mut logins, number, "app", NOW_US);
        }
        let gates: Vec<Gate> = (0..8).map(|_| guess(&mut logins, 1, "app", NOW_US)).collect();
        assert_eq!(gates.iter().filter(|gate| **gate == Gate::KnownOnly).count(), 5, "{gates:?}");
        assert!(matches!(gates.last(), Some(Gate::Closed(_))));
    }

    #[test]
    fn tries_under_way_are_limited_until_they_end() {
        let mut logins = Logins::default();
        let mut begun = Vec::new();
        while logins.gate(client(1), "app", NOW_US) == Gate::Open {
            begun.push(logins.begun(client(1), "app", NOW_US));
        }
        assert_eq!(begun.len(), 25);
        // One of them was right: the others end where they were counted.
        logins.succeeded(begun.pop().unwrap(), client(1), "app", NOW_US);
        for begun in begun {
            logins.given_up(begun, client(1), "app", NOW_US);
        }
        assert!(logins.clients.counts.values().chain(logins.names.counts.values()).all(|count| count.under_way == 0));
        assert_eq!(logins.gate(client(1), "app", NOW_US), Gate::Open);
    }

    #[test]
    fn failures_are_forgotten_after_a_quarter_of_an_hour() {
        let mut logins = Logins::default();
        for _ in 0..FREE_FAILURES {
            guess(&mut logins, 1, "app", NOW_US);
        }
        let later = NOW_US + micros(FORGET);
        for _ in 0..FREE_FAILURES {
            assert_eq!(guess(&mut logins, 1, "app", later), Gate::Open);
        }
        assert!(matches!(guess(&mut logins, 1, "app", later), Gate::Closed(_)));
    }

    #[test]
    fn full_tables_forget_what_is_over_and_count_newcomers_together() {
        let mut logins = Logins::default();
        let clients = u32::try_from(LOGIN_SUBJECTS_MAX).unwrap();
        for number in 0..clients {
            guess(&mut logins, number, &format!("app-{number}"), NOW_US);
        }
        for number in clients..clients + FREE_FAILURES {
            assert_eq!(guess(&mut logins, number, "app", NOW_US), Gate::Open);
        }
        assert!(matches!(logins.gate(client(clients + 99), "x", NOW_US), Gate::Closed(_)), "newcomers share a count");
        assert_eq!(logins.gate(client(7), "app-7", NOW_US), Gate::Open, "who is known has its own");
        assert_eq!(logins.clients.counts.values().len(), LOGIN_SUBJECTS_MAX);
        let later = NOW_US + micros(FORGET);
        assert_eq!(guess(&mut logins, clients + 99, "x", later), Gate::Open);
        assert_eq!((logins.clients.counts.values().len(), logins.names.counts.values().len()), (1, 1));
    }

    proptest! {
        #[test]
        fn no_minute_sees_more_wrong_tries_of_a_client_than_are_free(
            steps in prop::collection::vec((0_u64..3_000_000, 0_u32..3, 0_u32..3), 1..400)
        ) {
            let mut logins = Logins::default();
            let mut now_us = NOW_US;
            let mut tried: HashMap<u32, Vec<u64>> = HashMap::new();
            for (pause, number, user) in steps {
                now_us += pause;
                if !matches!(guess(&mut logins, number, &user.to_string(), now_us), Gate::Closed(_)) {
                    tried.entry(number).or_default().push(now_us);
                }
            }
            for times in tried.values() {
                for window in times.windows(12) {
                    // Five at once, then 1, 2, 4, 8, 16, 32 s: the twelfth is at least 63 s behind the first.
                    prop_assert!(window[11] - window[0] >= 60 * SECOND_US, "{times:?}");
                }
            }
        }
    }
}
