//! The receiving side of SMTP as a machine: octets in, replies and steps out (RFC 5321, 1870, 2034, 2920, 3030, 3207,
//! 3461, 4954, 6152, 6531).
//!
//! ```text
//!              EHLO/HELO            MAIL, admitted          DATA         CRLF.CRLF
//!  Connected ─────────────▶ Ready ────────────────▶ Transaction ──▶ Data ──────────▶ Accepting
//!      ▲                     ▲ ▲                     │  ▲           BDAT            ▲    │
//!      │ TLS is on           │ │ RSET, EHLO, refused │  │ RCPT  ┌────────▶ Chunk ───┘    │
//!  TlsPending ◀──STARTTLS────┘ │◀────────────────────┘──┴───────┤           │ ▲  LAST    │
//!                              │◀─────────────────RSET──────────Chunks ◀────┘ │          │
//!                              │                                 └────BDAT────┘          │
//!                              └──────────── message done or refused ────────────────────┘
//! ```
//! `MailPending` stands between MAIL and its answer, `RecipientPending` between RCPT and its answer where the driver decides on
//! recipients, `Skip` swallows the octets of a BDAT that was refused, `Closed`
//! takes nothing any more. From `Ready`, AUTH leads to `Exchange`, which takes the client's lines for its own, and to
//! `LoginPending` while the driver finds out; both end in `Ready`. QUIT, too many errors and the driver's farewell lead to `Closed` from everywhere.
//!
//! The driver feeds what it has read to [`Machine::step`], acts on the [`Step`], and sends [`Machine::take_output`] before it
//! waits for the client: so the replies to a pipelined group are one write (RFC 2920 §3.2).
//!
//! Promises: a message is handed out once, complete, with at least one recipient; octets behind a refused message are
//! never taken for commands before its real end; nothing that came in clear behind STARTTLS is taken for what came
//! under TLS (CVE-2011-0411). Does not: decide who may relay, know any secret, or keep a message safe.

mod answer;
mod content;
mod data;
mod gate;
mod login;
mod machine;
mod transaction;

#[cfg(test)]
mod tests;

pub use answer::{Answer, Farewell};
pub use content::{Content, ContentLimits, Fault, Hygiene, LongLines};
pub use machine::{Limits, LoginOffer, Machine, Step, TlsState};
pub use transaction::Message;
