//! SMTP AUTH for smart hosts: PLAIN (RFC 4616) and LOGIN, over TLS only (RFC 4954).

use super::capabilities::{Capabilities, Extension};
use super::command::Line;
use crate::smtp::base64;
use crate::smtp::secret::Secret;

/// A user and its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    user: Box<str>,
    password: Secret,
}

/// Why credentials cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// RFC 4616 §2.
    #[error("user name or password is empty")]
    Empty,
    /// RFC 4616 §2.
    #[error("user name or password holds a NUL")]
    Nul,
}

/// How to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// One message.
    Plain,
    /// User name and password, asked for one by one.
    Login,
}

impl Mechanism {
    /// The better one of those that the peer offers.
    pub const fn choose(peer: &Capabilities) -> Option<Self> {
        if peer.offers(Extension::AuthPlain) {
            Some(Self::Plain)
        } else if peer.offers(Extension::AuthLogin) {
            Some(Self::Login)
        } else {
            None
        }
    }
}

impl Credentials {
    /// Both must be there and free of NUL.
    pub fn new(user: &str, password: Secret) -> Result<Self, CredentialsError> {
        if user.is_empty() || password.expose().is_empty() {
            return Err(CredentialsError::Empty);
        }
        if user.contains('\0') || password.expose().contains(&0) {
            return Err(CredentialsError::Nul);
        }
        Ok(Self { user: user.into(), password })
    }

    /// The user name, for logs.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The lines of the dialogue in order; each but the last is answered by 334 when all is well, the last by 235.
    /// The lines hold the password: they are for the socket only.
    pub fn lines(&self, mechanism: Mechanism) -> Vec<Vec<u8>> {
        let line = |verb: &str, argument: &[u8]| {
            let mut out = Vec::new();
            Line::new(&mut out).text(verb).text(&base64::encode(argument)).end();
            out
        };
        match mechanism {
            Mechanism::Plain => {
                let message = [&b"\0"[..], self.user.as_bytes(), b"\0", self.password.expose()].concat();
                vec![line("AUTH PLAIN ", &message)]
            }
            Mechanism::Login => {
                let mut start = Vec::new();
                Line::new(&mut start).text("AUTH LOGIN").end();
                vec![start, line("", self.user.as_bytes()), line("", self.password.expose())]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_login_say_what_their_documents_say() {
        let login = Credentials::new("tim", Secret::new("tanstaaftanstaaf")).unwrap();
        assert_eq!(login.lines(Mechanism::Plain), [b"AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\n"]);
        let lines = login.lines(Mechanism::Login).concat();
        assert_eq!(String::from_utf8(lines).unwrap(), "AUTH LOGIN\r\ndGlt\r\ndGFuc3RhYWZ0YW5zdGFhZg==\r\n");
    }

    #[test]
    fn a_secret_is_not_printed_and_odd_ones_are_refused() {
        let login = Credentials::new("tim", Secret::new("hunter2")).unwrap();
        assert!(!format!("{login:?}").contains("hunter2"));
        assert_eq!(Credentials::new("", Secret::new("x")), Err(CredentialsError::Empty));
        assert_eq!(Credentials::new("a\0b", Secret::new("x")), Err(CredentialsError::Nul));
    }
}
