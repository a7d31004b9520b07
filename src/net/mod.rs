//! Ports to the network, and their adapters: DNS by hickory, TCP by tokio, TLS by rustls.
//!
//! The ports are traits, so that a simulation answers names from data and dials in-memory peers.

pub mod certificate;
pub mod dial;
pub mod dns;
pub mod egress;
mod proxy;
pub mod settings;
pub mod sntp;
pub mod spf;
pub mod tls_client;
pub mod tls_server;

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

pub use egress::Via;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::types::{Domain, Timestamp};

/// A future behind a port.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What both TCP and TLS streams, and in-memory ones, can do.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for T {}

/// Any stream.
pub type BoxStream = Box<dyn Stream>;

/// Who a client is, for limits: an IPv4 address, or the /64 of an IPv6 one: that is what one customer has.
pub fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Opens connections to MX hosts.
pub trait Dialer: Send + Sync + 'static {
    /// Connects to `remote` by `via`. `ErrorKind::TimedOut` after `timeout`, for all of it. What a proxy is to blame for, and
    /// not the host, is an [`egress::ProxyFault`]. Cancel-safe: the connection is closed.
    fn dial<'a>(&'a self, via: &'a Via, remote: SocketAddr, timeout: Duration) -> BoxFuture<'a, io::Result<BoxStream>>;
}

/// One MX record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mx {
    /// Lower is tried first.
    pub preference: u16,
    /// `None` for the root, `.`, of a null MX (RFC 7505).
    pub host: Option<Domain>,
}

/// An answer and how long it may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// The records; empty for NODATA (the name exists, the type does not).
    pub records: Vec<T>,
    /// When the answer must be asked for again.
    pub expires_at: Timestamp,
    /// The cache was past its time and the servers failed (RFC 8767).
    pub stale: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// NXDOMAIN: an authoritative server says that the name does not exist.
    #[error("domain {0} does not exist (NXDOMAIN)")]
    NoSuchDomain(Domain),
    /// SERVFAIL, REFUSED, timeout, unreachable, bogus: nobody knows.
    #[error("DNS lookup of {name} failed: {reason}")]
    Failed {
        /// What was asked for.
        name: Domain,
        /// In the words of the resolver.
        reason: String,
    },
}

/// Answers questions of routing. Implementations cache, bound their cache, and coalesce equal questions in flight.
pub trait Resolver: Send + Sync + 'static {
    /// MX records of `domain`, in no particular order.
    fn mx<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Result<Answer<Mx>, DnsError>>;

    /// A and AAAA records of `host`, CNAMEs followed.
    fn addresses<'a>(&'a self, host: &'a Domain) -> BoxFuture<'a, Result<Answer<IpAddr>, DnsError>>;
}
