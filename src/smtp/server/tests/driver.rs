//! A driver without sockets: decides as told and writes down what happens.

use std::fmt::Write as _;

use crate::smtp::sasl::Login;
use crate::smtp::server::{ContentLimits, Hygiene, Limits, LoginOffer, LongLines, Machine, Step, TlsState};
use crate::types::{EnhancedStatus, MessageId, Reply, ReplyCode, Timestamp};

/// Small limits, so that dialogues reach them.
pub(super) const LIMITS: Limits = Limits {
    content: ContentLimits {
        message_bytes_max: 2_000,
        header_bytes_max: 1_000,
        long_lines: LongLines::Refuse,
        hygiene: Hygiene::Refuse,
    },
    recipients_max: 3,
    transactions_max: 4,
    errors_max: 3,
    idle_commands_max: 6,
};

/// A message as taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) sender: String,
    pub(super) recipients: Vec<String>,
    pub(super) content: Vec<u8>,
}

/// A session and what it did.
pub(super) struct Driver {
    pub(super) machine: Machine,
    buffer: Vec<u8>,
    pub(super) limits: Limits,
    /// MAIL is answered 530.
    pub(super) denied: bool,
    pub(super) taken: Vec<Taken>,
    /// Replies, and in brackets the steps between them.
    pub(super) log: String,
    pub(super) closed: bool,
    in_message: bool,
    /// Logins that were let in.
    pub(super) logins: usize,
}

impl Driver {
    /// AUTH is offered; the secret `right` is right, and `later` gets 454.
    pub(super) fn with_login(limits: Limits, tls: TlsState, offer: LoginOffer) -> Self {
        let mut driver = Self::new(limits, tls);
        driver.machine.offer_login(offer);
        driver
    }

    pub(super) fn new(limits: Limits, tls: TlsState) -> Self {
        Self {
            machine: Machine::new("mx.test", limits, tls),
            buffer: Vec::new(),
            limits,
            denied: false,
            taken: Vec::new(),
            log: String::new(),
            closed: false,
            in_message: false,
            logins: 0,
        }
    }

    /// Feeds octets and returns the replies to them.
    pub(super) fn send(&mut self, input: &[u8]) -> String {
        self.buffer.extend_from_slice(input);
        while !self.closed {
            let (used, step) = self.machine.step(&self.buffer);
            self.buffer.drain(..used);
            match step {
                Step::Read => break,
                Step::Recipient => {
                    let (recipient, _) = self.machine.pending_recipient().unwrap();
                    if recipient.address.as_str().starts_with("nobody@") {
                        let status = EnhancedStatus::new(5, 1, 1);
                        let text = vec!["No such address".into()];
                        self.machine.refuse(&Reply::new(ReplyCode::new(550).unwrap(), status, text));
                    } else {
                        self.machine.admit_recipient();
                    }
                }
                Step::Mail if self.denied => {
                    let status = EnhancedStatus::new(5, 7, 0);
                    let text = vec!["Authentication required".into()];
                    self.machine.refuse(&Reply::new(ReplyCode::new(530).unwrap(), status, text));
                }
                Step::Mail => {
                    assert!(self.machine.pending_mail().is_some());
                    self.machine.admit(self.limits);
                }
                Step::Begin => {
                    assert!(!self.in_message && self.machine.message_mut().is_some());
                    self.in_message = true;
                }
                Step::Abandoned => {
                    assert!(self.in_message);
                    self.in_message = false;
                    self.note("[abandoned]");
                }
                Step::Message(message) => {
                    assert!(self.in_message && !message.envelope.recipients.is_empty());
                    self.in_message = false;
                    let mut content = message.content;
                    self.taken.push(Taken {
                        sender: message.envelope.reverse_path.as_str().to_owned(),
                        recipients: message.envelope.recipients.iter().map(|to| to.address.to_string()).collect(),
                        content: content.take_all(),
                    });
                    self.machine.accepted(&MessageId::new(Timestamp::EPOCH, 0));
                }
                Step::Login(login) => {
                    let secret = String::from_utf8_lossy(login.secret.expose()).into_owned();
                    let Login { mechanism, user, acts_as_other, .. } = *login;
                    let other = if acts_as_other { " as another" } else { "" };
                    let shown = if secret.len() > 99 { format!("{} octets", secret.len()) } else { secret.clone() };
                    self.note(&format!("[login {} {user} {shown}{other}]", mechanism.name()));
                    match &*secret {
                        "right" if !acts_as_other => self.machine.logged_in(),
                        "later" => self.machine.login_deferred(),
                        _ => self.machine.login_refused(),
                    }
                    self.logins += usize::from(secret == "right" && !acts_as_other);
                }
                Step::StartTls => {
                    self.note("[tls]");
                    self.machine.tls_started();
                }
                Step::Close { .. } => {
                    self.note("[close]");
                    self.closed = true;
                }
            }
        }
        self.replies()
    }

    /// Replies that were not yet returned.
    pub(super) fn replies(&mut self) -> String {
        self.note("");
        std::mem::take(&mut self.log)
    }

    fn note(&mut self, text: &str) {
        let sent = self.machine.take_output();
        self.log.push_str(&String::from_utf8_lossy(&sent));
        self.machine.recycle(sent);
        if !text.is_empty() {
            writeln!(self.log, "{text}\r").unwrap();
        }
    }
}
