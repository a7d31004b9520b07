//! SMTP AUTH for smart hosts: PLAIN (RFC 4616) and LOGIN, over TLS only (RFC 4954).

use std::fmt;

use super::capabilities::{Capabilities, Extension};
use super::command::Line;

/// A password. Never printed; its memory is overwritten when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Takes the text over.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into().into_bytes().into_boxed_slice())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // Keeps the compiler from dropping the stores.
        std::hint::black_box(&self.0);
    }
}

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
        if user.is_empty() || password.0.is_empty() {
            return Err(CredentialsError::Empty);
        }
        if user.contains('\0') || password.0.contains(&0) {
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
            Line::new(&mut out).text(verb).text(&base64(argument)).end();
            out
        };
        match mechanism {
            Mechanism::Plain => {
                let message = [&b"\0"[..], self.user.as_bytes(), b"\0", &self.password.0].concat();
                vec![line("AUTH PLAIN ", &message)]
            }
            Mechanism::Login => {
                let mut start = Vec::new();
                Line::new(&mut start).text("AUTH LOGIN").end();
                vec![start, line("", self.user.as_bytes()), line("", &self.password.0)]
            }
        }
    }
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let octet = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = octet(0) << 16 | octet(1) << 8 | octet(2);
        for digit in 0..4_usize {
            let index = bits >> (18 - 6 * digit) & 63;
            let byte = usize::try_from(index).ok().and_then(|index| ALPHABET.get(index)).copied().unwrap_or(b'=');
            out.push(if digit <= group.len() { char::from(byte) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_agrees_with_the_vectors_of_rfc_4648() {
        for (text, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), expected);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xbf]), "+/+/");
    }

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
