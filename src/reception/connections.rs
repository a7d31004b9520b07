//! Who is connected: counts in all and by client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::memory::{ClientMemory, MemoryBudget};
use crate::net::client_of;

/// Which limit a new connection is above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Connections in all.
    Server,
    /// Connections of this client.
    Client,
}

/// Open connections. The map is bounded by the limit of connections: a client without any is not in it.
#[derive(Debug)]
pub(super) struct Connections {
    counts: Mutex<Counts>,
    memory: MemoryBudget,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_client: HashMap<IpAddr, OfClient>,
}

/// What the connections of one client share.
#[derive(Debug)]
struct OfClient {
    count: usize,
    memory: ClientMemory,
}

/// The place of one connection; free again when dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    connections: Arc<Connections>,
    client: IpAddr,
    /// For the messages on it.
    pub(super) memory: ClientMemory,
}

impl Connections {
    /// Messages on these connections draw from `memory`.
    pub(super) fn new(memory: MemoryBudget) -> Self {
        Self { counts: Mutex::default(), memory }
    }

    /// A place for a connection from `address`, if there is one.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, max: usize, per_client_max: usize) -> Result<Ticket, Full> {
        let client = client_of(address);
        let mut counts = self.lock();
        if counts.total >= max {
            return Err(Full::Server);
        }
        if counts.by_client.get(&client).is_some_and(|of_client| of_client.count >= per_client_max) {
            return Err(Full::Client);
        }
        counts.total += 1;
        let new = || OfClient { count: 0, memory: ClientMemory::new(&self.memory) };
        let of_client = counts.by_client.entry(client).or_insert_with(new);
        of_client.count += 1;
        let memory = of_client.memory.clone();
        drop(counts);
        Ok(Ticket { connections: Arc::clone(self), client, memory })
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> &MemoryBudget {
        &self.memory
    }

    pub(super) fn count(&self) -> usize {
        self.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut counts = self.connections.lock();
        counts.total = counts.total.saturating_sub(1);
        if let Some(of_client) = counts.by_client.get_mut(&self.client) {
            of_client.count -= 1;
            if of_client.count == 0 {
                counts.by_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_counted_by_address_and_ipv6_prefix() {
        let connections = Arc::new(Connections::new(MemoryBudget::new(1)));
        let enter = |address: &str| connections.enter(address.parse().unwrap(), 5, 2);
        let first = enter("2001:db8::1").unwrap();
        let _second = enter("2001:db8::ffff:2").unwrap();
        assert_eq!(enter("2001:db8::3").unwrap_err(), Full::Client);
        let _other_prefix = enter("2001:db8:0:1::1").unwrap();
        let _v4 = enter("192.0.2.1").unwrap();
        let _mapped = enter("::ffff:192.0.2.1").unwrap();
        assert_eq!(enter("192.0.2.2").unwrap_err(), Full::Server);
        drop(first);
        assert_eq!(enter("192.0.2.1").unwrap_err(), Full::Client);
        assert!(enter("2001:db8::3").is_ok());
        assert_eq!(connections.count(), 4);
    }

    #[test]
    fn a_client_that_left_is_forgotten() {
        let connections = Arc::new(Connections::new(MemoryBudget::new(1)));
        drop(connections.enter("192.0.2.1".parse().unwrap(), 1, 1));
        assert_eq!(connections.count(), 0);
        assert!(connections.lock().by_client.is_empty());
    }
}
