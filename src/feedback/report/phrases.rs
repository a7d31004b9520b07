//! The words of bounces, as tables: what programs write, in the languages that their makers and administrators speak.
//!
//! Promises: nothing here says what a bounce means ([`super::meanings`] does), only that it is one, and of whom. Phrases are in lower case;
//! texts are compared in lower case.

use super::diagnostic::head;

/// Octets of a notice in which phrases are looked for.
const SEARCHED_BYTES_MAX: usize = 8 << 10;

/// Lower case, single spaces, at most [`SEARCHED_BYTES_MAX`] octets.
pub(super) fn lower(text: &str) -> String {
    head(text, SEARCHED_BYTES_MAX).to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn has(text: &str, phrases: &[&str]) -> bool {
    phrases.iter().any(|phrase| text.contains(phrase))
}

/// Local parts of addresses that programs have.
const ROLES: [&str; 14] = [
    "mailer-daemon",
    "mailerdaemon",
    "postmaster",
    "mail-daemon",
    "maildaemon",
    "mdaemon",
    "listserv",
    "mailmaster",
    "bounce",
    "noreply",
    "no-reply",
    "mailadmin",
    "abuse",
    "hostmaster",
];

/// Whether it is the local part of a program or of who runs one.
pub(super) fn is_role(local: &str) -> bool {
    let local = local.to_ascii_lowercase();
    ROLES.contains(&local.as_str()) || local.starts_with("microsoftexchange329e71ec88ae4615")
}

/// Whether a `From` is one of a program that delivers mail.
pub(super) fn is_daemon(from: &str) -> bool {
    let lower = lower(from);
    let names = [
        "mailer-daemon",
        "mail delivery",
        "postmaster",
        "mail-daemon",
        "mailerdaemon",
        "maildaemon",
        "microsoftexchange329e71ec88ae4615",
        "system administrator",
        "mdaemon",
        "mail administrator",
        "systemadministrator",
        "délivrance",
        "mail router",
        "internet mail",
        "non-delivery",
        "mailsystem",
        "mail system",
        "mailer daemon",
        "mailmaster",
        "smtp-daemon",
        "系统退信",
    ];
    has(&lower, &names)
}

/// Subjects of bounces.
const SUBJECTS: [&str; 74] = [
    "undeliver",
    "delivery status notification",
    "failure notice",
    "returned mail",
    "mail delivery failed",
    "delivery failure",
    "mail delivery failure",
    "delivery failed",
    "delivery has failed",
    "mail failure",
    "undelivered",
    "returning message to sender",
    "delivery notification",
    "message could not be delivered",
    "nondeliverable",
    "non-deliverable",
    "not delivered",
    "delivery error",
    "failed mail",
    "error sending",
    "mail system error",
    "message delivery failure",
    "unable to deliver",
    "could not be delivered",
    "cannot deliver",
    "delivery problem",
    "undeliverable",
    "rejected mail",
    "mail returned",
    "mail could not be delivered",
    "delivery report",
    "returned email",
    "message undeliverable",
    "warning: could not send message",
    "warning: message",
    "delayed mail",
    "delivery delayed",
    "bounced mail",
    "user unknown",
    "delivery unsuccessful",
    "non delivery",
    "non remis",
    "non délivré",
    "échec de la remise",
    "notification d'échec",
    "échec de remise",
    "unzustellbar",
    "nicht zustellbar",
    "zustellung fehlgeschlagen",
    "fehlgeschlagene zustellung",
    "zustellungsfehler",
    "no se puede entregar",
    "no entregado",
    "error de entrega",
    "no se pudo entregar",
    "mancato recapito",
    "mancata consegna",
    "non recapitabile",
    "onbestelbaar",
    "niet bezorgd",
    "não foi possível entregar",
    "não entregue",
    "falha na entrega",
    "недоставлен",
    "не доставлено",
    "не удалось доставить",
    "ошибка доставки",
    "退信",
    "投递失败",
    "配信不能",
    "配信エラー",
    "kan inte levereras",
    "teslim edilemedi",
    "niedostarczon",
];

/// Whether programs title bounces so.
pub(super) fn is_bounce_subject(subject: &str) -> bool {
    has(&lower(subject), &SUBJECTS)
}

/// `Re:` in some languages.
pub(super) fn is_reply_subject(subject: &str) -> bool {
    let lower = lower(subject);
    ["re:", "aw:", "sv:", "vs:", "rif:", "odp:", "antw:", "回复:", "答复:"]
        .iter()
        .any(|prefix| lower.starts_with(prefix))
}

/// Words that bounces are made of.
const TEXTS: [&str; 92] = [
    "this is the qmail-send program",
    "this is the mail system at host",
    "this message was created automatically by mail delivery software",
    "could not be delivered to",
    "could not be delivered",
    "had permanent fatal errors",
    "transcript of session follows",
    "delivery to the following recipient failed",
    "delivery to the following recipients failed",
    "address not found",
    "delivery has failed to these recipients",
    "did not reach some or all of the intended recipients",
    "could not be reached",
    "was not delivered to",
    "undeliverable to the following",
    "not listed in domino directory",
    "failed to deliver to",
    "unable to deliver",
    "permanent error",
    "could not deliver",
    "couldn't be delivered",
    "wasn't delivered to",
    "couldn't deliver",
    "message delivery failure",
    "had permanent fatal delivery errors",
    "unknown user:",
    "user mailbox exceeds",
    "has been undeliverable",
    "cannot be delivered",
    "can't be delivered",
    "no valid recipients",
    "failed addresses follow",
    "undelivered message",
    "was undeliverable",
    "is undeliverable",
    "not be delivered",
    "returned to you",
    "returned to sender",
    "failure reasons",
    "was rejected by",
    "delivery failure",
    "delivery failed",
    "failed permanently",
    "errors occurred",
    "error while delivering",
    "unable to send",
    "unsuccessful delivery",
    "does not exist",
    "user unknown",
    "mailbox is full",
    "delivery attempts",
    "not deliverable",
    "still being retried",
    "has not yet been delivered",
    "has not been delivered",
    "message was not delivered",
    "following addresses failed",
    "n'a pas pu être remis",
    "n'a pas pu être délivré",
    "n'a pu être remis",
    "n'a pas été remis",
    "impossible de remettre",
    "erreur de distribution",
    "konnte nicht zugestellt werden",
    "nicht zugestellt werden",
    "konnte leider nicht",
    "zustellung fehlgeschlagen",
    "konnte nicht ausgeliefert",
    "no se ha podido entregar",
    "no se pudo entregar",
    "no ha podido ser entregado",
    "no fue entregado",
    "non è stato possibile consegnare",
    "non è stato possibile recapitare",
    "non è stato recapitato",
    "não pôde ser entregue",
    "não foi possível entregar",
    "não foi entregue",
    "kon niet worden bezorgd",
    "kan niet worden afgeleverd",
    "не может быть доставлено",
    "не было доставлено",
    "не удалось доставить",
    "无法投递",
    "无法发送",
    "被退回",
    "退信原因",
    "配信できません",
    "送信できません",
    "kunde inte levereras",
    "nie mogła zostać dostarczona",
    "teslim edilemedi",
];

/// Whether a notice is worded as bounces are.
pub(super) fn is_bounce_text(text: &str) -> bool {
    has(&lower(text), &TEXTS)
}

/// Words of warnings that are no end.
const DELAYS: [&str; 28] = [
    "warning message only",
    "will be retried",
    "will keep trying",
    "will continue to try",
    "continue trying",
    "delivery attempts will continue",
    "not yet been delivered",
    "has been delayed",
    "still being retried",
    "no action is required",
    "will try again",
    "will retry",
    "delivery incomplete",
    "temporary problem delivering",
    "keep retrying",
    "is delayed",
    "will attempt to deliver",
    "keep attempting",
    "n'a pas encore été",
    "noch nicht zugestellt",
    "wird weiter versucht",
    "sera réessayé",
    "todavía no",
    "se seguirá intentando",
    "ancora stato consegnato",
    "ainda não foi",
    "попытки доставки будут продолжены",
    "将继续尝试",
];
const DELAY_SUBJECTS: [&str; 16] = [
    "delayed",
    "(delay)",
    "delivery incomplete",
    "warning: could not send",
    "warning: message",
    "still undelivered",
    "verzögert",
    "retardé",
    "retrasad",
    "ritard",
    "vertraagd",
    "atrasad",
    "задерж",
    "延迟",
    "遅延",
    "delay notification",
];
/// Words after which it is over, whatever else is said.
const ENDS: [&str; 14] = [
    "failed permanently",
    "permanent error",
    "permanent fatal",
    "gave up",
    "giving up",
    "given up",
    "undeliverable to",
    "will not be retried",
    "i've given up",
    "retry time not reached for any host after",
    "retry timeout exceeded",
    "has been removed from",
    "no further attempts",
    "could not be delivered to one or more",
];

/// Whether a notice is a warning while delivery goes on.
pub(super) fn is_delay(subject: &str, text: &str) -> bool {
    let text = lower(text);
    if has(&text, &ENDS) {
        return false;
    }
    has(&lower(subject), &DELAY_SUBJECTS) || has(&text, &DELAYS)
}

/// Whether a notice says that all went well.
pub(super) fn is_success(subject: &str, text: &str) -> bool {
    let subjects = ["successful mail delivery", "(success)", "(relay)", "delivery confirmation"];
    let starts = ["delivered:", "relayed:", "zugestellt:", "remis :"];
    let texts = [
        "was successfully delivered",
        "successfully delivered to",
        "has been delivered to the following",
        "was delivered to the following recipient",
    ];
    let subject = lower(subject);
    starts.iter().any(|start| subject.starts_with(start)) || has(&subject, &subjects) || has(&lower(text), &texts)
}

/// Lines before a returned message, without marks at their edges.
const CUTS: [&str; 43] = [
    "below this line is a copy of the message",
    "below is a copy of the original message",
    "this is a copy of the message",
    "this is a copy of your message",
    "this is a copy of the headers",
    "original message follows",
    "unsent message below",
    "original message",
    "message header follows",
    "message headers follow",
    "returned message",
    "message follows",
    "undelivered message follows",
    "returned mail follows",
    "message header",
    "message headers",
    "original headers",
    "header of the original message",
    "original message headers",
    "original message header",
    "the header of the original message",
    "start of returned message",
    "included is a copy of the message header",
    "the following is a copy of the original message",
    "your original message",
    "original mail",
    "begin message",
    "message text follows",
    "ursprüngliche nachricht",
    "originalnachricht",
    "kopie der nachricht",
    "message original",
    "message d'origine",
    "en-têtes du message",
    "mensaje original",
    "messaggio originale",
    "mensagem original",
    "oorspronkelijk bericht",
    "исходное сообщение",
    "оригинальное сообщение",
    "原邮件",
    "原始邮件",
    "元のメッセージ",
];

/// Whether what follows a line is the returned message.
pub(super) fn is_cut(line: &str) -> bool {
    if line.len() > 160 {
        return false;
    }
    let bare = line.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    let fits = |cut: &str| {
        bare.strip_prefix(cut)
            .is_some_and(|rest| rest.is_empty() || cut.len() > 20 && !rest.starts_with(char::is_alphanumeric))
    };
    CUTS.iter().any(|cut| fits(cut))
}

/// Whether a line begins a header that is quoted without a word.
pub(super) fn is_header_start(line: &str) -> bool {
    let line = line.trim_start_matches(['>', '|', ' ']);
    ["Return-Path: <", "Received: from", "Received: by", "Received: (qmail", "DKIM-Signature:", "Return-path: <"]
        .iter()
        .any(|start| line.starts_with(start))
}

/// What stands before an address that is a recipient, at the end of the text before it.
const LEADS: [&str; 62] = [
    "recipient",
    "recipients",
    "recipient address",
    "recipient(s)",
    "to",
    "failed address",
    "failed recipient",
    "unknown user",
    "user unknown",
    "rcpt to",
    "for",
    "mailbox",
    "user",
    "address",
    "addressee",
    "delivered to",
    "deliver to",
    "smtp",
    "mailto",
    "undeliverable to",
    "original-recipient",
    "final-recipient",
    "rfc822;",
    "user mailbox exceeds allowed size",
    "mailbox full",
    "email address",
    "intended recipient",
    "account",
    "invalid recipient",
    "can't deliver to",
    "unrouteable address",
    "destinataire",
    "destinataires",
    "à",
    "adresse",
    "l'adresse",
    "aux destinataires",
    "empfänger",
    "an",
    "empfängeradresse",
    "die adresse",
    "destinatario",
    "para",
    "a",
    "dirección",
    "al destinatario",
    "per",
    "l'indirizzo",
    "destinatário",
    "geadresseerde",
    "aan",
    "получатель",
    "получателю",
    "для",
    "адресату",
    "收件人",
    "收件地址",
    "宛先",
    "odbiorca",
    "do",
    "mottagare",
    "alıcı",
];

/// Whether an address after these words is a recipient's.
pub(super) fn leads_to_recipient(before: &str) -> bool {
    let tail =
        before.get(before.ceil_char_boundary(before.len().saturating_sub(60))..).unwrap_or_default().to_lowercase();
    let tail = tail.trim_end_matches([':', '：', ' ', '<', '(', '[', '"', '\'', '=', '.']);
    let fits = |lead: &str| {
        tail.strip_suffix(lead).is_some_and(|rest| !rest.ends_with(|c: char| c.is_alphanumeric() && c.is_ascii()))
    };
    LEADS.iter().any(|lead| fits(lead))
}

/// Words that say that an address before them failed.
pub(super) fn follows_recipient(after: &str) -> bool {
    let lower = lower(head(after, 80));
    has(
        &lower,
        &[
            "unknown", "failed", "not ", "could", "couldn't", "does", "invalid", "mailbox", "no such", "n'", "nicht",
            "ist ", "não", "non ", "не ", "不", "は",
        ],
    )
}

/// Whether an address after these words is one to write to.
pub(super) fn is_contact(before: &str) -> bool {
    let lower = lower(before.get(before.ceil_char_boundary(before.len().saturating_sub(80))..).unwrap_or_default());
    has(
        &lower,
        &[
            "contact",
            "send mail to",
            "forward",
            "e-mail to",
            "email to",
            "write to",
            "questions",
            "help",
            "assistance",
            "report",
            "wenden sie sich",
            "contacter",
            "please",
        ],
    ) || ["from", "by", "de", "von", "sender", "expéditeur", "absender", "reply-to", "remitente"].iter().any(|word| {
        lower
            .trim_end_matches([':', ' ', '<'])
            .strip_suffix(word)
            .is_some_and(|rest| !rest.ends_with(|c: char| c.is_ascii_alphanumeric()))
    })
}
