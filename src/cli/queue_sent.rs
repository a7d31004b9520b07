//! `posthaste queue sent`: what is remembered of messages that were sent.

use std::io::{self, Write};

use super::Failure;
use super::client::Client;
use super::format::{age, safe, sender};
use super::queue_show::Args;
use crate::daemon::admin::sent::{SentDetail, SentReport};
use crate::types::Timestamp;

pub(super) fn run(client: &Client, args: &Args, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    args.show_each(client, "/v1/sent", json, out, print)
}

fn print(message: &SentReport, now: Timestamp, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "message    {}", message.id)?;
    writeln!(out, "sender     {}", sender(&message.sender))?;
    writeln!(out, "accepted   {}", moment(message.accepted_at, now))?;
    for (name, text) in [
        ("caller", &message.caller),
        ("tenant", &message.tenant),
        ("identity", &message.identity),
        ("set", &message.configuration_set),
    ] {
        if !text.is_empty() {
            writeln!(out, "{name:<10} {}", safe(text))?;
        }
    }
    message.recipients.iter().try_for_each(|recipient| print_recipient(recipient, now, out))?;
    if message.more {
        writeln!(out, "there are more recipients")?;
    }
    Ok(())
}

fn print_recipient(recipient: &SentDetail, now: Timestamp, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "recipient  {}", safe(&recipient.address))?;
    let ended = recipient.ended_at.map(|at| format!(" {}", moment(at, now)));
    writeln!(out, "  outcome  {}{}", safe(&recipient.outcome), ended.unwrap_or_default())?;
    let source = recipient.source.as_deref().map(|source| format!(", source {}", safe(source)));
    let site = recipient.site.as_deref().map(|site| format!(", site {}", safe(site)));
    writeln!(
        out,
        "  went     by pool {}{}{}",
        safe(&recipient.pool),
        source.unwrap_or_default(),
        site.unwrap_or_default()
    )?;
    for (name, at) in [
        ("bounce", recipient.bounced_at),
        ("complaint", recipient.complained_at),
        ("unsubscribed", recipient.unsubscribed_at),
        ("remark", recipient.remarked_at),
    ] {
        if let Some(at) = at {
            writeln!(out, "  {name} told {}", moment(at, now))?;
        }
    }
    Ok(())
}

fn moment(at: Timestamp, now: Timestamp) -> String {
    format!("{at} ({} ago)", age(now.since(at)))
}
