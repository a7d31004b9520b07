//! What is remembered of messages that were sent: what late bounces and complaints are resolved against.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/sent/{id}` | [`SentReport`]; 404 where nothing is remembered |

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};

use super::AdminError;
use super::model::{text, text_option};
use super::query::message_id;
use super::routes::{Shared, answer, respond};
use crate::types::{MessageId, Timestamp};

/// Recipients of one answer.
pub const SENT_RECIPIENTS_MAX: usize = 1_000;

/// What is remembered of one message. Empty texts: there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentReport {
    /// Its id.
    #[serde(with = "text")]
    pub id: MessageId,
    /// When it was accepted.
    #[serde(with = "text")]
    pub accepted_at: Timestamp,
    /// Reverse path as it was submitted; empty for the null sender.
    pub sender: String,
    /// Who submitted it: a credential, or a client network.
    pub caller: String,
    /// Whose mail it is.
    pub tenant: String,
    /// The identity by which it was accepted.
    pub identity: String,
    /// Its configuration set.
    pub configuration_set: String,
    /// Recipients, in the order of the envelope.
    pub recipients: Vec<SentDetail>,
    /// There are more of them.
    pub more: bool,
}

/// One recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentDetail {
    /// Its position in the envelope, as tokens name it.
    pub index: u16,
    /// Forward path.
    pub address: String,
    /// `pending`, `delivered`, `bounced`, `expired`, `cancelled`.
    pub outcome: String,
    /// When it ended.
    #[serde(with = "text_option")]
    pub ended_at: Option<Timestamp>,
    /// The pool that it went out by.
    pub pool: String,
    /// The source of its last attempt.
    pub source: Option<String>,
    /// The site of its last attempt.
    pub site: Option<String>,
    /// When its bounce was told, in the session or by a report.
    #[serde(with = "text_option")]
    pub bounced_at: Option<Timestamp>,
    /// When a complaint came.
    #[serde(with = "text_option")]
    pub complained_at: Option<Timestamp>,
    /// When it unsubscribed.
    #[serde(with = "text_option")]
    pub unsubscribed_at: Option<Timestamp>,
    /// When a report came that is held against nobody.
    #[serde(with = "text_option")]
    pub remarked_at: Option<Timestamp>,
}

pub(super) fn router() -> Router<Shared> {
    Router::new().route("/v1/sent/{id}", get(sent))
}

async fn sent(State(shared): State<Shared>, Path(name): Path<String>) -> Response {
    let id = match message_id(&name) {
        Ok(id) => id,
        Err(error) => return error.into_response(),
    };
    match answer(shared.backend().sent(id)).await {
        Ok(Some(report)) => respond(Ok(report)),
        Ok(None) => AdminError::NotFound(format!(
            "nothing is remembered of message {id}: it was not sent to anybody, longer ago than is kept, or not by this server"
        ))
        .into_response(),
        Err(error) => error.into_response(),
    }
}
