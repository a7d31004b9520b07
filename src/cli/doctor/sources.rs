//! The addresses that mail leaves from: of the command line, of the config, or those that the system would take.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::finding::{Check, Finding, Subject};
use super::setup::{Origin, Setup, Source, UnknownSource};
use crate::daemon::config::Config;
use crate::delivery::sources::Outlets;
use crate::net::Via;
use crate::types::Domain;

/// Addresses for documentation, beyond every network that anyone has: the way there is the way to the internet.
const FAR_AWAY: [&str; 2] = ["192.0.2.1:9", "[2001:db8::1]:9"];

/// Those of the command line where it names some, else those of the config. `unknown` gets those whose address a proxy chooses.
pub(super) fn gather(named: &[IpAddr], config: &Config, outlets: &Outlets) -> (Vec<Source>, Vec<UnknownSource>) {
    if !named.is_empty() {
        return (named.iter().map(|address| of_command_line(*address, &config.hostname)).collect(), Vec::new());
    }
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for source in &config.delivery.sources {
        let ehlo_name = source.ehlo_name.as_ref().unwrap_or(&config.hostname).clone();
        let via = outlets.named(source.name.as_str()).map(|outlet| outlet.via.clone()).unwrap_or_default();
        match (source.address, via.proxy) {
            (Some(address), proxy) => {
                let via = Via { address: source.address, proxy };
                known.push(Source { address, ehlo_name, via, origin: Origin::Config });
            }
            (None, Some(proxy)) => unknown.push(UnknownSource { name: source.name.clone(), proxy }),
            (None, None) => known.extend(of_system(&ehlo_name)),
        }
    }
    (known, unknown)
}

fn of_command_line(address: IpAddr, hostname: &Domain) -> Source {
    let via = Via::direct(Some(address));
    Source { address, ehlo_name: hostname.clone(), via, origin: Origin::CommandLine }
}

fn of_system(ehlo_name: &Domain) -> impl Iterator<Item = Source> {
    let found = FAR_AWAY.iter().filter_map(|remote| local_address(remote));
    found.map(|address| {
        let via = Via::direct(Some(address));
        Source { address, ehlo_name: ehlo_name.clone(), via, origin: Origin::System }
    })
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
    let unknown = setup.unknown.iter().map(|source| judge_unknown(setup, source));
    if setup.sources.is_empty() && setup.unknown.is_empty() {
        let check = Check::new("source", Subject::host(&setup.hostname));
        let seen = "no way to the internet: the system has no address to send from";
        return vec![
            check.error("none", seen).advice("connect this host, or name the address it sends from with --source"),
        ];
    }
    setup.sources.iter().map(|source| judge_one(setup, source)).chain(unknown).collect()
}

fn judge_unknown(setup: &Setup, source: &UnknownSource) -> Finding {
    let check = Check::new("source", Subject::host(&setup.hostname));
    let seen =
        format!("source {} goes out by {}, and the config does not say from which address", source.name, source.proxy);
    let advice = "write the address that the proxy sends from into its [[source]]; nothing was checked of it";
    check.warning("address_not_said", seen).item(&source.name).advice(advice)
}

fn judge_one(setup: &Setup, source: &Source) -> Finding {
    let check = Check::new("source", Subject::source(source.address));
    if setup.is_hidden(source) {
        let seen = format!(
            "{} is a private address: receivers see another one, and nothing is known of it here",
            source.address
        );
        let advice = "run this again with --source and the address that receivers see";
        return check.warning("private", seen).advice(advice);
    }
    match (source.origin, &source.via.proxy) {
        (Origin::Config, Some(proxy)) => check.ok(format!("set in the config, by {proxy}")),
        (Origin::Config, None) => check.ok("set in the config"),
        (Origin::CommandLine, _) => check.ok("named with --source"),
        (Origin::System, _) => check.ok("what the system takes, as the config names no address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_comes_before_the_config() {
        let gathered = |named: &[&str], text: &str| {
            let head = "hostname = \"mail.test\"\nlistener = [{ name = \"a\", address = \"127.0.0.1:25\" }]\n";
            let config = Config::parse(&format!("{head}{text}"), "c.toml").unwrap();
            let outlets = Outlets::new(&config.delivery, |_| unreachable!("no login here")).unwrap();
            let named: Vec<IpAddr> = named.iter().map(|text| text.parse().unwrap()).collect();
            gather(&named, &config, &outlets)
        };
        let text = "source = [{ name = \"a\", address = \"192.0.2.2\", ehlo_name = \"a.test\" }, \
                    { name = \"b\", socks5 = \"10.0.0.1:1080\" }, \
                    { name = \"c\", address = \"192.0.2.3\", haproxy = \"10.0.0.1:2525\" }]\n";
        let (named, unknown) = gathered(&["192.0.2.1"], text);
        assert!(matches!(&named[..], [Source { origin: Origin::CommandLine, .. }]) && unknown.is_empty(), "{named:?}");
        let (configured, unknown) = gathered(&[], text);
        let [a, c] = &configured[..] else { panic!("{configured:?}") };
        assert_eq!((a.ehlo_name.as_str(), &a.via.proxy, a.origin), ("a.test", &None, Origin::Config));
        assert_eq!((c.ehlo_name.as_str(), c.via.proxy.is_some()), ("mail.test", true));
        assert_eq!((unknown.len(), unknown[0].name.as_str()), (1, "b"));
        assert!(gathered(&[], "").0.iter().all(|source| source.origin == Origin::System));
    }

    #[test]
    fn the_way_to_ourselves_is_by_loopback() {
        assert_eq!(local_address("127.0.0.1:9"), Some("127.0.0.1".parse().unwrap()));
    }
}
