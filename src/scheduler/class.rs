//! Whose mail a job is, by which pool it goes and how urgent it is: what site queues are keyed by and fair about.

use std::sync::Arc;

use super::Set;
use crate::queue::{DueEntry, StoredMessage};
use crate::types::{PoolName, Priority};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Class {
    /// The pool that it was accepted for.
    pub(super) pool: PoolName,
    /// Lower goes first.
    pub(super) priority: Priority,
    /// Whose it is; empty: ours.
    pub(super) tenant: Box<str>,
    /// Its configuration set, if that warmed up when it was accepted; otherwise empty.
    pub(super) set: Box<str>,
    /// It goes by a source that warms up, where one has room.
    pub(super) prefers_warming: bool,
}

impl Class {
    /// That of a due entry.
    pub(super) fn of(entry: &DueEntry) -> Self {
        let pool = PoolName::parse(&entry.pool).unwrap_or_default();
        Self {
            pool,
            priority: Priority::from_code(entry.priority),
            tenant: entry.tenant.as_str().into(),
            set: entry.set.as_str().into(),
            prefers_warming: entry.prefers_warming,
        }
    }
}

/// Each class once: a job holds a pointer.
#[derive(Debug, Default)]
pub(super) struct Classes(Set<Arc<Class>>);

impl Classes {
    /// The class of a due entry.
    pub(super) fn of(&mut self, entry: &DueEntry) -> Arc<Class> {
        self.one(Class::of(entry))
    }

    /// The class of a message that was accepted: that of its due entries.
    pub(super) fn of_message(&mut self, message: &StoredMessage) -> Arc<Class> {
        let origin = &message.origin;
        self.one(Class {
            pool: origin.pool.clone(),
            priority: origin.priority,
            tenant: origin.tenant.clone(),
            set: origin.warming_set().into(),
            prefers_warming: origin.prefers_warming,
        })
    }

    fn one(&mut self, class: Class) -> Arc<Class> {
        if let Some(known) = self.0.get(&class) {
            return Arc::clone(known);
        }
        let class = Arc::new(class);
        self.0.insert(Arc::clone(&class));
        class
    }

    /// Drops those that nobody has.
    pub(super) fn forget(&mut self) {
        self.0.retain(|class| Arc::strong_count(class) > 1);
    }
}
