//! Why mail waits, as plain data and in words: what the scheduler tells of a domain, a site and a job (design.md, promise 7).
//!
//! `Scheduler::explain` and `Scheduler::locate` make these; nothing here looks at a clock or changes anything.

use std::fmt;
use std::sync::Arc;

use super::{Destination, SiteName};
use crate::policy::lane::{Mode, Trouble, Usage};
use crate::policy::limits::{LaneLimits, RateLimit};
use crate::policy::providers::Overrides;
use crate::policy::warmup::WarmupReport;
use crate::scheduler::warmup::SourceStanding;
use crate::types::{Domain, PoolName, Priority, SourceName, Timestamp};

/// Whether a source takes the next job of a pool at a site, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It can; `idle`: on a connection that is open.
    Free {
        /// It needs no new connection.
        idle: bool,
    },
    /// All connections that it may have there are at work.
    Busy {
        /// Those that it has.
        open: u32,
        /// Those that it may have now.
        allowed: u32,
    },
    /// All connections that all sources together may have there are at work.
    SiteBusy {
        /// Those that they have.
        open: usize,
        /// Those that they may have now.
        allowed: u32,
    },
    /// Replies or failures hold it back there.
    Closed {
        /// When it is tried again; `None`: when what is under way has ended.
        until: Option<Timestamp>,
        /// How, by which rule, for which reply.
        trouble: Option<Trouble>,
    },
    /// A limit on messages in a time is used up.
    Rate {
        /// The limit.
        limit: RateLimit,
        /// Whose it is.
        of: RateOf,
        /// When there is room; `None`: when what is under way has ended.
        until: Option<Timestamp>,
    },
    /// What it may send under a limit by hour or day is being written to disk.
    Saving,
    /// A warm-up has no room: the source's there, or that of the job's configuration set.
    WarmUp {
        /// When there is room.
        until: Option<Timestamp>,
        /// The configuration set, if it is the one that warms up.
        set: Option<Box<str>>,
        /// How the warm-up stands.
        report: Option<Box<WarmupReport>>,
    },
    /// One message is under way that decides whether its block there is over.
    Probing,
    /// The hosts have no address of its family.
    NoAddress,
}

/// Whose limit on messages in a time it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateOf {
    /// Of a provider's rule.
    Provider(Arc<str>),
    /// Of the config, for sites of no provider's rule.
    Config,
    /// Of a reply, or of the ramp after it: the rule, and the reply.
    Reply(Option<Arc<str>>, Box<str>),
    /// Of the source, to all sites together.
    Source,
    /// Of the pool, to all sites together.
    Pool(PoolName),
}

impl Standing {
    /// Whether it could take a job.
    pub const fn is_free(&self) -> bool {
        matches!(self, Standing::Free { .. })
    }

    /// Whether only the end of something that is under way is waited for.
    pub const fn is_busy(&self) -> bool {
        matches!(self, Standing::Busy { .. } | Standing::SiteBusy { .. })
    }

    /// When that changes by time alone.
    pub const fn until(&self) -> Option<Timestamp> {
        match self {
            Standing::Closed { until, .. } | Standing::Rate { until, .. } | Standing::WarmUp { until, .. } => *until,
            _ => None,
        }
    }

    /// The rule, and the reply or failure, that it comes from.
    pub fn because(&self) -> (Option<&str>, Option<&str>) {
        let (rule, words) = match self {
            Standing::Closed { trouble: Some(trouble), .. } => (trouble.rule.as_deref(), &*trouble.words),
            Standing::Rate { of: RateOf::Reply(rule, words), .. } => (rule.as_deref(), &**words),
            _ => return (None, None),
        };
        (rule, Some(words).filter(|words| !words.is_empty()))
    }

    /// In one word, for programs.
    pub const fn name(&self) -> &'static str {
        match self {
            Standing::Free { .. } => "free",
            Standing::Busy { .. } | Standing::SiteBusy { .. } => "busy",
            Standing::Closed { trouble: Some(trouble), .. } => trouble.mode.name(),
            Standing::Closed { trouble: None, .. } => "closed",
            Standing::Rate { .. } => "rate-limited",
            Standing::WarmUp { .. } => "warming",
            Standing::Saving => "saving",
            Standing::Probing => "probing",
            Standing::NoAddress => "no-address",
        }
    }

    /// In words; `source` is whose standing it is.
    pub fn text(&self, source: &SourceName) -> String {
        let until = end(self.until());
        match self {
            Standing::Free { idle: true } => format!("source {source} has an idle connection"),
            Standing::Free { idle: false } => format!("source {source} may open a connection"),
            Standing::Busy { open, allowed } => {
                format!("all connections that source {source} may have there are busy ({open} of {allowed})")
            }
            Standing::SiteBusy { open, allowed } => {
                format!("all connections that all sources together may have there are busy ({open} of {allowed})")
            }
            Standing::Closed { trouble, .. } => closed(source, trouble.as_ref(), &until),
            Standing::Rate { limit, of, .. } => {
                let RateLimit { count, per } = limit;
                let of = match of {
                    RateOf::Provider(provider) => format!("of provider {provider} for source {source}"),
                    RateOf::Config => format!("of the config for source {source} there"),
                    RateOf::Reply(rule, words) => format!("for source {source} there{}", cited(rule.as_deref(), words)),
                    RateOf::Source => format!("of source {source} as a whole"),
                    RateOf::Pool(pool) => format!("of pool {pool} as a whole"),
                };
                format!("rate limit of {count} a {} {of}{until}", per.name())
            }
            Standing::WarmUp { set, report, .. } => warming(source, set.as_deref(), report.as_deref(), &until),
            Standing::Saving => format!("a note on disk of what source {source} may send"),
            Standing::Probing => {
                format!("source {source} was blocked there: one message is under way that decides whether it still is")
            }
            Standing::NoAddress => format!("the hosts have no address that source {source} can reach"),
        }
    }
}

fn warming(source: &SourceName, set: Option<&str>, report: Option<&WarmupReport>, until: &str) -> String {
    let who = set.map_or_else(|| format!("source {source}"), |set| format!("configuration set {set}"));
    let Some(report) = report else { return format!("{who} warms up there, and has no room{until}") };
    let WarmupReport { plan, position, len, used, .. } = report;
    let cap = report.cap.map_or_else(String::new, |cap| format!("{used} of {cap} messages of today, "));
    let why = report.reason.as_deref().map_or_else(String::new, |reason| format!(": {reason}"));
    format!(
        "the warm-up of {who} there is {} ({cap}day {position} of {len} of plan {plan}){until}{why}",
        report.mode.name()
    )
}

fn closed(source: &SourceName, trouble: Option<&Trouble>, until: &str) -> String {
    let Some(trouble) = trouble else { return format!("source {source} is held back there{until}") };
    let cited = cited(trouble.rule.as_deref(), &trouble.words);
    match trouble.mode {
        Mode::Unreachable => format!("source {source} cannot reach it, and waits{until}{cited}"),
        mode => format!("source {source} is {} there{until}{cited}", mode.name()),
    }
}

fn end(until: Option<Timestamp>) -> String {
    until.map_or_else(String::new, |until| format!(" until {until}"))
}

/// ` by rule NAME (REPLY)`.
fn cited(rule: Option<&str>, words: &str) -> String {
    let rule = rule.map_or_else(String::new, |rule| format!(" by rule {rule}"));
    if words.is_empty() { rule } else { format!("{rule} ({words})") }
}

/// Why a job waits that could go now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Others are before it.
    Turn,
    /// All connections of the server are in use.
    Connections {
        /// How many it may have; for a site that is not known to work, these sites together.
        max: usize,
        /// The site is not known to work.
        unproven: bool,
    },
    /// One source, the only one or the one that it keeps, does not take it.
    Source {
        /// Which.
        source: SourceName,
        /// The job keeps its source, as a greylisted one does.
        keeps: bool,
        /// Why.
        standing: Standing,
    },
    /// No source of the pool takes anything, for as long as it takes.
    AllClosed {
        /// Which pool.
        pool: PoolName,
        /// How many sources.
        sources: usize,
        /// The one that is back first.
        first: SourceName,
        /// What it waits for.
        standing: Standing,
    },
    /// All connections that limits allow are at work.
    Busy {
        /// Those that are open.
        open: usize,
        /// Those that are allowed now.
        allowed: usize,
    },
    /// The daemon stops.
    Stopping,
}

impl Cause {
    /// When it ends by time alone.
    pub const fn until(&self) -> Option<Timestamp> {
        match self {
            Cause::Source { standing, .. } | Cause::AllClosed { standing, .. } => standing.until(),
            _ => None,
        }
    }

    /// The rule, and the reply or failure, that it comes from.
    pub fn because(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Cause::Source { standing, .. } | Cause::AllClosed { standing, .. } => standing.because(),
            _ => (None, None),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Turn => f.write_str("its turn"),
            Cause::Connections { max, unproven: false } => {
                write!(f, "all {max} connections of the server are in use ([delivery] connections_max)")
            }
            Cause::Connections { max, unproven: true } => {
                write!(f, "all {max} connections for sites that are not known to work are in use")
            }
            Cause::Source { source, keeps: true, standing } => {
                write!(f, "it keeps its source: {}", standing.text(source))
            }
            Cause::Source { source, keeps: false, standing } => f.write_str(&standing.text(source)),
            Cause::AllClosed { pool, sources, first, standing } => {
                let when =
                    standing.until().map_or_else(String::new, |at| format!("; the first is tried again at {at}"));
                write!(f, "all {sources} sources of pool {pool} are held back{when}: {}", standing.text(first))
            }
            Cause::Busy { open, allowed } => {
                write!(f, "all connections that limits allow are busy ({open} of {allowed})")
            }
            Cause::Stopping => f.write_str("the next start: the daemon stops"),
        }
    }
}

/// What stands before a job in its line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// Jobs of its own class: of its tenant and priority.
    pub jobs: usize,
    /// There are more of them.
    pub more: bool,
    /// Jobs of higher priorities.
    pub higher: usize,
}

impl fmt::Display for Before {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Before { jobs, more, higher } = *self;
        match (jobs, more) {
            (0, false) => f.write_str("no job of its tenant and priority is before it")?,
            (1, false) => f.write_str("1 job of its tenant and priority is before it")?,
            _ => {
                let more = if more { "more than " } else { "" };
                write!(f, "{more}{jobs} jobs of its tenant and priority are before it")?;
            }
        }
        if higher > 0 { write!(f, ", and {higher} of higher priority") } else { Ok(()) }
    }
}

/// What is to be explained.
#[derive(Clone, Debug)]
pub struct Question {
    /// A destination domain. `None`: the site that `site` names.
    pub domain: Option<Domain>,
    /// Where its mail would go, as the router says now: for a domain that the scheduler does not know.
    pub destination: Option<Destination>,
    /// A site by its name, where no domain is asked about.
    pub site: Option<SiteName>,
    /// The pool whose sources are to be told of.
    pub pool: PoolName,
}

/// Whether the scheduler knows where mail for a domain goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// No mail for it waits that is due, and none went lately.
    Unknown,
    /// It is being looked up; so many jobs wait for that.
    UnderWay(usize),
    /// It is known until then.
    Known(Timestamp),
}

/// Everything that decides how mail goes to a site.
#[derive(Clone, Debug)]
pub struct SiteExplanation {
    /// Which.
    pub site: SiteName,
    /// Whether the domain that was asked about was looked up.
    pub lookup: Lookup,
    /// The provider whose rule it is under.
    pub provider: Option<ProviderReport>,
    /// The limits in force.
    pub limits: LaneLimits,
    /// Until when it counts as down, by all sources.
    pub down_until: Option<Timestamp>,
    /// Its last trouble, in the words of the last reply or failure.
    pub reason: Option<String>,
    /// Mail went there, and since then it could be reached.
    pub proven: bool,
    /// Open connections.
    pub connections: usize,
    /// Connections that all sources together may have now; `None`: as many as each may.
    pub connections_max: Option<u32>,
    /// What waits there, by pool.
    pub queues: Vec<QueueReport>,
    /// The pool whose sources follow; the default one where the one that was asked for is none.
    pub pool: PoolName,
    /// Its sources, then those of its overflow pools.
    pub sources: Vec<SourceReport>,
}

/// A provider's rule.
#[derive(Clone, Debug)]
pub struct ProviderReport {
    /// Its name.
    pub name: Arc<str>,
    /// Where it was written; empty where it is gone.
    pub origin: String,
    /// What it says of limits.
    pub limits: Overrides,
}

/// What waits at a site for the sources of a pool, as far as it is in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueReport {
    /// The pool.
    pub pool: PoolName,
    /// The configuration set that warms up, if it is the queue of one.
    pub set: Option<Box<str>>,
    /// Jobs that could go now, by priority.
    pub ready: [(Priority, usize); 3],
    /// Tenants with the most of them; empty name: none.
    pub tenants: Vec<(Box<str>, usize)>,
    /// There are more, on disk.
    pub more_on_disk: bool,
    /// Of those that are ready, the ones that wait for the source that they keep.
    pub kept: Vec<(SourceName, usize)>,
    /// All its sources are blocked there.
    pub blocked: bool,
}

/// A source of a pool at a site.
#[derive(Clone, Debug)]
pub struct SourceReport {
    /// Which.
    pub source: SourceName,
    /// 0: of the pool itself; 1: of its overflow pool, and so on.
    pub tier: u8,
    /// Its weight.
    pub weight: u32,
    /// It would take the next job.
    pub next: bool,
    /// Whether it could, or why not.
    pub standing: Standing,
    /// Its lane is in memory; else it is as it would be made.
    pub in_memory: bool,
    /// Open connections.
    pub connections: u32,
    /// Of those, unused.
    pub idle: usize,
    /// Connections that it may have now.
    pub window: u32,
    /// Messages on one connection: the limit, or what was learned.
    pub messages_per_connection: u32,
    /// What holds it back.
    pub trouble: Option<Trouble>,
    /// How its warm-up there stands.
    pub warmup: Option<WarmupReport>,
    /// Limits in a time there, and what is used of them.
    pub rates: Vec<Usage>,
    /// The same of the source as a whole.
    pub source_rates: Vec<Usage>,
}

/// Lanes by what may be a label of a metric: names of the config, never of strangers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneCounts {
    /// By source and provider (`None`: sites of none), in order.
    pub lanes: Vec<LaneCount>,
    /// Sites at which all sources of a pool are blocked, by pool, in order.
    pub pools_blocked: Vec<(PoolName, usize)>,
    /// Ready jobs by priority.
    pub ready: [(Priority, usize); 3],
    /// The sources of the config.
    pub sources: Vec<SourceStanding>,
}

/// Lanes of a source at the sites of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneCount {
    /// The source.
    pub source: SourceName,
    /// The provider.
    pub provider: Option<Arc<str>>,
    /// All of them.
    pub all: usize,
    /// Blocked ones.
    pub blocked: usize,
    /// Suspended by a rule.
    pub suspended: usize,
    /// Those that cannot reach their site.
    pub unreachable: usize,
    /// With a lower rate, or fewer connections, for a reply.
    pub slowed: usize,
    /// Those that warm up: running, slowed, frozen, paused.
    pub warming: [usize; 4],
    /// Messages that these may send on this UTC day, all together.
    pub warmup_cap: u64,
    /// Of those, sent.
    pub warmup_used: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::limits::Span;

    const UNTIL: Timestamp = Timestamp::from_millis(1_683_320_423_000);

    fn source(name: &str) -> SourceName {
        SourceName::parse(name).unwrap()
    }

    fn check(cause: &Cause, expected: &str) {
        assert_eq!(cause.to_string(), expected);
    }

    fn of(standing: Standing) -> Cause {
        Cause::Source { source: source("a1"), keeps: false, standing }
    }

    fn blocked() -> Standing {
        let trouble = Trouble {
            mode: Mode::Blocked,
            until: Some(UNTIL),
            rule: Some("yahoo-block".into()),
            words: "553 5.7.1 [BL21] no".into(),
        };
        Standing::Closed { until: Some(UNTIL), trouble: Some(trouble) }
    }

    #[test]
    fn a_cause_names_the_limit_the_rule_the_reply_and_the_end() {
        let limit = RateLimit { count: 10, per: Span::Minute };
        let rate = |of| Standing::Rate { limit, of, until: Some(UNTIL) };
        let at = "2023-05-05T21:00:23.000Z";
        check(
            &of(rate(RateOf::Provider("google".into()))),
            &format!("rate limit of 10 a minute of provider google for source a1 until {at}"),
        );
        check(
            &of(rate(RateOf::Reply(Some("google-rate".into()), "421 4.7.28 slow".into()))),
            &format!("rate limit of 10 a minute for source a1 there by rule google-rate (421 4.7.28 slow) until {at}"),
        );
        check(&of(rate(RateOf::Source)), &format!("rate limit of 10 a minute of source a1 as a whole until {at}"));
        let pool = PoolName::default();
        check(
            &of(rate(RateOf::Pool(pool.clone()))),
            &format!("rate limit of 10 a minute of pool default as a whole until {at}"),
        );
        check(
            &of(blocked()),
            &format!("source a1 is blocked there until {at} by rule yahoo-block (553 5.7.1 [BL21] no)"),
        );
        assert_eq!(of(blocked()).because(), (Some("yahoo-block"), Some("553 5.7.1 [BL21] no")));
        assert_eq!(of(blocked()).until(), Some(UNTIL));
        let all = Cause::AllClosed { pool, sources: 3, first: source("a2"), standing: blocked() };
        check(
            &all,
            &format!(
                "all 3 sources of pool default are held back; the first is tried again at {at}: \
                 source a2 is blocked there until {at} by rule yahoo-block (553 5.7.1 [BL21] no)"
            ),
        );
        let kept = Cause::Source { source: source("a1"), keeps: true, standing: Standing::Saving };
        check(&kept, "it keeps its source: a note on disk of what source a1 may send");
    }

    #[test]
    fn a_line_says_how_many_are_before() {
        let check = |jobs, more, higher, expected: &str| {
            assert_eq!(Before { jobs, more, higher }.to_string(), expected);
        };
        check(0, false, 0, "no job of its tenant and priority is before it");
        check(1, false, 2, "1 job of its tenant and priority is before it, and 2 of higher priority");
        check(1_000, true, 0, "more than 1000 jobs of its tenant and priority are before it");
    }
}
