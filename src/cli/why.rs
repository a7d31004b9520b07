//! `posthaste why`: what a message waits for, because of which reply or rule, until when.

use std::io::{self, Write};

use super::Failure;
use super::client::{Client, ClientError, SocketArgs};
use super::format::{age, safe, sender};
use super::queue_show::times;
use super::status::{due, print_json};
use crate::daemon::admin::model::{MessageDetail, RecipientDetail, RecipientState};
use crate::types::{Clock, MessageId, SystemClock, Timestamp};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    socket: SocketArgs,
    /// Message id, as the 250 reply and the event files name it.
    #[arg(value_name = "ID")]
    id: MessageId,
}

pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let now = SystemClock.now();
    let detail: MessageDetail = match Client::locate(&args.socket)?.get(&format!("/v1/queue/{}", args.id)) {
        Err(ClientError::Refused { code, .. }) if code == "not_found" => {
            return Err(Failure::NotFound(gone(args.id, now)));
        }
        answer => answer?,
    };
    if args.socket.json {
        return Ok(print_json(&detail, out)?);
    }
    Ok(print(&detail, now, out)?)
}

/// An id tells when its message was accepted, if it ever was.
fn gone(id: MessageId, now: Timestamp) -> String {
    let at = id.accepted_at();
    if at > now {
        return format!(
            "message {id} is not in the queue, and by its id it would have been accepted at {at}: no such message"
        );
    }
    format!(
        "message {id} waits for nothing: it is not in the queue. If it was accepted here (by its id {} ago, at {at}), all its \
         recipients have ended: the event files say how (look for the id in them)",
        age(now.since(at))
    )
}

fn print(message: &MessageDetail, now: Timestamp, out: &mut dyn Write) -> io::Result<()> {
    let accepted = age(now.since(message.accepted_at));
    writeln!(out, "message {} from {}, accepted {accepted} ago", message.id, sender(&message.sender))?;
    writeln!(out, "expires {} ({})", message.expires_at, due(message.expires_at, now))?;
    message.recipients.iter().try_for_each(|recipient| print_recipient(recipient, now, out))
}

fn print_recipient(recipient: &RecipientDetail, now: Timestamp, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", safe(&recipient.address))?;
    let pending = match recipient.state {
        RecipientState::InFlight => {
            writeln!(out, "  now      a connection works on it")?;
            true
        }
        RecipientState::Ready | RecipientState::Deferred | RecipientState::Held => {
            let reason = recipient.waits_for.as_deref().unwrap_or("its turn");
            writeln!(out, "  waits    {}", safe(reason))?;
            true
        }
        ended => {
            writeln!(out, "  ended    {}, tried {}: it waits for nothing", ended.name(), times(recipient.attempts))?;
            false
        }
    };
    if pending {
        if let Some(rule) = &recipient.waits_rule {
            writeln!(out, "  rule     {} (posthaste rules show)", safe(rule))?;
        }
        if let Some(until) = recipient.waits_until {
            writeln!(out, "  until    {until} ({})", due(until, now))?;
        }
        if let Some(pool) = &recipient.pool {
            let site = recipient.site.as_deref().map(|site| format!(" to site {}", safe(site)));
            writeln!(out, "  goes     by pool {}{}", safe(pool), site.unwrap_or_default())?;
        }
        writeln!(out, "  tried    {}", times(recipient.attempts))?;
    }
    let Some(reply) = &recipient.last_reply else { return Ok(()) };
    let host = recipient.host.as_deref().map(|host| format!(" by {}", safe(host)));
    let rule = recipient.rule.as_deref().map(|rule| format!(" (rule {})", safe(rule)));
    let ago = recipient.last_attempt_at.map(|at| format!(", {} ago", age(now.since(at))));
    writeln!(
        out,
        "  reply    {}{}{}{}",
        safe(reply),
        host.unwrap_or_default(),
        rule.unwrap_or_default(),
        ago.unwrap_or_default()
    )
}
