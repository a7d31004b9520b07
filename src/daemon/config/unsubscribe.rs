//! `[unsubscribe]`: links and addresses by which recipients unsubscribe, and who answers there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::findings::{PathKind, Problem};
use super::intake;
use super::section::{Section, Value};
use super::settings::UnsubscribeSettings;
use crate::admission::Directory;
use crate::admission::directory::ConfigurationSet;
use crate::policy::routing::check_address;
use crate::reception::settings::CertificateFiles;

/// The longest URL that a token is put behind: the header field stays one line.
const URL_BYTES_MAX: usize = 256;
/// So long a link has to work at least: in the USA by law (CAN-SPAM).
const LINK_LIFETIME_MIN: Duration = Duration::from_secs(30 * 86_400);

pub(super) fn read(mut section: Section<'_>) -> UnsubscribeSettings {
    let default = UnsubscribeSettings::default();
    let address = section.optional("address", |value| intake::socket_address(value, 443));
    let settings = UnsubscribeSettings {
        url: section.optional("url", https_url),
        address,
        tls: certificate(&mut section),
        page: section.optional("page", https_url),
        mail: section.flag("mail", default.mail),
        proxies: section.list("proxies", default.proxies, "[\"203.0.113.7\"]", intake::network),
    };
    let without_address = ["certificate", "page", "proxies"].into_iter().filter(|_| address.is_none());
    for name in without_address.filter(|name| section.has(name)) {
        let remedy = "write address = \"0.0.0.0:443\", or remove it";
        section.error(name, Problem::new("has no effect where no address takes requests", remedy));
    }
    if settings.page.is_some() && settings.page == settings.url {
        let problem = "is the link itself: whoever opens it would be sent round and round";
        section.error("page", Problem::new(problem, "name a page of your own, or remove it"));
    }
    section.close();
    settings
}

fn certificate(section: &mut Section<'_>) -> Option<CertificateFiles> {
    let certificate = section.path("certificate", PathKind::Certificate);
    let key = section.path("key", PathKind::PrivateKey);
    for (name, other) in [("certificate", "key"), ("key", "certificate")] {
        if section.has(name) && !section.has(other) {
            let remedy = format!("write {other} = \"/etc/posthaste/{other}.pem\"");
            section.error(name, Problem::new(format!("means nothing without {other}"), remedy));
        }
    }
    Some(CertificateFiles { certificate: certificate?, key: key? })
}

/// What is to be said once all of the config is known. `lifetime`: of links, from the acceptance of their message.
pub(super) fn check(root: &Section<'_>, settings: &UnsubscribeSettings, directory: &Directory, lifetime: Duration) {
    let warn = |problem: &str, remedy: &str| root.warn("unsubscribe", Problem::new(problem, remedy));
    let has_links = directory.sets().any(|set| set.unsubscribe_url.is_some());
    if (settings.address.is_some() || settings.url.is_some()) && !has_links {
        let remedy =
            "write url = \"https://mail.example.com/unsubscribe/\", and bulk = true in a [[configuration_set]]";
        warn("no message has a link", remedy);
    }
    let is_by_mail = directory.unsubscribes_by_mail && directory.sets().any(|set| set.is_bulk);
    let is_ours = (settings.address.is_some() && has_links) || is_by_mail;
    if is_ours && lifetime < LINK_LIFETIME_MIN {
        let problem = "recipients can unsubscribe only as long as both sent_retention in [feedback] and token_lifetime \
                       in [return_path], less than 30 days";
        warn(problem, "write \"30d\" or longer for both");
    }
    let is_open =
        |address: &SocketAddr| address.ip().is_unspecified() || check_address(address.ip(), &[], false).is_ok();
    if settings.tls.is_none() && settings.address.filter(is_open).is_some() {
        let problem = "everybody can reach the address, and it speaks no TLS, which links of HTTPS need";
        warn(problem, "write certificate and key, or a loopback address and let a proxy speak TLS");
    }
    let has_several = directory.tenants().count() > 1;
    let is_shared = |set: &ConfigurationSet| set.is_bulk && set.tenants.len() != 1 && has_several;
    if is_ours && directory.sets().any(|set| is_shared(set)) {
        let problem =
            "several tenants may use a bulk set: who unsubscribes from it gets no more of it from any of them";
        warn(problem, "give each tenant a bulk set of its own with tenants = [\"NAME\"]");
    }
}

/// HTTPS (RFC 8058 §3.1), to be followed by a token.
pub(super) fn https_url(value: &Value<'_>) -> Result<Arc<str>, Problem> {
    let text = value.text()?;
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"<>\"#".contains(&byte);
    let rest = text.strip_prefix("https://").unwrap_or_default();
    let has_host = rest.starts_with(|c: char| c.is_ascii_alphanumeric());
    let remedy = "write one such as \"https://mail.example.com/unsubscribe/\"; a token is put behind it";
    if !has_host || text.len() > URL_BYTES_MAX || !text.bytes().all(allowed) {
        let problem = format!("{text:?} is no HTTPS URL of at most {URL_BYTES_MAX} octets without < > \" and #");
        return Err(Problem::new(problem, remedy));
    }
    // Else the token would be a part of the host's name, or of a word.
    if !rest.contains('/') || text.ends_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(Problem::new(format!("{text:?} ends within a word, or has no path"), remedy));
    }
    Ok(text.into())
}
