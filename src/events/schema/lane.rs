//! Events of lanes: what a source may send to a site changed, or whether a pool uses it. Not of SES, and not about a message: there is no `mail`.

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
    /// A warm-up took a step of its plan.
    WarmupAdvanced,
    /// Half its cap, for what hosts and readers said.
    WarmupSlowed,
    /// It sends nothing for a time.
    WarmupFrozen,
    /// It has its whole cap again.
    WarmupRecovered,
    /// A block took it back.
    WarmupSteppedBack,
    /// It was idle for so long that it was taken back.
    WarmupDecayed,
    /// Its plan is at its end.
    WarmupOver,
    /// An operator holds its position.
    WarmupPaused,
    /// An operator let it go on.
    WarmupResumed,
    /// An operator, or another plan, set its position.
    WarmupSet,
    /// A managed pool uses this source from now on.
    SourceActivated,
    /// A managed pool uses this source no more, for now.
    SourceRested,
}

impl LaneChange {
    /// All.
    pub const ALL: [LaneChange; 17] = [
        LaneChange::Blocked,
        LaneChange::BackedOff,
        LaneChange::Unblocked,
        LaneChange::PoolBlocked,
        LaneChange::PoolUnblocked,
        LaneChange::WarmupAdvanced,
        LaneChange::WarmupSlowed,
        LaneChange::WarmupFrozen,
        LaneChange::WarmupRecovered,
        LaneChange::WarmupSteppedBack,
        LaneChange::WarmupDecayed,
        LaneChange::WarmupOver,
        LaneChange::WarmupPaused,
        LaneChange::WarmupResumed,
        LaneChange::WarmupSet,
        LaneChange::SourceActivated,
        LaneChange::SourceRested,
    ];

    /// As events spell it.
    pub const fn name(self) -> &'static str {
        match self {
            LaneChange::Blocked => "blocked",
            LaneChange::BackedOff => "backed-off",
            LaneChange::Unblocked => "unblocked",
            LaneChange::PoolBlocked => "pool-blocked",
            LaneChange::PoolUnblocked => "pool-unblocked",
            LaneChange::WarmupAdvanced => "warmup-advanced",
            LaneChange::WarmupSlowed => "warmup-slowed",
            LaneChange::WarmupFrozen => "warmup-frozen",
            LaneChange::WarmupRecovered => "warmup-recovered",
            LaneChange::WarmupSteppedBack => "warmup-stepped-back",
            LaneChange::WarmupDecayed => "warmup-decayed",
            LaneChange::WarmupOver => "warmup-over",
            LaneChange::WarmupPaused => "warmup-paused",
            LaneChange::WarmupResumed => "warmup-resumed",
            LaneChange::WarmupSet => "warmup-set",
            LaneChange::SourceActivated => "source-activated",
            LaneChange::SourceRested => "source-rested",
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
    /// The site; not of events of a source as a whole.
    pub site: Option<&'a str>,
    /// The source; not of a pool's events.
    pub source: Option<&'a str>,
    /// The pool; of a pool's events.
    pub pool: Option<&'a str>,
    /// The configuration set, of events of its warm-up.
    pub configuration_set: Option<&'a str>,
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
    /// Why, in words with figures.
    pub text: Option<&'a str>,
    /// The plan's day or stage, before and after.
    pub position: Option<(u32, u32)>,
    /// Messages of a UTC day.
    pub cap: Option<u32>,
}

impl<'a> LaneInfo<'a> {
    /// Nothing but what happened, and when.
    pub const fn new(change: LaneChange, at: Timestamp) -> LaneInfo<'a> {
        LaneInfo {
            change,
            at,
            site: None,
            source: None,
            pool: None,
            configuration_set: None,
            provider: None,
            rule: None,
            reply: None,
            until: None,
            mode: None,
            text: None,
            position: None,
            cap: None,
        }
    }
}

/// Something changed of a lane, or of all lanes of a pool at a site.
pub fn lane(info: &LaneInfo<'_>) -> EventLine {
    let texts = [info.site, info.source, info.pool, info.provider, info.rule, info.reply, info.mode, info.text];
    let text_bytes: usize = texts.into_iter().flatten().map(str::len).sum();
    let mut out = Vec::with_capacity(320 + text_bytes);
    out.extend_from_slice(b"{\"eventType\":\"Lane\"");
    let mut object = Object::resume(&mut out);
    object.object("lane", |object| {
        object.string("change", info.change.name());
        object.plain("timestamp", info.at);
        object.optional("site", info.site);
        object.optional("source", info.source);
        object.optional("pool", info.pool);
        object.optional("configurationSet", info.configuration_set);
        object.optional("provider", info.provider);
        object.optional("rule", info.rule);
        object.optional("reply", info.reply);
        if let Some(until) = info.until {
            object.plain("until", until);
        }
        object.optional("mode", info.mode);
        object.optional("reason", info.text);
        if let Some((from, to)) = info.position {
            object.number("from", from.into());
            object.number("to", to.into());
        }
        if let Some(cap) = info.cap {
            object.number("cap", cap.into());
        }
    });
    out.extend_from_slice(b",\"posthaste\":{\"eventId\":");
    let id_at = u32::try_from(out.len()).expect("replies are limited far below 4 GiB");
    out.extend_from_slice(b"}}");
    EventLine { kind: EventKind::Lane, json: out.into(), id_at }
}
