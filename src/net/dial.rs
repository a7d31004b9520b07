//! The [`Dialer`] of the real network: TCP by tokio, from here or by a proxy.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

use super::egress::ProxyFault;
use super::{BoxFuture, BoxStream, Dialer, Via, proxy};

/// Opens TCP connections, with Nagle's algorithm off: the client writes whole batches.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDialer;

impl Dialer for TcpDialer {
    fn dial<'a>(&'a self, via: &'a Via, remote: SocketAddr, timeout: Duration) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let has_answered = AtomicBool::new(via.proxy.is_none());
            match tokio::time::timeout(timeout, connect(via, remote, &has_answered)).await {
                Ok(connected) => Ok(Box::new(connected?) as BoxStream),
                Err(_) => Err(timed_out(via, has_answered.load(Ordering::Relaxed))),
            }
        })
    }
}

fn timed_out(via: &Via, has_answered: bool) -> io::Error {
    match &via.proxy {
        Some(proxy) if !has_answered => ProxyFault::error(proxy, "timed out"),
        _ => io::ErrorKind::TimedOut.into(),
    }
}

async fn connect(via: &Via, remote: SocketAddr, has_answered: &AtomicBool) -> io::Result<TcpStream> {
    if let Some(source) = via.address.filter(|source| source.is_ipv4() != remote.is_ipv4()) {
        let text = format!("source {source} and host {remote} are of different address families");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    if let Some(proxy) = &via.proxy {
        return proxy::connect(proxy, via, remote, has_answered).await;
    }
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = via.address {
        bind(&socket, source)?;
    }
    socket.set_nodelay(true)?;
    socket.connect(remote).await
}

fn bind(socket: &TcpSocket, source: IpAddr) -> io::Result<()> {
    socket.bind(SocketAddr::new(source, 0)).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot send from source {source}: {error} (is it an address of this host?)"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_connection_comes_from_the_source_it_was_given() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let remote = listener.local_addr().unwrap();
        let via = Via::direct(Some("127.0.0.2".parse().unwrap()));
        let dial = TcpDialer.dial(&via, remote, PATIENCE);
        let (stream, accepted) = tokio::join!(dial, listener.accept());
        let (mut server, peer) = accepted.unwrap();
        assert_eq!(peer.ip().to_string(), "127.0.0.2");
        server.write_all(b"220").await.unwrap();
        drop(server);
        let mut text = String::new();
        stream.unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "220");
    }

    #[tokio::test]
    async fn a_source_that_is_not_ours_or_not_fit_is_named_in_the_error() {
        let remote = "127.0.0.1:9".parse().unwrap();
        for (source, kind) in [("192.0.2.77", io::ErrorKind::AddrNotAvailable), ("::1", io::ErrorKind::InvalidInput)] {
            let Err(error) = TcpDialer.dial(&Via::direct(Some(source.parse().unwrap())), remote, PATIENCE).await else {
                panic!("{source} was accepted");
            };
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains(source), "{error}");
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let remote = listener.local_addr().unwrap();
        drop(listener);
        let Err(error) = TcpDialer.dial(&Via::default(), remote, PATIENCE).await else { panic!("connected to nobody") };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
