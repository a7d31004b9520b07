//! Sockets that listen, and the loop that accepts.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::connections::{Full, Ticket};
use super::session::Session;
use super::settings::{CertificateFiles, ListenerAuth, ListenerSettings, ListenerTakes, ListenerTls};
use crate::events::metric;
use crate::net::BoxStream;
use crate::net::tls_server::{self, CertificateError};

/// Connections that the kernel keeps for us before we accept. Full: it lets clients try again.
const BACKLOG: i32 = 1_024;
/// After an error of accept that the next try would meet again (no file handles), so long nothing is accepted.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(200);
const SERVER_FULL: &[u8] = b"421 4.3.2 Too many concurrent SMTP connections\r\n";
const CLIENT_FULL: &[u8] = b"421 4.7.0 Too many concurrent SMTP connections\r\n";

/// Why a listener cannot work. The texts name it and say what to do.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be bound.
    #[error("listener {name}: cannot listen on {address}: {source}; {advice}")]
    Bind {
        /// Its name in the config.
        name: String,
        /// Its address.
        address: SocketAddr,
        /// What to do.
        advice: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Its certificate or key cannot be used.
    #[error("listener {name}: {source}")]
    Certificate {
        /// Its name in the config.
        name: String,
        /// Which file, and why.
        source: CertificateError,
    },
}

/// TLS of a listener, loaded.
pub(super) enum TlsMode {
    None,
    StartTls(Arc<ServerConfig>),
    Implicit(Arc<ServerConfig>),
}

/// What sessions of a listener begin with.
pub(super) struct ListenerSpec {
    pub(super) name: Box<str>,
    pub(super) tls: TlsMode,
    pub(super) auth: ListenerAuth,
    pub(super) takes: ListenerTakes,
    open: metrics::Gauge,
    accepted: metrics::Counter,
    refused: metrics::Counter,
}

impl ListenerSpec {
    pub(super) fn load(settings: &ListenerSettings) -> Result<Self, ListenError> {
        let load = |files: &CertificateFiles| {
            tls_server::load(&files.certificate, &files.key)
                .map_err(|source| ListenError::Certificate { name: settings.name.clone(), source })
        };
        let tls = match &settings.tls {
            ListenerTls::None => TlsMode::None,
            ListenerTls::StartTls(files) => TlsMode::StartTls(load(files)?),
            ListenerTls::Implicit(files) => TlsMode::Implicit(load(files)?),
        };
        Ok(Self { tls, auth: settings.auth, takes: settings.takes, ..Self::plain(&settings.name) })
    }

    pub(super) fn plain(name: &str) -> Self {
        let shown = name.into();
        let name = name.to_owned();
        let total = |outcome| metrics::counter!(metric::CLIENT_CONNECTIONS_TOTAL, "listener" => name.clone(), "outcome" => outcome);
        Self {
            name: shown,
            tls: TlsMode::None,
            auth: ListenerAuth::default(),
            takes: ListenerTakes::default(),
            accepted: total("accepted"),
            refused: total("refused"),
            open: metrics::gauge!(metric::CLIENT_CONNECTIONS, "listener" => name),
        }
    }
}

/// An open listener. Dropped: its socket closes, its sessions go on.
pub(super) struct Listener {
    name: String,
    /// As configured: its port may be 0.
    address: SocketAddr,
    local: SocketAddr,
    spec: Arc<ArcSwap<ListenerSpec>>,
    stop: CancellationToken,
}

impl Listener {
    /// Begins to accept on `socket`.
    pub(super) fn open(
        settings: &ListenerSettings,
        spec: Arc<ListenerSpec>,
        socket: TcpListener,
        local: SocketAddr,
        shared: Arc<Shared>,
    ) -> Self {
        let listener = Self {
            name: settings.name.clone(),
            address: settings.address,
            local,
            spec: Arc::new(ArcSwap::new(spec)),
            stop: shared.draining.child_token(),
        };
        let tasks = shared.tasks.clone();
        let name = listener.name.clone();
        tasks.spawn(accept_loop(socket, name, Arc::clone(&listener.spec), shared, listener.stop.clone()));
        tracing::info!(listener = listener.name, address = %local, "listening");
        listener
    }

    /// Whether this listener is the one that `settings` ask for.
    pub(super) fn serves(&self, settings: &ListenerSettings) -> bool {
        self.address == settings.address && (self.address.port() != 0 || self.name == settings.name)
    }

    /// The same socket goes on with another name, TLS or certificate.
    pub(super) fn set_spec(&mut self, settings: &ListenerSettings, spec: Arc<ListenerSpec>) {
        self.name.clone_from(&settings.name);
        self.spec.store(spec);
    }

    pub(super) fn spec(&self) -> Arc<ListenerSpec> {
        self.spec.load_full()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Opens a socket that listens. An IPv6 address listens on IPv6 only; addresses of connections that just ended can be
/// bound again at once.
pub(super) fn bind(settings: &ListenerSettings) -> Result<(TcpListener, SocketAddr), ListenError> {
    open_socket(settings.address).map_err(|source| ListenError::Bind {
        name: settings.name.clone(),
        address: settings.address,
        advice: advice(&source),
        source,
    })
}

fn open_socket(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into())?;
    let local = listener.local_addr()?;
    Ok((listener, local))
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another program listens there: stop it (ss -ltnp names it) or set another address",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE, which the systemd unit grants: use it, or a port from 1024"
        }
        io::ErrorKind::AddrNotAvailable => "no interface of this host has that address: see `ip address`",
        _ => "see the system's message",
    }
}

/// Accepts until told to stop. Errors do not end it: of file handles there will be some again.
async fn accept_loop(
    socket: TcpListener,
    name: String,
    spec: Arc<ArcSwap<ListenerSpec>>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                if std::mem::take(&mut failing) {
                    tracing::info!(listener = name, "accepts connections again");
                }
                // Replies are one write each: waiting for more only delays them. Failing, it is slower.
                drop(stream.set_nodelay(true));
                serve_tcp(&shared, spec.load_full(), stream, peer);
            }
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!(listener = name, %error, "cannot accept connections; raise LimitNOFILE or lower connections_max");
                }
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    tracing::info!(listener = name, "closed");
}

/// The client was gone before we accepted.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

fn serve_tcp(shared: &Arc<Shared>, spec: Arc<ListenerSpec>, stream: TcpStream, peer: SocketAddr) {
    match enter(shared, &spec, peer) {
        Ok(ticket) => spawn(shared, spec, Box::new(stream), peer, ticket),
        Err(refusal) => {
            // Nothing was sent on this connection yet: its buffer takes one line, without a task that waits.
            drop(stream.try_write(refusal));
        }
    }
}

/// The same for a stream that came by another way.
pub(super) fn serve_stream(shared: &Arc<Shared>, spec: Arc<ListenerSpec>, mut stream: BoxStream, peer: SocketAddr) {
    match enter(shared, &spec, peer) {
        Ok(ticket) => spawn(shared, spec, stream, peer, ticket),
        Err(refusal) => {
            shared.tasks.spawn(async move {
                // The client may be gone: nothing to do about it.
                drop(stream.write_all(refusal).await);
            });
        }
    }
}

/// A place for the connection, or what to tell the client; nothing under implicit TLS, where it would not understand.
fn enter(shared: &Arc<Shared>, spec: &ListenerSpec, peer: SocketAddr) -> Result<Ticket, &'static [u8]> {
    let settings = shared.ports.settings.load();
    let (max, per_client_max) = (settings.connections_max, settings.connections_per_client_max);
    let full = match shared.connections.enter(peer.ip(), max, per_client_max) {
        Ok(ticket) => {
            spec.accepted.increment(1);
            return Ok(ticket);
        }
        Err(full) => full,
    };
    spec.refused.increment(1);
    metrics::counter!(metric::REFUSALS, "code" => "421").increment(1);
    tracing::debug!(client = %peer, ?full, "connection refused");
    Err(match (full, &spec.tls) {
        (_, TlsMode::Implicit(_)) => b"",
        (Full::Server, _) => SERVER_FULL,
        (Full::Client, _) => CLIENT_FULL,
    })
}

/// A task of its own, so that what ends a session ends only it.
fn spawn(shared: &Arc<Shared>, spec: Arc<ListenerSpec>, stream: BoxStream, peer: SocketAddr, ticket: Ticket) {
    let open = OpenGauge::new(&spec.open);
    let cut = shared.cut.child_token();
    let client = peer.ip().to_canonical();
    let session = Session::new(Arc::clone(shared), spec, stream, client, ticket.memory.clone());
    shared.tasks.spawn(async move {
        let _places = (ticket, open);
        tokio::select! {
            biased;
            () = cut.cancelled() => {}
            () = session.run() => {}
        }
    });
}

/// Counts an open connection, also when its session panics.
struct OpenGauge(metrics::Gauge);

impl OpenGauge {
    fn new(gauge: &metrics::Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge.clone())
    }
}

impl Drop for OpenGauge {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
