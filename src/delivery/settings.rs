//! What an administrator can set about delivery. Validated by `daemon`; defaults are those of config.toml.example.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::pools::{Family, Pools, PoolsError};
use crate::policy::warmup::Warmups;
use crate::types::{Domain, PoolName, SourceName};

/// How much TLS a connection to a next hop needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsMode {
    /// Never ask for STARTTLS.
    None,
    /// STARTTLS where offered, certificate not checked; a failed handshake is followed by a new clear connection.
    Opportunistic,
    /// STARTTLS, certificate not checked, or no delivery: what a configuration set of SES calls "require".
    Encrypt,
    /// STARTTLS with a valid certificate for the host name, or no delivery.
    Require,
}

impl TlsMode {
    /// For a message that must not go in clear.
    #[must_use]
    pub const fn encrypted(self) -> Self {
        match self {
            TlsMode::None | TlsMode::Opportunistic | TlsMode::Encrypt => TlsMode::Encrypt,
            TlsMode::Require => TlsMode::Require,
        }
    }
}

/// Where mail for some domains goes, instead of to their MX hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRule {
    /// Which recipient domains.
    pub domains: DomainPattern,
    /// The next hop: a host name (its A and AAAA records are asked for, never MX) or an address.
    pub host: NextHop,
    /// TCP port.
    pub port: u16,
    /// TLS with this hop.
    pub tls: TlsMode,
    /// SMTP AUTH with this hop.
    pub login: Option<Login>,
}

/// The next hop of a route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NextHop {
    /// Looked up.
    Host(Domain),
    /// Used as it stands.
    Address(IpAddr),
}

/// Which domains a route takes; the first matching route wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainPattern {
    /// `*`.
    All,
    /// These exact domains, and, for entries written as `.example.com`, the subdomains.
    Listed {
        /// Exact names.
        exact: Vec<Domain>,
        /// Parents whose subdomains match.
        parents: Vec<Domain>,
    },
}

/// User name, and the file whose first line is the password (so that it is not in the config).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Login {
    /// SASL authentication identity.
    pub user: String,
    /// Mode 0600; read at start and at reload.
    pub password_file: PathBuf,
}

/// What mail is sent from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Its name, in pools, lanes and events.
    pub name: SourceName,
    /// The address that hosts see; `None`: the system or the proxy chooses.
    pub address: Option<IpAddr>,
    /// What it says in EHLO; `None`: [`Settings::hostname`].
    pub ehlo_name: Option<Domain>,
    /// The way out.
    pub egress: Egress,
}

/// How a connection leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Egress {
    /// From this machine.
    #[default]
    Direct,
    /// By CONNECT of a SOCKS5 proxy (RFC 1928), which sends from an address that it was told.
    Socks5 {
        /// Where it listens.
        proxy: SocketAddr,
        /// User name and password (RFC 1929).
        login: Option<Login>,
    },
    /// By a proxy that takes source and destination from a PROXY protocol header, version 2.
    HaProxy {
        /// Where it listens.
        proxy: SocketAddr,
    },
}

impl Source {
    /// An address of this machine, named by itself.
    pub fn of_address(address: IpAddr) -> Self {
        Self { name: SourceName::of_address(address), address: Some(address), ..Self::default() }
    }

    /// Which hosts it reaches.
    pub const fn family(&self) -> Family {
        Family::of(self.address)
    }
}

/// The mailbox simulator in this process: takes the mail for its domain before any route and any DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Simulated {
    /// Exactly this domain, none below it.
    pub domain: Domain,
    /// Where it listens: a loopback address.
    pub address: SocketAddr,
}

/// Delivery as a whole.
#[derive(Clone, Debug)]
pub struct Settings {
    /// EHLO name.
    pub hostname: String,
    /// Port of MX hosts: 25, except in labs.
    pub port: u16,
    /// What mail is sent from: at least one, names and ways differ.
    pub sources: Vec<Source>,
    /// Pools of them.
    pub pools: Arc<Pools>,
    /// Who warms up, by which plan.
    pub warmup: Arc<Warmups>,
    /// Routes, first match wins.
    pub routes: Vec<RouteRule>,
    /// Where there is one.
    pub simulated: Option<Simulated>,
    /// TLS with MX hosts.
    pub tls: TlsMode,
    /// MX hosts with loopback, private or unspecified addresses are skipped unless this is set (labs).
    pub allow_private_addresses: bool,
    /// Open connections in all.
    pub connections_max: usize,
    /// Open connections to one site.
    pub connections_per_site_max: usize,
    /// Lanes (sources at sites) in memory.
    pub lanes_max: usize,
    /// Messages on one connection before it is closed.
    pub messages_per_connection_max: u32,
    /// Recipients in one transaction.
    pub recipients_per_transaction_max: usize,
    /// Addresses tried for one delivery attempt.
    pub addresses_per_attempt_max: usize,
    /// An unused connection is kept this long.
    pub idle_timeout: Duration,
    /// A connection is closed at this age.
    pub connection_age_max: Duration,
    /// Timeouts of the client.
    pub timeouts: Timeouts,
    /// A host whose STARTTLS handshake failed is greeted in clear for this long.
    pub clear_memory: Duration,
}

/// Phases of a delivery (RFC 5321 §4.5.3.2 gives the least values for a patient client; a busy one waits less, except
/// for the final dot, where impatience makes duplicates).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP connect.
    pub connect: Duration,
    /// Greeting.
    pub greeting: Duration,
    /// EHLO, MAIL, RCPT, DATA, RSET, STARTTLS and the TLS handshake.
    pub command: Duration,
    /// Each write of message data.
    pub data: Duration,
    /// The reply to the final dot.
    pub final_dot: Duration,
    /// QUIT.
    pub quit: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            greeting: Duration::from_secs(120),
            command: Duration::from_secs(120),
            data: Duration::from_secs(180),
            final_dot: Duration::from_secs(600),
            quit: Duration::from_secs(5),
        }
    }
}

impl Settings {
    /// Mail for the simulator's domain goes there, by a pool and a source of its own: so it uses up nothing of what others may send.
    /// An error: the config has a pool or a source of that name.
    pub fn simulate(&mut self, simulated: Simulated) -> Result<(), PoolsError> {
        let source = SourceName::simulator();
        self.pools = Arc::new(self.pools.with_pool(PoolName::simulator(), source.clone())?);
        self.sources.push(Source { name: source, ..Source::default() });
        self.simulated = Some(simulated);
        Ok(())
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            port: 25,
            sources: vec![Source::default()],
            pools: Arc::default(),
            warmup: Arc::default(),
            routes: Vec::new(),
            simulated: None,
            tls: TlsMode::Opportunistic,
            allow_private_addresses: false,
            connections_max: 1_000,
            connections_per_site_max: 10,
            lanes_max: 100_000,
            messages_per_connection_max: 100,
            recipients_per_transaction_max: 50,
            addresses_per_attempt_max: 5,
            idle_timeout: Duration::from_secs(10),
            connection_age_max: Duration::from_secs(300),
            timeouts: Timeouts::default(),
            clear_memory: Duration::from_secs(3 * 86_400),
        }
    }
}
