//! `posthaste reputation`: how the bounces and complaints of each sender stand, and who is paused.

use std::io::{self, Write};

use super::Failure;
use super::client::{Client, SocketArgs, query_string};
use super::format::safe;
use super::status::print_json;
use super::table::{Align, Table};
use crate::daemon::admin::reputation::{PauseBody, ROWS_MAX, ReputationPage, ReputationRow};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(flatten)]
    socket: SocketArgs,
    #[command(flatten)]
    show: ShowArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// Only server, tenant, configuration_set, credential, identity, pool, source or provider.
    #[arg(long, value_name = "KIND")]
    scope: Option<String>,
    /// Only those of this name.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only those that are healthy, warned, critical or paused.
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Show at most this many.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

const _: () = assert!(ROWS_MAX == 10_000, "the range of --limit says so");

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Refuse new mail of a tenant or configuration set, until it is resumed.
    Pause(WhoArgs),
    /// Take mail of a tenant or configuration set again. What was counted so far is forgiven: judging begins anew with the next hour.
    Resume(WhoArgs),
}

#[derive(Debug, clap::Args)]
struct WhoArgs {
    /// Name of the configuration set.
    #[arg(long, value_name = "NAME", conflicts_with = "tenant", required_unless_present = "tenant")]
    set: Option<String>,
    /// Name of the tenant.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Why, for the event and the audit stream.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let client = Client::locate(&args.socket)?;
    let (action, who) = match &args.command {
        None => return show(&client, args, out),
        Some(Command::Pause(who)) => ("pause", who),
        Some(Command::Resume(who)) => ("resume", who),
    };
    let body = PauseBody { tenant: who.tenant.clone(), set: who.set.clone(), reason: who.reason.clone() };
    let row: ReputationRow = client.post(&format!("/v1/reputation/{action}"), &body)?;
    if args.socket.json {
        print_json(&row, out)?;
    } else {
        writeln!(out, "{} {} is {} now", safe(&row.scope), safe(&row.name), safe(&row.state))?;
    }
    Ok(())
}

fn show(client: &Client, args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let ShowArgs { scope, name, state, limit } = &args.show;
    let query = query_string(&[
        ("scope", scope.clone()),
        ("name", name.clone()),
        ("state", state.clone()),
        ("limit", Some(limit.to_string())),
    ]);
    let page: ReputationPage = client.get(&format!("/v1/reputation{query}"))?;
    if args.socket.json {
        print_json(&page, out)?;
    } else {
        print(&page, out)?;
    }
    Ok(())
}

fn print(page: &ReputationPage, out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new([
        ("SCOPE", Align::Left),
        ("NAME", Align::Left),
        ("STATE", Align::Left),
        ("BOUNCED", Align::Right),
        ("OF", Align::Right),
        ("LIMITS", Align::Left),
        ("COMPLAINED", Align::Right),
        ("OF", Align::Right),
        ("LIMITS", Align::Left),
        ("WHY", Align::Left),
    ]);
    let min = u64::from(page.recipients_min);
    for row in &page.scopes {
        table.row([
            row.scope.clone(),
            row.name.clone(),
            row.state.clone(),
            rate(row.bounce_rate, row.recipients, min),
            row.recipients.to_string(),
            limits(row.bounce_warning, row.bounce_pause),
            rate(row.complaint_rate, row.delivered, min),
            row.delivered.to_string(),
            limits(row.complaint_warning, row.complaint_pause),
            why(row),
        ]);
    }
    table.print(out)?;
    if page.more > 0 {
        writeln!(out, "and {} more; ask with --scope, --state or --limit", page.more)?;
    }
    if page.scopes.iter().any(|row| row.recipients < min || row.delivered < min) {
        writeln!(out, "(in brackets: fewer than {min} recipients, which is too little to judge)")?;
    }
    Ok(())
}

fn rate(share: f64, of: u64, min: u64) -> String {
    if of < min { format!("({})", percent(share)) } else { percent(share) }
}

fn limits(warning: f64, pause: f64) -> String {
    format!("{} / {}", percent(warning), percent(pause))
}

/// To a thousandth of a percent.
fn percent(share: f64) -> String {
    let text = format!("{:.3}", share * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

fn why(row: &ReputationRow) -> String {
    let forgiven = row.judged_from.map(|from| format!("judged from {from} on"));
    let paused = row.reason.as_ref().map(|reason| {
        let since = row.since.map(|since| format!(" since {since}")).unwrap_or_default();
        format!("paused by {}{since}: {reason}", row.paused_by.as_deref().unwrap_or("?"))
    });
    paused.or(forgiven).unwrap_or_default()
}
