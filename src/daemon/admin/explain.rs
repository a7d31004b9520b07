//! `GET /v1/explain`: how mail goes to a domain or site, and what holds it back.

use serde::{Deserialize, Serialize};

use super::model::text_option;
use crate::types::{Domain, PoolName, Timestamp};

use super::AdminError;

/// The query part of `GET /v1/explain`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainText {
    /// An address, a domain, or the name of a site as `status` shows it.
    pub target: String,
    /// A pool; `default` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
}

/// What is to be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainQuery {
    /// As typed.
    pub target: String,
    /// The domain that it names; `None` where it can only be a site.
    pub domain: Option<Domain>,
    /// It is an address: no site is meant.
    pub is_address: bool,
    /// By which pool.
    pub pool: PoolName,
}

impl ExplainText {
    /// Checks the texts.
    pub fn check(&self) -> Result<ExplainQuery, AdminError> {
        let target = self.target.trim();
        if target.is_empty() {
            return Err(AdminError::BadRequest("target: write an address, a domain or a site".to_owned()));
        }
        let at = target.rsplit_once('@');
        let domain = Domain::parse(at.map_or(target, |(_, domain)| domain)).ok();
        if at.is_some() && domain.is_none() {
            return Err(AdminError::BadRequest(format!("target: {target:?} has no domain behind its @")));
        }
        let pool = self.pool.as_deref().unwrap_or(PoolName::DEFAULT);
        let pool = PoolName::parse(pool)
            .ok_or_else(|| AdminError::BadRequest(format!("pool: {pool:?} can be the name of none")))?;
        Ok(ExplainQuery { target: target.to_owned(), domain, is_address: at.is_some(), pool })
    }
}

/// How mail goes somewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// As it was asked for.
    pub target: String,
    /// Its domain; `None` for a site.
    pub domain: Option<String>,
    /// Where DNS or the config leads; `None` for a site.
    pub route: Option<RouteDetail>,
    /// Whether the scheduler knows the domain: `known`, `under_way`, or `unknown` (no mail for it was due lately).
    pub lookup: String,
    /// Deliveries that wait for the lookup.
    pub waiting_for_lookup: u64,
    /// The site; `None` where there is no route.
    pub site: Option<SiteDetail>,
}

/// A route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteDetail {
    /// `mx`, `implicit_mx` (the domain itself), `smart_host` (of the config), `simulator`, or `none`.
    pub kind: String,
    /// In order of preference.
    pub hosts: Vec<HostDetail>,
    /// TCP port.
    pub port: u16,
    /// Why there is none.
    pub problem: Option<String>,
    /// The name that events quote for that.
    pub rule: Option<String>,
}

/// A host of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDetail {
    /// Lower is tried first.
    pub preference: u16,
    /// Name or address.
    pub host: String,
}

/// A site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteDetail {
    /// Its name.
    pub site: String,
    /// The provider whose rule it is under.
    pub provider: Option<String>,
    /// Where that rule was written.
    pub provider_from: Option<String>,
    /// Limits in force.
    pub limits: Vec<LimitDetail>,
    /// Until when it counts as down, by all sources.
    #[serde(with = "text_option")]
    pub down_until: Option<Timestamp>,
    /// Its last trouble.
    pub reason: Option<String>,
    /// Mail went there, and since then it could be reached.
    pub proven: bool,
    /// Open connections.
    pub connections: u64,
    /// Connections that all sources together may have now; `None`: as many as each may.
    pub connections_max: Option<u32>,
    /// What waits, by pool.
    pub queues: Vec<QueueDetail>,
    /// The pool of `sources`.
    pub pool: String,
    /// Its sources, then those of its overflow pools.
    pub sources: Vec<SourceDetail>,
}

/// A limit, and whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitDetail {
    /// `connections`, `connections_total`, `messages_per_connection`, `per_second`, `per_minute`, `per_hour`, `per_day`.
    pub name: String,
    /// At most so many.
    pub value: u32,
    /// `provider` or `config`.
    pub from: String,
}

/// What waits at a site for a pool, as far as it is in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueDetail {
    /// The pool.
    pub pool: String,
    /// The configuration set, if it warms up and so has a line of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// Deliveries that could go now, of high priority.
    pub high: u64,
    /// Normal.
    pub normal: u64,
    /// Bulk.
    pub bulk: u64,
    /// There are more, on disk.
    pub more_on_disk: bool,
    /// The tenants with the most of them.
    pub tenants: Vec<NumberDetail>,
    /// Those that wait for the source that they keep, by source.
    pub kept: Vec<NumberDetail>,
    /// All sources of the pool are blocked there.
    pub blocked: bool,
}

/// A name and a number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberDetail {
    /// Of a tenant or source; empty: mail without a tenant.
    pub name: String,
    /// Deliveries.
    pub deliveries: u64,
}

/// A source at a site: a lane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceDetail {
    /// Its name.
    pub source: String,
    /// 0: of the pool itself; 1: of its overflow pool, and so on.
    pub tier: u8,
    /// Its weight.
    pub weight: u32,
    /// It would take the next message.
    pub next: bool,
    /// `free`, `busy`, `blocked`, `suspended`, `unreachable`, `rate-limited`, `saving`, `probing`, `no-address`, `closed`.
    pub state: String,
    /// The same in words.
    pub text: String,
    /// When that ends by time alone.
    #[serde(with = "text_option")]
    pub until: Option<Timestamp>,
    /// The rule that it comes from.
    pub rule: Option<String>,
    /// The reply or failure that it comes from.
    pub reply: Option<String>,
    /// Its lane is in memory: mail went that way lately, or something was learned.
    pub in_memory: bool,
    /// Open connections.
    pub connections: u32,
    /// Of those, unused.
    pub idle: u64,
    /// Connections that it may have now.
    pub window: u32,
    /// Messages on one connection: the limit, or what was learned.
    pub messages_per_connection: u32,
    /// What keeps it below its limits: `blocked`, `suspended`, `unreachable`, `slowed`, `fewer-connections`, `ramping`.
    pub mode: Option<String>,
    /// When that ends.
    #[serde(with = "text_option")]
    pub mode_until: Option<Timestamp>,
    /// By which rule.
    pub mode_rule: Option<String>,
    /// By which reply or failure.
    pub mode_reply: Option<String>,
    /// How its warm-up there stands, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup: Option<String>,
    /// Limits in a time there, and what is used of them.
    pub rates: Vec<RateDetail>,
    /// Those of the source as a whole.
    pub source_rates: Vec<RateDetail>,
}

/// A limit on messages in a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateDetail {
    /// At most so many.
    pub limit: u32,
    /// In each `second`, `minute`, `hour` or `day`.
    pub per: String,
    /// So many count against it now.
    pub used: u32,
    /// A reply made it lower, or it is the ramp after that.
    pub by_reply: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_address_a_domain_or_a_site() {
        let check = |target: &str| ExplainText { target: target.to_owned(), pool: None }.check();
        let query = check("you@Example.TEST").unwrap();
        assert_eq!((query.domain, query.is_address), (Domain::parse("example.test").ok(), true));
        assert!(!check("google").unwrap().is_address);
        assert_eq!(check("mx1.a.test,mx2.a.test").unwrap().domain, None);
        assert!(check("you@").is_err());
        assert!(check(" ").is_err());
        let pool = ExplainText { target: "a.test".to_owned(), pool: Some("a b".to_owned()) };
        assert!(pool.check().unwrap_err().to_string().contains("pool"));
    }
}
