//! How warm-ups and sources stand, as plain data for operators.

use std::sync::Arc;

use super::{LaneName, SiteName};
use crate::policy::fleet_life::Life;
use crate::policy::lane::Lane;
use crate::policy::warmup::WarmupReport;
use crate::types::{PoolName, SourceName, Timestamp};

/// Whose warm-up is meant. Nothing: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WarmupFilter {
    /// Of one source.
    pub source: Option<SourceName>,
    /// Of one configuration set.
    pub set: Option<Box<str>>,
    /// At one site, or all sites of a provider, by name.
    pub site: Option<Box<str>>,
}

impl WarmupFilter {
    /// Whether it means this one, at a site of this provider.
    pub(super) fn matches(&self, name: &LaneName, provider: Option<&str>) -> bool {
        let (site, source, set) = match name {
            LaneName::Lane(site, source) => (site, Some(source), None),
            LaneName::Set(site, set) => (site, None, Some(set)),
            LaneName::Source(_) | LaneName::Pool(_) => return false,
        };
        let is_site = |wanted: &str| site.as_str() == wanted || provider == Some(wanted);
        self.source.as_ref().is_none_or(|wanted| source == Some(wanted))
            && self.set.as_ref().is_none_or(|wanted| set == Some(wanted))
            && self.site.as_deref().is_none_or(is_site)
    }
}

/// A source or configuration set at a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmupEntry {
    /// The source.
    pub source: Option<SourceName>,
    /// Or the set.
    pub set: Option<Box<str>>,
    /// Where.
    pub site: SiteName,
    /// The provider whose rule the site is under.
    pub provider: Option<Arc<str>>,
    /// How it stands.
    pub report: WarmupReport,
    /// When more may be sent, where nothing may now.
    pub next_at: Option<Timestamp>,
}

impl WarmupEntry {
    /// That of a lane, where it warms up and is meant.
    pub(super) fn of(
        name: &LaneName,
        provider: Option<&Arc<str>>,
        lane: &Lane,
        filter: &WarmupFilter,
        now: Timestamp,
    ) -> Option<Self> {
        if !filter.matches(name, provider.map(|provider| &**provider)) {
            return None;
        }
        let report = lane.warmup(now)?;
        let next_at = lane.warmup_waits_until(now);
        let (site, source, set) = match name {
            LaneName::Lane(site, source) => (site, Some(source.clone()), None),
            LaneName::Set(site, set) => (site, None, Some(set.clone())),
            LaneName::Source(_) | LaneName::Pool(_) => return None,
        };
        Some(Self { source, set, site: site.clone(), provider: provider.cloned(), report, next_at })
    }
}

/// A source of the config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceStanding {
    /// Which.
    pub source: SourceName,
    /// Its place in its life.
    pub life: Life,
    /// The pool that manages it.
    pub pool: Option<PoolName>,
    /// Since when that has it so.
    pub since: Option<Timestamp>,
}
