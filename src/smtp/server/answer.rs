//! Every reply that the machine gives by itself, in one place. Texts that existing applications know are SES's.

use std::borrow::Cow;

use super::super::command::CommandError;
use super::content::Fault;
use crate::types::Reply;

/// A one-line reply: basic code, enhanced status code (RFC 3463), text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub(super) code: u16,
    status: &'static str,
    text: Cow<'static, str>,
}

const fn answer(code: u16, status: &'static str, text: &'static str) -> Answer {
    Answer { code, status, text: Cow::Borrowed(text) }
}

pub(super) const OK: Answer = answer(250, "2.0.0", "Ok");
pub(super) const SENDER_OK: Answer = answer(250, "2.1.0", "Ok");
pub(super) const RECIPIENT_OK: Answer = answer(250, "2.1.5", "Ok");
pub(super) const CANNOT_VERIFY: Answer = answer(252, "2.5.2", "Cannot verify; send it and see the events");
pub(super) const HELP: Answer =
    answer(214, "2.0.0", "EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT STARTTLS AUTH; see RFC 5321");
pub(super) const BYE: Answer = answer(221, "2.0.0", "Bye");
pub(super) const READY_FOR_TLS: Answer = answer(220, "2.0.0", "Ready to start TLS");
pub(super) const LINE_TOO_LONG: Answer = answer(500, "5.5.2", "Line too long");
pub(super) const BARE_LF_IN_COMMAND: Answer = answer(500, "5.5.2", "Lines must end in CRLF");
pub(super) const NOT_IMPLEMENTED: Answer = answer(502, "5.5.1", "Command not implemented");
pub(super) const NO_TLS: Answer = answer(502, "5.5.1", "STARTTLS is not offered here");
pub(super) const TLS_ALREADY: Answer = answer(503, "5.5.1", "TLS is already active");
pub(super) const NOT_IN_TRANSACTION: Answer = answer(503, "5.5.1", "Not during a transaction");
pub(super) const TLS_AFTER_LOGIN: Answer = answer(503, "5.5.1", "Not after AUTH");
pub(super) const LOGGED_IN: Answer = answer(235, "2.7.0", "Authentication successful");
pub(super) const LOGIN_REFUSED: Answer = answer(535, "5.7.8", "Authentication Credentials Invalid");
pub(super) const LOGIN_DEFERRED: Answer = answer(454, "4.7.0", "Temporary authentication failure");
pub(super) const LOGIN_CANCELLED: Answer = answer(501, "5.7.0", "Authentication cancelled");
pub(super) const LOGIN_MALFORMED: Answer = answer(501, "5.5.2", "Cannot decode response");
pub(super) const LOGIN_LINE_TOO_LONG: Answer = answer(500, "5.5.6", "Authentication exchange line is too long");
pub(super) const UNKNOWN_MECHANISM: Answer = answer(504, "5.5.4", "Unrecognized authentication type");
pub(super) const LOGGED_IN_ALREADY: Answer = answer(503, "5.5.1", "Already authenticated");
pub(super) const LOGIN_NOT_OFFERED: Answer = answer(502, "5.5.1", "AUTH is not offered here");
pub(super) const TLS_FIRST: Answer = answer(530, "5.7.0", "Must issue a STARTTLS command first");
pub(super) const TOO_MANY_LOGINS: Answer = answer(421, "4.7.0", "Too many failed authentications");
pub(super) const PLAINTEXT_AFTER_STARTTLS: Answer = answer(554, "5.5.1", "Plaintext after STARTTLS");
pub(super) const HTTP: Answer = answer(554, "5.5.1", "This is an SMTP port");
pub(super) const HELLO_FIRST: Answer = answer(503, "5.5.1", "Send EHLO or HELO first");
pub(super) const NESTED_MAIL: Answer = answer(503, "5.5.1", "Transaction in progress, send RSET first");
pub(super) const MAIL_FIRST: Answer = answer(503, "5.5.1", "Send MAIL first");
pub(super) const NO_RECIPIENTS: Answer = answer(554, "5.5.1", "No valid recipients");
pub(super) const CHUNKS_BEGUN: Answer = answer(503, "5.5.1", "BDAT has begun: only BDAT or RSET may follow");
pub(super) const TOO_MANY_RECIPIENTS: Answer = answer(452, "4.5.3", "Too many recipients");
pub(super) const MESSAGE_TOO_LONG: Answer = answer(552, "5.3.4", "Message is too long.");
pub(super) const TOO_MANY_ERRORS: Answer = answer(421, "4.7.0", "Too many errors");
pub(super) const TOO_MANY_IDLE_COMMANDS: Answer = answer(421, "4.7.0", "Too many commands without a message");
pub(super) const TOO_MANY_TRANSACTIONS: Answer = answer(421, "4.7.0", "Too many messages in one connection");

/// Why the driver ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// The client sent nothing for too long: 451 4.4.2, in SES's words.
    Timeout,
    /// The session as a whole took too long: 421 4.4.2.
    SessionTooLong,
    /// The server stops: 421 4.3.2 (RFC 5321 §3.8).
    Shutdown,
}

impl Farewell {
    pub(super) const fn answer(self) -> Answer {
        match self {
            Farewell::Timeout => answer(451, "4.4.2", "Timeout waiting for data from client."),
            Farewell::SessionTooLong => answer(421, "4.4.2", "Session took too long"),
            Farewell::Shutdown => answer(421, "4.3.2", "Server is shutting down"),
        }
    }
}

impl From<&CommandError> for Answer {
    fn from(error: &CommandError) -> Self {
        let (code, status) = match error {
            CommandError::NotText => (500, "5.5.2"),
            CommandError::Unknown => (500, "5.5.1"),
            CommandError::Argument(_) | CommandError::Chunk => (501, "5.5.4"),
            CommandError::UnknownParameter(_) => (555, "5.5.4"),
            CommandError::Sender(_) => (553, "5.1.7"),
            CommandError::Recipient(_) => (553, "5.1.3"),
            CommandError::NeedsSmtpUtf8(_) => (553, "5.6.7"),
        };
        Answer { code, status, text: error.to_string().into() }
    }
}

impl Fault {
    /// The refusal of a message with this fault, written to `out`; its code.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> u16 {
        let answer = match self {
            Fault::TooLong => MESSAGE_TOO_LONG,
            Fault::HeaderTooLong => answer(552, "5.3.4", "Message header is too long"),
            Fault::BareCr => answer(550, "5.6.11", "Message has a CR without an LF"),
            Fault::BareLf => answer(550, "5.6.11", "Message has an LF without a CR"),
            Fault::Nul => answer(550, "5.6.11", "Message has a NUL octet"),
            Fault::LineTooLong => answer(550, "5.6.11", "Message has a line too long (RFC 5321 4.5.3.1.6)"),
            Fault::Refused(reply) => {
                write_reply(reply, out);
                return reply.code().value();
            }
        };
        answer.write(out);
        answer.code
    }
}

impl Answer {
    pub(super) fn chunk_received(bytes: u64) -> Self {
        Answer { code: 250, status: "2.0.0", text: format!("{bytes} octets received").into() }
    }

    /// The line on the wire.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        // Codes are three digits by construction.
        for divisor in [100, 10, 1] {
            out.push(b'0' + u8::try_from(self.code / divisor % 10).unwrap_or_default());
        }
        for part in [" ", self.status, " ", &self.text, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

/// All lines of `reply` on the wire. Control characters in its texts become `?`: a text can not end its line early.
pub(super) fn write_reply(reply: &Reply, out: &mut Vec<u8>) {
    let last = reply.lines().len().saturating_sub(1);
    for (index, line) in reply.lines().iter().enumerate() {
        let separator = if index == last { ' ' } else { '-' };
        out.extend_from_slice(format!("{}{separator}", reply.code()).as_bytes());
        if let Some(status) = reply.enhanced() {
            out.extend_from_slice(format!("{status} ").as_bytes());
        }
        out.extend(line.bytes().map(|byte| if byte.is_ascii_control() { b'?' } else { byte }));
        out.extend_from_slice(b"\r\n");
    }
}
