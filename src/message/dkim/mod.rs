//! DKIM signatures (RFC 6376, RFC 8463): relaxed/relaxed, by RSA or Ed25519 over SHA-256.
//!
//! The body is hashed once, as it passes ([`BodyHasher`]), and the hash serves every signature of a message ([`sign`]). The
//! cryptography, the canonical form of header fields and the text of the field are mail-auth's; the canonical form of the body
//! is ours, since mail-auth 0.13 hashes a body that ends in lines of blanks wrongly (fixed upstream in 0.15, which needs a newer
//! compiler), and since it takes the time of signing from the system.
//!
//! Promises: what is signed is all that a reader or a filter goes by, and one instance more than there is of each field that a
//! forger would add ("oversigned", RFC 6376 §8.15); never `l=`. Does not: read files, choose keys (`admission::signing` does), or
//! verify.

mod body;
mod key;
mod record;
mod sign;

pub use body::{BodyHash, BodyHasher};
pub use key::{Algorithm, Key, KeyError};
pub use record::{RecordFault, fault_of};
pub use sign::{SignError, Signer, sign, sign_message};
