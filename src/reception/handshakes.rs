//! Waiting before a TLS handshake, as [`crate::policy::handshakes`] says.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::settings::Settings;
use crate::events::metric;
use crate::net::client_of;
use crate::policy::handshakes::{HandshakeLimits, Handshakes, Turn};

/// Handshakes of all listeners.
pub(super) struct HandshakeGate {
    handshakes: Mutex<Handshakes>,
    since: Instant,
    waited: metrics::Counter,
    refused: metrics::Counter,
}

/// A handshake that may begin, until its client has shown that it is in earnest.
#[derive(Debug)]
pub(super) struct Begun {
    client: IpAddr,
    turn: Turn,
}

impl HandshakeGate {
    pub(super) fn new() -> Arc<Self> {
        let total = |outcome: &'static str| metrics::counter!(metric::TLS_HANDSHAKES_HELD_UP, "outcome" => outcome);
        Arc::new(Self {
            handshakes: Mutex::default(),
            since: Instant::now(),
            waited: total("waited"),
            refused: total("refused"),
        })
    }

    /// Waits until a handshake of this client may begin. Fails where that would be after `deadline`.
    pub(super) async fn pass(&self, address: IpAddr, settings: &Settings, deadline: Instant) -> io::Result<Begun> {
        let client = client_of(address);
        let now = Instant::now();
        let patience = deadline.saturating_duration_since(now);
        let Some(turn) = self.lock().begin(client, limits(settings), patience, self.micros(now)) else {
            self.refused.increment(1);
            return Err(io::Error::other("too many handshakes of this client, or of all, that led to nothing"));
        };
        if !turn.wait.is_zero() {
            self.waited.increment(1);
            tokio::time::sleep(turn.wait).await;
        }
        Ok(Begun { client, turn })
    }

    /// The client of this handshake is in earnest.
    pub(super) fn in_earnest(&self, begun: Begun, settings: &Settings) {
        let now_us = self.micros(Instant::now());
        self.lock().in_earnest(begun.client, begun.turn, limits(settings), now_us);
    }

    fn micros(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.since).as_micros()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Handshakes> {
        self.handshakes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn limits(settings: &Settings) -> HandshakeLimits {
    HandshakeLimits::new(settings.handshakes_per_client_rate_max, settings.handshakes_rate_max)
}
