//! What a transaction came to, for each recipient and for the connection.

use std::fmt;

use crate::types::{EnhancedStatus, Reply, Stage};

/// A connection that ended in the middle of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// What was being waited for or written.
    pub stage: Stage,
    /// How it ended.
    pub reason: LossReason,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LossReason {
    /// The peer said 421 (RFC 5321 §3.8).
    ShuttingDown(Reply),
    /// The peer closed without a word.
    Closed,
    /// The peer took longer than the timeout of the stage.
    TimedOut,
    /// The operating system or TLS said so.
    Io(Box<str>),
    /// What the peer said was no SMTP, or made no sense at this point.
    Protocol(Box<str>),
    /// Ours: the body could not be read, or had not the size that was declared.
    Body(Box<str>),
}

impl Loss {
    /// Whether the host or the way to it is to blame, rather than ourselves.
    pub const fn is_host_fault(&self) -> bool {
        !matches!(self.reason, LossReason::Body(_))
    }

    /// The peer's last words, if it had any.
    pub const fn reply(&self) -> Option<&Reply> {
        match &self.reason {
            LossReason::ShuttingDown(reply) => Some(reply),
            _ => None,
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = self.stage;
        match &self.reason {
            LossReason::ShuttingDown(reply) => write!(f, "host closed the connection at {stage}: {reply}"),
            LossReason::Closed => write!(f, "host closed the connection at {stage} without a reply"),
            LossReason::TimedOut => write!(f, "timeout at {stage}"),
            LossReason::Io(text) => write!(f, "connection lost at {stage}: {text}"),
            LossReason::Protocol(text) => write!(f, "protocol error at {stage}: {text}"),
            LossReason::Body(text) => write!(f, "message body not available: {text}"),
        }
    }
}

/// The fate of one recipient in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecipientResult {
    /// The peer took responsibility (RFC 5321 §6.1).
    Accepted {
        /// To the final dot.
        reply: Reply,
    },
    /// The peer said no, for now or for good.
    Refused {
        /// Its words.
        reply: Reply,
        /// To which command.
        stage: Stage,
    },
    /// The connection ended before the message was handed over: a matter of the host, not of the recipient.
    NotSent {
        /// How it ended.
        loss: Loss,
    },
    /// All of the message went out and no usable reply came: the peer may have it, or not.
    Ambiguous {
        /// How it ended.
        loss: Loss,
    },
    /// Our own verdict: this peer cannot take this message. Another MX host may.
    Unsendable {
        /// 5.3.4: too large; 5.6.7: needs SMTPUTF8.
        status: EnhancedStatus,
        /// For people.
        text: Box<str>,
    },
}

/// What can be done with the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Another transaction may follow.
    Reusable,
    /// It is closed, or no longer understood.
    Closed,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// In the order of the transaction's recipients.
    pub recipients: Vec<RecipientResult>,
    /// The connection.
    pub after: After,
    /// The next transaction must begin with RSET, as this one was left open (RFC 5321 §4.1.4).
    pub needs_reset: bool,
    /// The connection ended before it gave any reply in this transaction. On a connection that was kept for reuse this
    /// means that the host had closed it meanwhile: no fault of anyone, try at once on a new one.
    pub silent_from_the_start: bool,
}
