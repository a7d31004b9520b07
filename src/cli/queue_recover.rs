//! `posthaste queue recover`: makes a new queue of what can be read of a damaged one, and lists what is lost.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::Failure;
use super::format::{count, join, safe, sender};
use super::status::print_json;
use crate::daemon::config::Config;
use crate::events::file::newest_event;
use crate::queue::Salvaged;
use crate::queue::recover::{Recovered, recover};
use crate::queue::rocks::RocksSettings;
use crate::types::{Clock, SystemClock};

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Answer {
    /// The damaged queue, as it was.
    damaged_queue: String,
    /// Messages in the new queue.
    messages: u64,
    lost: Vec<Lost>,
    /// Destinations held, since it is not known whether they were delivered.
    held: Vec<Held>,
    /// Messages that the queue counted and of which nothing was found.
    unnamed: u64,
    events: u64,
    events_lost: u64,
    /// Entries of suppression lists.
    suppressions: u64,
    damage: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Lost {
    message_id: String,
    /// `null`: its record cannot be read.
    sender: Option<String>,
    recipients: Option<Vec<String>>,
    reason: String,
}

#[derive(Debug, Serialize)]
struct Held {
    message_id: String,
    recipients: Vec<String>,
}

pub(super) fn run(config: &Path, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let config = Config::load(config).map_err(|errors| Failure::Failed(format!("the config has errors\n{errors}")))?;
    let directory = &config.events.directory;
    let newest = newest_event(directory)
        .map_err(|error| Failure::Failed(format!("cannot read event files in {}: {error}", directory.display())))?;
    let recovered = recover(&config.queue.data_dir, &RocksSettings::default(), newest, SystemClock.now())
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let is_whole = is_whole(&recovered.salvaged);
    let answer = Answer::new(recovered);
    if json {
        print_json(&answer, out)?
    } else {
        print(&answer, is_whole, out)?
    }
    if is_whole { Ok(()) } else { Err(Failure::Lost) }
}

/// Whether nothing is lost. Damage in a log may have held messages of which no trace is left.
fn is_whole(salvaged: &Salvaged) -> bool {
    salvaged.lost.is_empty()
        && salvaged.held.is_empty()
        && salvaged.unnamed == 0
        && salvaged.events_lost == 0
        && salvaged.damage.is_empty()
}

impl Answer {
    fn new(recovered: Recovered) -> Self {
        let Salvaged { messages, lost, held, unnamed, events, events_lost, damage, suppressions } = recovered.salvaged;
        let lost = lost.into_iter().map(|lost| {
            let (sender, recipients) = lost.envelope.unzip();
            Lost { message_id: lost.id.to_string(), sender, recipients, reason: lost.reason }
        });
        let held =
            held.into_iter().map(|held| Held { message_id: held.key.id.to_string(), recipients: held.recipients });
        Self {
            damaged_queue: recovered.aside.display().to_string(),
            messages,
            lost: lost.collect(),
            held: held.collect(),
            unnamed,
            events,
            events_lost,
            suppressions,
            damage,
        }
    }
}

fn print(answer: &Answer, is_whole: bool, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "{} queued again; the damaged queue is in {}",
        count(answer.messages, "message"),
        answer.damaged_queue
    )?;
    for damage in &answer.damage {
        writeln!(out, "damaged: {}", safe(damage))?;
    }
    for lost in &answer.lost {
        let envelope = match (&lost.sender, &lost.recipients) {
            (Some(from), Some(to)) => format!("from {} to {}", sender(from), safe(&join(to, "nobody"))),
            _ => "of unknown sender and recipients".to_owned(),
        };
        writeln!(out, "lost: {} {envelope}: {}", lost.message_id, safe(&lost.reason))?;
    }
    for held in &answer.held {
        let to = safe(&join(&held.recipients, "nobody"));
        writeln!(out, "held: {} to {to}: it is not known whether it was delivered", held.message_id)?;
    }
    if answer.unnamed > 0 {
        let unnamed = count(answer.unnamed, "message");
        writeln!(
            out,
            "lost: {unnamed} without a trace: accepted messages have a Send event, compare with the event files"
        )?;
    }
    if answer.events_lost > 0 {
        writeln!(out, "lost: {} that no file holds yet", count(answer.events_lost, "event"))?;
    }
    if answer.suppressions > 0 {
        writeln!(out, "entries of suppression lists kept: {}", answer.suppressions)?;
    }
    if is_whole {
        writeln!(out, "nothing is lost")?;
    }
    Ok(())
}
