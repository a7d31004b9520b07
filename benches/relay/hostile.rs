//! Hostile clients beside the load: connections that are held with half a command, half a message or half a handshake, and a
//! storm of TLS handshakes. The storm plays back the first message of a handshake, so that it costs the server its
//! key exchange and signature, and the benchmark next to nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::failure::{Context, Result};

/// Between two octets of a client that sends a command octet by octet.
const TRICKLE: Duration = Duration::from_secs(5);
/// Handshakes under way at any time.
const STORM: usize = 8;
/// Hosts that the connections come from.
const HOSTS: u32 = 50;
/// The head of a TLS handshake.
const HALF_HANDSHAKE: &[u8] = &[22, 3, 1, 2, 0, 1];
const HALF_MESSAGE: &[u8] =
    b"EHLO slow.test\r\nMAIL FROM:<a@slow.test>\r\nRCPT TO:<b@one.bench.test>\r\nDATA\r\nSubject: never en";

/// Where the server listens.
#[derive(Clone, Copy)]
pub(crate) struct Targets {
    /// In clear.
    pub(crate) clear: SocketAddr,
    /// With TLS from the first octet.
    pub(crate) implicit: SocketAddr,
}

/// Held connections, and the storm; all end with the value.
pub(crate) struct Hostile {
    clients: JoinSet<()>,
    targets: Targets,
    handshakes: Arc<AtomicU64>,
}

impl Hostile {
    /// Opens `count` connections that are held in four ways, one after the other.
    pub(crate) async fn hold(targets: Targets, count: u32) -> Result<Self> {
        let mut clients = JoinSet::new();
        for number in 0..count {
            let address = if number % 4 == 3 { targets.implicit } else { targets.clear };
            let mut stream = connect(number, address).await.context(|| format!("hostile connection {number}"))?;
            clients.spawn(async move {
                let outcome = match number % 4 {
                    0 => trickle(&mut stream).await,
                    1 => stream.write_all(HALF_MESSAGE).await,
                    2 => stream.write_all(b"EHLO slow.test\r\nSTARTTLS\r\n").await,
                    _ => stream.write_all(HALF_HANDSHAKE).await,
                };
                if outcome.is_ok() {
                    std::future::pending::<()>().await;
                }
            });
        }
        Ok(Self { clients, targets, handshakes: Arc::default() })
    }

    /// Begins the storm.
    pub(crate) fn storm(&mut self) -> Result<()> {
        let hello: Arc<[u8]> = first_flight().context(|| "a TLS handshake".to_owned())?.into();
        for number in 0..STORM {
            let (hello, handshakes, address) =
                (Arc::clone(&hello), Arc::clone(&self.handshakes), self.targets.implicit);
            self.clients.spawn(async move {
                loop {
                    // What the server makes of it is its business; without an answer it was no handshake.
                    if handshake(u32::try_from(number).unwrap_or(0), address, &hello).await.is_ok() {
                        handshakes.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        Ok(())
    }

    /// Handshakes that the server answered so far.
    pub(crate) fn handshakes(&self) -> u64 {
        self.handshakes.load(Ordering::Relaxed)
    }

    /// Connections that are still held.
    pub(crate) fn held(&mut self) -> usize {
        while self.clients.try_join_next().is_some() {}
        self.clients.len()
    }
}

async fn connect(number: u32, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let host = u8::try_from(number % HOSTS).unwrap_or(0);
    socket.bind(SocketAddr::from(([127, 99, 0, host], 0)))?;
    socket.connect(address).await
}

async fn trickle(stream: &mut TcpStream) -> io::Result<()> {
    for octet in b"EHLO ".iter().chain(std::iter::repeat_n(&b'x', 1_000)) {
        stream.write_all(&[*octet]).await?;
        sleep(TRICKLE).await;
    }
    Ok(())
}

async fn handshake(number: u32, address: SocketAddr, hello: &[u8]) -> io::Result<()> {
    let mut stream = connect(number, address).await?;
    stream.write_all(hello).await?;
    let mut answer = [0; 4_096];
    // Any answer to it comes after the server's work.
    if stream.read(&mut answer).await? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// What a client sends first.
fn first_flight() -> io::Result<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("mta.bench.test").map_err(io::Error::other)?;
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut octets = Vec::new();
    connection.write_tls(&mut octets)?;
    Ok(octets)
}
