//! What the admin API is asked: filters, selections and actions, from their texts to checked values.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::AdminError;
use super::model::MessageState;
use crate::types::{Domain, EmailAddress, MessageId, ReversePath};

/// Messages in one page unless the caller says otherwise.
pub const PAGE_DEFAULT: usize = 100;
/// Messages in one page at most. Above: 400.
pub const PAGE_MAX: usize = 1_000;
/// Characters of a hold reason. Above: 400.
pub const REASON_CHARS_MAX: usize = 200;

/// Which messages are meant; every part that is set must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// A pending recipient is in this domain.
    pub domain: Option<Domain>,
    /// The reverse path.
    pub sender: Option<SenderFilter>,
    /// The state of the message as a whole.
    pub state: Option<MessageState>,
}

/// Which reverse paths are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderFilter {
    /// `<>`.
    Null,
    /// `local@domain`.
    Address(EmailAddress),
    /// `@domain`, or the domain alone.
    Domain(Domain),
}

impl SenderFilter {
    /// Parses `<>`, `user@example.com`, `@example.com` or `example.com`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "<>" {
            return Some(SenderFilter::Null);
        }
        match text.rsplit_once('@') {
            Some(("", domain)) => Domain::parse(domain).ok().map(SenderFilter::Domain),
            Some(_) => EmailAddress::parse(text, true).ok().map(SenderFilter::Address),
            None => Domain::parse(text).ok().map(SenderFilter::Domain),
        }
    }

    /// Whether this reverse path is meant.
    pub fn matches(&self, path: &ReversePath) -> bool {
        match (self, path) {
            (SenderFilter::Null, ReversePath::Null) => true,
            (SenderFilter::Address(wanted), ReversePath::Mailbox(address)) => wanted == address,
            (SenderFilter::Domain(wanted), ReversePath::Mailbox(address)) => wanted == address.domain(),
            _ => false,
        }
    }
}

/// A list request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListQuery {
    /// Which messages.
    pub filter: Filter,
    /// At most this many; 1 to [`PAGE_MAX`].
    pub limit: usize,
    /// Only ids after this one.
    pub after: Option<MessageId>,
}

/// Which messages an action is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// This one.
    One(MessageId),
    /// All that match; the empty filter, which means every message, only comes from an explicit `all`.
    Matching(Filter),
}

/// What to do with the selected messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Deferred recipients are due now.
    Retry,
    /// No attempts until released. The text says why.
    Hold {
        /// Shown to operators.
        reason: String,
    },
    /// Ends a hold; due at once.
    Release,
    /// Pending recipients are taken back: they are removed without a bounce.
    Cancel,
}

impl Action {
    /// The words of the API and the command line.
    pub const NAMES: [&'static str; 4] = ["retry", "hold", "release", "cancel"];

    /// The action of this name. `reason` is for `hold`.
    pub fn parse(name: &str, reason: Option<String>) -> Result<Self, AdminError> {
        let reason = reason.unwrap_or_default();
        if reason.chars().count() > REASON_CHARS_MAX || reason.contains(char::is_control) {
            let problem = format!("reason: at most {REASON_CHARS_MAX} characters on one line");
            return Err(AdminError::BadRequest(problem));
        }
        match name {
            "retry" => Ok(Action::Retry),
            "hold" => Ok(Action::Hold { reason }),
            "release" => Ok(Action::Release),
            "cancel" => Ok(Action::Cancel),
            _ => Err(AdminError::NotFound(format!("no action of that name; there are: {}", Self::NAMES.join(", ")))),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Retry => "retry",
            Action::Hold { .. } => "hold",
            Action::Release => "release",
            Action::Cancel => "cancel",
        })
    }
}

/// The query part of `GET /v1/queue` as typed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListText {
    /// Recipient domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// See [`SenderFilter::parse`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// A name of [`MessageState::NAMES`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// 1 to [`PAGE_MAX`]; [`PAGE_DEFAULT`] if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// The `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

impl ListText {
    /// Checks the texts.
    pub fn check(&self) -> Result<ListQuery, AdminError> {
        let filter = filter(self.domain.as_deref(), self.sender.as_deref(), self.state.as_deref())?;
        let limit = self.limit.unwrap_or(PAGE_DEFAULT);
        if !(1..=PAGE_MAX).contains(&limit) {
            return Err(AdminError::BadRequest(format!("limit: write a number from 1 to {PAGE_MAX}")));
        }
        let after = self.after.as_deref().map(message_id).transpose()?;
        Ok(ListQuery { filter, limit, after })
    }
}

/// The body of `POST /v1/queue/{action}` (all fields) and of `POST /v1/queue/{id}/{action}` (only `reason`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ActionBody {
    /// Recipient domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// See [`SenderFilter::parse`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// A name of [`MessageState::NAMES`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Every message of the queue: must be said, so that an empty filter by mistake does nothing.
    pub all: bool,
    /// Why, for `hold`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl ActionBody {
    /// Checks the filter: something must be named, or `all` said, and not both.
    pub fn selection(&self) -> Result<Selection, AdminError> {
        let filter = filter(self.domain.as_deref(), self.sender.as_deref(), self.state.as_deref())?;
        let is_empty = filter == Filter::default();
        match (is_empty, self.all) {
            (true, false) => {
                Err(AdminError::BadRequest("nothing selected: name domain, sender or state, or say all".to_owned()))
            }
            (false, true) => Err(AdminError::BadRequest("all and a filter contradict each other".to_owned())),
            _ => Ok(Selection::Matching(filter)),
        }
    }
}

/// Parses a message id for the API.
pub fn message_id(text: &str) -> Result<MessageId, AdminError> {
    text.parse().map_err(|error: crate::types::MessageIdError| AdminError::BadRequest(error.to_string()))
}

fn filter(domain: Option<&str>, sender: Option<&str>, state: Option<&str>) -> Result<Filter, AdminError> {
    let domain = domain.map(|text| Domain::parse(text).map_err(|error| bad("domain", &error.to_string())));
    let sender = sender.map(|text| {
        let forms = "write user@example.com, @example.com, or <> for the null sender";
        SenderFilter::parse(text).ok_or_else(|| bad("sender", forms))
    });
    let state = state.map(|text| {
        let names = MessageState::NAMES.map(|(name, _)| name).join(", ");
        let found = MessageState::NAMES.into_iter().find(|(name, _)| *name == text);
        found.map(|(_, state)| state).ok_or_else(|| bad("state", &format!("write one of {names}")))
    });
    Ok(Filter { domain: domain.transpose()?, sender: sender.transpose()?, state: state.transpose()? })
}

fn bad(field: &str, problem: &str) -> AdminError {
    AdminError::BadRequest(format!("{field}: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_match_by_address_domain_or_null() {
        let path = |text: &str| match text {
            "" => ReversePath::Null,
            _ => ReversePath::Mailbox(EmailAddress::parse(text, true).unwrap()),
        };
        let check = |filter: &str, sender: &str, expected: bool| {
            assert_eq!(SenderFilter::parse(filter).unwrap().matches(&path(sender)), expected, "{filter} {sender}");
        };
        check("<>", "", true);
        check("<>", "a@b.test", false);
        check("a@B.test", "a@b.test", true);
        check("a@b.test", "c@b.test", false);
        check("@b.test", "c@b.test", true);
        check("b.test", "c@b.test", true);
        check("b.test", "", false);
        assert_eq!(SenderFilter::parse("a b@c.test"), None);
        assert_eq!(SenderFilter::parse(""), None);
    }

    #[test]
    fn an_empty_selection_must_say_all() {
        let body = |json: &str| serde_json::from_str::<ActionBody>(json).unwrap().selection();
        assert!(body("{}").is_err());
        assert_eq!(body(r#"{"all":true}"#), Ok(Selection::Matching(Filter::default())));
        assert!(body(r#"{"all":true,"domain":"a.test"}"#).is_err());
        assert!(body(r#"{"domain":"a.test"}"#).is_ok());
        assert!(serde_json::from_str::<ActionBody>(r#"{"domian":"a.test"}"#).is_err());
    }

    #[test]
    fn a_reason_is_one_short_line() {
        assert!(Action::parse("hold", Some("x".repeat(200))).is_ok());
        assert!(Action::parse("hold", Some("x".repeat(201))).is_err());
        assert!(Action::parse("hold", Some("a\nb".to_owned())).is_err());
        assert!(Action::parse("explode", None).is_err());
        for name in Action::NAMES {
            assert_eq!(Action::parse(name, None).unwrap().to_string(), name);
        }
    }
}
