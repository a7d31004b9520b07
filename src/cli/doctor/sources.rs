//! The addresses that mail leaves from: of the command line, of the config, or those that the system would take.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::finding::{Check, Finding, Subject};
use super::setup::{Origin, Setup, Source};

/// Addresses for documentation, beyond every network that anyone has: the way there is the way to the internet.
const FAR_AWAY: [&str; 2] = ["192.0.2.1:9", "[2001:db8::1]:9"];

/// Those of the first that has any.
pub(super) fn gather(named: &[IpAddr], configured: &[IpAddr]) -> Vec<Source> {
    let all = |addresses: &[IpAddr], origin| {
        let sources = addresses.iter().map(|address| Source { address: *address, origin });
        sources.collect::<Vec<_>>()
    };
    if !named.is_empty() {
        return all(named, Origin::CommandLine);
    }
    if !configured.is_empty() {
        return all(configured, Origin::Config);
    }
    all(&FAR_AWAY.iter().filter_map(|remote| local_address(remote)).collect::<Vec<_>>(), Origin::System)
}

/// Where the system would send from. Connecting a UDP socket sends nothing.
fn local_address(remote: &str) -> Option<IpAddr> {
    let remote: SocketAddr = remote.parse().ok()?;
    let any = if remote.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(remote).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}

/// What is to be said of the sources before anything is asked.
pub(super) fn judge(setup: &Setup) -> Vec<Finding> {
    if setup.sources.is_empty() {
        let check = Check::new("source", Subject::host(&setup.hostname));
        let seen = "no way to the internet: the system has no address to send from";
        return vec![
            check.error("none", seen).advice("connect this host, or name the address it sends from with --source"),
        ];
    }
    setup.sources.iter().map(|source| judge_one(setup, *source)).collect()
}

fn judge_one(setup: &Setup, source: Source) -> Finding {
    let check = Check::new("source", Subject::source(source.address));
    if setup.is_hidden(&source) {
        let seen = format!(
            "{} is a private address: receivers see another one, and nothing is known of it here",
            source.address
        );
        let advice = "run this again with --source and the address that receivers see";
        return check.warning("private", seen).advice(advice);
    }
    let origin = match source.origin {
        Origin::Config => "set in [delivery] sources",
        Origin::CommandLine => "named with --source",
        Origin::System => "what the system takes, as [delivery] sources is empty",
    };
    check.ok(origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_comes_before_the_config() {
        let (one, two) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let named = gather(&[one], &[two]);
        assert_eq!(named, [Source { address: one, origin: Origin::CommandLine }]);
        let configured = gather(&[], &[two]);
        assert_eq!(configured, [Source { address: two, origin: Origin::Config }]);
        assert!(gather(&[], &[]).iter().all(|source| source.origin == Origin::System));
    }

    #[test]
    fn the_way_to_ourselves_is_by_loopback() {
        assert_eq!(local_address("127.0.0.1:9"), Some("127.0.0.1".parse().unwrap()));
    }
}
