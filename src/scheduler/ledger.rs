//! Today's totals by source and site, on their way to the history.
//!
//! Pure: counts and the time go in, rows to write come out. A provider's site always has a row of its own, another one from
//! [`HISTORY_SITE_MIN`] messages a day on; all others of a source share the row "". Promises: the rows of a day add up to
//! what was counted, whatever is restarted, moves from the common row to one of its own, or finds no room here. At UTC midnight
//! the day is closed, and its rows are given out for the last time.
//!
//! Time does not go back: where the clock is set back over a midnight, counts go to the latest day seen, until the clock is there
//! again or the ledger is restored anew. Does not: know what a message is, or write anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::SiteName;
use crate::queue::HistoryRow;
use crate::types::{DayTotals, SourceName, Timestamp};

/// Messages that a source sends to a site on one day before that has a row of its own, where it is not a provider's.
pub const HISTORY_SITE_MIN: u32 = 20;
/// Rows of sites in memory, those of a day that was closed and not yet given out included. Full: what goes to further sites is
/// counted in the row "" of its source, which comes on top.
const LEDGER_MAX: usize = 100_000;

/// See the module.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Unix time / 24 h.
    day: u32,
    sources: BTreeMap<SourceName, SourceDay>,
    /// Sites of all sources.
    sites: usize,
    /// Of days that are over, by day and source.
    closed: Vec<HistoryRow>,
    /// Of days that come: written before the last restart by a clock that was ahead. As many as there were then.
    ahead: Vec<HistoryRow>,
    rows_max: usize,
}

/// What one source sent today.
#[derive(Clone, Debug, Default)]
struct SourceDay {
    sites: BTreeMap<SiteName, SiteDay>,
    /// Of sites that are not in `sites`: of those before the last restart only the sum is known, others found no room.
    others: DayTotals,
    /// The row "" as it was given out last.
    common: DayTotals,
    changed: bool,
}

/// What it sent to one site.
#[derive(Clone, Debug, Default)]
struct SiteDay {
    provider: Option<Arc<str>>,
    totals: DayTotals,
    /// It has a row of its own, for the rest of the day.
    has_row: bool,
    changed: bool,
}

impl Ledger {
    /// With the rows that were written before: of today, and of days to come, should the clock have been ahead. Those of days
    /// that are over are left out.
    pub fn restored(rows: impl IntoIterator<Item = HistoryRow>, now: Timestamp) -> Self {
        Self::with_room(LEDGER_MAX, rows, now)
    }

    fn with_room(rows_max: usize, rows: impl IntoIterator<Item = HistoryRow>, now: Timestamp) -> Self {
        let (day, ahead) = (now.utc_day(), rows.into_iter().collect());
        let mut ledger = Self { day, sources: BTreeMap::new(), sites: 0, closed: Vec::new(), ahead, rows_max };
        ledger.take_up();
        ledger
    }

    /// Goes on from what was written of this day before.
    fn take_up(&mut self) {
        let day = self.day;
        let (ahead, now): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.ahead).into_iter().filter(|row| row.day >= day).partition(|row| row.day > day);
        self.ahead = ahead;
        for row in now {
            let source = self.sources.entry(row.source).or_default();
            if row.site.is_empty() {
                (source.common, source.others) = (row.totals.clone(), row.totals);
            } else {
                let site = SiteDay { provider: row.provider, totals: row.totals, has_row: true, changed: false };
                let was = source.sites.insert(SiteName::new(&row.site), site);
                self.sites += usize::from(was.is_none());
            }
        }
    }

    /// The day that is being counted: Unix time / 24 h, UTC.
    pub fn day(&self) -> u32 {
        self.day
    }

    /// Counts what a source did at a site, which is that of a provider or of none. Cap and position are those of now.
    pub fn add(
        &mut self,
        site: &SiteName,
        source: &SourceName,
        provider: Option<&Arc<str>>,
        part: &DayTotals,
        now: Timestamp,
    ) {
        self.roll(now);
        let is_full = self.sites + self.closed.len() >= self.rows_max;
        // Names are cloned only where they are new.
        if !self.sources.contains_key(source) {
            self.sources.insert(source.clone(), SourceDay::default());
        }
        let Some(of_source) = self.sources.get_mut(source) else { return };
        of_source.changed = true;
        if let Some(of_site) = of_source.sites.get_mut(site) {
            of_site.provider = provider.or(of_site.provider.as_ref()).cloned();
            of_site.totals.add(part);
            of_site.changed = true;
        } else if is_full {
            of_source.others.add(&counts_of(part));
        } else {
            let of_site = SiteDay { provider: provider.cloned(), totals: part.clone(), has_row: false, changed: true };
            of_source.sites.insert(site.clone(), of_site);
            self.sites += 1;
        }
    }

    /// All rows that changed since they were given out last, by day and source: first what is left of days that are over, then today's.
    /// Those of one source are to be written as one.
    pub fn rows_to_write(&mut self, now: Timestamp) -> Vec<HistoryRow> {
        self.roll(now);
        let mut rows = std::mem::take(&mut self.closed);
        self.give_out(&mut rows);
        rows
    }

    /// Closes the day, where it is over.
    fn roll(&mut self, now: Timestamp) {
        let day = now.utc_day();
        if day <= self.day {
            return;
        }
        let mut closed = std::mem::take(&mut self.closed);
        self.give_out(&mut closed);
        self.closed = closed;
        self.sources.clear();
        self.sites = 0;
        self.day = day;
        self.take_up();
    }

    fn give_out(&mut self, rows: &mut Vec<HistoryRow>) {
        for (source, of_source) in &mut self.sources {
            if std::mem::take(&mut of_source.changed) {
                of_source.give_out(self.day, source, rows);
            }
        }
    }
}

impl SourceDay {
    fn give_out(&mut self, day: u32, source: &SourceName, rows: &mut Vec<HistoryRow>) {
        let mut common = self.others.clone();
        for (name, site) in &mut self.sites {
            site.has_row |= site.provider.is_some() || site.totals.sent >= HISTORY_SITE_MIN;
            let is_changed = std::mem::take(&mut site.changed);
            if !site.has_row {
                common.add(&counts_of(&site.totals));
            } else if is_changed {
                let (provider, totals) = (site.provider.clone(), site.totals.clone());
                rows.push(HistoryRow { day, source: source.clone(), site: Arc::clone(&name.0), provider, totals });
            }
        }
        // It shrinks where a site gets a row of its own.
        if common != self.common {
            self.common.clone_from(&common);
            let (source, site) = (source.clone(), Arc::from(""));
            rows.push(HistoryRow { day, source, site, provider: None, totals: common });
        }
    }
}

/// Without cap and position, which mean nothing for many sites together.
fn counts_of(totals: &DayTotals) -> DayTotals {
    DayTotals { cap: None, position: None, ..totals.clone() }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
