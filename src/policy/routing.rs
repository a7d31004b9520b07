//! Which hosts take mail for a domain, in which order, and which of them never (RFC 5321 §5.1, RFC 7505). Pure.
//!
//! Promises: hosts of a lower preference come first, equal ones in an order that the seed decides, so that load spreads
//! and tests repeat; a domain with MX records that cannot be used never falls back to its own address; mail is never
//! sent to ourselves or into the local network because of what somebody else put into DNS (loop guard).
//! Does not: look anything up, or know TCP ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::types::{Domain, EnhancedStatus};

/// A host that takes mail for a domain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailHost {
    /// Lower is tried first.
    pub preference: u16,
    /// Its name.
    pub host: Domain,
}

/// What the MX records of a domain say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailHosts {
    /// No MX records: the domain itself is the host, with preference 0 (RFC 5321 §5.1).
    Implicit,
    /// These, at least one, each name once, sorted by preference and name.
    Listed(Vec<MailHost>),
}

/// Why mail to a domain goes nowhere. Permanent until its DNS changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoHosts {
    /// Null MX: the domain says that it takes no mail (RFC 7505 §3).
    #[error("domain takes no mail: its MX record is \".\" (null MX)")]
    NullMx,
    /// We are the best MX host of the domain ourselves (RFC 5321 §5.1), and no route says where its mail goes.
    #[error("mail would loop back to this server: it is the best MX host of the domain and has no route for it")]
    Loop,
}

impl NoHosts {
    /// The status for the bounce: 5.1.10 (RFC 7505 §4.2) or 5.4.6 (RFC 3463 §3.5).
    pub fn status(self) -> EnhancedStatus {
        match self {
            NoHosts::NullMx => status(5, 1, 10),
            NoHosts::Loop => status(5, 4, 6),
        }
    }

    /// The name that events quote.
    pub const fn rule(self) -> &'static str {
        match self {
            NoHosts::NullMx => "null-mx",
            NoHosts::Loop => "mx-loop",
        }
    }
}

/// An enhanced status that is written in code.
pub(crate) fn status(class: u8, subject: u16, detail: u16) -> EnhancedStatus {
    EnhancedStatus::new(class, subject, detail).expect("the parts are literals in this crate, of class 2, 4 or 5")
}

/// The usable hosts of MX `records` (preference and name, `None` for the root), without those that are `own_names` and
/// those that are not better than us: passing mail to them may bring it back (RFC 5321 §5.1).
pub fn mail_hosts(
    records: impl IntoIterator<Item = (u16, Option<Domain>)>,
    own_names: &[Domain],
) -> Result<MailHosts, NoHosts> {
    let mut has_records = false;
    let mut hosts = Vec::new();
    for (preference, host) in records {
        has_records = true;
        // The root beside real hosts is against RFC 7505 §3; those hosts are better evidence than it.
        if let Some(host) = host {
            hosts.push(MailHost { preference, host });
        }
    }
    if !has_records {
        return Ok(MailHosts::Implicit);
    }
    if hosts.is_empty() {
        return Err(NoHosts::NullMx);
    }
    let own_best = hosts.iter().filter(|host| own_names.contains(&host.host)).map(|host| host.preference).min();
    hosts.retain(|host| own_best.is_none_or(|own_best| host.preference < own_best));
    if hosts.is_empty() {
        return Err(NoHosts::Loop);
    }
    Ok(MailHosts::Listed(without_doubles(hosts)))
}

/// Each name once, with its best preference; sorted by preference and name.
fn without_doubles(mut hosts: Vec<MailHost>) -> Vec<MailHost> {
    hosts.sort_unstable_by(|a, b| a.host.cmp(&b.host).then(a.preference.cmp(&b.preference)));
    hosts.dedup_by(|later, kept| later.host == kept.host);
    hosts.sort_unstable();
    hosts
}

/// Sorts by preference, equal ones by a shuffle that `seed` decides. `key` gives the preference and a text that tells
/// equal ones apart.
pub fn shuffle_by_preference<T>(items: &mut [T], seed: u64, key: impl Fn(&T) -> (u16, &[u8])) {
    items.sort_by_cached_key(|item| {
        let (preference, name) = key(item);
        (preference, mix(seed, name), name.to_vec())
    });
}

/// Addresses of one host in the order of attempts: shuffled by `seed` within each family, then the families in turn,
/// IPv6 first, so that one broken family costs every other attempt at most. At most `limit`.
pub fn interleave(addresses: &[IpAddr], seed: u64, limit: usize) -> Vec<IpAddr> {
    let mut shuffled: Vec<(u64, IpAddr)> =
        addresses.iter().map(|address| (mix(seed, &octets(*address)), *address)).collect();
    shuffled.sort_unstable();
    shuffled.dedup();
    let (v6, v4): (Vec<IpAddr>, Vec<IpAddr>) =
        shuffled.into_iter().map(|(_, address)| address).partition(IpAddr::is_ipv6);
    let longest = v6.len().max(v4.len());
    (0..longest).flat_map(|index| [v6.get(index), v4.get(index)]).flatten().copied().take(limit).collect()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// FNV-1a over `seed` and `bytes`, then a finalizer, so that close inputs end far apart.
fn mix(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in seed.to_le_bytes().iter().chain(bytes) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

/// Why an address that DNS gave is not connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedAddress {
    /// One of our own: the mail would come back.
    #[error("is an address of this server")]
    Own,
    /// 127.0.0.0/8, `::1`.
    #[error("is a loopback address")]
    Loopback,
    /// 0.0.0.0/8, `::`.
    #[error("is an unspecified address")]
    Unspecified,
    /// RFC 1918, RFC 6598, RFC 4193, the old site-local range.
    #[error("is a private address")]
    Private,
    /// 169.254.0.0/16, fe80::/10.
    #[error("is a link-local address")]
    LinkLocal,
    /// No TCP there, whatever is allowed: multicast, broadcast and reserved.
    #[error("is a multicast, broadcast or reserved address")]
    NotUnicast,
}

/// Judges an address from DNS. `own` are our addresses; `allow_private` permits all but those where TCP cannot work.
/// IPv4 inside of IPv6 (mapped, compatible, NAT64, 6to4) is judged as what it leads to.
pub fn check_address(address: IpAddr, own: &[IpAddr], allow_private: bool) -> Result<(), RefusedAddress> {
    let is_own = own.iter().any(|own| own.to_canonical() == address.to_canonical());
    let refusal = if is_own { Some(RefusedAddress::Own) } else { refusal_of(address) };
    match refusal {
        Some(refusal) if !allow_private || refusal == RefusedAddress::NotUnicast => Err(refusal),
        _ => Ok(()),
    }
}

fn refusal_of(address: IpAddr) -> Option<RefusedAddress> {
    match address {
        IpAddr::V4(address) => refusal_of_v4(address),
        IpAddr::V6(address) => refusal_of_v6(address),
    }
}

fn refusal_of_v4(address: Ipv4Addr) -> Option<RefusedAddress> {
    let [first, second, ..] = address.octets();
    match (first, second) {
        (0, _) => Some(RefusedAddress::Unspecified),
        (127, _) => Some(RefusedAddress::Loopback),
        (169, 254) => Some(RefusedAddress::LinkLocal),
        (100, 64..=127) => Some(RefusedAddress::Private),
        (224.., _) => Some(RefusedAddress::NotUnicast),
        _ if address.is_private() => Some(RefusedAddress::Private),
        _ => None,
    }
}

fn refusal_of_v6(address: Ipv6Addr) -> Option<RefusedAddress> {
    if address.is_unspecified() {
        return Some(RefusedAddress::Unspecified);
    }
    if address.is_loopback() {
        return Some(RefusedAddress::Loopback);
    }
    if let Some(inner) = embedded_v4(address) {
        return refusal_of_v4(inner);
    }
    match address.segments() {
        [0xfe80..=0xfebf, ..] => Some(RefusedAddress::LinkLocal),
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Some(RefusedAddress::Private),
        [0xff00..=0xffff, ..] => Some(RefusedAddress::NotUnicast),
        _ => None,
    }
}

/// The IPv4 address that an IPv6 address leads to (RFC 4291 §2.5.5, RFC 6052 §2.1, RFC 3056 §2).
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let (high, low) = match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => (high, low),
        [0x2002, high, low, ..] => (high, low),
        _ => return None,
    };
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Some(Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    /// `10 a.test, 20 b.test`; `.` is the root.
    fn records(text: &str) -> Vec<(u16, Option<Domain>)> {
        text.split(',')
            .filter(|record| !record.trim().is_empty())
            .map(|record| {
                let (preference, host) = record.trim().split_once(' ').unwrap();
                (preference.parse().unwrap(), (host != ".").then(|| domain(host)))
            })
            .collect()
    }

    /// `own.test` is us. `expected` is like the input, or `implicit`, or the rule.
    #[track_caller]
    fn check(text: &str, expected: &str) {
        let shown = match mail_hosts(records(text), &[domain("own.test")]) {
            Ok(MailHosts::Implicit) => "implicit".to_owned(),
            Ok(MailHosts::Listed(hosts)) => {
                let hosts: Vec<String> =
                    hosts.iter().map(|host| format!("{} {}", host.preference, host.host)).collect();
                hosts.join(", ")
            }
            Err(error) => error.rule().to_owned(),
        };
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn records_become_hosts() {
        check("", "implicit");
        check("20 b.test, 10 a.test", "10 a.test, 20 b.test");
        check("10 b.test, 10 a.test", "10 a.test, 10 b.test");
        check("20 a.test, 10 a.test, 15 b.test", "10 a.test, 15 b.test");
        check("65535 a.test, 0 b.test", "0 b.test, 65535 a.test");
    }

    #[test]
    fn a_null_mx_takes_no_mail() {
        check("0 .", "null-mx");
        check("10 .", "null-mx");
        check("0 ., 20 .", "null-mx");
        check("0 ., 10 a.test", "10 a.test");
        assert_eq!(NoHosts::NullMx.status().to_string(), "5.1.10");
    }

    #[test]
    fn hosts_that_are_not_better_than_us_are_dropped() {
        check("10 a.test, 20 own.test, 20 b.test, 30 c.test", "10 a.test");
        check("10 own.test", "mx-loop");
        check("10 own.test, 10 a.test", "mx-loop");
        check("10 own.test, 20 a.test, 5 .", "mx-loop");
        check("30 own.test, 10 own.test, 20 a.test", "mx-loop");
        assert_eq!(NoHosts::Loop.status().to_string(), "5.4.6");
    }

    #[track_caller]
    fn check_refusal(address: &str, expected: Option<RefusedAddress>) {
        let own = ["198.51.100.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        assert_eq!(check_address(address.parse().unwrap(), &own, false).err(), expected, "{address}");
    }

    #[test]
    fn addresses_that_lead_back_or_inside_are_refused() {
        use RefusedAddress::*;
        for address in ["192.0.2.1", "100.63.0.1", "100.128.0.1", "172.32.0.1", "2001:db8::1", "64:ff9b::c000:201"] {
            check_refusal(address, None);
        }
        for (address, reason) in [
            ("198.51.100.7", Own),
            ("::ffff:198.51.100.7", Own),
            ("2001:db8::7", Own),
            ("127.0.0.1", Loopback),
            ("127.255.255.254", Loopback),
            ("::1", Loopback),
            ("::ffff:127.0.0.1", Loopback),
            ("::127.0.0.1", Loopback),
            ("64:ff9b::127.0.0.1", Loopback),
            ("2002:7f00:1::", Loopback),
            ("0.0.0.0", Unspecified),
            ("0.1.2.3", Unspecified),
            ("::", Unspecified),
            ("::ffff:0.0.0.0", Unspecified),
            ("10.0.0.1", Private),
            ("172.16.0.1", Private),
            ("172.31.255.255", Private),
            ("192.168.0.1", Private),
            ("100.64.0.1", Private),
            ("100.127.255.255", Private),
            ("fc00::1", Private),
            ("fd12::1", Private),
            ("fec0::1", Private),
            ("::ffff:10.0.0.1", Private),
            ("169.254.169.254", LinkLocal),
            ("fe80::1", LinkLocal),
            ("febf::1", LinkLocal),
            ("224.0.0.1", NotUnicast),
            ("240.0.0.1", NotUnicast),
            ("255.255.255.255", NotUnicast),
            ("ff02::1", NotUnicast),
        ] {
            check_refusal(address, Some(reason));
        }
    }

    #[test]
    fn labs_may_use_private_addresses_but_never_multicast() {
        for address in ["127.0.0.1", "10.0.0.1", "0.0.0.0", "::1", "198.51.100.7"] {
            let own = ["198.51.100.7".parse().unwrap()];
            assert_eq!(check_address(address.parse().unwrap(), &own, true), Ok(()), "{address}");
        }
        assert!(check_address("224.0.0.1".parse().unwrap(), &[], true).is_err());
        assert!(check_address("ff02::1".parse().unwrap(), &[], true).is_err());
    }

    fn preference_and_name(host: &MailHost) -> (u16, &[u8]) {
        (host.preference, host.host.as_str().as_bytes())
    }

    #[test]
    fn equal_hosts_share_the_load() {
        let hosts: Vec<MailHost> =
            (0..4).map(|number| MailHost { preference: 10, host: domain(&format!("mx{number}.test")) }).collect();
        let mut first = [0_u32; 4];
        for seed in 0..4_000 {
            let mut shuffled = hosts.clone();
            shuffle_by_preference(&mut shuffled, seed, preference_and_name);
            first[hosts.iter().position(|host| *host == shuffled[0]).unwrap()] += 1;
        }
        assert!(first.iter().all(|count| (850..1_150).contains(count)), "{first:?}");
    }

    #[test]
    fn families_take_turns_and_ipv6_begins() {
        let parse = |texts: &[&str]| -> Vec<IpAddr> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let addresses = parse(&["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"]);
        let ordered = interleave(&addresses, 7, 10);
        assert_eq!(ordered[0], addresses[3]);
        assert_eq!(ordered.iter().collect::<HashSet<_>>(), addresses.iter().collect());
        assert_eq!(interleave(&addresses, 7, 2), ordered[..2]);
        assert!(interleave(&addresses, 7, 0).is_empty());
    }

    proptest! {
        #[test]
        fn an_order_is_a_permutation_by_preference_that_the_seed_decides(
            preferences in prop::collection::vec(0_u16..5, 0..20),
            seed: u64,
        ) {
            let hosts: Vec<MailHost> = preferences
                .iter()
                .enumerate()
                .map(|(number, preference)| MailHost {
                    preference: *preference,
                    host: domain(&format!("mx{number}.test")),
                })
                .collect();
            let mut ordered = hosts.clone();
            shuffle_by_preference(&mut ordered, seed, preference_and_name);
            prop_assert!(ordered.is_sorted_by_key(|host| host.preference));
            prop_assert_eq!(ordered.iter().collect::<HashSet<_>>(), hosts.iter().collect::<HashSet<_>>());
            let mut again: Vec<MailHost> = hosts.into_iter().rev().collect();
            shuffle_by_preference(&mut again, seed, preference_and_name);
            prop_assert_eq!(again, ordered);
        }

        #[test]
        fn a_mapped_address_is_judged_as_the_plain_one(bits: u32) {
            let plain = Ipv4Addr::from(bits);
            let mapped = IpAddr::V6(plain.to_ipv6_mapped());
            prop_assert_eq!(check_address(mapped, &[], false), check_address(IpAddr::V4(plain), &[], false));
        }

        #[test]
        fn interleaving_loses_and_doubles_nothing(v4 in 0_u8..10, v6 in 0_u16..10, seed: u64) {
            let addresses: Vec<IpAddr> = (0..v4)
                .map(|last| IpAddr::from([192, 0, 2, last]))
                .chain((0..v6).map(|last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last])))
                .collect();
            let ordered = interleave(&addresses, seed, usize::MAX);
            prop_assert_eq!(ordered.len(), addresses.len());
            prop_assert_eq!(ordered.iter().collect::<HashSet<_>>(), addresses.iter().collect::<HashSet<_>>());
        }
    }
}
