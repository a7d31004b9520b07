//! Where the lists are: behind the admin socket of a running daemon, or in the queue of one that does not run.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use tokio::runtime::Runtime;

use super::super::Failure;
use super::super::client::{Client, SocketArgs, query_string};
use crate::daemon::admin::AdminError;
use crate::daemon::admin::suppression::{
    ListName, NewEntry, PutBody, RemoveBody, SuppressionBackend, SuppressionItem, SuppressionPage, SuppressionReport,
    missing,
};
use crate::daemon::config::Config;
use crate::daemon::lists::ListControl;
use crate::queue::recover::STORE;
use crate::queue::rocks::{RocksSettings, RocksStore};
use crate::queue::suppression::SuppressionList;
use crate::queue::{self, Queue};
use crate::types::{EmailAddress, SystemClock};

/// One list, wherever it is.
pub(super) struct Target {
    name: ListName,
    list: SuppressionList,
    place: Place,
}

enum Place {
    Daemon(Client),
    Queue(Offline),
}

/// An open queue. Dropped: all is written and synced.
struct Offline {
    runtime: Runtime,
    lists: Option<ListControl>,
    committer: Option<JoinHandle<()>>,
}

impl Target {
    /// The daemon where one answers; else the queue that the config names, unless the socket was named by itself.
    pub(super) fn find(socket: &SocketArgs, name: ListName, list: SuppressionList) -> Result<Self, Failure> {
        let place = match Client::locate(socket) {
            Ok(client) if client.is_served() || socket.names_socket() => Place::Daemon(client),
            Ok(_) => Place::Queue(Offline::open(socket)?),
            Err(failure) => return Err(failure),
        };
        Ok(Self { name, list, place })
    }

    pub(super) fn get(&self, address: &EmailAddress) -> Result<SuppressionItem, Failure> {
        match &self.place {
            Place::Daemon(client) => {
                let query = self.query(&[("address", Some(address.to_string()))]);
                Ok(client.get(&format!("/v1/suppression/entry{query}"))?)
            }
            Place::Queue(offline) => {
                let found = offline.ask(|lists| lists.entry(self.list.clone(), address.clone()))?;
                found.as_ref().map(SuppressionItem::from).ok_or_else(|| self.missing(address))
            }
        }
    }

    pub(super) fn remove(&self, address: &EmailAddress) -> Result<SuppressionItem, Failure> {
        match &self.place {
            Place::Daemon(client) => {
                let body = RemoveBody { list: self.name.clone(), address: address.to_string() };
                Ok(client.post("/v1/suppression/remove", &body)?)
            }
            Place::Queue(offline) => {
                let found = offline.ask(|lists| lists.remove(self.list.clone(), address.clone()))?;
                found.as_ref().map(SuppressionItem::from).ok_or_else(|| self.missing(address))
            }
        }
    }

    pub(super) fn page(&self, after: Option<&str>, limit: usize) -> Result<SuppressionPage, Failure> {
        match &self.place {
            Place::Daemon(client) => {
                let query = [("limit", Some(limit.to_string())), ("after", after.map(str::to_owned))];
                Ok(client.get(&format!("/v1/suppression{}", self.query(&query)))?)
            }
            Place::Queue(offline) => {
                let after = after.and_then(|after| EmailAddress::parse(after, true).ok());
                offline.ask(|lists| lists.page(self.list.clone(), after, limit))
            }
        }
    }

    /// At most `ENTRIES_MAX` entries, which were checked.
    pub(super) fn put(&self, entries: Vec<SuppressionItem>, origin: &str) -> Result<SuppressionReport, Failure> {
        match &self.place {
            Place::Daemon(client) => {
                let body = PutBody { list: self.name.clone(), entries, origin: origin.to_owned() };
                Ok(client.post("/v1/suppression", &body)?)
            }
            Place::Queue(offline) => {
                let entries: Result<Vec<NewEntry>, String> = entries.iter().map(SuppressionItem::check).collect();
                let entries = entries.map_err(Failure::Failed)?;
                offline.ask(|lists| lists.put(self.list.clone(), entries, origin.to_owned()))
            }
        }
    }

    fn missing(&self, address: &EmailAddress) -> Failure {
        Failure::NotFound(missing(&self.list, address).to_string())
    }

    fn query(&self, more: &[(&str, Option<String>)]) -> String {
        let list = [("tenant", self.name.tenant.clone()), ("set", self.name.set.clone())];
        query_string(&[&list, more].concat())
    }
}

impl Offline {
    fn open(socket: &SocketArgs) -> Result<Self, Failure> {
        let config = Config::load(socket.config_path());
        let config = config.map_err(|errors| {
            Failure::Unreachable(format!(
                "no daemon answers, and its queue is not known, since the config has errors\n{errors}"
            ))
        })?;
        let directory = config.queue.data_dir.join(STORE);
        let shown = directory.display();
        let owner = fs::metadata(&directory)
            .map_err(|error| {
                Failure::Unreachable(format!("no daemon answers, and there is no queue in {shown}: {error}"))
            })?
            .uid();
        if owner != rustix::process::geteuid().as_raw() {
            return Err(Failure::Failed(format!(
                "no daemon answers, and {shown} belongs to user {owner}: run this as that user \
                 (`runuser -u posthaste -- posthaste suppression ...`), or start the daemon"
            )));
        }
        let failed = |error: String| Failure::Failed(error);
        let store =
            RocksStore::open(&directory, &RocksSettings::default()).map_err(|error| failed(error.to_string()))?;
        let clock = Arc::new(SystemClock);
        let directory = Arc::new(ArcSwap::from_pointee(config.admission.clone()));
        let settings = queue::Settings::default();
        let opened = Queue::open(Arc::new(store), &settings, clock.clone(), queue::random_seed());
        let opened = opened.map_err(|error| failed(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| failed(format!("cannot start the runtime: {error}")))?;
        let lists = Some(ListControl::new(opened.queue, clock, directory));
        Ok(Self { runtime, lists, committer: Some(opened.committer) })
    }

    fn ask<'a, T, F>(&'a self, ask: impl FnOnce(&'a ListControl) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, AdminError>> + 'a,
    {
        let lists = self.lists.as_ref().expect("the lists are there until this is dropped");
        self.runtime.block_on(ask(lists)).map_err(|error| Failure::Failed(error.to_string()))
    }
}

impl Drop for Offline {
    fn drop(&mut self) {
        self.lists = None;
        if let Some(committer) = self.committer.take()
            && committer.join().is_err()
        {
            tracing::error!("the committer panicked");
        }
    }
}
