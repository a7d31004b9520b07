//! Gauges of reputation. Labels are names of the config: those of credentials and identities, which can be many, are not shown
//! one by one.

use std::collections::BTreeMap;

use metrics::Gauge;

use crate::events::metric;
use crate::policy::reputation::{Judge, Row, Settings, Standing, State};
use crate::types::{ReputationScope, ScopeKind, Timestamp};

/// Gauges that were shown: one whose scope is gone goes to zero, or it would stay as it was.
#[derive(Default)]
pub(super) struct Gauges {
    rates: BTreeMap<ReputationScope, [Gauge; 3]>,
}

impl Gauges {
    pub(super) fn show(&mut self, judge: &Judge, settings: &Settings, now: Timestamp) {
        let mut counts: BTreeMap<(ScopeKind, State), u64> = BTreeMap::new();
        for kind in ScopeKind::ALL.into_iter().filter(|kind| *kind != ScopeKind::TenantSet) {
            counts.extend(State::ALL.map(|state| ((kind, state), 0)));
        }
        let mut values: BTreeMap<ReputationScope, [f64; 3]> = BTreeMap::new();
        for (scope, standing) in judge.standings() {
            *counts.entry((scope.kind, standing.state())).or_default() += 1;
        }
        let has_own =
            |scope: &ReputationScope, _: &Standing| !matches!(scope.kind, ScopeKind::Credential | ScopeKind::Identity);
        for Row { scope, standing, rates, .. } in judge.rows(settings, now, has_own) {
            let [bounces, complaints] =
                [rates.bounces, rates.complaints].map(|share| f64::from(share.millionths()) / 1e6);
            let is_paused = if standing.pause.is_some() { 1.0 } else { 0.0 };
            values.insert(scope, [bounces, complaints, is_paused]);
        }
        for scope in values.keys() {
            self.rates.entry(scope.clone()).or_insert_with_key(gauges);
        }
        for (scope, gauges) in &self.rates {
            let values = values.get(scope).copied().unwrap_or_default();
            gauges.iter().zip(values).for_each(|(gauge, value)| gauge.set(value));
        }
        for ((kind, state), count) in counts {
            metrics::gauge!(metric::REPUTATION_SCOPES, "scope" => kind.name(), "state" => state.name())
                .set(count as f64);
        }
    }
}

fn gauges(scope: &ReputationScope) -> [Gauge; 3] {
    [metric::REPUTATION_BOUNCE_RATE, metric::REPUTATION_COMPLAINT_RATE, metric::REPUTATION_PAUSED]
        .map(|name| metrics::gauge!(name, "scope" => scope.kind.name(), "name" => scope.name.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::types::{Hour, Mark};

    #[test]
    fn names_of_tenants_and_sets_are_shown_and_those_of_credentials_are_counted_only() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let (settings, now) = (Arc::new(Settings::default()), Timestamp::from_millis(1_700_000_000_000));
        let mut judge = Judge::default();
        for kind in [ScopeKind::Tenant, ScopeKind::Credential] {
            let scope = ReputationScope::new(kind, "shop");
            assert!(judge.mark(&scope, Hour::of(now), Mark::Delivered, 750));
            assert!(judge.mark(&scope, Hour::of(now), Mark::HardBounce, 250));
        }
        assert_eq!(judge.judge(&settings, now).len(), 2);
        metrics::with_local_recorder(&recorder, || {
            let mut gauges = Gauges::default();
            gauges.show(&judge, &settings, now);
            let shown = handle.render();
            for line in [
                "posthaste_reputation_bounce_rate{scope=\"tenant\",name=\"shop\"} 0.25",
                "posthaste_reputation_complaint_rate{scope=\"tenant\",name=\"shop\"} 0",
                "posthaste_reputation_paused{scope=\"tenant\",name=\"shop\"} 1",
                "posthaste_reputation_scopes{scope=\"tenant\",state=\"paused\"} 1",
                "posthaste_reputation_scopes{scope=\"credential\",state=\"critical\"} 1",
                "posthaste_reputation_scopes{scope=\"pool\",state=\"paused\"} 0",
            ] {
                assert!(shown.contains(line), "{line}\n{shown}");
            }
            assert!(!shown.contains("scope=\"credential\",name="), "{shown}");
            gauges.show(&Judge::default(), &settings, now);
        });
        let shown = handle.render();
        assert!(shown.contains("posthaste_reputation_paused{scope=\"tenant\",name=\"shop\"} 0"), "{shown}");
    }
}
