//! The suppression lists in the admin API.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/suppression?tenant=&set=&limit=&after=` | [`SuppressionPage`] |
//! | `GET /v1/suppression/entry?tenant=&set=&address=` | [`SuppressionItem`], or 404 |
//! | `POST /v1/suppression`, body [`PutBody`] | [`SuppressionReport`] |
//! | `POST /v1/suppression/remove`, body [`RemoveBody`] | [`SuppressionItem`] that was there, or 404 |
//!
//! Without `tenant` and `set` the global list is meant. Entries have SES's names.

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};

use super::AdminError;
use super::routes::{self, Shared};
use crate::admission::directory::Name;
use crate::net::BoxFuture;
use crate::queue::suppression::{SuppressionEffect, SuppressionEntry, SuppressionList};
use crate::types::{EmailAddress, SuppressionReason, Timestamp};

/// Entries in one request or one page at most. Above: 400.
pub const ENTRIES_MAX: usize = 4_096;
/// Entries in one page unless the caller says otherwise.
const PAGE_DEFAULT: usize = 100;
/// Octets of the body that puts entries: above those of as many longest addresses. Above: 413.
const PUT_BODY_BYTES_MAX: usize = 4 << 20;

/// What the API asks of the lists. The daemon implements it, and the command line where none runs.
pub trait SuppressionBackend: Send + Sync + 'static {
    /// Entries of a list behind `after`, and how many it has in all.
    fn page(
        &self,
        list: SuppressionList,
        after: Option<EmailAddress>,
        limit: usize,
    ) -> BoxFuture<'_, Result<SuppressionPage, AdminError>>;

    /// The entry of an address.
    fn entry(
        &self,
        list: SuppressionList,
        address: EmailAddress,
    ) -> BoxFuture<'_, Result<Option<SuppressionEntry>, AdminError>>;

    /// Puts entries on a list; safe on disk when it returns.
    fn put(
        &self,
        list: SuppressionList,
        entries: Vec<NewEntry>,
        origin: String,
    ) -> BoxFuture<'_, Result<SuppressionReport, AdminError>>;

    /// Takes an address off a list; returns what stood there.
    fn remove(
        &self,
        list: SuppressionList,
        address: EmailAddress,
    ) -> BoxFuture<'_, Result<Option<SuppressionEntry>, AdminError>>;
}

/// An entry to be put on a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// Who.
    pub address: EmailAddress,
    /// Why.
    pub reason: SuppressionReason,
    /// Since when; `None`: now.
    pub updated_at: Option<Timestamp>,
}

/// Which list, as typed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListName {
    /// A tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// A configuration set's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
}

impl ListName {
    /// Checks the texts.
    pub fn check(&self) -> Result<SuppressionList, AdminError> {
        let name = |what: &str, text: &str| {
            let problem = || AdminError::BadRequest(format!("{what}: a name has 1 to 64 of A-Z a-z 0-9 _ -"));
            Name::parse(text).map(|name| name.as_str().into()).ok_or_else(problem)
        };
        match (&self.tenant, &self.set) {
            (None, None) => Ok(SuppressionList::Global),
            (Some(tenant), None) => Ok(SuppressionList::Tenant(name("tenant", tenant)?)),
            (None, Some(set)) => Ok(SuppressionList::Set(name("set", set)?)),
            (Some(_), Some(_)) => Err(AdminError::BadRequest("name a tenant or a set, not both".to_owned())),
        }
    }
}

/// An entry, with SES's names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuppressionItem {
    /// As it was given.
    #[serde(rename = "EmailAddress")]
    pub email_address: String,
    /// `BOUNCE`, `COMPLAINT` or `UNSUBSCRIBE`.
    #[serde(rename = "Reason")]
    pub reason: String,
    /// ISO 8601; where it is given: seconds since 1970 too, and nothing for now.
    #[serde(rename = "LastUpdateTime", default, skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<serde_json::Value>,
    /// Where it came from. Only in answers.
    #[serde(rename = "Origin", default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

impl SuppressionItem {
    /// Checks the texts; the error is a sentence for whoever wrote them.
    pub fn check(&self) -> Result<NewEntry, String> {
        let time = match &self.last_update_time {
            None | Some(serde_json::Value::Null) => None,
            Some(serde_json::Value::String(text)) => Some(text.clone()),
            Some(other) => Some(other.to_string()),
        };
        checked(&self.email_address, &self.reason, time.as_deref().unwrap_or_default())
    }

    /// When it was last changed, as text.
    pub fn updated(&self) -> &str {
        self.last_update_time.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default()
    }
}

/// An entry from texts; an empty time is none.
pub fn checked(address: &str, reason: &str, time: &str) -> Result<NewEntry, String> {
    let entry = NewEntry {
        address: checked_address(address)?,
        reason: SuppressionReason::parse(reason.trim())
            .ok_or_else(|| format!("Reason {}: write BOUNCE, COMPLAINT or UNSUBSCRIBE", quoted(reason)))?,
        updated_at: match time.trim() {
            "" => None,
            text => Some(
                parse_time(text)
                    .ok_or_else(|| format!("LastUpdateTime {}: write it as 2026-01-31T23:59:59Z", quoted(text)))?,
            ),
        },
    };
    Ok(entry)
}

/// An address from text.
pub fn checked_address(text: &str) -> Result<EmailAddress, String> {
    EmailAddress::parse(text.trim(), true).map_err(|error| format!("EmailAddress {}: {error}", quoted(text)))
}

/// ISO 8601, or seconds since 1970, whole or not, as SES's tools print them.
fn parse_time(text: &str) -> Option<Timestamp> {
    if let Some(time) = Timestamp::parse_iso8601(text) {
        return Some(time);
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: u64 = seconds.parse().ok().filter(|seconds| *seconds < 1 << 40)?;
    let millis: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    Some(Timestamp::from_millis(seconds * 1_000 + millis))
}

/// The beginning of a text that may hold anything.
fn quoted(text: &str) -> String {
    const SHOWN_CHARS: usize = 80;
    let shown: String = text.chars().take(SHOWN_CHARS).collect();
    let more = if text.chars().nth(SHOWN_CHARS).is_some() { "..." } else { "" };
    format!("{shown:?}{more}")
}

impl From<&SuppressionEntry> for SuppressionItem {
    fn from(entry: &SuppressionEntry) -> Self {
        Self {
            email_address: entry.address.to_string(),
            reason: entry.reason.name().to_owned(),
            last_update_time: Some(entry.updated_at.to_iso8601().into()),
            origin: Some(entry.origin.clone()).filter(|origin| !origin.is_empty()),
        }
    }
}

/// `GET /v1/suppression`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuppressionPage {
    /// In the order of the list, which is that of hashes.
    pub entries: Vec<SuppressionItem>,
    /// Ask again with `after` set to this for more.
    pub next: Option<String>,
    /// Entries of the list.
    pub total: u64,
}

/// `POST /v1/suppression`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutBody {
    /// Which list.
    #[serde(flatten)]
    pub list: ListName,
    /// At most [`ENTRIES_MAX`].
    pub entries: Vec<SuppressionItem>,
    /// Where they come from.
    #[serde(default)]
    pub origin: String,
}

/// `POST /v1/suppression/remove`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveBody {
    /// Which list.
    #[serde(flatten)]
    pub list: ListName,
    /// Who.
    pub address: String,
}

/// What putting came to, in entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuppressionReport {
    /// New on the list.
    pub added: u64,
    /// Were on it with another reason, time or origin.
    pub changed: u64,
    /// Were on it just so.
    pub unchanged: u64,
    /// What is allowed and yet most likely not meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

impl From<SuppressionEffect> for SuppressionReport {
    fn from(effect: SuppressionEffect) -> Self {
        Self { added: effect.added, changed: effect.changed, unchanged: effect.unchanged, warning: None }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PageText {
    tenant: Option<String>,
    set: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryText {
    tenant: Option<String>,
    set: Option<String>,
    address: String,
}

pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/v1/suppression", get(list).post(put))
        .route("/v1/suppression/entry", get(entry))
        .route("/v1/suppression/remove", post(remove))
}

async fn list(State(shared): State<Shared>, query: Result<Query<PageText>, QueryRejection>) -> Response {
    let checked = query.map_err(rejected).and_then(|Query(text)| {
        let list = ListName { tenant: text.tenant, set: text.set }.check()?;
        let limit = text.limit.unwrap_or(PAGE_DEFAULT);
        if !(1..=ENTRIES_MAX).contains(&limit) {
            return Err(AdminError::BadRequest(format!("limit: write a number from 1 to {ENTRIES_MAX}")));
        }
        let after = text.after.map(|text| checked_address(&text)).transpose().map_err(AdminError::BadRequest)?;
        Ok((list, after, limit))
    });
    match checked {
        Ok((list, after, limit)) => {
            routes::respond(routes::answer(shared.suppression().page(list, after, limit)).await)
        }
        Err(error) => error.into_response(),
    }
}

async fn entry(State(shared): State<Shared>, query: Result<Query<EntryText>, QueryRejection>) -> Response {
    let checked = query.map_err(rejected).and_then(|Query(text)| {
        let list = ListName { tenant: text.tenant, set: text.set }.check()?;
        Ok((list, checked_address(&text.address).map_err(AdminError::BadRequest)?))
    });
    let (list, address) = match checked {
        Ok(checked) => checked,
        Err(error) => return error.into_response(),
    };
    let missing = missing(&list, &address);
    let found = routes::answer(shared.suppression().entry(list, address)).await;
    routes::respond(found.and_then(|entry| entry.as_ref().map(SuppressionItem::from).ok_or(missing)))
}

async fn put(State(shared): State<Shared>, body: Body) -> Response {
    let checked = routes::read_json::<PutBody>(body, PUT_BODY_BYTES_MAX).await.and_then(|body| {
        let list = body.list.check()?;
        if body.entries.len() > ENTRIES_MAX {
            return Err(AdminError::BadRequest(format!("entries: at most {ENTRIES_MAX} at once")));
        }
        let entries: Result<Vec<NewEntry>, String> = body.entries.iter().map(SuppressionItem::check).collect();
        Ok((list, entries.map_err(AdminError::BadRequest)?, body.origin))
    });
    match checked {
        Ok((list, entries, origin)) => {
            let result = shared.suppression().put(list.clone(), entries, origin).await;
            if let Ok(report) = &result {
                let (added, changed) = (report.added, report.changed);
                tracing::info!(?list, added, changed, "suppression list changed");
            }
            routes::respond(result)
        }
        Err(error) => error.into_response(),
    }
}

async fn remove(State(shared): State<Shared>, body: Body) -> Response {
    let checked = routes::read_json::<RemoveBody>(body, routes::BODY_BYTES_MAX)
        .await
        .and_then(|body| Ok((body.list.check()?, checked_address(&body.address).map_err(AdminError::BadRequest)?)));
    let (list, address) = match checked {
        Ok(checked) => checked,
        Err(error) => return error.into_response(),
    };
    let missing = missing(&list, &address);
    let result = shared.suppression().remove(list.clone(), address).await;
    if matches!(result, Ok(Some(_))) {
        tracing::info!(?list, "an address was taken off a suppression list");
    }
    routes::respond(result.and_then(|entry| entry.as_ref().map(SuppressionItem::from).ok_or(missing)))
}

/// The error where an address is not on a list.
pub fn missing(list: &SuppressionList, address: &EmailAddress) -> AdminError {
    AdminError::NotFound(format!("{address} is not on {}", described(list)))
}

/// A list in words.
pub fn described(list: &SuppressionList) -> String {
    match list {
        SuppressionList::Global => "the global suppression list".to_owned(),
        SuppressionList::Tenant(name) => format!("the suppression list of tenant {name}"),
        SuppressionList::Set(name) => format!("the suppression list of configuration set {name}"),
    }
}

fn rejected(rejection: QueryRejection) -> AdminError {
    AdminError::BadRequest(rejection.body_text())
}
