//! `posthaste queue list`: one line a message.

use std::io::Write;

use super::Failure;
use super::client::{Client, query_string};
use super::format::{age, bytes, sender};
use super::queue::FilterArgs;
use super::status::{due, print_json};
use super::table::{Align, Table};
use crate::daemon::admin::model::{MessageState, MessageSummary, Page};
use crate::daemon::admin::query::PAGE_MAX;
use crate::types::{Clock, MessageId, SystemClock, Timestamp};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    filter: FilterArgs,
    /// Show at most this many.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// Go on after this message id, as the list before said.
    #[arg(long, value_name = "ID")]
    after: Option<MessageId>,
}

pub(super) fn run(
    client: &Client,
    args: &Args,
    json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failure> {
    let page = collect(client, args)?;
    if json {
        print_json(&page, out)?;
        return Ok(());
    }
    if page.messages.is_empty() && page.next.is_none() {
        writeln!(out, "no messages")?;
        return Ok(());
    }
    let now = SystemClock.now();
    let mut table = Table::new([
        ("ID", Align::Left),
        ("AGE", Align::Right),
        ("SIZE", Align::Right),
        ("STATE", Align::Left),
        ("TRIES", Align::Right),
        ("NEXT", Align::Left),
        ("SENDER", Align::Left),
        ("RECIPIENTS", Align::Left),
        ("WAITS FOR", Align::Left),
    ]);
    page.messages.iter().for_each(|message| table.row(cells(message, now)));
    table.print(out)?;
    if let Some(next) = page.next {
        writeln!(err, "there may be more: add --after {next}")?;
    }
    Ok(())
}

/// Pages until there are enough: a server's page is smaller than what an administrator may ask for.
fn collect(client: &Client, args: &Args) -> Result<Page, Failure> {
    let wanted = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let mut all = Page { messages: Vec::new(), next: args.after };
    loop {
        let query = query_string(&[
            ("domain", args.filter.domain.clone()),
            ("sender", args.filter.sender.clone()),
            ("state", args.filter.state.clone()),
            ("limit", Some((wanted - all.messages.len()).min(PAGE_MAX).to_string())),
            ("after", all.next.map(|id| id.to_string())),
        ]);
        let page: Page = client.get(&format!("/v1/queue{query}"))?;
        all.messages.extend(page.messages);
        // A next that does not move on would never end.
        let moved_on = page.next > all.next;
        all.next = page.next;
        if all.next.is_none() || !moved_on || all.messages.len() >= wanted {
            return Ok(all);
        }
    }
}

fn cells(message: &MessageSummary, now: Timestamp) -> [String; 9] {
    let shown = message.recipients.join(",");
    let more = message.recipients_pending.saturating_sub(u64::try_from(message.recipients.len()).unwrap_or(u64::MAX));
    let next = match (message.state, message.next_attempt_at) {
        (MessageState::InFlight, _) => "under way".to_owned(),
        (MessageState::Held, _) => "on release".to_owned(),
        (_, Some(time)) => due(time, now),
        (_, None) => String::new(),
    };
    [
        message.id.to_string(),
        age(now.since(message.accepted_at)),
        bytes(message.size_bytes),
        message.state.name().to_owned(),
        message.attempts.to_string(),
        next,
        sender(&message.sender),
        if more == 0 { shown } else { format!("{shown} and {more} more") },
        message.waits_for.clone().unwrap_or_default(),
    ]
}
