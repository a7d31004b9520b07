//! `posthaste queue`: the subcommands about queued messages, and what they share.

use std::io::Write;

use super::client::{Client, SocketArgs};
use super::{Failure, queue_act, queue_list, queue_recover, queue_sent, queue_show};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    socket: SocketArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List messages, oldest first.
    List(queue_list::Args),
    /// Show all about messages: every recipient with its last reply, next attempt and reason.
    Show(queue_show::Args),
    /// Show what is remembered of messages that were sent, also when they have left the queue: how each recipient ended, and what
    /// was told of it since.
    Sent(queue_show::Args),
    /// Make deferred messages due now.
    Retry(queue_act::Args),
    /// Make no attempts until released.
    Hold(queue_act::HoldArgs),
    /// End a hold; due at once.
    Release(queue_act::Args),
    /// Remove messages without a bounce; recipients that were delivered stay delivered.
    Cancel(queue_act::CancelArgs),
    /// With the daemon stopped: make a new queue of what can be read of a damaged one, and list what is lost.
    ///
    /// The damaged queue is put aside under another name and not changed. Every message whose record and body can be read
    /// is queued again; a destination of which it is not known whether it was delivered is held. Afterwards, whatever is
    /// due carries `ambiguous: true` in its events, since a delivery may have been forgotten. Exit code 0: nothing is
    /// lost; 6: something is, or may be.
    Recover(queue_recover::Args),
}

/// Which messages; every given part must match.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct FilterArgs {
    /// Messages with a pending recipient in this domain.
    #[arg(long, value_name = "DOMAIN")]
    pub(super) domain: Option<String>,
    /// Messages of this envelope sender: an address, @domain, or <> for the null sender.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) sender: Option<String>,
    /// Messages in this state.
    #[arg(long, value_name = "STATE", value_parser = ["in_flight", "ready", "deferred", "held"])]
    pub(super) state: Option<String>,
}

pub(super) fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failure> {
    if let Command::Recover(queue_recover::Args {}) = &args.command {
        return queue_recover::run(args.socket.config_path(), args.socket.json, out);
    }
    let client = Client::locate(&args.socket)?;
    let json = args.socket.json;
    match &args.command {
        Command::List(args) => queue_list::run(&client, args, json, out, err),
        Command::Show(args) => queue_show::run(&client, args, json, out),
        Command::Sent(args) => queue_sent::run(&client, args, json, out),
        Command::Retry(args) => queue_act::run(&client, "retry", args, None, json, out),
        Command::Hold(args) => queue_act::run(&client, "hold", &args.selection, args.reason.as_deref(), json, out),
        Command::Release(args) => queue_act::run(&client, "release", args, None, json, out),
        Command::Cancel(args) => queue_act::cancel(&client, args, json, out),
        Command::Recover(_) => Ok(()),
    }
}
