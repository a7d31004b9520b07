//! `posthaste warmup`: what sources and configuration sets that warm up may send, did send, and will.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::Failure;
use super::client::{Client, SocketArgs, query_string};
use super::format::{count, join, safe};
use super::status::{due, print_json};
use super::table::{Align, Table};
use crate::daemon::admin::warmup::{
    DAYS_MAX, HistoryPage, OrderBody, OrderReport, ROWS_MAX, SourceRow, WarmupPage, WarmupRow,
};
use crate::daemon::config::{Config, DEFAULT_PATH};
use crate::policy::warmup::{Advance, Expected, Plan, Row, calendar};
use crate::types::{Clock, SystemClock, Timestamp};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    socket: SocketArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print the days ahead of a plan, for a volume that is expected. Asks no daemon.
    Plan(PlanArgs),
    /// Show what each source and configuration set may send today at each site, and why not more.
    Status(StatusArgs),
    /// Hold the position in the plan: the cap stays as it is.
    Pause(WhoArgs),
    /// Go on; ends a freeze and slowness at once, too.
    Resume(WhoArgs),
    /// Set the day, or stage, of the plan; one beyond the last ends the warm-up.
    SetDay(SetDayArgs),
    /// Count complaints that came by another way, such as the web page of a provider.
    Complaints(ComplaintsArgs),
    /// Show what was sent on the days before, by source and site.
    History(HistoryArgs),
}

#[derive(Debug, clap::Args)]
struct PlanArgs {
    /// Name of the plan; without it the plans are listed.
    #[arg(value_name = "PLAN")]
    plan: Option<String>,
    /// Messages a day that are expected at one provider, from all sources together; without it more than any cap.
    #[arg(long, value_name = "N")]
    volume: Option<u64>,
    /// Sources that warm up side by side.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    sources: u32,
    /// The day or stage of today.
    #[arg(long, value_name = "DAY", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    day: u32,
}

/// Whose warm-up.
#[derive(Clone, Debug, clap::Args)]
struct WhoArgs {
    /// Name of the source, or of the configuration set with --set.
    #[arg(value_name = "NAME")]
    name: String,
    /// The name is that of a configuration set.
    #[arg(long)]
    set: bool,
    /// Only at this site, or at the sites of this provider; without it at all.
    #[arg(long, value_name = "SITE|PROVIDER")]
    site: Option<String>,
}

#[derive(Debug, clap::Args)]
struct StatusArgs {
    /// Only this source.
    #[arg(long, value_name = "NAME", conflicts_with = "set")]
    source: Option<String>,
    /// Only this configuration set.
    #[arg(long, value_name = "NAME")]
    set: Option<String>,
    /// Only this site, or the sites of this provider.
    #[arg(long, value_name = "SITE|PROVIDER")]
    site: Option<String>,
    /// Show at most this many.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

#[derive(Debug, clap::Args)]
struct SetDayArgs {
    #[command(flatten)]
    who: WhoArgs,
    /// From 1 on.
    #[arg(value_name = "DAY", value_parser = clap::value_parser!(u32).range(1..))]
    day: u32,
}

#[derive(Debug, clap::Args)]
struct ComplaintsArgs {
    #[command(flatten)]
    who: WhoArgs,
    /// How many.
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
}

#[derive(Debug, clap::Args)]
struct HistoryArgs {
    /// Only this source.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only this site, or the sites of this provider.
    #[arg(long, value_name = "SITE|PROVIDER")]
    site: Option<String>,
    /// So many UTC days, today included; 400 are kept.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=i64::from(DAYS_MAX)))]
    days: u32,
}

pub(super) fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failure> {
    let json = args.socket.json;
    match &args.command {
        Command::Plan(plan) => print_plan(plan, &args.socket, out),
        Command::Status(status) => {
            let query = query_string(&[
                ("source", status.source.clone()),
                ("set", status.set.clone()),
                ("site", status.site.clone()),
                ("limit", Some(status.limit.to_string())),
            ]);
            let page: WarmupPage = Client::locate(&args.socket)?.get(&format!("/v1/warmup{query}"))?;
            if json { Ok(print_json(&page, out)?) } else { Ok(print_status(&page, SystemClock.now(), out)?) }
        }
        Command::Pause(who) => order("pause", who, |_| {}, args, out),
        Command::Resume(who) => order("resume", who, |_| {}, args, out),
        Command::SetDay(set) => order("set-day", &set.who, |body| body.day = Some(set.day), args, out),
        Command::Complaints(told) => order("complaints", &told.who, |body| body.count = Some(told.count), args, out),
        Command::History(history) => {
            let query = query_string(&[
                ("source", history.source.clone()),
                ("site", history.site.clone()),
                ("days", Some(history.days.to_string())),
                ("limit", Some(ROWS_MAX.to_string())),
            ]);
            let page: HistoryPage = Client::locate(&args.socket)?.get(&format!("/v1/warmup/history{query}"))?;
            if page.more {
                writeln!(
                    err,
                    "there are more than {ROWS_MAX} rows, and the oldest are left out: ask for one source or one site"
                )?;
            }
            if json { Ok(print_json(&page, out)?) } else { Ok(print_history(&page, out)?) }
        }
    }
}

fn order(
    action: &str,
    who: &WhoArgs,
    fill: impl FnOnce(&mut OrderBody),
    args: &Args,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let name = |wanted: bool| (who.set == wanted).then(|| who.name.clone());
    let mut body = OrderBody { source: name(false), set: name(true), site: who.site.clone(), ..OrderBody::default() };
    fill(&mut body);
    let report: OrderReport = Client::locate(&args.socket)?.post(&format!("/v1/warmup/{action}"), &body)?;
    if args.socket.json {
        return Ok(print_json(&report, out)?);
    }
    writeln!(out, "{action}: {} of {}", count(report.changed, "warm-up"), safe(&who.name))?;
    Ok(())
}

/// The plans of the config, or those that are built in where there is none.
fn plans(socket: &SocketArgs) -> Result<Vec<std::sync::Arc<Plan>>, Failure> {
    let path: PathBuf = socket.config_path().to_owned();
    if path == Path::new(DEFAULT_PATH) && !path.exists() {
        return Ok(Plan::built_in().into_iter().map(std::sync::Arc::new).collect());
    }
    Config::load_plans(&path).map_err(|errors| Failure::Failed(errors.to_string()))
}

fn print_plan(args: &PlanArgs, socket: &SocketArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let plans = plans(socket)?;
    let Some(name) = &args.plan else {
        let mut table = Table::new([
            ("PLAN", Align::Left),
            ("DAYS", Align::Right),
            ("NEXT DAY", Align::Left),
            ("STEPS", Align::Left),
        ]);
        for plan in &plans {
            table.row([plan.name().to_string(), plan.len().to_string(), advance(plan), plan.steps().to_string()]);
        }
        return Ok(table.print(out)?);
    };
    let Some(plan) = plans.iter().find(|plan| **plan.name() == **name) else {
        let names: Vec<&str> = plans.iter().map(|plan| &**plan.name()).collect();
        return Err(Failure::Usage(format!("there is no plan {name:?}; there are {}", join(&names, "none"))));
    };
    let now = SystemClock.now();
    let volume_per_day = args.volume.unwrap_or(u64::from(u32::MAX) * u64::from(args.sources));
    let rows = calendar(plan, &Expected { volume_per_day, sources: args.sources, position: args.day, first_day: now });
    if socket.json {
        let rows: Vec<_> = rows.iter().map(|row| row_json(row, args.volume.is_some())).collect();
        return Ok(print_json(&rows, out)?);
    }
    print_rows(&rows, plan, args, out)
}

fn advance(plan: &Plan) -> String {
    match plan.advance() {
        Advance::Daily => "each day".to_owned(),
        Advance::Delivered { percent } => format!("{percent} % delivered"),
    }
}

fn day_text(at: Timestamp) -> String {
    at.to_string().split('T').next().unwrap_or_default().to_owned()
}

fn row_json(row: &Row, has_volume: bool) -> serde_json::Value {
    serde_json::json!({
        "date": day_text(row.date),
        "day": row.position,
        "cap": row.cap,
        "sent": has_volume.then_some(row.sent),
        "overflow": has_volume.then_some(row.overflow),
    })
}

fn print_rows(rows: &[Row], plan: &Plan, args: &PlanArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let mut table = Table::new([
        ("DATE (UTC)", Align::Left),
        ("DAY", Align::Right),
        ("MAY SEND", Align::Right),
        ("EXPECTED", Align::Right),
        ("OVERFLOW", Align::Right),
    ]);
    for row in rows {
        let expected = |number: u64| args.volume.map(|_| number.to_string()).unwrap_or_default();
        table.row([
            day_text(row.date),
            if row.cap.is_some() { row.position.to_string() } else { "over".to_owned() },
            row.cap.map_or_else(|| "no limit".to_owned(), |cap| cap.to_string()),
            expected(row.sent),
            expected(row.overflow),
        ]);
    }
    table.print(out)?;
    if let Some(last) = rows.last().filter(|last| last.cap.is_some() && !last.advances) {
        let needs = advance(plan);
        writeln!(out, "it stays at day {}: the next one needs {needs} of what may be sent", last.position)?;
    }
    Ok(())
}

fn print_status(page: &WarmupPage, now: Timestamp, out: &mut dyn Write) -> io::Result<()> {
    if page.warmups.is_empty() {
        writeln!(out, "nothing warms up, or no mail went out yet that does")?;
    } else {
        print_warmups(&page.warmups, now, out)?;
    }
    if page.more > 0 {
        writeln!(out, "and {} more; ask for one source or site, or with --limit", page.more)?;
    }
    if !page.sources.is_empty() {
        writeln!(out)?;
        print_sources(&page.sources, now, out)?;
    }
    Ok(())
}

fn print_warmups(rows: &[WarmupRow], now: Timestamp, out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new([
        ("SOURCE", Align::Left),
        ("SITE", Align::Left),
        ("PLAN", Align::Left),
        ("DAY", Align::Right),
        ("MODE", Align::Left),
        ("TODAY", Align::Right),
        ("MAY SEND", Align::Right),
        ("NEXT", Align::Left),
        ("WHY", Align::Left),
    ]);
    for row in rows {
        let who = row.source.clone().or_else(|| row.set.as_ref().map(|set| format!("set {set}")));
        let until = row.until.map(|until| format!("until {until}: ")).unwrap_or_default();
        table.row([
            who.unwrap_or_default(),
            row.site.clone(),
            row.plan.clone(),
            format!("{}/{}", row.day, row.days),
            row.mode.clone(),
            row.used.to_string(),
            row.cap.map_or_else(|| "no limit".to_owned(), |cap| cap.to_string()),
            row.next_at.map(|at| due(at, now)).unwrap_or_default(),
            row.reason.as_ref().map(|reason| format!("{until}{reason}")).unwrap_or_default(),
        ]);
    }
    table.print(out)
}

fn print_sources(rows: &[SourceRow], now: Timestamp, out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new([
        ("SOURCE", Align::Left),
        ("LIFE", Align::Left),
        ("MANAGED BY", Align::Left),
        ("SINCE", Align::Left),
    ]);
    for row in rows {
        let since = row.since.map(|since| format!("{} ago", super::format::age(now.since(since)))).unwrap_or_default();
        table.row([row.source.clone(), row.life.clone(), join(&row.managed_by, ""), since]);
    }
    table.print(out)
}

fn print_history(page: &HistoryPage, out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new([
        ("DAY (UTC)", Align::Left),
        ("SOURCE", Align::Left),
        ("SITE", Align::Left),
        ("SENT", Align::Right),
        ("DELIVERED", Align::Right),
        ("DEFERRED", Align::Right),
        ("BOUNCED", Align::Right),
        ("COMPLAINED", Align::Right),
        ("BLOCKED", Align::Right),
        ("MAY SEND", Align::Right),
        ("PLAN DAY", Align::Right),
    ]);
    for row in &page.rows {
        let site = if row.site.is_empty() { "(small sites)".to_owned() } else { row.site.clone() };
        table.row([
            row.day.clone(),
            row.source.clone(),
            site,
            row.sent.to_string(),
            row.delivered.to_string(),
            row.deferred.to_string(),
            row.bounced.to_string(),
            row.complained.to_string(),
            row.blocked.to_string(),
            row.cap.map(|cap| cap.to_string()).unwrap_or_default(),
            row.plan_day.map(|day| day.to_string()).unwrap_or_default(),
        ]);
    }
    table.print(out)
}
