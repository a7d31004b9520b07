//! `posthaste suppression`: the lists of addresses that mail is held back from.
//!
//! Works on the running daemon through its admin socket, and where none runs on the queue itself.

mod import;
mod line;
mod target;

use std::io::{self, Write};

use self::line::Format;
use self::target::Target;
use super::Failure;
use super::client::SocketArgs;
use super::format::{age, safe};
use super::status::print_json;
use super::table::{Align, Table};
use crate::daemon::admin::suppression::{
    ENTRIES_MAX, ListName, SuppressionItem, SuppressionPage, checked_address, described,
};
use crate::types::{Clock, EmailAddress, SystemClock, Timestamp};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    socket: SocketArgs,
    #[command(flatten)]
    list: ListArgs,
    #[command(subcommand)]
    command: Command,
}

/// Which list; the global one unless named.
#[derive(Clone, Debug, clap::Args)]
struct ListArgs {
    /// The list of this tenant.
    #[arg(long, value_name = "NAME", global = true, conflicts_with = "set")]
    tenant: Option<String>,
    /// The list of this configuration set.
    #[arg(long, value_name = "NAME", global = true)]
    set: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Put an address on the list; one that is on it gets the new reason and time.
    Add(AddArgs),
    /// Take an address off the list.
    Remove(AddressArgs),
    /// Show the entry of an address.
    Get(AddressArgs),
    /// Show the entries of the list, in the order of their hashes.
    List(PageArgs),
    /// Put all entries of a file on the list.
    ///
    /// CSV with the columns EmailAddress, Reason, LastUpdateTime (a header line may stand there), or JSON lines with members
    /// of these names. Reason is BOUNCE, COMPLAINT or UNSUBSCRIBE; without a time the entry is of now. Bad lines are named and left
    /// out, and the exit code is 1 then. Doing it again does no harm.
    Import(import::Args),
    /// Write all entries of the list to standard output.
    Export(ExportArgs),
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    /// The address.
    #[arg(value_name = "ADDRESS")]
    address: String,
    /// Why.
    #[arg(long, value_name = "REASON", value_parser = ["bounce", "complaint", "unsubscribe"], ignore_case = true)]
    reason: String,
}

#[derive(Debug, clap::Args)]
struct AddressArgs {
    /// The address.
    #[arg(value_name = "ADDRESS")]
    address: String,
}

#[derive(Debug, clap::Args)]
struct PageArgs {
    /// Show at most this many.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// Go on behind this address, as the list before said.
    #[arg(long, value_name = "ADDRESS")]
    after: Option<String>,
}

#[derive(Debug, clap::Args)]
struct ExportArgs {
    /// How to write them.
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,
}

pub(super) fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failure> {
    let name = ListName { tenant: args.list.tenant.clone(), set: args.list.set.clone() };
    // A name that is none is said before anything is opened.
    let list = name.check().map_err(|error| Failure::Usage(error.to_string()))?;
    let json = args.socket.json;
    let target = || Target::find(&args.socket, name.clone(), list.clone());
    match &args.command {
        Command::Add(args) => {
            let entry = SuppressionItem {
                email_address: address(&args.address)?.to_string(),
                reason: args.reason.to_ascii_uppercase(),
                ..SuppressionItem::default()
            };
            let report = target()?.put(vec![entry], "added by command")?;
            if let Some(warning) = &report.warning {
                writeln!(err, "{}", safe(warning))?;
            }
            if json {
                return Ok(print_json(&report, out)?);
            }
            let what = if report.added > 0 { "is now on" } else { "was already on" };
            Ok(writeln!(out, "{} {what} {}", safe(&args.address), described(&list))?)
        }
        Command::Remove(args) => {
            let entry = target()?.remove(&address(&args.address)?)?;
            if json {
                return Ok(print_json(&entry, out)?);
            }
            Ok(writeln!(out, "{} is no longer on {}", safe(&entry.email_address), described(&list))?)
        }
        Command::Get(args) => {
            let entry = target()?.get(&address(&args.address)?)?;
            if json { Ok(print_json(&entry, out)?) } else { Ok(print_entry(&entry, out)?) }
        }
        Command::List(args) => print_list(&target()?, args, json, out, err),
        Command::Import(args) => import::run(&target()?, args, json, out, err),
        Command::Export(args) => export(&target()?, args.format, out),
    }
}

fn address(text: &str) -> Result<EmailAddress, Failure> {
    checked_address(text).map_err(Failure::Usage)
}

fn print_entry(entry: &SuppressionItem, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "address    {}", safe(&entry.email_address))?;
    writeln!(out, "reason     {}", safe(&entry.reason))?;
    let ago = Timestamp::parse_iso8601(entry.updated()).map(|time| age(SystemClock.now().since(time)));
    writeln!(out, "updated    {} ({} ago)", safe(entry.updated()), ago.unwrap_or_default())?;
    match &entry.origin {
        Some(origin) => writeln!(out, "origin     {}", safe(origin)),
        None => Ok(()),
    }
}

fn print_list(
    target: &Target,
    args: &PageArgs,
    json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failure> {
    let after = args.after.as_deref().map(address).transpose()?;
    let wanted = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let mut all = SuppressionPage { next: after.map(|after| after.to_string()), ..SuppressionPage::default() };
    loop {
        let page = target.page(all.next.as_deref(), (wanted - all.entries.len()).min(ENTRIES_MAX))?;
        let is_empty = page.entries.is_empty();
        all.entries.extend(page.entries);
        (all.next, all.total) = (page.next, page.total);
        if all.next.is_none() || is_empty || all.entries.len() >= wanted {
            break;
        }
    }
    if json {
        return Ok(print_json(&all, out)?);
    }
    if all.entries.is_empty() {
        return Ok(writeln!(out, "no entries")?);
    }
    let columns = ["ADDRESS", "REASON", "UPDATED", "ORIGIN"].map(|title| (title, Align::Left));
    let mut table = Table::new(columns);
    for entry in &all.entries {
        let origin = entry.origin.clone().unwrap_or_default();
        table.row([entry.email_address.clone(), entry.reason.clone(), entry.updated().to_owned(), origin]);
    }
    table.print(out)?;
    if let Some(next) = &all.next {
        writeln!(err, "{} of {} shown; for more add --after {}", all.entries.len(), all.total, safe(next))?;
    }
    Ok(())
}

/// Page by page: a list of any length needs the memory of one.
fn export(target: &Target, format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    let mut out = io::BufWriter::with_capacity(256 << 10, out);
    if format == Format::Csv {
        writeln!(out, "{}", line::CSV_HEADER)?;
    }
    let mut after = None;
    loop {
        let page = target.page(after.as_deref(), ENTRIES_MAX)?;
        for entry in &page.entries {
            line::write(entry, format, &mut out)?;
        }
        match page.next {
            Some(next) if !page.entries.is_empty() => after = Some(next),
            _ => return Ok(out.flush()?),
        }
    }
}
