//! `[unsubscribe]`: links and addresses by which recipients unsubscribe, and who answers there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::findings::{PathKind, Problem};
use super::section::{Section, Value};
use super::settings::{FeedbackSettings, UnsubscribeSettings};
use crate::admission::Directory;
use crate::reception::settings::CertificateFiles;

/// The longest URL that a token is put behind: the header field stays one line.
const URL_BYTES_MAX: usize = 256;
/// So long a link has to work at least: in the USA by law (CAN-SPAM).
const LINK_LIFETIME_MIN: Duration = Duration::from_secs(30 * 86_400);

pub(super) fn read(mut section: Section<'_>) -> UnsubscribeSettings {
    let default = UnsubscribeSettings::default();
    let address = section.optional("address", |value| {
        let text = value.text()?;
        text.parse::<SocketAddr>().map_err(|_| {
            let remedy = "write an IP address and a port, such as \"127.0.0.1:8058\"";
            Problem::new(format!("{text:?} is not an address with a port"), remedy)
        })
    });
    let certificate = section.path("certificate", PathKind::Certificate);
    let key = section.path("key", PathKind::PrivateKey);
    for (name, other) in [("certificate", "key"), ("key", "certificate")] {
        if section.has(name) && !section.has(other) {
            let remedy = format!("write {other} = \"/etc/posthaste/{other}.pem\"");
            section.error(name, Problem::new(format!("means nothing without {other}"), remedy));
        }
    }
    for name in ["certificate", "page"].into_iter().filter(|name| section.has(name) && address.is_none()) {
        let remedy = "write address = \"0.0.0.0:443\", or remove it";
        section.error(name, Problem::new("has no effect where no address takes requests", remedy));
    }
    let settings = UnsubscribeSettings {
        url: section.optional("url", https_url),
        address,
        tls: certificate.zip(key).map(|(certificate, key)| CertificateFiles { certificate, key }),
        page: section.optional("page", https_url),
        mail: section.flag("mail", default.mail),
    };
    section.close();
    settings
}

/// What is to be said once all of the config is known.
pub(super) fn check(
    root: &mut Section<'_>,
    settings: &UnsubscribeSettings,
    directory: &Directory,
    feedback: &FeedbackSettings,
) {
    let has_links = directory.sets().any(|set| set.unsubscribe_url.is_some());
    if settings.address.is_some() && !has_links {
        let remedy =
            "write url = \"https://mail.example.com/unsubscribe/\", and bulk = true in a [[configuration_set]]";
        root.warn("unsubscribe", Problem::new("no message has a link to this address", remedy));
    }
    if settings.address.is_some() && feedback.sent_retention < LINK_LIFETIME_MIN {
        let problem = "links work only as long as sent_retention in [feedback], less than 30 days";
        root.warn("unsubscribe", Problem::new(problem, "write sent_retention = \"30d\", or longer"));
    }
}

/// HTTPS (RFC 8058 §3.1), to be followed by a token.
pub(super) fn https_url(value: &Value<'_>) -> Result<Arc<str>, Problem> {
    let text = value.text()?;
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"<>\"#".contains(&byte);
    let has_host =
        text.strip_prefix("https://").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric()));
    if has_host && text.len() <= URL_BYTES_MAX && text.bytes().all(allowed) {
        return Ok(text.into());
    }
    let remedy = "write one such as \"https://mail.example.com/unsubscribe/\"; a token is put behind it";
    Err(Problem::new(
        format!("{text:?} is no HTTPS URL of at most {URL_BYTES_MAX} octets without < > \" and #"),
        remedy,
    ))
}
