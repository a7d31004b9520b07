//! A small bounded HTTP/1.1 server under the admin API and the metrics.
//!
//! Promises: at most [`CONNECTIONS_MAX`] connections of one server at a time (more wait in the listen backlog), a head
//! within [`HEAD_TIMEOUT`], buffers of at most [`BUFFER_BYTES_MAX`] a connection. An accept error (no file handles left)
//! pauses the loop instead of spinning. Does not: decide who may connect, or bound the time of a handler.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections served at once. Full: the next ones wait in the backlog of the listener.
const CONNECTIONS_MAX: usize = 32;
/// A connection that sends no whole request head within this time is closed; so is an idle one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Read buffer of a connection, so the longest request head. Full: 431, and the connection ends.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Requests under way when the server stops have this long.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Where connections come from. `Ok(None)` is a client that was turned away.
pub(super) trait Accept: Send {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Waits for the next connection. Cancel-safe.
    fn accept(&mut self) -> impl Future<Output = io::Result<Option<Self::Stream>>> + Send;
}

/// Serves until `stop` is cancelled, then lets requests under way end. Not cancel-safe: ended by `stop` only.
pub(super) async fn serve<A: Accept>(mut listener: A, router: Router, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let tracker = TaskTracker::new();
    loop {
        let permit = Arc::clone(&permits).acquire_owned();
        let Some(Ok(permit)) = stop.run_until_cancelled(permit).await else {
            break;
        };
        let stream = match stop.run_until_cancelled(listener.accept()).await {
            None => break,
            Some(Ok(Some(stream))) => stream,
            Some(Ok(None)) => continue,
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let router = router.clone();
        let stop = stop.clone();
        tracker.spawn(async move {
            serve_connection(stream, router, stop).await;
            drop(permit);
        });
    }
    tracker.close();
    if tokio::time::timeout(STOP_GRACE, tracker.wait()).await.is_err() {
        tracing::info!(connections = tracker.len(), "HTTP requests cut off at stop");
    }
}

async fn serve_connection<S>(stream: S, router: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(BUFFER_BYTES_MAX);
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
