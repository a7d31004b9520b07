//! The port to what takes mail for itself: bounces, complaints, requests to unsubscribe. `feedback` stands behind it, put together
//! by `daemon`.

use super::assembly::local_error;
use crate::feedback::desk::Message;
use crate::net::BoxFuture;
use crate::types::{EmailAddress, Reply, ReversePath};

/// Takes nothing: where there is no listener for feedback.
#[derive(Clone, Copy, Debug)]
pub struct NoInbox;

impl Inbox for NoInbox {
    fn admits(&self, _: &EmailAddress, _: &ReversePath) -> Result<(), Reply> {
        Err(local_error())
    }

    fn take(&self, _: Message) -> BoxFuture<'_, Result<(), Reply>> {
        Box::pin(async { Err(local_error()) })
    }
}

/// See the module.
pub trait Inbox: Send + Sync + 'static {
    /// Whether mail for this address is waited for. `Err`: the reply to RCPT.
    fn admits(&self, recipient: &EmailAddress, reverse_path: &ReversePath) -> Result<(), Reply>;

    /// Takes a message. `Ok`: what follows from it is safe. `Err`: the reply to the end of its data.
    fn take(&self, message: Message) -> BoxFuture<'_, Result<(), Reply>>;
}
