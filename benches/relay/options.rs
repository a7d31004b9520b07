//! The command line of the benchmark. Defaults give the figures of docs/PERFORMANCE.md.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Puts the same work through posthaste and Debian's Postfix and prints speed, CPU, memory and the ratios.
#[derive(Clone, Debug, Parser)]
#[command(name = "cargo bench --bench relay --")]
pub(crate) struct Options {
    /// What to measure, in this order.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Work::One, Work::Many])]
    pub(crate) work: Vec<Work>,

    /// Through which servers.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Server::Postfix, Server::Posthaste])]
    pub(crate) server: Vec<Server>,

    /// Messages of one run through posthaste.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) messages: u32,

    /// Messages of one run through Postfix.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) postfix_messages: u32,

    /// Octets of a message.
    #[arg(long, default_value_t = 10_240, value_parser = clap::value_parser!(u32).range(512..=10_485_760))]
    pub(crate) size: u32,

    /// Sessions that submit at the same time.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) sessions: u32,

    /// Messages on one submission connection before it is closed and a new one opened.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) messages_per_connection: u32,

    /// Destinations of `many` and `slow-mx`, each with its own MX host and address.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) destinations: u32,

    /// How long the MX waits before each reply in `slow-mx` (milliseconds); a pipelined group gets one wait.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub(crate) mx_latency_ms: u64,

    /// Messages a second of `half`; without it, half of what `one` showed for that server in this run.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: Option<u32>,

    /// Messages of `idle`, one by one.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) idle_messages: u32,

    /// What submits: the built-in generator, or Postfix's smtp-source (only for `one` and `large`).
    #[arg(long, value_enum, default_value_t = Generator::Own)]
    pub(crate) load: Generator,

    /// Open connections in all, and to one site, that posthaste may use in `slow-mx`.
    #[arg(long, default_value_t = 9_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) slow_connections: u32,

    /// Connections that clients hold in `hostile`.
    #[arg(long, default_value_t = 8_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) hostile_connections: u32,

    /// Reports of `reports`: so many at once, and at most so many at a pace.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) reports: u32,

    /// Their pace beside the load.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=6_000_000))]
    pub(crate) reports_per_minute: u32,

    /// A run ends with what it has after this many seconds.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=36_000))]
    pub(crate) seconds_max: u64,

    /// Where queues are kept: a directory on a real disk. Made, used by these runs alone, removed.
    #[arg(long, default_value = "/var/tmp")]
    pub(crate) directory: PathBuf,

    /// Keep the directory, with the logs of both servers, and let Postfix write its log (which costs it CPU).
    #[arg(long)]
    pub(crate) keep: bool,

    /// posthaste to measure instead of the one that Cargo just built.
    #[arg(long)]
    pub(crate) posthaste: Option<PathBuf>,

    /// Run this while posthaste works, with its process id as last argument, as in "perf record -g -o /tmp/p.data -p".
    /// It gets SIGINT at the end.
    #[arg(long)]
    pub(crate) profile: Option<String>,

    /// Given by Cargo.
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

impl Options {
    /// Longest time of one run.
    pub(crate) fn time_max(&self) -> Duration {
        Duration::from_secs(self.seconds_max)
    }

    /// Wait of the MX before each reply.
    pub(crate) fn mx_latency(&self) -> Duration {
        Duration::from_millis(self.mx_latency_ms)
    }
}

/// One kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// All messages to one destination.
    One,
    /// To many destinations in turn (`--destinations`).
    Many,
    /// As `many`, and the MX waits before each reply (`--mx-latency-ms`); connection limits of posthaste raised.
    SlowMx,
    /// As `one`, with messages ten times as large, and a fifth of their number.
    Large,
    /// One message at a time, far apart: the latency of an idle server.
    Idle,
    /// To many destinations at half the rate of `one`: the latency under load.
    Half,
    /// To a destination whose MX cannot be reached: the accept rate at the start and at the end, and memory.
    Dead,
    /// As `one`, three times: alone, while clients hold connections (`--hostile-connections`), and with a storm of TLS
    /// handshakes besides. posthaste only.
    Hostile,
    /// As `one`, three times: alone, then by clients that log in (AUTH PLAIN under TLS), on kept connections and with a new connection
    /// for each message; 1,000 tenants in the config. posthaste only.
    Login,
    /// As `one`, three times: alone, after as many bounces and complaints as are taken at once (`--reports`), and while they come at a
    /// pace (`--reports-per-minute`). posthaste only.
    Reports,
    /// As `one`, each message signed by two RSA keys of 2048 bits: the author's domain's and the operator's; then unsigned
    /// at the same pace: what signing costs beyond the signatures themselves. posthaste only.
    SignedRsa,
    /// The same with Ed25519 keys.
    SignedEd25519,
}

impl Work {
    /// Whether this server does it.
    pub(crate) fn is_for(self, server: Server) -> bool {
        let others =
            matches!(self, Self::Hostile | Self::Login | Self::Reports | Self::SignedRsa | Self::SignedEd25519);
        !others || server == Server::Posthaste
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Server {
    /// Debian's package, in an instance of its own.
    Postfix,
    /// The binary that Cargo built.
    Posthaste,
}

/// What submits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Generator {
    /// In this process: knows when each message was submitted and accepted.
    Own,
    /// Postfix's, with `-d -N`: one connection for each session, all messages over it.
    SmtpSource,
}
