//! Holds `config.toml.example` against the reader: as it stands, with every default, with every sample.

use std::cell::RefCell;
use std::collections::BTreeSet;

use toml::de::DeTable;

use super::findings::Findings;
use super::section::Section;
use super::*;
use crate::reception::settings::ListenerTls;

const EXAMPLE: &str = include_str!("../../../config.toml.example");
const LEAST: &str = "hostname = \"mail.example.com\"\n[[listener]]\nname = \"local\"\naddress = \"127.0.0.1:25\"\n";

/// `#key = value` and `#[[table]]` lose their mark; `##` lines too where `samples`; prose keeps it.
fn uncommented(samples: bool) -> String {
    let lines = EXAMPLE.lines().map(|line| {
        let sample = line.strip_prefix("##").filter(|_| samples);
        let default = line.strip_prefix('#').filter(|rest| !rest.starts_with([' ', '#']));
        sample.or(default).unwrap_or(line)
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn parsed(text: &str) -> Config {
    Config::parse(text, "config.toml.example").unwrap_or_else(|errors| panic!("{errors}"))
}

/// Settings of other modules have no equality; their debug texts hold every field.
fn shown(config: &Config) -> String {
    format!("{config:#?}")
}

#[test]
fn the_example_is_a_good_config_without_warnings() {
    assert_eq!(parsed(EXAMPLE).warnings, []);
}

#[test]
fn the_example_as_it_stands_is_the_least_config() {
    assert_eq!(shown(&parsed(EXAMPLE)), shown(&parsed(LEAST)));
}

#[test]
fn every_default_of_the_example_is_the_default() {
    let text = uncommented(false);
    assert!(text.contains("\nsteps = [") && text.contains("\n[[events.file]]"), "{text}");
    assert_eq!(shown(&parsed(&text)), shown(&parsed(LEAST)));
}

#[test]
fn the_least_config_has_the_defaults_of_every_module() {
    let config = parsed(LEAST);
    let hostname = || "mail.example.com".to_owned();
    let reception = crate::reception::settings::Settings { hostname: hostname(), ..Default::default() };
    assert_eq!(format!("{:?}", config.reception), format!("{reception:?}"));
    let delivery = crate::delivery::settings::Settings { hostname: hostname(), ..Default::default() };
    assert_eq!(format!("{:?}", config.delivery), format!("{delivery:?}"));
    assert_eq!(config.dns, DnsSettings::default());
    assert_eq!(config.queue, QueueSettings::default());
    assert_eq!(config.retry, RetrySettings::default());
    assert_eq!(config.events, EventsSettings::default());
    assert_eq!(config.dsn, DsnSettings::default());
    assert_eq!(config.admin, AdminSettings::default());
    assert_eq!(config.log, LogSettings::default());
    assert_eq!(config.metrics, MetricsSettings::default());
    assert_eq!(config.shutdown, ShutdownSettings::default());
    assert_eq!(config.admission.lifetime, config.queue.lifetime);
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].tls, ListenerTls::None);
    assert!(!config.mailed_bounces().mails("", "") && !config.mailed_complaints().mails("", ""));
}

#[test]
fn every_sample_of_the_example_is_good() {
    let config = parsed(&uncommented(true));
    assert_eq!(config.listeners.len(), 3);
    assert_eq!(config.listeners[2].takes, crate::reception::settings::ListenerTakes::Feedback);
    assert_eq!(config.delivery.routes.len(), 1);
    assert_eq!(config.admin.group.as_deref(), Some("mailadmins"));
    assert!(config.metrics.address.is_some());
    assert_eq!(config.warnings, []);
}

/// Also the other way round: an unknown key in the example would be an error above.
#[test]
fn every_key_that_the_reader_knows_is_in_the_example() {
    let text = uncommented(true);
    let document = DeTable::parse(&text).unwrap();
    let findings = RefCell::new(Findings::new("example", &text));
    read_root(Section::root(document.get_ref(), &findings));
    let known = findings.borrow().known().clone();

    let mut written = BTreeSet::new();
    let mut section = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_matches(['[', ']']).to_owned();
            let (parent, name) = section.rsplit_once('.').unwrap_or(("", &section));
            written.insert((parent.to_owned(), name.to_owned()));
        } else if let Some((key, _)) = line.split_once(" = ") {
            written.insert((section.clone(), key.to_owned()));
        }
    }
    let missing: Vec<_> =
        known.iter().filter(|(section, key)| !written.contains(&(section.clone(), (*key).to_owned()))).collect();
    assert!(missing.is_empty(), "config.toml.example lacks {missing:?}");
    assert!(known.len() > 90, "only {} keys known", known.len());
}
