//! The [`Dialer`] of the real network: TCP by tokio.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

use super::{BoxFuture, BoxStream, Dialer, Via};

/// Opens TCP connections, with Nagle's algorithm off: the client writes whole batches.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDialer;

impl Dialer for TcpDialer {
    fn dial<'a>(&'a self, via: &'a Via, remote: SocketAddr, timeout: Duration) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let stream = match tokio::time::timeout(timeout, connect(via.address, remote)).await {
                Ok(connected) => connected?,
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            };
            Ok(Box::new(stream) as BoxStream)
        })
    }
}

async fn connect(local: Option<IpAddr>, remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(local) = local {
        bind(&socket, local, remote)?;
    }
    socket.set_nodelay(true)?;
    socket.connect(remote).await
}

fn bind(socket: &TcpSocket, local: IpAddr, remote: SocketAddr) -> io::Result<()> {
    if local.is_ipv4() != remote.is_ipv4() {
        let text = format!("source {local} and host {remote} are of different address families");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    socket.bind(SocketAddr::new(local, 0)).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot send from source {local}: {error} (is it an address of this host?)"),
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
