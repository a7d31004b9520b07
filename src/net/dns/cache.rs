//! Answers of DNS that are kept, as a pure structure: `now` is passed in.
//!
//! Promises: it never holds more than its limit; a positive answer lives between the least and the greatest TTL of the
//! settings; NXDOMAIN and NODATA are kept apart and for a short time; a failure is remembered for seconds, so that a dead
//! server is not hammered; a positive answer or NODATA past its time serves while the servers fail (RFC 8767).
//! Does not: ask anybody.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::net::Mx;
use crate::net::settings::DnsSettings;
use crate::types::{Domain, Timestamp};

/// How long a failure is remembered (RFC 9520 §3.2 asks for 1 second to 5 minutes).
pub(super) const FAILURE_TTL: Duration = Duration::from_secs(5);
/// NXDOMAIN is cached for less than this, whatever the SOA says: mail is bounced only after a second look that may come
/// after ten minutes, and that look must be a real one.
const NO_SUCH_DOMAIN_TTL_MAX: Duration = Duration::from_secs(300);
/// NODATA is cached for at most this (RFC 2308 §5 recommends 1 to 3 hours): it decides for implicit MX.
const NO_DATA_TTL_MAX: Duration = Duration::from_secs(3_600);
/// Each so many records of an answer count as one more entry, so that huge answers do not multiply the memory.
const RECORDS_PER_ENTRY: usize = 8;
/// A text record counts as one more record for each so many octets.
const TEXT_BYTES_PER_RECORD: usize = 64;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    /// The name.
    pub(super) name: Domain,
    /// The record type.
    pub(super) kind: Kind,
}

/// The record types that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// MX.
    Mx,
    /// A.
    V4,
    /// AAAA.
    V6,
    /// TXT.
    Txt,
    /// PTR.
    Ptr,
}

/// Records of one type, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Records {
    /// Of an MX question.
    Mx(Arc<[Mx]>),
    /// Of an A or AAAA question.
    Addresses(Arc<[IpAddr]>),
    /// Of a TXT question: the strings of each record joined.
    Texts(Arc<[Box<str>]>),
    /// Of a PTR question.
    Names(Arc<[Domain]>),
}

impl Records {
    fn len(&self) -> usize {
        match self {
            Records::Mx(records) => records.len(),
            Records::Addresses(records) => records.len(),
            Records::Texts(records) => records.iter().map(|text| 1 + text.len() / TEXT_BYTES_PER_RECORD).sum(),
            Records::Names(records) => records.len(),
        }
    }
}

/// What a server said, with the time to live that it gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Records of the type that was asked for.
    Records(Records, Duration),
    /// The name exists, the type does not. The TTL is that of the SOA, if one was sent (RFC 2308 §5).
    NoData(Option<Duration>),
    /// NXDOMAIN.
    NoSuchDomain(Option<Duration>),
    /// Nobody knows: SERVFAIL, REFUSED, timeout, in words.
    Failed(Arc<str>),
}

/// The fate of a question, without times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// See [`Found::Records`].
    Records(Records),
    /// See [`Found::NoData`].
    NoData,
    /// See [`Found::NoSuchDomain`].
    NoSuchDomain,
    /// See [`Found::Failed`].
    Failed(Arc<str>),
}

/// An outcome and how long it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// What is known.
    pub(super) outcome: Outcome,
    /// When to ask again.
    pub(super) expires_at: Timestamp,
    /// Past its time, served because the servers fail.
    pub(super) stale: bool,
}

/// Lifetimes and the size limit, from the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Full: the half that was not asked for lately is dropped.
    entries_max: usize,
    ttl_min: Duration,
    ttl_max: Duration,
    negative_ttl: Duration,
    stale_max: Duration,
}

impl From<&DnsSettings> for Limits {
    fn from(settings: &DnsSettings) -> Self {
        Self {
            entries_max: settings.cache_entries_max.max(2),
            ttl_min: settings.ttl_min,
            ttl_max: settings.ttl_max.max(settings.ttl_min),
            negative_ttl: settings.negative_ttl,
            stale_max: settings.stale_max,
        }
    }
}

impl Limits {
    /// How long `found` is fresh.
    fn lifetime(&self, found: &Found) -> Duration {
        match found {
            Found::Records(_, ttl) => (*ttl).clamp(self.ttl_min, self.ttl_max),
            Found::NoData(ttl) => ttl.unwrap_or_default().max(self.negative_ttl).min(NO_DATA_TTL_MAX),
            Found::NoSuchDomain(ttl) => ttl.unwrap_or_default().max(self.negative_ttl).min(NO_SUCH_DOMAIN_TTL_MAX),
            Found::Failed(_) => FAILURE_TTL,
        }
    }
}

#[derive(Clone, Debug)]
struct Entry {
    outcome: Outcome,
    /// Times before this one come from a clock that was set back: then the entry has expired.
    stored_at: Timestamp,
    expires_at: Timestamp,
    /// While the servers fail; never after `expires_at` for what must not serve stale.
    stale_until: Timestamp,
    /// The servers failed: until then the stale answer is served without asking again.
    failing_until: Timestamp,
}

impl Entry {
    fn known_at(&self, now: Timestamp) -> Option<Known> {
        if now < self.stored_at {
            return None;
        }
        if now < self.expires_at {
            return Some(Known { outcome: self.outcome.clone(), expires_at: self.expires_at, stale: false });
        }
        let serves_stale = now < self.failing_until && now < self.stale_until;
        serves_stale.then(|| Known { outcome: self.outcome.clone(), expires_at: self.failing_until, stale: true })
    }

    /// Entries that it counts for.
    fn weight(&self) -> usize {
        let records = match &self.outcome {
            Outcome::Records(records) => records.len(),
            Outcome::NoData | Outcome::NoSuchDomain | Outcome::Failed(_) => 0,
        };
        1 + records / RECORDS_PER_ENTRY
    }
}

/// Two generations: new and asked-for entries are in the young one. When that holds half of the limit it becomes the old
/// one, and the old one is dropped.
#[derive(Debug)]
pub(super) struct Cache {
    limits: Limits,
    young: HashMap<Question, Entry>,
    /// Weight of all that was put into `young`; replaced entries count twice, which only turns generations earlier.
    young_weight: usize,
    old: HashMap<Question, Entry>,
}

impl Cache {
    /// An empty cache.
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, young: HashMap::new(), young_weight: 0, old: HashMap::new() }
    }

    /// Uses other limits from now on; lifetimes that were given stay.
    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        if self.young_weight >= self.half() {
            self.turn();
        }
    }

    /// Forgets everything: the answers came from servers that are no longer ours.
    pub(super) fn clear(&mut self) {
        self.turn();
        self.turn();
    }

    /// What is known at `now`; `None` if somebody must be asked.
    pub(super) fn get(&mut self, question: &Question, now: Timestamp) -> Option<Known> {
        if let Some(entry) = self.young.get(question) {
            return entry.known_at(now);
        }
        let entry = self.old.remove(question)?;
        let known = entry.known_at(now);
        self.insert(question.clone(), entry);
        known
    }

    /// Keeps what a server said at `now`, and returns what to answer: that, or a stale answer where it is a failure.
    pub(super) fn store(&mut self, question: Question, found: Found, now: Timestamp) -> Known {
        let expires_at = now.plus(self.limits.lifetime(&found));
        let (outcome, serves_stale) = match found {
            Found::Records(records, _) => (Outcome::Records(records), true),
            Found::NoData(_) => (Outcome::NoData, true),
            Found::NoSuchDomain(_) => (Outcome::NoSuchDomain, false),
            Found::Failed(reason) => match self.stale(&question, now, expires_at) {
                Some(known) => return known,
                None => (Outcome::Failed(reason), false),
            },
        };
        let stale_until = if serves_stale { expires_at.plus(self.limits.stale_max) } else { expires_at };
        let entry =
            Entry { outcome: outcome.clone(), stored_at: now, expires_at, stale_until, failing_until: expires_at };
        self.insert(question, entry);
        Known { outcome, expires_at, stale: false }
    }

    /// Notes that the servers fail until `failing_until`, where an entry past its time can serve meanwhile.
    fn stale(&mut self, question: &Question, now: Timestamp, failing_until: Timestamp) -> Option<Known> {
        let entry = match self.young.get_mut(question) {
            Some(entry) => entry,
            None => self.old.get_mut(question)?,
        };
        if now < entry.stored_at || now >= entry.stale_until {
            return None;
        }
        if now < entry.expires_at {
            // Someone else asked meanwhile and had more luck.
            return entry.known_at(now);
        }
        entry.failing_until = failing_until;
        entry.known_at(now)
    }

    fn insert(&mut self, question: Question, entry: Entry) {
        self.old.remove(&question);
        self.young_weight += entry.weight();
        self.young.insert(question, entry);
        if self.young_weight >= self.half() {
            self.turn();
        }
    }

    fn half(&self) -> usize {
        (self.limits.entries_max / 2).max(1)
    }

    fn turn(&mut self) {
        self.old = std::mem::take(&mut self.young);
        self.young_weight = 0;
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_000_000_000);

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn cache() -> Cache {
        Cache::new(Limits::from(&DnsSettings::default()))
    }

    fn question(name: &str) -> Question {
        Question { name: Domain::parse(name).unwrap(), kind: Kind::V4 }
    }

    fn records(ttl_secs: u64) -> Found {
        Found::Records(Records::Addresses(Arc::from([IpAddr::from([192, 0, 2, 1])])), secs(ttl_secs))
    }

    fn failed() -> Found {
        Found::Failed("SERVFAIL".into())
    }

    #[track_caller]
    fn check_lifetime(found: Found, expected: Duration) {
        let mut cache = cache();
        let known = cache.store(question("a.test"), found, START);
        assert_eq!(known.expires_at.since(START), expected);
        let last = Timestamp::from_millis(START.plus(expected).millis() - 1);
        assert_eq!(cache.get(&question("a.test"), last), Some(known));
        assert_eq!(cache.get(&question("a.test"), START.plus(expected)), None);
    }

    #[test]
    fn lifetimes_stay_within_their_bounds() {
        check_lifetime(records(300), secs(300));
        check_lifetime(records(0), secs(30));
        check_lifetime(records(u64::from(u32::MAX)), secs(86_400));
        check_lifetime(Found::NoData(None), secs(60));
        check_lifetime(Found::NoData(Some(secs(900))), secs(900));
        check_lifetime(Found::NoData(Some(secs(86_400))), secs(3_600));
        check_lifetime(Found::NoSuchDomain(None), secs(60));
        check_lifetime(Found::NoSuchDomain(Some(secs(86_400))), secs(300));
        check_lifetime(failed(), FAILURE_TTL);
    }

    #[test]
    fn an_expired_answer_serves_while_the_servers_fail_and_no_longer_than_allowed() {
        let mut cache = cache();
        let fresh = cache.store(question("a.test"), records(300), START);
        let later = START.plus(secs(7_200));
        assert_eq!(cache.get(&question("a.test"), later), None, "somebody must be asked first");
        let known = cache.store(question("a.test"), failed(), later);
        assert_eq!(known, Known { outcome: fresh.outcome, expires_at: later.plus(FAILURE_TTL), stale: true });
        assert_eq!(cache.get(&question("a.test"), later), Some(known), "the servers are left alone for a while");
        assert_eq!(cache.get(&question("a.test"), later.plus(FAILURE_TTL)), None);
        let too_late = START.plus(secs(300 + 86_400));
        let known = cache.store(question("a.test"), failed(), too_late);
        assert_eq!(known.outcome, Outcome::Failed("SERVFAIL".into()));
    }

    #[test]
    fn nxdomain_never_serves_stale_but_nodata_does() {
        let mut cache = cache();
        cache.store(question("gone.test"), Found::NoSuchDomain(None), START);
        cache.store(question("bare.test"), Found::NoData(None), START);
        let later = START.plus(secs(120));
        assert!(matches!(cache.store(question("gone.test"), failed(), later).outcome, Outcome::Failed(_)));
        assert_eq!(cache.store(question("bare.test"), failed(), later).outcome, Outcome::NoData);
    }

    #[test]
    fn a_failure_ends_with_the_first_good_answer() {
        let mut cache = cache();
        cache.store(question("a.test"), failed(), START);
        let known = cache.store(question("a.test"), records(300), START.plus(FAILURE_TTL));
        assert!(!known.stale);
        assert_eq!(cache.get(&question("a.test"), START.plus(FAILURE_TTL)), Some(known));
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_prolong_answers() {
        let mut cache = cache();
        cache.store(question("a.test"), records(300), START);
        assert_eq!(cache.get(&question("a.test"), START.minus(secs(3_600))), None);
    }

    #[test]
    fn types_of_one_name_do_not_mix() {
        let mut cache = cache();
        cache.store(question("a.test"), records(300), START);
        let other = Question { kind: Kind::V6, ..question("a.test") };
        assert_eq!(cache.get(&other, START), None);
    }

    #[test]
    fn what_is_asked_for_survives_a_flood_of_other_names() {
        let limits = Limits::from(&DnsSettings { cache_entries_max: 100, ..DnsSettings::default() });
        let mut cache = Cache::new(limits);
        cache.store(question("hot.test"), records(300), START);
        for number in 0..10_000 {
            cache.store(question(&format!("n{number}.test")), records(300), START);
            assert!(cache.get(&question("hot.test"), START).is_some());
            assert!(cache.len() <= 100);
        }
    }

    #[test]
    fn large_answers_count_for_more() {
        let limits = Limits::from(&DnsSettings { cache_entries_max: 100, ..DnsSettings::default() });
        let mut cache = Cache::new(limits);
        let many: Vec<IpAddr> = (0..64).map(|last| IpAddr::from([192, 0, 2, last])).collect();
        for number in 0..1_000 {
            let found = Found::Records(Records::Addresses(many.clone().into()), secs(300));
            cache.store(question(&format!("n{number}.test")), found, START);
        }
        assert!(cache.len() <= 12, "{} answers of 64 records are kept", cache.len());
    }

    proptest! {
        #[test]
        fn never_more_than_the_limit_and_never_past_the_time(
            steps in prop::collection::vec((0_u32..60, 0_u8..4, 0_u64..100), 1..300),
        ) {
            let limits = Limits::from(&DnsSettings { cache_entries_max: 16, ..DnsSettings::default() });
            let mut cache = Cache::new(limits);
            let mut now = START;
            for (name, action, seconds) in steps {
                now = now.plus(secs(seconds));
                let question = question(&format!("n{name}.test"));
                let known = match action {
                    0 => Some(cache.store(question, records(60), now)),
                    1 => Some(cache.store(question, failed(), now)),
                    2 => Some(cache.store(question, Found::NoSuchDomain(None), now)),
                    _ => cache.get(&question, now),
                };
                prop_assert!(known.is_none_or(|known| known.expires_at > now));
                prop_assert!(cache.len() <= 16);
            }
        }
    }
}
