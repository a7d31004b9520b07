//! The suppression lists of a queue, for the admin API and for the command line.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::admin::AdminError;
use super::admin::suppression::{NewEntry, SuppressionBackend, SuppressionItem, SuppressionPage, SuppressionReport};
use crate::admission::Directory;
use crate::net::BoxFuture;
use crate::queue::suppression::{SuppressionEntry, SuppressionList};
use crate::queue::{AcceptError, LoadError, Queue};
use crate::types::{Clock, EmailAddress};

/// See the module.
#[derive(Clone)]
pub struct ListControl {
    queue: Queue,
    clock: Arc<dyn Clock>,
    directory: Arc<ArcSwap<Directory>>,
}

impl ListControl {
    /// The lists of this queue; `directory` knows whose they may be.
    pub fn new(queue: Queue, clock: Arc<dyn Clock>, directory: Arc<ArcSwap<Directory>>) -> Self {
        Self { queue, clock, directory }
    }

    /// A list of nobody holds nothing back. It may be meant, for a tenant that the config has only tomorrow.
    fn warning(&self, list: &SuppressionList) -> Option<String> {
        let directory = self.directory.load();
        let (what, name) = match list {
            SuppressionList::Tenant(name) if directory.tenant(name).is_none() => ("tenant", name),
            SuppressionList::Set(name) if directory.has_sets() && directory.set(name).is_none() => {
                ("configuration set", name)
            }
            _ => return None,
        };
        Some(format!("the config has no {what} {name}: until it has, this list holds nothing back"))
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Queue) -> Result<T, LoadError> + Send + 'static,
    ) -> Result<T, AdminError> {
        match self.queue.reading(read).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(LoadError::Store(error))) => Err(AdminError::Unavailable(error.to_string())),
            Ok(Err(LoadError::Damaged(problem))) => Err(AdminError::Internal(problem)),
            Err(error) => Err(AdminError::Internal(error.to_string())),
        }
    }
}

impl SuppressionBackend for ListControl {
    fn page(
        &self,
        list: SuppressionList,
        after: Option<EmailAddress>,
        limit: usize,
    ) -> BoxFuture<'_, Result<SuppressionPage, AdminError>> {
        Box::pin(async move {
            let total = self.queue.suppression_count(&list);
            let read = move |queue: &Queue| Ok(queue.suppressions(&list, after.as_ref(), limit)?);
            let (entries, more) = self.read(read).await?;
            let next = entries.last().filter(|_| more).map(|entry| entry.address.to_string());
            Ok(SuppressionPage { entries: entries.iter().map(SuppressionItem::from).collect(), next, total })
        })
    }

    fn entry(
        &self,
        list: SuppressionList,
        address: EmailAddress,
    ) -> BoxFuture<'_, Result<Option<SuppressionEntry>, AdminError>> {
        Box::pin(self.read(move |queue| queue.suppression(&list, &address)))
    }

    fn put(
        &self,
        list: SuppressionList,
        entries: Vec<NewEntry>,
        origin: String,
    ) -> BoxFuture<'_, Result<SuppressionReport, AdminError>> {
        Box::pin(async move {
            let now = self.clock.now();
            let entries = entries.into_iter().map(|entry| SuppressionEntry {
                address: entry.address,
                reason: entry.reason,
                updated_at: entry.updated_at.unwrap_or(now),
                origin: origin.clone(),
            });
            let entries: Vec<_> = entries.collect();
            let effect = self.queue.suppress(&list, &entries).await.map_err(|error| unavailable(&error))?;
            Ok(SuppressionReport { warning: self.warning(&list), ..effect.into() })
        })
    }

    fn remove(
        &self,
        list: SuppressionList,
        address: EmailAddress,
    ) -> BoxFuture<'_, Result<Option<SuppressionEntry>, AdminError>> {
        Box::pin(async move {
            let (of, who) = (list.clone(), address.clone());
            let entry = self.read(move |queue| queue.suppression(&of, &who)).await?;
            let removed = self.queue.unsuppress(&list, &address).await.map_err(|error| unavailable(&error))?;
            Ok(entry.filter(|_| removed))
        })
    }
}

fn unavailable(error: &AcceptError) -> AdminError {
    AdminError::Unavailable(error.to_string())
}
