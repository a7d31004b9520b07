//! Connections by a proxy that has the address which mail is sent from: SOCKS5 (RFC 1928, RFC 1929) and the PROXY protocol.
//!
//! Promises: until the proxy has answered for itself, whatever goes wrong is its fault ([`ProxyFault`]); after that a timeout,
//! and what it says of the host, is the host's. Does not: set the limit of time ([`super::dial`] does).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use ppp::v2::{Builder, Command, Protocol, Version};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_socks::Error as SocksError;
use tokio_socks::tcp::Socks5Stream;

use super::egress::{Proxy, ProxyFault, ProxyLogin, Via};

/// Octets of the answer that chooses a method (RFC 1928 §3), and as many of the one to a login (RFC 1929 §2).
const ANSWER_BYTES: usize = 2;

/// Connects to `remote` by the proxy. `has_answered` is set once it is the host that is waited for.
pub(super) async fn connect(
    proxy: &Proxy,
    via: &Via,
    remote: SocketAddr,
    has_answered: &AtomicBool,
) -> io::Result<TcpStream> {
    match proxy {
        Proxy::Socks5 { address, login } => {
            let stream = reach(proxy, *address).await?;
            by_socks5(proxy, login.as_ref(), stream, remote, has_answered).await
        }
        Proxy::HaProxy { address } => {
            let header = header(via, remote)?;
            let mut stream = reach(proxy, *address).await?;
            stream.write_all(&header).await.map_err(|error| ProxyFault::error(proxy, error))?;
            has_answered.store(true, Ordering::Relaxed);
            Ok(stream)
        }
    }
}

async fn reach(proxy: &Proxy, address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await.map_err(|error| ProxyFault::error(proxy, error))?;
    stream.set_nodelay(true).map_err(|error| ProxyFault::error(proxy, error))?;
    Ok(stream)
}

/// The PROXY protocol's header, version 2 (<https://www.haproxy.org/download/1.8/doc/proxy-protocol.txt>, §2.2): TCP from the source,
/// any port, to the host.
fn header(via: &Via, remote: SocketAddr) -> io::Result<Vec<u8>> {
    let Some(source) = via.address else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a source behind haproxy needs an address"));
    };
    let addresses = (SocketAddr::new(source, 0), remote);
    Builder::with_addresses(Version::Two | Command::Proxy, Protocol::Stream, addresses).build()
}

async fn by_socks5(
    proxy: &Proxy,
    login: Option<&ProxyLogin>,
    stream: TcpStream,
    remote: SocketAddr,
    has_answered: &AtomicBool,
) -> io::Result<TcpStream> {
    let answers = if login.is_some() { 2 * ANSWER_BYTES } else { ANSWER_BYTES };
    let stream = Watched { stream, to_read: answers, has_answered };
    let connected = match login {
        Some(login) => {
            let (user, password) = (login.user(), login.password());
            Socks5Stream::connect_with_password_and_socket(stream, remote, user, password).await
        }
        None => Socks5Stream::connect_with_socket(stream, remote).await,
    };
    Ok(connected.map_err(|error| failure(proxy, error))?.into_inner().stream)
}

/// Whose failure it is (RFC 1928 §6).
fn failure(proxy: &Proxy, error: SocksError) -> io::Error {
    let of_host = |kind: io::ErrorKind| io::Error::new(kind, format!("{error} (says proxy {proxy})"));
    match error {
        SocksError::ConnectionRefused => of_host(io::ErrorKind::ConnectionRefused),
        SocksError::HostUnreachable => of_host(io::ErrorKind::HostUnreachable),
        SocksError::NetworkUnreachable => of_host(io::ErrorKind::NetworkUnreachable),
        SocksError::TtlExpired => of_host(io::ErrorKind::TimedOut),
        other => ProxyFault::error(proxy, other),
    }
}

/// Notes when the proxy has answered for itself.
struct Watched<'a> {
    stream: TcpStream,
    /// Octets that are missing until then.
    to_read: usize,
    has_answered: &'a AtomicBool,
}

impl AsyncRead for Watched<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = buf.filled().len().saturating_sub(before);
        self.to_read = self.to_read.saturating_sub(read);
        if self.to_read == 0 {
            self.has_answered.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Watched<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
