//! `[feedback]`: mail that comes home, and how long it finds what it speaks of.

use std::time::Duration;

use super::findings::Problem;
use super::section::{Section, Value};
use super::settings::FeedbackSettings;
use crate::types::EmailAddress;

const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn read(mut section: Section<'_>) -> FeedbackSettings {
    let default = FeedbackSettings::default();
    let example = "[\"complaints@example.net\"]";
    let settings = FeedbackSettings {
        complaints: section.list("complaints", default.complaints, example, address),
        sent_retention: section.duration("sent_retention", default.sent_retention, Duration::ZERO..=366 * DAY),
    };
    section.close();
    settings
}

pub(super) fn address(value: &Value<'_>) -> Result<EmailAddress, Problem> {
    let text = value.text()?;
    EmailAddress::parse(text, true).map_err(|error| {
        Problem::new(format!("{text:?} is no address: {error}"), "write one such as \"complaints@example.net\"")
    })
}
