//! AUTH within a session (RFC 4954): when it may begin, its lines, its end.

use super::super::command::AuthCommand;
use super::super::framing::{AUTH_LINE_BYTES_MAX, Framed};
use super::super::sasl::{Exchange, Progress};
use super::answer;
use super::machine::{LoginOffer, Machine, State, Step, TlsState};

/// Logins of a session that may fail. At the last one: 421 4.7.0.
const FAILED_LOGINS_MAX: u32 = 3;

impl Machine {
    /// Says where a client may log in; from the next EHLO on it is announced accordingly.
    pub fn offer_login(&mut self, offer: LoginOffer) {
        self.login_offer = offer;
    }

    /// The login is right.
    pub fn logged_in(&mut self) {
        self.is_logged_in = true;
        self.end_login(&answer::LOGGED_IN);
    }

    /// It is wrong: 535 5.7.8. The third in a session ends it.
    pub fn login_refused(&mut self) {
        self.end_login(&answer::LOGIN_REFUSED);
        self.failed_logins = self.failed_logins.saturating_add(1);
        if self.failed_logins >= FAILED_LOGINS_MAX && !matches!(self.state, State::Closed { .. }) {
            self.refuse_and_close(&answer::TOO_MANY_LOGINS);
        }
    }

    /// Nobody can say now: 454 4.7.0.
    pub fn login_deferred(&mut self) {
        self.end_login(&answer::LOGIN_DEFERRED);
    }

    /// The client is a stranger again: what it proved no longer holds.
    pub fn log_out(&mut self) {
        self.is_logged_in = false;
    }

    /// Whether AUTH works here at all, be it after STARTTLS.
    pub(super) fn could_log_in(&self) -> bool {
        match self.login_offer {
            LoginOffer::Never => false,
            LoginOffer::UnderTls => self.tls != TlsState::Unavailable,
            LoginOffer::Always => true,
        }
    }

    /// Whether AUTH may be used now.
    pub(super) fn offers_login(&self) -> bool {
        match self.login_offer {
            LoginOffer::Never => false,
            LoginOffer::UnderTls => self.tls == TlsState::Active,
            LoginOffer::Always => true,
        }
    }

    pub(super) fn begin_login(&mut self, command: &AuthCommand) -> Option<Step> {
        if !self.could_log_in() {
            return self.refuse_command(&answer::LOGIN_NOT_OFFERED);
        }
        if self.is_logged_in {
            return self.refuse_command(&answer::LOGGED_IN_ALREADY);
        }
        if !self.offers_login() {
            return self.refuse_command(&answer::TLS_FIRST);
        }
        let Some(mechanism) = command.mechanism else {
            return self.refuse_command(&answer::UNKNOWN_MECHANISM);
        };
        let initial = command.initial.as_ref().map(|secret| secret.expose());
        self.progress(Exchange::begin(mechanism, initial))
    }

    /// A line of the exchange.
    pub(super) fn exchange(&mut self, input: &[u8]) -> (usize, Option<Step>) {
        let (used, framed) = self.lines.next(input, AUTH_LINE_BYTES_MAX);
        let line = match framed {
            Framed::Incomplete => return (used, Some(Step::Read)),
            Framed::TooLong => Err(&answer::LOGIN_LINE_TOO_LONG),
            Framed::BareLf => Err(&answer::BARE_LF_IN_COMMAND),
            Framed::Line(b"*") => Err(&answer::LOGIN_CANCELLED),
            Framed::Line(line) => Ok(line),
        };
        let State::Exchange(exchange) = std::mem::replace(&mut self.state, State::Ready) else {
            return (used, None);
        };
        let step = match line {
            Ok(line) => self.progress(exchange.response(line)),
            Err(refusal) => self.refuse_command(refusal),
        };
        (used, step)
    }

    fn progress(&mut self, progress: Progress) -> Option<Step> {
        match progress {
            Progress::Challenge(text, exchange) => {
                self.output.extend_from_slice(format!("334 {text}\r\n").as_bytes());
                self.state = State::Exchange(exchange);
                None
            }
            Progress::Done(login) => {
                self.state = State::LoginPending;
                Some(Step::Login(login))
            }
            Progress::Malformed => self.refuse_command(&answer::LOGIN_MALFORMED),
        }
    }

    fn end_login(&mut self, answer: &answer::Answer) {
        if matches!(self.state, State::LoginPending) {
            self.state = State::Ready;
        }
        answer.write(&mut self.output);
        if answer.code >= 400 {
            self.count_refusal(answer.code);
        }
    }
}
