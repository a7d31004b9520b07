//! States, inputs, steps. The module's page has the diagram.

use super::super::command::{Command, CommandError, MailCommand};
use super::super::framing::{COMMAND_LINE_BYTES_MAX, DotFramer, Framed, LineFramer};
use super::super::sasl::{Exchange, Login, Mechanism};
use super::answer::{self, Answer, Farewell, write_reply};
use super::content::ContentLimits;
use super::transaction::{Added, Message, Transaction};
use crate::types::{MessageId, Recipient, Reply};

/// Limits of a session; may change at each MAIL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Octets, lines and hygiene of a message. Its size is announced with SIZE.
    pub content: ContentLimits,
    /// Recipients of one message. Above: 452 4.5.3.
    pub recipients_max: usize,
    /// MAIL commands of a session. Above: 421 4.7.0.
    pub transactions_max: u32,
    /// Refused commands and messages of a session. Above: 421 4.7.0.
    pub errors_max: u32,
    /// Commands that carry nothing between two accepted messages. Above: 421 4.7.0.
    pub idle_commands_max: u32,
}

/// TLS on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsState {
    /// Neither on nor offered.
    Unavailable,
    /// STARTTLS is offered.
    Offered,
    /// On.
    Active,
}

/// Where a client may log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginOffer {
    /// Nowhere.
    Never,
    /// Under TLS.
    UnderTls,
    /// With and without TLS.
    Always,
}

/// What the driver does next.
#[derive(Debug)]
#[must_use]
pub enum Step {
    /// Send the output, then wait for more octets and step again.
    Read,
    /// Decide on [`Machine::pending_mail`]: [`Machine::admit`] or [`Machine::refuse`], then step again.
    Mail,
    /// Decide on [`Machine::pending_recipient`]: [`Machine::admit_recipient`] or [`Machine::refuse`], then step again. Only where
    /// [`Machine::gate_recipients`] asked for it.
    Recipient,
    /// Message data will follow: [`Machine::message_mut`] has it as it grows. Step again.
    Begin,
    /// The message of the last [`Step::Begin`] is gone: RSET, EHLO, or refused for a fault. Step again.
    Abandoned,
    /// A whole message: take it over, then [`Machine::accepted`] or [`Machine::refuse`], then step again.
    Message(Box<Message>),
    /// Find out whether this is true: [`Machine::logged_in`], [`Machine::login_refused`] or [`Machine::login_deferred`], then
    /// step again. The octets of this step hold the secret.
    Login(Box<Login>),
    /// Send the output, do the handshake, then [`Machine::tls_started`].
    StartTls,
    /// Send the output and close.
    Close {
        /// The client said QUIT and expects nothing more. Otherwise it may still be sending.
        orderly: bool,
    },
}

#[derive(Debug)]
pub(super) enum State {
    /// No EHLO yet, or none since TLS began.
    Connected,
    Ready,
    /// MAIL waits for the driver's decision.
    MailPending(Box<MailCommand>),
    Transaction(Box<Transaction>),
    /// RCPT waits for the driver's decision.
    RecipientPending(Box<Transaction>, Box<Recipient>),
    Data(Box<Message>, DotFramer),
    /// `remaining` octets of a BDAT chunk are to come.
    Chunk {
        message: Box<Message>,
        bytes: u64,
        remaining: u64,
        last: bool,
    },
    /// Between two chunks.
    Chunks(Box<Message>),
    /// Octets of a refused BDAT are to come, then this answer. What to go on with: nothing, or the transaction.
    Skip {
        remaining: u64,
        answer: Answer,
        then: Option<Box<Transaction>>,
    },
    /// AUTH has begun: the client's next line belongs to it.
    Exchange(Exchange),
    /// The driver finds out whether a login is right.
    LoginPending,
    /// The driver has the message.
    Accepting,
    /// The driver does the handshake.
    TlsPending,
    Closed {
        orderly: bool,
    },
}

/// The client's name and whether it said EHLO.
#[derive(Debug)]
pub(super) struct Hello {
    name: Box<str>,
    extended: bool,
}

/// One session.
#[derive(Debug)]
pub struct Machine {
    pub(super) hostname: Box<str>,
    pub(super) limits: Limits,
    pub(super) tls: TlsState,
    pub(super) login_offer: LoginOffer,
    pub(super) is_logged_in: bool,
    pub(super) failed_logins: u32,
    pub(super) gates_recipients: bool,
    pub(super) hello: Option<Hello>,
    pub(super) state: State,
    pub(super) lines: LineFramer,
    pub(super) output: Vec<u8>,
    /// Codes of refusals since they were last taken; at most one for each command of a read.
    pub(super) refusals: Vec<u16>,
    errors: u32,
    transactions: u32,
    idle_commands: u32,
}

impl Machine {
    /// A session whose output holds the greeting, without AUTH. `hostname` is our name (RFC 5321 §4.2.1).
    pub fn new(hostname: &str, limits: Limits, tls: TlsState) -> Self {
        Self {
            hostname: hostname.into(),
            limits,
            tls,
            login_offer: LoginOffer::Never,
            is_logged_in: false,
            failed_logins: 0,
            gates_recipients: false,
            hello: None,
            state: State::Connected,
            lines: LineFramer::default(),
            output: format!("220 {hostname} ESMTP posthaste\r\n").into_bytes(),
            refusals: Vec::new(),
            errors: 0,
            transactions: 0,
            idle_commands: 0,
        }
    }

    /// Works on `input` until a step is due. Returns how many octets to drop from its front; the others come again, with
    /// more behind them.
    pub fn step(&mut self, input: &[u8]) -> (usize, Step) {
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            let (count, step) = match self.state {
                State::Connected | State::Ready | State::Transaction(_) | State::Chunks(_) => self.line(rest),
                State::Exchange(_) => self.exchange(rest),
                State::Data(..) => self.data(rest),
                State::Chunk { .. } => self.chunk(rest),
                State::Skip { .. } => self.skip(rest),
                State::Closed { orderly } => (rest.len(), Some(Step::Close { orderly })),
                State::MailPending(_)
                | State::RecipientPending(..)
                | State::LoginPending
                | State::Accepting
                | State::TlsPending => {
                    unreachable!("the driver answers a step before it steps again")
                }
            };
            used += count;
            if let Some(step) = step {
                return (used, step);
            }
        }
    }

    /// Replies since the last call, to be sent in one write. The buffer may be given back by [`Machine::recycle`].
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Octets of replies that wait to be sent.
    pub fn output_bytes(&self) -> usize {
        self.output.len()
    }

    /// Gives a sent buffer back, so that its memory is used again.
    pub fn recycle(&mut self, mut sent: Vec<u8>) {
        if self.output.is_empty() {
            sent.clear();
            self.output = sent;
        }
    }

    /// Codes of the refusals since the last call, for metrics.
    pub fn take_refusals(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.refusals)
    }

    /// MAIL as parsed, after [`Step::Mail`].
    pub fn pending_mail(&self) -> Option<&MailCommand> {
        match &self.state {
            State::MailPending(mail) => Some(mail),
            _ => None,
        }
    }

    /// The message that arrives, between [`Step::Begin`] and [`Step::Message`] or [`Step::Abandoned`].
    pub fn message_mut(&mut self) -> Option<&mut Message> {
        match &mut self.state {
            State::Data(message, _) | State::Chunks(message) | State::Chunk { message, .. } => Some(message),
            _ => None,
        }
    }

    /// Whether the client is within the data of a message, so that its next octets are not a command.
    pub fn is_in_data(&self) -> bool {
        matches!(self.state, State::Data(..) | State::Chunk { .. } | State::Skip { .. })
    }

    /// The name that the client gave with EHLO or HELO, cleaned; empty before that.
    pub fn helo_name(&self) -> &str {
        self.hello.as_ref().map_or("", |hello| &hello.name)
    }

    /// `with` of the Received field (RFC 3848, RFC 6531 §4.3) for a transaction that asked for SMTPUTF8 or not.
    pub fn protocol(&self, smtputf8: bool) -> &'static str {
        // A client that used an extension spoke ESMTP, whatever it said first.
        let extended = self.is_logged_in || self.hello.as_ref().is_some_and(|hello| hello.extended);
        match (extended, smtputf8, self.tls == TlsState::Active, self.is_logged_in) {
            (_, true, false, false) => "UTF8SMTP",
            (_, true, false, true) => "UTF8SMTPA",
            (_, true, true, false) => "UTF8SMTPS",
            (_, true, true, true) => "UTF8SMTPSA",
            (false, false, ..) => "SMTP",
            (true, false, false, false) => "ESMTP",
            (true, false, false, true) => "ESMTPA",
            (true, false, true, false) => "ESMTPS",
            (true, false, true, true) => "ESMTPSA",
        }
    }

    /// The pending MAIL is granted, from now on under `limits`. A declared size above them is refused here: 552 5.3.4
    /// (RFC 1870 §6.1).
    pub fn admit(&mut self, limits: Limits) {
        self.limits = limits;
        match std::mem::replace(&mut self.state, State::Ready) {
            State::MailPending(mail) => {
                if mail.declared_bytes.is_some_and(|bytes| bytes > limits.content.message_bytes_max) {
                    return self.refuse_with(&answer::MESSAGE_TOO_LONG);
                }
                answer::SENDER_OK.write(&mut self.output);
                self.state = State::Transaction(Box::new(Transaction::new(*mail)));
            }
            other => self.state = other,
        }
    }

    /// The pending MAIL, the pending RCPT or the message handed out is refused.
    pub fn refuse(&mut self, reply: &Reply) {
        match std::mem::replace(&mut self.state, State::Ready) {
            State::MailPending(_) | State::Accepting => {}
            // The transaction goes on without this recipient.
            State::RecipientPending(transaction, _) => self.state = State::Transaction(transaction),
            other => self.state = other,
        }
        write_reply(reply, &mut self.output);
        self.count_refusal(reply.code().value());
        if reply.code().value() == 421 {
            self.state = State::Closed { orderly: false };
        }
    }

    /// The message handed out is safe: `250 2.0.0 Ok <id>`.
    pub fn accepted(&mut self, id: &MessageId) {
        self.state = State::Ready;
        self.idle_commands = 0;
        self.output.extend_from_slice(format!("250 2.0.0 Ok {id}\r\n").as_bytes());
    }

    /// The handshake is done; what the client said before is forgotten (RFC 3207 §4.2).
    pub fn tls_started(&mut self) {
        self.tls = TlsState::Active;
        self.hello = None;
        self.lines = LineFramer::default();
        self.state = State::Connected;
    }

    /// The driver ends the session: one last reply; step says [`Step::Close`] from now on.
    pub fn farewell(&mut self, farewell: Farewell) {
        let answer = farewell.answer();
        answer.write(&mut self.output);
        self.refusals.push(answer.code);
        self.state = State::Closed { orderly: false };
    }

    fn line(&mut self, input: &[u8]) -> (usize, Option<Step>) {
        let (used, framed) = self.lines.next(input, COMMAND_LINE_BYTES_MAX);
        let step = match framed {
            Framed::Incomplete => Some(Step::Read),
            Framed::TooLong => self.refuse_command(&answer::LINE_TOO_LONG),
            Framed::BareLf => self.refuse_command(&answer::BARE_LF_IN_COMMAND),
            Framed::Line(line) => {
                let smtputf8 = matches!(&self.state, State::Transaction(transaction) if transaction.smtputf8());
                let parsed = match self.bare_postmaster(line) {
                    Some(command) => Ok(command),
                    None => Command::parse(line, smtputf8),
                };
                match parsed {
                    Ok(command) => self.command(command, used < input.len()),
                    Err(CommandError::Chunk) => self.refuse_and_close(&(&CommandError::Chunk).into()),
                    Err(error) => self.refuse_command(&(&error).into()),
                }
            }
        };
        (used, step)
    }

    /// The table of states and commands. `more` says that octets stand behind the line.
    fn command(&mut self, command: Command, more: bool) -> Option<Step> {
        if is_idle(&command) {
            self.idle_commands = self.idle_commands.saturating_add(1);
            if self.idle_commands > self.limits.idle_commands_max {
                return self.refuse_and_close(&answer::TOO_MANY_IDLE_COMMANDS);
            }
        }
        match (&mut self.state, command) {
            (_, Command::Quit) => self.quit(),
            (_, Command::Noop) => self.reply(&answer::OK),
            (_, Command::Vrfy) => self.reply(&answer::CANNOT_VERIFY),
            (_, Command::Help) => self.reply(&answer::HELP),
            (_, Command::NotImplemented) => self.refuse_command(&answer::NOT_IMPLEMENTED),
            (_, Command::Http) => self.refuse_and_close(&answer::HTTP),
            (_, Command::Helo(name)) => self.hello(Hello { name, extended: false }),
            (_, Command::Ehlo(name)) => self.hello(Hello { name, extended: true }),
            (_, Command::Bdat { bytes, last }) => self.begin_chunk(bytes, last),
            (State::Connected, Command::Rset) => self.reply(&answer::OK),
            (_, Command::Rset) => {
                let abandoned = self.abandon();
                self.reply(&answer::OK);
                abandoned
            }
            (State::Connected | State::Ready, Command::StartTls) if self.is_logged_in => {
                self.refuse_command(&answer::TLS_AFTER_LOGIN)
            }
            (State::Connected | State::Ready, Command::StartTls) => self.start_tls(more),
            (State::Ready, Command::Auth(auth)) => self.begin_login(&auth),
            (_, Command::StartTls) => self.refuse_command(&answer::NOT_IN_TRANSACTION),
            (State::Connected, _) => self.refuse_command(&answer::HELLO_FIRST),
            (State::Chunks(_), _) => self.refuse_command(&answer::CHUNKS_BEGUN),
            (_, Command::Auth(_)) => self.refuse_command(&answer::NOT_IN_TRANSACTION),
            (State::Ready, Command::Mail(mail)) => self.mail(mail),
            (_, Command::Mail(_)) => self.refuse_command(&answer::NESTED_MAIL),
            (State::Transaction(_), Command::Rcpt(recipient)) => self.recipient(*recipient),
            (State::Transaction(_), Command::Data) => self.begin_data(),
            (_, Command::Rcpt(_) | Command::Data) => self.refuse_command(&answer::MAIL_FIRST),
        }
    }

    fn quit(&mut self) -> Option<Step> {
        answer::BYE.write(&mut self.output);
        self.state = State::Closed { orderly: true };
        None
    }

    /// EHLO and HELO also do what RSET does (RFC 5321 §4.1.4).
    fn hello(&mut self, hello: Hello) -> Option<Step> {
        let abandoned = self.abandon();
        self.state = State::Ready;
        if hello.extended {
            let lines = [
                &*self.hostname,
                &format!("SIZE {}", self.limits.content.message_bytes_max),
                "PIPELINING",
                "8BITMIME",
                "SMTPUTF8",
                "DSN",
                "ENHANCEDSTATUSCODES",
                "CHUNKING",
            ];
            let offers_login = self.offers_login();
            let out = &mut self.output;
            for line in lines {
                out.extend_from_slice(format!("250-{line}\r\n").as_bytes());
            }
            if self.tls == TlsState::Offered {
                out.extend_from_slice(b"250-STARTTLS\r\n");
            }
            if offers_login {
                out.extend_from_slice(format!("250-{}\r\n", Mechanism::ANNOUNCED).as_bytes());
            }
            out.extend_from_slice(b"250 HELP\r\n");
        } else {
            self.output.extend_from_slice(format!("250 {}\r\n", self.hostname).as_bytes());
        }
        self.hello = Some(hello);
        abandoned
    }

    fn start_tls(&mut self, more: bool) -> Option<Step> {
        match self.tls {
            TlsState::Unavailable => self.refuse_command(&answer::NO_TLS),
            TlsState::Active => self.refuse_command(&answer::TLS_ALREADY),
            // RFC 3207 §4.2: nothing may be pipelined behind it; what is, was put there by someone else.
            TlsState::Offered if more => self.refuse_and_close(&answer::PLAINTEXT_AFTER_STARTTLS),
            TlsState::Offered => {
                answer::READY_FOR_TLS.write(&mut self.output);
                self.state = State::TlsPending;
                Some(Step::StartTls)
            }
        }
    }

    fn mail(&mut self, mail: Box<MailCommand>) -> Option<Step> {
        self.transactions = self.transactions.saturating_add(1);
        if self.transactions > self.limits.transactions_max {
            return self.refuse_and_close(&answer::TOO_MANY_TRANSACTIONS);
        }
        self.state = State::MailPending(mail);
        Some(Step::Mail)
    }

    pub(super) fn add_recipient(&mut self, recipient: Recipient) -> Option<Step> {
        let State::Transaction(transaction) = &mut self.state else {
            return None;
        };
        match transaction.add(recipient, self.limits.recipients_max) {
            Added::Yes => self.reply(&answer::RECIPIENT_OK),
            Added::Full => self.refuse_command(&answer::TOO_MANY_RECIPIENTS),
            Added::Flood => {
                self.refuse_with(&answer::TOO_MANY_RECIPIENTS);
                self.count_error();
                None
            }
        }
    }

    /// Back to `Ready`; a message that had begun is gone.
    fn abandon(&mut self) -> Option<Step> {
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Chunks(_) => Some(Step::Abandoned),
            State::Connected => {
                self.state = State::Connected;
                None
            }
            _ => None,
        }
    }

    pub(super) fn reply(&mut self, answer: &Answer) -> Option<Step> {
        answer.write(&mut self.output);
        None
    }

    pub(super) fn refuse_command(&mut self, answer: &Answer) -> Option<Step> {
        self.refuse_with(answer);
        None
    }

    fn refuse_with(&mut self, answer: &Answer) {
        answer.write(&mut self.output);
        self.count_refusal(answer.code);
    }

    pub(super) fn refuse_and_close(&mut self, answer: &Answer) -> Option<Step> {
        answer.write(&mut self.output);
        self.refusals.push(answer.code);
        self.state = State::Closed { orderly: false };
        None
    }

    /// Temporary refusals are our own doing, not an error of the client.
    pub(super) fn count_refusal(&mut self, code: u16) {
        self.refusals.push(code);
        if code >= 500 {
            self.count_error();
        }
    }

    fn count_error(&mut self) {
        self.errors = self.errors.saturating_add(1);
        if self.errors > self.limits.errors_max {
            self.refuse_and_close(&answer::TOO_MANY_ERRORS);
        }
    }
}

/// Commands that bring no message nearer.
fn is_idle(command: &Command) -> bool {
    matches!(
        command,
        Command::Noop
            | Command::Rset
            | Command::Vrfy
            | Command::Help
            | Command::Ehlo(_)
            | Command::Helo(_)
            | Command::Auth(_)
    )
}
