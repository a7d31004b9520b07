//! A connection to a next hop: opens it, runs transactions on it, closes it.
//!
//! [`connect`] dials, greets, negotiates TLS and logs in; [`Session::send`] runs one transaction. The protocol is in
//! `smtp::client`; here are the bytes, the timeouts by phase and the fallbacks: HELO for EHLO, a small ClientHello, a new
//! clear connection where opportunistic TLS fails.
//!
//! Promises: no body octet before the 354; in every result the fate of every recipient; with [`TlsMode::Require`] or a
//! login no message and no password in clear; the reply to one transaction is never taken for another's. Does not: pick
//! hosts, retry transactions, keep connections for reuse, judge replies, log.
//!
//! [`TlsMode::Require`]: crate::delivery::settings::TlsMode::Require

mod body;
mod connect;
mod wire;

#[cfg(test)]
mod connect_tests;
#[cfg(test)]
mod send_tests;
#[cfg(test)]
mod testing;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use self::wire::Wire;
use super::settings::{NextHop, Timeouts};
use crate::net::tls_client::TlsInfo;
use crate::smtp::client::{Capabilities, Extension, LossReason, Machine, Options, Outcome, Step, command};

pub use self::body::{BodyReader, BodySource};
pub use self::connect::{ConnectCause, ConnectFailure, Target, TlsHint, connect};
pub use crate::smtp::client::{After, Credentials, EhloName, Loss, RecipientResult, Secret, Stage, Transaction};

/// Memory of the output buffer that a session keeps between transactions. A larger one is given back.
const OUTPUT_KEPT_BYTES: usize = 32 * 1024;

/// An open connection that has been greeted, and encrypted and logged in as the target wanted.
#[derive(Debug)]
pub struct Session {
    wire: Wire,
    peer: Capabilities,
    about: About,
    timeouts: Timeouts,
    chunking: bool,
    /// Between transactions and understood by both sides.
    usable: bool,
    /// The last transaction was left open.
    reset_first: bool,
    /// Transactions that reached the wire.
    transactions: u32,
    out: Vec<u8>,
}

/// What is known of a connection.
#[derive(Clone, Debug)]
pub struct About {
    /// The host, as routing named it.
    pub host: NextHop,
    /// Its address.
    pub remote: SocketAddr,
    /// The source address; `None` where the system chose.
    pub local: Option<IpAddr>,
    /// Text of the greeting.
    pub greeting: Box<str>,
    /// `None`: in clear.
    pub tls: Option<TlsInfo>,
    /// Why a first try with TLS failed, where this connection came after it: for events, and for `tls_hint`.
    pub tls_failed: Option<Box<str>>,
    /// What to remember of this host, for the next connections.
    pub tls_hint: TlsHint,
    /// When it was opened.
    pub opened_at: Instant,
}

/// What a transaction came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendResult {
    /// In the order of the transaction's recipients.
    pub recipients: Vec<RecipientResult>,
    /// Whether another transaction may follow.
    pub after: After,
    /// The host had closed this connection, kept from an earlier transaction, before it saw this one: try at once on a new
    /// connection; it is neither an attempt nor a sign of trouble.
    pub stale: bool,
    /// The peer was given the DSN parameters: notices about success and delay are its duty now (RFC 3461 §5.2.2).
    pub dsn_passed: bool,
}

impl Session {
    /// Runs one transaction.
    ///
    /// Not cancel-safe: a future dropped behind the final dot loses the outcome, and the message is sent twice. So run
    /// it in a task of its own that reports the result. It always ends: each step has its timeout.
    pub async fn send(&mut self, transaction: &Transaction<'_>, mut body: BodySource<'_>) -> SendResult {
        let options = Options { chunking: self.chunking, reset_first: self.reset_first };
        let mut machine = Machine::new(*transaction, self.peer, options);
        let mut out = std::mem::take(&mut self.out);
        let mut step = machine.start(&mut out);
        let touched = step != Step::Done;
        if touched && let Some(reason) = self.trouble_before() {
            step = machine.on_lost(reason);
        }
        loop {
            step = match step {
                Step::Done => break,
                Step::Read(stage) => match self.wire.exchange(&mut out, &self.timeouts, stage).await {
                    Ok(reply) => machine.on_reply(reply, &mut out),
                    Err(reason) => machine.on_lost(reason),
                },
                Step::WriteBody(framing) => {
                    let size_bytes = transaction.body_bytes;
                    let written = self.wire.write_body(&mut out, framing, &mut body, size_bytes, &self.timeouts).await;
                    match written {
                        Ok(()) => machine.on_body_sent(),
                        Err(body::BodyFailure::Lost(reason)) => machine.on_lost(reason),
                        Err(body::BodyFailure::Answered(reply)) => machine.on_reply(reply, &mut out),
                    }
                }
            };
        }
        out.clear();
        out.shrink_to(OUTPUT_KEPT_BYTES);
        self.out = out;
        self.settle(machine.finish(), touched)
    }

    /// Whether another transaction may follow: the connection is between transactions, and the peer's LIMITS MAILMAX is
    /// not reached.
    pub fn is_reusable(&self) -> bool {
        let full = self.peer.limits().mail_max.is_some_and(|limit| self.transactions >= limit);
        self.usable && !full
    }

    /// Whether the peer has been silent since the last reply, as far as this side knows without waiting. Ask before a
    /// kept connection is used: a peer that closed it, or said 421, is found out here, not by a failed transaction.
    pub fn is_quiet(&mut self) -> bool {
        self.usable = self.usable && self.wire.unsolicited().is_none();
        self.usable
    }

    /// RSET, for a connection that is to be kept: `true` where the peer agreed. Not cancel-safe.
    pub async fn reset(&mut self) -> bool {
        if !self.is_quiet() {
            return false;
        }
        command::bare(&mut self.out, "RSET");
        let reply = self.wire.exchange(&mut self.out, &self.timeouts, Stage::Mail).await;
        self.usable = reply.is_ok_and(|reply| reply.code().value() / 100 == 2);
        self.reset_first = false;
        self.usable
    }

    /// Closes with QUIT and waits for the reply as long as [`Timeouts::quit`]; without QUIT where the peer would take it
    /// for message data.
    pub async fn quit(mut self) {
        if self.usable {
            self.wire.quit(self.timeouts.quit).await;
        }
    }

    /// What is known of this connection.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// What the peer offers, after TLS where there is TLS.
    pub fn peer(&self) -> &Capabilities {
        &self.peer
    }

    /// Time since it was opened.
    pub fn age(&self) -> Duration {
        self.about.opened_at.elapsed()
    }

    /// Transactions that were begun on it.
    pub fn transactions(&self) -> u32 {
        self.transactions
    }

    /// Why a transaction cannot begin.
    fn trouble_before(&mut self) -> Option<LossReason> {
        if !self.usable {
            return Some(LossReason::Closed);
        }
        self.wire.unsolicited()
    }

    fn settle(&mut self, outcome: Outcome, touched: bool) -> SendResult {
        let stale = outcome.silent_from_the_start && self.transactions > 0;
        if touched {
            self.transactions += 1;
        }
        // A 421 glued to the last reply does not change what that reply said.
        let usable = outcome.after == After::Reusable && !self.wire.has_surplus();
        self.usable = self.usable && usable;
        self.reset_first = outcome.needs_reset;
        SendResult {
            recipients: outcome.recipients,
            after: if self.usable { After::Reusable } else { After::Closed },
            stale,
            dsn_passed: self.peer.offers(Extension::Dsn),
        }
    }
}
