//! `[feedback]`, and listeners that take what comes home.

use std::time::Duration;

use super::rejection_test::{parse, refused, taken, warned};
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
