//! Secrets of credentials: made, hashed and checked. argon2id, in PHC form (`$argon2id$v=19$m=...,t=...,p=...$salt$hash`).
//!
//! Promises: a hash has a salt of its own; the comparison takes the same time whatever differs; a hash from a config cannot
//! ask for more memory or time than the bounds below. Does not: keep a secret, or say it.

use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};

/// KiB of memory that a hash may ask for: 256 MiB. Above: an error of the config. One core works on one at a time.
pub const MEMORY_KIB_MAX: u32 = 256 * 1_024;
/// Passes that a hash may ask for. Above: an error of the config.
pub const PASSES_MAX: u32 = 16;
/// Lanes that a hash may ask for. Above: an error of the config.
pub const LANES_MAX: u32 = 8;
/// Octets of a secret; more than anybody types or generates. Longer ones are wrong without a look.
pub const SECRET_BYTES_MAX: usize = 1_024;
/// Octets of a hash in PHC form. Longer: an error of the config.
pub const HASH_BYTES_MAX: usize = 512;

/// What OWASP's password storage cheat sheet asks for at least: passes, and KiB of memory with so many.
const OWASP_MINIMUM: [(u32, u32); 5] = [(1, 47_104), (2, 19_456), (3, 12_288), (4, 9_216), (5, 7_168)];
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;

/// Letters and digits of generated secrets: none that look alike.
const LETTERS: &[u8; 56] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789";
/// Letters of a generated secret: 185 bits.
const SECRET_LETTERS: usize = 32;
/// Letters of the generated part of a user name.
const USER_LETTERS: usize = 12;

/// Whether a hash is as slow as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strength {
    /// At least what OWASP asks for.
    Good,
    /// Faster to guess than that.
    Weak,
}

/// Why a text is no hash that we take. The texts say what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// No PHC string, or one of something else.
    #[error("is not an argon2id hash; make one with `posthaste credential hash`")]
    NotArgon2id,
    /// It would take the machine.
    #[error("asks for more than 256 MiB, 16 passes or 8 lanes; make one with `posthaste credential hash`")]
    TooCostly,
}

/// Whether `hash` is one that we take, and how strong it is.
pub fn check(hash: &str) -> Result<Strength, HashError> {
    let params = parse(hash)?.1;
    let is_good = OWASP_MINIMUM.iter().any(|(passes, kib)| params.t_cost() >= *passes && params.m_cost() >= *kib);
    Ok(if is_good { Strength::Good } else { Strength::Weak })
}

/// Whether `secret` is the one that `hash` was made of. Takes milliseconds of a core and the memory that the hash asks for:
/// for blocking threads only.
pub fn verify(hash: &str, secret: &[u8]) -> bool {
    let Ok((hash, _)) = parse(hash) else { return false };
    secret.len() <= SECRET_BYTES_MAX && Argon2::default().verify_password(secret, &hash).is_ok()
}

/// A hash of `secret` with OWASP's minimum of memory and passes and a new salt.
pub fn hash(secret: &[u8]) -> String {
    hash_with(secret, &rand::random::<[u8; SALT_BYTES]>(), 19_456, 2)
}

/// A new user name and a secret that nobody guesses.
pub fn generate() -> (String, String) {
    (format!("app-{}", letters(USER_LETTERS).to_ascii_lowercase()), letters(SECRET_LETTERS))
}

/// A cheap hash for tests, which the config reader calls weak.
#[cfg(test)]
pub(crate) fn weak_hash(secret: &str) -> String {
    hash_with(secret.as_bytes(), b"0123456789abcdef", 64, 1)
}

fn hash_with(secret: &[u8], salt: &[u8], memory_kib: u32, passes: u32) -> String {
    let params = Params::new(memory_kib, passes, 1, Some(HASH_BYTES)).expect("constants within argon2's own limits");
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = hasher.hash_password_with_salt(secret, salt).expect("the salt has the length that argon2 recommends");
    hash.to_string()
}

fn parse(text: &str) -> Result<(PasswordHash, Params), HashError> {
    let is_ours = text.len() <= HASH_BYTES_MAX && text.starts_with("$argon2id$");
    let hash = is_ours.then(|| PasswordHash::new(text).ok()).flatten().ok_or(HashError::NotArgon2id)?;
    let params = Params::try_from(&hash).map_err(|_| HashError::NotArgon2id)?;
    if hash.version != Some(Version::V0x13.into()) || hash.salt.is_none() || hash.hash.is_none() {
        return Err(HashError::NotArgon2id);
    }
    if params.m_cost() > MEMORY_KIB_MAX || params.t_cost() > PASSES_MAX || params.p_cost() > LANES_MAX {
        return Err(HashError::TooCostly);
    }
    Ok((hash, params))
}

fn letters(count: usize) -> String {
    let mut text = String::with_capacity(count);
    while text.len() < count {
        // What is left of an octet's range would make some letters likelier than others.
        let index = usize::from(rand::random::<u8>() & 63);
        if let Some(letter) = LETTERS.get(index) {
            text.push(char::from(*letter));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_fits_its_secret_and_no_other() {
        let made = hash(b"correct horse");
        assert_eq!(check(&made), Ok(Strength::Good));
        assert!(made.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{made}");
        assert!(verify(&made, b"correct horse"));
        for wrong in [&b"correct hors"[..], b"correct horse ", b"", b"Correct horse"] {
            assert!(!verify(&made, wrong));
        }
        assert_ne!(made, hash(b"correct horse"), "each hash has its own salt");
    }

    #[test]
    fn hashes_of_the_reference_implementation_are_taken() {
        // From its test.c.
        let made = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        assert_eq!(check(made), Ok(Strength::Good));
        assert!(verify(made, b"password"));
        assert!(!verify(made, b"passwore"));
    }

    #[test]
    fn hashes_that_are_something_else_or_would_take_the_machine_are_refused() {
        let good = hash(b"x");
        let (_, tail) = good.split_once("p=1").unwrap();
        for (text, error) in [
            (String::new(), HashError::NotArgon2id),
            ("hunter2".to_owned(), HashError::NotArgon2id),
            ("$2y$10$abcdefghijklmnopqrstuv".to_owned(), HashError::NotArgon2id),
            (good.replace("argon2id", "argon2i"), HashError::NotArgon2id),
            (good.replace("v=19", "v=16"), HashError::NotArgon2id),
            ("$argon2id$v=19$m=19456,t=2,p=1".to_owned(), HashError::NotArgon2id),
            ("$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ".to_owned(), HashError::NotArgon2id),
            (format!("{good}{}", "A".repeat(HASH_BYTES_MAX)), HashError::NotArgon2id),
            (format!("$argon2id$v=19$m=262145,t=2,p=1{tail}"), HashError::TooCostly),
            (format!("$argon2id$v=19$m=19456,t=17,p=1{tail}"), HashError::TooCostly),
            (format!("$argon2id$v=19$m=19456,t=2,p=9{tail}"), HashError::TooCostly),
        ] {
            assert_eq!(check(&text), Err(error), "{text}");
            assert!(!verify(&text, b"x"), "{text}");
        }
    }

    #[test]
    fn what_is_below_the_minimum_is_weak() {
        let strength = |kib, passes| check(&hash_with(b"x", b"0123456789abcdef", kib, passes));
        assert_eq!(strength(12_288, 3), Ok(Strength::Good));
        assert_eq!(strength(7_168, 9), Ok(Strength::Good));
        assert_eq!(strength(12_287, 3), Ok(Strength::Weak));
        assert_eq!(strength(19_456, 1), Ok(Strength::Weak));
    }

    #[test]
    fn generated_credentials_differ_and_need_no_quotes() {
        let (user, secret) = generate();
        let (other_user, other_secret) = generate();
        assert!(user != other_user && secret != other_secret);
        assert_eq!(secret.len(), SECRET_LETTERS);
        assert!(user.bytes().chain(secret.bytes()).all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
    }
}
