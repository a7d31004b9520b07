//! What DNS said, after hickory has decoded it: names and addresses that anybody may have written.

use std::net::IpAddr;

use posthaste::policy::routing::{MailHosts, check_address, interleave, mail_hosts, shuffle_by_preference};
use posthaste::types::Domain;

/// MX records and addresses. Each line is a record: two octets of preference, then the name (empty: the root). The whole
/// input is read as addresses, too.
pub fn routing(data: &[u8]) {
    let seed = data.len() as u64;
    let own = [Domain::parse("mx.self.test").expect("a literal domain")];
    let records = data.split(|octet| *octet == b'\n').filter_map(record).take(100);
    if let Ok(MailHosts::Listed(mut hosts)) = mail_hosts(records, &own) {
        assert!(!hosts.is_empty() && hosts.iter().all(|host| !own.contains(&host.host)), "{hosts:?}");
        shuffle_by_preference(&mut hosts, seed, |host| (host.preference, host.host.as_str().as_bytes()));
        assert!(hosts.is_sorted_by_key(|host| host.preference), "preferences are mixed up: {hosts:?}");
    }
    let addresses: Vec<IpAddr> = data.chunks(16).filter_map(address).collect();
    let order = interleave(&addresses, seed, 5);
    assert!(order.len() <= 5 && order.iter().all(|address| addresses.contains(address)));
    for address in order {
        if check_address(address, &[], false).is_ok() {
            assert!(!address.to_canonical().is_loopback() && !address.to_canonical().is_unspecified(), "{address}");
        }
        assert!(check_address(address, &[address], false).is_err(), "our own address is no next hop");
    }
}

fn record(line: &[u8]) -> Option<(u16, Option<Domain>)> {
    let (preference, name) = line.split_first_chunk::<2>()?;
    let name = std::str::from_utf8(name).ok()?;
    let host = if name.is_empty() { None } else { Some(Domain::parse(name).ok()?) };
    Some((u16::from_be_bytes(*preference), host))
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 16]>::try_from(octets) {
        return Some(IpAddr::from(octets));
    }
    octets.first_chunk::<4>().map(|octets| IpAddr::from(*octets))
}
