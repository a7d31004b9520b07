//! `[feedback]`, and listeners that take what comes home.

use std::time::Duration;

use super::rejection_test::{parse, refused, taken, warned};
use super::settings::EventFileSettings;
use crate::events::EventKind;
use crate::reception::settings::ListenerTakes;

const HOME: &str = "[[listener]]\nname = \"home\"\naddress = \"127.0.0.1:26\"\ntakes = \"feedback\"\n";
const LOCAL: &str = "hostname = \"mail.example.com\"\n[[listener]]\nname = \"local\"\naddress = \"127.0.0.1:25\"\n";

fn with_home(rest: &str) -> Vec<String> {
    let config = parse(&format!("{LOCAL}{HOME}{rest}")).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.listeners[1].takes, ListenerTakes::Feedback);
    config.warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn what_comes_home_is_taken_by_a_listener_for_it() {
    assert_eq!(with_home("[feedback]\ncomplaints = [\"fbl@example.net\"]\n"), [""; 0]);
    let config = taken("");
    assert_eq!(config.listeners[0].takes, ListenerTakes::Messages);
    assert_eq!(config.feedback.sent_retention, Duration::from_secs(30 * 86_400));
    warned(
        "[feedback]\ncomplaints = [\"fbl@example.net\"]\n",
        &[
            "c.toml:4:14: feedback.complaints: no listener takes mail for these addresses; add a [[listener]] with takes = \"feedback\"",
        ],
    );
    assert_eq!(
        with_home("[feedback]\nsent_retention = \"0s\"\n"),
        [
            "c.toml:10:18: feedback.sent_retention: nothing is remembered of what was sent, so that no bounce or complaint finds its \
          message; write \"30d\""
        ]
    );
}

/// The streams of events, by name, and whether each takes reports.
fn streams(rest: &str) -> Vec<(String, bool)> {
    let config = parse(&format!("{LOCAL}{HOME}{rest}")).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    config.events.files.iter().map(|file| (file.name.clone(), file.types.contains(&EventKind::Report))).collect()
}

#[test]
fn reports_of_receivers_have_a_stream_of_their_own_unless_one_lists_them() {
    let named = |name: &str, takes: bool| (name.to_owned(), takes);
    let dmarc = "[feedback]\ndmarc_reports = [\"rua@example.net\"]\n";
    assert_eq!(streams(""), [named("events", false)]);
    assert_eq!(streams(dmarc), [named("events", false), named("reports", true)]);
    let tls = "[feedback]\ntls_reports = [\"rua@example.net\"]\n[events]\nfile = []\n";
    assert_eq!(streams(tls), [named("reports", true)]);
    let listed = format!("{dmarc}[[events.file]]\nname = \"dmarc\"\ntypes = [\"Report\"]\n");
    assert_eq!(streams(&listed), [named("dmarc", true)]);
    // Rows are of no configuration set.
    let of_a_set = format!("{listed}configuration_sets = [\"news\"]\n");
    assert_eq!(streams(&of_a_set), [named("dmarc", true), named("reports", true)]);
    let both = "[feedback]\ndmarc_reports = [\"rua@example.net\"]\ntls_reports = [\"rua@example.net\"]\n";
    assert_eq!(streams(both), [named("events", false), named("reports", true)]);
    let reports = EventFileSettings::of_reports();
    assert!(reports.rotate_size_bytes * (reports.keep_files as u64) <= 2 << 30, "docs/FEEDBACK.md says 2 GiB");
}

#[test]
fn addresses_of_reports_that_nobody_takes_or_that_have_two_purposes_are_told_of() {
    warned(
        "[feedback]\ndmarc_reports = [\"rua@example.net\"]\ntls_reports = [\"rua@example.net\"]\n",
        &[
            "c.toml:4:17: feedback.dmarc_reports: no listener takes mail for these addresses; add a [[listener]] with takes = \"feedback\"",
            "c.toml:5:15: feedback.tls_reports: no listener takes mail for these addresses; add a [[listener]] with takes = \"feedback\"",
        ],
    );
    let errors = |rest: &str| {
        let errors = parse(&format!("{LOCAL}{HOME}{rest}")).unwrap_err();
        errors.to_string().lines().next().unwrap().to_owned()
    };
    assert_eq!(
        errors("[feedback]\ncomplaints = [\"fbl@example.net\"]\ntls_reports = [\"FBL@example.net\"]\n"),
        "c.toml:11:15: feedback.tls_reports: FBL@example.net is an address for complaints, too; give reports an address of their own"
    );
    assert_eq!(
        errors("[feedback]\ndmarc_reports = [\"rua\"]\n"),
        "c.toml:10:18: feedback.dmarc_reports: \"rua\" is no address: address has no domain; write one such as \"complaints@example.net\""
    );
    let clash = "[feedback]\ndmarc_reports = [\"rua@example.net\"]\n[[events.file]]\nname = \"reports\"\ntypes = [\"Bounce\"]\n";
    assert!(errors(clash).ends_with("rename that file, or list \"Report\" in its types"), "{}", errors(clash));
}

#[test]
fn what_cannot_be_is_refused_with_what_to_write() {
    refused(
        "[feedback]\ncomplaints = [\"fbl\"]\n",
        &[
            "c.toml:4:15: feedback.complaints: \"fbl\" is no address: address has no domain; write one such as \"complaints@example.net\"",
        ],
    );
    let errors = parse(&format!("{LOCAL}{HOME}auth = \"clear\"\n")).unwrap_err();
    assert_eq!(
        errors.to_string().lines().next(),
        Some("c.toml:9:8: listener.auth: has no effect where takes = \"feedback\": nobody logs in there; remove it")
    );
}
