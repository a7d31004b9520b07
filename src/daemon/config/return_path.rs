//! `[return_path]`, and the MAIL FROM domains of identities.

use std::time::Duration;

use super::findings::Problem;
use super::section::{Section, Value};
use super::settings::ReturnPathSettings;
use super::units::format_duration;
use crate::admission::identity::IdentityName;
use crate::policy::token::TOKEN_CHARS;
use crate::types::Domain;

const DAY: Duration = Duration::from_secs(86_400);
/// RFC 5321 §4.5.3.1.3: a path has 256 octets with its brackets; the token and an `@` stand before the domain.
const DOMAIN_BYTES_MAX: usize = 254 - TOKEN_CHARS - 1;
/// So many keys are in use at the same time, at most: each has an id of one octet.
const KEYS_IN_USE_MAX: u32 = 200;

/// The operator's bounce domain, and the keys. `lifetime` is that of the queue.
pub(super) fn read(mut section: Section<'_>, lifetime: Duration) -> (Option<Domain>, ReturnPathSettings) {
    let default = ReturnPathSettings::default();
    let domain = section.optional("domain", mail_domain);
    let settings = ReturnPathSettings {
        key_file: section.optional("key_file", Value::absolute_path),
        key_age_max: section.duration("key_age_max", default.key_age_max, DAY..=3_660 * DAY),
        token_lifetime: section.duration("token_lifetime", default.token_lifetime, DAY..=366 * DAY),
    };
    if settings.token_lifetime < lifetime {
        let problem = format!("messages may wait for {}, longer than their tokens count", format_duration(lifetime));
        section.error("token_lifetime", Problem::new(problem, "lengthen it, or shorten lifetime in [queue]"));
    }
    if settings.token_lifetime > settings.key_age_max * KEYS_IN_USE_MAX {
        let problem = format!("asks for more than {KEYS_IN_USE_MAX} keys at the same time");
        section.error("key_age_max", Problem::new(problem, "lengthen it, or shorten token_lifetime"));
    }
    section.close();
    (domain, settings)
}

/// The MAIL FROM domain of an identity, below its own domain: so SPF aligns with its From (RFC 7489 §3.1.2).
pub(super) fn mail_from(section: &mut Section<'_>, name: Option<&IdentityName>) -> Option<Domain> {
    let domain = section.optional("mail_from", mail_domain)?;
    // Without a name there is an error already.
    let own = name?.domain();
    let is_below = domain.as_str().strip_suffix(own.as_str()).is_some_and(|rest| rest.ends_with('.'));
    if !is_below {
        let problem = format!("\"{domain}\" is no subdomain of {own}");
        let remedy = format!("write one such as \"bounce.{own}\", with an MX record and SPF");
        section.error("mail_from", Problem::new(problem, remedy));
        return None;
    }
    Some(domain)
}

/// A domain that may stand in a reverse-path, with a token before it.
fn mail_domain(value: &Value<'_>) -> Result<Domain, Problem> {
    let text = value.text()?;
    let remedy = "write one such as \"bounces.example.net\", with an MX record and SPF";
    let no_domain = |why: &str| Problem::new(format!("{text:?} cannot be the domain of a return path: {why}"), remedy);
    let domain = Domain::parse(text).map_err(|error| no_domain(&error.to_string()))?;
    if domain.as_str().contains('_') {
        return Err(no_domain("an underscore is not allowed in mail domains"));
    }
    if !domain.as_str().contains('.') {
        return Err(no_domain("it has a single label"));
    }
    if domain.as_str().len() > DOMAIN_BYTES_MAX {
        return Err(no_domain("it is too long for a token before it"));
    }
    Ok(domain)
}
