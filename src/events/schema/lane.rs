//! Events of lanes: what a source may send to a site changed. Not of SES, and not about a message: there is no `mail`.

use crate::events::json::Object;
use crate::events::{EventKind, EventLine};
use crate::types::Timestamp;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneChange {
    /// A reply said that the source is blocked at the site.
    Blocked,
    /// A reply made us send less there for a time.
    BackedOff,
    /// The source may send there again: a probe went well.
    Unblocked,
    /// All sources of a pool are blocked at the site: its mail waits.
    PoolBlocked,
    /// One of them may send again.
    PoolUnblocked,
}

impl LaneChange {
    /// All.
    pub const ALL: [LaneChange; 5] = [
        LaneChange::Blocked,
        LaneChange::BackedOff,
        LaneChange::Unblocked,
        LaneChange::PoolBlocked,
        LaneChange::PoolUnblocked,
    ];

    /// As events spell it.
    pub const fn name(self) -> &'static str {
        match self {
            LaneChange::Blocked => "blocked",
            LaneChange::BackedOff => "backed-off",
            LaneChange::Unblocked => "unblocked",
            LaneChange::PoolBlocked => "pool-blocked",
            LaneChange::PoolUnblocked => "pool-unblocked",
        }
    }
}

/// `lane`. What is `None` is left out.
#[derive(Clone, Copy, Debug)]
pub struct LaneInfo<'a> {
    /// What happened.
    pub change: LaneChange,
    /// When.
    pub at: Timestamp,
    /// The site.
    pub site: &'a str,
    /// The source; not of a pool's events.
    pub source: Option<&'a str>,
    /// The pool; of a pool's events.
    pub pool: Option<&'a str>,
    /// The provider, where a rule knows the site.
    pub provider: Option<&'a str>,
    /// The rule that the reply met.
    pub rule: Option<&'a str>,
    /// The reply.
    pub reply: Option<&'a str>,
    /// When it ends, or is tried again.
    pub until: Option<Timestamp>,
    /// How less is sent: `suspended`, `slowed`, `fewer-connections`.
    pub mode: Option<&'a str>,
}

/// Something changed of a lane, or of all lanes of a pool at a site.
pub fn lane(info: &LaneInfo<'_>) -> EventLine {
    let texts = [Some(info.site), info.source, info.pool, info.provider, info.rule, info.reply, info.mode];
    let text_bytes: usize = texts.into_iter().flatten().map(str::len).sum();
    let mut out = Vec::with_capacity(320 + text_bytes);
    out.extend_from_slice(b"{\"eventType\":\"Lane\"");
    let mut object = Object::resume(&mut out);
    object.object("lane", |object| {
        object.string("change", info.change.name());
        object.plain("timestamp", info.at);
        object.string("site", info.site);
        object.optional("source", info.source);
        object.optional("pool", info.pool);
        object.optional("provider", info.provider);
        object.optional("rule", info.rule);
        object.optional("reply", info.reply);
        if let Some(until) = info.until {
            object.plain("until", until);
        }
        object.optional("mode", info.mode);
    });
    out.extend_from_slice(b",\"posthaste\":{\"eventId\":");
    let id_at = u32::try_from(out.len()).expect("replies are limited far below 4 GiB");
    out.extend_from_slice(b"}}");
    EventLine { kind: EventKind::Lane, json: out.into(), id_at }
}
