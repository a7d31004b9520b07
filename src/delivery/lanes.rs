//! States of lanes on their way to the queue and back, and the events of what changed.

use tokio::sync::{mpsc, oneshot};

use super::dispatch::Input;
use crate::events::EventLine;
use crate::events::metric;
use crate::events::schema::{self, LaneChange, LaneInfo};
use crate::policy::fleet_life::LifeState;
use crate::policy::lane::Change;
use crate::policy::reaction::ReactionKind;
use crate::policy::warmup::WarmupChange;
use crate::queue::{self, LaneChanges, LaneRecord, Queue};
use crate::scheduler::{HistorySave, LaneEvent, LaneEventKind, LaneName, LaneSave, LifeSave, SavedLane, SiteName};
use crate::types::{PoolName, SourceName};

/// What stands in place of a site for what a source sent to all of them.
const ALL_SITES: &str = "";
/// The same for a pool: no site is named so.
const POOL_SITE: &str = "*pool*";
/// What stands before a site for what a configuration set sent to it.
const SET_SITE: &str = "*set*";

/// Under which source and site the state of a lane is kept.
fn key(name: &LaneName) -> Option<(SourceName, Box<str>)> {
    Some(match name {
        LaneName::Lane(site, source) => (source.clone(), site.as_str().into()),
        LaneName::Source(source) => (source.clone(), ALL_SITES.into()),
        LaneName::Pool(pool) => (SourceName::parse(pool.as_str())?, POOL_SITE.into()),
        LaneName::Set(site, set) => (SourceName::parse(set)?, format!("{SET_SITE}{site}").into()),
    })
}

/// The lane that a record is of.
pub fn saved(record: LaneRecord) -> Option<SavedLane> {
    let LaneRecord { source, site, state } = record;
    let name = match &*site {
        ALL_SITES => LaneName::Source(source),
        POOL_SITE => LaneName::Pool(PoolName::parse(source.as_str())?),
        site if site.starts_with(SET_SITE) => {
            let site = site.strip_prefix(SET_SITE).unwrap_or(site);
            LaneName::Set(SiteName::new(site), source.as_str().into())
        }
        site => LaneName::Lane(SiteName::new(site), source),
    };
    Some(SavedLane { name, state })
}

fn changes(save: LaneSave) -> (LaneChanges, Vec<LaneName>) {
    count(&save.events);
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
fn count(events: &[LaneEvent]) {
    for event in events {
        let change = match &event.kind {
            LaneEventKind::Lane(_, change) | LaneEventKind::Set(_, change) => match change {
                Change::Blocked { .. } => "blocked",
                Change::BackedOff { .. } => "backed_off",
                Change::Unblocked => "unblocked",
                Change::WarmUp(change) => {
                    metrics::counter!(metric::WARMUP_CHANGES, "change" => change.name()).increment(1);
                    continue;
                }
            },
            LaneEventKind::PoolBlocked(..) => "pool_blocked",
            LaneEventKind::PoolUnblocked(_) => "pool_unblocked",
            LaneEventKind::Life(_, change) => change.name(),
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

/// Writes which sources managed pools use, and tells of it.
pub(super) async fn save_lives(queue: &Queue, save: LifeSave) {
    count(&save.events);
    queue.save_source_life(&save.lives, save.events.iter().map(event).collect()).await;
}

/// Writes what was counted. Nobody waits for it: what a crash loses is a minute of statistics.
pub(super) async fn save_history(queue: &Queue, save: HistorySave) {
    if !save.rows.is_empty() {
        queue.save_history(&save.rows).await;
    }
    if let Some(day) = save.prune_before {
        queue.prune_history(day).await;
    }
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
    let bare = |change| LaneInfo {
        site: Some(event.site.as_str()).filter(|site| !site.is_empty()),
        provider: event.provider.as_deref(),
        ..LaneInfo::new(change, event.at)
    };
    match &event.kind {
        LaneEventKind::Lane(source, change) => {
            told(change, |change| LaneInfo { source: Some(source.as_str()), ..bare(change) })
        }
        LaneEventKind::Set(set, change) => {
            told(change, |change| LaneInfo { configuration_set: Some(set), ..bare(change) })
        }
        LaneEventKind::PoolBlocked(pool, until) => {
            let bare = bare(LaneChange::PoolBlocked);
            schema::lane(&LaneInfo { pool: Some(pool.as_str()), until: Some(*until), ..bare })
        }
        LaneEventKind::Life(pool, change) => {
            let kind =
                if change.to == LifeState::Active { LaneChange::SourceActivated } else { LaneChange::SourceRested };
            let (source, text) = (Some(change.source.as_str()), Some(&*change.reason));
            schema::lane(&LaneInfo { source, pool: Some(pool.as_str()), text, ..bare(kind) })
        }
        LaneEventKind::PoolUnblocked(pool) => {
            schema::lane(&LaneInfo { pool: Some(pool.as_str()), ..bare(LaneChange::PoolUnblocked) })
        }
    }
}

/// The event of a change; `bare`: whose it is.
fn told<'a>(change: &'a Change, bare: impl FnOnce(LaneChange) -> LaneInfo<'a>) -> EventLine {
    match change {
        Change::Blocked { until, rule, words } => schema::lane(&LaneInfo {
            rule: Some(rule),
            reply: Some(words),
            until: Some(*until),
            ..bare(LaneChange::Blocked)
        }),
        Change::BackedOff { until, rule, words, kind } => schema::lane(&LaneInfo {
            rule: Some(rule),
            reply: Some(words),
            until: Some(*until),
            mode: Some(mode(*kind)),
            ..bare(LaneChange::BackedOff)
        }),
        Change::Unblocked => schema::lane(&bare(LaneChange::Unblocked)),
        Change::WarmUp(change) => {
            let text = change.text();
            let (position, cap, until) = match change {
                WarmupChange::Advanced { from, to, cap } => (Some((*from, *to)), Some(*cap), None),
                WarmupChange::SteppedBack { from, to, .. }
                | WarmupChange::Decayed { from, to }
                | WarmupChange::Set { from, to } => (Some((*from, *to)), None, None),
                WarmupChange::Frozen { until, .. } => (None, None, Some(*until)),
                _ => (None, None, None),
            };
            // The text lives here: what is borrowed from the change lives longer.
            let info: LaneInfo<'_> = bare(kind_of(change));
            schema::lane(&LaneInfo { text: Some(&text), position, cap, until, ..info })
        }
    }
}

const fn kind_of(change: &WarmupChange) -> LaneChange {
    match change {
        WarmupChange::Advanced { .. } => LaneChange::WarmupAdvanced,
        WarmupChange::Slowed { .. } => LaneChange::WarmupSlowed,
        WarmupChange::Frozen { .. } => LaneChange::WarmupFrozen,
        WarmupChange::Recovered => LaneChange::WarmupRecovered,
        WarmupChange::SteppedBack { .. } => LaneChange::WarmupSteppedBack,
        WarmupChange::Decayed { .. } => LaneChange::WarmupDecayed,
        WarmupChange::Over => LaneChange::WarmupOver,
        WarmupChange::Paused => LaneChange::WarmupPaused,
        WarmupChange::Resumed => LaneChange::WarmupResumed,
        WarmupChange::Set { .. } => LaneChange::WarmupSet,
    }
}

const fn mode(kind: ReactionKind) -> &'static str {
    match kind {
        ReactionKind::FewerConnections | ReactionKind::Connections(_) => "fewer-connections",
        ReactionKind::Slow(_) => "slowed",
        ReactionKind::Suspend | ReactionKind::Block => "suspended",
    }
}
