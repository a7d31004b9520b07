//! `posthaste queue retry|hold|release|cancel`: on messages by id, by a filter, or on all.

use std::io::Write;

use super::Failure;
use super::client::{Client, percent_encode};
use super::format::count;
use super::queue::FilterArgs;
use super::status::print_json;
use crate::daemon::admin::model::ActionReport;
use crate::daemon::admin::query::ActionBody;
use crate::types::MessageId;

/// Which messages.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Message ids.
    #[arg(value_name = "ID")]
    ids: Vec<MessageId>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Every message of the queue.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct HoldArgs {
    #[command(flatten)]
    pub(super) selection: Args,
    /// Why, to be shown to whoever looks at the message.
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct CancelArgs {
    #[command(flatten)]
    selection: Args,
    /// Yes, empty the queue; needed with --all.
    #[arg(long)]
    yes: bool,
}

/// Cancelled mail does not come back, so the whole queue needs a second word.
pub(super) fn cancel(client: &Client, args: &CancelArgs, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    if args.selection.all && !args.yes {
        let text = "this removes every message of the queue for good; add --yes if that is meant";
        return Err(Failure::Usage(text.to_owned()));
    }
    run(client, "cancel", &args.selection, None, json, out)
}

pub(super) fn run(
    client: &Client,
    action: &str,
    args: &Args,
    reason: Option<&str>,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let has_filter = args.filter.domain.is_some() || args.filter.sender.is_some() || args.filter.state.is_some();
    let ways = [!args.ids.is_empty(), has_filter, args.all];
    if ways.iter().filter(|way| **way).count() != 1 {
        let text = "name messages in one way: by their ids, by --domain, --sender or --state, or --all";
        return Err(Failure::Usage(text.to_owned()));
    }
    let reason = reason.map(str::to_owned);
    let report = if args.ids.is_empty() {
        let FilterArgs { domain, sender, state } = args.filter.clone();
        let body = ActionBody { domain, sender, state, all: args.all, reason };
        client.post(&format!("/v1/queue/{action}"), &body)?
    } else {
        act_on_each(client, action, &args.ids, reason)?
    };
    if json {
        print_json(&report, out)?;
    } else {
        let unchanged = report.examined.saturating_sub(report.changed);
        writeln!(out, "{action}: {} changed, {unchanged} left as they were", count(report.changed, "message"))?;
    }
    Ok(())
}

/// Stops at the first that fails; says which were done before.
fn act_on_each(
    client: &Client,
    action: &str,
    ids: &[MessageId],
    reason: Option<String>,
) -> Result<ActionReport, Failure> {
    let body = ActionBody { reason, ..ActionBody::default() };
    let mut sum = ActionReport::default();
    for id in ids {
        let path = format!("/v1/queue/{}/{action}", percent_encode(&id.to_string()));
        let report: ActionReport = client.post(&path, &body)?;
        sum.changed += report.changed;
        sum.examined += report.examined;
    }
    Ok(sum)
}
