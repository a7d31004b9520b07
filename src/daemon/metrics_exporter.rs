//! The Prometheus listener: every name of `events::metric` with its help, unit and buckets, at `GET /metrics`.
//!
//! Promises: nothing is recorded where no address is configured; an address that cannot be bound is an error at start;
//! connections and request heads are bounded (see `daemon::http`). Does not: authenticate. Bind it to a loopback address
//! or guard it.

use std::future::Ready;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use metrics::Unit;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::daemon::http::{self, Accept, Accepted, Limits};
use crate::events::metric;

/// Histograms are folded into their buckets this often, so that samples do not pile up between two scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Seconds of local work: 0.1 ms to 30 s.
const SHORT_SECONDS: [f64; 17] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Seconds of deliveries: 50 ms to the longest lifetime anyone sets.
const LONG_SECONDS: [f64; 16] =
    [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0, 345_600.0];
/// Operations in a batch.
const BATCH_SIZES: [f64; 13] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0, 4_096.0];

/// The histograms and their buckets.
const BUCKETS: [(&str, &[f64]); 4] = [
    (metric::ACCEPT_SECONDS, &SHORT_SECONDS),
    (metric::COMMIT_SECONDS, &SHORT_SECONDS),
    (metric::DELIVERY_SECONDS, &LONG_SECONDS),
    (metric::COMMIT_OPERATIONS, &BATCH_SIZES),
];

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Every metric: name, kind, unit, help. `docs/OPERATIONS.md` has the same table; a test holds both together.
const METRICS: [(&str, Kind, Unit, &str); 66] = [
    (metric::MESSAGES_ACCEPTED, Kind::Counter, Unit::Count, "Messages answered 250."),
    (metric::RECIPIENTS_ACCEPTED, Kind::Counter, Unit::Count, "Recipients of accepted messages."),
    (metric::REFUSALS, Kind::Counter, Unit::Count, "Refusals sent to clients, by reply code."),
    (metric::QUOTA_REFUSALS, Kind::Counter, Unit::Count, "454s for a quota, by scope (what has it) and limit."),
    (metric::DKIM_SIGNATURES, Kind::Counter, Unit::Count, "DKIM signatures made, by algorithm."),
    (metric::QUOTA_RECIPIENTS, Kind::Gauge, Unit::Count, "Recipients of the last 24 hours, of all senders."),
    (metric::QUOTA_SHARE, Kind::Gauge, Unit::Count, "Largest used share of a daily limit, by scope; 1 is all of it."),
    (metric::CLIENT_CONNECTIONS, Kind::Gauge, Unit::Count, "Open client connections, by listener."),
    (metric::CLIENT_CONNECTIONS_TOTAL, Kind::Counter, Unit::Count, "Client connections, by listener and outcome."),
    (
        metric::TLS_HANDSHAKES_HELD_UP,
        Kind::Counter,
        Unit::Count,
        "TLS handshakes of clients whose handshakes lead to nothing: waited or refused.",
    ),
    (metric::AUTH_ATTEMPTS, Kind::Counter, Unit::Count, "Attempts to log in, by outcome."),
    (metric::AUTH_CACHE, Kind::Counter, Unit::Count, "Logins whose secret was known to be right (hit) or not (miss)."),
    (metric::AUTH_WAITING, Kind::Gauge, Unit::Count, "Verifications of secrets that run or wait for a core."),
    (metric::ACCEPT_SECONDS, Kind::Histogram, Unit::Seconds, "From the final dot of a client to the durable commit."),
    (metric::COMMIT_OPERATIONS, Kind::Histogram, Unit::Count, "Operations in one commit batch."),
    (metric::COMMIT_SECONDS, Kind::Histogram, Unit::Seconds, "One store write, synced or not."),
    (metric::STORE_ERRORS, Kind::Counter, Unit::Count, "Errors of the store; any is an alarm."),
    (metric::DAMAGED_RECORDS, Kind::Counter, Unit::Count, "Records that could not be read; any is an alarm."),
    (metric::QUEUE_MESSAGES, Kind::Gauge, Unit::Count, "Messages in the queue."),
    (metric::QUEUE_DELIVERIES, Kind::Gauge, Unit::Count, "Deliveries (message and destination domain) not yet ended."),
    (metric::QUEUE_OLDEST_AGE, Kind::Gauge, Unit::Seconds, "Age of the oldest message."),
    (metric::QUEUE_FREE_BYTES, Kind::Gauge, Unit::Bytes, "Free bytes of the queue's file system."),
    (metric::READY_DELIVERIES, Kind::Gauge, Unit::Count, "Deliveries due now, in memory."),
    (metric::SITES, Kind::Gauge, Unit::Count, "Sites known."),
    (metric::SITES_BEHIND, Kind::Gauge, Unit::Count, "Sites with more due deliveries than their share of memory."),
    (metric::OUTBOUND_CONNECTIONS, Kind::Gauge, Unit::Count, "Open connections to MX hosts."),
    (metric::OUTBOUND_CONNECTIONS_TOTAL, Kind::Counter, Unit::Count, "Connection attempts to MX hosts, by outcome."),
    (metric::READY_BY_PRIORITY, Kind::Gauge, Unit::Count, "Deliveries ready at their sites, in memory, by priority."),
    (metric::LANES, Kind::Gauge, Unit::Count, "Lanes (sources at sites) in memory, by source and provider."),
    (metric::LANES_HELD_BACK, Kind::Gauge, Unit::Count, "Lanes that are held back, by source, provider and state."),
    (
        metric::POOL_BLOCKED_SITES,
        Kind::Gauge,
        Unit::Count,
        "Sites at which all sources of a pool are blocked, by pool.",
    ),
    (metric::LANE_CHANGES, Kind::Counter, Unit::Count, "Changes of lanes, by kind."),
    (metric::WARMUP_CHANGES, Kind::Counter, Unit::Count, "Changes of warm-ups, by kind."),
    (metric::WARMUP_LANES, Kind::Gauge, Unit::Count, "Lanes that warm up, by source, provider and mode."),
    (metric::WARMUP_CAP, Kind::Gauge, Unit::Count, "Messages that warm-ups allow today, by source and provider."),
    (metric::WARMUP_USED, Kind::Gauge, Unit::Count, "Of those, sent, by source and provider."),
    (metric::SOURCE_LIFE, Kind::Gauge, Unit::Count, "1 for where a source stands in its life, else 0."),
    (metric::LANES_FORGOTTEN, Kind::Counter, Unit::Count, "Lanes that were forgotten as there were too many."),
    (metric::SOURCE_OUTCOMES, Kind::Counter, Unit::Count, "Recipients of attempts, by source, provider and outcome."),
    (
        metric::DEFERRALS,
        Kind::Counter,
        Unit::Count,
        "Recipients of attempts that were deferred, by provider and class.",
    ),
    (metric::OUTCOMES, Kind::Counter, Unit::Count, "Recipients settled, by outcome."),
    (metric::DELIVERY_SECONDS, Kind::Histogram, Unit::Seconds, "From acceptance to delivery."),
    (metric::DNS_LOOKUPS, Kind::Counter, Unit::Count, "DNS questions, by type and result."),
    (metric::EVENTS_WRITTEN, Kind::Counter, Unit::Count, "Events written to files, by kind."),
    (metric::EVENTS_PENDING, Kind::Gauge, Unit::Count, "Events committed and not yet in every file."),
    (metric::EVENT_WRITE_ERRORS, Kind::Counter, Unit::Count, "Failed writes to event files."),
    (
        metric::SUPPRESSED_RECIPIENTS,
        Kind::Counter,
        Unit::Count,
        "Recipients that mail was held back from, by list and reason.",
    ),
    (metric::SUPPRESSION_ENTRIES, Kind::Gauge, Unit::Count, "Entries of suppression lists, by tier."),
    (metric::SENT_RECORDS, Kind::Counter, Unit::Count, "Recipients that are remembered for late reports."),
    (metric::SENT_SWEEPS, Kind::Counter, Unit::Count, "Removals of what need not be remembered any more."),
    (metric::FEEDBACK, Kind::Counter, Unit::Count, "What reports said of single recipients, by kind and effect."),
    (metric::FEEDBACK_MESSAGES, Kind::Counter, Unit::Count, "Messages that came home, by what they are."),
    (metric::HTTP_REFUSED, Kind::Counter, Unit::Count, "HTTP connections closed, since their client had too many."),
    (
        metric::UNSUBSCRIBE_REQUESTS,
        Kind::Counter,
        Unit::Count,
        "Requests at links that unsubscribe, by what became of them.",
    ),
    (metric::REPORTS, Kind::Counter, Unit::Count, "DMARC and TLS reports of receivers, by kind and effect."),
    (metric::DMARC_MESSAGES, Kind::Counter, Unit::Count, "Messages that DMARC reports speak of, by domain and result."),
    (metric::TLS_SESSIONS, Kind::Counter, Unit::Count, "Sessions that TLS reports speak of, by domain and result."),
    (metric::FEEDBACK_FORWARDED, Kind::Counter, Unit::Count, "Bounces and complaints mailed on to the sender."),
    (metric::FEEDBACK_KEPT, Kind::Gauge, Unit::Count, "Messages that nobody understood, kept for the operator."),
    (metric::REPUTATION_BOUNCE_RATE, Kind::Gauge, Unit::Count, "Hard bounces, by scope and name; 1 is all."),
    (
        metric::REPUTATION_COMPLAINT_RATE,
        Kind::Gauge,
        Unit::Count,
        "Complaints of what was delivered, by scope and name.",
    ),
    (metric::REPUTATION_PAUSED, Kind::Gauge, Unit::Count, "1 while new mail is refused, by scope and name."),
    (metric::REPUTATION_SCOPES, Kind::Gauge, Unit::Count, "Senders, by scope and state."),
    (metric::REPUTATION_CHANGES, Kind::Counter, Unit::Count, "Changes of state, by scope and the new state."),
    (metric::REPUTATION_UNJUDGED, Kind::Counter, Unit::Count, "Sums of senders for which there was no room."),
    (metric::HEALTHY, Kind::Gauge, Unit::Count, "1 while the daemon keeps all its promises, else 0."),
];

/// Why there are no metrics: the daemon must not start.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// In use, or not ours.
    #[error("cannot listen on {address} for metrics: {error}; name another [metrics] address")]
    Bind {
        /// As configured.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// Called twice in one process.
    #[error("cannot record metrics: {0}")]
    Recorder(String),
}

/// A bound listener and an installed recorder; nothing is served yet.
pub struct MetricsServer {
    listener: TcpListener,
    handle: PrometheusHandle,
}

impl MetricsServer {
    /// Binds the address, then installs the recorder of the `metrics` crate for the whole process. Must be called within
    /// a tokio runtime, once, before anything records.
    pub async fn start(address: SocketAddr) -> Result<MetricsServer, MetricsError> {
        let listener = TcpListener::bind(address).await.map_err(|error| MetricsError::Bind { address, error })?;
        let recorder = recorder().map_err(|error| MetricsError::Recorder(error.to_string()))?;
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|error| MetricsError::Recorder(error.to_string()))?;
        describe();
        Ok(MetricsServer { listener, handle })
    }

    /// Where it listens: the port where 0 was configured.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is cancelled.
    pub async fn serve(self, stop: CancellationToken) {
        let upkeep = upkeep(self.handle.clone(), stop.clone());
        let server = http::serve(TcpAccept(self.listener), router(self.handle), Limits::OPERATORS, stop);
        tokio::join!(upkeep, server);
    }
}

fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for (name, buckets) in BUCKETS {
        builder = builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets)?;
    }
    Ok(builder.build_recorder())
}

/// Gives every metric its help and unit, to the recorder that is current.
fn describe() {
    for (name, kind, unit, help) in METRICS {
        match kind {
            Kind::Counter => metrics::describe_counter!(name, unit, help),
            Kind::Gauge => metrics::describe_gauge!(name, unit, help),
            Kind::Histogram => metrics::describe_histogram!(name, unit, help),
        }
    }
}

async fn upkeep(handle: PrometheusHandle, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        handle.run_upkeep();
    }
}

fn router(handle: PrometheusHandle) -> Router {
    let metrics = |State(handle): State<PrometheusHandle>| async move {
        ([(CONTENT_TYPE, "text/plain; version=0.0.4")], handle.render())
    };
    Router::new().route("/metrics", get(metrics)).with_state(handle)
}

struct TcpAccept(TcpListener);

impl Accept for TcpAccept {
    type Stream = TcpStream;
    type Opening = Ready<io::Result<TcpStream>>;

    async fn accept(&mut self) -> io::Result<Option<Accepted<Self::Opening>>> {
        self.0.accept().await.map(|(stream, _)| Some(Accepted::open(stream)))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// The names in `events::metric`, from its source: a new one without a description fails here.
    fn declared() -> Vec<&'static str> {
        include_str!("../events/metric.rs").split('"').filter(|text| text.starts_with("posthaste_")).collect()
    }

    #[test]
    fn every_declared_metric_is_described_and_documented() {
        let described: Vec<&str> = METRICS.iter().map(|(name, ..)| *name).collect();
        assert_eq!(described, declared());
        let manual = include_str!("../../docs/OPERATIONS.md");
        for name in described {
            assert!(manual.contains(&format!("`{name}`")), "docs/OPERATIONS.md lacks {name}");
        }
    }

    #[test]
    fn histograms_have_buckets_and_all_metrics_have_help() {
        let recorder = recorder().unwrap();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            describe();
            for (name, kind, ..) in METRICS {
                match kind {
                    Kind::Counter => metrics::counter!(name).increment(1),
                    Kind::Gauge => metrics::gauge!(name).set(1.0),
                    Kind::Histogram => metrics::histogram!(name).record(1.0),
                }
            }
        });
        let text = handle.render();
        for (name, kind, _, help) in METRICS {
            assert!(text.contains(&format!("# HELP {name} {help}")), "{name}");
            let word = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            assert!(text.contains(&format!("# TYPE {name} {word}\n")), "{name}\n{text}");
        }
        assert!(text.contains("posthaste_commit_batch_operations_bucket{le=\"4096\"} 1"), "{text}");
        let histograms = METRICS.iter().filter(|(_, kind, ..)| *kind == Kind::Histogram).count();
        assert_eq!(histograms, BUCKETS.len());
    }

    #[tokio::test]
    async fn metrics_are_served_as_text() {
        let recorder = recorder().unwrap();
        metrics::with_local_recorder(&recorder, || metrics::counter!(metric::STORE_ERRORS).increment(3));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server =
            tokio::spawn(http::serve(TcpAccept(listener), router(recorder.handle()), Limits::OPERATORS, stop.clone()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\n"), "{answer}");
        assert!(answer.contains("posthaste_store_errors_total 3\n"), "{answer}");
        stop.cancel();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_taken_address_is_an_error_that_names_it() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = MetricsServer::start(address).await.err().unwrap().to_string();
        assert!(error.starts_with(&format!("cannot listen on {address} for metrics: ")), "{error}");
    }
}
