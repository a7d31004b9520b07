//! Certificates for one name, made on the spot, and both sides of a blocking TLS connection with them.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

/// Self-signed, for one name.
#[derive(Clone)]
pub(crate) struct Certificate {
    name: String,
    certificate_pem: String,
    key_pem: String,
}

impl Certificate {
    pub(crate) fn for_name(name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        Self { name: name.to_owned(), certificate_pem: made.cert.pem(), key_pem: made.signing_key.serialize_pem() }
    }

    /// One that ended on the first day of 2020.
    pub(crate) fn expired(name: &str) -> Self {
        let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate_pem = params.self_signed(&key).unwrap().pem();
        Self { name: name.to_owned(), certificate_pem, key_pem: key.serialize_pem() }
    }

    /// Writes (again) `certificate.pem` and `key.pem` in `dir`; their paths.
    pub(crate) fn write(&self, dir: &Path) -> (PathBuf, PathBuf) {
        let (certificate, key) = (dir.join("certificate.pem"), dir.join("key.pem"));
        std::fs::write(&certificate, &self.certificate_pem).unwrap();
        std::fs::write(&key, &self.key_pem).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&key, mode).unwrap();
        (certificate, key)
    }

    /// Writes (again) only `certificate.pem`.
    pub(crate) fn write_certificate_only(&self, dir: &Path) {
        std::fs::write(dir.join("certificate.pem"), &self.certificate_pem).unwrap();
    }

    /// The client's side: trusts this certificate and no other. Handshakes before it returns.
    pub(crate) fn connect(&self, mut stream: TcpStream) -> io::Result<impl Read + Write + Send + use<>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der()).unwrap();
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(self.name.clone()).unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(connection, stream))
    }

    /// The server's side. Handshakes before it returns.
    pub(crate) fn accept(&self, mut stream: TcpStream) -> io::Result<impl Read + Write + Send + use<>> {
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.der()], key)
            .unwrap();
        let mut connection = ServerConnection::new(Arc::new(config)).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(connection, stream))
    }

    fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate_pem.as_bytes()).unwrap()
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
