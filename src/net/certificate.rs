//! What clients will think of a listener's certificate: judged by rustls as of a given time, without any handshake.
//!
//! Three questions that a client's verifier answers with its first failure only are asked apart: validity in time, the
//! name, and who vouches for it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError as Verdict, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::tls_client::{TlsClientError, roots};
use super::tls_server::{self, CertificateError};
use crate::types::{Domain, Timestamp};

/// Whether the certificate counts at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// It does, and for as long as was asked.
    Good,
    /// It does, and ends within the time that was asked.
    EndsSoon(Timestamp),
    /// It has ended.
    Expired(Timestamp),
    /// It has not begun.
    NotYet(Timestamp),
}

/// Who vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Issuer {
    /// A root of Mozilla's, or one that was given.
    Known,
    /// Itself.
    Itself,
    /// Nobody that is known, along the certificates of the file.
    Unknown,
    /// The chain cannot be verified for another reason, in the words of rustls.
    Broken(String),
}

/// All three.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examination {
    /// In time.
    pub validity: Validity,
    /// Whether it covers the host's name.
    pub covers_name: bool,
    /// Trust.
    pub issuer: Issuer,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum ExaminationError {
    /// The files are of no use: the listener could not start with them either.
    #[error(transparent)]
    Files(#[from] CertificateError),
    /// The roots that were given are of no use.
    #[error(transparent)]
    Roots(#[from] TlsClientError),
    /// The certificate cannot be read, in the words of rustls.
    #[error("the certificate cannot be read: {0}")]
    Certificate(String),
}

/// Looks at a chain and its key as a client that knows `host`, Mozilla's roots and those of `extra_roots_pem` would at
/// `now`; [`Validity::EndsSoon`] where it ends within `ahead`. Blocks on the disk.
pub fn examine(
    certificate: &Path,
    key: &Path,
    host: &Domain,
    extra_roots_pem: &[u8],
    now: Timestamp,
    ahead: Duration,
) -> Result<Examination, ExaminationError> {
    tls_server::load(certificate, key)?;
    let chain = tls_server::read_chain(certificate)?;
    let (leaf, others) = chain.split_first().expect("an empty chain is an error of read_chain");
    let parsed = ParsedCertificate::try_from(leaf).map_err(|error| ExaminationError::Certificate(error.to_string()))?;
    let name = ServerName::try_from(host.as_str().to_owned())
        .map_err(|_| ExaminationError::Certificate(format!("{host} cannot stand in a certificate")))?;
    let view = View { leaf, others, name: &name };
    let itself = Arc::new(root_of(leaf));
    let trusted = Arc::new(roots(extra_roots_pem)?);
    let validity = view.validity(&trusted, now, ahead);
    // Trust is asked for at a time when the certificate counts, if it ever does.
    let at = match validity {
        Validity::Good | Validity::EndsSoon(_) => now,
        Validity::Expired(end) => end.minus(Duration::from_secs(1)),
        Validity::NotYet(begin) => begin.plus(Duration::from_secs(1)),
    };
    let covers_name = verify_server_name(&parsed, &name).is_ok();
    Ok(Examination { validity, covers_name, issuer: view.issuer(&trusted, &itself, at) })
}

fn root_of(certificate: &CertificateDer<'static>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // One that cannot be a root vouches for nothing.
    let _ = roots.add(certificate.clone());
    roots
}

struct View<'a> {
    leaf: &'a CertificateDer<'static>,
    others: &'a [CertificateDer<'static>],
    name: &'a ServerName<'a>,
}

impl View<'_> {
    /// The first thing that a verifier finds wrong.
    fn verdict(&self, roots: &Arc<RootCertStore>, at: Timestamp) -> Option<Verdict> {
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), provider).build().ok()?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at.seconds()));
        match verifier.verify_server_cert(self.leaf, self.others, self.name, &[], at) {
            Err(rustls::Error::InvalidCertificate(verdict)) => Some(verdict),
            Err(error) => Some(Verdict::Other(rustls::OtherError(Arc::new(error)))),
            Ok(_) => None,
        }
    }

    /// Dates are looked at before the issuer and the name, so that the verdict is one on them or they are good.
    fn validity(&self, roots: &Arc<RootCertStore>, now: Timestamp, ahead: Duration) -> Validity {
        match self.verdict(roots, now) {
            Some(Verdict::ExpiredContext { not_after, .. }) => return Validity::Expired(timestamp(not_after)),
            Some(Verdict::Expired) => return Validity::Expired(now),
            Some(Verdict::NotValidYetContext { not_before, .. }) => return Validity::NotYet(timestamp(not_before)),
            Some(Verdict::NotValidYet) => return Validity::NotYet(now),
            _ => {}
        }
        match self.verdict(roots, now.plus(ahead)) {
            Some(Verdict::ExpiredContext { not_after, .. }) => Validity::EndsSoon(timestamp(not_after)),
            Some(Verdict::Expired) => Validity::EndsSoon(now.plus(ahead)),
            _ => Validity::Good,
        }
    }

    fn issuer(&self, trusted: &Arc<RootCertStore>, itself: &Arc<RootCertStore>, at: Timestamp) -> Issuer {
        match self.verdict(trusted, at) {
            None | Some(Verdict::NotValidForName | Verdict::NotValidForNameContext { .. }) => Issuer::Known,
            Some(Verdict::UnknownIssuer) => match self.verdict(itself, at) {
                None | Some(Verdict::NotValidForName | Verdict::NotValidForNameContext { .. }) => Issuer::Itself,
                Some(_) => Issuer::Unknown,
            },
            Some(other) => Issuer::Broken(other.to_string()),
        }
    }
}

fn timestamp(time: UnixTime) -> Timestamp {
    Timestamp::from_millis(time.as_secs().saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer as Signer, KeyPair, date_time_ymd};

    use super::*;

    /// In the middle of 2030.
    const NOW: Timestamp = Timestamp::from_millis(1_909_000_000_000);
    const AHEAD: Duration = Duration::from_secs(14 * 86_400);

    struct Files {
        dir: tempfile::TempDir,
        authority_pem: String,
        authority: Signer<'static, KeyPair>,
    }

    impl Files {
        fn new() -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let authority_pem = params.self_signed(&key).unwrap().pem();
            Self { dir: tempfile::tempdir().unwrap(), authority_pem, authority: Signer::new(params, key) }
        }

        fn write(&self, years: (i32, i32), name: &str, by_authority: bool) -> (PathBuf, PathBuf) {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new([name.to_owned()]).unwrap();
            (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
            let certificate = match by_authority {
                true => params.signed_by(&key, &self.authority).unwrap(),
                false => params.self_signed(&key).unwrap(),
            };
            let paths = (self.dir.path().join("cert.pem"), self.dir.path().join("key.pem"));
            std::fs::write(&paths.0, certificate.pem()).unwrap();
            std::fs::write(&paths.1, key.serialize_pem()).unwrap();
            paths
        }
    }

    #[test]
    fn time_name_and_issuer_are_judged_apart() {
        let files = Files::new();
        let host = Domain::parse("mail.shop.test").unwrap();
        let ending = Timestamp::from_millis(1_893_456_000_000);
        for (years, name, by_authority, knows, validity, covers_name, issuer) in [
            ((2020, 2040), "mail.shop.test", true, true, Validity::Good, true, Issuer::Known),
            ((2020, 2040), "*.shop.test", true, true, Validity::Good, true, Issuer::Known),
            ((2020, 2040), "mail.shop.test", true, false, Validity::Good, true, Issuer::Unknown),
            ((2020, 2040), "mail.shop.test", false, false, Validity::Good, true, Issuer::Itself),
            ((2020, 2040), "other.test", true, true, Validity::Good, false, Issuer::Known),
            ((2020, 2040), "other.test", false, false, Validity::Good, false, Issuer::Itself),
            ((2020, 2030), "mail.shop.test", true, true, Validity::Expired(ending), true, Issuer::Known),
            ((2020, 2030), "other.test", false, false, Validity::Expired(ending), false, Issuer::Itself),
        ] {
            let (certificate, key) = files.write(years, name, by_authority);
            let roots = if knows { files.authority_pem.as_bytes() } else { b"" };
            let found = examine(&certificate, &key, &host, roots, NOW, AHEAD).unwrap();
            assert_eq!(found, Examination { validity, covers_name, issuer }, "{years:?} {name} {by_authority} {knows}");
        }
    }

    #[test]
    fn an_end_within_the_time_ahead_is_soon_and_a_beginning_ahead_is_not_yet() {
        let files = Files::new();
        let host = Domain::parse("mail.shop.test").unwrap();
        let (certificate, key) = files.write((2020, 2030), "mail.shop.test", false);
        let end = Timestamp::from_millis(1_893_456_000_000);
        for (before_days, validity) in [(15, Validity::Good), (13, Validity::EndsSoon(end))] {
            let now = end.minus(Duration::from_secs(before_days * 86_400));
            let found = examine(&certificate, &key, &host, b"", now, AHEAD).unwrap();
            assert_eq!(found.validity, validity);
        }
        let early = Timestamp::from_millis(1_500_000_000_000);
        let found = examine(&certificate, &key, &host, b"", early, AHEAD).unwrap();
        assert_eq!(found.validity, Validity::NotYet(Timestamp::from_millis(1_577_836_800_000)));
        assert_eq!(found.issuer, Issuer::Itself);
    }

    #[test]
    fn files_that_are_missing_are_named() {
        let absent = Path::new("/nonexistent/cert.pem");
        let host = Domain::parse("mail.shop.test").unwrap();
        let error = examine(absent, absent, &host, b"", NOW, AHEAD).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/cert.pem"), "{error}");
    }
}
