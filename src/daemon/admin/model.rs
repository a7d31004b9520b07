//! What the admin API answers: plain data, JSON with snake_case names, times as ISO 8601 UTC, spans in seconds.

use serde::{Deserialize, Serialize};

use crate::types::{MessageId, Timestamp};

/// `GET /v1/health`. 200 if healthy, 503 otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether the daemon keeps all its promises.
    pub healthy: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Whether it keeps all its promises.
    pub healthy: bool,
    /// Why not.
    pub health_reason: Option<String>,
    /// The queue.
    pub queue: QueueStatus,
    /// Messages answered 250 since the start.
    pub accepted: u64,
    /// Recipients delivered since the start.
    pub delivered: u64,
    /// Attempts deferred since the start, by recipient.
    pub deferred: u64,
    /// Recipients bounced or expired since the start.
    pub bounced: u64,
    /// The busiest sites, most ready deliveries first; at most 20.
    pub sites: Vec<SiteStatus>,
    /// Open connections.
    pub connections: ConnectionStatus,
    /// The event files.
    pub events: EventStatus,
    /// Lanes: sources at sites.
    #[serde(default)]
    pub lanes: LaneStatus,
}

/// What waits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Messages in the queue.
    pub messages: u64,
    /// Deliveries: message and destination domain.
    pub deliveries: u64,
    /// Deliveries due now that wait for their turn.
    pub ready: u64,
    /// Deliveries under way.
    pub in_flight: u64,
    /// Messages on hold.
    pub held: u64,
    /// Age of the oldest message; `None` where the queue is empty.
    pub oldest_age_s: Option<u64>,
    /// Free bytes of the file system.
    pub free_bytes: u64,
}

/// One site: destinations that share their MX hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteStatus {
    /// Its name.
    pub site: String,
    /// Deliveries due now, as far as they are in memory.
    pub ready: u64,
    /// There are more, on disk.
    #[serde(default)]
    pub more_on_disk: bool,
    /// Open connections.
    pub connections: u64,
    /// Such as `open`, `down`, `backoff`.
    pub mode: String,
    /// The reply, error or rule that caused the mode.
    pub reason: Option<String>,
    /// When a site that is down is tried again.
    #[serde(with = "text_option")]
    pub next_probe: Option<Timestamp>,
}

/// Open connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionStatus {
    /// From applications.
    pub clients: u64,
    /// To MX hosts.
    pub outbound: u64,
}

/// Lanes: what single sources may do at single sites.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneStatus {
    /// In memory.
    pub known: u64,
    /// Of those, blocked by their sites.
    pub blocked: u64,
    /// Suspended for a reply.
    pub suspended: u64,
    /// Slowed, or with fewer connections, for a reply.
    pub slowed: u64,
    /// Sites at which all sources of a pool are blocked.
    pub pools_blocked: u64,
}

/// The event files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventStatus {
    /// Events committed and not yet in every file.
    pub pending: u64,
    /// The last id given.
    pub last_id: u64,
    /// The last failed write, until one succeeds.
    pub last_error: Option<String>,
}

/// `GET /v1/quota`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaReport {
    /// The server, and every other scope that has a limit or used anything in the last 24 hours.
    pub scopes: Vec<QuotaUsage>,
}

/// What one scope used of its limits, in envelope recipients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaUsage {
    /// `server`, `tenant`, `credential` or `configuration_set`.
    pub scope: String,
    /// Of the tenant, the credential or the configuration set; empty for the server.
    pub name: String,
    /// In the last 24 hours.
    pub used: u64,
    /// Limit of the last 24 hours.
    pub per_day: Option<u64>,
    /// Limit of a second.
    pub per_second: Option<u32>,
}

/// `GET /v1/queue`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Matching messages, oldest first.
    pub messages: Vec<MessageSummary>,
    /// Ask again with `after` set to this for more; `None` at the end of the queue. A page may have no messages and yet
    /// a `next`: an implementation may stop early after examining many that do not match.
    #[serde(with = "text_option")]
    pub next: Option<MessageId>,
}

/// What a message does as a whole: the liveliest state of its recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageState {
    /// An attempt is under way.
    InFlight,
    /// Due now; waits for its turn.
    Ready,
    /// Waits for its next attempt.
    Deferred,
    /// On hold by an operator or a rule.
    Held,
}

impl MessageState {
    /// All, with their names in the API and in the command line.
    pub const NAMES: [(&'static str, MessageState); 4] = [
        ("in_flight", MessageState::InFlight),
        ("ready", MessageState::Ready),
        ("deferred", MessageState::Deferred),
        ("held", MessageState::Held),
    ];

    /// As in the API.
    pub fn name(self) -> &'static str {
        Self::NAMES.into_iter().find(|(_, state)| *state == self).map_or("", |(name, _)| name)
    }
}

/// One line of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageSummary {
    /// Its id, as the 250 reply named it.
    #[serde(with = "text")]
    pub id: MessageId,
    /// When it was accepted.
    #[serde(with = "text")]
    pub accepted_at: Timestamp,
    /// Reverse path; empty for the null sender.
    pub sender: String,
    /// Octets.
    pub size_bytes: u64,
    /// As a whole.
    pub state: MessageState,
    /// The first recipients that are still pending; at most three.
    pub recipients: Vec<String>,
    /// Recipients that are still pending, in all.
    pub recipients_pending: u64,
    /// Attempts of the recipient that had most.
    pub attempts: u32,
    /// The earliest next attempt; `None` where one is under way or the message is held.
    #[serde(with = "text_option")]
    pub next_attempt_at: Option<Timestamp>,
    /// What it waits for, in words; names the rule, the reply or the limit.
    pub waits_for: Option<String>,
}

/// `GET /v1/queue/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageDetail {
    /// Its id.
    #[serde(with = "text")]
    pub id: MessageId,
    /// When it was accepted.
    #[serde(with = "text")]
    pub accepted_at: Timestamp,
    /// When it bounces if it is not delivered before.
    #[serde(with = "text")]
    pub expires_at: Timestamp,
    /// Reverse path; empty for the null sender.
    pub sender: String,
    /// Octets.
    pub size_bytes: u64,
    /// As a whole.
    pub state: MessageState,
    /// Why it is held.
    pub held_reason: Option<String>,
    /// Every recipient that the queue knows of.
    pub recipients: Vec<RecipientDetail>,
}

/// What became of a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecipientState {
    /// An attempt is under way.
    InFlight,
    /// Due now; waits for its turn.
    Ready,
    /// Waits for its next attempt.
    Deferred,
    /// The message is on hold.
    Held,
    /// Its server took the message.
    Delivered,
    /// Refused for good.
    Bounced,
    /// The lifetime ended first.
    Expired,
    /// Taken back by an operator.
    Cancelled,
}

impl RecipientState {
    /// As in the API.
    pub fn name(self) -> &'static str {
        match self {
            RecipientState::InFlight => "in_flight",
            RecipientState::Ready => "ready",
            RecipientState::Deferred => "deferred",
            RecipientState::Held => "held",
            RecipientState::Delivered => "delivered",
            RecipientState::Bounced => "bounced",
            RecipientState::Expired => "expired",
            RecipientState::Cancelled => "cancelled",
        }
    }
}

/// One recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientDetail {
    /// Forward path.
    pub address: String,
    /// What became of it so far.
    pub state: RecipientState,
    /// Attempts so far.
    pub attempts: u32,
    /// The last attempt.
    #[serde(with = "text_option")]
    pub last_attempt_at: Option<Timestamp>,
    /// The last reply of its server, or the error that stood in for one.
    pub last_reply: Option<String>,
    /// The rule that classified the reply.
    pub rule: Option<String>,
    /// The host that gave the reply.
    pub host: Option<String>,
    /// The next attempt.
    #[serde(with = "text_option")]
    pub next_attempt_at: Option<Timestamp>,
    /// What it waits for, in words.
    pub waits_for: Option<String>,
    /// When that ends by time alone.
    #[serde(with = "text_option", default)]
    pub waits_until: Option<Timestamp>,
    /// The rule that makes it wait.
    #[serde(default)]
    pub waits_rule: Option<String>,
    /// The reply or failure that makes it wait.
    #[serde(default)]
    pub waits_reply: Option<String>,
    /// The site in whose line it stands.
    #[serde(default)]
    pub site: Option<String>,
    /// The pool that it goes by.
    #[serde(default)]
    pub pool: Option<String>,
}

/// What an action did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionReport {
    /// Messages that it changed.
    pub changed: u64,
    /// Messages that were selected and looked at.
    pub examined: u64,
}

/// The body of every error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorText,
}

/// Code for programs, message for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorText {
    /// See [`super::AdminError::code`].
    pub code: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// A value in its one text form.
pub(super) trait Text: Sized {
    fn to_text(&self) -> String;
    fn from_text(text: &str) -> Option<Self>;
}

impl Text for MessageId {
    fn to_text(&self) -> String {
        self.to_string()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Text for Timestamp {
    fn to_text(&self) -> String {
        self.to_iso8601()
    }

    fn from_text(text: &str) -> Option<Self> {
        let millis = text.parse::<jiff::Timestamp>().ok()?.as_millisecond();
        u64::try_from(millis).ok().map(Timestamp::from_millis)
    }
}

/// serde of a [`Text`].
pub(super) mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Text;

    pub(in crate::daemon::admin) fn serialize<T: Text, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.to_text())
    }

    pub(in crate::daemon::admin) fn deserialize<'de, T: Text, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let text = String::deserialize(deserializer)?;
        T::from_text(&text).ok_or_else(|| D::Error::custom("malformed id or time"))
    }
}

/// serde of an optional [`Text`]; absent is null.
pub(super) mod text_option {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::Text;

    pub(in crate::daemon::admin) fn serialize<T: Text, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(Text::to_text).serialize(serializer)
    }

    pub(in crate::daemon::admin) fn deserialize<'de, T: Text, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else {
            return Ok(None);
        };
        T::from_text(&text).map(Some).ok_or_else(|| D::Error::custom("malformed id or time"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_ids_survive_json() {
        let page = Page { messages: Vec::new(), next: Some(MessageId::new(Timestamp::from_millis(5), 7)) };
        let json = serde_json::to_string(&page).unwrap();
        assert_eq!(serde_json::from_str::<Page>(&json).unwrap(), page);
        let site = SiteStatus { next_probe: Some(Timestamp::from_millis(1_683_320_423_244)), ..SiteStatus::default() };
        let json = serde_json::to_string(&site).unwrap();
        assert!(json.contains("\"2023-05-05T21:00:23.244Z\""), "{json}");
        assert_eq!(serde_json::from_str::<SiteStatus>(&json).unwrap(), site);
    }

    #[test]
    fn a_malformed_id_is_an_error() {
        assert!(serde_json::from_str::<Page>(r#"{"messages":[],"next":"x"}"#).is_err());
    }

    #[test]
    fn state_names_are_those_of_json() {
        for (name, state) in MessageState::NAMES {
            assert_eq!(serde_json::to_value(state).unwrap(), name);
            assert_eq!(state.name(), name);
        }
        for state in [RecipientState::InFlight, RecipientState::Expired, RecipientState::Held] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
    }
}
