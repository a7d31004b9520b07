//! `[feedback]`: mail that comes home, and how long it finds what it speaks of.

use std::time::Duration;

use super::findings::Problem;
use super::section::{Section, Value};
use super::settings::FeedbackSettings;
use crate::reception::settings::{ListenerSettings, ListenerTakes};
use crate::types::EmailAddress;

const DAY: Duration = Duration::from_secs(86_400);

/// `listeners`: those of the config.
pub(super) fn read(mut section: Section<'_>, listeners: &[ListenerSettings]) -> FeedbackSettings {
    let default = FeedbackSettings::default();
    let example = "[\"complaints@example.net\"]";
    let settings = FeedbackSettings {
        complaints: section.list("complaints", default.complaints, example, address),
        sent_retention: section.duration("sent_retention", default.sent_retention, Duration::ZERO..=366 * DAY),
    };
    let is_taken = listeners.iter().any(|listener| listener.takes == ListenerTakes::Feedback);
    if !is_taken && !settings.complaints.is_empty() {
        let remedy = "add a [[listener]] with takes = \"feedback\"";
        section.warn("complaints", Problem::new("no listener takes mail for these addresses", remedy));
    }
    if is_taken && settings.sent_retention.is_zero() {
        let problem = "nothing is remembered of what was sent, so that no bounce or complaint finds its message";
        section.warn("sent_retention", Problem::new(problem, "write \"30d\""));
    }
    section.close();
    settings
}

pub(super) fn address(value: &Value<'_>) -> Result<EmailAddress, Problem> {
    let text = value.text()?;
    EmailAddress::parse(text, true).map_err(|error| {
        Problem::new(format!("{text:?} is no address: {error}"), "write one such as \"complaints@example.net\"")
    })
}
