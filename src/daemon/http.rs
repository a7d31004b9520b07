//! A small bounded HTTP/1.1 server under the admin API, the metrics and the links that unsubscribe.
//!
//! Promises: at most so many connections of one server at a time as [`Limits`] says (more wait in the listen backlog), a handshake and a
//! head within [`HEAD_TIMEOUT`] each, buffers of at most [`BUFFER_BYTES_MAX`] a connection, and for strangers an end of each connection,
//! whatever they do. An accept error (no file handles left) pauses the loop instead of spinning. When [`serve`] returns, no connection is
//! left. Does not: decide who may connect, or bound the time of a handler.

use std::collections::HashMap;
use std::future::{Future, Ready, ready};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::events::metric;
use crate::net::client_of;

/// How much of a server there is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections served at once. Full: the next ones wait in the backlog of the listener.
    pub(super) connections_max: usize,
    /// Of one client (IPv6: its /64), where the listener names it. Above: they are closed at once, and counted.
    pub(super) per_client_max: usize,
    /// A connection has one request and this long for it, also to read the answer. `None`: as many requests as it likes.
    pub(super) single_request_max: Option<Duration>,
}

impl Limits {
    /// For those who operate the daemon.
    pub(super) const OPERATORS: Limits = Limits { connections_max: 32, per_client_max: 32, single_request_max: None };
}

/// A connection that sends no whole request head within this time is closed; so is an idle one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Read buffer of a connection, so the longest request head. Full: 431, and the connection ends.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Requests under way when the server stops have this long.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(2);

/// Where connections come from.
pub(super) trait Accept: Send {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// What makes the stream, in the task of the connection: a handshake, perhaps.
    type Opening: Future<Output = io::Result<Self::Stream>> + Send + 'static;
    /// Waits for the next connection; `Ok(None)` is a client that was turned away. Cancel-safe.
    fn accept(&mut self) -> impl Future<Output = io::Result<Option<Accepted<Self::Opening>>>> + Send;
}

/// A connection that has come.
pub(super) struct Accepted<O> {
    pub(super) opening: O,
    /// By whom its connections are counted; `None`: by nobody.
    pub(super) client: Option<IpAddr>,
}

impl<S> Accepted<Ready<io::Result<S>>> {
    /// Nothing is left to do before requests come, and nobody counts.
    pub(super) fn open(stream: S) -> Self {
        Self { opening: ready(Ok(stream)), client: None }
    }
}

/// Serves until `stop` is cancelled, then lets requests under way end. Not cancel-safe: ended by `stop` only.
pub(super) async fn serve<A: Accept>(mut listener: A, router: Router, limits: Limits, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(limits.connections_max));
    let clients = Arc::new(Clients::default());
    let (tracker, cut) = (TaskTracker::new(), CancellationToken::new());
    loop {
        let permit = Arc::clone(&permits).acquire_owned();
        let Some(Ok(permit)) = stop.run_until_cancelled(permit).await else {
            break;
        };
        let Accepted { opening, client } = match stop.run_until_cancelled(listener.accept()).await {
            None => break,
            Some(Ok(Some(accepted))) => accepted,
            Some(Ok(None)) => continue,
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = match client.map(|client| Clients::enter(&clients, client, limits.per_client_max)) {
            Some(None) => continue,
            place => place.flatten(),
        };
        let connection = converse(opening, router.clone(), limits.single_request_max, stop.clone());
        let cut = cut.clone();
        tracker.spawn(async move {
            cut.run_until_cancelled(connection).await;
            drop((permit, place));
        });
    }
    tracker.close();
    if tokio::time::timeout(STOP_GRACE, tracker.wait()).await.is_err() {
        tracing::info!(connections = tracker.len(), "HTTP requests cut off at stop");
        cut.cancel();
        tracker.wait().await;
    }
}

/// One connection, from its handshake to its end.
async fn converse<S>(
    opening: impl Future<Output = io::Result<S>>,
    router: Router,
    single_request_max: Option<Duration>,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = match tokio::time::timeout(HEAD_TIMEOUT, opening).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "HTTP connection not opened"),
        Err(_) => return tracing::debug!("HTTP connection not opened in time"),
    };
    let connection = serve_connection(stream, router, single_request_max.is_none(), stop);
    match single_request_max {
        None => connection.await,
        Some(time) => {
            if tokio::time::timeout(time, connection).await.is_err() {
                tracing::debug!("HTTP connection ended: it took too long");
            }
        }
    }
}

async fn serve_connection<S>(stream: S, router: Router, keeps_alive: bool, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(BUFFER_BYTES_MAX);
    server.keep_alive(keeps_alive);
    let service = TowerToHyperService::new(router);
    let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTP connection ended early");
    }
}

/// Open connections by client; one without any is not in it.
#[derive(Default)]
struct Clients(Mutex<HashMap<IpAddr, usize>>);

/// The place of a connection; free again when dropped.
struct Place {
    clients: Arc<Clients>,
    client: IpAddr,
}

impl Clients {
    fn enter(clients: &Arc<Clients>, address: IpAddr, max: usize) -> Option<Place> {
        let client = client_of(address);
        let mut counts = clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&client).copied().unwrap_or_default();
        if count >= max {
            metrics::counter!(metric::HTTP_REFUSED).increment(1);
            tracing::debug!(%client, "HTTP connection above the limit of its client");
            return None;
        }
        counts.insert(client, count + 1);
        Some(Place { clients: Arc::clone(clients), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(&self.client)),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[test]
    fn a_client_has_so_many_places_and_another_one_its_own() {
        let clients = Arc::new(Clients::default());
        let enter = |address: &str| Clients::enter(&clients, address.parse().unwrap(), 2);
        let first = enter("2001:db8::1").unwrap();
        let _second = enter("2001:db8::ffff:1").unwrap();
        assert!(enter("2001:db8::2").is_none(), "one customer has a /64");
        let other = enter("192.0.2.2").unwrap();
        drop((first, other));
        assert!(enter("2001:db8::2").is_some());
        assert_eq!(clients.0.lock().unwrap().len(), 1, "whoever left is forgotten");
    }

    /// A connection whose answers are longer than what lies between the two ends holds.
    fn connection(single_request_max: Option<Duration>) -> (tokio::io::DuplexStream, tokio::task::JoinHandle<()>) {
        let (ours, theirs) = duplex(1_000);
        let router = Router::new().route("/", get(|| async { "x".repeat(50_000) }));
        let opening = ready(Ok(theirs));
        (ours, tokio::spawn(converse(opening, router, single_request_max, CancellationToken::new())))
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_reads_no_answer_is_cut_off() {
        let (mut client, task) = connection(Some(Duration::from_secs(30)));
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        // Time stands still but for timers: only the limit can end it.
        tokio::time::timeout(Duration::from_secs(31), task).await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_of_a_stranger_has_one_request() {
        let (mut client, task) = connection(Some(Duration::from_secs(30)));
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut answers = String::new();
        client.read_to_string(&mut answers).await.unwrap();
        assert_eq!(answers.matches("HTTP/1.1 200").count(), 1);
        assert!(answers.contains("connection: close"), "{}", &answers[..200]);
        task.await.unwrap();
    }
}
