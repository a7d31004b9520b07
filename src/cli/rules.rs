//! `posthaste rules`: what replies of hosts mean to us, and what providers let us do. Asks no daemon and no network: reads the
//! files that the config names, as a reload would.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::Failure;
use super::format::{join, safe};
use super::table::{Align, Table};
use crate::daemon::config::{Config, DEFAULT_PATH, RuleSettings};
use crate::policy::limits::{Rates, Span};
use crate::policy::replies::Spec;
use crate::policy::{Disposition, Provider, Stage, Verdict};
use crate::smtp::client::ReplyParser;
use crate::types::Reply;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Config file. Without it, and where there is none at /etc/posthaste/config.toml, the built-in rules are asked.
    #[arg(long, value_name = "PATH", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show which rule hits a reply, and what follows.
    Classify(ClassifyArgs),
    /// Show all rules, in the order in which they are asked.
    List(ListArgs),
    /// Show one rule whole.
    Show(ShowArgs),
}

#[derive(Debug, clap::Args)]
struct ClassifyArgs {
    /// What the reply answers: connect, greeting, ehlo, tls, auth, mail, rcpt, data or dot.
    #[arg(long, value_name = "STAGE", value_parser = stage)]
    stage: Stage,
    /// The provider of the site, as [[provider]] names it.
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// The reply as the host wrote it, such as "550 5.1.1 no such user"; one with more lines as lines.
    #[arg(value_name = "REPLY")]
    reply: String,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// The provider rules.
    #[arg(long)]
    providers: bool,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// Name of a reply rule, or else of a provider.
    #[arg(value_name = "NAME")]
    name: String,
}

fn stage(text: &str) -> Result<Stage, String> {
    let found = Stage::ALL.into_iter().find(|stage| stage.name() == text);
    found.ok_or_else(|| format!("write one of {}", join(&Stage::ALL, "")))
}

pub(super) fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failure> {
    let rules = match &args.config {
        Some(path) => load(path)?,
        None if Path::new(DEFAULT_PATH).exists() => load(Path::new(DEFAULT_PATH))?,
        None => {
            writeln!(err, "there is no {DEFAULT_PATH}: these are the built-in rules")?;
            RuleSettings::default()
        }
    };
    match &args.command {
        Command::Classify(args) => classify(args, &rules, out),
        Command::List(args) if args.providers => list_providers(&rules, out),
        Command::List(_) => list_replies(&rules, out),
        Command::Show(args) => show(&args.name, &rules, out),
    }
}

fn load(path: &Path) -> Result<RuleSettings, Failure> {
    Config::load_rules(path).map_err(|errors| Failure::Failed(errors.to_string()))
}

fn classify(args: &ClassifyArgs, rules: &RuleSettings, out: &mut dyn Write) -> Result<(), Failure> {
    let provider = args.provider.as_deref();
    if let Some(name) = provider.filter(|name| rules.providers.get(name).is_none()) {
        let names = join(&rules.providers.names(), "none");
        return Err(Failure::Usage(format!("there is no provider {name:?}; there are {names}")));
    }
    let reply = parse(&args.reply).ok_or_else(|| {
        Failure::Usage("this is no reply: write it as the host did, such as \"550 5.1.1 no such user\"".to_owned())
    })?;
    let verdict = rules.replies.classify(&reply, args.stage, provider);
    let origin = rules.replies.specs().find(|spec| spec.name == verdict.rule).map(|spec| format!(" ({})", spec.origin));
    writeln!(out, "rule      {}{}", verdict.rule, origin.unwrap_or_default())?;
    tell(&verdict, out)
}

fn tell(verdict: &Verdict, out: &mut dyn Write) -> Result<(), Failure> {
    let outcome = match verdict.disposition {
        Disposition::Delivered => "delivered",
        Disposition::Deferred => "deferred",
        Disposition::Bounced => "bounced",
    };
    writeln!(out, "outcome   {outcome}")?;
    if verdict.disposition == Disposition::Delivered {
        return Ok(());
    }
    writeln!(out, "class     {}", verdict.class.name())?;
    writeln!(out, "concerns  the {}", verdict.scope.name())?;
    let bounce = format!("{}/{}", verdict.bounce_type.name(), verdict.bounce_sub_type.name());
    if verdict.disposition == Disposition::Deferred {
        writeln!(out, "retry     {}", verdict.retry.name())?;
        if let Some(wait) = verdict.retry_after {
            writeln!(out, "asked for {}", super::format::age(wait))?;
        }
        writeln!(out, "delay     {}", verdict.delay_type.name())?;
        writeln!(out, "bounce    {bounce}, if it is never delivered")?;
    } else {
        writeln!(out, "bounce    {bounce}")?;
    }
    let reaction = verdict.reaction.map_or("none".to_owned(), |reaction| reaction.to_string());
    writeln!(out, "reaction  {reaction}")?;
    Ok(())
}

fn parse(text: &str) -> Option<Reply> {
    let mut parser = ReplyParser::new();
    for line in text.lines() {
        parser.push(line.trim_end().as_bytes());
        parser.push(b"\r\n");
    }
    let reply = parser.next_reply().ok().flatten()?;
    parser.next_reply().ok()?.is_none().then_some(reply)
}

fn list_replies(rules: &RuleSettings, out: &mut dyn Write) -> Result<(), Failure> {
    let mut table = Table::new([
        ("RULE", Align::Left),
        ("STAGES", Align::Left),
        ("CLASS", Align::Left),
        ("REACTION", Align::Left),
        ("FROM", Align::Left),
    ]);
    for spec in rules.replies.specs() {
        table.row([
            spec.name.to_string(),
            spec.stages.to_string(),
            spec.outcome.class.name().to_owned(),
            spec.outcome.reaction.map(|reaction| reaction.to_string()).unwrap_or_default(),
            spec.origin.to_string(),
        ]);
    }
    Ok(table.print(out)?)
}

fn list_providers(rules: &RuleSettings, out: &mut dyn Write) -> Result<(), Failure> {
    let mut table = Table::new([
        ("PROVIDER", Align::Left),
        ("CONNECTIONS", Align::Right),
        ("IN ALL", Align::Right),
        ("MESSAGES EACH", Align::Right),
        ("RATES", Align::Left),
        ("HOSTS", Align::Left),
        ("FROM", Align::Left),
    ]);
    let number = |number: Option<u32>| number.map(|number| number.to_string()).unwrap_or_default();
    for provider in rules.providers.all() {
        table.row([
            provider.name.to_string(),
            number(provider.limits.connections),
            number(provider.limits.connections_total),
            number(provider.limits.messages_per_connection),
            rates(&provider.limits.rates),
            hosts(provider),
            provider.origin.to_string(),
        ]);
    }
    Ok(table.print(out)?)
}

/// `10/second, 500/hour`.
fn rates(rates: &Rates) -> String {
    let shown = Span::ALL.into_iter().filter_map(|span| Some(format!("{}/{}", rates.by(span)?, span.name())));
    shown.collect::<Vec<_>>().join(", ")
}

fn hosts(provider: &Provider) -> String {
    let mx = provider.mx.iter().map(ToString::to_string);
    mx.chain(provider.domains.iter().map(|domain| format!("domain {domain}"))).collect::<Vec<_>>().join(", ")
}

fn show(name: &str, rules: &RuleSettings, out: &mut dyn Write) -> Result<(), Failure> {
    if let Some(spec) = rules.replies.specs().find(|spec| &*spec.name == name) {
        return show_reply(spec, out);
    }
    let provider = rules.providers.get(name);
    let provider = provider.ok_or_else(|| {
        Failure::NotFound(format!("there is no rule {:?}; `posthaste rules list` shows them", safe(name)))
    })?;
    let limits = &provider.limits;
    let or_default = |number: Option<u32>| number.map_or("as configured".to_owned(), |number| number.to_string());
    writeln!(out, "provider     {} ({})", provider.name, provider.origin)?;
    writeln!(out, "hosts        {}", join(&provider.mx, "none"))?;
    writeln!(out, "domains      {}", join(&provider.domains, "none"))?;
    writeln!(out, "connections  {} from one source", or_default(limits.connections))?;
    let total = limits.connections_total.map_or("no limit".to_owned(), |total| total.to_string());
    writeln!(out, "in all       {total}")?;
    writeln!(out, "messages     {} on one connection", or_default(limits.messages_per_connection))?;
    let rates = rates(&limits.rates);
    writeln!(out, "rates        {}", if rates.is_empty() { "no limit" } else { &rates })?;
    Ok(())
}

fn show_reply(spec: &Spec, out: &mut dyn Write) -> Result<(), Failure> {
    let outcome = &spec.outcome;
    writeln!(out, "rule      {} ({})", spec.name, spec.origin)?;
    writeln!(out, "stages    {}", spec.stages)?;
    writeln!(out, "sites of  {}", join(&spec.providers, "any provider or none"))?;
    writeln!(out, "codes     {}", join(&spec.codes, "any"))?;
    writeln!(out, "enhanced  {}", join(&spec.enhanced, "any or none"))?;
    writeln!(out, "class     {}", outcome.class.name())?;
    let action = match outcome.disposition {
        Some(Disposition::Bounced) => "bounce",
        Some(_) => "defer",
        None => "by code and stage",
    };
    writeln!(out, "action    {action}")?;
    writeln!(out, "concerns  {}", outcome.scope.map_or("by stage", |scope| scope.name()))?;
    writeln!(out, "retry     {}", outcome.retry.name())?;
    writeln!(out, "bounce    {}/{}", outcome.bounce.0.name(), outcome.bounce.1.name())?;
    writeln!(out, "delay     {}", outcome.delay.name())?;
    let reaction = outcome.reaction.map_or("none".to_owned(), |reaction| reaction.to_string());
    writeln!(out, "reaction  {reaction}")?;
    match spec.phrases.split_first() {
        None => writeln!(out, "text      any")?,
        Some((first, rest)) => {
            writeln!(out, "text      {}", safe(first))?;
            rest.iter().try_for_each(|phrase| writeln!(out, "          {}", safe(phrase)))?;
        }
    }
    Ok(())
}
