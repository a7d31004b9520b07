//! Private keys of DKIM signatures, and the records that publish their public halves (RFC 6376 §3.6.1, RFC 8463 §4).

use std::fmt;

use mail_auth::common::crypto::{DkimKey, Ed25519Key, RsaKey, Sha256};
use mail_builder::encoders::Base64Encoder;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

/// Shorter RSA keys are refused: receivers treat them as no signature (RFC 8301 §3.2).
const RSA_BITS_MIN: usize = 2_048;

/// How a key signs; `a=` of the signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// `rsa-sha256`: every receiver knows it.
    Rsa,
    /// `ed25519-sha256` (RFC 8463): short and cheap; some large receivers do not verify it yet.
    Ed25519,
}

impl Algorithm {
    /// `k=` of the record.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Rsa => "rsa",
            Algorithm::Ed25519 => "ed25519",
        }
    }
}

/// A private key. Never shown.
pub struct Key {
    pub(super) inner: DkimKey,
    algorithm: Algorithm,
    bits: usize,
    public: Vec<u8>,
}

/// Why a text is no key that can sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not PEM, or no private key in it.
    #[error("no private key in PEM form (PKCS#8 or PKCS#1)")]
    NoKey,
    /// Of another kind, or damaged.
    #[error("the key is neither RSA of {RSA_BITS_MIN} to 8192 bits nor Ed25519, or is damaged")]
    Unfit,
}

impl Key {
    /// The first private key of a PEM text.
    pub fn from_pem(pem: &[u8]) -> Result<Key, KeyError> {
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| KeyError::NoKey)?;
        if let PrivateKeyDer::Pkcs8(pkcs8) = &der
            && let Ok(key) = Ed25519Key::from_pkcs8_der(pkcs8.secret_pkcs8_der())
        {
            let public = key.public_key();
            return Ok(Key { inner: key.into(), algorithm: Algorithm::Ed25519, bits: 256, public });
        }
        let key = RsaKey::<Sha256>::from_key_der(der).map_err(|_| KeyError::Unfit)?;
        let pkcs1 = key.public_key();
        let bits = modulus_bits(&pkcs1).filter(|bits| *bits >= RSA_BITS_MIN).ok_or(KeyError::Unfit)?;
        Ok(Key { inner: key.into(), algorithm: Algorithm::Rsa, bits, public: subject_public_key_info(&pkcs1) })
    }

    /// How it signs.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its length in bits.
    pub fn bits(&self) -> usize {
        self.bits
    }

    /// The public half as `p=` has it, before base64: a SubjectPublicKeyInfo of RSA (as everybody publishes it: RFC 6376 erratum
    /// 3017), the 32 octets of Ed25519.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// Whether `published`, the decoded `p=` of a record, is the public half: of RSA as SubjectPublicKeyInfo or as RSAPublicKey.
    pub(super) fn is_published_as(&self, published: &[u8]) -> bool {
        published == self.public
            || (self.algorithm == Algorithm::Rsa && subject_public_key_info(published) == self.public)
    }

    /// The text of the TXT record to publish at `selector._domainkey.domain`.
    pub fn record(&self) -> String {
        let mut public = Vec::new();
        Base64Encoder::new().encode_into(&self.public, &mut public);
        format!("v=DKIM1; k={}; p={}", self.algorithm.name(), String::from_utf8_lossy(&public))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.algorithm.name(), self.bits)
    }
}

/// `SEQUENCE { SEQUENCE { rsaEncryption, NULL }, BIT STRING }` (RFC 5280 §4.1, RFC 3279 §2.3.1).
fn subject_public_key_info(pkcs1: &[u8]) -> Vec<u8> {
    const RSA: [u8; 15] = [0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
    let bit_string = der(3, &[&[0][..], pkcs1].concat());
    der(0x30, &[&RSA[..], &bit_string].concat())
}

/// A DER value.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length = length.iter().position(|byte| *byte != 0).and_then(|at| length.get(at..)).unwrap_or(&[0]);
    let mut out = vec![tag];
    match length {
        [short] if *short < 0x80 => out.push(*short),
        long => {
            out.push(0x80 | u8::try_from(long.len()).unwrap_or(8));
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
    out
}

/// Bits of the first INTEGER of an RSAPublicKey (RFC 8017 §A.1.1).
fn modulus_bits(pkcs1: &[u8]) -> Option<usize> {
    let sequence = der_content(pkcs1, 0x30)?;
    let modulus = der_content(sequence, 2)?;
    let start = modulus.iter().position(|byte| *byte != 0)?;
    let first = modulus.get(start)?;
    Some((modulus.len() - start) * 8 - usize::try_from(first.leading_zeros()).ok()?)
}

/// The content of the DER value at the start.
fn der_content(input: &[u8], tag: u8) -> Option<&[u8]> {
    let rest = input.strip_prefix(&[tag])?;
    let (first, rest) = rest.split_first()?;
    if *first < 0x80 {
        return rest.get(..usize::from(*first));
    }
    let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
    let length = length.iter().try_fold(0_usize, |sum, byte| sum.checked_mul(256)?.checked_add(usize::from(*byte)))?;
    rest.get(..length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_openssl_are_read_and_their_records_are_those_of_openssl() {
        // Public halves by `openssl pkey -pubout -outform DER`, for the 32 octets of Ed25519 the last 32 of it.
        for (name, algorithm, bits) in [
            ("rsa2048", Algorithm::Rsa, 2_048),
            ("rsa2048-pkcs1", Algorithm::Rsa, 2_048),
            ("ed25519", Algorithm::Ed25519, 256),
        ] {
            let file = |kind: &str| {
                let path = format!("{}/tests/data/dkim/{name}.{kind}", env!("CARGO_MANIFEST_DIR"));
                std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
            };
            let key = Key::from_pem(file("pem").as_bytes()).unwrap();
            assert_eq!((key.algorithm(), key.bits()), (algorithm, bits), "{name}");
            assert_eq!(key.record(), file("txt").trim(), "{name}");
            assert!(key.is_published_as(key.public()), "{name}");
            assert!(!key.is_published_as(b""), "{name}");
            assert_eq!(format!("{key:?}"), format!("{}-{bits}", algorithm.name()));
        }
    }

    #[test]
    fn what_cannot_sign_is_refused() {
        let file =
            |name: &str| std::fs::read(format!("{}/tests/data/dkim/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        assert_eq!(Key::from_pem(b"").unwrap_err(), KeyError::NoKey);
        assert_eq!(
            Key::from_pem(b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n").unwrap_err(),
            KeyError::NoKey
        );
        assert_eq!(Key::from_pem(&file("rsa1024.pem")).unwrap_err(), KeyError::Unfit);
        assert_eq!(Key::from_pem(&file("ec256.pem")).unwrap_err(), KeyError::Unfit);
        let damaged = String::from_utf8(file("rsa2048.pem")).unwrap().replacen("MIIE", "MIIF", 1);
        assert_eq!(Key::from_pem(damaged.as_bytes()).unwrap_err(), KeyError::Unfit);
    }
}
