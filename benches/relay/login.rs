//! Clients that log in: TLS from the first octet and AUTH PLAIN, by one of a thousand tenants.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use posthaste::admission::password;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::failure::{Context, Result};
use crate::server;

/// Tenants of the config, each with an identity and a credential.
const TENANTS: u32 = 1_000;
/// `AUTH PLAIN` with user `app` and secret `secret` (RFC 4616).
const COMMAND: &str = "AUTH PLAIN AGFwcABzZWNyZXQ=\r\n";

/// How to log in.
#[derive(Clone)]
pub(crate) struct Login {
    tls: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login")
    }
}

/// The tenants. All share one hash, so that making the config takes no time.
pub(crate) fn config() -> String {
    let hash = password::hash(b"secret");
    let mut text = String::new();
    for number in 0..TENANTS {
        let (tenant, user) =
            (format!("tenant-{number}"), if number == 0 { "app".to_owned() } else { format!("app-{number}") });
        let domain = if number == 0 { "load.bench.test".to_owned() } else { format!("t{number}.test") };
        // Writing to a String does not fail.
        let _ = write!(
            text,
            "\n[[tenant]]\nname = \"{tenant}\"\nquota_per_day = 1000000000\n[[identity]]\nname = \"{domain}\"\ntenant = \"{tenant}\"\n\
             [[credential]]\nuser = \"{user}\"\nsecrets = [\"{hash}\"]\ntenant = \"{tenant}\"\n"
        );
    }
    text
}

impl Login {
    /// Trusts the certificate of the run in `directory`.
    pub(crate) fn new(directory: &Path) -> Result<Self> {
        let file = directory.join(server::CERTIFICATE);
        let certificate = CertificateDer::from_pem_file(&file).context(|| format!("{}", file.display()))?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate).context(|| "certificate".to_owned())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context(|| "TLS".to_owned())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // A whole handshake for each connection, as by clients that keep nothing.
        config.resumption = rustls::client::Resumption::disabled();
        let name = ServerName::try_from("mta.bench.test").context(|| "host name".to_owned())?;
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), name })
    }

    pub(crate) async fn handshake(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>> {
        self.tls.connect(self.name.clone(), stream).await.context(|| "TLS handshake of a submission".to_owned())
    }

    pub(crate) fn command(&self) -> &'static str {
        let _ = self;
        COMMAND
    }
}
