//! Rules on codes alone: enhanced (RFC 3463, RFC 5248 and its registry, and what Google and Microsoft made of it), then
//! basic (RFC 5321 §4.2.3).

use super::*;

/// By enhanced code, whatever its class.
pub(super) const ENHANCED: &[Spec<'static>] = &[
    enhanced("5.1-sender", Stages::MAIL, &[range(1, 0, 999)], SENDER),
    enhanced("x.1.2", Stages::ANY, &[x(1, 2), x(1, 10)], BAD_DOMAIN),
    enhanced("x.1.7", Stages::ANY, &[x(1, 7), x(1, 8), x(1, 9)], SENDER),
    enhanced("x.1.6", Stages::ANY, &[x(1, 6)], INACTIVE),
    enhanced("x.1.1", Stages::RECIPIENT, &[range(1, 0, 999)], BAD_MAILBOX),
    enhanced("x.2.1", Stages::RECIPIENT, &[x(2, 1)], INACTIVE),
    enhanced("x.2.2", Stages::RECIPIENT, &[x(2, 2)], FULL),
    enhanced("x.2.3", Stages::ANY, &[x(2, 3)], TOO_LARGE_FOR_RECIPIENT),
    enhanced("x.2", Stages::RECIPIENT, &[range(2, 0, 999)], UNDETERMINED),
    enhanced("x.3.4", Stages::ANY, &[x(3, 4)], TOO_LARGE),
    enhanced("x.3", Stages::ANY, &[range(3, 0, 999)], SYSTEM),
    enhanced("x.4.5", Stages::ANY, &[x(4, 5)], RATE),
    enhanced("x.4.6", Stages::ANY, &[x(4, 6), x(4, 14)], LOOP),
    enhanced("x.4.7", Stages::ANY, &[x(4, 7), x(4, 300)], EXPIRED),
    enhanced("x.4.310", Stages::ANY, &[x(4, 310)], BAD_DOMAIN),
    enhanced("x.4", Stages::ANY, &[range(4, 0, 999)], ROUTING),
    enhanced("x.5.3", Stages::ANY, &[x(5, 3)], TOO_MANY_RECIPIENTS),
    enhanced("x.5", Stages::ANY, &[range(5, 1, 999)], PROTOCOL),
    enhanced("x.6.7", Stages::ANY, &[range(6, 7, 10)], UNSUPPORTED),
    enhanced("x.6", Stages::ANY, &[range(6, 0, 999)], CONTENT),
    enhanced("x.7.8", Stages::SESSION, &[x(7, 8), x(7, 9)], LOGIN),
    enhanced("x.7.10", Stages::ANY, &[x(7, 10), x(7, 4), x(7, 5)], TLS),
    enhanced("x.7.25", Stages::ANY, &[x(7, 25)], BLOCK),
    enhanced("x.7.28", Stages::ANY, &[x(7, 28)], RATE),
    enhanced("x.7.20", Stages::ANY, &[range(7, 20, 40)], AUTH),
    enhanced("x.7.64", Stages::ANY, &[x(7, 64)], RELAY),
    enhanced("x.7.1xx", Stages::RECIPIENT, &[range(7, 100, 199)], REFUSED_BY_RECIPIENT),
    enhanced("x.7.509", Stages::ANY, &[x(7, 509), x(7, 515)], AUTH),
    enhanced("x.7.511", Stages::ANY, &[x(7, 511), range(7, 606, 649)], BLOCK),
    Spec {
        name: "4.7.5xx",
        stages: Stages::ANY,
        codes: Codes::Transient,
        enhanced: &[range(7, 500, 699)],
        phrases: &[],
        outcome: RATE,
    },
    enhanced("x.7.5xx", Stages::ANY, &[range(7, 500, 599)], SPAM),
    Spec {
        name: "5.7-session",
        stages: Stages::SESSION,
        codes: Codes::Permanent,
        enhanced: &[range(7, 0, 999)],
        phrases: &[],
        outcome: BLOCK,
    },
    enhanced("x.7", Stages::ANY, &[range(7, 0, 999)], POLICY),
];

/// By basic code and stage.
pub(super) const BASIC: &[Spec<'static>] = &[
    basic("521", Stages::ANY, Codes::Listed(&[521, 556]), NO_MAIL_HERE),
    basic("421", Stages::ANY, Codes::Listed(&[421]), SYSTEM),
    basic("login-refused", Stages::SESSION, Codes::Listed(&[530, 534, 535, 538]), LOGIN),
    basic("authentication-required", Stages::ANY, Codes::Listed(&[530, 535]), RELAY),
    basic("session-refused", Stages::SESSION, Codes::Permanent, BLOCK),
    basic("session-deferred", Stages::SESSION, Codes::Any, SYSTEM),
    basic("552-at-rcpt", Stages::RCPT, Codes::Listed(&[552]), FULL),
    basic("552", Stages::ANY, Codes::Listed(&[552]), TOO_LARGE),
    basic("syntax", Stages::ANY, Codes::Listed(&[500, 501, 502, 503, 504, 555]), PROTOCOL),
    basic("550-at-rcpt", Stages::RCPT, Codes::Listed(&[550, 551, 553]), BAD_MAILBOX),
    basic("5yz-at-rcpt", Stages::RCPT, Codes::Permanent, UNDETERMINED),
    basic("45z-storage", Stages::ANY, Codes::Listed(&[451, 452]), SYSTEM),
    basic("4yz", Stages::ANY, Codes::Transient, OTHER),
    basic("5yz", Stages::ANY, Codes::Permanent, OTHER),
    basic("unexpected", Stages::ANY, Codes::Any, PROTOCOL),
];
