//! The mailbox simulator within the daemon: started and stopped as the config says, and wired to what surrounds it.
//!
//! It listens on a free loopback port, to which the router sends the mail of its domain; its reports come home by SMTP to a
//! feedback listener on another one, which the daemon has for this alone: so nothing else needs to be configured.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::config::Config;
use super::config::simulator::REPORTS_LISTENER;
use crate::delivery::settings::Simulated;
use crate::reception::Reception;
use crate::reception::settings::{ListenerAuth, ListenerSettings, ListenerTakes, ListenerTls};
use crate::simulator::Simulator;
use crate::types::{Clock, Domain};

/// See the module.
pub(super) struct Simulating {
    clock: Arc<dyn Clock>,
    running: Mutex<Option<Running>>,
}

struct Running {
    domain: Domain,
    simulator: Simulator,
}

/// What a config makes of the simulator, to be adopted once all else is in force. Dropped: a new one ends.
pub(super) enum Change {
    /// It stays as it is.
    None,
    /// This one takes its place, or none does.
    Replace(Option<Simulator>, Option<Domain>),
}

impl Simulating {
    /// What a daemon starts with: see [`Simulating::prepare`].
    pub(super) fn start(mut config: Config, clock: &Arc<dyn Clock>) -> Result<(Self, Change, Config), String> {
        let simulating = Self { clock: Arc::clone(clock), running: Mutex::default() };
        let change = simulating.prepare(&mut config)?;
        Ok((simulating, change, config))
    }

    /// Starts what a config asks for, and completes the config: where the simulator's mail goes, and where its reports come home.
    /// Needs a tokio runtime.
    pub(super) fn prepare(&self, config: &mut Config) -> Result<Change, String> {
        let running = self.lock();
        let known = running.as_ref().map(|running| (&running.domain, running.simulator.address()));
        let Some(domain) = config.simulator.clone() else {
            return Ok(if known.is_some() { Change::Replace(None, None) } else { Change::None });
        };
        let (change, address) = match known {
            Some((known, address)) if *known == domain => (Change::None, address),
            _ => {
                let simulator = Simulator::start(&domain, Arc::clone(&self.clock));
                let simulator = simulator.map_err(|error| format!("cannot start the simulator: {error}"))?;
                let address = simulator.address();
                (Change::Replace(Some(simulator), Some(domain.clone())), address)
            }
        };
        config.delivery.simulate(Simulated { domain, address }).map_err(|error| error.to_string())?;
        config.listeners.push(reports_listener());
        Ok(change)
    }

    /// Puts a change into force. `reception` has its listener by now.
    pub(super) fn adopt(&self, change: Change, reception: &Reception) {
        let Change::Replace(simulator, domain) = change else { return };
        let home = reception.local_addrs().into_iter().find(|(name, _)| name == REPORTS_LISTENER);
        if let (Some(simulator), Some((_, home))) = (&simulator, home) {
            simulator.report_to(home);
        }
        let next = simulator.zip(domain).map(|(simulator, domain)| {
            tracing::info!(%domain, address = %simulator.address(), "the mailbox simulator is there");
            Running { domain, simulator }
        });
        // The one before ends when it is dropped.
        drop(std::mem::replace(&mut *self.lock(), next));
    }

    /// Ends it: nothing is sent to it any more.
    pub(super) fn stop(&self) {
        drop(self.lock().take());
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it is the listener for the simulator's reports.
pub(super) fn is_reports_listener(name: &str) -> bool {
    name == REPORTS_LISTENER
}

fn reports_listener() -> ListenerSettings {
    ListenerSettings {
        name: REPORTS_LISTENER.to_owned(),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        tls: ListenerTls::None,
        auth: ListenerAuth::Never,
        takes: ListenerTakes::Feedback,
    }
}
