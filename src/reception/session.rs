//! One session: drives the machine over the wire.

mod login;
mod reports;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use tokio::time::Instant;

use self::reports::Arriving;
use super::Shared;
use super::assembly::{self, Assembly, Stamping};
use super::facts::{Caller, Facts};
use super::handshakes::Begun;
use super::listener::{ListenerSpec, TlsMode};
use super::memory::ClientMemory;
use super::settings::{ListenerTakes, Settings};
use super::wire::{Expect, Heard, Wire};
use crate::admission::{self, Authenticated, Client, Denial, Directory, Grant, quota};
use crate::events::metric;
use crate::net::BoxStream;
use crate::smtp::server::{ContentLimits, Farewell, Limits, Machine, Message, Step, TlsState};

/// A connection of a client.
pub(super) struct Session {
    shared: Arc<Shared>,
    spec: Arc<ListenerSpec>,
    machine: Machine,
    wire: Wire,
    facts: Facts,
    memory: ClientMemory,
    /// Who logged in.
    login: Option<Authenticated>,
    /// The TLS handshake, until a login or a message came of it.
    handshake: Option<Begun>,
    /// From the last MAIL that was admitted.
    grant: Option<Grant>,
    /// While a message arrives.
    assembly: Option<Assembly>,
    /// The same where it comes home.
    arriving: Option<Arriving>,
    /// A 250 for a message waits to be sent.
    owes_acceptance: bool,
    ends_at: Instant,
}

/// Whether the session goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    /// The connection is of no use any more.
    Lost,
}

impl Session {
    /// A session with `client`, whose address is canonical (no IPv4-mapped IPv6).
    pub(super) fn new(
        shared: Arc<Shared>,
        spec: Arc<ListenerSpec>,
        stream: BoxStream,
        client: IpAddr,
        memory: ClientMemory,
    ) -> Self {
        let settings = shared.ports.settings.load_full();
        let tls = match spec.tls {
            TlsMode::None => TlsState::Unavailable,
            TlsMode::StartTls(_) => TlsState::Offered,
            TlsMode::Implicit(_) => TlsState::Active,
        };
        let mut machine = Machine::new(&settings.hostname, limits(&settings), tls);
        if spec.takes == ListenerTakes::Feedback {
            machine.gate_recipients();
        }
        let wire = Wire::new(stream, &shared.draining);
        let ends_at = Instant::now() + settings.session_timeout;
        let facts = Facts::new(client, settings);
        let mut session = Self {
            shared,
            spec,
            machine,
            wire,
            facts,
            memory,
            login: None,
            handshake: None,
            grant: None,
            assembly: None,
            arriving: None,
            owes_acceptance: false,
            ends_at,
        };
        session.machine.offer_login(session.login_offer());
        session
    }

    /// Serves the client until either side ends the session. Dropped half-way: spooled parts are discarded, the client
    /// got no reply.
    pub(super) async fn run(mut self) {
        if let TlsMode::Implicit(config) = &self.spec.tls {
            let config = Arc::clone(config);
            if self.handshake(config).await == Next::Lost {
                return;
            }
        }
        loop {
            let (used, step) = self.machine.step(&self.wire.input);
            if matches!(step, Step::Login(_)) {
                self.wire.wipe(used);
            }
            self.wire.input.advance(used);
            let next = match step {
                Step::Read => self.read().await,
                Step::Mail => self.mail(),
                Step::Recipient => self.report_recipient(),
                Step::Begin => self.begin().await,
                Step::Abandoned => {
                    (self.assembly, self.arriving) = (None, None);
                    Next::GoOn
                }
                Step::Message(message) => self.message(*message).await,
                Step::Login(login) => self.log_in(*login).await,
                Step::StartTls => self.start_tls().await,
                Step::Close { orderly } => {
                    if self.flush().await == Next::GoOn {
                        self.wire.close(orderly).await;
                    }
                    return;
                }
            };
            if next == Next::Lost {
                return;
            }
        }
    }

    /// Sends what is to be sent, then waits for the client.
    async fn read(&mut self) -> Next {
        // Between two chunks of a BDAT message the drain waits too.
        let in_data = self.machine.is_in_data() || self.assembly.is_some() || self.arriving.is_some();
        self.make_room().await;
        if self.flush().await == Next::Lost {
            return Next::Lost;
        }
        let (expect, span) = if in_data {
            (Expect::Data, self.facts.settings.data_timeout)
        } else {
            (Expect::Command, self.facts.settings.command_timeout)
        };
        let deadline = self.deadline(span);
        match self.wire.read(expect, deadline).await {
            Heard::Octets => return Next::GoOn,
            Heard::End => {
                tracing::debug!(client = %self.facts.client, in_data, "client closed the connection");
                return Next::Lost;
            }
            Heard::Timeout if deadline >= self.ends_at => self.machine.farewell(Farewell::SessionTooLong),
            Heard::Timeout => self.machine.farewell(Farewell::Timeout),
            Heard::Drain => self.machine.farewell(Farewell::Shutdown),
        }
        tracing::debug!(client = %self.facts.client, in_data, "session ended by us");
        (self.assembly, self.arriving) = (None, None);
        Next::GoOn
    }

    /// MAIL: new settings, may it relay, can the queue take it.
    fn mail(&mut self) -> Next {
        if self.shared.draining.is_cancelled() {
            self.machine.farewell(Farewell::Shutdown);
            return Next::GoOn;
        }
        self.facts.settings = self.shared.ports.settings.load_full();
        if self.inbox().is_some() {
            self.report_mail();
            return Next::GoOn;
        }
        let Some(mail) = self.machine.pending_mail() else {
            return Next::GoOn;
        };
        // What is never taken gets the machine's 552, not the 452 that asks the client to try again.
        let declared_bytes = mail.declared_bytes.unwrap_or_default().min(self.facts.settings.message_bytes_max);
        let sender = mail.reverse_path.as_str();
        let directory = self.shared.ports.admission.load_full();
        let grant = match self.admit(&directory, sender) {
            Ok(grant) => grant,
            Err(denial) => {
                self.deny(&denial);
                return Next::GoOn;
            }
        };
        // Of the configuration set nobody knows yet.
        let scopes = quota::scopes(&directory, &grant.tenant, grant.credential.as_deref(), None);
        // Mail to the simulator is free of them: where there is one, the end of the data tells.
        let checked = match directory.simulator {
            Some(_) => Ok(()),
            None => self.shared.ports.quotas.check(&scopes),
        };
        if let Err(exceeded) = checked {
            self.machine.refuse(&assembly::throttled(&exceeded));
            return Next::GoOn;
        }
        if let Err(error) = self.shared.ports.intake.check(declared_bytes) {
            self.machine.refuse(&assembly::reply_to(&error));
            return Next::GoOn;
        }
        self.grant = Some(grant);
        self.machine.admit(limits(&self.facts.settings));
        Next::GoOn
    }

    /// As whom the client sends, by this directory.
    fn admit(&self, directory: &Directory, sender: &str) -> Result<Grant, Denial> {
        admission::admit(directory, Client { address: self.facts.client, credential: self.login.as_ref() }, sender)
    }

    /// Refuses what waits for a decision.
    fn deny(&mut self, denial: &Denial) {
        tracing::debug!(client = %self.facts.client, %denial, "not admitted");
        self.machine.refuse(&denial.reply());
        if *denial == Denial::Revoked {
            self.log_out();
        }
    }

    /// DATA or the first BDAT: memory first, since the client sends as soon as it may.
    async fn begin(&mut self) -> Next {
        if self.inbox().is_some() {
            self.report_room(true).await;
            return Next::GoOn;
        }
        let deadline = self.deadline(self.facts.settings.data_timeout);
        let mut assembly = Assembly::new(&self.shared.ports, &self.facts.settings);
        if let Some(message) = self.machine.message_mut() {
            assembly.begin(message, &self.memory, deadline).await;
        }
        self.assembly = Some(assembly);
        Next::GoOn
    }

    /// Room for the next read of a message that arrives.
    async fn make_room(&mut self) {
        if self.arriving.is_some() {
            return self.report_room(false).await;
        }
        let deadline = self.deadline(self.facts.settings.data_timeout);
        let Some(assembly) = &mut self.assembly else {
            return;
        };
        let (Some(message), Some(grant)) = (self.machine.message_mut(), &self.grant) else {
            return;
        };
        if assembly.begins_spool(message) {
            let smtputf8 = message.envelope.smtputf8;
            self.facts.update(&self.machine, smtputf8);
        }
        if let Some(message) = self.machine.message_mut() {
            let directory = self.shared.ports.admission.load();
            let caller = Caller { grant, directory: &directory };
            let stamp = Stamping { stamp: &*self.shared.ports.stamp, facts: &self.facts, caller };
            assembly.make_room(message, &self.memory, deadline, stamp).await;
        }
    }

    /// A whole message: the reply comes when it is safe.
    async fn message(&mut self, message: Message) -> Next {
        if let Some(inbox) = self.inbox() {
            return self.report(inbox, message).await;
        }
        let (Some(assembly), Some(_)) = (self.assembly.take(), self.grant.take()) else {
            self.machine.refuse(&assembly::local_error());
            return Next::GoOn;
        };
        // Rights may have changed since MAIL.
        let directory = self.shared.ports.admission.load_full();
        let grant = match self.admit(&directory, message.envelope.reverse_path.as_str()) {
            Ok(grant) => grant,
            Err(denial) => {
                self.deny(&denial);
                return Next::GoOn;
            }
        };
        // The client learns of one message before the next is waited for: should we stop now, it sends none twice.
        if self.owes_acceptance && self.flush().await == Next::Lost {
            return Next::Lost;
        }
        let began_at = Instant::now();
        let recipients = u64::try_from(message.envelope.recipients.len()).unwrap_or_default();
        self.facts.update(&self.machine, message.envelope.smtputf8);
        let caller = Caller { grant: &grant, directory: &directory };
        let stamp = Stamping { stamp: &*self.shared.ports.stamp, facts: &self.facts, caller };
        match assembly.finish(message, stamp).await {
            Ok(id) => {
                self.machine.accepted(&id);
                self.owes_acceptance = true;
                self.is_in_earnest();
                let metrics = &self.shared.metrics;
                metrics.messages.increment(1);
                metrics.recipients.increment(recipients);
                metrics.accept_seconds.record(began_at.elapsed());
            }
            Err(reply) => self.machine.refuse(&reply),
        }
        Next::GoOn
    }

    /// The client logged in, or a message came of it: its handshake was no waste.
    fn is_in_earnest(&mut self) {
        if let Some(begun) = self.handshake.take() {
            self.shared.handshakes.in_earnest(begun, &self.facts.settings);
        }
    }

    async fn start_tls(&mut self) -> Next {
        let TlsMode::StartTls(config) = &self.spec.tls else {
            return Next::Lost;
        };
        let config = Arc::clone(config);
        if self.flush().await == Next::Lost || self.handshake(config).await == Next::Lost {
            return Next::Lost;
        }
        self.machine.tls_started();
        Next::GoOn
    }

    async fn handshake(&mut self, config: Arc<rustls::ServerConfig>) -> Next {
        let deadline = self.deadline(self.facts.settings.command_timeout);
        let Self { shared, facts, handshake, wire, .. } = self;
        let turn = async {
            *handshake = Some(shared.handshakes.pass(facts.client, &facts.settings, deadline).await?);
            Ok(())
        };
        match wire.start_tls(config, deadline, turn).await {
            Ok(info) => {
                self.facts.tls = Some(info);
                Next::GoOn
            }
            Err(error) => {
                tracing::debug!(client = %self.facts.client, %error, "TLS handshake failed");
                Next::Lost
            }
        }
    }

    /// All replies since the last wait, in one write.
    async fn flush(&mut self) -> Next {
        for code in self.machine.take_refusals() {
            metrics::counter!(metric::REFUSALS, "code" => code.to_string()).increment(1);
        }
        if self.machine.output_bytes() == 0 {
            return Next::GoOn;
        }
        self.owes_acceptance = false;
        let output = self.machine.take_output();
        let deadline = self.deadline(self.facts.settings.command_timeout);
        let result = self.wire.write(&output, deadline).await;
        self.machine.recycle(output);
        if result.is_ok() { Next::GoOn } else { Next::Lost }
    }

    fn deadline(&self, span: Duration) -> Instant {
        (Instant::now() + span).min(self.ends_at)
    }
}

fn limits(settings: &Settings) -> Limits {
    Limits {
        content: ContentLimits {
            message_bytes_max: settings.message_bytes_max,
            header_bytes_max: settings.header_bytes_max,
            long_lines: settings.long_lines,
            hygiene: settings.hygiene,
        },
        recipients_max: settings.recipients_max,
        transactions_max: settings.transactions_max,
        errors_max: settings.errors_max,
        idle_commands_max: settings.idle_commands_max,
    }
}
