//! The mailbox simulator: a small mail host within this process, whose mailboxes behave as their names say, in place of the world.
//!
//! The router sends the mail of one domain to it, by real SMTP over loopback; what mailboxes report comes home by real SMTP, too, so
//! what is seen there is what the daemon does. `docs/SIMULATOR.md` is its guide, `mailbox` its table.
//!
//! Promises: it sends nothing to anybody but the listener for feedback that it was told of; it never answers for anything but its own
//! loopback listener; what it keeps is bounded. Does not: keep mail, offer TLS, survive a restart (what waits to be reported is dropped),
//! or judge who its client is: a local user who talks to it directly can do no more than at a listener for feedback.

mod mailbox;
mod post;
mod report;
mod session;
mod visits;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use self::post::{Post, REPORTS_MAX, Waiting};
use self::visits::Visits;
use crate::types::{Clock, Domain};

/// Connections at once. Above: 421 4.3.2, closed.
const CONNECTIONS_MAX: usize = 1_000;
/// After an accept that failed, such as for a lack of file handles.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running simulator. It ends when it is dropped: at once between two messages, else with the message.
pub struct Simulator {
    address: SocketAddr,
    home: Arc<OnceLock<SocketAddr>>,
    stop: CancellationToken,
}

/// What all sessions share.
struct Host {
    domain: Domain,
    clock: Arc<dyn Clock>,
    visits: Mutex<Visits>,
    reports: mpsc::Sender<Waiting>,
}

impl Simulator {
    /// Listens on a free loopback port, for the mailboxes of this domain. Needs a tokio runtime.
    pub fn start(domain: &Domain, clock: Arc<dyn Clock>) -> io::Result<Simulator> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let (stop, home) = (CancellationToken::new(), Arc::default());
        let (reports, waiting) = mpsc::channel(REPORTS_MAX);
        let post = Post {
            host: domain.clone(),
            clock: Arc::clone(&clock),
            home: Arc::clone(&home),
            written: AtomicU64::new(0),
        };
        tokio::spawn(post.run(waiting, stop.clone()));
        let host = Host { domain: domain.clone(), clock, visits: Mutex::default(), reports };
        tokio::spawn(serve(listener, Arc::new(host), stop.clone()));
        Ok(Simulator { address, home, stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its reports go. Told once; until then they wait for their tries.
    pub fn report_to(&self, home: SocketAddr) {
        self.home.get_or_init(|| home);
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(listener: TcpListener, host: Arc<Host>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match (accepted, Arc::clone(&places).try_acquire_owned()) {
            (Ok((stream, _)), Ok(place)) => {
                let session = session::run(stream, Arc::clone(&host), stop.clone());
                tokio::spawn(async move {
                    session.await;
                    drop(place);
                });
            }
            (Ok((mut stream, _)), Err(_)) => {
                // The peer's loss if it does not read it: it tries again.
                drop(stream.write_all(b"421 4.3.2 Too many connections\r\n").await);
            }
            (Err(error), _) => {
                tracing::warn!(%error, "the simulator cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
