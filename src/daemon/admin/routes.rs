//! Requests to [`Backend`] calls, results to JSON.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::task::TaskTracker;

use super::explain::ExplainText;
use super::model::{ErrorBody, ErrorText, Health};
use super::query::{Action, ActionBody, ListText, Selection, message_id};
use super::reputation::ReputationBackend;
use super::suppression::SuppressionBackend;
use super::warmup::WarmupBackend;
use super::{AdminError, Backend};
use crate::net::BoxFuture;

/// Octets of a request body. Above: 413.
pub(super) const BODY_BYTES_MAX: usize = 64 << 10;
/// A body must be here within this time. Later: 504.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Questions are answered within this time. Later: 504. Actions have none: they may touch the whole queue.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What handlers share.
#[derive(Clone)]
pub(super) struct Shared {
    backend: Arc<dyn Backend>,
    /// Actions under way, which outlive their connection; one for each connection at most.
    actions: TaskTracker,
}

impl Shared {
    pub(super) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    pub(super) fn warmup(&self) -> &dyn WarmupBackend {
        self.backend.warmup()
    }

    pub(super) fn reputation(&self) -> &dyn ReputationBackend {
        self.backend.reputation()
    }

    pub(super) fn suppression(&self) -> &dyn SuppressionBackend {
        self.backend.suppression()
    }
}

/// The whole API.
pub(super) fn router(backend: Arc<dyn Backend>) -> Router {
    Router::new()
        .route("/v1/health", get(health))
        .route("/v1/status", get(status))
        .route("/v1/quota", get(quota))
        .route("/v1/explain", get(explain))
        .route("/v1/queue", get(list))
        .route("/v1/queue/{name}", get(show).post(act_matching))
        .route("/v1/queue/{name}/{action}", post(act_one))
        .merge(super::sent::router())
        .merge(super::suppression::router())
        .merge(super::warmup::router())
        .merge(super::reputation::router())
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Shared { backend, actions: TaskTracker::new() })
}

async fn health(State(shared): State<Shared>) -> Response {
    let health = match answer(shared.backend.status()).await {
        Ok(status) => Health { healthy: status.healthy, reason: status.health_reason },
        Err(error) => Health { healthy: false, reason: Some(error.to_string()) },
    };
    let code = if health.healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(health)).into_response()
}

async fn status(State(shared): State<Shared>) -> Response {
    respond(answer(shared.backend.status()).await)
}

async fn quota(State(shared): State<Shared>) -> Response {
    respond(answer(shared.backend.quota()).await)
}

async fn list(State(shared): State<Shared>, query: Result<Query<ListText>, QueryRejection>) -> Response {
    let query =
        query.map_err(|rejection| AdminError::BadRequest(rejection.body_text())).and_then(|Query(text)| text.check());
    match query {
        Ok(query) => respond(answer(shared.backend.list(query)).await),
        Err(error) => error.into_response(),
    }
}

async fn explain(State(shared): State<Shared>, query: Result<Query<ExplainText>, QueryRejection>) -> Response {
    let query =
        query.map_err(|rejection| AdminError::BadRequest(rejection.body_text())).and_then(|Query(text)| text.check());
    match query {
        Ok(query) => respond(answer(shared.backend.explain(query)).await),
        Err(error) => error.into_response(),
    }
}

async fn show(State(shared): State<Shared>, Path(name): Path<String>) -> Response {
    let id = match message_id(&name) {
        Ok(id) => id,
        Err(error) => return error.into_response(),
    };
    match answer(shared.backend.show(id)).await {
        Ok(Some(detail)) => respond(Ok(detail)),
        Ok(None) => gone(&name).into_response(),
        Err(error) => error.into_response(),
    }
}

async fn act_matching(State(shared): State<Shared>, Path(name): Path<String>, body: Body) -> Response {
    let request = read_body(body).await.and_then(|body| {
        let selection = body.selection()?;
        Ok((selection, Action::parse(&name, body.reason)?))
    });
    match request {
        Ok((selection, action)) => respond(act(&shared, selection, action).await),
        Err(error) => error.into_response(),
    }
}

async fn act_one(State(shared): State<Shared>, Path((name, action)): Path<(String, String)>, body: Body) -> Response {
    let request = read_body(body).await.and_then(|body| {
        let filter_given = body != ActionBody { reason: body.reason.clone(), ..ActionBody::default() };
        if filter_given {
            return Err(AdminError::BadRequest("a filter beside an id makes no sense: send only reason".to_owned()));
        }
        Ok((message_id(&name)?, Action::parse(&action, body.reason)?))
    });
    let (id, action) = match request {
        Ok(request) => request,
        Err(error) => return error.into_response(),
    };
    match act(&shared, Selection::One(id), action).await {
        Ok(report) if report.examined == 0 => gone(&name).into_response(),
        result => respond(result),
    }
}

/// Runs in its own task, so that it goes on where the client leaves.
async fn act(shared: &Shared, selection: Selection, action: Action) -> Result<super::model::ActionReport, AdminError> {
    let backend = Arc::clone(&shared.backend);
    let task = shared.actions.spawn(async move {
        let name = action.to_string();
        let described = format!("{selection:?}");
        let result = backend.act(selection, action).await;
        match &result {
            Ok(report) => tracing::info!(
                action = name,
                selection = described,
                changed = report.changed,
                examined = report.examined,
                "admin action"
            ),
            Err(error) => tracing::warn!(action = name, selection = described, %error, "admin action failed"),
        }
        result
    });
    task.await.unwrap_or_else(|_| Err(AdminError::Internal("the action panicked; see the log".to_owned())))
}

async fn read_body(body: Body) -> Result<ActionBody, AdminError> {
    let bytes = read_bytes(body, BODY_BYTES_MAX).await?;
    if bytes.is_empty() {
        return Ok(ActionBody::default());
    }
    parse_json(&bytes)
}

/// A body that must be there.
pub(super) async fn read_json<T: DeserializeOwned>(body: Body, bytes_max: usize) -> Result<T, AdminError> {
    parse_json(&read_bytes(body, bytes_max).await?)
}

fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, AdminError> {
    serde_json::from_slice(bytes).map_err(|error| AdminError::BadRequest(format!("body: {error}")))
}

async fn read_bytes(body: Body, bytes_max: usize) -> Result<Bytes, AdminError> {
    let late = |_| AdminError::Timeout(format!("no whole body within {} seconds", BODY_TIMEOUT.as_secs()));
    let bytes = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, bytes_max)).await.map_err(late)?;
    bytes.map_err(|_| AdminError::TooLarge(format!("the body must be whole and below {bytes_max} bytes")))
}

pub(super) async fn answer<T>(call: BoxFuture<'_, Result<T, AdminError>>) -> Result<T, AdminError> {
    let late =
        |_| AdminError::Timeout(format!("the daemon did not answer within {} seconds", ANSWER_TIMEOUT.as_secs()));
    tokio::time::timeout(ANSWER_TIMEOUT, call).await.map_err(late)?
}

async fn no_such_path() -> AdminError {
    AdminError::NotFound("no such path; docs/OPERATIONS.md lists them".to_owned())
}

async fn wrong_method() -> AdminError {
    AdminError::MethodNotAllowed("questions are GET, actions are POST".to_owned())
}

fn gone(id: &str) -> AdminError {
    AdminError::NotFound(format!("the queue holds no message {id}: it has ended (see the event files), or never came"))
}

pub(super) fn respond<T: Serialize>(result: Result<T, AdminError>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error) => error.into_response(),
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        let status = match &self {
            AdminError::BadRequest(_) => StatusCode::BAD_REQUEST,
            AdminError::NotFound(_) => StatusCode::NOT_FOUND,
            AdminError::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            AdminError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            AdminError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            AdminError::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            AdminError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let error = ErrorText { code: self.code().to_owned(), message: self.to_string() };
        (status, Json(ErrorBody { error })).into_response()
    }
}
