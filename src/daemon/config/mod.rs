//! One TOML file as an administrator types it, turned into validated settings for each module.
//!
//! Promises: all errors come at once, in the order of the file, each with file, line, column, key, what is wrong and what
//! to write instead; unknown keys are errors; a config that loads needs no further checks by its users. [`Config::parse`]
//! touches neither disk nor network; [`Config::load`] also looks at the files and directories that the config names.
//! Does not: open sockets, resolve names, read passwords into memory for longer than it takes to see that there is one.
//!
//! Every key stands with its default, unit and effect in `config.toml.example`, which the tests hold against this code.

mod environment;
mod feedback;
mod intake;
mod keeping;
mod operation;
mod outbound;
mod reputation;
#[cfg(test)]
mod reputation_test;
mod restart;
mod return_path;
mod rules;
pub mod settings;
mod signing;
pub(super) mod simulator;
mod sources;
#[cfg(test)]
mod sources_test;
mod submission;
mod unsubscribe;
mod warmup;

#[cfg(test)]
mod example_test;
#[cfg(test)]
mod feedback_test;
#[cfg(test)]
mod login_test;
#[cfg(test)]
mod rejection_test;
#[cfg(test)]
mod submission_test;
#[cfg(test)]
mod unsubscribe_test;
#[cfg(test)]
mod warmup_test;

use std::cell::RefCell;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

pub use crate::tables::units;
pub use crate::tables::{ConfigErrors, Finding};
pub use rules::RuleSettings;
pub use settings::{
    AdminSettings, AuditStreamSettings, DEFAULT_SOCKET, DsnSettings, EventFileSettings, EventsSettings,
    FeedbackSettings, LogFormat, LogLevel, LogSettings, MetricsSettings, QueueSettings, RetrySettings,
    ReturnPathSettings, ShutdownSettings, UnsubscribeSettings,
};

use crate::admission::identity::Identity;
use crate::admission::{Directory, signing as signing_keys};
use crate::events::EventKind;
use crate::net::settings::DnsSettings;
use crate::policy::listing::Listing;
use crate::policy::mailing::{MailRule, Mailing, Takers};
use crate::policy::reputation::Counting;
use crate::policy::warmup::Plan;
use crate::reception::settings::{ListenerSettings, ListenerTakes};
use crate::tables::{findings, section};
use crate::types::Domain;
use crate::{delivery, reception, tables};
use findings::{Findings, Problem};
use section::Section;

/// Where `posthaste run` and `posthaste check` look unless told otherwise.
pub const DEFAULT_PATH: &str = "/etc/posthaste/config.toml";

/// A config of ten thousand tenants fits; whatever is longer is the wrong file. Above: an error, nothing is parsed.
const CONFIG_BYTES_MAX: u64 = 16 << 20;

/// A validated config: the settings of every module.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our name: greeting, EHLO, `Received`, generated ids. Also in `reception` and `delivery`.
    pub hostname: Domain,
    /// `[[listener]]`, at least one.
    pub listeners: Vec<ListenerSettings>,
    /// `[reception]`.
    pub reception: reception::settings::Settings,
    /// `[relay]`, `[sending]`, `[[tenant]]`, `[[credential]]`, `[[identity]]`, `[[configuration_set]]`, and the lifetime of `[queue]`.
    pub admission: Directory,
    /// `exempt_domains` of `[reputation]`; the rest of it is in `admission`.
    pub uncounted_domains: Vec<Domain>,
    /// `[signing]` and `[[dkim]]`.
    pub signing: signing_keys::Settings,
    /// `data_dir` and `[queue]`.
    pub queue: QueueSettings,
    /// `[return_path]`; its domain is in `admission`.
    pub return_path: ReturnPathSettings,
    /// `[feedback]`.
    pub feedback: FeedbackSettings,
    /// `[unsubscribe]`; what of it is for messages is in `admission`.
    pub unsubscribe: UnsubscribeSettings,
    /// The domain of `[simulator]`; also in `admission`.
    pub simulator: Option<Domain>,
    /// `[retry]`.
    pub retry: RetrySettings,
    /// `[delivery]` and `[[route]]`.
    pub delivery: delivery::settings::Settings,
    /// `[rules]`.
    pub rules: RuleSettings,
    /// Warm-up plans that can be named, by name.
    pub plans: Vec<Arc<Plan>>,
    /// Where `[warmup]` stands in the text, for findings about providers that it names.
    warmup_at: Place,
    /// `[dns]`.
    pub dns: DnsSettings,
    /// `[events]`.
    pub events: EventsSettings,
    /// `[audit]`.
    pub audit: AuditStreamSettings,
    /// `[dsn]`.
    pub dsn: DsnSettings,
    /// `[metrics]`.
    pub metrics: MetricsSettings,
    /// `[admin]`.
    pub admin: AdminSettings,
    /// `[log]`.
    pub log: LogSettings,
    /// `[shutdown]`.
    pub shutdown: ShutdownSettings,
    /// What is allowed and yet most likely not meant; to be logged at start and after a reload.
    pub warnings: Vec<Finding>,
}

impl Config {
    /// Reads, parses and validates the file, and looks at every file and directory that it names. Blocks on the disk.
    pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
        load(path, environment::check)
    }

    /// The rules that the config at this path leads to; other files that it names are not looked at. Blocks on the disk.
    pub fn load_rules(path: &Path) -> Result<RuleSettings, ConfigErrors> {
        load(path, |_| {}).map(|config| config.rules)
    }

    /// The warm-up plans of the config at this path; other files that it names are not looked at. Blocks on the disk.
    pub fn load_plans(path: &Path) -> Result<Vec<Arc<Plan>>, ConfigErrors> {
        load(path, |_| {}).map(|config| config.plans)
    }

    /// Parses and validates a text; `name` is the file name in errors. Touches no disk.
    pub fn parse(text: &str, name: &str) -> Result<Config, ConfigErrors> {
        let findings = RefCell::new(Findings::new(name, text));
        let config = read_tables(text, &findings);
        with_warnings(config, findings.into_inner())
    }

    /// What counts for reputation.
    pub fn counting(&self) -> Counting {
        let exempt = self.uncounted_domains.iter().chain(&self.simulator);
        Counting { exempt_domains: exempt.cloned().collect(), has_sets: self.admission.has_sets() }
    }

    /// For which reasons addresses go on lists by themselves.
    pub fn listing(&self) -> Listing {
        let tenants = self.admission.tenants().map(|tenant| (tenant.name.as_str().into(), tenant.suppression));
        let sets = self.admission.sets().filter_map(|set| Some((set.name.as_str().into(), set.suppression?)));
        Listing { sets: sets.collect(), tenants: tenants.collect() }
    }

    /// Which bounces without NOTIFY are mailed to the sender of their message.
    pub fn mailed_bounces(&self) -> Mailing {
        self.mailed(EventKind::Bounce, self.dsn.bounce_messages)
    }

    /// Which complaints are.
    pub fn mailed_complaints(&self) -> Mailing {
        self.mailed(EventKind::Complaint, self.dsn.complaint_messages)
    }

    fn mailed(&self, kind: EventKind, rule: MailRule) -> Mailing {
        let takers = || self.events.files.iter().filter(|file| file.types.contains(&kind));
        let sets = takers().flat_map(|file| &file.sets).map(|set| set.as_str().into());
        let takers = Takers { of_all: takers().any(|file| file.sets.is_empty()), sets: sets.collect() };
        let said = |identity: &Arc<Identity>| {
            let forwards = self.admission.forwards_feedback(identity)?;
            Some((identity.name.to_string().into(), forwards))
        };
        let identities = Arc::new(self.admission.identities().filter_map(said).collect());
        Mailing { rule, takers, identities }
    }
}

/// Errors of other files behind those of the config.
fn with_errors(config: Result<Config, ConfigErrors>, errors: Vec<Finding>) -> Result<Config, ConfigErrors> {
    match config {
        Ok(config) if errors.is_empty() => Ok(config),
        Ok(config) => Err(ConfigErrors { errors, warnings: config.warnings }),
        Err(mut found) => {
            found.errors.extend(errors);
            Err(found)
        }
    }
}

/// A place in the text: not part of what is configured.
#[derive(Clone)]
struct Place(Range<usize>);

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Place")
    }
}

fn with_warnings(config: Option<Config>, findings: Findings) -> Result<Config, ConfigErrors> {
    let warnings = findings.finish()?;
    let config = config.expect("a config is missing only where the text is not TOML, which is an error");
    Ok(Config { warnings, ..config })
}

fn read(path: &Path) -> Result<String, Problem> {
    let unreadable = |error: std::io::Error| {
        Problem::new(format!("cannot be read: {error}"), "name an existing readable file with --config")
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > CONFIG_BYTES_MAX {
        return Err(Problem::new("is larger than 16 MiB", "name a config file with --config"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        Problem::new(format!("byte {offset} is not UTF-8"), "save the file as UTF-8")
    })
}

fn whole_file(name: &str, problem: Problem) -> ConfigErrors {
    let Problem { problem, remedy } = problem;
    let error = Finding { file: name.to_owned(), place: None, key: String::new(), problem, remedy };
    ConfigErrors { errors: vec![error], warnings: Vec::new() }
}

/// `look`: at the files and directories that the config names, beside those of rules.
fn load(path: &Path, look: impl FnOnce(&mut Findings)) -> Result<Config, ConfigErrors> {
    let name = path.display().to_string();
    let text = read(path).map_err(|problem| whole_file(&name, problem))?;
    let findings = RefCell::new(Findings::new(&name, &text));
    let config = read_tables(&text, &findings);
    let mut findings = findings.into_inner();
    let (rules, errors) = rules::load(&mut findings);
    if let Some(config) = config.as_ref().filter(|_| errors.is_empty()) {
        warmup::check_providers(&config.delivery.warmup, &rules.providers, &config.warmup_at.0, &mut findings);
    }
    look(&mut findings);
    let config = with_warnings(config.map(|config| Config { rules, ..config }), findings);
    with_errors(config, errors)
}

/// `None` only where the text is not TOML. Otherwise a whole config, with defaults in place of what is wrong.
fn read_tables(text: &str, findings: &RefCell<Findings>) -> Option<Config> {
    tables::read(text, findings, "config.toml.example", read_root)
}

fn read_root(mut root: Section<'_>) -> Config {
    let hostname = intake::hostname(&mut root);
    let listeners = intake::listeners(&mut root);
    let reception = intake::reception(root.child("reception"), &hostname);
    let queue = keeping::queue(&mut root);
    let mut delivery = root.child("delivery");
    let mut of_warmup = root.child("warmup");
    let thresholds = warmup::thresholds(&mut of_warmup);
    let plans = warmup::Plans::read(&mut root, thresholds);
    let mut sending = sources::read(&mut root, &mut delivery, &plans);
    sending.warmups.providers = warmup::providers(&mut of_warmup, &plans);
    let warmup_at = Place(of_warmup.span());
    of_warmup.close();
    let (reputation, uncounted_domains) = reputation::section(root.child("reputation"));
    let unsubscribe = unsubscribe::read(root.child("unsubscribe"));
    let of_sets = submission::OfSets { plans: &plans, unsubscribe_url: unsubscribe.url.as_ref() };
    let mut admission = submission::directory(&mut root, queue.lifetime, &sending.names, &of_sets, reputation);
    sending.warmups.sets = admission.warmups();
    let (return_path_domain, return_path) = return_path::read(root.child("return_path"), queue.lifetime);
    admission.return_path_domain = return_path_domain;
    let feedback = feedback::read(root.child("feedback"), &listeners);
    admission.unsubscribes_by_mail =
        unsubscribe.mail && listeners.iter().any(|listener| listener.takes == ListenerTakes::Feedback);
    let link_lifetime = feedback.sent_retention.min(return_path.token_lifetime);
    unsubscribe::check(&root, &unsubscribe, &admission, link_lifetime);
    let (forgets, pools) = (feedback.sent_retention.is_zero(), &*sending.pools);
    let around = simulator::Around { hostname: &hostname, listeners: &listeners, pools, forgets };
    let simulator = simulator::read(root.child("simulator"), &around);
    admission.simulator.clone_from(&simulator);
    let signing = signing::signing(&mut root);
    let retry = keeping::retry(root.child("retry"), queue.lifetime);
    let delivery = outbound::delivery(&mut root, delivery, &hostname, sending);
    let rules = rules::section(root.child("rules"));
    let dns = outbound::dns(root.child("dns"));
    let events = keeping::events(root.child("events"), &admission, feedback.takes_reports());
    let audit = keeping::audit(root.child("audit"), &events);
    let dsn = keeping::dsn(root.child("dsn"));
    let config = Config {
        listeners,
        reception,
        admission,
        uncounted_domains,
        signing,
        queue,
        return_path,
        feedback,
        unsubscribe,
        simulator,
        retry,
        delivery,
        rules,
        plans: plans.all(),
        warmup_at,
        dns,
        events,
        audit,
        dsn,
        metrics: operation::metrics(root.child("metrics")),
        admin: operation::admin(root.child("admin")),
        log: operation::log(root.child("log")),
        shutdown: operation::shutdown(root.child("shutdown")),
        hostname,
        warnings: Vec::new(),
    };
    root.close();
    config
}
