//! What a bounce is, in SES's words.

/// `bounceType` and `bounceSubType`: only pairs that SES knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BounceKind {
    /// Undetermined, Undetermined.
    Undetermined,
    /// Permanent, General.
    PermanentGeneral,
    /// Permanent, NoEmail: the mailbox does not exist.
    PermanentNoEmail,
    /// Permanent, Suppressed: the global list.
    PermanentSuppressed,
    /// Permanent, OnAccountSuppressionList.
    PermanentOnAccountSuppressionList,
    /// Permanent, UnsubscribedRecipient.
    PermanentUnsubscribedRecipient,
    /// Transient, General.
    TransientGeneral,
    /// Transient, MailboxFull.
    TransientMailboxFull,
    /// Transient, MessageTooLarge.
    TransientMessageTooLarge,
    /// Transient, ContentRejected.
    TransientContentRejected,
    /// Transient, AttachmentRejected.
    TransientAttachmentRejected,
    /// Transient, CustomTimeoutExceeded: the lifetime ended.
    TransientCustomTimeoutExceeded,
}

impl BounceKind {
    /// Type and subtype as SES spells them.
    pub const fn names(self) -> (&'static str, &'static str) {
        match self {
            BounceKind::Undetermined => ("Undetermined", "Undetermined"),
            BounceKind::PermanentGeneral => ("Permanent", "General"),
            BounceKind::PermanentNoEmail => ("Permanent", "NoEmail"),
            BounceKind::PermanentSuppressed => ("Permanent", "Suppressed"),
            BounceKind::PermanentOnAccountSuppressionList => ("Permanent", "OnAccountSuppressionList"),
            BounceKind::PermanentUnsubscribedRecipient => ("Permanent", "UnsubscribedRecipient"),
            BounceKind::TransientGeneral => ("Transient", "General"),
            BounceKind::TransientMailboxFull => ("Transient", "MailboxFull"),
            BounceKind::TransientMessageTooLarge => ("Transient", "MessageTooLarge"),
            BounceKind::TransientContentRejected => ("Transient", "ContentRejected"),
            BounceKind::TransientAttachmentRejected => ("Transient", "AttachmentRejected"),
            BounceKind::TransientCustomTimeoutExceeded => ("Transient", "CustomTimeoutExceeded"),
        }
    }
}
