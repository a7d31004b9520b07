//! Which tenants and configuration sets are paused while the daemon runs, beside those that the config stops: for their
//! bounces and complaints, or by an operator.
//!
//! Shared by all directories, so that a reload changes nothing. Does not: decide, or keep it over a restart.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use crate::types::{ReputationScope, ScopeKind};

/// See the module.
#[derive(Debug, Default)]
pub struct Pauses(RwLock<Paused>);

#[derive(Debug, Default)]
struct Paused {
    tenants: HashSet<Arc<str>>,
    sets: HashSet<Arc<str>>,
}

impl Pauses {
    /// These are paused from now on, and no others.
    pub fn replace<'a>(&self, scopes: impl Iterator<Item = &'a ReputationScope>) {
        let mut paused = Paused::default();
        for scope in scopes {
            let names = match scope.kind {
                ScopeKind::Tenant => &mut paused.tenants,
                ScopeKind::ConfigurationSet => &mut paused.sets,
                _ => continue,
            };
            names.insert(Arc::clone(&scope.name));
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = paused;
    }

    /// Whether mail of this tenant is refused.
    pub fn has_tenant(&self, name: &str) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).tenants.contains(name)
    }

    /// Whether mail by this configuration set is.
    pub fn has_set(&self, name: &str) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).sets.contains(name)
    }
}
