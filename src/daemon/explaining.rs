//! Explains for the admin API: the router's answer for a domain, joined with what the scheduler knows of its site.

use super::admin::AdminError;
use super::admin::explain::{
    ExplainQuery, Explanation, HostDetail, LimitDetail, NumberDetail, QueueDetail, RateDetail, RouteDetail, SiteDetail,
    SourceDetail,
};
use crate::delivery::dispatch::{Dispatcher, destination_of};
use crate::delivery::route::{NO_SUCH_DOMAIN_RULE, Route, RouteKind, RouteOutcome};
use crate::delivery::shared::Reloadable;
use crate::policy::lane::Usage;
use crate::policy::limits::{LaneLimits, Span};
use crate::policy::providers::Overrides;
use crate::policy::warmup::WarmupReport;
use crate::scheduler::SiteName;
use crate::scheduler::explanation::{Lookup, Question, QueueReport, SiteExplanation, SourceReport};
use crate::types::{Domain, Priority};

/// Answers one question. A site by that name comes before a domain, but for addresses.
pub(super) async fn explain(
    query: ExplainQuery,
    dispatcher: &Dispatcher,
    reloadable: &Reloadable,
) -> Result<Explanation, AdminError> {
    let ended = |error: crate::delivery::dispatch::Ended| AdminError::Unavailable(error.to_string());
    if reloadable.settings.pools.pool(query.pool.as_str()).is_none() {
        let names: Vec<&str> = reloadable.settings.pools.pools().map(|pool| pool.name.as_str()).collect();
        let text = format!("there is no pool {}; there are {}", query.pool, names.join(", "));
        return Err(AdminError::NotFound(text));
    }
    let question =
        |domain: Option<Domain>, destination, site| Question { domain, destination, site, pool: query.pool.clone() };
    // The name of a site of one host looks like a domain.
    let named = if query.is_address {
        None
    } else {
        let site = question(None, None, Some(SiteName::new(&query.target)));
        dispatcher.explain(site).await.map_err(ended)?
    };
    let of_site = |found| Explanation {
        target: query.target.clone(),
        lookup: "known".to_owned(),
        site: Some(site_detail(found)),
        ..Explanation::default()
    };
    let domain = query.domain.clone();
    let (domain, named) = match (domain, named) {
        (Some(domain), named) if named.is_none() || domain.as_str().contains('.') => (domain, named),
        (_, Some(named)) => return Ok(of_site(named)),
        (_, None) => {
            let target = &query.target;
            return Err(AdminError::NotFound(format!("{target:?} is no domain, and no site of that name is known")));
        }
    };
    let outcome = reloadable.router.route(&domain).await;
    let destination = match &outcome {
        RouteOutcome::Route(route) => Some(destination_of(&reloadable.providers, &domain, route)),
        _ => None,
    };
    let found = dispatcher.explain(question(Some(domain.clone()), destination, None)).await.map_err(ended)?;
    let is_unknown = found.as_ref().is_none_or(|found| found.lookup == Lookup::Unknown);
    if let Some(named) = named.filter(|_| is_unknown) {
        return Ok(of_site(named));
    }
    let (lookup, waiting) = match found.as_ref().map(|found| found.lookup) {
        None | Some(Lookup::Unknown) => ("unknown", 0),
        Some(Lookup::UnderWay(jobs)) => ("under_way", jobs),
        Some(Lookup::Known(_)) => ("known", 0),
    };
    Ok(Explanation {
        target: query.target.clone(),
        domain: Some(domain.to_string()),
        route: Some(route_detail(outcome)),
        lookup: lookup.to_owned(),
        waiting_for_lookup: waiting as u64,
        site: found.map(site_detail),
    })
}

fn route_detail(outcome: RouteOutcome) -> RouteDetail {
    let none = |text: String, rule: &str| RouteDetail {
        kind: "none".to_owned(),
        problem: Some(text),
        rule: Some(rule.to_owned()),
        ..RouteDetail::default()
    };
    match outcome {
        RouteOutcome::Route(route) => hosts(&route),
        RouteOutcome::Permanent { text, rule, .. } | RouteOutcome::Temporary { text, rule, .. } => none(text, rule),
        RouteOutcome::NoSuchDomain { text } => none(text, NO_SUCH_DOMAIN_RULE),
    }
}

fn hosts(route: &Route) -> RouteDetail {
    let kind = match route.kind {
        RouteKind::Mx => "mx",
        RouteKind::ImplicitMx => "implicit_mx",
        RouteKind::SmartHost => "smart_host",
        RouteKind::Simulator => "simulator",
    };
    let mut hosts: Vec<HostDetail> =
        route.hops.iter().map(|hop| HostDetail { preference: hop.preference, host: hop.host.to_string() }).collect();
    hosts.sort_by(|a, b| (a.preference, &a.host).cmp(&(b.preference, &b.host)));
    RouteDetail { kind: kind.to_owned(), hosts, port: route.port, problem: None, rule: None }
}

fn site_detail(found: SiteExplanation) -> SiteDetail {
    let own = found.provider.as_ref().map(|provider| provider.limits).unwrap_or_default();
    SiteDetail {
        site: found.site.to_string(),
        limits: limits(&found.limits, &own),
        provider: found.provider.as_ref().map(|provider| provider.name.to_string()),
        provider_from: found.provider.map(|provider| provider.origin).filter(|origin| !origin.is_empty()),
        down_until: found.down_until,
        reason: found.reason,
        proven: found.proven,
        connections: found.connections as u64,
        connections_max: found.connections_max,
        queues: found.queues.into_iter().map(queue).collect(),
        pool: found.pool.to_string(),
        sources: found.sources.into_iter().map(source).collect(),
    }
}

/// The limits that there are, each with whose it is.
fn limits(limits: &LaneLimits, own: &Overrides) -> Vec<LimitDetail> {
    let limit = |name: &str, value: Option<u32>, own: Option<u32>| {
        let from = if own.is_some() { "provider" } else { "config" };
        Some(LimitDetail { name: name.to_owned(), value: value?, from: from.to_owned() })
    };
    let fixed = [
        limit("connections", Some(limits.connections), own.connections),
        limit("connections_total", limits.connections_total, own.connections_total),
        limit("messages_per_connection", Some(limits.messages_per_connection), own.messages_per_connection),
    ];
    let rate = |span: Span| limit(&format!("per_{}", span.name()), limits.rates.by(span), own.rates.by(span));
    fixed.into_iter().flatten().chain(Span::ALL.into_iter().filter_map(rate)).collect()
}

fn queue(report: QueueReport) -> QueueDetail {
    let ready = |wanted: Priority| {
        report.ready.iter().filter(|(priority, _)| *priority == wanted).map(|(_, jobs)| *jobs as u64).sum()
    };
    let number = |name: String, jobs: usize| NumberDetail { name, deliveries: jobs as u64 };
    QueueDetail {
        high: ready(Priority::High),
        normal: ready(Priority::Normal),
        bulk: ready(Priority::Bulk),
        pool: report.pool.to_string(),
        set: report.set.as_deref().map(str::to_owned),
        more_on_disk: report.more_on_disk,
        tenants: report.tenants.into_iter().map(|(tenant, jobs)| number(tenant.into(), jobs)).collect(),
        kept: report.kept.into_iter().map(|(source, jobs)| number(source.to_string(), jobs)).collect(),
        blocked: report.blocked,
    }
}

fn source(report: SourceReport) -> SourceDetail {
    let (rule, reply) = report.standing.because();
    let trouble = report.trouble.as_ref();
    let words = trouble.map(|trouble| trouble.words.to_string());
    SourceDetail {
        source: report.source.to_string(),
        tier: report.tier,
        weight: report.weight,
        next: report.next,
        state: report.standing.name().to_owned(),
        text: report.standing.text(&report.source),
        until: report.standing.until(),
        rule: rule.map(str::to_owned),
        reply: reply.map(str::to_owned),
        in_memory: report.in_memory,
        connections: report.connections,
        idle: report.idle as u64,
        window: report.window,
        messages_per_connection: report.messages_per_connection,
        mode: trouble.map(|trouble| trouble.mode.name().to_owned()),
        mode_until: trouble.and_then(|trouble| trouble.until),
        mode_rule: trouble.and_then(|trouble| trouble.rule.as_deref()).map(str::to_owned),
        mode_reply: words.filter(|words| !words.is_empty()),
        warmup: report.warmup.as_ref().map(warmup),
        rates: report.rates.iter().map(rate).collect(),
        source_rates: report.source_rates.iter().map(rate).collect(),
    }
}

fn warmup(report: &WarmupReport) -> String {
    let WarmupReport { plan, position, len, used, mode, .. } = report;
    match report.cap {
        Some(cap) => format!("{}, day {position} of {len} of plan {plan}, {used} of {cap} messages today", mode.name()),
        None => format!("plan {plan} is over: no limit"),
    }
}

fn rate(usage: &Usage) -> RateDetail {
    let (limit, per) = (usage.limit.count, usage.limit.per.name().to_owned());
    RateDetail { limit, per, used: usage.used, by_reply: usage.by_reply }
}
