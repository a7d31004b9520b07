//! `posthaste explain`: how mail goes to a domain or site: hosts, rule, limits, sources, and what holds each back.

use std::io::{self, Write};

use super::Failure;
use super::client::{Client, SocketArgs, query_string};
use super::format::{count, safe};
use super::status::{due, print_json};
use super::table::{Align, Table};
use crate::daemon::admin::explain::{
    Explanation, LimitDetail, NumberDetail, QueueDetail, RateDetail, RouteDetail, SiteDetail, SourceDetail,
};
use crate::types::{Clock, SystemClock, Timestamp};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    socket: SocketArgs,
    /// An address, a domain, or the name of a site as `posthaste status` shows it.
    #[arg(value_name = "ADDRESS|DOMAIN|SITE")]
    target: String,
    /// Whose sources to show.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pool: String,
}

pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let query = query_string(&[("target", Some(args.target.clone())), ("pool", Some(args.pool.clone()))]);
    let explanation: Explanation = Client::locate(&args.socket)?.get(&format!("/v1/explain{query}"))?;
    if args.socket.json {
        return Ok(print_json(&explanation, out)?);
    }
    Ok(print(&explanation, SystemClock.now(), out)?)
}

fn print(explanation: &Explanation, now: Timestamp, out: &mut dyn Write) -> io::Result<()> {
    if let Some(domain) = &explanation.domain {
        let known = match explanation.lookup.as_str() {
            "under_way" => {
                format!("; being looked up, {} wait for it", count(explanation.waiting_for_lookup, "delivery"))
            }
            "unknown" => "; no mail for it was due lately".to_owned(),
            _ => String::new(),
        };
        writeln!(out, "domain    {}{known}", safe(domain))?;
    }
    if let Some(route) = &explanation.route {
        print_route(route, out)?;
    }
    explanation.site.as_ref().map_or(Ok(()), |site| print_site(site, now, out))
}

fn print_route(route: &RouteDetail, out: &mut dyn Write) -> io::Result<()> {
    if let Some(problem) = &route.problem {
        let rule = route.rule.as_deref().map(|rule| format!(" (rule {})", safe(rule)));
        return writeln!(out, "route     NONE: {}{}", safe(problem), rule.unwrap_or_default());
    }
    let kind = match route.kind.as_str() {
        "mx" => "MX records",
        "implicit_mx" => "the domain itself, as it has no MX record",
        "smart_host" => "a route of the config",
        "simulator" => "the mailbox simulator of this daemon",
        other => other,
    };
    writeln!(out, "route     {}, port {}", safe(kind), route.port)?;
    route.hosts.iter().try_for_each(|host| writeln!(out, "  {:>5}   {}", host.preference, safe(&host.host)))
}

fn print_site(site: &SiteDetail, now: Timestamp, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "site      {}", safe(&site.site))?;
    let from = site.provider_from.as_deref().map(|from| format!(" ({})", safe(from)));
    let provider = site.provider.as_deref().map(|name| format!("{}{}", safe(name), from.unwrap_or_default()));
    writeln!(out, "provider  {}", provider.unwrap_or_else(|| "of no provider's rule".to_owned()))?;
    let limits: Vec<String> = site.limits.iter().map(limit).collect();
    writeln!(out, "limits    {}", limits.join("; "))?;
    let reason = site.reason.as_deref().map(|reason| format!(": {}", safe(reason))).unwrap_or_default();
    let reach = match site.down_until {
        Some(until) => format!("DOWN until {until} ({}){reason}", due(until, now)),
        None if site.proven => format!("it takes mail{reason}"),
        None => format!("no mail went there yet, or not since it failed{reason}"),
    };
    writeln!(out, "reach     {reach}")?;
    let most = site.connections_max.map(|most| format!(" of {most} that all sources may have together"));
    writeln!(out, "open      {}{}", count(site.connections, "connection"), most.unwrap_or_default())?;
    if site.queues.is_empty() {
        writeln!(out, "waiting   nothing")?;
    }
    site.queues.iter().try_for_each(|queue| print_queue(queue, out))?;
    writeln!(out, "\nsources of pool {}", safe(&site.pool))?;
    print_sources(&site.sources, out)?;
    site.sources.iter().try_for_each(|source| print_source(source, out))
}

/// `5 connections (provider)`.
fn limit(limit: &LimitDetail) -> String {
    let LimitDetail { name, value, from } = limit;
    let what = match (name.as_str(), name.strip_prefix("per_")) {
        ("connections", _) => format!("{value} connections a source"),
        ("connections_total", _) => format!("{value} connections in all"),
        ("messages_per_connection", _) => format!("{value} messages a connection"),
        (_, Some(span)) => format!("{value} messages a {}", safe(span)),
        (other, None) => format!("{}: {value}", safe(other)),
    };
    format!("{what} ({})", safe(from))
}

fn print_queue(queue: &QueueDetail, out: &mut dyn Write) -> io::Result<()> {
    let QueueDetail { high, normal, bulk, .. } = queue;
    let more = if queue.more_on_disk { ", more on disk" } else { "" };
    let blocked = if queue.blocked { "; ALL ITS SOURCES ARE BLOCKED" } else { "" };
    let set = queue.set.as_deref().map(|set| format!(", set {}", safe(set))).unwrap_or_default();
    let pool = safe(&queue.pool);
    writeln!(out, "waiting   pool {pool}{set}: {high} high, {normal} normal, {bulk} bulk{more}{blocked}")?;
    let list = |numbers: &[NumberDetail], none: &str| {
        let name = |name: &str| if name.is_empty() { none.to_owned() } else { safe(name) };
        let texts: Vec<String> = numbers.iter().map(|one| format!("{} {}", name(&one.name), one.deliveries)).collect();
        texts.join(", ")
    };
    if !queue.tenants.is_empty() {
        writeln!(out, "          most of it of: {}", list(&queue.tenants, "no tenant"))?;
    }
    if !queue.kept.is_empty() {
        writeln!(out, "          keep their source: {}", list(&queue.kept, "?"))?;
    }
    Ok(())
}

fn print_sources(sources: &[SourceDetail], out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new([
        ("", Align::Left),
        ("SOURCE", Align::Left),
        ("WEIGHT", Align::Right),
        ("CONNS", Align::Right),
        ("MAY", Align::Right),
        ("MSGS EACH", Align::Right),
        ("RATES", Align::Left),
        ("STATE", Align::Left),
    ]);
    for source in sources {
        let tier = if source.tier == 0 { String::new() } else { format!(" (overflow {})", source.tier) };
        table.row([
            if source.next { "next" } else { "" }.to_owned(),
            format!("{}{tier}", source.source),
            source.weight.to_string(),
            source.connections.to_string(),
            source.window.to_string(),
            source.messages_per_connection.to_string(),
            source.rates.iter().chain(&source.source_rates).map(rate).collect::<Vec<_>>().join(", "),
            source.state.clone(),
        ]);
    }
    table.print(out)
}

/// `3 of 10/minute`.
fn rate(rate: &RateDetail) -> String {
    let by_reply = if rate.by_reply { " (by a reply)" } else { "" };
    format!("{} of {}/{}{by_reply}", rate.used, rate.limit, rate.per)
}

/// Why it is not next, and what was learned of it.
fn print_source(source: &SourceDetail, out: &mut dyn Write) -> io::Result<()> {
    let name = safe(&source.source);
    match (source.next, source.state.as_str()) {
        (true, _) => writeln!(out, "{name}: takes the next message: {}", safe(&source.text))?,
        (false, "free") => writeln!(out, "{name}: others come first: {}", safe(&source.text))?,
        (false, _) => writeln!(out, "{name}: {}", safe(&source.text))?,
    }
    if let Some(warmup) = &source.warmup {
        writeln!(out, "{name}: warm-up: {}", safe(warmup))?;
    }
    let Some(mode) = source.mode.as_deref().filter(|mode| *mode != source.state) else { return Ok(()) };
    let until = source.mode_until.map(|until| format!(" until {until}")).unwrap_or_default();
    let rule = source.mode_rule.as_deref().map(|rule| format!(" by rule {}", safe(rule))).unwrap_or_default();
    let reply = source.mode_reply.as_deref().map(|reply| format!(" ({})", safe(reply))).unwrap_or_default();
    writeln!(out, "{name}: {}{until}{rule}{reply}", safe(mode))
}
