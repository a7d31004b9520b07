//! TLS of listeners: certificates from PEM files, as settings of rustls.
//!
//! Loaded at start and at every reload; sessions keep the settings they began with. TLS 1.2 and 1.3, no client
//! certificates. Promises: a key that does not belong to its certificate is an error here, not at the first handshake.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::{BoxStream, Stream};

/// Why certificate files are not usable. The texts name the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Missing, not readable for our user, or not PEM.
    #[error("cannot read {what} {path}: {reason}; it must be a PEM file that the daemon's user may read")]
    Read {
        /// "certificate chain" or "private key".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// In the words of the system or the parser.
        reason: String,
    },
    /// A PEM file without the part that is needed.
    #[error("{path} holds no {what}; expected a PEM block such as -----BEGIN {block}-----")]
    Missing {
        /// "certificate chain" or "private key".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The block's name.
        block: &'static str,
    },
    /// The two do not belong together, or the key's kind is not supported.
    #[error("certificate {certificate} and key {key} cannot be used together: {reason}")]
    Unusable {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
        /// In the words of rustls.
        reason: Box<rustls::Error>,
    },
}

/// Reads a certificate chain (leaf first) and its key (PKCS#8, PKCS#1 or SEC1). Blocking: small files.
pub fn load(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, CertificateError> {
    let chain = read_chain(certificate)?;
    let private_key =
        PrivateKeyDer::from_pem_file(key).map_err(|error| pem_error("private key", "PRIVATE KEY", key, &error))?;
    let unusable = |reason| CertificateError::Unusable {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        reason: Box::new(reason),
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, private_key)
        .map_err(unusable)?;
    Ok(Arc::new(config))
}

/// The same, for HTTP/1.1 (RFC 7301: clients that offer only others are refused). Blocking.
pub fn load_http(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, CertificateError> {
    let mut config = (*load(certificate, key)?).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Opens TLS on a connection that a client made. Not cancel-safe: dropped, the connection closes.
pub async fn accept(config: Arc<ServerConfig>, stream: impl Stream) -> io::Result<BoxStream> {
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    Ok(Box::new(stream))
}

pub(super) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    const WHAT: &str = "certificate chain";
    let error = |error: &pem::Error| pem_error(WHAT, "CERTIFICATE", path, error);
    let blocks = CertificateDer::pem_file_iter(path).map_err(|source| error(&source))?;
    let chain = blocks.collect::<Result<Vec<_>, _>>().map_err(|source| error(&source))?;
    if chain.is_empty() {
        return Err(error(&pem::Error::NoItemsFound));
    }
    Ok(chain)
}

fn pem_error(what: &'static str, block: &'static str, path: &Path, error: &pem::Error) -> CertificateError {
    match error {
        pem::Error::NoItemsFound => CertificateError::Missing { what, path: path.to_owned(), block },
        // The parser's texts quote lines of the file: not for keys.
        pem::Error::Io(error) => CertificateError::Read { what, path: path.to_owned(), reason: error.to_string() },
        _ => CertificateError::Read { what, path: path.to_owned(), reason: "not valid PEM".to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_pair(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let pair = rcgen::generate_simple_self_signed(vec!["mx.test".to_owned()]).unwrap();
        let (certificate, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        std::fs::write(&certificate, pair.cert.pem()).unwrap();
        std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
        (certificate, key)
    }

    #[test]
    fn a_pair_loads_and_a_mismatch_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (first, first_key) = write_pair(dir.path(), "first");
        let (_, second_key) = write_pair(dir.path(), "second");
        assert!(load(&first, &first_key).is_ok());
        let error = load(&first, &second_key).unwrap_err().to_string();
        assert!(error.contains("first.crt") && error.contains("second.key"), "{error}");
    }

    #[test]
    fn missing_and_wrong_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = write_pair(dir.path(), "pair");
        let absent = dir.path().join("absent.pem");
        assert!(load(&absent, &key).unwrap_err().to_string().contains("absent.pem"));
        let swapped = load(&key, &certificate).unwrap_err();
        assert!(matches!(swapped, CertificateError::Missing { what: "certificate chain", .. }), "{swapped}");
        let garbage = dir.path().join("garbage.pem");
        std::fs::write(&garbage, "-----BEGIN PRIVATE KEY-----\nsecret!\n-----END PRIVATE KEY-----\n").unwrap();
        let error = load(&certificate, &garbage).unwrap_err().to_string();
        assert!(error.contains("garbage.pem") && !error.contains("secret"), "{error}");
    }
}
