//! `posthaste quota`: what the server, tenants, credentials and configuration sets used of their limits.

use std::io::{self, Write};

use super::Failure;
use super::client::{Client, SocketArgs};
use super::status::print_json;
use super::table::{Align, Table};
use crate::daemon::admin::model::{QuotaReport, QuotaUsage};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    socket: SocketArgs,
}

pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let report: QuotaReport = Client::locate(&args.socket)?.get("/v1/quota")?;
    if args.socket.json {
        print_json(&report, out)?;
    } else {
        print(&report.scopes, out)?;
    }
    Ok(())
}

fn print(scopes: &[QuotaUsage], out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new([
        ("SCOPE", Align::Left),
        ("NAME", Align::Left),
        ("LAST 24 H", Align::Right),
        ("LIMIT", Align::Right),
        ("USED", Align::Right),
        ("PER SECOND", Align::Right),
    ]);
    for usage in scopes {
        table.row([
            usage.scope.clone(),
            usage.name.clone(),
            usage.used.to_string(),
            usage.per_day.map(|limit| limit.to_string()).unwrap_or_default(),
            usage.per_day.map(|limit| percent(usage.used, limit)).unwrap_or_default(),
            usage.per_second.map(|limit| limit.to_string()).unwrap_or_default(),
        ]);
    }
    table.print(out)
}

/// Rounded down: 100 % is the whole limit.
fn percent(used: u64, limit: u64) -> String {
    let percent = (u128::from(used) * 100).checked_div(u128::from(limit)).unwrap_or(100);
    format!("{percent} %")
}
