//! The server's side of AUTH (RFC 4954): mechanisms PLAIN (RFC 4616) and LOGIN, from the command to a name and a secret.
//!
//! Pure: what a line of an exchange means. Whether the secret is right, the driver finds out.

use super::base64;
use super::secret::Secret;

/// Octets of a user name; RFC 4616 §2 asks for 255. Longer: the login is malformed.
const USER_BYTES_MAX: usize = 255;

/// How a client logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// All in one message (RFC 4616).
    Plain,
    /// User name and secret, asked for one by one. No RFC, and in wide use.
    Login,
}

impl Mechanism {
    /// What EHLO announces.
    pub(super) const ANNOUNCED: &'static str = "AUTH PLAIN LOGIN";

    /// The mechanism of that name, in any case.
    pub(super) fn parse(name: &str) -> Option<Self> {
        [Self::Plain, Self::Login].into_iter().find(|known| known.name().eq_ignore_ascii_case(name))
    }

    /// Its name (RFC 4422 §3.1).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }
}

/// What a client claims: the driver decides whether it is true. The secret never shows in `Debug` and is wiped on drop.
#[derive(Debug, PartialEq, Eq)]
pub struct Login {
    /// How it came.
    pub mechanism: Mechanism,
    /// The user name; 1 to 255 octets, no NUL. Whatever a client chose: people type passwords here.
    pub user: Box<str>,
    /// The secret.
    pub secret: Secret,
    /// The client asked to act as somebody else (RFC 4616 §2, authorization identity), which nobody may here.
    pub acts_as_other: bool,
}

/// An exchange that waits for the client's next line.
#[derive(Debug)]
pub(super) enum Exchange {
    /// The one message of PLAIN.
    Plain,
    /// The user name of LOGIN.
    LoginUser,
    /// The secret of LOGIN.
    LoginSecret(Box<str>),
}

/// What a line led to.
#[derive(Debug)]
pub(super) enum Progress {
    /// Send this challenge and go on.
    Challenge(&'static str, Exchange),
    /// All is said.
    Done(Box<Login>),
    /// Not Base64, or not what the mechanism asks for.
    Malformed,
}

impl Exchange {
    /// AUTH with its initial response, where it had one: `=` stands for an empty one (RFC 4954 §4).
    pub(super) fn begin(mechanism: Mechanism, initial: Option<&[u8]>) -> Progress {
        let exchange = match mechanism {
            Mechanism::Plain => Exchange::Plain,
            Mechanism::Login => Exchange::LoginUser,
        };
        match initial {
            None => exchange.challenge(),
            Some(b"=") => exchange.response(b""),
            Some(response) => exchange.response(response),
        }
    }

    /// `334` with the prompt that clients know; PLAIN has an empty one.
    fn challenge(self) -> Progress {
        let text = match self {
            Exchange::Plain => "",
            // "Username:" and "Password:".
            Exchange::LoginUser => "VXNlcm5hbWU6",
            Exchange::LoginSecret(_) => "UGFzc3dvcmQ6",
        };
        Progress::Challenge(text, self)
    }

    /// The next line, without its CRLF.
    pub(super) fn response(self, line: &[u8]) -> Progress {
        let Some(octets) = base64::decode(line) else {
            return Progress::Malformed;
        };
        match self {
            Exchange::Plain => plain(&octets).map_or(Progress::Malformed, Progress::Done),
            Exchange::LoginUser => match user_name(&octets) {
                Some(user) => Exchange::LoginSecret(user).challenge(),
                None => Progress::Malformed,
            },
            Exchange::LoginSecret(user) => {
                let secret = Secret::copied(&octets);
                Progress::Done(Box::new(Login { mechanism: Mechanism::Login, user, secret, acts_as_other: false }))
            }
        }
    }
}

/// `[authzid] NUL authcid NUL passwd`.
fn plain(message: &[u8]) -> Option<Box<Login>> {
    let mut parts = message.split(|octet| *octet == 0);
    let (as_whom, user, secret) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let acts_as_other = !as_whom.is_empty() && as_whom != user;
    let (user, secret) = (user_name(user)?, Secret::copied(secret));
    Some(Box::new(Login { mechanism: Mechanism::Plain, user, secret, acts_as_other }))
}

fn user_name(octets: &[u8]) -> Option<Box<str>> {
    let text = std::str::from_utf8(octets).ok()?;
    let fits = (1..=USER_BYTES_MAX).contains(&text.len()) && !text.contains('\0');
    fits.then(|| text.into())
}
