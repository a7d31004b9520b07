//! The built-in mail host: a small MX whose mailboxes behave as their names say, in place of the world.
//!
//! `posthaste demo` sends to it; it runs the real protocol over real sockets, so that what is seen there is what the
//! daemon does. Promises: no message leaves it; it never answers for anything but its own loopback listener. Does not:
//! keep mail, offer TLS, or stand up to hostile clients: its only client is this daemon.

mod mailbox;
mod session;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Recipients whose visits are counted; above, all counts begin again.
const VISITS_MAX: usize = 10_000;

/// A running mail host. It ends when it is dropped.
pub struct Simulator {
    address: SocketAddr,
    stop: CancellationToken,
    received: Arc<Visits>,
}

/// How often each recipient was asked for, and how many messages were taken.
#[derive(Default)]
struct Visits {
    by_recipient: Mutex<HashMap<String, u32>>,
    messages: Mutex<u64>,
}

impl Visits {
    /// Counts a visit; returns its number, from 1.
    fn visit(&self, recipient: &str) -> u32 {
        let mut visits = self.by_recipient.lock().unwrap_or_else(PoisonError::into_inner);
        if visits.len() >= VISITS_MAX {
            visits.clear();
        }
        let count = visits.entry(recipient.to_owned()).or_default();
        *count += 1;
        *count
    }

    fn message(&self) {
        *self.messages.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }
}

impl Simulator {
    /// Listens on a free loopback port. Needs a tokio runtime.
    pub async fn start() -> io::Result<Simulator> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (stop, received) = (CancellationToken::new(), Arc::new(Visits::default()));
        tokio::spawn(serve(listener, stop.clone(), Arc::clone(&received)));
        Ok(Simulator { address, stop, received })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Messages it took.
    pub fn messages(&self) -> u64 {
        *self.received.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(listener: TcpListener, stop: CancellationToken, visits: Arc<Visits>) {
    let sessions = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        // A failed accept is the peer's loss: it tries again.
        if let Ok((stream, _)) = accepted {
            sessions.spawn(session::run(stream, Arc::clone(&visits), stop.clone()));
        }
    }
}
