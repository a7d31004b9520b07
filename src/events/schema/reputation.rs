//! Events of reputation: how the bounces and complaints of a sender stand changed, or its mail is refused, or taken again. Not of
//! SES, and not about a message: there is no `mail`.

use crate::events::json::Object;
use crate::events::{EventKind, EventLine};
use crate::types::{ReputationScope, Timestamp};

/// A rate, and its thresholds. Shares are in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateInfo {
    /// The rate.
    pub rate: u32,
    /// So many.
    pub count: u64,
    /// Of so many.
    pub of: u64,
    /// At this share somebody is warned.
    pub warning: u32,
    /// At this one sending is paused.
    pub pause: u32,
}

/// `reputation`. What is `None` is left out.
#[derive(Clone, Copy, Debug)]
pub struct ReputationInfo<'a> {
    /// When.
    pub at: Timestamp,
    /// Whose.
    pub scope: &'a ReputationScope,
    /// The state before.
    pub from: &'a str,
    /// The state after.
    pub to: &'a str,
    /// Why, in words with figures.
    pub reason: &'a str,
    /// Who changed it: `rates` or `operator`.
    pub by: &'a str,
    /// Hard bounces, of recipients that ended.
    pub bounces: RateInfo,
    /// Complaints, of recipients that were delivered to.
    pub complaints: RateInfo,
}

/// How a sender stands changed.
pub fn reputation(info: &ReputationInfo<'_>) -> EventLine {
    let mut out = Vec::with_capacity(640 + info.scope.name.len() + info.reason.len());
    out.extend_from_slice(b"{\"eventType\":\"Reputation\"");
    let mut object = Object::resume(&mut out);
    object.object("reputation", |object| {
        object.plain("timestamp", info.at);
        object.string("scope", info.scope.kind.name());
        object.optional("name", Some(&*info.scope.name).filter(|name| !name.is_empty()));
        object.string("from", info.from);
        object.string("to", info.to);
        object.string("by", info.by);
        object.string("reason", info.reason);
        let RateInfo { rate, count, of, warning, pause } = info.bounces;
        object.share("bounceRate", rate);
        object.number("bounces", count);
        object.number("recipients", of);
        object.share("bounceWarning", warning);
        object.share("bouncePause", pause);
        let RateInfo { rate, count, of, warning, pause } = info.complaints;
        object.share("complaintRate", rate);
        object.number("complaints", count);
        object.number("delivered", of);
        object.share("complaintWarning", warning);
        object.share("complaintPause", pause);
    });
    out.extend_from_slice(b",\"posthaste\":{\"eventId\":");
    let id_at = u32::try_from(out.len()).expect("a name and a reason are limited far below 4 GiB");
    out.extend_from_slice(b"}}");
    EventLine { kind: EventKind::Reputation, json: out.into(), id_at }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::schema::tests::parsed;
    use crate::types::ScopeKind;

    #[test]
    fn a_reputation_is_told_of_without_a_mail() {
        let at = Timestamp::from_millis(1_683_320_424_300);
        let rate = |rate, count, of, warning, pause| RateInfo { rate, count, of, warning, pause };
        let info = ReputationInfo {
            at,
            scope: &ReputationScope::new(ScopeKind::ConfigurationSet, "news"),
            from: "warned",
            to: "paused",
            reason: "12 % of 600 recipients \"bounced\"",
            by: "rates",
            bounces: rate(120_000, 72, 600, 50_000, 100_000),
            complaints: rate(0, 0, 528, 1_000, 5_000),
        };
        let event = parsed(&reputation(&info));
        let expected = serde_json::json!({
            "timestamp": "2023-05-05T21:00:24.300Z",
            "scope": "configuration_set",
            "name": "news",
            "from": "warned",
            "to": "paused",
            "by": "rates",
            "reason": "12 % of 600 recipients \"bounced\"",
            "bounceRate": 0.12,
            "bounces": 72,
            "recipients": 600,
            "bounceWarning": 0.05,
            "bouncePause": 0.1,
            "complaintRate": 0,
            "complaints": 0,
            "delivered": 528,
            "complaintWarning": 0.001,
            "complaintPause": 0.005,
        });
        assert_eq!(event["eventType"], "Reputation");
        assert_eq!(event["reputation"], expected);
        let server = ReputationInfo { scope: &ReputationScope::new(ScopeKind::Server, ""), ..info };
        assert_eq!(parsed(&reputation(&server))["reputation"].get("name"), None);
    }
}
