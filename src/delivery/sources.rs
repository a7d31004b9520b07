//! Sources ready for use: what a connection from each needs, with passwords read and names parsed.
//!
//! Built anew by a reload (`daemon` reads the password files). One that a reload took away is not there any more.

use std::collections::HashMap;
use std::sync::Arc;

use super::session::EhloName;
use super::settings::{Egress, Login, Settings, Source};
use crate::net::egress::{Proxy, ProxyLogin, Via};
use crate::policy::pools::Family;
use crate::types::SourceName;

/// What a connection from one source needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlet {
    /// The source.
    pub name: SourceName,
    /// Which hosts it reaches.
    pub family: Family,
    /// The way out.
    pub via: Via,
    /// What it says in EHLO.
    pub ehlo_name: EhloName,
}

/// All of them, by name.
#[derive(Clone, Debug, Default)]
pub struct Outlets {
    by_name: HashMap<SourceName, Arc<Outlet>>,
}

impl Outlets {
    /// Those of `settings`. `password` reads the password of a proxy's login. The error names the source and what to mend.
    pub fn new(settings: &Settings, password: impl Fn(&Login) -> Result<ProxyLogin, String>) -> Result<Self, String> {
        let mut by_name = HashMap::with_capacity(settings.sources.len());
        for source in &settings.sources {
            let outlet =
                outlet(source, settings, &password).map_err(|error| format!("source {}: {error}", source.name))?;
            by_name.insert(source.name.clone(), Arc::new(outlet));
        }
        Ok(Self { by_name })
    }

    /// That of the source of this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Outlet>> {
        self.by_name.get(name)
    }
}

fn outlet(
    source: &Source,
    settings: &Settings,
    password: impl Fn(&Login) -> Result<ProxyLogin, String>,
) -> Result<Outlet, String> {
    let name = source.ehlo_name.as_ref().map_or(settings.hostname.as_str(), |name| name.as_str());
    let proxy = match &source.egress {
        Egress::Direct => None,
        Egress::Socks5 { proxy, login } => {
            Some(Proxy::Socks5 { address: *proxy, login: login.as_ref().map(password).transpose()? })
        }
        Egress::HaProxy { proxy } => Some(Proxy::HaProxy { address: *proxy }),
    };
    Ok(Outlet {
        name: source.name.clone(),
        family: source.family(),
        via: Via { address: source.address, proxy },
        ehlo_name: EhloName::parse(name).map_err(|error| error.to_string())?,
    })
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::types::Domain;

    #[test]
    fn a_source_says_its_own_name_and_takes_its_own_way() {
        let login = Login { user: "mta".to_owned(), password_file: "/p".into() };
        let proxied = Source {
            name: SourceName::parse("far").unwrap(),
            address: Some("192.0.2.7".parse().unwrap()),
            ehlo_name: Some(Domain::parse("out.far.test").unwrap()),
            egress: Egress::Socks5 { proxy: "10.0.0.1:1080".parse().unwrap(), login: Some(login) },
        };
        let near = Source::of_address("192.0.2.1".parse().unwrap());
        let settings =
            Settings { hostname: "own.test".to_owned(), sources: vec![near, proxied], ..Settings::default() };
        let secret = |login: &Login| Ok(ProxyLogin::new(&login.user, Zeroizing::new("secret".to_owned())).unwrap());
        let outlets = Outlets::new(&settings, secret).unwrap();
        let (near, far) = (outlets.named("192.0.2.1").unwrap(), outlets.named("far").unwrap());
        assert_eq!((near.ehlo_name.as_str(), near.family, &near.via.proxy), ("own.test", Family::V4, &None));
        assert_eq!(far.ehlo_name.as_str(), "out.far.test");
        assert!(matches!(&far.via.proxy, Some(Proxy::Socks5 { login: Some(login), .. }) if login.user() == "mta"));
        assert!(outlets.named("gone").is_none());
        let refused = Outlets::new(&settings, |_| Err("password_file /p: gone".to_owned())).unwrap_err();
        assert_eq!(refused, "source far: password_file /p: gone");
    }
}
