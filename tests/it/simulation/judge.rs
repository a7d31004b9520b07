//! The invariants, checked when all is over: event files, store, and what hosts and applications say, against each
//! other. The names are those of docs/QUEUE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use posthaste::events::file::Storage;
use posthaste::queue::invariants;
use posthaste::queue::store::Family;
use serde_json::Value;

use super::ledger::{Dot, Ledger, notification_name};
use super::world::World;

const SCHEMA: &str = include_str!("../../../docs/event.schema.json");

/// All event files, each stream in order: rotated ones by the first event within, then the current one.
pub(super) fn event_files(world: &World) -> Vec<(String, String)> {
    let mut names = world.files.list().unwrap();
    let place = |name: &String| {
        let stream = name.split(['.', '-']).next().unwrap_or_default().to_owned();
        let first = name.trim_end_matches(".jsonl").rsplit('-').next().and_then(|id| id.parse::<u64>().ok());
        (stream, first.unwrap_or(u64::MAX))
    };
    names.sort_by_key(place);
    names.into_iter().map(|name| (name.clone(), world.files.content(&name).unwrap_or_default())).collect()
}

/// What the events say of one recipient of one message.
#[derive(Default)]
struct Story {
    sends: usize,
    deliveries: usize,
    bounces: usize,
    /// Of the final event.
    ambiguous: bool,
    is_notification: bool,
}

pub(super) fn judge(world: &World, files: &[(String, String)]) {
    let mut found = Vec::new();
    let events = lines(files, "events", &mut found);
    ids(&events, &mut found);
    bounces_apart(&events, &lines(files, "bounces", &mut found), &mut found);
    let stories = stories(&events, &mut found);
    {
        let ledger = world.ledger();
        accepted(&ledger, &stories, &mut found);
        for (name, story) in &stories {
            finals(name, story, &mut found);
            let dots = ledger.dots.get(name).map_or(&[][..], Vec::as_slice);
            far_end(&ledger, name, story, dots, &mut found);
        }
        for name in ledger.dots.keys().filter(|name| !stories.contains_key(*name)) {
            found.push(format!("SEND: {name} came to a host, and no event tells of it"));
        }
    }
    store(world, &mut found);
    for violation in found {
        world.ledger().violation(violation);
    }
}

/// SCHEMA: each line is whole, and as published.
fn lines(files: &[(String, String)], stream: &str, found: &mut Vec<String>) -> Vec<Value> {
    static VALIDATOR: OnceLock<jsonschema::Validator> = OnceLock::new();
    let validator =
        VALIDATOR.get_or_init(|| jsonschema::validator_for(&serde_json::from_str(SCHEMA).unwrap()).unwrap());
    let mut events = Vec::new();
    for (name, content) in files.iter().filter(|(name, _)| name.starts_with(stream)) {
        if !content.is_empty() && !content.ends_with('\n') {
            found.push(format!("SCHEMA: {name} ends amid a line"));
        }
        for line in content.lines() {
            match serde_json::from_str::<Value>(line) {
                Ok(event) => {
                    if let Err(error) = validator.validate(&event) {
                        found.push(format!("SCHEMA: {name}: {error}: {line}"));
                    }
                    events.push(event);
                }
                Err(error) => found.push(format!("SCHEMA: {name}: {error}: {line:?}")),
            }
        }
    }
    events
}

/// SEQUENCE: from 1 on, without gaps or doubles, in order.
fn ids(events: &[Value], found: &mut Vec<String>) {
    for (event, expected) in events.iter().zip(1_u64..) {
        let id = id_of(event);
        if id != expected {
            found.push(format!("SEQUENCE: event {id} stands where {expected} belongs"));
            return;
        }
    }
}

fn id_of(event: &Value) -> u64 {
    let id = &event["posthaste"]["eventId"];
    id.as_u64().or_else(|| id.as_str().and_then(|id| id.parse().ok())).unwrap_or(0)
}

/// SEQUENCE: a stream that takes one kind has all of that kind.
fn bounces_apart(events: &[Value], bounces: &[Value], found: &mut Vec<String>) {
    let expected: Vec<u64> = events.iter().filter(|event| event["eventType"] == "Bounce").map(id_of).collect();
    let got: Vec<u64> = bounces.iter().map(id_of).collect();
    if expected != got {
        found.push(format!("SEQUENCE: bounces.jsonl has {got:?}, and should have {expected:?}"));
    }
}

fn stories(events: &[Value], found: &mut Vec<String>) -> BTreeMap<String, Story> {
    let mut stories: BTreeMap<String, Story> = BTreeMap::new();
    for event in events {
        let (mail, kind) = (&event["mail"], event["eventType"].as_str().unwrap_or_default());
        let is_notification = mail["source"].as_str().unwrap_or_default().is_empty();
        let recipients: Vec<&str> = match kind {
            "Send" => strings(&mail["destination"]),
            "Delivery" => strings(&event["delivery"]["recipients"]),
            "Bounce" => emails(&event["bounce"]["bouncedRecipients"]),
            "DeliveryDelay" => emails(&event["deliveryDelay"]["delayedRecipients"]),
            _ => Vec::new(),
        };
        for address in recipients {
            let name = if is_notification {
                notification_name(address, mail["messageId"].as_str().unwrap_or_default())
            } else {
                address.to_owned()
            };
            let story = stories.entry(name.clone()).or_default();
            story.is_notification = is_notification;
            match kind {
                "Send" => story.sends += 1,
                "Delivery" => story.deliveries += 1,
                "Bounce" => story.bounces += 1,
                _ if story.deliveries + story.bounces > 0 => {
                    found.push(format!("FINAL: {name} is delayed after its end"));
                }
                _ => {}
            }
            if matches!(kind, "Delivery" | "Bounce") {
                story.ambiguous |= event["posthaste"]["ambiguous"] == true;
            }
        }
    }
    stories
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn emails(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(|one| one["emailAddress"].as_str()).collect()
}

/// ACCEPTED: what got 250 is there.
fn accepted(ledger: &Ledger, stories: &BTreeMap<String, Story>, found: &mut Vec<String>) {
    for name in &ledger.accepted {
        if stories.get(name).is_none_or(|story| story.sends != 1) {
            found.push(format!("ACCEPTED: {name} got 250, and has no Send event"));
        }
    }
}

/// FINAL: each recipient of what was accepted ends once.
fn finals(name: &str, story: &Story, found: &mut Vec<String>) {
    if story.sends != 1 {
        found.push(format!("SEND: {name} has {} Send events", story.sends));
    }
    if story.deliveries + story.bounces != 1 {
        let (deliveries, bounces) = (story.deliveries, story.bounces);
        found.push(format!("FINAL: {name} has {deliveries} Delivery and {bounces} Bounce events"));
    }
}

/// TAKEN, TWICE, AMBIGUOUS: the events against what hosts did.
fn far_end(ledger: &Ledger, name: &str, story: &Story, dots: &[Dot], found: &mut Vec<String>) {
    let taken = dots.iter().filter(|dot| dot.taken).count();
    if story.deliveries > 0 && taken == 0 {
        found.push(format!("TAKEN: {name} has a Delivery event, and no host took it"));
    }
    // An earlier dot must be one whose outcome the daemon did not know, or not keep.
    for pair in dots.windows(2) {
        let (dot, next) = (pair[0], pair[1]);
        let was_lost = ledger
            .restarts
            .iter()
            .any(|restart| dot.at <= restart.stopped_at && restart.stopped_at <= next.at && restart.due.contains(name));
        if dot.taken && dot.replied && !was_lost {
            found.push(format!("TWICE: {name} was taken at {} and sent again at {}", dot.at, next.at));
        }
    }
    let must_be_ambiguous = taken > 1 || (taken > 0 && story.bounces > 0);
    if must_be_ambiguous && !story.ambiguous {
        found.push(format!("AMBIGUOUS: {name} was taken {taken} times, and its last event does not say so"));
    }
    let may_be_ambiguous = dots.iter().any(|dot| !dot.replied)
        || ledger.restarts.iter().any(|restart| restart.due.contains(name))
        || ledger.is_behind(name);
    if story.ambiguous && !may_be_ambiguous {
        found.push(format!("AMBIGUOUS: {name} says so without a reason"));
    }
}

/// EMPTY: nothing is left, and the store is sound.
fn store(world: &World, found: &mut Vec<String>) {
    let store = world.disk.store();
    let stays = |family: &Family| {
        matches!(
            family,
            Family::Meta
                | Family::Suppression
                | Family::Counter
                | Family::Lane
                | Family::History
                | Family::Source
                | Family::Sent
                | Family::Reputation
        )
    };
    let families: BTreeSet<Family> = Family::ALL.into_iter().filter(|family| !stays(family)).collect();
    for family in families {
        let left = store.dump(family).len();
        if left > 0 {
            found.push(format!("EMPTY: {left} records are left in {}", family.name()));
        }
    }
    if let Ok(violations) = invariants::violations(store) {
        found.extend(violations);
    }
}
