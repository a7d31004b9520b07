//! States of lanes on their way to the queue and back, and the events of what changed.

use tokio::sync::{mpsc, oneshot};

use super::dispatch::Input;
use crate::events::EventLine;
use crate::events::metric;
use crate::events::schema::{self, LaneChange, LaneInfo};
use crate::policy::lane::Change;
use crate::policy::reaction::ReactionKind;
use crate::queue::{self, LaneChanges, LaneRecord, Queue};
use crate::scheduler::{LaneEvent, LaneEventKind, LaneName, LaneSave, SavedLane, SiteName};
use crate::types::{PoolName, SourceName};

/// What stands in place of a site for what a source sent to all of them.
const ALL_SITES: &str = "";
/// The same for a pool: no site is named so.
const POOL_SITE: &str = "*pool*";

/// Under which source and site the state of a lane is kept.
fn key(name: &LaneName) -> Option<(SourceName, Box<str>)> {
    Some(match name {
        LaneName::Lane(site, source) => (source.clone(), site.as_str().into()),
        LaneName::Source(source) => (source.clone(), ALL_SITES.into()),
        LaneName::Pool(pool) => (SourceName::parse(pool.as_str())?, POOL_SITE.into()),
    })
}

/// The lane that a record is of.
pub fn saved(record: LaneRecord) -> Option<SavedLane> {
    let LaneRecord { source, site, state } = record;
    let name = match &*site {
        ALL_SITES => LaneName::Source(source),
        POOL_SITE => LaneName::Pool(PoolName::parse(source.as_str())?),
        site => LaneName::Lane(SiteName::new(site), source),
    };
    Some(SavedLane { name, state })
}

fn changes(save: LaneSave) -> (LaneChanges, Vec<LaneName>) {
    count(&save);
    let names = save.put.iter().map(|lane| lane.name.clone()).collect();
    let put = save.put.into_iter().filter_map(|lane| {
        let (source, site) = key(&lane.name)?;
        Some(LaneRecord { source, site, state: lane.state })
    });
    let changes = LaneChanges {
        put: put.collect(),
        remove: save.remove.iter().filter_map(key).collect(),
        events: save.events.iter().map(event).collect(),
        sync: save.urgent,
    };
    (changes, names)
}

/// For the metrics.
fn count(save: &LaneSave) {
    for event in &save.events {
        let change = match &event.kind {
            LaneEventKind::Lane(_, Change::Blocked { .. }) => "blocked",
            LaneEventKind::Lane(_, Change::BackedOff { .. }) => "backed_off",
            LaneEventKind::Lane(_, Change::Unblocked) => "unblocked",
            LaneEventKind::PoolBlocked(..) => "pool_blocked",
            LaneEventKind::PoolUnblocked(_) => "pool_unblocked",
        };
        metrics::counter!(metric::LANE_CHANGES, "change" => change).increment(1);
    }
}

/// Writes them; the dispatcher hears when they are on disk.
pub(super) async fn save(queue: &Queue, save: LaneSave, inputs: mpsc::Sender<Input>) {
    // Those of the last write, at the end, are not forgotten for want of room.
    if !save.remove.is_empty() {
        metrics::counter!(metric::LANES_FORGOTTEN).increment(save.remove.len() as u64);
    }
    let (changes, names) = changes(save);
    queue.save_lanes(changes, move || queue::tell(&inputs, Input::LanesSaved(names))).await;
}

/// Writes them and waits until they are on disk, or the queue has ended.
pub(super) async fn save_and_wait(queue: &Queue, save: LaneSave) {
    if save.put.is_empty() && save.remove.is_empty() && save.events.is_empty() {
        return;
    }
    let (done, ended) = oneshot::channel();
    let (changes, _) = changes(LaneSave { urgent: true, ..save });
    queue
        .save_lanes(changes, move || {
            // Nobody waits any more: then nobody is to be told.
            let _ = done.send(());
        })
        .await;
    // An error: the queue ended first, and says why.
    let _ = ended.await;
}

fn event(event: &LaneEvent) -> EventLine {
    let bare = LaneInfo {
        change: LaneChange::Unblocked,
        at: event.at,
        site: event.site.as_str(),
        source: None,
        pool: None,
        provider: event.provider.as_deref(),
        rule: None,
        reply: None,
        until: None,
        mode: None,
    };
    let info = match &event.kind {
        LaneEventKind::Lane(source, change) => {
            let bare = LaneInfo { source: Some(source.as_str()), ..bare };
            match change {
                Change::Blocked { until, rule, words } => LaneInfo {
                    change: LaneChange::Blocked,
                    rule: Some(rule),
                    reply: Some(words),
                    until: Some(*until),
                    ..bare
                },
                Change::BackedOff { until, rule, words, kind } => LaneInfo {
                    change: LaneChange::BackedOff,
                    rule: Some(rule),
                    reply: Some(words),
                    until: Some(*until),
                    mode: Some(mode(*kind)),
                    ..bare
                },
                Change::Unblocked => bare,
            }
        }
        LaneEventKind::PoolBlocked(pool, until) => {
            LaneInfo { change: LaneChange::PoolBlocked, pool: Some(pool.as_str()), until: Some(*until), ..bare }
        }
        LaneEventKind::PoolUnblocked(pool) => {
            LaneInfo { change: LaneChange::PoolUnblocked, pool: Some(pool.as_str()), ..bare }
        }
    };
    schema::lane(&info)
}

const fn mode(kind: ReactionKind) -> &'static str {
    match kind {
        ReactionKind::FewerConnections | ReactionKind::Connections(_) => "fewer-connections",
        ReactionKind::Slow(_) => "slowed",
        ReactionKind::Suspend | ReactionKind::Block => "suspended",
    }
}
