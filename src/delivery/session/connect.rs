//! Opens a session: dial, greeting, EHLO, STARTTLS, AUTH.
//!
//! ```text
//!  dial ─▶ 220 ─▶ EHLO (5yz: HELO) ─▶ [STARTTLS ─▶ handshake ─▶ EHLO] ─▶ [AUTH] ─▶ Session
//!   ▲                                     │ failed or stalled
//!   └── new connection: small hello, then in clear (opportunistic without a login), else the failure
//! ```

use std::fmt;
use std::io;
use std::net::SocketAddr;

use tokio::time::Instant;

use super::wire::{Wire, reason_of};
use super::{About, Session};
use crate::delivery::settings::{NextHop, Timeouts, TlsMode};
use crate::net::egress::is_proxy_fault;
use crate::net::tls_client::{CertificateCheck, Hello, TlsClient, TlsInfo, TlsName};
use crate::net::{Dialer, Via};
use crate::smtp::client::{Capabilities, Credentials, EhloName, Extension, LossReason, Mechanism, Stage, command};
use crate::types::{Reply, Severity};

/// What is remembered of a host's TLS, by the caller, for [`crate::delivery::settings::Settings::clear_memory`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TlsHint {
    /// Nothing odd is known.
    #[default]
    Unknown,
    /// Only the small ClientHello worked: begin with it.
    SmallHello,
    /// No handshake worked: with opportunistic TLS begin in clear. Never obeyed where TLS is required.
    Broken,
}

/// Where to connect, and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// The host as routing names it; its name is the one that a certificate must have.
    pub host: NextHop,
    /// One of its addresses.
    pub address: SocketAddr,
    /// The way out.
    pub via: Via,
    /// What we say in EHLO.
    pub ehlo_name: EhloName,
    /// How much TLS.
    pub tls: TlsMode,
    /// What an earlier [`About::tls_hint`] of this host said.
    pub tls_hint: TlsHint,
    /// For smart hosts. Needs TLS, whatever `tls` says: there is no way back to clear.
    pub login: Option<Credentials>,
    /// Send bodies by BDAT where the peer offers CHUNKING. Off in general: some peers offer it and are broken.
    pub chunking: bool,
}

/// Why there is no session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectFailure {
    /// How far it came: `Connect`, `Greeting`, `Ehlo`, `Tls` or `Auth`.
    pub stage: Stage,
    /// What happened.
    pub cause: ConnectCause,
    /// The host or the way to it is to blame: try another address, and be gentle with this one. Otherwise it is ours, such as
    /// a source address that this machine has not, a refused login, too many open files: another host would not help.
    pub host_fault: bool,
    /// Why TLS failed on a connection before this one.
    pub tls_failed: Option<Box<str>>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectCause {
    /// The peer refused.
    Refused(Reply),
    /// The connection could not be made, or ended.
    Lost(LossReason),
    /// What we need is not to be had from this host: STARTTLS, AUTH.
    Unacceptable(Box<str>),
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = self.stage;
        match &self.cause {
            ConnectCause::Refused(reply) => write!(f, "refused at {stage}: {reply}"),
            ConnectCause::Lost(LossReason::Closed) => write!(f, "host closed the connection at {stage}"),
            ConnectCause::Lost(LossReason::TimedOut) => write!(f, "timeout at {stage}"),
            ConnectCause::Lost(LossReason::ShuttingDown(reply)) => write!(f, "refused at {stage}: {reply}"),
            ConnectCause::Lost(LossReason::Io(text) | LossReason::Protocol(text) | LossReason::Body(text)) => {
                write!(f, "failed at {stage}: {text}")
            }
            ConnectCause::Unacceptable(text) => write!(f, "{text}"),
        }?;
        match &self.tls_failed {
            Some(reason) => write!(f, " (after TLS: {reason})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConnectFailure {}

/// What one connection is to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Clear,
    Tls(Hello),
}

impl Plan {
    fn first(target: &Target) -> Self {
        let may_be_clear = target.tls == TlsMode::Opportunistic && target.login.is_none();
        match target.tls_hint {
            _ if target.tls == TlsMode::None => Plan::Clear,
            TlsHint::Broken if may_be_clear => Plan::Clear,
            TlsHint::SmallHello => Plan::Tls(Hello::Small),
            TlsHint::Unknown | TlsHint::Broken => Plan::Tls(Hello::Full),
        }
    }

    /// What to try on a new connection.
    fn next(self, trouble: Trouble, target: &Target) -> Option<Self> {
        let may_be_clear = target.tls == TlsMode::Opportunistic && target.login.is_none();
        match (self, trouble) {
            (_, Trouble::None) | (Plan::Clear, _) => None,
            (Plan::Tls(Hello::Full), Trouble::Silence) => Some(Plan::Tls(Hello::Small)),
            (Plan::Tls(_), _) => may_be_clear.then_some(Plan::Clear),
        }
    }
}

/// Whether a failure was one of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// It was not, or must not be followed by another try.
    None,
    /// The handshake met silence or a closed connection: what a lost large ClientHello looks like.
    Silence,
    /// STARTTLS was refused, or the handshake failed with an error.
    Error,
}

struct Failure {
    stage: Stage,
    cause: ConnectCause,
    host_fault: bool,
    trouble: Trouble,
}

impl Failure {
    fn new(stage: Stage, cause: ConnectCause) -> Self {
        Self { stage, cause, host_fault: true, trouble: Trouble::None }
    }

    fn lost(stage: Stage, reason: LossReason) -> Self {
        Self::new(stage, ConnectCause::Lost(reason))
    }

    fn refused(stage: Stage, reply: Reply) -> Self {
        Self::new(stage, ConnectCause::Refused(reply))
    }

    fn ours(stage: Stage, text: &str) -> Self {
        Self { host_fault: false, ..Self::new(stage, ConnectCause::Unacceptable(text.into())) }
    }

    fn with_trouble(self, trouble: Trouble) -> Self {
        Self { trouble, ..self }
    }

    fn publish(self, tls_failed: Option<Box<str>>) -> ConnectFailure {
        ConnectFailure { stage: self.stage, cause: self.cause, host_fault: self.host_fault, tls_failed }
    }
}

/// Opens a session. Where TLS fails it opens further connections by itself: one with a small ClientHello where the
/// handshake met silence, one in clear where the target allows it. Each phase has its timeout. May be dropped at any time: that
/// closes the connection.
pub async fn connect(
    dialer: &dyn Dialer,
    tls: &TlsClient,
    target: &Target,
    timeouts: &Timeouts,
) -> Result<Session, ConnectFailure> {
    let mut plan = Plan::first(target);
    let mut tls_failed: Option<Box<str>> = None;
    loop {
        let failure = match Opening::dial(dialer, target, timeouts).await {
            Ok(opening) => match opening.run(tls, plan).await {
                Ok(session) => return Ok(finish(session, plan, tls_failed)),
                Err(failure) => failure,
            },
            Err(failure) => failure,
        };
        let Some(next) = plan.next(failure.trouble, target) else {
            return Err(failure.publish(tls_failed));
        };
        plan = next;
        let text = failure.publish(None).to_string().into();
        tls_failed.get_or_insert(text);
    }
}

fn finish(mut session: Session, plan: Plan, tls_failed: Option<Box<str>>) -> Session {
    session.about.tls_hint = match (plan, &tls_failed) {
        (Plan::Tls(Hello::Small), _) if session.about.tls.is_some() => TlsHint::SmallHello,
        (Plan::Clear, Some(_)) => TlsHint::Broken,
        _ => TlsHint::Unknown,
    };
    session.about.tls_failed = tls_failed;
    session
}

/// A connection on its way to a session.
struct Opening<'a> {
    wire: Wire,
    target: &'a Target,
    timeouts: &'a Timeouts,
    opened_at: Instant,
    out: Vec<u8>,
}

impl<'a> Opening<'a> {
    async fn dial(dialer: &dyn Dialer, target: &'a Target, timeouts: &'a Timeouts) -> Result<Self, Failure> {
        let dialled = dialer.dial(&target.via, target.address, timeouts.connect).await;
        let stream = dialled.map_err(|error| Failure {
            host_fault: !is_ours(&error),
            ..Failure::lost(Stage::Connect, reason_of(&error))
        })?;
        Ok(Self { wire: Wire::new(stream), target, timeouts, opened_at: Instant::now(), out: Vec::new() })
    }

    async fn run(mut self, tls: &TlsClient, plan: Plan) -> Result<Session, Failure> {
        let greeting = self.exchange(Stage::Greeting).await?;
        if greeting.severity() != Severity::Positive {
            self.wire.quit(self.timeouts.quit).await;
            return Err(Failure::refused(Stage::Greeting, greeting));
        }
        let mut peer = self.greet().await?;
        let mut tls_info = None;
        if let Plan::Tls(hello) = plan {
            let offered = peer.offers(Extension::StartTls);
            if offered {
                self.ask_for_tls().await?;
                let info;
                (self, info) = self.handshake(tls, hello).await?;
                peer = self.greet().await.map_err(first_words_over_tls)?;
                tls_info = Some(info);
            } else if matches!(self.target.tls, TlsMode::Encrypt | TlsMode::Require) {
                self.wire.quit(self.timeouts.quit).await;
                let text = "host does not offer STARTTLS, and TLS is required";
                return Err(Failure::new(Stage::Tls, ConnectCause::Unacceptable(text.into())));
            }
        }
        if let Some(login) = &self.target.login {
            self.log_in(login, &peer, tls_info.is_some()).await?;
        }
        Ok(self.into_session(greeting, peer, tls_info))
    }

    fn into_session(self, greeting: Reply, peer: Capabilities, tls: Option<TlsInfo>) -> Session {
        Session {
            wire: self.wire,
            peer,
            about: About {
                host: self.target.host.clone(),
                remote: self.target.address,
                local: self.target.via.address,
                greeting: greeting.text().into(),
                tls,
                tls_failed: None,
                tls_hint: TlsHint::Unknown,
                opened_at: self.opened_at,
            },
            timeouts: *self.timeouts,
            chunking: self.target.chunking,
            usable: true,
            reset_first: false,
            transactions: 0,
            out: self.out,
        }
    }

    /// Writes what is in `out` and reads the reply. A 421 is a refusal at any stage.
    async fn exchange(&mut self, stage: Stage) -> Result<Reply, Failure> {
        let reply = self.wire.exchange(&mut self.out, self.timeouts, stage).await;
        match reply {
            Ok(reply) if reply.code().value() == 421 => Err(Failure::refused(stage, reply)),
            Ok(reply) => Ok(reply),
            Err(reason) => Err(Failure::lost(stage, reason)),
        }
    }

    /// EHLO; HELO where that is refused for good (RFC 5321 §4.1.4).
    async fn greet(&mut self) -> Result<Capabilities, Failure> {
        command::ehlo(&mut self.out, &self.target.ehlo_name);
        let reply = self.exchange(Stage::Ehlo).await?;
        match reply.severity() {
            Severity::Positive => return Ok(Capabilities::from_reply(&reply)),
            Severity::Permanent => {}
            Severity::Transient | Severity::Intermediate => return Err(Failure::refused(Stage::Ehlo, reply)),
        }
        command::helo(&mut self.out, &self.target.ehlo_name);
        match self.exchange(Stage::Ehlo).await {
            Ok(second) if second.severity() == Severity::Positive => Ok(Capabilities::default()),
            Ok(second) => Err(Failure::refused(Stage::Ehlo, second)),
            // Hung up on us: the refusal of EHLO is what it had to say.
            Err(_) => Err(Failure::refused(Stage::Ehlo, reply)),
        }
    }

    async fn ask_for_tls(&mut self) -> Result<(), Failure> {
        command::bare(&mut self.out, "STARTTLS");
        let reply = match self.exchange(Stage::Tls).await {
            Ok(reply) => reply,
            Err(failure) if matches!(failure.cause, ConnectCause::Refused(_)) => return Err(failure),
            Err(failure) => return Err(failure.with_trouble(Trouble::Error)),
        };
        if reply.severity() != Severity::Positive {
            self.wire.quit(self.timeouts.quit).await;
            return Err(Failure::refused(Stage::Tls, reply).with_trouble(Trouble::Error));
        }
        if self.wire.has_surplus() {
            // RFC 3207 §6: somebody between us and the host may have put them there.
            let text = "bytes behind the reply to STARTTLS, possibly injected".into();
            return Err(Failure::lost(Stage::Tls, LossReason::Protocol(text)));
        }
        Ok(())
    }

    async fn handshake(self, tls: &TlsClient, hello: Hello) -> Result<(Self, TlsInfo), Failure> {
        let check = match self.target.tls {
            TlsMode::Require => CertificateCheck::Enforce,
            TlsMode::None | TlsMode::Opportunistic | TlsMode::Encrypt => CertificateCheck::Record,
        };
        let name = match &self.target.host {
            NextHop::Host(host) => TlsName::Host(host),
            NextHop::Address(address) => TlsName::Address(*address),
        };
        let handshake = tls.handshake(self.wire.into_stream(), name, check, hello);
        let shaken = tokio::time::timeout(self.timeouts.command, handshake).await;
        match shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok((stream, info)) => Ok((Self { wire: Wire::new(stream), ..self }, info)),
            Err(error) => Err(Failure::lost(Stage::Tls, reason_of(&error)).with_trouble(trouble_of(&error))),
        }
    }

    async fn log_in(&mut self, login: &Credentials, peer: &Capabilities, encrypted: bool) -> Result<(), Failure> {
        if !encrypted {
            let text = "login needs TLS, and this connection has none: the password was not sent";
            return Err(Failure::ours(Stage::Auth, text));
        }
        let Some(mechanism) = Mechanism::choose(peer) else {
            let text = "host offers neither AUTH PLAIN nor AUTH LOGIN: login is not possible";
            return Err(Failure::ours(Stage::Auth, text));
        };
        let lines = login.lines(mechanism);
        let last = lines.len().saturating_sub(1);
        for (index, line) in lines.into_iter().enumerate() {
            self.out = line;
            let reply = self.exchange(Stage::Auth).await?;
            let expected = if index == last { Severity::Positive } else { Severity::Intermediate };
            if reply.severity() != expected {
                let host_fault = reply.severity() == Severity::Transient;
                return Err(Failure { host_fault, ..Failure::refused(Stage::Auth, reply) });
            }
        }
        Ok(())
    }
}

/// With TLS 1.3 the peer's objection to our side of the handshake comes when we think that it is over.
fn first_words_over_tls(failure: Failure) -> Failure {
    match failure.cause {
        ConnectCause::Lost(LossReason::Closed | LossReason::Io(_)) => failure.with_trouble(Trouble::Error),
        _ => failure,
    }
}

fn trouble_of(error: &io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::TimedOut
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => Trouble::Silence,
        _ => Trouble::Error,
    }
}

/// Errors of dialling that no other host would avoid: the source address, its proxy, file handles, permission.
fn is_ours(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::AddrInUse
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::PermissionDenied
    ) || matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
        || is_proxy_fault(error)
}
