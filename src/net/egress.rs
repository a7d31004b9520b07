//! The way out of a connection: from this machine, or by a proxy on another host that has the address.
//!
//! A proxy that fails is ours to mend and says nothing of the host behind it: such an error is a [`ProxyFault`]. Where a SOCKS5
//! proxy says that the host refused or cannot be reached, the error is that of the host, as if we had connected.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use zeroize::Zeroizing;

/// Octets of a user name or password at a SOCKS5 proxy (RFC 1929 §2). Longer: [`ProxyLogin::new`] refuses.
pub const PROXY_LOGIN_BYTES_MAX: usize = 255;

/// By which way a connection goes out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Via {
    /// The address that the host sees. Without a proxy it is bound; `None`: the system, or the proxy, chooses.
    pub address: Option<IpAddr>,
    /// Who connects in our place.
    pub proxy: Option<Proxy>,
}

/// A proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// CONNECT of a SOCKS5 proxy (RFC 1928). Which address it sends from is its own affair.
    Socks5 {
        /// Where it listens.
        address: SocketAddr,
        /// Where it asks for one.
        login: Option<ProxyLogin>,
    },
    /// A proxy that connects from the source to the destination of a PROXY protocol header, version 2.
    HaProxy {
        /// Where it listens.
        address: SocketAddr,
    },
}

/// User name and password at a proxy. The password is never printed, and wiped when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyLogin {
    user: Box<str>,
    password: Zeroizing<String>,
}

impl Via {
    /// From this address of this machine, or one that the system chooses.
    pub const fn direct(address: Option<IpAddr>) -> Self {
        Self { address, proxy: None }
    }
}

impl ProxyLogin {
    /// `None` where one of them is empty or longer than [`PROXY_LOGIN_BYTES_MAX`].
    pub fn new(user: &str, password: Zeroizing<String>) -> Option<Self> {
        let fits = |text: &str| (1..=PROXY_LOGIN_BYTES_MAX).contains(&text.len());
        (fits(user) && fits(&password)).then(|| Self { user: user.into(), password })
    }

    /// The user name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password: for the socket only.
    pub(super) fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for ProxyLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyLogin").field("user", &self.user).field("password", &"[redacted]").finish()
    }
}

/// `socks5 10.0.0.1:1080`, `haproxy 10.0.0.2:2525`.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Proxy::Socks5 { address, .. } => write!(f, "socks5 {address}"),
            Proxy::HaProxy { address } => write!(f, "haproxy {address}"),
        }
    }
}

/// A proxy did not do its work. Within an [`io::Error`]: [`is_proxy_fault`].
#[derive(Debug, thiserror::Error)]
#[error("proxy {proxy}: {problem}")]
pub struct ProxyFault {
    /// Which, as [`Proxy`] is shown.
    pub proxy: String,
    /// What happened.
    pub problem: String,
}

impl ProxyFault {
    /// An error that says so.
    pub fn error(proxy: &Proxy, problem: impl fmt::Display) -> io::Error {
        io::Error::other(Self { proxy: proxy.to_string(), problem: problem.to_string() })
    }
}

/// Whether a proxy is to blame, and not the host.
pub fn is_proxy_fault(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<ProxyFault>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_printed_and_must_fit_its_field() {
        let login = |user: &str, password: &str| ProxyLogin::new(user, Zeroizing::new(password.to_owned()));
        let shown = format!("{:?}", login("mta", "hunter2"));
        assert!(shown.contains("mta") && !shown.contains("hunter2"), "{shown}");
        assert_eq!(login("mta", &"x".repeat(255)).unwrap().user(), "mta");
        assert_eq!((login("", "x"), login("x", ""), login("x", &"x".repeat(256))), (None, None, None));
    }

    #[test]
    fn the_fault_of_a_proxy_is_told_from_that_of_a_host() {
        let proxy = Proxy::HaProxy { address: "10.0.0.2:2525".parse().unwrap() };
        let error = ProxyFault::error(&proxy, "timed out");
        assert_eq!(error.to_string(), "proxy haproxy 10.0.0.2:2525: timed out");
        assert!(is_proxy_fault(&error));
        assert!(!is_proxy_fault(&io::ErrorKind::ConnectionRefused.into()));
    }
}
