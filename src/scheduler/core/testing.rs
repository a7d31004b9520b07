//! A small world for tests of the scheduler: what it does, told in words.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::policy::lane::Health;
use crate::policy::limits::LaneLimits;
use crate::queue::{DueEntry, DuePage, RecipientHeaders, StoredBody, StoredMessage};
use crate::scheduler::LaneEventKind;
use crate::types::{BodyKind, EmailAddress, Envelope, MessageId, Recipient, ReversePath};

pub(super) fn due_again(at: Timestamp, attempts: u32) -> Settled {
    Settled::Due { at, attempts, source: None, blocked: false }
}

pub(super) const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);

pub(super) struct World {
    pub(super) scheduler: Scheduler,
    pub(super) now: Timestamp,
    pub(super) actions: Vec<Action>,
    pub(super) next_id: u128,
}

/// What a message of these tests takes: ten octets of body and one recipient.
pub(super) const PAYLOAD_BYTES: usize = 710;

pub(super) fn settings() -> Settings {
    Settings {
        jobs_max: 100_000,
        body_cache_bytes: 100 * PAYLOAD_BYTES,
        connections_max: 10,
        limits: LaneLimits { connections: 2, ..LaneLimits::default() },
        recipients_per_transaction_max: 50,
        delay_notices: vec![Duration::from_secs(3_600)],
        ..Settings::default()
    }
}

impl World {
    pub(super) fn new(settings: Settings) -> Self {
        Self::restored(settings, Vec::new(), false)
    }

    /// With lanes from before a restart.
    pub(super) fn restored(settings: Settings, saved: Vec<SavedLane>, unclean: bool) -> Self {
        let scheduler = Scheduler::new(settings, None, saved, unclean, NOW);
        let mut world = Self { scheduler, now: NOW, actions: Vec::new(), next_id: 0 };
        // The first page: the queue is empty.
        world.scheduler.tick(NOW, &mut world.actions);
        assert!(matches!(world.actions.pop(), Some(Action::PageIn { from: crate::queue::DueKey::START, .. })));
        world.scheduler.paged(DuePage { jobs: Vec::new(), next: None, damaged: Vec::new() }, NOW, &mut world.actions);
        world
    }

    /// What the next saves of lanes tell of; they are on disk at once.
    pub(super) fn saved_events(&mut self) -> Vec<LaneEventKind> {
        let mut events = Vec::new();
        for action in std::mem::take(&mut self.actions) {
            let Action::SaveLanes(save) = action else {
                self.actions.push(action);
                continue;
            };
            events.extend(save.events.into_iter().map(|event| event.kind));
            let names: Vec<LaneName> = save.put.iter().map(|saved| saved.name.clone()).collect();
            self.scheduler.lanes_saved(&names, self.now, &mut self.actions);
        }
        events
    }

    /// Everything that is given out goes well at once; saves take no time. How many transactions there were.
    pub(super) fn run_lanes(&mut self, span: Duration) -> u32 {
        let (end, mut sent) = (self.now.plus(span), 0);
        while self.now < end {
            self.scheduler.flush_lanes(self.now, &mut self.actions);
            self.saved_events();
            for action in std::mem::take(&mut self.actions) {
                if let Action::Open { connection, jobs, .. } | Action::Assign { connection, jobs, .. } = action {
                    sent += 1;
                    for job in jobs {
                        self.scheduler.settled(job.key, Settled::Out, self.now, &mut self.actions);
                    }
                    self.idle(connection, Report::of(Health::Good));
                }
            }
            if self.actions.is_empty() {
                self.advance(Duration::from_secs(1));
            }
        }
        sent
    }

    pub(super) fn accept(&mut self, domains: &[&str]) -> MessageId {
        self.next_id += 1;
        let id = MessageId::new(self.now, self.next_id);
        let recipient = |domain: &&str| Recipient {
            address: EmailAddress::parse(&format!("user@{domain}"), false).unwrap(),
            notify: None,
            orcpt: None,
        };
        let domains_parsed: Vec<Domain> = domains.iter().map(|domain| Domain::parse(domain).unwrap()).collect();
        let message = StoredMessage {
            id,
            accepted_at: self.now,
            expires_at: self.now.plus(Duration::from_secs(86_400)),
            envelope: Envelope {
                reverse_path: ReversePath::Null,
                recipients: domains.iter().map(recipient).collect(),
                body: BodyKind::SevenBit,
                smtputf8: false,
                ret: None,
                envid: None,
            },
            groups: (0..u16::try_from(domains.len()).unwrap()).collect(),
            states: vec![None; domains.len()],
            domains: domains_parsed,
            header_bytes: 0,
            body_bytes: 10,
            body_parts: 0,
            recipient_headers: false,
            origin: crate::queue::Origin { caller: "test".into(), ..Default::default() },
            mail_json: Bytes::new(),
        };
        let body = StoredBody::Inline(Bytes::from_static(b"0123456789"));
        let handoff = Handoff {
            message: Arc::new(message),
            body,
            recipient_headers: RecipientHeaders::default(),
            due_at: self.now,
        };
        self.scheduler.accepted(handoff, self.now, &mut self.actions);
        id
    }

    pub(super) fn resolve(&mut self, domain: &str, site: &str) {
        let expires_at = self.now.plus(Duration::from_secs(600));
        let domain = Domain::parse(domain).unwrap();
        self.scheduler.resolved(
            &domain,
            Destination::of_hosts(SiteName::new(site), expires_at),
            self.now,
            &mut self.actions,
        );
    }

    pub(super) fn idle(&mut self, connection: ConnectionId, feedback: Report) {
        self.scheduler.connection_idle(connection, feedback, self.now, &mut self.actions);
    }

    pub(super) fn settle(&mut self, id: MessageId, settled: Settled) {
        self.scheduler.settled(JobKey { id, group: 0 }, settled, self.now, &mut self.actions);
    }

    pub(super) fn advance(&mut self, span: Duration) {
        self.now = self.now.plus(span);
        self.scheduler.tick(self.now, &mut self.actions);
    }

    /// What was done since the last call, one word each.
    pub(super) fn done(&mut self) -> Vec<String> {
        let ids =
            |jobs: &[Lease]| jobs.iter().map(|job| job.key.id.as_bytes()[21].to_string()).collect::<Vec<_>>().join("+");
        let word = |action: Action| match action {
            Action::Resolve(domain) => format!("resolve {domain}"),
            Action::Open { connection, site, jobs, .. } => format!("open {} {site} {}", connection.0, ids(&jobs)),
            Action::Assign { connection, jobs, .. } => format!("assign {} {}", connection.0, ids(&jobs)),
            Action::Close(connection) => format!("close {}", connection.0),
            Action::Settle { verdict, .. } => format!("settle {verdict:?}"),
            Action::PageIn { .. } | Action::SaveLanes(_) | Action::SaveHistory(_) | Action::SaveLives(_) => {
                "page".to_owned()
            }
        };
        self.actions.drain(..).map(word).filter(|word| word != "page").collect()
    }
}

pub(super) fn due(id: MessageId, due_at: Timestamp, domain: &str) -> DueJob {
    let entry = DueEntry {
        domain: domain.to_owned(),
        expires_at_ms: due_at.plus(Duration::from_secs(86_400)).millis(),
        attempts: 1,
        ..DueEntry::default()
    };
    DueJob { due_at, key: JobKey { id, group: 0 }, entry }
}
