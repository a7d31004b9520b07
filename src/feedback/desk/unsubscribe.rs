//! Requests to unsubscribe: by mail to an address with a token, or by the link with one.
//!
//! Promises: when [`Desk::unsubscribe`] says `Done`, the address is on the list of the message's configuration set, on the disk, and one
//! `Subscription` event tells of it, however often the same is asked. Who was taken off the list since (subscribed again) and asks once
//! more, by whichever message, is on it again. Other mail of the same tenant goes on.

use super::{Desk, TakeError};
use crate::feedback::effects::{self, Effects};
use crate::policy::token::{Addressee, Purpose, TokenContent, verify};
use crate::queue::feedback::{FeedbackEffect, FeedbackKind};
use crate::queue::sent::SentRecipient;
use crate::types::SuppressionReason;

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
        // A token for the whole message would unsubscribe all its recipients.
        let Addressee::Recipient(_) = token.addressee else { return Ok(Unsubscribed::Unknown) };
        let sent = self.sent(token).await?;
        let Some(sent) = sent.as_ref().and_then(|sent| sent.first()) else {
            metrics::counter!(
                crate::events::metric::FEEDBACK,
                "kind" => FeedbackKind::Unsubscribe.name(),
                "effect" => "unknown"
            )
            .increment(1);
            return Ok(Unsubscribed::Unknown);
        };
        // Without configuration sets their names are texts of clients, and nothing is looked up by them.
        let lists = self.settings.load().counting.has_sets && !sent.configuration_set.is_empty();
        let effects = Effects { lists, ..Effects::default() };
        let ask = |again| effects::unsubscribe(sent, way.rule(), effects, again, self.clock.now());
        let effect = self.queue.apply_feedback(ask(false)).await?;
        if effect == FeedbackEffect::AlreadyKnown && lists && !self.is_unsubscribed(sent).await? {
            self.queue.apply_feedback(ask(true)).await?;
        }
        Ok(Unsubscribed::Done)
    }

    async fn is_unsubscribed(&self, sent: &SentRecipient) -> Result<bool, TakeError> {
        let listed = self.queue.listed(&sent.tenant, Some(&sent.configuration_set), &[&sent.recipient]).await;
        let listed = listed.map_err(|error| TakeError::Sent(error.into()))?;
        Ok(listed.first().is_some_and(|(_, listed)| listed.set == Some(SuppressionReason::Unsubscribe)))
    }
}
