//! Measures what nobody else would: free space, the age of the oldest message, sizes of the scheduler's tables; looks at the token keys
//! once an hour, and lets the queue remove what it need not remember.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::Gauge;
use tokio_util::sync::CancellationToken;

use super::quotas;
use super::token_keys::TokenKeyFile;
use crate::admission::Directory;
use crate::admission::quota::Quotas;
use crate::delivery::dispatch::Dispatcher;
use crate::delivery::tallies::NO_PROVIDER;
use crate::events::metric;
use crate::policy::fleet_life::Life;
use crate::queue::Queue;
use crate::scheduler::explanation::{LaneCount, LaneCounts};
use crate::types::{Clock, PoolName, SourceName};

/// Between two looks at the file system: the reserve must be larger than what is accepted in this time.
const FREE_SPACE_EVERY: Duration = Duration::from_secs(1);
/// Looks at the file system between two refreshes of the other gauges.
const ROUNDS_PER_REFRESH: u32 = 5;

/// See the module.
pub(super) struct Watch {
    pub(super) queue: Queue,
    pub(super) dispatcher: Dispatcher,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) quotas: Arc<Quotas>,
    pub(super) admission: Arc<ArcSwap<Directory>>,
    pub(super) data_dir: PathBuf,
    pub(super) token_keys: Arc<TokenKeyFile>,
    pub(super) stop: CancellationToken,
    pub(super) lanes: LaneGauges,
}

/// Gauges of lanes that were shown: one whose lanes are gone must go to zero, or it would stay as it was. As many as there are sources,
/// times providers.
#[derive(Default)]
pub(super) struct LaneGauges {
    lanes: BTreeMap<(SourceName, Option<Arc<str>>), [Gauge; 11]>,
    pools: BTreeMap<PoolName, Gauge>,
    lives: BTreeMap<SourceName, [Gauge; 5]>,
}

impl LaneGauges {
    fn show(&mut self, counts: &LaneCounts) {
        for count in &counts.lanes {
            let key = (count.source.clone(), count.provider.clone());
            self.lanes.entry(key).or_insert_with_key(|(source, provider)| lane_gauges(source, provider.as_deref()));
        }
        for ((source, provider), gauges) in &self.lanes {
            let order = |count: &LaneCount| (&count.source, &count.provider).cmp(&(source, provider));
            let found = counts.lanes.binary_search_by(order).ok().and_then(|at| counts.lanes.get(at));
            let values = found.map_or([0; 11], |count| {
                let [running, slowed, frozen, paused] = count.warming.map(|lanes| lanes as u64);
                let [all, blocked, suspended, unreachable, fewer] =
                    [count.all, count.blocked, count.suspended, count.unreachable, count.slowed]
                        .map(|lanes| lanes as u64);
                let (cap, used) = (count.warmup_cap, count.warmup_used);
                [all, blocked, suspended, unreachable, fewer, running, slowed, frozen, paused, cap, used]
            });
            gauges.iter().zip(values).for_each(|(gauge, value)| gauge.set(value as f64));
        }
        for (pool, _) in &counts.pools_blocked {
            let gauge = || metrics::gauge!(metric::POOL_BLOCKED_SITES, "pool" => pool.to_string());
            self.pools.entry(pool.clone()).or_insert_with(gauge);
        }
        for (pool, gauge) in &self.pools {
            let sites = counts.pools_blocked.iter().find(|(other, _)| other == pool).map_or(0, |(_, sites)| *sites);
            gauge.set(sites as f64);
        }
        for standing in &counts.sources {
            self.lives.entry(standing.source.clone()).or_insert_with_key(life_gauges);
        }
        for (source, gauges) in &self.lives {
            let life = counts.sources.iter().find(|standing| standing.source == *source).map(|standing| standing.life);
            for (gauge, of) in gauges.iter().zip(Life::ALL) {
                gauge.set(if life == Some(of) { 1.0 } else { 0.0 });
            }
        }
        for (priority, jobs) in counts.ready {
            metrics::gauge!(metric::READY_BY_PRIORITY, "priority" => priority.name()).set(jobs as f64);
        }
    }
}

fn life_gauges(source: &SourceName) -> [Gauge; 5] {
    Life::ALL.map(|life| metrics::gauge!(metric::SOURCE_LIFE, "source" => source.to_string(), "life" => life.name()))
}

fn lane_gauges(source: &SourceName, provider: Option<&str>) -> [Gauge; 11] {
    let (source, provider) = (source.to_string(), provider.unwrap_or(NO_PROVIDER).to_owned());
    let held_back = |state: &'static str| {
        let (source, provider) = (source.clone(), provider.clone());
        metrics::gauge!(metric::LANES_HELD_BACK, "source" => source, "provider" => provider, "state" => state)
    };
    let [blocked, suspended, unreachable, slowed] = ["blocked", "suspended", "unreachable", "slowed"].map(held_back);
    let warming = |mode: &'static str| {
        let (source, provider) = (source.clone(), provider.clone());
        metrics::gauge!(metric::WARMUP_LANES, "source" => source, "provider" => provider, "mode" => mode)
    };
    let [running, warmup_slowed, frozen, paused] = ["running", "slowed", "frozen", "paused"].map(warming);
    let of_both =
        |name: &'static str| metrics::gauge!(name, "source" => source.clone(), "provider" => provider.clone());
    let [all, cap, used] = [metric::LANES, metric::WARMUP_CAP, metric::WARMUP_USED].map(of_both);
    [all, blocked, suspended, unreachable, slowed, running, warmup_slowed, frozen, paused, cap, used]
}

impl Watch {
    /// Runs until it is stopped.
    pub(super) async fn run(mut self) {
        let mut round = 0_u32;
        loop {
            self.measure_free_space().await;
            self.tend_token_keys().await;
            if round.is_multiple_of(ROUNDS_PER_REFRESH) {
                self.refresh().await;
            }
            round = round.wrapping_add(1);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(FREE_SPACE_EVERY) => {}
            }
        }
    }

    async fn measure_free_space(&self) {
        let directory = self.data_dir.clone();
        let measured = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&directory)).await;
        match measured {
            Ok(Ok(stat)) => self.queue.health().set_free_bytes(stat.f_bavail.saturating_mul(stat.f_frsize)),
            Ok(Err(error)) => {
                let directory = self.data_dir.display();
                tracing::error!(%directory, %error, "free space cannot be measured; intake goes by the last measure");
            }
            Err(error) => tracing::error!(%error, "free space measurement failed"),
        }
    }

    async fn tend_token_keys(&self) {
        if !self.token_keys.is_look_due() {
            return;
        }
        let token_keys = Arc::clone(&self.token_keys);
        if let Err(error) = tokio::task::spawn_blocking(move || token_keys.tend()).await {
            tracing::error!(%error, "the token keys could not be looked at");
        }
    }

    async fn refresh(&mut self) {
        let queue = self.queue.clone();
        let oldest = tokio::task::spawn_blocking(move || queue.messages(None, 1)).await;
        if let Ok(Ok(oldest)) = oldest {
            let now = self.clock.now();
            let age = oldest.first().map_or(Duration::ZERO, |id| now.since(id.accepted_at()));
            metrics::gauge!(metric::QUEUE_OLDEST_AGE).set(age.as_secs_f64());
        }
        if let Ok((totals, _)) = self.dispatcher.report(0).await {
            metrics::gauge!(metric::READY_DELIVERIES).set(totals.ready as f64);
            metrics::gauge!(metric::SITES).set(totals.sites as f64);
            metrics::gauge!(metric::SITES_BEHIND).set(totals.sites_behind as f64);
        }
        if let Ok(counts) = self.dispatcher.lane_counts().await {
            self.lanes.show(&counts);
        }
        quotas::measure(&self.quotas, &self.admission.load());
        metrics::gauge!(metric::EVENTS_PENDING).set(self.queue.outbox().pending() as f64);
        self.queue.sweep_sent().await;
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::scheduler::warmup::SourceStanding;
    use crate::types::Priority;

    #[test]
    fn lanes_that_are_gone_leave_zero_behind() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let lanes = LaneCount {
            source: SourceName::default(),
            provider: None,
            all: 3,
            blocked: 1,
            suspended: 0,
            unreachable: 0,
            slowed: 2,
            warming: [1, 0, 2, 0],
            warmup_cap: 500,
            warmup_used: 20,
        };
        let ready = Priority::ALL.map(|priority| (priority, 7));
        let standing =
            SourceStanding { source: SourceName::parse("a").unwrap(), life: Life::Resting, pool: None, since: None };
        let sources = vec![standing];
        let counts = LaneCounts { lanes: vec![lanes], pools_blocked: vec![(PoolName::default(), 1)], ready, sources };
        metrics::with_local_recorder(&recorder, || {
            let mut gauges = LaneGauges::default();
            gauges.show(&counts);
            let shown = handle.render();
            for line in [
                "posthaste_lanes{source=\"system\",provider=\"none\"} 3",
                "posthaste_lanes_held_back{source=\"system\",provider=\"none\",state=\"slowed\"} 2",
                "posthaste_pool_blocked_sites{pool=\"default\"} 1",
                "posthaste_warmup_lanes{source=\"system\",provider=\"none\",mode=\"frozen\"} 2",
                "posthaste_warmup_cap{source=\"system\",provider=\"none\"} 500",
                "posthaste_source_life{source=\"a\",life=\"resting\"} 1",
                "posthaste_source_life{source=\"a\",life=\"active\"} 0",
                "posthaste_ready_deliveries_by_priority{priority=\"bulk\"} 7",
            ] {
                assert!(shown.contains(line), "{line}\n{shown}");
            }
            gauges.show(&LaneCounts { lanes: Vec::new(), pools_blocked: Vec::new(), ready, sources: Vec::new() });
        });
        let shown = handle.render();
        assert!(shown.contains("posthaste_lanes{source=\"system\",provider=\"none\"} 0"), "{shown}");
        assert!(shown.contains("posthaste_pool_blocked_sites{pool=\"default\"} 0"), "{shown}");
        assert!(shown.contains("posthaste_source_life{source=\"a\",life=\"resting\"} 0"), "{shown}");
    }
}
