//! Whether mail gets out: from each source to the best mail host of well-known domains, up to its greeting.
//!
//! Nothing is sent but QUIT. Many hosting providers shut port 25 until they are asked.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::finding::{Check, Finding, Subject};
use super::setup::{Origin, Source};
use super::world::{Looked, World};
use crate::net::dial::TcpDialer;
use crate::net::{BoxStream, Dialer, Via};
use crate::smtp::client::ReplyParser;
use crate::types::{Domain, Severity};

/// For a greeting, once connected.
const GREETING_TIMEOUT: Duration = Duration::from_secs(20);
/// Addresses of a mail host that are tried, one after the other, until one connects.
const ADDRESSES_TRIED_MAX: usize = 2;
/// Octets of one read.
const READ_BYTES: usize = 2_048;

/// What became of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reach {
    /// It greeted, with 220.
    Open { host: String },
    /// It greeted otherwise: the port is open, and mail is not welcome.
    Refused { host: String, reply: String },
    /// No connection, or no greeting.
    Shut { host: String, problem: String },
    /// It has no address of the family of the source.
    OtherFamily,
    /// DNS does not tell where it is.
    Unknown(String),
}

pub(super) async fn check(world: &World, source: &Source) -> Vec<Finding> {
    let check = Check::new("port25", Subject::source(source.address));
    if let Some(host) = &world.setup.smart_host {
        let seen = format!("a route sends all mail to {host}: other mail hosts are not asked");
        return vec![check.note("routed", seen)];
    }
    let mut reached = Vec::new();
    for probe in &world.setup.probes {
        reached.push((probe.clone(), reach(world, source, probe).await));
    }
    judge(&check, world.setup.port, &reached)
}

async fn reach(world: &World, source: &Source, probe: &Domain) -> Reach {
    let host = match world.mx(probe).await {
        Looked::Found(records) => match records.into_iter().next().and_then(|mx| mx.host) {
            Some(host) => host,
            None => return Reach::Unknown("takes no mail (null MX)".to_owned()),
        },
        Looked::Missing => probe.clone(),
        Looked::Unknown(reason) => return Reach::Unknown(reason),
    };
    let addresses = match world.addresses(&host).await {
        Looked::Found(addresses) => addresses,
        Looked::Missing => return Reach::Unknown(format!("{host} has no address")),
        Looked::Unknown(reason) => return Reach::Unknown(reason),
    };
    let addresses = addresses.into_iter().filter(|address| address.is_ipv4() == source.address.is_ipv4());
    let mut result = Reach::OtherFamily;
    for address in addresses.take(ADDRESSES_TRIED_MAX) {
        let remote = SocketAddr::new(address, world.setup.port);
        let host = format!("{host} ({address})");
        result = match connect(source, remote, world.setup.connect_timeout).await {
            Ok(stream) => return greeting(stream, host).await,
            Err(error) => Reach::Shut { host, problem: error.to_string() },
        };
    }
    result
}

/// A source that was named on the command line may be one that a router puts in the place of ours.
async fn connect(source: &Source, remote: SocketAddr, timeout: Duration) -> std::io::Result<BoxStream> {
    match TcpDialer.dial(&source.via, remote, timeout).await {
        Err(error) if source.origin == Origin::CommandLine && error.kind() == std::io::ErrorKind::AddrNotAvailable => {
            TcpDialer.dial(&Via::default(), remote, timeout).await
        }
        result => result,
    }
}

async fn greeting(mut stream: BoxStream, host: String) -> Reach {
    let reply = match tokio::time::timeout(GREETING_TIMEOUT, read_reply(&mut stream)).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(problem)) => return Reach::Shut { host, problem },
        Err(_) => return Reach::Shut { host, problem: "connected, and no greeting came".to_owned() },
    };
    // Politeness: it does not matter whether it arrives.
    let _ = stream.write_all(b"QUIT\r\n").await;
    match reply.severity() {
        Severity::Positive => Reach::Open { host },
        _ => Reach::Refused { host, reply: reply.text() },
    }
}

async fn read_reply(stream: &mut BoxStream) -> Result<crate::types::Reply, String> {
    let mut parser = ReplyParser::new();
    let mut buffer = [0; READ_BYTES];
    loop {
        let count = stream.read(&mut buffer).await.map_err(|error| error.to_string())?;
        parser.push(buffer.get(..count).unwrap_or_default());
        let next = if count == 0 { parser.at_end() } else { parser.next_reply().map_err(|error| error.to_string())? };
        match next {
            Some(reply) => return Ok(reply),
            None if count == 0 => return Err("connected, and it was closed without a greeting".to_owned()),
            None => {}
        }
    }
}

fn judge(check: &Check, port: u16, reached: &[(Domain, Reach)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut shut = Vec::new();
    let mut open = Vec::new();
    for (probe, reach) in reached {
        match reach {
            Reach::Open { host } => open.push(format!("{probe} by {host}")),
            Reach::Refused { host, reply } => {
                open.push(format!("{probe} by {host}"));
                let finding = check.warning("refused", format!("{host} greets with {reply}")).item(probe);
                findings.push(finding.advice("see what the reply says: the source may be on a block list"));
            }
            Reach::Shut { host, problem } => shut.push(format!("{probe} by {host}: {problem}")),
            Reach::OtherFamily => {
                let seen = "has no address of this family: not asked";
                findings.push(check.note("other_family", format!("{probe} {seen}")).item(probe));
            }
            Reach::Unknown(reason) => findings.push(check.unknown(reason).item(probe)),
        }
    }
    if !shut.is_empty() {
        let seen = format!("port {port}: {}", shut.join("; "));
        findings.push(match open.is_empty() {
            true => check.error("shut", seen).advice("ask your hosting provider, or your firewall, to let port 25 out"),
            false => check.warning("partly_shut", seen).advice("see whether the way there is blocked"),
        });
    } else if !open.is_empty() && findings.iter().all(|finding| finding.code != "refused") {
        findings.push(check.ok(format!("port {port} reaches {}", open.join(", "))));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shut_is_an_error_and_some_a_warning() {
        let open = || Reach::Open { host: "mx.test".to_owned() };
        let shut = || Reach::Shut { host: "mx.test".to_owned(), problem: "timed out".to_owned() };
        let refused = || Reach::Refused { host: "mx.test".to_owned(), reply: "554 5.7.1 blocked".to_owned() };
        let unknown = || Reach::Unknown("SERVFAIL".to_owned());
        let check = Check::new("port25", Subject::listener("x"));
        for (reached, codes) in [
            (vec![open(), open()], vec!["ok"]),
            (vec![shut(), shut()], vec!["shut"]),
            (vec![open(), shut()], vec!["partly_shut"]),
            (vec![refused(), shut()], vec!["refused", "partly_shut"]),
            (vec![refused(), open()], vec!["refused"]),
            (vec![Reach::OtherFamily, open()], vec!["other_family", "ok"]),
            (vec![unknown(), shut()], vec!["unknown", "shut"]),
            (vec![unknown(), unknown()], vec!["unknown", "unknown"]),
            (vec![], vec![]),
        ] {
            let probe = Domain::parse("probe.test").unwrap();
            let reached: Vec<_> = reached.into_iter().map(|reach| (probe.clone(), reach)).collect();
            let findings = judge(&check, 25, &reached);
            assert_eq!(findings.iter().map(|finding| finding.code).collect::<Vec<_>>(), codes, "{reached:?}");
        }
    }
}
