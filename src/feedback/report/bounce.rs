//! Bounces that are text for people only: qmail, Exim, old Sendmail, Exchange, Domino and many more, in many languages.
//!
//! Nothing here is a grammar. A notice is cut where the returned message begins ([`phrases::is_cut`]). A line that is an address,
//! or names one after words such as `to:` or `unknown user:`, begins what is said of a recipient; it goes to the next such
//! line. Where none of it holds a reply, a line elsewhere that names both the address and a reply does (transcripts), else
//! the first reply of the notice. Without any reply, words in the languages of [`phrases`] give a status.
//!
//! Promises: linear in the notice, of which at most [`TEXT_BYTES_MAX`] octets are read; at most [`RECIPIENTS_MAX`] recipients.

use super::address::{self, Found};
use super::diagnostic::{self, Known, head};
use super::fields::Block;
use super::mail::Mail;
use super::original::{self, Original};
use super::{
    Action, Context, DeliveryReport, Outcome, RECIPIENTS_MAX, RecipientReport, TEXT_BYTES_MAX, meanings, phrases,
};
use crate::types::{EmailAddress, Reply};

/// Lines of a notice that are read.
const LINES_MAX: usize = 2_000;
/// Octets of what is said of one recipient.
const REASON_BYTES_MAX: usize = 4 << 10;

/// What makes a message a bounce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// It says so in words that only programs use.
    Strong,
    /// It could be one.
    Weak,
    /// None.
    Nothing,
}

/// The text for people of the message with this index: its plain text, else its HTML.
pub(super) fn notice(mail: &Mail<'_>, message: usize) -> String {
    let gather = |kind: &str| {
        let mut text = String::new();
        for (_, part) in mail.of_message(message).filter(|(_, part)| part.kind == kind) {
            let room = TEXT_BYTES_MAX.saturating_sub(text.len());
            text.push_str(head(&part.text(room), room));
            text.push('\n');
        }
        text
    };
    let plain = gather("text/plain");
    if plain.trim().is_empty() { gather("text/html") } else { plain }
}

/// Whether a message without a status part is a bounce.
pub(super) fn evidence(header: &Block, notice: &str, context: &Context<'_>) -> Evidence {
    let subject = header.text("subject");
    let from = header.text("from");
    let is_daemon = phrases::is_daemon(&from) || from.trim().is_empty() && context.is_null_sender;
    let (said, _) = cut(notice);
    let is_signed = phrases::is_bounce_text(said);
    let is_titled = phrases::is_bounce_subject(&subject);
    let is_reply = header.has("in-reply-to") && phrases::is_reply_subject(&subject) && !is_daemon;
    if is_reply {
        return Evidence::Nothing;
    }
    if header.has("x-failed-recipients")
        || (is_signed || is_titled) && (is_daemon || context.is_null_sender && is_signed && is_titled)
    {
        return Evidence::Strong;
    }
    match (context.is_null_sender || is_daemon, is_signed, is_titled) {
        (true, ..) | (_, true, true) => Evidence::Weak,
        _ => Evidence::Nothing,
    }
}

/// A bounce of text only. `None` where it is weak and names neither a recipient nor a reason.
pub(super) fn read(mail: &Mail<'_>, evidence: Evidence, notice: &str, context: &Context<'_>) -> Option<DeliveryReport> {
    let header = mail.header()?;
    let subject = header.text("subject");
    let (said, _) = cut(notice);
    let is_told = phrases::is_bounce_text(said) || phrases::is_bounce_subject(&subject);
    let has_reason = diagnostic::reply_in(said).is_some() || meanings::guess(said).is_some();
    if evidence == Evidence::Weak && !(is_told || has_reason && context.is_null_sender) {
        return None;
    }
    let mut recipients = recipients(header, &subject, notice, context);
    if recipients.is_empty() {
        recipients.push(unnamed(&subject, notice, context));
    }
    let original = original::attached(mail, 0).or_else(|| inline_original(notice)).unwrap_or_default();
    Some(DeliveryReport { reporting_mta: None, arrived_at: None, envelope_id: None, original, recipients })
}

/// The header of the original where a notice quotes it.
pub(super) fn inline_original(notice: &str) -> Option<Original> {
    let (_, quoted) = cut(notice);
    let quoted = quoted?.trim_start();
    // Quoted with a margin, as many do.
    let margin = quoted.lines().next()?.len() - quoted.lines().next()?.trim_start_matches(['>', ' ', '|']).len();
    let found = if margin > 0 {
        let lines: Vec<&str> = quoted.lines().take(500).map(|line| line.get(margin..).unwrap_or(line)).collect();
        original::from_header(crate::message::header::split(lines.join("\n").as_bytes()).0)
    } else {
        original::from_header(crate::message::header::split(quoted.as_bytes()).0)
    };
    (!found.is_empty()).then_some(found)
}

/// What the program says, and the original behind it.
fn cut(notice: &str) -> (&str, Option<&str>) {
    let mut at = 0;
    for line in notice.split_inclusive('\n').take(LINES_MAX) {
        if at > 0 && phrases::is_header_start(line) {
            return (notice.get(..at).unwrap_or(notice), notice.get(at..));
        }
        let end = at + line.len();
        if phrases::is_cut(line) {
            return (notice.get(..at).unwrap_or(notice), notice.get(end..));
        }
        at = end;
    }
    (notice.get(..at).unwrap_or(notice), None)
}

/// What is said of a recipient.
struct Said {
    address: EmailAddress,
    reason: String,
}

/// A notice by recipients, read when it is first asked about.
pub(super) struct Explained<'a> {
    notice: &'a str,
    said: Option<Vec<Said>>,
}

impl<'a> Explained<'a> {
    pub(super) fn new(notice: &'a str) -> Self {
        Self { notice: cut(notice).0, said: None }
    }

    /// What the program says, to all.
    pub(super) fn text(&self) -> &'a str {
        self.notice
    }

    /// What is said of one of these addresses; of all, where none is named.
    pub(super) fn of(&mut self, addresses: &[&EmailAddress]) -> String {
        let notice = self.notice;
        let said = self.said.get_or_insert_with(|| said_of_each(notice, &[]));
        let own = said.iter().find(|said| addresses.iter().any(|address| same(address, &said.address)));
        match own {
            Some(said) => said.reason.clone(),
            None if said.len() <= 1 => head(notice, REASON_BYTES_MAX).to_owned(),
            None => String::new(),
        }
    }
}

fn same(one: &EmailAddress, other: &EmailAddress) -> bool {
    one.as_str().eq_ignore_ascii_case(other.as_str())
}

/// The recipients that header and notice name.
pub(super) fn recipients(header: &Block, subject: &str, notice: &str, context: &Context<'_>) -> Vec<RecipientReport> {
    let (text, _) = cut(notice);
    let own: Vec<EmailAddress> = ["from", "to", "reply-to", "sender", "return-path", "errors-to"]
        .iter()
        .filter_map(|name| header.get(name))
        .flat_map(address::find_all)
        .map(|found| found.address)
        .collect();
    let mut said = said_of_each(text, &own);
    let listed = ["x-failed-recipients", "x-failed-recipient"]
        .iter()
        .flat_map(|name| header.all(name))
        .flat_map(address::find_all);
    let listed: Vec<EmailAddress> = listed.map(|found| found.address).take(RECIPIENTS_MAX).collect();
    if !listed.is_empty() {
        let reasons = |address: &EmailAddress| {
            said.iter().find(|said| same(&said.address, address)).map(|said| said.reason.clone()).unwrap_or_default()
        };
        said = listed.into_iter().map(|address| Said { reason: reasons(&address), address }).collect();
    }
    if said.is_empty() {
        said = only_one(text, &own);
    }
    if said.is_empty() {
        said = only_one(subject, &own);
    }
    let fate = fate(subject, text);
    let replies = Replies::new(text);
    said.into_iter().take(RECIPIENTS_MAX).map(|said| report(said, fate, text, &replies, context)).collect()
}

/// What happened to all.
fn fate(subject: &str, text: &str) -> Action {
    if phrases::is_delay(subject, text) {
        Action::Delayed
    } else if phrases::is_success(subject, text) {
        Action::Delivered
    } else {
        Action::Failed
    }
}

/// A bounce that names nobody: whose return path it came to is the recipient.
pub(super) fn unnamed(subject: &str, notice: &str, context: &Context<'_>) -> RecipientReport {
    let (text, _) = cut(notice);
    judged(None, fate(subject, text), head(text, REASON_BYTES_MAX), diagnostic::reply_in(text), context)
}

/// Lines of a transcript by the addresses that they name.
struct Replies {
    by_address: Vec<(EmailAddress, Reply)>,
    first: Option<Reply>,
}

impl Replies {
    fn new(text: &str) -> Self {
        let mut by_address: Vec<(EmailAddress, Reply)> = Vec::new();
        let mut asked: Option<EmailAddress> = None;
        for line in
            text.lines().take(LINES_MAX).filter(|line| line.bytes().any(|byte| matches!(byte, b'4' | b'5' | b'@')))
        {
            let named = address::find_all(line).into_iter().next().map(|found| found.address);
            if let Some(reply) = diagnostic::reply_in(line)
                && let Some(address) = named.clone().or_else(|| asked.clone())
                && by_address.len() < 2 * RECIPIENTS_MAX
            {
                by_address.push((address, reply));
            }
            asked = named.or(asked);
        }
        Self { by_address, first: diagnostic::reply_in(text) }
    }

    fn of(&self, address: &EmailAddress) -> Option<Reply> {
        let own = self.by_address.iter().find(|(of, _)| same(of, address)).map(|(_, reply)| reply.clone());
        own.or_else(|| self.first.clone())
    }
}

fn report(said: Said, fate: Action, text: &str, replies: &Replies, context: &Context<'_>) -> RecipientReport {
    let own = diagnostic::reply_in(&said.reason);
    let is_own =
        own.is_some() || meanings::guess(&said.reason).is_some() || diagnostic::status_in(&said.reason).is_some();
    let reply = if is_own { own } else { replies.of(&said.address) };
    let reason = if is_own || reply.is_some() { said.reason.as_str() } else { head(text, REASON_BYTES_MAX) };
    let mut reason = reason.to_owned();
    if diagnostic::stage_in(&reason).is_none() && said.reason.len() < text.len() && !is_own {
        reason = format!("{reason}\n{}", head(text, REASON_BYTES_MAX));
    }
    judged(Some(said.address), fate, &reason, reply, context)
}

fn judged(
    address: Option<EmailAddress>,
    action: Action,
    reason: &str,
    reply: Option<Reply>,
    context: &Context<'_>,
) -> RecipientReport {
    let named = diagnostic::status_in(reason);
    let status = reply.as_ref().and_then(Reply::enhanced).or(named);
    let guessed = if reply.is_none() && status.is_none() { meanings::guess(reason) } else { None };
    let known =
        Known { reply: reply.as_ref(), status: status.or(guessed), stage: diagnostic::stage_in(reason), text: reason };
    RecipientReport {
        outcome: Outcome::of(action, known, context.rules),
        named: address.as_ref().map(|address| address.as_str().to_owned()).unwrap_or_default(),
        final_recipient: address,
        original_recipient: None,
        decoded_recipient: None,
        action,
        status: status.or(guessed),
        reply,
        diagnostic: None,
        remote_mta: None,
        attempted_at: None,
        retries_until: None,
    }
}

/// The one address that a text names, apart from `own`.
fn only_one(text: &str, own: &[EmailAddress]) -> Vec<Said> {
    let mut others: Vec<EmailAddress> = Vec::new();
    for found in address::find_all(text) {
        let is_known = others.iter().chain(own).any(|known| same(known, &found.address));
        if !is_known && !phrases::is_role(found.address.local_part()) {
            others.push(found.address);
        }
        if others.len() > 1 {
            return Vec::new();
        }
    }
    others.into_iter().map(|address| Said { address, reason: String::new() }).collect()
}

/// Each recipient that a line names, with what is said up to the next one.
fn said_of_each(text: &str, own: &[EmailAddress]) -> Vec<Said> {
    let mut all: Vec<Said> = Vec::new();
    let mut current: Option<usize> = None;
    for line in text.lines().take(LINES_MAX) {
        match recipient_line(line) {
            Some((address, rest))
                if !own.iter().any(|own| same(own, &address)) && !phrases::is_role(address.local_part()) =>
            {
                let at = match all.iter().position(|said| same(&said.address, &address)) {
                    Some(at) => at,
                    None if all.len() >= RECIPIENTS_MAX => break,
                    None => {
                        all.push(Said { address, reason: String::new() });
                        all.len() - 1
                    }
                };
                current = Some(at);
                // What names the recipient may name the command, too: `after RCPT TO:<...>`.
                let is_bare = line.trim_start().starts_with(['<', '"', '\'']) || rest.len() + 4 > line.trim().len();
                add(&mut all, at, if is_bare { rest } else { line.trim() });
            }
            _ => {
                if let Some(at) = current {
                    add(&mut all, at, line.trim());
                }
            }
        }
    }
    all
}

fn add(all: &mut [Said], at: usize, line: &str) {
    if let Some(said) = all.get_mut(at)
        && !line.is_empty()
        && said.reason.len() + line.len() < REASON_BYTES_MAX
    {
        said.reason.push_str(line);
        said.reason.push('\n');
    }
}

/// Whether a line names a recipient, and what stands behind the name.
fn recipient_line(line: &str) -> Option<(EmailAddress, &str)> {
    if !line.contains('@') || line.len() > 1_000 {
        return None;
    }
    let line = line.trim().trim_start_matches(['*', '-', '|', '•', '·', ' ', '\t', '#']);
    let mut found = address::find_all(line).into_iter();
    let first = found.next()?;
    let is_only = found.next().is_none();
    let before = line.get(..first.start)?.trim_end_matches(['<', '(', '[', '"', '\'', '“', '«', '‘', ' ', ':', '：']);
    let after = behind(line, &first);
    if before.is_empty() {
        let stands = after.is_empty()
            || after.starts_with([':', '(', '-', '.', ';', ',', '[', '：', '=', '<'])
            || starts_with_date(after);
        return (stands || is_only && phrases::follows_recipient(after))
            .then_some((first.address, after.trim_start_matches([':', '：', ' '])));
    }
    let is_named = phrases::leads_to_recipient(before);
    // `Name (address)`, `Name <address>` alone.
    let is_display = after.is_empty()
        && line.ends_with([')', '>'])
        && before.split_whitespace().count() <= 4
        && !before.ends_with(':');
    // A reply that quotes it is what is said of somebody, not somebody.
    let is_reply = before.starts_with(|c: char| c.is_ascii_digit()) && diagnostic::reply_in(before).is_some();
    ((is_named || is_only && is_display) && !is_reply && !phrases::is_contact(before)).then_some((first.address, after))
}

fn behind<'a>(line: &'a str, found: &Found) -> &'a str {
    line.get(found.end..).unwrap_or_default().trim_start_matches(['>', ')', ']', '"', '\'', '”', '»', '’', ' '])
}

/// Exchange: `bob@example.test on 5/5/2023 11:00 PM`.
fn starts_with_date(after: &str) -> bool {
    let mut words = after.split_whitespace();
    let preposition =
        words.next().is_some_and(|word| matches!(word, "on" | "am" | "le" | "el" | "em" | "il" | "op" | "den" | "в"));
    preposition && words.next().is_some_and(|word| word.starts_with(|c: char| c.is_ascii_digit()))
}
