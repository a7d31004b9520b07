//! Bodies made 7-bit, without long lines, before they are signed: so that a signature survives a host without 8BITMIME
//! (RFC 6152 §3 makes the host before it re-encode) and one that cuts or wraps long lines (RFC 5321 §4.5.3.1.6).
//!
//! Two passes, since a part's header precedes what it describes. [`Scanner`] gets the header block and then the body as it
//! arrives, and ends with a [`Plan`]. [`Plan::header`] gives the header block to stamp and
//! sign. Most bodies need nothing: [`Plan::is_clean`]. For the others [`Rewriter`] gives the body, from the same octets a second
//! time.
//!
//! # What changes
//! - A part with octets above 127 or a line above 998 octets, under `7bit`, `8bit`, `binary`, none or an unknown encoding,
//!   becomes quoted-printable or base64 (RFC 2045 §6.7, §6.8): text the former, unless base64 is shorter by more than a
//!   quarter; all else what is shorter. A part that is base64 or quoted-printable already, with long lines or octets that may not be there, is
//!   wrapped anew.
//! - `Content-Transfer-Encoding` is replaced or added, and `MIME-Version` and `Content-Type` are added to a message that has
//!   none.
//! - `8bit` and `binary` become `7bit` where the content is, as it came or once this is done: hosts before one without 8BITMIME
//!   go by the label (Postfix does), and would re-encode plain ASCII. The content stays.
//! - Text without a charset that has octets above 127 gets one: `utf-8` if it is that, else `iso-8859-1`, which gives every
//!   octet a meaning and is what programs that name none have mostly written; `us-ascii`, the default, is wrong for sure.
//!   HTML and XML that are no UTF-8 get none, for they may name theirs inside, and the label would win.
//! - Fields of part headers and of attached messages: octets above 127 are encoded (RFC 2047, RFC 2231), long lines are
//!   folded, as with the header of the message itself.
//! - What stands before the first and after the last part of a multipart, which no reader shows: octets above 127 become
//!   `?`, long lines are split.
//!
//! # What does not change
//! What is clean, to the octet, but for those labels: a whole body, or parts of one that is not; what a part decodes to. In
//! `multipart/signed` and `multipart/encrypted` (RFC 1847) nothing, since a change would break the signature for sure; nor
//! in `message/*` other than `rfc822` and `global`, which RFC 2046 §5.2 allows no other encoding; nor where the
//! structure cannot be told for sure. [`Plan::remaining`] says what remains, and why.
//!
//! # Promises
//! Any octets give a result, never a panic. The result does not depend on how the octets were cut. The same octets given to
//! [`Scanner`] and [`Rewriter`] are walked by the same code, so that a plan fits its body. Re-encoded lines have at most 76
//! octets, and in quoted-printable none ends with white space, begins with a dot or `From `, or looks like a boundary,
//! so that nothing a host does to lines changes the text. What was rewritten is clean when it is scanned again.
//!
//! # Does not
//! Touch the header block beyond its MIME fields (`message::stamp` does), encode a charset anew, read clocks or keep more
//! than the bounds below. Line ends are CRLF, as reception makes them; a bare CR or LF is an octet of its line.
//!
//! # Limits
//! 64 KiB for the header of a part, 1,000 parts, 32 parts deep, boundaries of 200 octets (RFC 2046 §5.1.1 allows 70). What is
//! beyond stays as it is. Memory is that of the longest part header and of a few words a part.
//!
//! # Encoders
//! Base64 is `mail-builder`'s, fed whole lines. Its quoted-printable encoder works on a whole text at once and guards
//! none of the places named above, so there is one of our own.

mod base64_lines;
mod content_type;
mod entity;
mod part_header;
mod plan;
mod quoted_printable;
mod rewrite;
mod scan;
#[cfg(test)]
mod tests;
mod utf8;
mod walk;

pub use plan::{Dirt, Plan, Reason, Remaining};
pub use rewrite::Rewriter;
pub use scan::Scanner;

/// What becomes of bodies with octets above 127.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EightBitBodies {
    /// Re-encoded, so that any host can carry them as they were signed.
    Encode,
    /// Sent as they came: for networks where every hop is known to speak 8BITMIME.
    Pass,
}
