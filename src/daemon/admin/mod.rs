//! The admin API: HTTP and JSON over a Unix socket, for `posthaste status` and `posthaste queue`, and for scripts.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/health` | 200 or 503, [`model::Health`] |
//! | `GET /v1/status` | [`model::Status`] |
//! | `GET /v1/quota` | [`model::QuotaReport`] |
//! | `GET /v1/explain?target=&pool=` | [`explain::Explanation`] |
//! | `GET /v1/queue?domain=&sender=&state=&limit=&after=` | [`model::Page`] |
//! | `GET /v1/queue/{id}` | [`model::MessageDetail`] |
//! | `GET /v1/sent/{id}` | [`sent::SentReport`] |
//! | `POST /v1/queue/{id}/{action}` | [`model::ActionReport`] |
//! | `POST /v1/queue/{action}`, body [`query::ActionBody`] | [`model::ActionReport`] |
//!
//! [`suppression`] has those of the suppression lists. Actions are `retry`, `hold`, `release`, `cancel`. Errors are `{"error":{"code":"...","message":"..."}}` with the codes
//! of [`AdminError`]. Within `/v1` fields may be added, never changed or removed.
//!
//! Promises: only root, the daemon's own user and members of the socket's group are served; connections, head, body and
//! answer time are bounded; an action that began goes on even where its client leaves. Does not: know the queue. The
//! daemon implements [`Backend`].

mod access;
pub mod explain;
pub mod model;
pub mod query;
pub mod reputation;
mod routes;
pub mod sent;
mod server;
pub mod suppression;
pub mod warmup;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod socket_test;

use crate::net::BoxFuture;
use crate::types::MessageId;
use explain::{ExplainQuery, Explanation};
use model::{ActionReport, MessageDetail, Page, QuotaReport, Status};
use query::{Action, ListQuery, Selection};
use reputation::ReputationBackend;
use sent::SentReport;
use suppression::SuppressionBackend;
use warmup::WarmupBackend;

pub use server::{AdminServer, BindError};

/// What the API asks of the daemon. Calls may take as long as they need; `status`, `quota`, `list`, `show`, `sent` and `explain` are given up after
/// 30 seconds. Implementations must not block the runtime.
pub trait Backend: Send + Sync + 'static {
    /// How the daemon does.
    fn status(&self) -> BoxFuture<'_, Result<Status, AdminError>>;

    /// What senders used of their limits.
    fn quota(&self) -> BoxFuture<'_, Result<QuotaReport, AdminError>>;

    /// The messages that match, in the order of their ids, after `query.after`, at most `query.limit`.
    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Page, AdminError>>;

    /// All about one message; `None` where the queue does not hold it (any more).
    fn show(&self, id: MessageId) -> BoxFuture<'_, Result<Option<MessageDetail>, AdminError>>;

    /// What is remembered of one message that was sent; `None`: nothing.
    fn sent(&self, id: MessageId) -> BoxFuture<'_, Result<Option<SentReport>, AdminError>>;

    /// How mail goes to a domain or site, and what holds it back.
    fn explain(&self, query: ExplainQuery) -> BoxFuture<'_, Result<Explanation, AdminError>>;

    /// The suppression lists.
    fn suppression(&self) -> &dyn SuppressionBackend;

    /// Warm-ups, and the history of what was sent.
    fn warmup(&self) -> &dyn WarmupBackend;

    /// How bounces and complaints stand.
    fn reputation(&self) -> &dyn ReputationBackend;

    /// Does `action` to each selected message. A message that it does not change (a release of one that is not held)
    /// counts as examined only.
    fn act(&self, selection: Selection, action: Action) -> BoxFuture<'_, Result<ActionReport, AdminError>>;
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// 400 `bad_request`: the request makes no sense; the text says what to send instead.
    #[error("{0}")]
    BadRequest(String),
    /// 404 `not_found`: no such message or path.
    #[error("{0}")]
    NotFound(String),
    /// 405 `method_not_allowed`.
    #[error("{0}")]
    MethodNotAllowed(String),
    /// 413 `too_large`: the body is longer than the limit.
    #[error("{0}")]
    TooLarge(String),
    /// 503 `unavailable`: the daemon starts, stops, or its store does not answer. Try again.
    #[error("{0}")]
    Unavailable(String),
    /// 504 `timeout`: no answer in time.
    #[error("{0}")]
    Timeout(String),
    /// 500 `internal`: a bug or a broken disk; the log says more.
    #[error("{0}")]
    Internal(String),
}

impl AdminError {
    /// The stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            AdminError::BadRequest(_) => "bad_request",
            AdminError::NotFound(_) => "not_found",
            AdminError::MethodNotAllowed(_) => "method_not_allowed",
            AdminError::TooLarge(_) => "too_large",
            AdminError::Unavailable(_) => "unavailable",
            AdminError::Timeout(_) => "timeout",
            AdminError::Internal(_) => "internal",
        }
    }
}
