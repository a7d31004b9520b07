//! The command line: one file a subcommand.
//!
//! Exit codes, the same for every subcommand:
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done; `check`: the config is good; `status`: the daemon is healthy |
//! | 1 | failed; `check`: the config has errors |
//! | 2 | the command line is wrong |
//! | 3 | the daemon cannot be reached on its admin socket |
//! | 4 | there is no such message, address, pool, site or rule |
//! | 5 | `status`: the daemon runs and is unhealthy |
//! | 6 | `queue recover`: a new queue is in place, and something is or may be lost |
//!
//! But for `doctor`, whose codes say how bad it is: 0 nothing to do, 1 warnings, 2 errors (or a wrong command line), 3 it could not
//! run, as with an error in the config.
//!
//! Results go to standard output, errors and warnings to standard error. `--json` prints what the admin API answered.

mod check;
mod client;
mod credential;
mod demo;
mod dkim;
mod doctor;
mod explain;
mod format;
mod queue;
mod queue_act;
mod queue_list;
mod queue_recover;
mod queue_sent;
mod queue_show;
mod quota;
mod reputation;
mod rules;
mod run;
mod status;
mod suppression;
mod table;
mod warmup;
mod why;
mod zone;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use client::ClientError;

/// Outbound mail server: keeps every message it accepted, delivers it, and says what became of it.
#[derive(Debug, Parser)]
#[command(
    name = "posthaste",
    version,
    after_help = "Exit codes (doctor has its own): 0 done, 1 failed, 2 wrong command line, \
    3 daemon not reachable, 4 no such message, address or rule, 5 daemon unhealthy (status), 6 recovered with losses (queue recover)."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground.
    Run(run::Args),
    /// Check a config file: print every error in it, or a summary.
    Check(check::Args),
    /// Show how the running daemon does.
    Status(status::Args),
    /// Show what senders used of their limits in the last 24 hours.
    Quota(quota::Args),
    /// Show how bounces and complaints of senders stand; pause one, or let it send again.
    Reputation(reputation::Args),
    /// Look at queued messages, and retry, hold, release or cancel them.
    Queue(queue::Args),
    /// Show how mail goes to a domain: its hosts, rule and limits, and for each source what was learned and what holds it back.
    Explain(explain::Args),
    /// Look at warm-ups and their history, plan them, pause them.
    Warmup(warmup::Args),
    /// Say what a message waits for, because of which reply or rule, and until when.
    Why(why::Args),
    /// Look at suppression lists, and change them: addresses that mail is held back from.
    Suppression(suppression::Args),
    /// Look at the rules on replies and providers, and try them.
    Rules(rules::Args),
    /// Hash secrets, and make credentials, for the config.
    Credential(credential::Args),
    /// Make DKIM keys, and print the DNS records that they need.
    Dkim(dkim::Args),
    /// Check from outside whether receivers will take our mail, and print the DNS records to publish.
    #[command(after_help = "Exit codes: 0 nothing to do, 1 warnings, 2 errors, 3 could not run.")]
    Doctor(doctor::Args),
    /// Run the whole daemon on a temporary directory against a built-in mail world, and show what it does.
    Demo(demo::Args),
}

/// How a subcommand ended, other than well.
#[derive(Debug)]
enum Failure {
    /// Exit 1.
    Failed(String),
    /// Exit 2.
    Usage(String),
    /// Exit 3.
    Unreachable(String),
    /// Exit 4.
    NotFound(String),
    /// Exit 5; standard output said why.
    Unhealthy,
    /// Exit 6; standard output said what.
    Lost,
    /// `doctor`, exit 1; standard output said which.
    Warnings,
    /// `doctor`, exit 2; standard output said which.
    Errors,
    /// `doctor`, exit 3.
    CannotRun(String),
    /// Exit 0: whoever read our output, such as `head`, has seen enough.
    ReaderGone,
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Failure::ReaderGone => 0,
            Failure::Failed(_) | Failure::Warnings => 1,
            Failure::Usage(_) | Failure::Errors => 2,
            Failure::Unreachable(_) | Failure::CannotRun(_) => 3,
            Failure::NotFound(_) => 4,
            Failure::Unhealthy => 5,
            Failure::Lost => 6,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Failure::Failed(text)
            | Failure::Usage(text)
            | Failure::Unreachable(text)
            | Failure::NotFound(text)
            | Failure::CannotRun(text) => Some(text),
            Failure::Unhealthy | Failure::Lost | Failure::Warnings | Failure::Errors | Failure::ReaderGone => None,
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let text = error.to_string();
        match error {
            ClientError::Unreachable { .. } => Failure::Unreachable(text),
            ClientError::Refused { code, .. } if code == "not_found" => Failure::NotFound(text),
            ClientError::Refused { .. } | ClientError::Garbled(_) => Failure::Failed(text),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ReaderGone,
            _ => Failure::Failed(format!("cannot write the result: {error}")),
        }
    }
}

/// Parses the arguments of the process and does what they say. Returns the exit code.
pub fn main() -> ExitCode {
    // Not locked: the daemon logs and the demo prints from other threads.
    ExitCode::from(main_with(std::env::args_os(), &mut io::stdout(), &mut io::stderr()))
}

/// [`main`] with everything it takes from the process as arguments.
fn main_with(arguments: impl IntoIterator<Item = OsString>, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to tell where even this cannot be written.
            let _ = if error.use_stderr() { write!(err, "{error}") } else { write!(out, "{error}") };
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let result = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(&args, out, err),
        Command::Status(args) => status::run(&args, out),
        Command::Quota(args) => quota::run(&args, out),
        Command::Reputation(args) => reputation::run(&args, out),
        Command::Queue(args) => queue::run(&args, out, err),
        Command::Explain(args) => explain::run(&args, out),
        Command::Warmup(args) => warmup::run(&args, out, err),
        Command::Why(args) => why::run(&args, out),
        Command::Suppression(args) => suppression::run(&args, out, err),
        Command::Rules(args) => rules::run(&args, out, err),
        Command::Credential(args) => credential::run(&args, out, err),
        Command::Dkim(args) => dkim::run(&args, out),
        Command::Doctor(args) => doctor::run(&args, out),
        Command::Demo(args) => demo::run(&args),
    };
    let result = result.and_then(|()| out.flush().map_err(Failure::from));
    let Err(failure) = result else {
        return 0;
    };
    if let Some(text) = failure.text() {
        // As above.
        let _ = writeln!(err, "posthaste: {text}");
    }
    failure.code()
}

#[cfg(test)]
mod cli_test;
