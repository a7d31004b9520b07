//! Requests to unsubscribe: by mail to an address with a token, or by the link with one.
//!
//! Promises: when [`Desk::unsubscribe`] says `Done`, the address is on the list of the message's configuration set, on the disk, and one
//! `Subscription` event tells of it, however often the same is asked. Who was taken off the list since (subscribed again) and asks once
//! more, by whichever message, is on it again. Other mail of the same tenant goes on.

use super::{Desk, TakeError};
use crate::feedback::effects;
use crate::policy::token::{Addressee, Purpose, TokenContent, verify};
use crate::queue::feedback::FeedbackEffect;
use crate::queue::sent::SentRecipient;

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As a message.
    Mail,
    /// By a mail program's POST (RFC 8058), or a person's at the page: nobody can tell one from the other.
    OneClick,
}

impl Way {
    /// The rule that the event names.
    const fn rule(self) -> &'static str {
        match self {
            Way::Mail => "unsubscribe-mail",
            Way::OneClick => "unsubscribe-one-click",
        }
    }
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsubscribed {
    /// Now, or before.
    Done,
    /// Nobody knows whom it speaks of any more.
    Unknown,
    /// What is remembered of them is damaged.
    Damaged,
}

impl Desk {
    /// What a link's token says, where it is one that counts.
    pub fn unsubscribe_token(&self, text: &str) -> Option<TokenContent> {
        let lifetime = self.settings.load().addresses.token_lifetime;
        verify(&self.keys.load(), Purpose::Unsubscribe, text, self.clock.now(), lifetime).ok()
    }

    /// Does what the owner of a token asks for. An error: nothing of it is done, and it should be asked again. Not cancel-safe: what was
    /// committed stays.
    pub async fn unsubscribe(&self, token: TokenContent, way: Way) -> Result<Unsubscribed, TakeError> {
        let sent = match self.remembered(token).await? {
            Ok(sent) => sent,
            Err(unsubscribed) => return Ok(unsubscribed),
        };
        let effect = self.queue.apply_feedback(effects::unsubscribe(&sent, way.rule(), self.clock.now())).await?;
        Ok(match effect {
            FeedbackEffect::Applied | FeedbackEffect::AlreadyKnown => Unsubscribed::Done,
            FeedbackEffect::Unknown => Unsubscribed::Unknown,
        })
    }

    /// Whether anything could follow from a request with this token; else why nothing can.
    pub async fn can_unsubscribe(&self, token: TokenContent) -> Result<Result<(), Unsubscribed>, TakeError> {
        Ok(self.remembered(token).await?.map(drop))
    }

    async fn remembered(&self, token: TokenContent) -> Result<Result<SentRecipient, Unsubscribed>, TakeError> {
        // A token for the whole message would unsubscribe all its recipients.
        let Addressee::Recipient(_) = token.addressee else { return Ok(Err(Unsubscribed::Unknown)) };
        let Some(sent) = self.sent(token).await? else { return Ok(Err(Unsubscribed::Damaged)) };
        Ok(sent.into_iter().next().ok_or(Unsubscribed::Unknown))
    }
}
