//! The message that a report speaks of: its header, and all that could say which of ours it was.
//!
//! Promises: bounded; values are what the report holds, unverified: whoever resolves them checks tokens and ids.

use super::address;
use super::fields::{self, Block};
use super::mail::Mail;
use crate::policy::token::TOKEN_CHARS;
use crate::types::EmailAddress;

/// Octets of a returned header that are read.
pub(super) const HEADER_BYTES_MAX: usize = 64 << 10;
/// Fields of it that are kept.
const KEPT_FIELDS_MAX: usize = 100;
/// Octets of one that are kept.
const KEPT_VALUE_BYTES_MAX: usize = 1_000;
/// Values of one kind of clue. Above: the others are dropped.
const CLUES_MAX: usize = 20;
/// Words like tokens of one block that are kept at each of its ends: ours stand there, whatever the sender wrote in between.
const TOKENS_AT_END_MAX: usize = 10;
/// Such words of all blocks. Above: the others are dropped.
const TOKENS_MAX: usize = 100;

/// The original message as a report returns it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Original {
    /// Names in lower case and unfolded values, at most 100 of at most 1,000 octets.
    pub fields: Vec<(String, String)>,
    /// Addresses of `To` and `Cc`, at most 20.
    pub recipients: Vec<EmailAddress>,
    /// What could identify it.
    pub clues: Clues,
}

impl Original {
    /// Nothing was returned.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The first field of this name, in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|field| field.0 == name).map(|field| field.1.as_str())
    }
}

/// What could say which message of ours it was; nothing of it is verified. At most 20 of each kind, 100 of `tokens`, in the order found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clues {
    /// Words of 56 base32 characters: perhaps tokens ([`crate::policy::token`]), from addresses, links and fields.
    pub tokens: Vec<String>,
    /// Addresses that could be a return path of ours: `Return-Path`, `Original-Mail-From`, `X-Envelope-From` and the like.
    pub return_paths: Vec<EmailAddress>,
    /// `Message-ID`, without angle brackets.
    pub message_ids: Vec<String>,
    /// `CFBL-Feedback-ID` (RFC 9477 §4.2).
    pub cfbl_feedback_ids: Vec<String>,
    /// `Feedback-ID`.
    pub feedback_ids: Vec<String>,
    /// URIs of `List-Unsubscribe`.
    pub unsubscribe_uris: Vec<String>,
    /// Fields that begin with `x-`: name in lower case, value.
    pub x_fields: Vec<(String, String)>,
}

/// Fields that hold the envelope's sender.
const SENDER_FIELDS: [&str; 7] = [
    "return-path",
    "original-mail-from",
    "x-envelope-from",
    "x-original-mail-from",
    "envelope-from",
    "x-return-path",
    "errors-to",
];

impl Clues {
    /// Takes what a block of fields offers.
    pub(super) fn add(&mut self, block: &Block) {
        for (name, value) in block.iter() {
            match name {
                "message-id" => push(&mut self.message_ids, value.trim_matches(['<', '>', ' ']).to_owned()),
                "cfbl-feedback-id" => push(&mut self.cfbl_feedback_ids, value.to_owned()),
                "feedback-id" | "x-feedback-id" => push(&mut self.feedback_ids, value.to_owned()),
                "list-unsubscribe" => {
                    let uris = value.split(['<', '>', ',']).map(str::trim).filter(|uri| uri.contains(':'));
                    uris.for_each(|uri| push(&mut self.unsubscribe_uris, uri.to_owned()));
                }
                _ if SENDER_FIELDS.contains(&name) => {
                    if let Some(sender) = address::mailbox(value) {
                        push(&mut self.return_paths, sender);
                    }
                }
                _ if name.starts_with("x-") && value.len() <= KEPT_VALUE_BYTES_MAX => {
                    push(&mut self.x_fields, (name.to_owned(), value.to_owned()));
                }
                _ => {}
            }
        }
    }

    /// Takes the words that look like tokens.
    pub(super) fn add_tokens(&mut self, bytes: &[u8]) {
        let is_digit = |byte: u8| byte.is_ascii_alphabetic() || (b'2'..=b'7').contains(&byte);
        let words = || bytes.split(|byte| !is_digit(*byte)).filter(|word| word.len() == TOKEN_CHARS);
        let last = words().count().saturating_sub(TOKENS_AT_END_MAX);
        let at_ends = words().enumerate().filter(|(at, _)| *at < TOKENS_AT_END_MAX || *at >= last);
        for (_, word) in at_ends {
            let word = String::from_utf8_lossy(word).to_ascii_lowercase();
            if self.tokens.len() < TOKENS_MAX && !self.tokens.contains(&word) {
                self.tokens.push(word);
            }
        }
    }
}

fn push<T: PartialEq>(list: &mut Vec<T>, value: T) {
    if list.len() < CLUES_MAX && !list.contains(&value) {
        list.push(value);
    }
}

/// The original from a header block.
pub(super) fn from_header(bytes: &[u8]) -> Original {
    let bytes = bytes.get(..HEADER_BYTES_MAX).unwrap_or(bytes);
    let block = fields::header(bytes);
    let mut clues = Clues::default();
    clues.add(&block);
    // A token in a folded field is whole within a line, or it is none.
    clues.add_tokens(bytes);
    let lists = ["to", "cc"].into_iter().flat_map(|name| block.all(name).collect::<Vec<_>>());
    let recipients = lists.flat_map(address::find_all).map(|found| found.address).take(CLUES_MAX).collect();
    let kept = block.iter().take(KEPT_FIELDS_MAX);
    let fields =
        kept.map(|(name, value)| (name.to_owned(), super::diagnostic::head(value, KEPT_VALUE_BYTES_MAX).to_owned()));
    Original { fields: fields.collect(), recipients, clues }
}

/// Types of parts that hold a returned message or its header (RFC 6522 §3, RFC 6533 §5).
const RETURNED: [&str; 6] = [
    "message/rfc822",
    "message/global",
    "text/rfc822-headers",
    "message/global-headers",
    "text/rfc822-header",
    "message/rfc822-headers",
];

/// The original that a report attaches: a part beside the others of the message with index `message`.
pub(super) fn attached(mail: &Mail<'_>, message: usize) -> Option<Original> {
    // A message that is nothing but another one counts, too.
    let returns = |at: usize, kind: &str| RETURNED.contains(&kind) && (at != message || kind.starts_with("message/"));
    let (at, part) = mail.of_message(message).find(|(at, part)| returns(*at, part.kind.as_str()))?;
    let embedded = mail.parts.get(at + 1).filter(|next| next.message == at + 1 && next.depth == part.depth + 1);
    Some(match embedded {
        Some(embedded) => from_header(embedded.header_raw),
        None => {
            let content = part.content(HEADER_BYTES_MAX);
            // Programs begin it with an empty line, and then `header` finds nothing.
            let content = content.trim_ascii_start();
            from_header(crate::message::header::split(content).0)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_could_identify_a_message_is_found() {
        let token = "a".repeat(TOKEN_CHARS);
        let header = format!(
            "Return-Path: <b-{token}@bounce.test>\r\nMessage-ID: <x@y.test>\r\nTo: Bob <bob@a.test>\r\nX-Job: 7\r\n\
             CFBL-Feedback-ID: 1:2\r\nFeedback-ID: f\r\nList-Unsubscribe: <mailto:u@a.test>,\r\n <https://a.test/u/{token}>\r\n"
        );
        let original = from_header(header.as_bytes());
        assert_eq!(original.clues.tokens, std::slice::from_ref(&token));
        assert_eq!(original.clues.return_paths[0].as_str(), format!("b-{token}@bounce.test"));
        assert_eq!(original.clues.message_ids, ["x@y.test"]);
        assert_eq!((original.clues.cfbl_feedback_ids.len(), original.clues.feedback_ids.len()), (1, 1));
        assert_eq!(original.clues.unsubscribe_uris.len(), 2);
        assert_eq!(original.clues.x_fields, [("x-job".to_owned(), "7".to_owned())]);
        assert_eq!(original.recipients[0].as_str(), "bob@a.test");
        assert!(from_header("a".repeat(TOKEN_CHARS + 1).as_bytes()).clues.tokens.is_empty());
    }

    #[test]
    fn what_a_sender_writes_pushes_no_token_of_ours_out() {
        let word = |number: usize| format!("{:a>TOKEN_CHARS$}", "b".repeat(number % TOKEN_CHARS));
        let junk: String = (1..40).map(|number| format!("X-Junk: {}\r\n", word(number))).collect();
        let (first, last) = ("c".repeat(TOKEN_CHARS), "d".repeat(TOKEN_CHARS));
        let header = format!("List-Unsubscribe: <https://a.test/{first}>\r\n{junk}CFBL-Feedback-ID: {last}\r\n");
        let tokens = from_header(header.as_bytes()).clues.tokens;
        assert!(
            tokens.contains(&first) && tokens.contains(&last) && tokens.len() == 2 * TOKENS_AT_END_MAX,
            "{tokens:?}"
        );
        let mut clues = Clues::default();
        (0..TOKENS_MAX).for_each(|at| clues.add_tokens(word(at).as_bytes()));
        assert!(clues.tokens.len() <= TOKENS_MAX);
    }
}
