//! Packets from name servers, which anybody may run.

use posthaste::net::dns::read_packet;
use posthaste::types::Domain;

/// An answer about `a.test`, as it comes from the wire.
pub fn dns_answer(data: &[u8]) {
    let domain = Domain::parse("a.test").expect("a literal domain");
    let Ok((hosts, addresses)) = read_packet(&domain, data) else { return };
    assert!(hosts.len() <= 64 && hosts.is_sorted(), "{hosts:?}");
    assert!(addresses.len() <= 32, "{addresses:?}");
    for host in hosts.iter().filter_map(|mx| mx.host.as_ref()) {
        assert_eq!(Domain::parse(host.as_str()).as_ref(), Ok(host), "a name that is no name");
    }
}
