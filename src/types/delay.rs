//! Why a message waits, in SES's words.

/// `delayType` of a `DeliveryDelay` event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DelayType {
    /// Our own trouble.
    InternalFailure,
    /// Anything else in the session.
    General,
    /// The mailbox is full.
    MailboxFull,
    /// Taken for spam.
    SpamDetected,
    /// The recipient's server has trouble.
    RecipientServerError,
    /// Our address is blocked or limited.
    IpFailure,
    /// No connection, or a broken one.
    TransientCommunicationFailure,
    /// Nobody knows.
    Undetermined,
    /// We wait by ourselves (limits, pauses).
    SendingDeferral,
}

impl DelayType {
    /// All.
    pub const ALL: [DelayType; 9] = [
        DelayType::InternalFailure,
        DelayType::General,
        DelayType::MailboxFull,
        DelayType::SpamDetected,
        DelayType::RecipientServerError,
        DelayType::IpFailure,
        DelayType::TransientCommunicationFailure,
        DelayType::Undetermined,
        DelayType::SendingDeferral,
    ];

    /// As SES spells it.
    pub const fn name(self) -> &'static str {
        match self {
            DelayType::InternalFailure => "InternalFailure",
            DelayType::General => "General",
            DelayType::MailboxFull => "MailboxFull",
            DelayType::SpamDetected => "SpamDetected",
            DelayType::RecipientServerError => "RecipientServerError",
            DelayType::IpFailure => "IPFailure",
            DelayType::TransientCommunicationFailure => "TransientCommunicationFailure",
            DelayType::Undetermined => "Undetermined",
            DelayType::SendingDeferral => "SendingDeferral",
        }
    }
}
