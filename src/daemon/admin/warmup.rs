//! Warm-up in the admin API: what each source and configuration set may send today at each site, what was sent on the days before, and
//! the operator's word on it.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/warmup?source=&set=&site=&limit=` | [`WarmupPage`] |
//! | `POST /v1/warmup/{pause,resume,set-day,complaints}`, body [`OrderBody`] | [`OrderReport`], or 404 where nothing matches |
//! | `GET /v1/warmup/history?source=&site=&days=&limit=` | [`HistoryPage`] |
//!
//! `site` is the name of a site or of a provider.

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};

use super::AdminError;
use super::model::text_option;
use super::routes::{self, Shared, answer, respond};
use crate::net::BoxFuture;
use crate::types::{SourceName, Timestamp};

/// Rows of one answer at most. Above: 400.
pub const ROWS_MAX: usize = 10_000;
/// Rows of one answer unless the caller says otherwise.
const ROWS_DEFAULT: usize = 1_000;
/// Days of history that are kept. Above: 400.
pub const DAYS_MAX: u32 = 400;
/// Days of history unless the caller says otherwise.
const DAYS_DEFAULT: u32 = 30;

/// What the API asks of warm-ups.
pub trait WarmupBackend: Send + Sync + 'static {
    /// What each may send today, and how far it is.
    fn warmups(&self, target: Target, limit: usize) -> BoxFuture<'_, Result<WarmupPage, AdminError>>;

    /// Does what the operator says; what it changed is safe on disk within a second.
    fn order(&self, target: Target, order: Order) -> BoxFuture<'_, Result<OrderReport, AdminError>>;

    /// What was sent, day by day.
    fn history(&self, target: Target, days: u32, limit: usize) -> BoxFuture<'_, Result<HistoryPage, AdminError>>;
}

/// Whose warm-up is meant. Nothing: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// One source.
    pub source: Option<SourceName>,
    /// One configuration set.
    pub set: Option<Box<str>>,
    /// One site, or all sites of a provider, by name.
    pub site: Option<Box<str>>,
}

/// What an operator wants of a warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// It stays at its day.
    Pause,
    /// It goes on, also where it was slowed or frozen.
    Resume,
    /// It stands at this day or stage of its plan, from 1 on.
    SetDay(u32),
    /// So many complaints came by another way (a provider's web page).
    Complaints(u32),
}

/// A target as typed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetText {
    /// A source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// A configuration set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// A site or provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Rows at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Days back, today included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
}

impl TargetText {
    fn check(&self) -> Result<(Target, usize, u32), AdminError> {
        let limit = self.limit.unwrap_or(ROWS_DEFAULT);
        let days = self.days.unwrap_or(DAYS_DEFAULT);
        if !(1..=ROWS_MAX).contains(&limit) {
            return Err(AdminError::BadRequest(format!("limit: write a number from 1 to {ROWS_MAX}")));
        }
        if !(1..=DAYS_MAX).contains(&days) {
            return Err(AdminError::BadRequest(format!("days: write a number from 1 to {DAYS_MAX}")));
        }
        let target = target(self.source.as_deref(), self.set.as_deref(), self.site.as_deref())?;
        Ok((target, limit, days))
    }
}

fn target(source: Option<&str>, set: Option<&str>, site: Option<&str>) -> Result<Target, AdminError> {
    if source.is_some() && set.is_some() {
        return Err(AdminError::BadRequest("name a source or a set, not both".to_owned()));
    }
    let wrong = |name: &str| AdminError::BadRequest(format!("source: {name:?} can be the name of none"));
    let source = source.map(|name| SourceName::parse(name).ok_or_else(|| wrong(name))).transpose()?;
    Ok(Target { source, set: set.map(Box::from), site: site.map(Box::from) })
}

/// The body of an order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderBody {
    /// A source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// A configuration set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// A site or provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// The day of the plan (`set-day`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day: Option<u32>,
    /// How many (`complaints`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

impl OrderBody {
    fn check(&self, action: &str) -> Result<(Target, Order), AdminError> {
        let target = target(self.source.as_deref(), self.set.as_deref(), self.site.as_deref())?;
        if target.source.is_none() && target.set.is_none() {
            return Err(AdminError::BadRequest("name a source or a set".to_owned()));
        }
        if action == "complaints" && target.site.is_none() {
            let text = "site: name the site or provider that the complaints are of";
            return Err(AdminError::BadRequest(text.to_owned()));
        }
        let missing = |what: &str| AdminError::BadRequest(format!("{what}: write a number from 1 on"));
        let number = |number: Option<u32>, what| number.filter(|number| *number > 0).ok_or_else(|| missing(what));
        let order = match action {
            "pause" => Order::Pause,
            "resume" => Order::Resume,
            "set-day" => Order::SetDay(number(self.day, "day")?),
            "complaints" => Order::Complaints(number(self.count, "count")?),
            _ => return Err(AdminError::NotFound("there are pause, resume, set-day and complaints".to_owned())),
        };
        Ok((target, order))
    }
}

/// How many warm-ups an order changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderReport {
    /// Of those that the target names.
    pub changed: u64,
}

/// What may be sent today.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmupPage {
    /// By source or set, then site.
    pub warmups: Vec<WarmupRow>,
    /// How many there are beyond these.
    pub more: u64,
    /// The sources, and where each stands in its life.
    pub sources: Vec<SourceRow>,
}

/// One source or configuration set at one site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmupRow {
    /// The source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Or the configuration set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// Where.
    pub site: String,
    /// The provider whose rule the site is under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The plan's name.
    pub plan: String,
    /// The day or stage of the plan.
    pub day: u32,
    /// How many it has.
    pub days: u32,
    /// How much of the plan lies behind, in percent.
    pub percent: u8,
    /// `running`, `slowed`, `frozen`, `paused` or `over`.
    pub mode: String,
    /// Until when it is frozen.
    #[serde(with = "text_option", default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Why it is not running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Messages of this UTC day at most; absent: no limit any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<u32>,
    /// Of those, sent.
    pub used: u32,
    /// Recipients that were delivered to on this UTC day.
    pub delivered: u32,
    /// When more may be sent, where nothing may now.
    #[serde(with = "text_option", default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
    /// When it last sent.
    #[serde(with = "text_option", default, skip_serializing_if = "Option::is_none")]
    pub last_sent_at: Option<Timestamp>,
}

/// A source's place in its life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRow {
    /// Its name.
    pub source: String,
    /// `parked`, `warming`, `active`, `resting` or `blocked`.
    pub life: String,
    /// The pools that manage it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub managed_by: Vec<String>,
    /// Since when a pool has it parked, active or resting.
    #[serde(with = "text_option", default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// Days that lie behind, and today.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryPage {
    /// By day, source and site, the oldest first.
    pub rows: Vec<HistoryRow>,
    /// There are more than these.
    pub more: bool,
}

/// A source at a site on one UTC day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRow {
    /// `2026-01-31`.
    pub day: String,
    /// The source.
    pub source: String,
    /// The site; empty: all that had few messages.
    pub site: String,
    /// The provider whose rule the site is under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Recipients that were tried.
    pub sent: u32,
    /// Of those, taken by the host.
    pub delivered: u32,
    /// To be tried again.
    pub deferred: u32,
    /// Refused for good, in all.
    pub bounced: u32,
    /// The same by class of the reply.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub bounced_by_class: std::collections::BTreeMap<String, u32>,
    /// Complaints.
    pub complained: u32,
    /// Times that the source was blocked there.
    pub blocked: u32,
    /// Messages that the warm-up allowed on that day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<u32>,
    /// The day or stage of the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_day: Option<u32>,
}

pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/v1/warmup", get(show))
        .route("/v1/warmup/history", get(history))
        .route("/v1/warmup/{action}", post(order))
}

fn checked(query: Result<Query<TargetText>, QueryRejection>) -> Result<(Target, usize, u32), AdminError> {
    query.map_err(|rejection| AdminError::BadRequest(rejection.body_text())).and_then(|Query(text)| text.check())
}

async fn show(State(shared): State<Shared>, query: Result<Query<TargetText>, QueryRejection>) -> Response {
    match checked(query) {
        Ok((target, limit, _)) => respond(answer(shared.warmup().warmups(target, limit)).await),
        Err(error) => error.into_response(),
    }
}

async fn history(State(shared): State<Shared>, query: Result<Query<TargetText>, QueryRejection>) -> Response {
    match checked(query) {
        Ok((target, limit, days)) => respond(answer(shared.warmup().history(target, days, limit)).await),
        Err(error) => error.into_response(),
    }
}

async fn order(State(shared): State<Shared>, Path(action): Path<String>, body: Body) -> Response {
    let body = routes::read_json::<OrderBody>(body, routes::BODY_BYTES_MAX).await;
    let (target, order) = match body.and_then(|body| body.check(&action)) {
        Ok(order) => order,
        Err(error) => return error.into_response(),
    };
    let described = format!("{target:?}");
    let result = answer(shared.warmup().order(target, order)).await;
    match &result {
        Ok(report) => tracing::info!(?order, target = described, changed = report.changed, "warm-up order"),
        Err(error) => tracing::warn!(?order, target = described, %error, "warm-up order failed"),
    }
    match result {
        Ok(OrderReport { changed: 0 }) => {
            let text = "no warm-up of that name is known: `posthaste warmup status` shows them; those of sites that mail went to \
                        are";
            AdminError::NotFound(text.to_owned()).into_response()
        }
        result => respond(result),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_need_whom_and_how_many() {
        let source = || OrderBody { source: Some("a".to_owned()), ..OrderBody::default() };
        let order = |body: OrderBody, action: &str| {
            body.check(action).map(|(_, order)| order).map_err(|error| error.to_string())
        };
        assert_eq!(order(source(), "pause"), Ok(Order::Pause));
        assert_eq!(order(OrderBody { day: Some(3), ..source() }, "set-day"), Ok(Order::SetDay(3)));
        assert!(order(OrderBody { day: Some(0), ..source() }, "set-day").unwrap_err().contains("from 1 on"));
        assert!(order(source(), "complaints").unwrap_err().contains("site"));
        let at_site = OrderBody { site: Some("google".to_owned()), ..source() };
        assert!(order(at_site, "complaints").unwrap_err().contains("count"));
        assert!(order(OrderBody::default(), "pause").unwrap_err().contains("a source or a set"));
        assert!(order(OrderBody { set: Some("s".to_owned()), ..source() }, "pause").unwrap_err().contains("not both"));
        assert!(order(OrderBody { source: Some("a b".to_owned()), ..source() }, "pause").unwrap_err().contains("none"));
        assert!(order(source(), "stop").unwrap_err().contains("set-day"));
    }

    #[test]
    fn targets_have_bounds() {
        let limit = |limit| TargetText { limit: Some(limit), ..TargetText::default() }.check().is_ok();
        assert!(limit(1) && limit(ROWS_MAX) && !limit(0) && !limit(ROWS_MAX + 1));
        let days = |days| TargetText { days: Some(days), ..TargetText::default() }.check().is_ok();
        assert!(days(1) && days(400) && !days(0) && !days(401));
    }
}
