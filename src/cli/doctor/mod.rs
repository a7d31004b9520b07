//! `posthaste doctor`: whether receivers will take our mail. Looks at DNS records, certificates, the clock and port 25 from
//! outside, by the config alone: the daemon is not asked, and need not run.
//!
//! A check fetches ([`world`]) and then judges by pure functions. Promises: what nobody knows is never called missing; each
//! fault that a DNS record can heal comes with exactly that record; every answer from the network is hostile, so it is
//! bounded, and no control character of it is printed; it ends within its time. docs/DOCTOR.md lists the findings.

mod certificate;
mod clock;
mod dkim;
mod dmarc;
mod finding;
mod gather;
mod host;
mod mail_from;
mod port25;
mod report;
mod setup;
mod sources;
mod spf;
mod spf_record;
mod world;

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::Failure;
use crate::daemon::config::{Config, DEFAULT_PATH};
use crate::net::BoxFuture;
use crate::net::dns::HickoryResolver;
use crate::types::{Domain, SystemClock};
use finding::{Check, Finding, Subject};
use report::Report;
use setup::Source;
use world::World;

/// Checks under way at a time; the others wait for their turn.
const CHECKS_MAX: usize = 32;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Config file.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Print one JSON object, as docs/DOCTOR.md describes it.
    #[arg(long)]
    json: bool,
    /// Look at this domain only, in the config or not; may be given several times. Default: every identity of the config.
    #[arg(long = "identity", value_name = "DOMAIN", value_parser = domain)]
    identities: Vec<Domain>,
    /// Address that receivers see mail coming from, in place of those in the config: needed behind NAT.
    #[arg(long = "source", value_name = "IP")]
    sources: Vec<IpAddr>,
    /// Domain whose mail host is greeted to see whether mail gets out.
    #[arg(long = "probe", value_name = "DOMAIN", value_parser = domain, default_values = ["gmail.com", "outlook.com", "yahoo.com"])]
    probes: Vec<Domain>,
    /// Where the time is asked for, by SNTP.
    #[arg(long, value_name = "HOST[:PORT]", default_value = "pool.ntp.org")]
    time_server: String,
    /// PEM file of authorities that your applications trust besides Mozilla's.
    #[arg(long, value_name = "PATH")]
    ca: Option<PathBuf>,
    /// Seconds that all checks together may take; what has no answer by then is not known.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    timeout: u64,
}

fn domain(text: &str) -> Result<Domain, String> {
    Domain::parse(text).map_err(|error| error.to_string())
}

pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let cannot = Failure::CannotRun;
    let config = Config::load(&args.config).map_err(|errors| cannot(errors.to_string()))?;
    let setup = gather::gather(&config, args).map_err(cannot)?;
    let clock = Arc::new(SystemClock);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| cannot(format!("cannot start: {error}")))?;
    let findings = runtime.block_on(async {
        let resolver = HickoryResolver::new(&config.dns, clock.clone()).map_err(|error| cannot(error.to_string()))?;
        let world = Arc::new(World::new(setup, clock, resolver, config.dns.timeout));
        Ok::<_, Failure>(examine(world, Duration::from_secs(args.timeout)).await)
    })?;
    let report = Report::new(findings);
    if args.json {
        report.print_json(out)?
    } else {
        report.print(out)?
    }
    report.verdict()
}

/// A check that waits for its turn, and what it is about.
type Waiting = (Check, BoxFuture<'static, Vec<Finding>>);

/// Runs all checks, [`CHECKS_MAX`] at a time. What is not done after `limit` becomes a finding that says so.
async fn examine(world: Arc<World>, limit: Duration) -> Vec<Finding> {
    let deadline = tokio::time::Instant::now() + limit;
    let waiting = checks(&world);
    let mut results: Vec<Result<Vec<Finding>, Check>> = waiting.iter().map(|(check, _)| Err(check.clone())).collect();
    let mut under_way: JoinSet<(usize, Vec<Finding>)> = JoinSet::new();
    let mut waiting = waiting.into_iter().enumerate();
    loop {
        while under_way.len() < CHECKS_MAX
            && let Some((index, (_, check))) = waiting.next()
        {
            under_way.spawn(async move { (index, check.await) });
        }
        match tokio::time::timeout_at(deadline, under_way.join_next()).await {
            Ok(Some(Ok((index, findings)))) => {
                if let Some(result) = results.get_mut(index) {
                    *result = Ok(findings);
                }
            }
            // A check that panicked: a bug, told on standard error; its finding says that nothing is known.
            Ok(Some(Err(_))) => {}
            Ok(None) | Err(_) => break,
        }
    }
    let told = results.into_iter().map(|result| result.unwrap_or_else(|check| vec![late(&check, limit)]));
    told.flatten().collect()
}

fn late(check: &Check, limit: Duration) -> Finding {
    let finding = check.unknown(format!("no answer within the {} s for all checks", limit.as_secs()));
    finding.advice("run this again, with a longer --timeout or fewer identities (--identity)")
}

/// All of them, in the order of the output within a subject.
fn checks(world: &Arc<World>) -> Vec<Waiting> {
    let setup = &world.setup;
    let host = Subject::host(&setup.hostname);
    let mut waiting: Vec<Waiting> = Vec::new();
    let mut add = |name: &'static str, subject: Subject, future: BoxFuture<'static, Vec<Finding>>| {
        waiting.push((Check::new(name, subject), future));
    };
    let about = sources::judge(setup);
    add("source", host.clone(), Box::pin(async move { about }));
    let own = || Arc::clone(world);
    for name in setup.ehlo_names() {
        let (ehlo_of, spf_of, subject) = (own(), own(), Subject::host(&name));
        let same = name.clone();
        add("ehlo", subject.clone(), Box::pin(async move { host::check_ehlo(&ehlo_of, &same).await }));
        add("spf", subject, Box::pin(async move { spf::check(&spf_of, &name, spf::Role::Ehlo).await }));
    }
    let it = own();
    add("clock", host, Box::pin(async move { clock::check(&it).await }));
    for Source { address, ehlo_name, .. } in setup.visible().cloned() {
        let it = own();
        let future = async move { host::check_source(&it, address, &ehlo_name).await };
        add("ptr", Subject::source(address), Box::pin(future));
    }
    for source in setup.sources.clone() {
        let it = own();
        add("port25", Subject::source(source.address), Box::pin(async move { port25::check(&it, &source).await }));
    }
    for listener in setup.listeners.clone() {
        let it = own();
        let subject = Subject::listener(&listener.name);
        add("certificate", subject, Box::pin(async move { certificate::check(&it, &listener) }));
    }
    for identity in setup.identities.clone() {
        let (dkim_of, dmarc_of) = (own(), own());
        let subject = Subject::domain(&identity.signer.domain);
        let signer = identity.signer.clone();
        add("dkim", subject.clone(), Box::pin(async move { dkim::check(&dkim_of, &signer).await }));
        add("dmarc", subject, Box::pin(async move { dmarc::check(&dmarc_of, &identity).await }));
    }
    if let Some(operator) = setup.operator.clone() {
        let it = own();
        add("dkim", Subject::domain(&operator.domain), Box::pin(async move { dkim::check(&it, &operator).await }));
    }
    for mail_from in setup.mail_from_domains() {
        let (spf_of, mx_of) = (own(), own());
        let subject = Subject::domain(&mail_from.domain);
        let name = mail_from.domain.clone();
        add("spf", subject.clone(), Box::pin(async move { spf::check(&spf_of, &name, spf::Role::MailFrom).await }));
        let future = async move { mail_from::check(&mx_of, &mail_from).await };
        add("mail_from", subject, Box::pin(future));
    }
    waiting
}
