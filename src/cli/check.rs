//! `posthaste check`: every error of a config file at once, or what the daemon would do with it.

use std::io::{self, Write};
use std::path::PathBuf;

use super::Failure;
use super::format;
use crate::daemon::config::units::{format_duration, format_size};
use crate::daemon::config::{Config, DEFAULT_PATH, EventFileSettings, Finding, RuleSettings};
use crate::daemon::signing::Signatures;
use crate::delivery::settings::{Egress, Settings, Source};
use crate::policy::mailing::{MailRule, Mailing};
use crate::policy::replies::Origin;
use crate::reception::settings::{ListenerSettings, ListenerTakes, ListenerTls};
use crate::types::SourceName;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Config file.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

pub(super) fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failure> {
    match Config::load(&args.config) {
        Ok(config) => {
            print_warnings(&config.warnings, err)?;
            if let Err(problem) = Signatures::load(&config.signing, None) {
                writeln!(out, "{}: {problem}", args.config.display())?;
                return Err(Failure::Failed(format::count(1, "error")));
            }
            writeln!(out, "{}: good", args.config.display())?;
            print_summary(&config, out)?;
            Ok(())
        }
        Err(found) => {
            for error in &found.errors {
                writeln!(out, "{error}")?;
            }
            print_warnings(&found.warnings, err)?;
            Err(Failure::Failed(format::count(found.errors.len(), "error")))
        }
    }
}

fn print_warnings(warnings: &[Finding], err: &mut dyn Write) -> io::Result<()> {
    warnings.iter().try_for_each(|warning| writeln!(err, "warning: {warning}"))
}

fn print_summary(config: &Config, out: &mut dyn Write) -> io::Result<()> {
    let queue = &config.queue;
    let retry = &config.retry;
    let delivery = &config.delivery;
    writeln!(out, "  hostname   {}", config.hostname)?;
    for listener in &config.listeners {
        writeln!(out, "  listener   {}", shown_listener(listener))?;
    }
    let directory = &config.admission;
    writeln!(
        out,
        "  relay for  {}, as tenant {}",
        format::join(&directory.relay.networks, "nobody"),
        directory.relay.tenant.name
    )?;
    writeln!(
        out,
        "  senders    tenants: {}, identities: {}, credentials: {}, configuration sets: {}{}",
        directory.tenants().count(),
        directory.identities_count(),
        directory.credentials().count(),
        directory.sets().count(),
        if directory.sending { "" } else { "; sending is off" }
    )?;
    let domains: std::collections::BTreeSet<&str> = config.signing.keys.iter().map(|key| key.domain.as_str()).collect();
    let operator =
        config.signing.operator_domain.as_ref().map(|domain| format!("; operator {domain}")).unwrap_or_default();
    let signs =
        if domains.is_empty() { "nothing".to_owned() } else { domains.into_iter().collect::<Vec<_>>().join(", ") };
    writeln!(out, "  signing    {signs}{operator}")?;
    let message_max = format_size(config.reception.message_bytes_max);
    writeln!(out, "  messages   up to {message_max}, {} recipients", config.reception.recipients_max)?;
    let data_dir = queue.data_dir.display();
    writeln!(out, "  queue      {data_dir}, lifetime {}", format_duration(queue.lifetime))?;
    let steps: Vec<String> = retry.steps.iter().map(|step| format_duration(*step)).collect();
    writeln!(out, "  retry      after {}", steps.join(", "))?;
    let routes = format::count(delivery.routes.len(), "route");
    writeln!(out, "  delivery   port {}, from {}, {routes}", delivery.port, shown_sources(delivery))?;
    print_pools(delivery, out)?;
    writeln!(out, "  rules      {}", shown_rules(&config.rules))?;
    writeln!(out, "  dns        {}", format::join(&config.dns.servers, "servers of /etc/resolv.conf"))?;
    for file in &config.events.files {
        let names: Vec<&str> = file.types.iter().map(|kind| kind.name()).collect();
        let is_default = file.types == EventFileSettings::default().types;
        let kinds = if is_default { "all kinds".to_owned() } else { names.join(", ") };
        writeln!(out, "  events     {}/{}.jsonl: {kinds}", config.events.directory.display(), file.name)?;
    }
    writeln!(out, "  opt out    {}", shown_unsubscribe(config))?;
    writeln!(out, "  bounces    {}, unless the client says NOTIFY", shown_mailing(&config.mailed_bounces()))?;
    writeln!(out, "  complaints {}", shown_mailing(&config.mailed_complaints()))?;
    let metrics = config.metrics.address.map_or("off".to_owned(), |address| format!("http://{address}/metrics"));
    writeln!(out, "  metrics    {metrics}")?;
    writeln!(out, "  admin      {}", config.admin.socket.display())
}

/// Who hears of what goes wrong, where an identity says nothing.
fn shown_mailing(mailing: &Mailing) -> &'static str {
    match (mailing.mails("", ""), mailing.rule, mailing.takers.sets.is_empty()) {
        (true, MailRule::Auto, false) => "mailed to the sender, but for configuration sets whose event files take them",
        (true, ..) => "mailed to the sender",
        (false, ..) => "told in event files only",
    }
}

/// `any address`, `192.0.2.1`, `far (192.0.2.7 by socks5 10.0.0.1:1080)`.
fn shown_sources(delivery: &Settings) -> String {
    let shown = |source: &Source| {
        let name = source.name.as_str();
        let way = match &source.egress {
            Egress::Direct => String::new(),
            Egress::Socks5 { proxy, .. } => format!(" by socks5 {proxy}"),
            Egress::HaProxy { proxy } => format!(" by haproxy {proxy}"),
        };
        match source.address {
            None if way.is_empty() && name == SourceName::SYSTEM => "any address".to_owned(),
            None if way.is_empty() => format!("{name} (any address)"),
            None => format!("{name} (any address{way})"),
            Some(address) if way.is_empty() && address.to_string() == name => name.to_owned(),
            Some(address) => format!("{name} ({address}{way})"),
        }
    };
    delivery.sources.iter().map(shown).collect::<Vec<_>>().join(", ")
}

/// One line a pool, where there is more than the default one.
fn print_pools(delivery: &Settings, out: &mut dyn Write) -> io::Result<()> {
    if delivery.pools.pools().len() < 2 {
        return Ok(());
    }
    for pool in delivery.pools.pools() {
        let members = pool.members.iter().map(|member| match member.weight {
            1 => member.source.to_string(),
            weight => format!("{} x{weight}", member.source),
        });
        let members = members.collect::<Vec<_>>().join(", ");
        let overflow = pool.overflow.as_ref().map(|name| format!("; overflow to {name}")).unwrap_or_default();
        writeln!(out, "  pool       {}: {members}{overflow}", pool.name)?;
    }
    Ok(())
}

fn shown_rules(rules: &RuleSettings) -> String {
    let own_replies = rules.replies.specs().filter(|rule| rule.origin != Origin::BuiltIn).count();
    let own_providers = rules.providers.all().iter().filter(|rule| rule.origin != Origin::BuiltIn).count();
    let (replies, providers) = (rules.replies.specs().count(), rules.providers.all().len());
    format!("replies: {replies}, {own_replies} of them own or changed; providers: {providers}, {own_providers} of them")
}

fn shown_listener(listener: &ListenerSettings) -> String {
    let tls = match listener.tls {
        ListenerTls::None => "no TLS",
        ListenerTls::StartTls(_) => "STARTTLS",
        ListenerTls::Implicit(_) => "implicit TLS",
    };
    let takes = if listener.takes == ListenerTakes::Feedback { ", takes feedback" } else { "" };
    format!("{} on {}, {tls}{takes}", listener.name, listener.address)
}

/// What messages of bulk sets offer, and who answers.
fn shown_unsubscribe(config: &Config) -> String {
    let settings = &config.unsubscribe;
    let links = settings.url.as_ref().map(|url| format!("links {url}..."));
    let mail = config.admission.unsubscribes_by_mail.then(|| "mail".to_owned());
    let offers: Vec<String> = links.into_iter().chain(mail).collect();
    let tls = if settings.tls.is_some() { "TLS" } else { "no TLS" };
    let answers = settings.address.map(|address| format!("; answers on {address}, {tls}"));
    format!("{}{}", format::join(&offers, "nothing"), answers.unwrap_or_default())
}
