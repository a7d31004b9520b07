//! The port to what takes mail for itself: bounces, complaints, requests to unsubscribe. `feedback` stands behind it, put together
//! by `daemon`.

use std::net::IpAddr;

use bytes::Bytes;

use super::assembly::local_error;
use crate::net::BoxFuture;
use crate::types::{EmailAddress, MessageId, Reply, ReversePath};

/// A message for us.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Names it in the reply and in logs; made for it, its time is that of its end.
    pub id: MessageId,
    /// Who brought it.
    pub client: IpAddr,
    /// Where its own failure would be told.
    pub reverse_path: ReversePath,
    /// Those that [`Inbox::admits`] let in, at least one.
    pub recipients: Vec<EmailAddress>,
    /// The message, lines ended by CRLF.
    pub octets: Bytes,
}

/// Takes nothing: where there is no listener for feedback.
#[derive(Clone, Copy, Debug)]
pub struct NoInbox;

impl Inbox for NoInbox {
    fn admits(&self, _: &EmailAddress, _: &ReversePath) -> Result<(), Reply> {
        Err(local_error())
    }

    fn take(&self, _: Incoming) -> BoxFuture<'_, Result<(), Reply>> {
        Box::pin(async { Err(local_error()) })
    }
}

/// See the module.
pub trait Inbox: Send + Sync + 'static {
    /// Whether mail for this address is waited for. `Err`: the reply to RCPT.
    fn admits(&self, recipient: &EmailAddress, reverse_path: &ReversePath) -> Result<(), Reply>;

    /// Takes a message. `Ok`: what follows from it is safe. `Err`: the reply to the end of its data.
    fn take(&self, message: Incoming) -> BoxFuture<'_, Result<(), Reply>>;
}
