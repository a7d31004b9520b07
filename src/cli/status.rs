//! `posthaste status`: how the daemon does, on one screen. Exit 5 where it is unhealthy, for monitoring.

use std::io::{self, Write};
use std::time::Duration;

use super::Failure;
use super::client::{Client, SocketArgs};
use super::format::{age, bytes, count, safe};
use super::table::{Align, Table};
use crate::daemon::admin::model::{SiteStatus, Status};
use crate::types::{Clock, SystemClock, Timestamp};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    socket: SocketArgs,
}

pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let status: Status = Client::locate(&args.socket)?.get("/v1/status")?;
    if args.socket.json {
        print_json(&status, out)?;
    } else {
        print(&status, SystemClock.now(), out)?;
    }
    if status.healthy { Ok(()) } else { Err(Failure::Unhealthy) }
}

/// What `--json` prints, for every subcommand.
pub(super) fn print_json(value: &impl serde::Serialize, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

fn print(status: &Status, now: Timestamp, out: &mut dyn Write) -> io::Result<()> {
    let health = match (&status.health_reason, status.healthy) {
        (_, true) => "healthy".to_owned(),
        (Some(reason), false) => format!("UNHEALTHY: {}", safe(reason)),
        (None, false) => "UNHEALTHY".to_owned(),
    };
    let uptime = age(Duration::from_secs(status.uptime_s));
    writeln!(out, "posthaste {}, up {uptime}, {health}", safe(&status.version))?;
    let queue = &status.queue;
    let oldest = queue.oldest_age_s.map(|seconds| format!(", oldest {}", age(Duration::from_secs(seconds))));
    writeln!(
        out,
        "queue        {}{}; {} free on disk",
        count(queue.messages, "message"),
        oldest.unwrap_or_default(),
        bytes(queue.free_bytes)
    )?;
    writeln!(
        out,
        "deliveries   {} waiting or under way: {} ready, {} in flight; {} held",
        queue.deliveries,
        queue.ready,
        queue.in_flight,
        count(queue.held, "message")
    )?;
    writeln!(
        out,
        "since start  {} accepted; recipients: {} delivered, {} bounced; {}",
        count(status.accepted, "message"),
        status.delivered,
        status.bounced,
        count(status.deferred, "deferral")
    )?;
    writeln!(
        out,
        "connections  {} from clients, {} to mail hosts",
        status.connections.clients, status.connections.outbound
    )?;
    let lanes = &status.lanes;
    let all_blocked = match lanes.pools_blocked {
        0 => String::new(),
        sites => format!("; ALL SOURCES OF A POOL ARE BLOCKED at {}", count(sites, "site")),
    };
    writeln!(
        out,
        "lanes        {}: {} blocked, {} suspended, {} slowed{all_blocked}",
        lanes.known, lanes.blocked, lanes.suspended, lanes.slowed
    )?;
    let error = status.events.last_error.as_deref().map(|error| format!("; LAST WRITE FAILED: {}", safe(error)));
    writeln!(
        out,
        "events       last id {}, {} not yet written{}",
        status.events.last_id,
        status.events.pending,
        error.unwrap_or_default()
    )?;
    if status.sites.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    print_sites(&status.sites, now, out)
}

fn print_sites(sites: &[SiteStatus], now: Timestamp, out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new([
        ("SITE", Align::Left),
        ("READY", Align::Right),
        ("CONNS", Align::Right),
        ("MODE", Align::Left),
        ("NEXT PROBE", Align::Left),
        ("REASON", Align::Left),
    ]);
    for site in sites {
        table.row([
            site.site.clone(),
            format!("{}{}", site.ready, if site.more_on_disk { "+" } else { "" }),
            site.connections.to_string(),
            site.mode.clone(),
            site.next_probe.map(|time| due(time, now)).unwrap_or_default(),
            site.reason.clone().unwrap_or_default(),
        ]);
    }
    table.print(out)
}

/// `in 3m12s`, or `now`.
pub(super) fn due(time: Timestamp, now: Timestamp) -> String {
    if time <= now { "now".to_owned() } else { format!("in {}", age(time.since(now))) }
}
