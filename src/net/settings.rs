//! What an administrator can set about the network. Validated by `daemon`; defaults are those of config.toml.example.

use std::net::SocketAddr;
use std::time::Duration;

/// DNS for routing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSettings {
    /// Servers to ask; empty: those of /etc/resolv.conf.
    pub servers: Vec<SocketAddr>,
    /// One question to one server.
    pub timeout: Duration,
    /// Questions before giving up.
    pub attempts: usize,
    /// Cached answers, all types together.
    pub cache_entries_max: usize,
    /// Shortest and longest time an answer is cached, whatever its TTL.
    pub ttl_min: Duration,
    /// See `ttl_min`.
    pub ttl_max: Duration,
    /// How long negative answers are cached at least.
    pub negative_ttl: Duration,
    /// How long past its time an answer may serve while the servers fail.
    pub stale_max: Duration,
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            timeout: Duration::from_secs(5),
            attempts: 2,
            cache_entries_max: 100_000,
            ttl_min: Duration::from_secs(30),
            ttl_max: Duration::from_secs(86_400),
            negative_ttl: Duration::from_secs(60),
            stale_max: Duration::from_secs(86_400),
        }
    }
}
