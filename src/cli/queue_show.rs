//! `posthaste queue show`: all about some messages.

use std::io::{self, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Failure;
use super::client::Client;
use super::format::{age, bytes, safe, sender};
use super::status::{due, print_json};
use crate::daemon::admin::model::{MessageDetail, RecipientDetail};
use crate::types::{Clock, MessageId, SystemClock, Timestamp};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Message ids, as the 250 reply and the event files name them.
    #[arg(value_name = "ID", required = true)]
    ids: Vec<MessageId>,
}

impl Args {
    /// Asks for each message at `path`, and prints what comes, one after the other.
    pub(super) fn show_each<T: Serialize + DeserializeOwned>(
        &self,
        client: &Client,
        path: &str,
        json: bool,
        out: &mut dyn Write,
        print: impl Fn(&T, Timestamp, &mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        for (position, id) in self.ids.iter().enumerate() {
            let about: T = client.get(&format!("{path}/{id}"))?;
            if json {
                print_json(&about, out)?;
                continue;
            }
            if position > 0 {
                writeln!(out)?;
            }
            print(&about, SystemClock.now(), out)?;
        }
        Ok(())
    }
}

pub(super) fn run(client: &Client, args: &Args, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    args.show_each(client, "/v1/queue", json, out, print)
}

fn print(message: &MessageDetail, now: Timestamp, out: &mut dyn Write) -> io::Result<()> {
    let held = message.held_reason.as_deref().map(|reason| format!(": {}", safe(reason)));
    writeln!(out, "message    {}", message.id)?;
    writeln!(out, "state      {}{}", message.state.name(), held.unwrap_or_default())?;
    writeln!(out, "sender     {}", sender(&message.sender))?;
    writeln!(out, "size       {}", bytes(message.size_bytes))?;
    writeln!(out, "accepted   {} ({} ago)", message.accepted_at, age(now.since(message.accepted_at)))?;
    writeln!(out, "expires    {} ({})", message.expires_at, due(message.expires_at, now))?;
    message.recipients.iter().try_for_each(|recipient| print_recipient(recipient, now, out))
}

fn print_recipient(recipient: &RecipientDetail, now: Timestamp, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "recipient  {}", safe(&recipient.address))?;
    writeln!(out, "  state    {}, tried {}", recipient.state.name(), times(recipient.attempts))?;
    if let Some(time) = recipient.last_attempt_at {
        writeln!(out, "  last     {time} ({} ago)", age(now.since(time)))?;
    }
    if let Some(reply) = &recipient.last_reply {
        let host = recipient.host.as_deref().map(|host| format!(" by {}", safe(host)));
        let rule = recipient.rule.as_deref().map(|rule| format!(" (rule {})", safe(rule)));
        writeln!(out, "  reply    {}{}{}", safe(reply), host.unwrap_or_default(), rule.unwrap_or_default())?;
    }
    if let Some(time) = recipient.next_attempt_at {
        writeln!(out, "  next     {time} ({})", due(time, now))?;
    }
    if let Some(reason) = &recipient.waits_for {
        writeln!(out, "  waits    {}", safe(reason))?;
    }
    Ok(())
}

pub(super) fn times(number: u32) -> String {
    match number {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        _ => format!("{number} times"),
    }
}
