//! How one source can take a job now.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::policy::lane::{Cause, Wait};
use crate::scheduler::fleet::{Fleet, SourceId};
use crate::scheduler::sites::LaneEntry;
use crate::scheduler::{ConnectionId, LaneName, SiteName};
use crate::types::{PoolName, Timestamp};

/// How long a site waits for a limit of a pool or source as a whole, or for room for a lane, before it looks again.
pub(super) const METER_PAUSE: Duration = Duration::from_secs(1);

/// How a lane can take a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Means {
    /// On a connection that is idle.
    Idle(ConnectionId),
    /// On a new connection.
    New,
    /// Once this connection, which leads to other hosts, is closed.
    Swap(ConnectionId),
    /// Not before one of its connections has ended.
    Full,
    /// Not before that time.
    Closed(Timestamp),
}

/// Where a lane is looked at, and for what.
pub(super) struct Place<'a> {
    pub(super) site: &'a SiteName,
    pub(super) pool: &'a PoolName,
    pub(super) hosts: &'a SiteName,
    pub(super) may_open: bool,
}

/// How a source can take a job now. What must be on disk before it can is noted in `dirty`.
pub(super) fn look(
    lanes: &mut [LaneEntry],
    fleet: &mut Fleet,
    source: SourceId,
    place: &Place<'_>,
    dirty: &mut BTreeSet<LaneName>,
    now: Timestamp,
) -> Means {
    for (key, meter) in fleet.meters(source, place.pool) {
        if let Err(wait) = meter.lane.admits(1, now) {
            if wait.cause == Cause::Saving {
                dirty.insert(key.lane_name());
            }
            // What ends at another site may make room.
            let until = if wait.until == Timestamp::MAX { now.plus(METER_PAUSE) } else { wait.until };
            return Means::Closed(until);
        }
    }
    let Ok(at) = lanes.binary_search_by_key(&source, |entry| entry.source) else {
        return if place.may_open { Means::New } else { Means::Full };
    };
    let Some(entry) = lanes.get_mut(at) else { return Means::Full };
    let window = entry.lane.window(now);
    if window == 0 {
        return Means::Closed(entry.lane.closed_until(now).unwrap_or(now.plus(METER_PAUSE)));
    }
    match entry.lane.admits(1, now) {
        Ok(_) => {}
        Err(Wait { cause: Cause::Saving, .. }) => {
            dirty.insert(LaneName::Lane(place.site.clone(), fleet.name(source)));
            return Means::Full;
        }
        // As soon as a message ends.
        Err(Wait { cause: Cause::Rate(_), until: Timestamp::MAX }) => return Means::Full,
        Err(wait) => return Means::Closed(wait.until),
    }
    if let Some((idle, _)) = entry.idle.iter().rev().find(|(_, hosts)| hosts == place.hosts) {
        return Means::Idle(*idle);
    }
    if entry.connections < window && place.may_open {
        return Means::New;
    }
    // The one that was not used for longest; one at a time.
    let idle = if entry.closing == 0 { entry.idle.first() } else { None };
    idle.map_or(Means::Full, |(idle, _)| Means::Swap(*idle))
}
