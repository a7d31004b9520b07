//! The paths and parameters of MAIL and RCPT (RFC 5321 §4.1.1.2, §4.1.1.3, §4.1.2).

use crate::types::{
    AddressError, BodyKind, DsnReturn, EmailAddress, Notify, OriginalRecipient, Recipient, ReversePath,
};

use super::command::{CommandError, MailCommand};

/// RFC 3461 §4.4.
const ENVID_BYTES_MAX: usize = 100;
/// RFC 3461 §4.2.
const ORCPT_BYTES_MAX: usize = 500;
/// RFC 4954 §5 adds 500 octets to a MAIL command.
const SUBMITTER_BYTES_MAX: usize = 500;
/// What a reply repeats of a bad address or parameter, in characters.
const ECHO_CHARS_MAX: usize = 256;
/// RFC 1870 §3: up to 20 digits.
const SIZE_DIGITS_MAX: usize = 20;

/// The text after `MAIL`.
pub(super) fn mail(rest: &str) -> Result<MailCommand, CommandError> {
    let rest = after_keyword(rest, "FROM:").ok_or(CommandError::Argument("Syntax: MAIL FROM:<address>"))?;
    let (path, parameters) = split_path(rest).ok_or_else(|| CommandError::Sender(bad_path(rest)))?;
    let mut seen = Seen::default();
    let mut command = MailCommand {
        reverse_path: ReversePath::Null,
        declared_bytes: None,
        body: BodyKind::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
    };
    for (key, value) in Parameters(parameters) {
        mail_parameter(&mut command, &mut seen, key, value)?;
    }
    if !path.is_empty() {
        let address = address(path, command.smtputf8).map_err(|error| refuse(error, path, CommandError::Sender))?;
        command.reverse_path = ReversePath::Mailbox(address);
    }
    Ok(command)
}

/// The text after `RCPT`.
pub(super) fn recipient(rest: &str, smtputf8: bool) -> Result<Recipient, CommandError> {
    let rest = after_keyword(rest, "TO:").ok_or(CommandError::Argument("Syntax: RCPT TO:<address>"))?;
    let (path, parameters) = split_path(rest).ok_or_else(|| CommandError::Recipient(bad_path(rest)))?;
    let address = address(path, smtputf8).map_err(|error| refuse(error, path, CommandError::Recipient))?;
    let mut seen = Seen::default();
    let mut recipient = Recipient { address, notify: None, orcpt: None };
    for (key, value) in Parameters(parameters) {
        if key.eq_ignore_ascii_case("NOTIFY") {
            seen.first(Seen::NOTIFY)?;
            recipient.notify = Some(notify(value)?);
        } else if key.eq_ignore_ascii_case("ORCPT") {
            seen.first(Seen::ORCPT)?;
            recipient.orcpt = Some(original_recipient(value)?);
        } else {
            return Err(CommandError::UnknownParameter(echo(key)));
        }
    }
    Ok(recipient)
}

fn mail_parameter(
    command: &mut MailCommand,
    seen: &mut Seen,
    key: &str,
    value: Option<&str>,
) -> Result<(), CommandError> {
    if key.eq_ignore_ascii_case("SIZE") {
        seen.first(Seen::SIZE)?;
        command.declared_bytes = Some(size(value)?);
    } else if key.eq_ignore_ascii_case("BODY") {
        seen.first(Seen::BODY)?;
        command.body = body(value)?;
    } else if key.eq_ignore_ascii_case("SMTPUTF8") {
        seen.first(Seen::SMTPUTF8)?;
        if value.is_some() {
            return Err(CommandError::Argument("SMTPUTF8 takes no value"));
        }
        command.smtputf8 = true;
    } else if key.eq_ignore_ascii_case("RET") {
        seen.first(Seen::RET)?;
        command.ret = Some(dsn_return(value)?);
    } else if key.eq_ignore_ascii_case("ENVID") {
        seen.first(Seen::ENVID)?;
        let error = CommandError::Argument("ENVID must be xtext of at most 100 octets");
        let value = value.filter(|value| !value.is_empty() && value.len() <= ENVID_BYTES_MAX);
        command.envid = Some(value.and_then(xtext_decode).ok_or(error)?.into());
    } else if key.eq_ignore_ascii_case("AUTH") {
        // RFC 4954 §5: who submitted it first, as the client says. Nobody is trusted to say that for others: as if `<>`.
        seen.first(Seen::AUTH)?;
        let error = CommandError::Argument("AUTH must be xtext of at most 500 octets, or <>");
        let value = value.filter(|value| !value.is_empty() && value.len() <= SUBMITTER_BYTES_MAX);
        value.filter(|value| *value == "<>" || xtext_decode(value).is_some()).ok_or(error)?;
    } else {
        return Err(CommandError::UnknownParameter(echo(key)));
    }
    Ok(())
}

/// Which parameters a command already had.
#[derive(Default)]
struct Seen(u8);

impl Seen {
    const SIZE: u8 = 1;
    const BODY: u8 = 2;
    const SMTPUTF8: u8 = 4;
    const RET: u8 = 8;
    const ENVID: u8 = 16;
    const NOTIFY: u8 = 32;
    const ORCPT: u8 = 64;
    const AUTH: u8 = 128;

    fn first(&mut self, parameter: u8) -> Result<(), CommandError> {
        if self.0 & parameter != 0 {
            return Err(CommandError::Argument("Parameter given twice"));
        }
        self.0 |= parameter;
        Ok(())
    }
}

/// `key[=value]` separated by spaces.
struct Parameters<'a>(&'a str);

impl<'a> Iterator for Parameters<'a> {
    type Item = (&'a str, Option<&'a str>);

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.0.trim_start_matches(' ');
        if text.is_empty() {
            return None;
        }
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        self.0 = rest;
        Some(word.split_once('=').map_or((word, None), |(key, value)| (key, Some(value))))
    }
}

/// What follows `keyword` in any case, and the spaces after it.
fn after_keyword<'a>(text: &'a str, keyword: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(keyword.len())?;
    head.eq_ignore_ascii_case(keyword).then(|| rest.trim_start_matches(' '))
}

/// `<path>` and the parameters after it. Quoted strings may hold `>` and spaces (RFC 5321 §4.1.2).
fn split_path(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('<')?;
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => {
                let (path, rest) = inner.split_at_checked(at)?;
                let rest = rest.strip_prefix('>')?;
                return (rest.is_empty() || rest.starts_with(' ')).then_some((path, rest));
            }
            _ => {}
        }
    }
    None
}

/// A mailbox, without the source route that may stand in front (RFC 5321 §4.1.1.3: ignored).
fn address(path: &str, smtputf8: bool) -> Result<EmailAddress, AddressError> {
    let mailbox = match path.strip_prefix('@') {
        Some(_) => path.split_once(':').map_or(path, |(_, mailbox)| mailbox),
        None => path,
    };
    EmailAddress::parse(mailbox, smtputf8)
}

fn refuse(error: AddressError, path: &str, syntax: fn(Box<str>) -> CommandError) -> CommandError {
    match error {
        AddressError::NeedsSmtpUtf8 => CommandError::NeedsSmtpUtf8(echo(path)),
        _ => syntax(echo(path)),
    }
}

/// What to show of text that has no proper `<path>`.
fn bad_path(text: &str) -> Box<str> {
    let word = text.split(' ').next().unwrap_or_default();
    echo(word.trim_matches(|c| matches!(c, '<' | '>')))
}

/// Peer text for a reply: one line of printable ASCII, cut.
fn echo(text: &str) -> Box<str> {
    let printable = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    text.chars().take(ECHO_CHARS_MAX).map(printable).collect()
}

fn size(value: Option<&str>) -> Result<u64, CommandError> {
    let digits =
        |value: &&str| (1..=SIZE_DIGITS_MAX).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_digit());
    let value = value.filter(digits).ok_or(CommandError::Argument("SIZE must be a number of octets"))?;
    // Twenty digits may pass 64 bits: too long for anyone.
    Ok(value.parse().unwrap_or(u64::MAX))
}

fn body(value: Option<&str>) -> Result<BodyKind, CommandError> {
    match value {
        Some(value) if value.eq_ignore_ascii_case("7BIT") => Ok(BodyKind::SevenBit),
        Some(value) if value.eq_ignore_ascii_case("8BITMIME") => Ok(BodyKind::EightBitMime),
        _ => Err(CommandError::Argument("BODY must be 7BIT or 8BITMIME")),
    }
}

fn dsn_return(value: Option<&str>) -> Result<DsnReturn, CommandError> {
    match value {
        Some(value) if value.eq_ignore_ascii_case("FULL") => Ok(DsnReturn::Full),
        Some(value) if value.eq_ignore_ascii_case("HDRS") => Ok(DsnReturn::Headers),
        _ => Err(CommandError::Argument("RET must be FULL or HDRS")),
    }
}

/// RFC 3461 §4.1: NEVER alone, or a list of the others.
fn notify(value: Option<&str>) -> Result<Notify, CommandError> {
    let error = CommandError::Argument("NOTIFY must be NEVER or a list of SUCCESS, FAILURE, DELAY");
    let value = value.ok_or_else(|| error.clone())?;
    if value.eq_ignore_ascii_case("NEVER") {
        return Ok(Notify::NEVER);
    }
    let mut set = Notify::NEVER;
    for word in value.split(',') {
        set = match word {
            _ if word.eq_ignore_ascii_case("SUCCESS") => set.with(Notify::SUCCESS),
            _ if word.eq_ignore_ascii_case("FAILURE") => set.with(Notify::FAILURE),
            _ if word.eq_ignore_ascii_case("DELAY") => set.with(Notify::DELAY),
            _ => return Err(error),
        };
    }
    Ok(set)
}

/// `address-type;xtext` (RFC 3461 §4.2); `utf-8;` may hold UTF-8 itself (RFC 6533 §3), kept as `\x{HEX}`.
fn original_recipient(value: Option<&str>) -> Result<OriginalRecipient, CommandError> {
    let error = CommandError::Argument("ORCPT must be type;xtext of at most 500 octets");
    let parts = value.filter(|value| value.len() <= ORCPT_BYTES_MAX).and_then(|value| value.split_once(';'));
    let (address_type, encoded) = parts.ok_or_else(|| error.clone())?;
    let is_atom = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if address_type.is_empty() || !is_atom(address_type) || encoded.is_empty() {
        return Err(error);
    }
    let ascii = if address_type.eq_ignore_ascii_case("utf-8") { escape_unicode(encoded) } else { encoded.to_owned() };
    let address = xtext_decode(&ascii).ok_or(error)?;
    Ok(OriginalRecipient { address_type: address_type.into(), address: address.into() })
}

fn escape_unicode(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            escaped.push(c);
        } else {
            escaped.push_str(&format!("\\x{{{:X}}}", u32::from(c)));
        }
    }
    escaped
}

/// RFC 3461 §4: `+` and two upper-case hex digits stand for an octet. The result must be printable ASCII, so that it
/// can stand in a header field of a DSN; `None` otherwise.
fn xtext_decode(text: &str) -> Option<String> {
    let mut decoded = String::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let octet = match byte {
            b'+' => hex_digit(bytes.next()?)? << 4 | hex_digit(bytes.next()?)?,
            b'=' => return None,
            _ => byte,
        };
        if !(octet.is_ascii_graphic() || octet == b' ') {
            return None;
        }
        decoded.push(char::from(octet));
    }
    Some(decoded)
}

/// Lower case is tolerated.
fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path_of(rest: &str) -> Result<String, CommandError> {
        mail(rest).map(|mail| mail.reverse_path.as_str().to_owned())
    }

    #[test]
    fn paths_parse_as_clients_write_them() {
        for (rest, expected) in [
            ("FROM:<a@b.test>", "a@b.test"),
            ("from: <a@b.test>", "a@b.test"),
            ("From:   <a@b.test>   SIZE=1", "a@b.test"),
            ("FROM:<>", ""),
            ("FROM:<@r1.test,@r2.test:a@b.test>", "a@b.test"),
            ("FROM:<\"a > b\"@c.test>", "\"a > b\"@c.test"),
            ("FROM:<\"a\\\"> b\"@c.test>", "\"a\\\"> b\"@c.test"),
            ("FROM:<ü@b.test> SMTPUTF8", "ü@b.test"),
        ] {
            assert_eq!(path_of(rest).as_deref(), Ok(expected), "{rest}");
        }
    }

    #[test]
    fn bad_paths_are_refused_with_the_address() {
        for (rest, shown) in [
            ("FROM:a@b.test", "a@b.test"),
            ("FROM:<a@b.test", "a@b.test"),
            ("FROM:<a@b.test>x", "a@b.test>x"),
            ("FROM:<a b@c.test>", "a b@c.test"),
            ("FROM:<a>", "a"),
            ("FROM:", ""),
            ("FROM:<\"a@b.test>", "\"a@b.test"),
            ("FROM:<a@[127.0.0.1]>", "a@[127.0.0.1]"),
            ("FROM:<a\u{200b}@b.test> SMTPUTF8", "a?@b.test"),
        ] {
            assert_eq!(path_of(rest), Err(CommandError::Sender(shown.into())), "{rest}");
        }
        assert_eq!(path_of("FROM:<ü@b.test>"), Err(CommandError::NeedsSmtpUtf8("?@b.test".into())));
        assert_eq!(recipient("TO:<>", true), Err(CommandError::Recipient("".into())));
        assert!(matches!(path_of("TO:<a@b.test>"), Err(CommandError::Argument(_))));
    }

    #[test]
    fn parameters_are_taken_over() {
        let mail = mail("FROM:<a@b.test> size=1000 BODY=8bitmime SMTPUTF8 RET=HDRS ENVID=QQ+2B314").unwrap();
        assert_eq!(mail.declared_bytes, Some(1_000));
        assert_eq!((mail.body, mail.smtputf8), (BodyKind::EightBitMime, true));
        assert_eq!((mail.ret, mail.envid.as_deref()), (Some(DsnReturn::Headers), Some("QQ+314")));
        let rcpt = recipient("TO:<a@b.test> NOTIFY=SUCCESS,delay ORCPT=rfc822;x+2By@z.test", false).unwrap();
        assert_eq!(rcpt.notify, Some(Notify::SUCCESS.with(Notify::DELAY)));
        let orcpt = rcpt.orcpt.unwrap();
        assert_eq!((&*orcpt.address_type, &*orcpt.address), ("rfc822", "x+y@z.test"));
        assert_eq!(recipient("TO:<a@b.test> NOTIFY=NEVER", false).unwrap().notify, Some(Notify::NEVER));
        let utf8 = recipient("TO:<a@b.test> ORCPT=utf-8;ü@z.test", true).unwrap().orcpt.unwrap();
        assert_eq!(&*utf8.address, "\\x{FC}@z.test");
    }

    #[test]
    fn the_first_submitter_may_be_named_and_changes_nothing() {
        let bare = mail("FROM:<a@b.test>").unwrap();
        for submitter in ["<>", "e+3Dmc2@example.com", "a@b.test"] {
            assert_eq!(mail(&format!("FROM:<a@b.test> AUTH={submitter}")).as_ref(), Ok(&bare), "{submitter}");
        }
    }

    #[test]
    fn bad_parameters_are_refused() {
        for rest in [
            "SIZE=",
            "SIZE",
            "SIZE=-1",
            "SIZE=1 SIZE=1",
            "BODY=BINARYMIME",
            "BODY=7BIT body=7BIT",
            "SMTPUTF8=1",
            "RET=ALL",
            "ENVID=",
            "ENVID=a+0D+0Ab",
            "ENVID=a+4",
            "ENVID=a=b",
            "AUTH",
            "AUTH=",
            "AUTH=a+4",
            "AUTH=<> AUTH=<>",
        ] {
            let line = format!("FROM:<a@b.test> {rest}");
            assert!(matches!(mail(&line), Err(CommandError::Argument(_))), "{rest}");
        }
        for rest in ["NOTIFY=", "NOTIFY=NEVER,DELAY", "NOTIFY=x", "ORCPT=a", "ORCPT=rfc822;", "ORCPT=a b;c", "ORCPT=;c"]
        {
            let line = format!("TO:<a@b.test> {rest}");
            assert!(matches!(recipient(&line, false), Err(CommandError::Argument(_))), "{rest}");
        }
        assert_eq!(mail("FROM:<a@b.test> X=1"), Err(CommandError::UnknownParameter("X".into())));
        assert_eq!(recipient("TO:<a@b.test> SIZE=1", false), Err(CommandError::UnknownParameter("SIZE".into())));
        assert_eq!(mail("FROM:<a@b.test> SIZE=99999999999999999999").unwrap().declared_bytes, Some(u64::MAX));
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics_and_never_comes_back_with_controls(text in ".{0,200}") {
            for line in [format!("FROM:{text}"), format!("FROM:<{text}>"), format!("FROM:<a@b.test> {text}")] {
                if let Err(error) = mail(&line) {
                    prop_assert!(error.to_string().bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()));
                }
            }
            let _ = recipient(&format!("TO:<a@b.test> ORCPT={text}"), true);
        }
    }
}
