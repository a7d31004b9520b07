//! What a host said, found in the words of the program that reports it, and what it means.
//!
//! The same rules decide as within a session ([`Rules::classify`]). They need a reply, a status and a stage, and a report has
//! rarely all: the reply is the first code in its text that stands where a code may stand; its enhanced status is its own, else the
//! report's; the stage is what the program says ("in reply to RCPT TO"), else [`Stage::Dot`], at which the rules on texts and on
//! enhanced codes apply, but none that takes a bare 550 for a mailbox that is not there: nothing but a clear word may cost an address.
//!
//! Where nothing is known, the bounce is Undetermined. What says that it is over is over: what would be tried again within a
//! session is here a bounce of the type that it would have in the end.

use crate::policy::{
    BounceClass, BounceSubType, BounceType, DelayType, Disposition, RetryKind, Rules, Scope, Stage, Verdict,
};
use crate::types::{EnhancedStatus, Reply, ReplyCode};

/// Octets of a text that are searched for a reply.
const SEARCHED_BYTES_MAX: usize = 8 << 10;
/// Octets of a reply's text that are kept.
const REPLY_BYTES_MAX: usize = 2_000;

/// The first reply in a text, with all that follows it. `None` where no code stands where a code may.
pub(super) fn reply_in(text: &str) -> Option<Reply> {
    let text = head(text, SEARCHED_BYTES_MAX);
    let (at, code) = codes(text).next()?;
    let tail = text.get(at + 3..)?;
    let (enhanced, tail) = enhanced_at(tail);
    Some(Reply::new(code, enhanced, vec![without_repeated_codes(tail, code, enhanced).into()]))
}

/// The first enhanced status that stands alone: `#5.1.1`, `(5.1.1)`.
pub(super) fn status_in(text: &str) -> Option<EnhancedStatus> {
    let is_edge = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@' | '/'));
    let tokens = head(text, SEARCHED_BYTES_MAX).split(is_edge).map(|token| token.trim_matches(['.', '-']));
    tokens.filter(|token| (5..=11).contains(&token.len())).find_map(|token| token.parse().ok())
}

/// Places of codes that may be replies, in order.
fn codes(text: &str) -> impl Iterator<Item = (usize, ReplyCode)> {
    let bytes = text.as_bytes();
    let starts = bytes.windows(3).enumerate().filter(|(_, window)| {
        matches!(window, [b'4' | b'5', second, third] if second.is_ascii_digit() && third.is_ascii_digit())
    });
    starts.filter_map(move |(at, window)| {
        let before = text.get(..at)?;
        let after = text.get(at + 3..)?;
        let is_sealed =
            before.ends_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@' | '/' | '+'));
        let follows = after.starts_with([' ', '-', '#', '\n', '\t']) || after.is_empty() || after.starts_with(": ");
        if is_sealed || !follows || (after.starts_with('-') && !is_continued(after)) {
            return None;
        }
        let code: u16 = std::str::from_utf8(window).ok()?.parse().ok()?;
        let stands_first = leads_in(before);
        let stands = stands_first || enhanced_at(after).0.is_some();
        stands.then(|| ReplyCode::new(code)).flatten().map(|code| (at, code))
    })
}

/// `550-5.1.1 ...` or `550-text`, not `550-1234`.
fn is_continued(after: &str) -> bool {
    enhanced_at(after).0.is_some()
        || after
            .get(1..)
            .is_some_and(|text| text.starts_with(|c: char| c.is_alphabetic() || matches!(c, ' ' | '\'' | '"')))
}

/// Words after which a reply is quoted.
const LEAD_INS: [&str; 18] = [
    "said",
    "says",
    "reason",
    "response was",
    "returned",
    "replied",
    "response",
    "error was",
    "error",
    "answered",
    "reply",
    "responded",
    "responded with",
    "code",
    "status",
    "message",
    "smtp",
    "result",
];

fn leads_in(before: &str) -> bool {
    let line = before.rsplit('\n').next().unwrap_or_default().trim_end();
    if line.is_empty()
        || line.ends_with("<--")
        || line.ends_with([':', ';', '#', '<', '>', '"', '\'', '(', '[', '|', '“', '=', ','])
    {
        return true;
    }
    let last =
        line.get(line.ceil_char_boundary(line.len().saturating_sub(20))..).unwrap_or_default().to_ascii_lowercase();
    LEAD_INS.iter().any(|word| last.ends_with(word))
}

/// An enhanced status at the front, behind what programs put before it, and what follows.
fn enhanced_at(text: &str) -> (Option<EnhancedStatus>, &str) {
    let start = text.trim_start_matches([' ', '-', '#', '(', '[', '\n', '\t', ':', '\'', '"']);
    if text.len() - start.len() > 6 {
        return (None, text);
    }
    let end = start.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(start.len());
    let (token, tail) = start.split_at_checked(end).unwrap_or((start, ""));
    match token.trim_end_matches('.').parse() {
        Ok(status) => (Some(status), tail.trim_start_matches([')', ']', ':', ';', ' '])),
        Err(()) => (None, text.trim_start_matches([' ', '-', '#', ':'])),
    }
}

/// One text of a reply of several lines: programs join them with their codes left in.
fn without_repeated_codes(tail: &str, code: ReplyCode, enhanced: Option<EnhancedStatus>) -> String {
    let code = code.to_string();
    let joined = enhanced.map(|enhanced| format!("{code}-{enhanced}"));
    let enhanced = enhanced.map(|enhanced| enhanced.to_string());
    let mut words = Vec::new();
    let mut length = 0;
    let mut after_code = false;
    for word in tail.split_whitespace() {
        let is_status = std::mem::take(&mut after_code) && enhanced.as_deref() == Some(word);
        if Some(word) == joined.as_deref() || word == code {
            after_code = true;
            continue;
        }
        if is_status {
            continue;
        }
        let word = word.strip_prefix(&code).and_then(|word| word.strip_prefix('-')).unwrap_or(word);
        length += word.len() + 1;
        if length > REPLY_BYTES_MAX {
            break;
        }
        words.push(word);
    }
    words.join(" ")
}

/// Words that name the command whose reply is quoted, in lower case.
const STAGES: [(&str, Stage); 27] = [
    ("in reply to rcpt to", Stage::Rcpt),
    ("in reply to mail from", Stage::Mail),
    ("in reply to end of data", Stage::Dot),
    ("in reply to data command", Stage::Data),
    ("in reply to ehlo", Stage::Ehlo),
    ("in reply to helo", Stage::Ehlo),
    ("in reply to starttls", Stage::Tls),
    ("while sending rcpt to", Stage::Rcpt),
    ("while sending mail from", Stage::Mail),
    ("while sending end of data", Stage::Dot),
    ("refused to talk to me", Stage::Greeting),
    ("after rcpt to", Stage::Rcpt),
    ("after pipelined rcpt to", Stage::Rcpt),
    ("after mail from", Stage::Mail),
    ("after pipelined mail from", Stage::Mail),
    ("after end of data", Stage::Dot),
    ("after pipelined end of data", Stage::Dot),
    ("after initial connection", Stage::Greeting),
    ("after ehlo", Stage::Ehlo),
    ("after helo", Stage::Ehlo),
    (">>> rcpt to", Stage::Rcpt),
    (">>> mail from", Stage::Mail),
    ("sent: rcpt to", Stage::Rcpt),
    ("--> rcpt to", Stage::Rcpt),
    ("failed after i sent the message", Stage::Dot),
    ("does not like recipient", Stage::Rcpt),
    ("giving up on", Stage::Dot),
];

/// The command to which a program says the reply came.
pub(super) fn stage_in(text: &str) -> Option<Stage> {
    let lower = head(text, SEARCHED_BYTES_MAX).to_ascii_lowercase();
    let lower = lower.split_whitespace().collect::<Vec<_>>().join(" ");
    let found = STAGES.iter().find(|(words, _)| lower.contains(words)).map(|(_, stage)| *stage);
    // qmail says only that it gave up.
    found.filter(|stage| *stage != Stage::Dot || !lower.contains("giving up on") || lower.contains("after i sent"))
}

/// What is known of a failure.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known<'a> {
    pub(super) reply: Option<&'a Reply>,
    /// Of the report, not of the reply.
    pub(super) status: Option<EnhancedStatus>,
    pub(super) stage: Option<Stage>,
    /// All that was said.
    pub(super) text: &'a str,
}

/// The verdict on a recipient whose delivery has ended.
pub(super) fn judge(rules: &Rules, known: Known<'_>) -> Verdict {
    let Some(reply) = reply_of(known) else { return undetermined() };
    let mut verdict = rules.classify(&reply, known.stage.unwrap_or(Stage::Dot), None);
    if verdict.class == BounceClass::Other && known.stage.is_none() && reply.code().value() >= 500 {
        (verdict.bounce_type, verdict.bounce_sub_type) = (BounceType::Undetermined, BounceSubType::Undetermined);
    }
    match verdict.disposition {
        Disposition::Deferred => verdict.expired(),
        Disposition::Bounced | Disposition::Delivered => verdict,
    }
}

/// The same for one that is tried again.
pub(super) fn judge_delay(rules: &Rules, known: Known<'_>) -> Verdict {
    match reply_of(known) {
        Some(reply) => rules.classify(&reply, known.stage.unwrap_or(Stage::Dot), None),
        None => undetermined(),
    }
}

/// The reply as the rules are asked about it.
fn reply_of(known: Known<'_>) -> Option<Reply> {
    // A status x.0.0 says no more than a code.
    let specific = known.status.filter(|status| status.subject() != 0 && status.class() != 2);
    if let Some(reply) = known.reply.filter(|reply| reply.code().value() >= 400) {
        let own = reply.enhanced().filter(|own| own.class() != 2 && (own.subject() != 0 || specific.is_none()));
        return Some(Reply::new(reply.code(), own.or(specific), reply.lines().to_vec()));
    }
    if known.status.is_none() && known.text.trim().is_empty() {
        return None;
    }
    let code = if known.status.is_some_and(|status| status.class() == 4) { 450 } else { 550 };
    Some(Reply::new(ReplyCode::new(code)?, specific, vec![head(known.text, REPLY_BYTES_MAX).into()]))
}

fn undetermined() -> Verdict {
    Verdict {
        disposition: Disposition::Bounced,
        scope: Scope::Recipient,
        class: BounceClass::Other,
        rule: "report-without-reason".into(),
        retry: RetryKind::Normal,
        retry_after: None,
        bounce_type: BounceType::Undetermined,
        bounce_sub_type: BounceSubType::Undetermined,
        delay_type: DelayType::Undetermined,
        reaction: None,
    }
}

/// At most so many octets from the front.
pub(super) fn head(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max.min(text.len()))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_found_where_programs_quote_one() {
        for (text, expected) in [
            ("550 5.1.1 no such user", Some("550 5.1.1 no such user")),
            (
                "host mx[192.0.2.1] said: 550-5.1.1 The account\n550-5.1.1 that you\n550 5.1.1 tried (in reply to RCPT TO command)",
                Some("550 5.1.1 The account that you tried (in reply to RCPT TO command)"),
            ),
            (
                "#550 5.1.1 RESOLVER.ADR.RecipNotFound; not found ##",
                Some("550 5.1.1 RESOLVER.ADR.RecipNotFound; not found ##"),
            ),
            ("#< #5.7.1 smtp;550 5.7.1 blocked> #SMTP#", Some("550 5.7.1 blocked> #SMTP#")),
            ("550 #5.1.0 Address rejected bob@a.test", Some("550 5.1.0 Address rejected bob@a.test")),
            ("<<< 554 delivery error: dd", Some("554 delivery error: dd")),
            ("Remote host said: 550", Some("550")),
            ("The message of 512 KB on line 550 of 1.2.550.3 id 550-1234", None),
            ("x-unix; unknown user", None),
            ("5.1.1", None),
        ] {
            assert_eq!(reply_in(text).map(|reply| reply.to_string()).as_deref(), expected, "{text}");
        }
        assert_eq!(status_in("<mx.a.test #5.1.1>").unwrap().to_string(), "5.1.1");
        assert_eq!(status_in("at 10.5.1.1 or 5.1.1.1 version 2.0"), None);
    }

    #[test]
    fn nothing_but_a_clear_word_is_permanent() {
        let rules = Rules::built_in();
        let check = |text: &str, status: Option<&str>, expected: (BounceType, &str)| {
            let reply = reply_in(text);
            let status = status.map(|status| status.parse().unwrap());
            let verdict = judge(&rules, Known { reply: reply.as_ref(), status, stage: stage_in(text), text });
            assert_eq!((verdict.bounce_type, verdict.class.name()), expected, "{text}");
            assert_eq!(verdict.disposition, Disposition::Bounced);
        };
        check("550 sorry", None, (BounceType::Undetermined, "other"));
        check("550 sorry", Some("5.1.1"), (BounceType::Permanent, "bad-mailbox"));
        check("550 sorry (in reply to RCPT TO command)", None, (BounceType::Permanent, "bad-mailbox"));
        check("550 message contains a virus", Some("5.0.0"), (BounceType::Transient, "virus"));
        check("451 try later", Some("4.0.0"), (BounceType::Transient, "system"));
        check("", None, (BounceType::Undetermined, "other"));
        check("", Some("5.2.2"), (BounceType::Transient, "mailbox-full"));
        check("", Some("4.4.1"), (BounceType::Transient, "dns"));
        check("", Some("5.0.0"), (BounceType::Undetermined, "other"));
        check("554 5.7.1 refused, after initial connection", None, (BounceType::Transient, "ip-block"));
    }
}
