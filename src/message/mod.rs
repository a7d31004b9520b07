//! Messages as octets: scanning header blocks, stamping submitted mail, making bodies 7-bit, DKIM signatures, building delivery
//! status notifications.
//!
//! Promises: only [`mime`] changes a body, and never what it says; what leaves [`stamp::stamp`] is clean by RFC 5322 (CRLF line ends, no header
//! line above 998 octets, one empty line after the header); any input gives a result or a typed refusal, never a panic.
//! Does not: read clocks, draw random numbers, or decide whether somebody may send (`admission`) or when to send again
//! (`policy`).

mod claims;
mod control;
pub mod dkim;
pub mod dsn;
mod encode;
mod fold;
pub mod forward;
pub mod header;
pub mod mime;
pub mod one_click;
mod original;
mod received;
mod report;
pub mod stamp;
pub mod tags;

pub use claims::{Claim, Claims};
pub use control::{Control, is_tag};
pub use original::OriginalHeaders;
