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
    let rua = "[\"reports@example.net\"]";
    let settings = FeedbackSettings {
        complaints: section.list("complaints", default.complaints, example, address),
        dmarc_reports: section.list("dmarc_reports", default.dmarc_reports, rua, address),
        tls_reports: section.list("tls_reports", default.tls_reports, rua, address),
        sent_retention: section.duration("sent_retention", default.sent_retention, Duration::ZERO..=366 * DAY),
    };
    let is_taken = listeners.iter().any(|listener| listener.takes == ListenerTakes::Feedback);
    let lists = [
        ("complaints", &settings.complaints),
        ("dmarc_reports", &settings.dmarc_reports),
        ("tls_reports", &settings.tls_reports),
    ];
    for (key, _) in lists.iter().filter(|(_, addresses)| !is_taken && !addresses.is_empty()) {
        let remedy = "add a [[listener]] with takes = \"feedback\"";
        section.warn(key, Problem::new("no listener takes mail for these addresses", remedy));
    }
    check_purposes(&section, &settings);
    if is_taken && settings.sent_retention.is_zero() {
        let problem = "nothing is remembered of what was sent, so that no bounce or complaint finds its message";
        section.warn("sent_retention", Problem::new(problem, "write \"30d\""));
    }
    section.close();
    settings
}

/// One address has one purpose; both kinds of reports may share one.
fn check_purposes(section: &Section<'_>, settings: &FeedbackSettings) {
    for (key, addresses) in [("dmarc_reports", &settings.dmarc_reports), ("tls_reports", &settings.tls_reports)] {
        let is_for_complaints =
            |address: &&EmailAddress| settings.complaints.iter().any(|other| other.is_same_mailbox(address));
        if let Some(address) = addresses.iter().find(is_for_complaints) {
            let problem = format!("{} is an address for complaints, too", address.as_str());
            section.error(key, Problem::new(problem, "give reports an address of their own"));
        }
    }
}

pub(super) fn address(value: &Value<'_>) -> Result<EmailAddress, Problem> {
    let text = value.text()?;
    EmailAddress::parse(text, true).map_err(|error| {
        Problem::new(format!("{text:?} is no address: {error}"), "write one such as \"complaints@example.net\"")
    })
}
