//! How messages are signed: `[signing]`, `[[dkim]]`.

use std::time::Duration;

use super::findings::{PathKind, Problem};
use super::section::{Section, Value};
use crate::admission::signing::{KeySettings, KeyState, SENDER_ID_BYTES, Settings};

/// How often DNS is asked: more often than the shortest TTL in use is of no use.
const CHECK_INTERVAL: std::ops::RangeInclusive<Duration> = Duration::from_secs(30)..=Duration::from_secs(86_400);

/// All of it.
pub(super) fn signing(root: &mut Section<'_>) -> Settings {
    let default = Settings::default();
    let mut keys: Vec<KeySettings> = Vec::new();
    for section in root.children("dkim").unwrap_or_default() {
        keys.extend(key(section, &keys));
    }
    let mut section = root.child("signing");
    let operator_domain = section.optional("operator_domain", |value| value.domain());
    if let Some(domain) = operator_domain.as_ref().filter(|domain| keys.iter().all(|key| key.domain != **domain)) {
        let remedy = format!("make one with `posthaste dkim generate --domain {domain}`, and write it as a [[dkim]]");
        section.error("operator_domain", Problem::new("has no [[dkim]] key", remedy));
    }
    let settings = Settings {
        operator_domain,
        sender_id: section.optional("feedback_id", sender_id),
        cfbl_address: section.optional("cfbl_address", super::feedback::address),
        check_interval: section.duration("check_interval", default.check_interval, CHECK_INTERVAL),
        keys,
    };
    section.close();
    settings
}

fn key(mut section: Section<'_>, others: &[KeySettings]) -> Option<KeySettings> {
    let domain = section.required("domain", "\"example.com\"", |value| value.domain());
    let selector = section.required("selector", "\"ph202611\"", |value| value.domain());
    let key_file = section.path("key_file", PathKind::SigningKey);
    if !section.has("key_file") {
        let remedy = "write key_file = \"/etc/posthaste/dkim/NAME.pem\", as `posthaste dkim generate` makes it";
        section.error("key_file", Problem::new("is missing", remedy));
    }
    let states = [("current", KeyState::Current), ("next", KeyState::Next)];
    let state = section.word("state", KeyState::Current, &states);
    if others.iter().any(|other| Some(&other.domain) == domain.as_ref() && Some(&other.selector) == selector.as_ref()) {
        let problem = "is taken: another [[dkim]] of this domain has it";
        section.error("selector", Problem::new(problem, "write each selector of a domain once"));
    }
    section.close();
    Some(KeySettings { domain: domain?, selector: selector?, key_file: key_file?, state })
}

/// Gmail's rule for the last part of `Feedback-ID`, without the separator.
fn sender_id(value: &Value<'_>) -> Result<Box<str>, Problem> {
    let text = value.text()?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if SENDER_ID_BYTES.contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.into());
    }
    Err(value.expected("a sender id", "write 5 to 15 letters, digits, - _ or ."))
}
