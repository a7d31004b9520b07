//! Writes SMTP commands into a buffer (RFC 5321 §4.1.1, RFC 1870, 6152, 6531, 3461, 3030).
//!
//! Injection is impossible twice over: addresses and names are types that cannot hold a line end, and `Line` replaces
//! every control character of whatever else stands in a command.

use std::net::IpAddr;

use super::capabilities::{Capabilities, Extension, SizeLimit};
use super::transaction::Transaction;
use crate::types::{BodyKind, Domain, DsnReturn, EmailAddress, Notify, OriginalRecipient, Recipient};

/// RFC 3461 §4.2: `orcpt-parameter` is at most 500 octets; a longer one is not sent.
const ORCPT_BYTES_MAX: usize = 500;
/// RFC 3461 §4.4: ENVID is at most 100 octets, encoded; a longer one is not sent.
const ENVID_BYTES_MAX: usize = 100;

/// What we call ourselves in EHLO: a domain or an address literal (RFC 5321 §4.1.1.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EhloName(Box<str>);

/// Why a text is no EHLO name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an EHLO name: write a host name such as mail.example.com, or an address such as [192.0.2.1]")]
pub struct EhloNameError(String);

impl EhloName {
    /// A host name, or an address in brackets.
    pub fn parse(text: &str) -> Result<Self, EhloNameError> {
        if let Ok(domain) = Domain::parse(text) {
            return Ok(Self(domain.as_str().into()));
        }
        let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let inner = inner.map(|inner| inner.strip_prefix("IPv6:").unwrap_or(inner));
        match inner.and_then(|inner| inner.parse().ok()) {
            Some(address) => Ok(Self::literal(address)),
            None => Err(EhloNameError(text.to_owned())),
        }
    }

    /// `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
    pub fn literal(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self(format!("[{address}]").into()),
            IpAddr::V6(address) => Self(format!("[IPv6:{address}]").into()),
        }
    }

    /// As it stands in the command.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `EHLO name`.
pub fn ehlo(out: &mut Vec<u8>, name: &EhloName) {
    Line::new(out).text("EHLO ").text(name.as_str()).end();
}

/// `HELO name`, for hosts that refuse EHLO.
pub fn helo(out: &mut Vec<u8>, name: &EhloName) {
    Line::new(out).text("HELO ").text(name.as_str()).end();
}

/// A command without arguments: `STARTTLS`, `DATA`, `RSET`, `QUIT`.
pub fn bare(out: &mut Vec<u8>, verb: &'static str) {
    Line::new(out).text(verb).end();
}

/// `BDAT size LAST` (RFC 3030 §2): `size_bytes` octets of message follow at once.
pub fn bdat_last(out: &mut Vec<u8>, size_bytes: u64) {
    Line::new(out).text("BDAT ").text(&size_bytes.to_string()).text(" LAST").end();
}

/// `MAIL FROM:<...>` with the parameters that the peer offers and the transaction needs.
pub fn mail(out: &mut Vec<u8>, transaction: &Transaction<'_>, peer: &Capabilities) {
    let mut line = Line::new(out);
    line.text("MAIL FROM:<");
    if let Some(address) = transaction.reverse_path.mailbox() {
        line.address(address);
    }
    line.text(">");
    if peer.size() != SizeLimit::NotOffered {
        line.text(" SIZE=").text(&transaction.body_bytes.to_string());
    }
    if transaction.body == BodyKind::EightBitMime && peer.offers(Extension::EightBitMime) {
        line.text(" BODY=8BITMIME");
    }
    if transaction.uses_smtputf8() && peer.offers(Extension::SmtpUtf8) {
        line.text(" SMTPUTF8");
    }
    if peer.offers(Extension::Dsn) {
        match transaction.ret {
            Some(DsnReturn::Full) => _ = line.text(" RET=FULL"),
            Some(DsnReturn::Headers) => _ = line.text(" RET=HDRS"),
            None => {}
        }
        let envid = transaction.envid.map(xtext).filter(|envid| envid.len() <= ENVID_BYTES_MAX);
        if let Some(envid) = envid {
            line.text(" ENVID=").text(&envid);
        }
    }
    line.end();
}

/// `RCPT TO:<...>`, with NOTIFY and ORCPT where the peer offers DSN.
pub fn rcpt(out: &mut Vec<u8>, recipient: &Recipient, peer: &Capabilities) {
    let mut line = Line::new(out);
    line.text("RCPT TO:<").address(&recipient.address).text(">");
    if peer.offers(Extension::Dsn) {
        if let Some(notify) = recipient.notify {
            line.text(" NOTIFY=").text(&notify_list(notify));
        }
        if let Some(orcpt) = recipient.orcpt.as_ref().and_then(orcpt_value) {
            line.text(" ORCPT=").text(&orcpt);
        }
    }
    line.end();
}

fn notify_list(notify: Notify) -> String {
    let named = [(Notify::SUCCESS, "SUCCESS"), (Notify::FAILURE, "FAILURE"), (Notify::DELAY, "DELAY")];
    let words: Vec<&str> = named.into_iter().filter(|(set, _)| notify.contains(*set)).map(|(_, word)| word).collect();
    if words.is_empty() { "NEVER".to_owned() } else { words.join(",") }
}

/// `type;xtext`, or `None` where it cannot be written: a type that is no atom, or an address that is not ASCII under
/// a type other than `utf-8`.
fn orcpt_value(orcpt: &OriginalRecipient) -> Option<String> {
    let is_atom = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if orcpt.address_type.is_empty() || !orcpt.address_type.bytes().all(is_atom) {
        return None;
    }
    let encoded = if orcpt.address.is_ascii() {
        xtext(&orcpt.address)
    } else if orcpt.address_type.eq_ignore_ascii_case("utf-8") {
        xtext(&embed_unicode(&orcpt.address))
    } else {
        return None;
    };
    let value = format!("{};{encoded}", orcpt.address_type);
    (value.len() <= ORCPT_BYTES_MAX).then_some(value)
}

/// `EmbeddedUnicodeChar` of RFC 6533 §3: `\x{FC}` for each character above ASCII.
fn embed_unicode(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        if c.is_ascii() {
            out.push(c);
        } else {
            out.push_str(&format!("\\x{{{:X}}}", u32::from(c)));
        }
        out
    })
}

/// RFC 3461 §4: octets outside `!` to `~`, and `+` and `=`, become `+` and two upper-case hex digits.
pub fn xtext(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        match byte {
            b'+' | b'=' | 0..=b' ' | 0x7f..=0xff => out.push_str(&format!("+{byte:02X}")),
            _ => out.push(char::from(byte)),
        }
        out
    })
}

/// One command line. Control characters become `?`, so that no argument can end the line or start another.
pub(super) struct Line<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Line<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.out.extend(text.bytes().map(|byte| if byte.is_ascii_control() { b'?' } else { byte }));
        self
    }

    /// The local part as it was submitted, the domain as A-labels: every peer takes those, with SMTPUTF8 or without.
    fn address(&mut self, address: &EmailAddress) -> &mut Self {
        self.text(address.local_part()).text("@").text(address.domain().as_str())
    }

    pub(super) fn end(&mut self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Reply, ReplyCode, ReversePath};
    use proptest::prelude::*;

    fn peer(keywords: &[&str]) -> Capabilities {
        let lines = std::iter::once("host").chain(keywords.iter().copied()).map(Into::into).collect();
        Capabilities::from_reply(&Reply::new(ReplyCode::new(250).unwrap(), None, lines))
    }

    fn recipient(text: &str) -> Recipient {
        Recipient { address: EmailAddress::parse(text, true).unwrap(), notify: None, orcpt: None }
    }

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn mail_carries_only_what_the_peer_offers() {
        let reverse_path = ReversePath::Mailbox(EmailAddress::parse("s@B\u{dc}CHER.test", true).unwrap());
        let recipients = [recipient("j\u{fc}rgen@a.test")];
        let transaction = Transaction {
            reverse_path: &reverse_path,
            recipients: &recipients,
            body: BodyKind::EightBitMime,
            smtputf8: false,
            ret: Some(DsnReturn::Headers),
            envid: Some("a+b c"),
            body_bytes: 1_234,
        };
        let all = peer(&["SIZE 0", "8BITMIME", "SMTPUTF8", "DSN"]);
        assert_eq!(
            text(|out| mail(out, &transaction, &all)),
            "MAIL FROM:<s@xn--bcher-kva.test> SIZE=1234 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb+20c\r\n"
        );
        assert_eq!(text(|out| mail(out, &transaction, &peer(&[]))), "MAIL FROM:<s@xn--bcher-kva.test>\r\n");
        let null = Transaction { reverse_path: &ReversePath::Null, body: BodyKind::SevenBit, ret: None, ..transaction };
        assert_eq!(text(|out| mail(out, &null, &peer(&["8BITMIME"]))), "MAIL FROM:<>\r\n");
    }

    #[test]
    fn rcpt_passes_dsn_parameters_only_where_dsn_is_offered() {
        let orcpt = |address_type: &str, address: &str| {
            Some(OriginalRecipient { address_type: address_type.into(), address: address.into() })
        };
        let mut to = recipient("a@b.test");
        to.notify = Some(Notify::SUCCESS.with(Notify::DELAY));
        to.orcpt = orcpt("rfc822", "a+tag@b.test");
        let dsn = peer(&["DSN"]);
        assert_eq!(
            text(|out| rcpt(out, &to, &dsn)),
            "RCPT TO:<a@b.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Btag@b.test\r\n"
        );
        assert_eq!(text(|out| rcpt(out, &to, &peer(&[]))), "RCPT TO:<a@b.test>\r\n");
        to.notify = Some(Notify::NEVER);
        to.orcpt = orcpt("utf-8", "j\u{fc}@b.test");
        assert_eq!(text(|out| rcpt(out, &to, &dsn)), "RCPT TO:<a@b.test> NOTIFY=NEVER ORCPT=utf-8;j\\x{FC}@b.test\r\n");
        to.notify = None;
        for bad in [orcpt("rfc822", "j\u{fc}@b.test"), orcpt("a b", "x"), orcpt("", "x"), orcpt("x", &"y".repeat(500))]
        {
            to.orcpt = bad;
            assert_eq!(text(|out| rcpt(out, &to, &dsn)), "RCPT TO:<a@b.test>\r\n");
        }
    }

    #[test]
    fn an_ehlo_name_is_a_domain_or_a_literal() {
        for (given, expected) in [
            ("Mail.Example.test.", Some("mail.example.test")),
            ("localhost", Some("localhost")),
            ("[192.0.2.1]", Some("[192.0.2.1]")),
            ("[IPv6:2001:db8::1]", Some("[IPv6:2001:db8::1]")),
            ("a b", None),
            ("a\r\nMAIL", None),
            ("[a]", None),
            ("", None),
        ] {
            assert_eq!(EhloName::parse(given).ok().as_ref().map(EhloName::as_str), expected, "{given:?}");
        }
    }

    proptest! {
        #[test]
        fn no_parameter_can_end_a_line_early(envid: String, address_type: String, address: String) {
            let to = Recipient {
                orcpt: Some(OriginalRecipient { address_type: address_type.into(), address: address.into() }),
                ..recipient("a@b.test")
            };
            let transaction = Transaction {
                reverse_path: &ReversePath::Null,
                recipients: &[],
                body: BodyKind::SevenBit,
                smtputf8: false,
                ret: None,
                envid: Some(&envid),
                body_bytes: 0,
            };
            for line in [text(|out| mail(out, &transaction, &peer(&["DSN"]))), text(|out| rcpt(out, &to, &peer(&["DSN"])))] {
                prop_assert!(line.is_ascii());
                prop_assert_eq!(line.find(|c: char| c.is_ascii_control()), Some(line.len() - 2));
            }
        }

        #[test]
        fn xtext_can_be_decoded(given: String) {
            let encoded = xtext(&given);
            let mut decoded = Vec::new();
            let mut bytes = encoded.bytes();
            while let Some(byte) = bytes.next() {
                if byte == b'+' {
                    let hex: String = bytes.by_ref().take(2).map(char::from).collect();
                    decoded.push(u8::from_str_radix(&hex, 16).unwrap());
                } else {
                    decoded.push(byte);
                }
            }
            prop_assert_eq!(decoded, given.into_bytes());
        }
    }
}
