//! What is known of a session when a message is stamped.

use std::net::IpAddr;
use std::sync::Arc;

use super::settings::Settings;
use super::stamp::{StampContext, TlsInfo};
use crate::admission::{Directory, Grant};
use crate::smtp::server::Machine;
use crate::types::{Envelope, MessageId};

/// Who submits, as of now.
#[derive(Clone, Copy)]
pub(super) struct Caller<'a> {
    pub(super) grant: &'a Grant,
    pub(super) directory: &'a Directory,
}

/// What `Received` and events tell of the session. The texts are kept between messages: they seldom change.
pub(super) struct Facts {
    pub(super) client: IpAddr,
    pub(super) tls: Option<TlsInfo>,
    /// Those of the last MAIL.
    pub(super) settings: Arc<Settings>,
    helo: Box<str>,
    protocol: &'static str,
}

impl Facts {
    pub(super) fn new(client: IpAddr, settings: Arc<Settings>) -> Self {
        Self { client, tls: None, settings, helo: Box::default(), protocol: "SMTP" }
    }

    /// Takes over what holds for the current transaction.
    pub(super) fn update(&mut self, machine: &Machine, smtputf8: bool) {
        if *self.helo != *machine.helo_name() {
            self.helo = machine.helo_name().into();
        }
        self.protocol = machine.protocol(smtputf8);
    }

    pub(super) fn context<'a>(&'a self, id: MessageId, envelope: &'a Envelope, caller: Caller<'a>) -> StampContext<'a> {
        StampContext {
            id,
            accepted_at: id.accepted_at(),
            client: self.client,
            helo: &self.helo,
            tls: self.tls.as_ref(),
            protocol: self.protocol,
            envelope,
            grant: caller.grant,
            directory: caller.directory,
            settings: &self.settings,
        }
    }
}
