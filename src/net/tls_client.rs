//! TLS towards next hops (RFC 3207, RFC 7435): rustls with aws-lc-rs, TLS 1.2 and 1.3, session resumption.
//!
//! Two checks. [`CertificateCheck::Record`] is for opportunistic TLS: any certificate will do, as the alternative is no
//! encryption at all; what a check would have said is recorded. [`CertificateCheck::Enforce`] wants a chain to a known
//! root and the name of the host.
//!
//! Two hellos. [`Hello::Full`] leads with a post-quantum key share and so exceeds one TCP segment, which some peers and
//! firewalls drop in silence; [`Hello::Small`] has X25519 only and is for a second try, on a new connection.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnection, Resumption, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, HandshakeKind, ProtocolVersion, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::BoxStream;
use crate::types::Domain;

/// Hosts whose sessions can be resumed, for each check. Full: the oldest is forgotten, and costs a whole handshake.
const SESSIONS_MAX: usize = 1_024;

/// What to do about the certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CertificateCheck {
    /// Take any, and record what a check says.
    Record,
    /// Chain and name must be valid.
    Enforce,
}

/// Which ClientHello to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Hello {
    /// With a hybrid post-quantum key share: about 1,500 octets.
    #[default]
    Full,
    /// With an X25519 key share: about 300 octets.
    Small,
}

/// Whom the certificate must name.
#[derive(Clone, Copy, Debug)]
pub enum TlsName<'a> {
    /// A host name; also sent as SNI.
    Host(&'a Domain),
    /// An address; no SNI.
    Address(IpAddr),
}

/// What a handshake agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsInfo {
    /// Such as `TLSv1.3`.
    pub version: &'static str,
    /// Such as `TLS13_AES_256_GCM_SHA384`.
    pub cipher: &'static str,
    /// A former session was resumed.
    pub resumed: bool,
    /// `None`: chain and name are valid. Otherwise what is wrong with them.
    pub certificate_problem: Option<Box<str>>,
}

/// Why the client could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsClientError {
    /// The extra roots are no PEM.
    #[error("extra CA certificates: {0} (expected PEM, BEGIN CERTIFICATE)")]
    Pem(String),
    /// A certificate cannot be a root.
    #[error("extra CA certificate {index}: {reason}")]
    Root {
        /// Counted from 1.
        index: usize,
        /// In the words of rustls.
        reason: String,
    },
    /// The parts of rustls do not fit together: a bug.
    #[error("TLS configuration: {0}")]
    Config(String),
}

/// Makes TLS of connections. Cheap to share behind an `Arc`; make a new one when the roots change.
#[derive(Debug)]
pub struct TlsClient {
    record: Configs,
    enforce: Configs,
    verifier: Arc<WebPkiServerVerifier>,
}

#[derive(Debug)]
struct Configs {
    full: Arc<ClientConfig>,
    small: Arc<ClientConfig>,
}

impl TlsClient {
    /// A client that knows Mozilla's roots and those of `extra_roots_pem` (may be empty).
    pub fn new(extra_roots_pem: &[u8]) -> Result<Self, TlsClientError> {
        let full = provider(&[kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1]);
        let small = provider(&[kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1]);
        let roots = Arc::new(roots(extra_roots_pem)?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&full))
            .build()
            .map_err(|error| TlsClientError::Config(error.to_string()))?;
        let any: Arc<dyn ServerCertVerifier> = Arc::new(AnyCertificate { schemes: schemes(&full) });
        Ok(Self {
            record: Configs::new(&full, &small, &any)?,
            enforce: Configs::new(&full, &small, &(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>))?,
            verifier,
        })
    }

    /// Shakes hands over a stream on which nothing is in flight. Has no timeout of its own. Not cancel-safe: the stream is
    /// gone where the future is dropped.
    pub async fn handshake(
        &self,
        stream: BoxStream,
        name: TlsName<'_>,
        check: CertificateCheck,
        hello: Hello,
    ) -> io::Result<(BoxStream, TlsInfo)> {
        let configs = match check {
            CertificateCheck::Record => &self.record,
            CertificateCheck::Enforce => &self.enforce,
        };
        let config = match hello {
            Hello::Full => &configs.full,
            Hello::Small => &configs.small,
        };
        let name = server_name(name)?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
        let stream = connector.connect(name.clone(), stream).await?;
        let info = self.describe(stream.get_ref().1, &name, check);
        Ok((Box::new(stream), info))
    }

    fn describe(&self, connection: &ClientConnection, name: &ServerName<'_>, check: CertificateCheck) -> TlsInfo {
        let problem = match check {
            CertificateCheck::Enforce => None,
            CertificateCheck::Record => self.problem(connection.peer_certificates().unwrap_or_default(), name),
        };
        TlsInfo {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "unknown",
            },
            cipher: connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("unknown"),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            certificate_problem: problem,
        }
    }

    fn problem(&self, chain: &[CertificateDer<'_>], name: &ServerName<'_>) -> Option<Box<str>> {
        let Some((end_entity, intermediates)) = chain.split_first() else {
            return Some("no certificate".into());
        };
        let verdict = self.verifier.verify_server_cert(end_entity, intermediates, name, &[], UnixTime::now());
        match verdict {
            Ok(_) => None,
            // Its long form quotes names of the certificate, which are the peer's bytes.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Some("not valid for the name of the host".into()),
            Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => Some("unknown issuer".into()),
            Err(error) => Some(error.to_string().into()),
        }
    }
}

impl Configs {
    fn new(
        full: &Arc<CryptoProvider>,
        small: &Arc<CryptoProvider>,
        verifier: &Arc<dyn ServerCertVerifier>,
    ) -> Result<Self, TlsClientError> {
        let full = config(full, Arc::clone(verifier))?;
        let mut small = config(small, Arc::clone(verifier))?;
        // A session is resumed only by a config with the same verifier and resolver.
        small.resumption = full.resumption.clone();
        small.client_auth_cert_resolver = Arc::clone(&full.client_auth_cert_resolver);
        Ok(Self { full: Arc::new(full), small: Arc::new(small) })
    }
}

fn config(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<ClientConfig, TlsClientError> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsClientError::Config(error.to_string()))?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
    Ok(config)
}

fn provider(groups: &[&'static dyn SupportedKxGroup]) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { kx_groups: groups.to_vec(), ..aws_lc_rs::default_provider() })
}

pub(super) fn roots(extra_pem: &[u8]) -> Result<RootCertStore, TlsClientError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let mut count = 0;
    for (index, certificate) in CertificateDer::pem_slice_iter(extra_pem).enumerate() {
        let certificate = certificate.map_err(|error| TlsClientError::Pem(error.to_string()))?;
        let added = roots.add(certificate);
        added.map_err(|error| TlsClientError::Root { index: index + 1, reason: error.to_string() })?;
        count += 1;
    }
    if count == 0 && !extra_pem.trim_ascii().is_empty() {
        return Err(TlsClientError::Pem("no certificate found".to_owned()));
    }
    Ok(roots)
}

fn server_name(name: TlsName<'_>) -> io::Result<ServerName<'static>> {
    match name {
        TlsName::Host(host) => ServerName::try_from(host.as_str().to_owned())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{host} cannot stand in a certificate"))),
        TlsName::Address(address) => Ok(ServerName::IpAddress(address.into())),
    }
}

/// What our provider can verify, and the SHA-1 schemes that old TLS 1.2 hosts still sign with: where no certificate is
/// checked, a signature proves nothing either.
fn schemes(provider: &CryptoProvider) -> Vec<SignatureScheme> {
    let mut schemes = provider.signature_verification_algorithms.supported_schemes();
    schemes.extend([SignatureScheme::RSA_PKCS1_SHA1, SignatureScheme::ECDSA_SHA1_Legacy]);
    schemes
}

/// Takes any certificate and any signature: the verifier of opportunistic TLS (RFC 7435).
#[derive(Debug)]
struct AnyCertificate {
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

/// The other side, for the tests of every module that speaks TLS.
#[cfg(test)]
pub(crate) mod testing {
    use std::io;
    use std::sync::Arc;

    use rustls_pki_types::PrivateKeyDer;
    use rustls_pki_types::pem::PemObject;

    use crate::net::BoxStream;

    /// A server with a self-signed certificate.
    #[derive(Clone)]
    pub(crate) struct TestServer {
        /// The certificate, to trust it.
        pub(crate) pem: String,
        config: Arc<rustls::ServerConfig>,
    }

    impl TestServer {
        /// With a certificate for `name`.
        pub(crate) fn new(name: &str) -> Self {
            let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
            let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = rustls::ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key)
                .unwrap();
            Self { pem: made.cert.pem(), config: Arc::new(config) }
        }

        /// Shakes hands.
        pub(crate) async fn accept(&self, stream: BoxStream) -> io::Result<BoxStream> {
            let stream = tokio_rustls::TlsAcceptor::from(Arc::clone(&self.config)).accept(stream).await?;
            Ok(Box::new(stream))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::TestServer;
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn shake(
        client: &TlsClient,
        server: &TestServer,
        name: TlsName<'_>,
        check: CertificateCheck,
        hello: Hello,
    ) -> io::Result<TlsInfo> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let serve = async {
            let mut stream = server.accept(Box::new(far)).await?;
            stream.write_all(b"hello").await?;
            stream.shutdown().await
        };
        let connect = async {
            let (mut stream, info) = client.handshake(Box::new(near), name, check, hello).await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            assert_eq!(text, "hello");
            Ok(info)
        };
        tokio::join!(connect, serve).0
    }

    #[tokio::test]
    async fn opportunistic_takes_any_certificate_and_records_what_is_wrong() {
        let server = TestServer::new("other.test");
        let host = Domain::parse("mx.test").unwrap();
        let client = TlsClient::new(b"").unwrap();
        let info = shake(&client, &server, TlsName::Host(&host), CertificateCheck::Record, Hello::Full).await.unwrap();
        assert_eq!(info.version, "TLSv1.3");
        assert!(info.cipher.starts_with("TLS13_"), "{info:?}");
        assert_eq!(info.certificate_problem.as_deref(), Some("unknown issuer"));
        assert!(!info.resumed);
        let again =
            shake(&client, &server, TlsName::Host(&host), CertificateCheck::Record, Hello::Small).await.unwrap();
        assert!(again.resumed, "{again:?}");
        let address = TlsName::Address("192.0.2.1".parse().unwrap());
        assert!(shake(&client, &server, address, CertificateCheck::Record, Hello::Small).await.is_ok());
        let trusting = TlsClient::new(server.pem.as_bytes()).unwrap();
        let info =
            shake(&trusting, &server, TlsName::Host(&host), CertificateCheck::Record, Hello::Full).await.unwrap();
        assert_eq!(info.certificate_problem.as_deref(), Some("not valid for the name of the host"));
    }

    #[tokio::test]
    async fn enforce_wants_a_known_issuer_and_the_right_name() {
        let server = TestServer::new("mx.test");
        let (right, wrong) = (Domain::parse("mx.test").unwrap(), Domain::parse("other.test").unwrap());
        let stranger = TlsClient::new(b"").unwrap();
        let friend = TlsClient::new(server.pem.as_bytes()).unwrap();
        for (client, host, valid) in [(&stranger, &right, false), (&friend, &wrong, false), (&friend, &right, true)] {
            let result = shake(client, &server, TlsName::Host(host), CertificateCheck::Enforce, Hello::Full).await;
            assert_eq!(result.is_ok(), valid, "{host}: {result:?}");
        }
    }

    #[tokio::test]
    async fn the_small_hello_fits_into_one_segment_and_the_full_one_does_not() {
        let client = TlsClient::new(b"").unwrap();
        let host = Domain::parse("mx.test").unwrap();
        for (hello, small) in [(Hello::Small, true), (Hello::Full, false)] {
            let (near, mut far) = tokio::io::duplex(64 * 1024);
            let mut header = [0; 5];
            let connect = client.handshake(Box::new(near), TlsName::Host(&host), CertificateCheck::Record, hello);
            let read =
                async move { far.read_exact(&mut header).await.map(|_| u16::from_be_bytes([header[3], header[4]])) };
            let (_, length) = tokio::join!(connect, read);
            let length = length.unwrap();
            assert_eq!(length < 600, small, "{hello:?}: {length}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        assert!(matches!(TlsClient::new(b"not pem"), Err(TlsClientError::Pem(_))));
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(TlsClient::new(broken), Err(TlsClientError::Root { index: 1, .. })));
        assert!(TlsClient::new(b" \n").is_ok());
    }
}
