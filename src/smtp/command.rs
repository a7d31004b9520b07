//! Command lines as values (RFC 5321 §4.1.1, RFC 3030, RFC 4954, RFC 3207, RFC 3461, RFC 6531).
//!
//! Strict where a mistake would lose what the client asked for: an unknown or doubled parameter is refused. Tolerant
//! where real clients differ: case, spaces after `FROM:` and `TO:` and at the line end, a source route (dropped, as
//! RFC 5321 §4.1.1.3 asks), odd names after EHLO. `<Postmaster>` without a domain (§4.5.1) is refused: this is a relay
//! without local mailboxes.

use crate::types::{BodyKind, DsnReturn, Recipient, ReversePath};

use super::command_params;
use super::sasl::Mechanism;
use super::secret::Secret;

/// A parsed command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// HELO with the client's name.
    Helo(Box<str>),
    /// EHLO with the client's name.
    Ehlo(Box<str>),
    /// MAIL.
    Mail(Box<MailCommand>),
    /// RCPT.
    Rcpt(Box<Recipient>),
    /// DATA.
    Data,
    /// BDAT (RFC 3030 §2): so many octets follow the line at once.
    Bdat {
        /// Octets of the chunk.
        bytes: u64,
        /// The message ends with it.
        last: bool,
    },
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// VRFY, with something to verify.
    Vrfy,
    /// HELP.
    Help,
    /// QUIT.
    Quit,
    /// STARTTLS (RFC 3207).
    StartTls,
    /// AUTH (RFC 4954 §4).
    Auth(Box<AuthCommand>),
    /// Known and not implemented: EXPN, and the obsolete SEND, SOML, SAML, TURN.
    NotImplemented,
    /// A line of HTTP: a browser that was tricked into posting to this port.
    Http,
}

/// AUTH with its mechanism.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthCommand {
    /// `None`: one that we do not know.
    pub mechanism: Option<Mechanism>,
    /// The initial response as it stands in the line: it may hold a password.
    pub initial: Option<Secret>,
}

/// MAIL with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailCommand {
    /// The reverse-path.
    pub reverse_path: ReversePath,
    /// SIZE= (RFC 1870), octets.
    pub declared_bytes: Option<u64>,
    /// BODY= (RFC 6152); 7BIT where not said.
    pub body: BodyKind,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// RET= (RFC 3461 §4.3).
    pub ret: Option<DsnReturn>,
    /// ENVID= (RFC 3461 §4.4), decoded.
    pub envid: Option<Box<str>>,
}

/// Why a line is not a command; each variant has its own reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// 500 5.5.2.
    #[error("line has control characters or is not UTF-8")]
    NotText,
    /// 500 5.5.1.
    #[error("command not recognized")]
    Unknown,
    /// 501 5.5.4; the text says what is expected.
    #[error("{0}")]
    Argument(&'static str),
    /// 555 5.5.4.
    #[error("parameter {0} not recognized")]
    UnknownParameter(Box<str>),
    /// 553 5.1.7: MAIL.
    #[error("<{0}> Invalid email address")]
    Sender(Box<str>),
    /// 553 5.1.3: RCPT.
    #[error("<{0}> address unknown")]
    Recipient(Box<str>),
    /// 553 5.6.7 (RFC 6531 §3.5).
    #[error("<{0}> needs SMTPUTF8")]
    NeedsSmtpUtf8(Box<str>),
    /// 501 5.5.4, and the connection ends: how many octets to skip is unknown.
    #[error("BDAT needs a size in octets")]
    Chunk,
}

/// BDAT sizes above this are taken for garbage.
const CHUNK_BYTES_MAX: u64 = 1 << 40;
/// Octets kept of the name after EHLO (RFC 1035 §2.3.4).
const HELO_NAME_BYTES_MAX: usize = 255;
/// Longer than any verb.
const VERB_BYTES_MAX: usize = 8;

impl Command {
    /// Parses a line without its CRLF. `smtputf8` says whether the transaction asked for it: RCPT depends on it.
    pub fn parse(line: &[u8], smtputf8: bool) -> Result<Self, CommandError> {
        let end = memchr::memchr(b' ', line).unwrap_or(line.len());
        let (verb, rest) = line.split_at_checked(end).unwrap_or((line, &[]));
        if line.iter().any(u8::is_ascii_control) {
            return Err(CommandError::NotText);
        }
        let mut upper = [0_u8; VERB_BYTES_MAX];
        let Some(upper) = upper.get_mut(..verb.len()) else {
            return Err(CommandError::Unknown);
        };
        upper.copy_from_slice(verb);
        upper.make_ascii_uppercase();
        let upper: &[u8] = upper;
        match upper {
            b"HELO" => helo_name(rest).map(Self::Helo),
            b"EHLO" => helo_name(rest).map(Self::Ehlo),
            _ => {
                let rest = std::str::from_utf8(rest).map_err(|_| CommandError::NotText)?;
                parse_verb(upper, rest.trim_matches(' '), smtputf8)
            }
        }
    }
}

fn parse_verb(verb: &[u8], rest: &str, smtputf8: bool) -> Result<Command, CommandError> {
    match verb {
        b"MAIL" => command_params::mail(rest).map(|mail| Command::Mail(Box::new(mail))),
        b"RCPT" => command_params::recipient(rest, smtputf8).map(|recipient| Command::Rcpt(Box::new(recipient))),
        b"DATA" => alone(rest, Command::Data),
        b"BDAT" => chunk(rest),
        b"RSET" => alone(rest, Command::Rset),
        b"NOOP" => Ok(Command::Noop),
        b"VRFY" if rest.is_empty() => Err(CommandError::Argument("VRFY needs an address")),
        b"VRFY" => Ok(Command::Vrfy),
        b"HELP" => Ok(Command::Help),
        b"QUIT" => alone(rest, Command::Quit),
        b"STARTTLS" => alone(rest, Command::StartTls),
        b"AUTH" => auth(rest),
        b"EXPN" | b"SEND" | b"SOML" | b"SAML" | b"TURN" | b"ETRN" => Ok(Command::NotImplemented),
        b"GET" | b"POST" | b"PUT" | b"HEAD" | b"OPTIONS" | b"CONNECT" => Ok(Command::Http),
        _ => Err(CommandError::Unknown),
    }
}

fn alone(rest: &str, command: Command) -> Result<Command, CommandError> {
    if rest.is_empty() { Ok(command) } else { Err(CommandError::Argument("This command takes no argument")) }
}

/// `AUTH mechanism [initial-response]` (RFC 4954 §4).
fn auth(rest: &str) -> Result<Command, CommandError> {
    let mut words = rest.split(' ').filter(|word| !word.is_empty());
    match (words.next(), words.next(), words.next()) {
        (Some(mechanism), initial, None) => Ok(Command::Auth(Box::new(AuthCommand {
            mechanism: Mechanism::parse(mechanism),
            initial: initial.map(Secret::new),
        }))),
        _ => Err(CommandError::Argument("Syntax: AUTH mechanism [initial-response]")),
    }
}

/// `BDAT size [LAST]` (RFC 3030 §2).
fn chunk(rest: &str) -> Result<Command, CommandError> {
    let mut words = rest.split(' ').filter(|word| !word.is_empty());
    let size = words.next().filter(|size| size.bytes().all(|byte| byte.is_ascii_digit()));
    let bytes = size.and_then(|size| size.parse().ok()).filter(|bytes| *bytes <= CHUNK_BYTES_MAX);
    let bytes = bytes.ok_or(CommandError::Chunk)?;
    match (words.next(), words.next()) {
        (None, _) => Ok(Command::Bdat { bytes, last: false }),
        (Some(word), None) if word.eq_ignore_ascii_case("LAST") => Ok(Command::Bdat { bytes, last: true }),
        _ => Err(CommandError::Chunk),
    }
}

/// The name after EHLO. Anything goes, since refusing mail over a badly named desktop helps nobody (RFC 5321 §4.1.4);
/// but it stands in `Received` and in logs, so what is not of a host name or an address literal becomes `?`.
fn helo_name(rest: &[u8]) -> Result<Box<str>, CommandError> {
    let name = rest.trim_ascii();
    if name.is_empty() {
        return Err(CommandError::Argument("EHLO and HELO need a host name"));
    }
    let clean = |byte: &u8| match *byte {
        byte if byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte) => char::from(byte),
        _ => '?',
    };
    Ok(name.iter().take(HELO_NAME_BYTES_MAX).map(clean).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, CommandError> {
        Command::parse(line.as_bytes(), false)
    }

    fn auth(mechanism: Option<Mechanism>, initial: Option<&str>) -> Command {
        Command::Auth(Box::new(AuthCommand { mechanism, initial: initial.map(Secret::new) }))
    }

    #[test]
    fn verbs_parse_in_any_case_and_with_spaces_at_the_end() {
        for (line, expected) in [
            ("data", Command::Data),
            ("Quit  ", Command::Quit),
            ("RSET", Command::Rset),
            ("NOOP whatever", Command::Noop),
            ("HELP MAIL", Command::Help),
            ("vrfy a", Command::Vrfy),
            ("starttls", Command::StartTls),
            ("auth  plain AGEAYg== ", auth(Some(Mechanism::Plain), Some("AGEAYg=="))),
            ("AUTH LOGIN", auth(Some(Mechanism::Login), None)),
            ("AUTH PLAIN =", auth(Some(Mechanism::Plain), Some("="))),
            ("AUTH CRAM-MD5", auth(None, None)),
            ("EXPN list", Command::NotImplemented),
            ("POST / HTTP/1.1", Command::Http),
            ("BDAT 0 last", Command::Bdat { bytes: 0, last: true }),
            ("bdat 86", Command::Bdat { bytes: 86, last: false }),
            ("HELO  a.test ", Command::Helo("a.test".into())),
            ("ehlo [IPv6:::1]", Command::Ehlo("[IPv6:::1]".into())),
            ("EHLO a(b)<c>", Command::Ehlo("a?b??c?".into())),
        ] {
            assert_eq!(parse(line), Ok(expected), "{line}");
        }
        assert_eq!(Command::parse(b"EHLO b\xfcro", false), Ok(Command::Ehlo("b?ro".into())));
    }

    #[test]
    fn malformed_lines_are_told_apart() {
        for line in ["", "FOO", "MAILFROM:<a@b.test>", "STARTTLSX", "DATAX", " MAIL", "é"] {
            assert_eq!(parse(line), Err(CommandError::Unknown), "{line:?}");
        }
        for line in ["NOOP \0", "MAIL\tFROM:<a@b.test>", "A\rB", "QUIT\x7f", "\u{1b}[A"] {
            assert_eq!(parse(line), Err(CommandError::NotText), "{line:?}");
        }
        assert_eq!(Command::parse(b"RCPT TO:<\xff@b.test>", true), Err(CommandError::NotText));
        for line in ["DATA now", "QUIT now", "RSET x", "STARTTLS x", "EHLO", "HELO  ", "VRFY", "AUTH", "AUTH PLAIN a b"]
        {
            assert!(matches!(parse(line), Err(CommandError::Argument(_))), "{line:?}");
        }
        for line in
            ["BDAT", "BDAT x", "BDAT -1", "BDAT +1", "BDAT 1 FIRST", "BDAT 1 LAST x", "BDAT 99999999999999999999"]
        {
            assert_eq!(parse(line), Err(CommandError::Chunk), "{line:?}");
        }
    }
}
