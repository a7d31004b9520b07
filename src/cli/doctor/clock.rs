//! The clock of this host against a time server: signatures, certificates and events carry the time.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::finding::{Check, Finding, Subject};
use super::world::{Looked, World};
use crate::net::sntp;
use crate::types::Domain;

/// For an answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Addresses of the server that are asked, one after the other, until one answers.
const ADDRESSES_ASKED_MAX: usize = 3;
/// Above, receivers may take signatures for signed in the future.
const OFFSET_WARNING_MS: u64 = 5_000;
/// Above, certificates and one-time passwords fail as well.
const OFFSET_ERROR_MS: u64 = 300_000;

pub(super) async fn check(world: &World) -> Vec<Finding> {
    let check = Check::new("clock", Subject::host(&world.setup.hostname));
    let server = &world.setup.time_server;
    vec![judge(&check, server, &ask(world, server).await)]
}

async fn ask(world: &World, server: &str) -> Result<i64, String> {
    let mut problem = "is no host name or address, with or without a port".to_owned();
    for address in addresses(world, server).await?.into_iter().take(ADDRESSES_ASKED_MAX) {
        match sntp::ask(address, world.clock.as_ref(), rand::random(), TIMEOUT).await {
            Ok(offset_ms) => return Ok(offset_ms),
            Err(error) => problem = error.to_string(),
        }
    }
    Err(problem)
}

/// IPv4 addresses first: more hosts have a way there.
async fn addresses(world: &World, server: &str) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = server.parse::<SocketAddr>() {
        return Ok(vec![address]);
    }
    if let Ok(address) = server.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, sntp::PORT)]);
    }
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| format!("{port} is no port"))?),
        None => (server, sntp::PORT),
    };
    let host = Domain::parse(host).map_err(|error| error.to_string())?;
    match world.addresses(&host).await {
        Looked::Found(mut found) => {
            found.sort_by_key(IpAddr::is_ipv6);
            Ok(found.into_iter().map(|address| SocketAddr::new(address, port)).collect())
        }
        Looked::Missing => Err("has no address".to_owned()),
        Looked::Unknown(reason) => Err(reason),
    }
}

fn judge(check: &Check, server: &str, offset_ms: &Result<i64, String>) -> Finding {
    let offset_ms = match offset_ms {
        Ok(offset_ms) => *offset_ms,
        Err(problem) => return check.note("no_answer", format!("{server}: {problem}")),
    };
    let distance_ms = offset_ms.unsigned_abs();
    let direction = if offset_ms < 0 { "behind" } else { "ahead of" };
    let seen = format!("{}.{:03} s {direction} {server}", distance_ms / 1_000, distance_ms % 1_000);
    let advice = "let the system keep its time: systemd-timesyncd, chrony or ntpd";
    if distance_ms > OFFSET_ERROR_MS {
        check.error("far_off", seen).advice(advice)
    } else if distance_ms > OFFSET_WARNING_MS {
        check.warning("off", seen).advice(advice)
    } else {
        check.ok(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_a_warning_and_minutes_an_error() {
        let check = Check::new("clock", Subject::listener("x"));
        for (offset_ms, code) in [
            (Ok(0), "ok"),
            (Ok(-4_999), "ok"),
            (Ok(5_001), "off"),
            (Ok(-300_000), "off"),
            (Ok(300_001), "far_off"),
            (Ok(i64::MIN), "far_off"),
            (Err("timed out".to_owned()), "no_answer"),
        ] {
            assert_eq!(judge(&check, "time.test", &offset_ms).code, code, "{offset_ms:?}");
        }
        assert_eq!(judge(&check, "time.test", &Ok(-6_042)).seen, "6.042 s behind time.test");
    }
}
