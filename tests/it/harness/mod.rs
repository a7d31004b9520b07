//! What the tests of the whole daemon stand on: the real binary, fake mail hosts, a DNS server, and an SMTP client.
//!
//! | part | is |
//! |---|---|
//! | [`Lab`] | a loopback network of its own for one test, a DNS server in it, a temporary directory |
//! | [`Mx`] | a mail host that does what a closure says, and records all it gets |
//! | [`Dns`] | an authoritative server whose data and failures change while it runs |
//! | [`Daemon`] | the process under test, its log, its signals, its admin socket |
//! | [`Events`] | its event files, each line checked against docs/event.schema.json |
//! | [`Shim`] | a library between the daemon and the kernel: faults, kills at named calls, lost pages |
//! | [`Client`], [`Load`] | applications that hand in mail |
//! | [`System`] | a machine in namespaces, with systemd and posthaste as its service |
//!
//! Waiting is always for something that can be seen, up to [`PATIENCE`]; nothing sleeps to let time pass.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    dead_code,
    unused_imports,
    reason = "helpers of tests: they may panic, they look at the clock to give up, and not every test uses all"
)]

mod client;
mod config;
mod credentials;
mod daemon;
mod dns;
mod events;
mod lab;
mod load;
mod mx;
mod shim;
mod systemd;
mod tls;
mod watch;

pub(crate) use client::{Client, Reply, simple};
pub(crate) use config::ConfigText;
pub(crate) use credentials::{audit_lines, auth_plain, credential_table, hashed};
pub(crate) use daemon::{Daemon, Signal};
pub(crate) use dns::{Dns, DnsMode, reverse_name};
pub(crate) use events::{Events, recipients};
pub(crate) use lab::Lab;
pub(crate) use load::{Load, Sent, assert_all_ends_well, assert_ids_have_no_gap, assert_nothing_lost_or_doubled};
pub(crate) use mx::{Answer, Ask, Mx, MxOptions, MxTls, Stage, Transaction};
pub(crate) use shim::{Shim, Unsynced};
pub(crate) use systemd::{SMTP, System};
pub(crate) use tls::Certificate;
pub(crate) use watch::{Watched, now, poll};

use std::time::Duration;

/// How long a test waits for something that must happen. Only a failing test takes that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
