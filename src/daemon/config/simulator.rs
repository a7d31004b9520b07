//! `[simulator]`: the mailbox simulator, at a domain of its own.

use super::findings::Problem;
use super::section::{Section, Value};
use crate::policy::pools::Pools;
use crate::reception::settings::ListenerSettings;
use crate::types::{Domain, PoolName, SourceName};

/// What the rest of the config says that must fit.
pub(super) struct Around<'a> {
    pub(super) hostname: &'a Domain,
    pub(super) listeners: &'a [ListenerSettings],
    pub(super) pools: &'a Pools,
    /// Nothing is remembered of what was sent.
    pub(super) forgets: bool,
}

/// Its domain; `None`: there is no simulator.
pub(super) fn read(mut section: Section<'_>, around: &Around<'_>) -> Option<Domain> {
    let domain = section.optional("domain", domain);
    if let Some(domain) = &domain {
        if domain == around.hostname {
            let remedy = "write a domain that nobody else has mail at, such as \"simulator.example.net\"";
            section.error("domain", Problem::new("is the hostname of this server", remedy));
        }
        let (pool, source) = (PoolName::simulator(), SourceName::simulator());
        if around.pools.pool(pool.as_str()).is_some() || around.pools.source(source.as_str()).is_some() {
            let problem = format!("the simulator has a pool and a source named {:?}", pool.as_str());
            section.error("domain", Problem::new(problem, "give your pool or source of that name another one"));
        }
        if around.listeners.iter().any(|listener| listener.name == REPORTS_LISTENER) {
            let problem = format!("the simulator has a listener named {REPORTS_LISTENER:?}");
            section.error("domain", Problem::new(problem, "give your listener of that name another one"));
        }
        if around.forgets {
            let problem = "its late bounces and complaints find no message, as nothing is remembered of what was sent";
            section.warn("domain", Problem::new(problem, "write a sent_retention of at least \"1d\" in [feedback]"));
        }
    }
    section.close();
    domain
}

/// The name of the listener that the simulator brings its reports to.
pub(in crate::daemon) const REPORTS_LISTENER: &str = "simulator";

fn domain(value: &Value<'_>) -> Result<Domain, Problem> {
    let domain = value.domain()?;
    if !domain.as_str().contains('.') || domain.as_str().contains('_') {
        let remedy = "write one such as \"simulator.example.net\"; it needs no DNS";
        return Err(Problem::new(format!("\"{domain}\" is no domain of mail"), remedy));
    }
    Ok(domain)
}

#[cfg(test)]
mod tests {
    use crate::daemon::config::Config;

    const LEAST: &str = "hostname = \"a.example.net\"\nlistener = [{ name = \"a\", address = \"127.0.0.1:0\" }]\n";

    fn config(text: &str) -> Result<Config, String> {
        Config::parse(&format!("{LEAST}{text}"), "c.toml").map_err(|errors| errors.to_string())
    }

    #[test]
    fn it_is_off_unless_it_has_a_domain_and_then_it_counts_for_nothing() {
        assert_eq!(config("").unwrap().simulator, None);
        let on = config("[simulator]\ndomain = \"Simulator.example.net\"\n").unwrap();
        let domain = on.simulator.clone().unwrap();
        assert_eq!((domain.as_str(), on.warnings.len()), ("simulator.example.net", 0));
        assert!(!on.counting().counts("shop", &domain) && on.admission.simulator == on.simulator);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        for (text, expected) in [
            ("[simulator]\ndomain = \"a.example.net\"\n", "is the hostname of this server"),
            ("[simulator]\ndomain = \"simulator\"\n", "is no domain of mail"),
            (
                "[simulator]\ndomain = \"s.example.net\"\n[[source]]\nname = \"simulator\"\n",
                "a pool and a source named",
            ),
        ] {
            let errors = config(text).unwrap_err();
            assert!(errors.contains(expected), "{errors}");
        }
        let forgets = "[simulator]\ndomain = \"s.example.net\"\n[feedback]\nsent_retention = \"0s\"\n";
        let warned = config(forgets).unwrap().warnings;
        assert!(warned.iter().any(|warning| warning.key.contains("simulator")), "{warned:?}");
    }
}
