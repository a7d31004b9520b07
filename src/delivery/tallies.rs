//! What became of recipients by source, provider and class, for the metrics. Labels are names of the config and words of our own:
//! there are as many counters as sources times providers that mail went to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::events::metric;
use crate::policy::{BounceClass, Disposition};
use crate::scheduler::settlement::Fate;
use crate::types::SourceName;

/// The provider of sites of none, in labels.
pub const NO_PROVIDER: &str = "none";

/// A source at sites of a provider.
type Sender = (SourceName, Option<Arc<str>>);
/// What deferred mail at sites of a provider.
type Deferral = (Option<Arc<str>>, BounceClass);

/// The counters that are in use: looking one up by its labels costs more than all else here.
#[derive(Default)]
pub(super) struct Tallies {
    outcomes: Mutex<HashMap<Sender, [metrics::Counter; 3]>>,
    deferrals: Mutex<HashMap<Deferral, metrics::Counter>>,
}

impl Tallies {
    /// Counts the fates of an attempt at a site of this provider. What did not go by a source is not counted.
    pub(super) fn add(&self, provider: Option<&Arc<str>>, fates: &[Fate]) {
        let tried = |fate: &&Fate| fate.way.source_name.is_some();
        let Some(source) = fates.iter().find_map(|fate| fate.way.source_name.as_ref()) else { return };
        let mut sums = [0_u64; 3];
        for fate in fates.iter().filter(tried) {
            let [delivered, deferred, bounced] = &mut sums;
            *match fate.verdict.disposition {
                Disposition::Delivered => delivered,
                Disposition::Deferred => deferred,
                Disposition::Bounced => bounced,
            } += 1;
        }
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        let counters =
            outcomes.entry((source.clone(), provider.cloned())).or_insert_with(|| outcome_counters(source, provider));
        for (counter, sum) in counters.iter().zip(sums).filter(|(_, sum)| *sum > 0) {
            counter.increment(sum);
        }
        drop(outcomes);
        let is_deferred = |fate: &&Fate| fate.verdict.disposition == Disposition::Deferred;
        for fate in fates.iter().filter(tried).filter(is_deferred) {
            let class = fate.verdict.class;
            let mut deferrals = self.deferrals.lock().unwrap_or_else(PoisonError::into_inner);
            let counter = deferrals.entry((provider.cloned(), class)).or_insert_with(
                || metrics::counter!(metric::DEFERRALS, "provider" => label(provider), "class" => class.name()),
            );
            counter.increment(1);
        }
    }
}

fn outcome_counters(source: &SourceName, provider: Option<&Arc<str>>) -> [metrics::Counter; 3] {
    ["delivered", "deferred", "bounced"].map(|outcome| {
        let (source, provider) = (source.to_string(), label(provider));
        metrics::counter!(metric::SOURCE_OUTCOMES, "source" => source, "provider" => provider, "outcome" => outcome)
    })
}

fn label(provider: Option<&Arc<str>>) -> String {
    provider.map_or(NO_PROVIDER, |name| name).to_owned()
}
