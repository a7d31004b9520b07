//! Which site gets the next connection where there are not enough for all.
//!
//! A site that is not known to work was never tried, or could not be reached at the last try. All of these together have at
//! most half of the connections: ten thousand dead hosts, of which each takes half a minute to fail, must not keep mail
//! from those that live. They stand in a line of their own; the two lines take turns, so that neither waits for ever.

use std::collections::VecDeque;

use super::{ConnectionId, Scheduler};
use crate::scheduler::{Action, SiteName};
use crate::types::Timestamp;

/// With fewer connections than these all sites share them: a half would be too little for anybody.
const HALVED_FROM: usize = 16;

/// Sites with ready jobs that could have another connection, if there were one.
#[derive(Debug, Default)]
pub(super) struct Line {
    proven: VecDeque<SiteName>,
    unproven: VecDeque<SiteName>,
    /// Whose turn comes next.
    unproven_next: bool,
    /// Connections of sites that are not known to work.
    pub(super) unproven_connections: usize,
}

impl Line {
    fn of(&mut self, proven: bool) -> &mut VecDeque<SiteName> {
        if proven { &mut self.proven } else { &mut self.unproven }
    }

    /// A site that stands in line turned out to work, or not to.
    pub(super) fn change_lines(&mut self, name: &SiteName, was_proven: bool) {
        self.of(was_proven).retain(|other| other != name);
        self.of(!was_proven).push_back(name.clone());
    }
}

impl Scheduler {
    /// Whether such a site may have one connection more.
    pub(super) fn may_connect(&self, proven: bool) -> bool {
        self.connections.len() < self.settings.connections_max && (proven || self.has_unproven_share())
    }

    /// Whether the sites that are not known to work have less than their share.
    fn has_unproven_share(&self) -> bool {
        let max = self.settings.connections_max;
        self.line.unproven_connections < if max < HALVED_FROM { max } else { max / 2 }
    }

    /// Puts a site into its line, unless it stands there.
    pub(super) fn stand_in_line(&mut self, name: &SiteName) {
        let Some(site) = self.sites.get_mut(name) else { return };
        let proven = site.is_proven();
        if !std::mem::replace(&mut site.in_line, true) {
            self.line.of(proven).push_back(name.clone());
        }
    }

    /// Serves the sites that wait for a connection; makes room by closing one idle connection of another site each.
    pub(super) fn serve_line(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        for _ in 0..self.line.proven.len() + self.line.unproven.len() {
            let Some(name) = self.next_in_line() else { break };
            if let Some(site) = self.sites.get_mut(&name) {
                site.in_line = false;
            }
            self.serve(&name, now, actions);
        }
        self.close_one_idle(actions);
    }

    fn next_in_line(&mut self) -> Option<SiteName> {
        let unproven_first = self.line.unproven_next;
        [!unproven_first, unproven_first].into_iter().find_map(|proven| {
            let may_connect = self.may_connect(proven);
            let name = self.line.of(proven).pop_front_if(|_| may_connect)?;
            // Only who was served loses the turn.
            self.line.unproven_next = proven;
            Some(name)
        })
    }

    /// Makes room for the first site in line, unless there is room or a connection is closing for it already.
    pub(super) fn close_one_idle(&mut self, actions: &mut Vec<Action>) {
        if self.connections.len() < self.settings.connections_max {
            return;
        }
        let unproven = if self.has_unproven_share() { self.line.unproven.len() } else { 0 };
        if self.closing >= self.line.proven.len() + unproven {
            return;
        }
        if let Some(id) = self.idle.first().copied() {
            self.close(id, actions);
        }
    }

    /// Tells a connection to close; it counts until it has.
    pub(super) fn close(&mut self, id: ConnectionId, actions: &mut Vec<Action>) {
        let Some(connection) = self.connections.get_mut(&id).filter(|connection| !connection.closing) else { return };
        connection.closing = true;
        self.closing += 1;
        let lane = self.sites.get_mut(&connection.site).and_then(|site| site.lane_mut(connection.source));
        if let Some(entry) = lane {
            entry.closing += 1;
        }
        self.take_idle(id);
        actions.push(Action::Close(id));
    }
}
