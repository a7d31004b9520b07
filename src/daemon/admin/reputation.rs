//! Reputation in the admin API: how the bounces and complaints of each scope stand, and the operator's word on it.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/reputation?scope=&name=&state=&limit=` | [`ReputationPage`] |
//! | `POST /v1/reputation/{pause,resume}`, body [`PauseBody`] | [`ReputationRow`] as it is then, or 404 where there is nothing to do |

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State as AxumState};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};

use super::AdminError;
use super::model::text_option;
use super::query::REASON_CHARS_MAX;
use super::routes::{self, Shared, answer, respond};
use crate::net::BoxFuture;
use crate::policy::reputation::State;
use crate::types::{ReputationScope, ScopeKind, Timestamp};

/// Rows of one answer at most. Above: 400.
pub const ROWS_MAX: usize = 10_000;
/// Rows of one answer unless the caller says otherwise.
const ROWS_DEFAULT: usize = 1_000;

/// What the API asks of reputation.
pub trait ReputationBackend: Send + Sync + 'static {
    /// How each scope stands, those that somebody must look at first.
    fn reputation(&self, filter: Filter, limit: usize) -> BoxFuture<'_, Result<ReputationPage, AdminError>>;

    /// Refuses the mail of a tenant or set, or takes it again; safe on disk when it returns.
    fn order(&self, scope: ReputationScope, order: Order) -> BoxFuture<'_, Result<ReputationRow, AdminError>>;
}

/// Which scopes. Nothing: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this kind.
    pub kind: Option<ScopeKind>,
    /// Of this name.
    pub name: Option<Box<str>>,
    /// In this state.
    pub state: Option<State>,
}

/// What an operator wants, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Its mail is refused.
    Pause(String),
    /// It is taken again.
    Resume(String),
}

/// A filter as typed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterText {
    /// A kind of scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// A name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Rows at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

impl FilterText {
    fn check(self) -> Result<(Filter, usize), AdminError> {
        let limit = self.limit.unwrap_or(ROWS_DEFAULT);
        if !(1..=ROWS_MAX).contains(&limit) {
            return Err(AdminError::BadRequest(format!("limit: write a number from 1 to {ROWS_MAX}")));
        }
        let bad = |key: &str, text: &str, names: Vec<&str>| {
            AdminError::BadRequest(format!("{key}: {text:?} is not known; write one of {}", names.join(", ")))
        };
        let kinds = || ScopeKind::ALL.into_iter().filter(|kind| *kind != ScopeKind::TenantSet);
        let kind = |text: String| {
            let found = kinds().find(|kind| kind.name() == text);
            found.ok_or_else(|| bad("scope", &text, kinds().map(ScopeKind::name).collect()))
        };
        let state = |text: String| {
            let found = State::ALL.into_iter().find(|state| state.name() == text);
            found.ok_or_else(|| bad("state", &text, State::ALL.map(State::name).to_vec()))
        };
        let filter = Filter {
            kind: self.scope.map(kind).transpose()?,
            name: self.name.map(Into::into),
            state: self.state.map(state).transpose()?,
        };
        Ok((filter, limit))
    }
}

/// The body of an order: whom, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PauseBody {
    /// A tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Or a configuration set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// Why, for the event and whoever looks later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl PauseBody {
    fn check(self, action: &str) -> Result<(ReputationScope, Order), AdminError> {
        let bad = |text: &str| Err(AdminError::BadRequest(text.to_owned()));
        let scope = match (self.tenant.as_deref(), self.set.as_deref()) {
            (Some(name), None) if !name.is_empty() => ReputationScope::new(ScopeKind::Tenant, name),
            (None, Some(name)) if !name.is_empty() => ReputationScope::new(ScopeKind::ConfigurationSet, name),
            _ => return bad("name a tenant or a set"),
        };
        let reason = self.reason.unwrap_or_default();
        if reason.chars().count() > REASON_CHARS_MAX {
            return bad(&format!("reason: write up to {REASON_CHARS_MAX} characters"));
        }
        let reason = reason.replace(char::is_control, " ");
        match action {
            "pause" => Ok((scope, Order::Pause(reason))),
            "resume" => Ok((scope, Order::Resume(reason))),
            _ => Err(AdminError::NotFound("there are pause and resume".to_owned())),
        }
    }
}

/// How scopes stand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReputationPage {
    /// Paused ones first, then critical, warned and healthy; then by kind and name.
    pub scopes: Vec<ReputationRow>,
    /// How many there are beyond these.
    pub more: u64,
    /// Fewer recipients than this say nothing.
    pub recipients_min: u32,
}

/// How one scope stands. Shares are of 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReputationRow {
    /// `server`, `tenant`, `configuration_set`, `credential`, `identity`, `pool`, `source` or `provider`.
    pub scope: String,
    /// Its name; empty for the server.
    pub name: String,
    /// `healthy`, `warned`, `critical` or `paused`.
    pub state: String,
    /// Since when it is in this state; absent where nothing ever happened.
    #[serde(with = "text_option", default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Who paused it: `rates` or `operator`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_by: Option<String>,
    /// Why it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What was counted before this time is forgiven.
    #[serde(with = "text_option", default, skip_serializing_if = "Option::is_none")]
    pub judged_from: Option<Timestamp>,
    /// Hard bounces, of `recipients`.
    pub bounce_rate: f64,
    /// How many.
    pub bounces: u64,
    /// Recipients that ended, over a representative volume.
    pub recipients: u64,
    /// Thresholds of the bounce rate.
    pub bounce_warning: f64,
    /// The second one.
    pub bounce_pause: f64,
    /// Complaints, of `delivered`.
    pub complaint_rate: f64,
    /// How many.
    pub complaints: u64,
    /// Recipients that were delivered to, over a representative volume.
    pub delivered: u64,
    /// Thresholds of the complaint rate.
    pub complaint_warning: f64,
    /// The second one.
    pub complaint_pause: f64,
    /// Whether it is paused by itself.
    pub automatic_pause: bool,
}

pub(super) fn router() -> Router<Shared> {
    Router::new().route("/v1/reputation", get(show)).route("/v1/reputation/{action}", post(order))
}

async fn show(AxumState(shared): AxumState<Shared>, query: Result<Query<FilterText>, QueryRejection>) -> Response {
    let checked =
        query.map_err(|rejection| AdminError::BadRequest(rejection.body_text())).and_then(|Query(text)| text.check());
    match checked {
        Ok((filter, limit)) => respond(answer(shared.reputation().reputation(filter, limit)).await),
        Err(error) => error.into_response(),
    }
}

async fn order(AxumState(shared): AxumState<Shared>, Path(action): Path<String>, body: Body) -> Response {
    let body = routes::read_json::<PauseBody>(body, routes::BODY_BYTES_MAX).await;
    let (scope, order) = match body.and_then(|body| body.check(&action)) {
        Ok(order) => order,
        Err(error) => return error.into_response(),
    };
    respond(answer(shared.reputation().order(scope, order)).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_need_one_tenant_or_one_set() {
        let body = |tenant: Option<&str>, set: Option<&str>, reason: &str| PauseBody {
            tenant: tenant.map(str::to_owned),
            set: set.map(str::to_owned),
            reason: Some(reason.to_owned()),
        };
        let (scope, order) = body(None, Some("news"), "a\nb").check("pause").unwrap();
        assert_eq!((scope.to_string().as_str(), order), ("configuration_set/news", Order::Pause("a b".to_owned())));
        let (scope, order) = body(Some("shop"), None, "").check("resume").unwrap();
        assert_eq!((scope.to_string().as_str(), order), ("tenant/shop", Order::Resume(String::new())));
        for (tenant, set) in [(None, None), (Some("a"), Some("b")), (Some(""), None)] {
            assert!(body(tenant, set, "").check("pause").is_err());
        }
        assert!(body(Some("a"), None, &"x".repeat(201)).check("pause").is_err());
        assert!(body(Some("a"), None, "").check("stop").is_err());
    }

    #[test]
    fn filters_name_what_there_is() {
        let filter = |scope: &str, state: &str, limit| FilterText {
            scope: Some(scope.to_owned()),
            state: Some(state.to_owned()),
            name: None,
            limit: Some(limit),
        };
        let (found, limit) = filter("tenant", "paused", 5).check().unwrap();
        assert_eq!((found.kind, found.state, limit), (Some(ScopeKind::Tenant), Some(State::Paused), 5));
        assert!(filter("tenant_set", "paused", 5).check().is_err());
        assert!(filter("tenant", "bad", 5).check().is_err());
        assert!(filter("tenant", "paused", 0).check().is_err());
        assert!(filter("tenant", "paused", ROWS_MAX + 1).check().is_err());
    }
}
