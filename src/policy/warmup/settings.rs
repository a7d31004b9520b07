//! Who warms up by which plan, as the config says. A value does not change; a reload puts a new one in its place.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Plan;
use crate::types::SourceName;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Warmups {
    /// The plan of each source that warms up.
    pub sources: BTreeMap<SourceName, Arc<Plan>>,
    /// Where in its plan a source begins at a site that it has sent nothing to, by a number above 1.
    pub first_days: BTreeMap<SourceName, u32>,
    /// The plan of each configuration set that does, by name.
    pub sets: BTreeMap<Box<str>, Arc<Plan>>,
    /// Plans that hold at the sites of a provider in place of the source's or set's, by the provider's name.
    pub providers: BTreeMap<Box<str>, Arc<Plan>>,
}

impl Warmups {
    /// The plan of a source at a site of this provider; `None`: it does not warm up.
    pub fn of_source(&self, source: &SourceName, provider: Option<&str>) -> Option<&Arc<Plan>> {
        let plan = self.sources.get(source)?;
        Some(self.at(provider).unwrap_or(plan))
    }

    /// The plan of a configuration set at a site of this provider; `None`: it does not warm up.
    pub fn of_set(&self, set: &str, provider: Option<&str>) -> Option<&Arc<Plan>> {
        let plan = self.sets.get(set)?;
        Some(self.at(provider).unwrap_or(plan))
    }

    fn at(&self, provider: Option<&str>) -> Option<&Arc<Plan>> {
        provider.and_then(|provider| self.providers.get(provider))
    }
}
