//! The event files of a daemon, followed across rotations. Each line is checked against docs/event.schema.json.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use posthaste::events::{EventId, EventTail};
use serde_json::Value;

use super::PATIENCE;

const SCHEMA: &str = include_str!("../../../docs/event.schema.json");

/// One look for new lines. [`EventTail`] polls within it.
const LOOK: Duration = Duration::from_millis(100);

/// Follows one stream and keeps what it read.
pub(crate) struct Events {
    path: PathBuf,
    tail: EventTail,
    seen: Vec<Value>,
}

impl Events {
    /// From the first event on.
    pub(crate) fn open(path: &Path) -> Self {
        let tail = EventTail::resume(path, EventId::NONE).unwrap();
        Self { path: path.to_owned(), tail, seen: Vec::new() }
    }

    /// Everything that the files hold now, read anew. After a crash, what a follower saw may have been unsynced and
    /// written again, so only this is the truth.
    pub(crate) fn read_all(path: &Path) -> Vec<Value> {
        let mut events = Self::open(path);
        events.catch_up();
        events.seen
    }

    /// All events so far, in order.
    pub(crate) fn seen(&mut self) -> &[Value] {
        self.catch_up();
        &self.seen
    }

    /// The first event, seen already or still to come, that `is_wanted`.
    pub(crate) fn wait_for(&mut self, is_wanted: impl Fn(&Value) -> bool) -> Value {
        self.wait_until(|seen| seen.iter().find(|event| is_wanted(event)).cloned())
    }

    /// The event of this type for this recipient of this message.
    pub(crate) fn wait_kind(&mut self, kind: &str, message_id: &str, recipient: &str) -> Value {
        self.wait_for(|event| {
            event["eventType"] == kind
                && event["mail"]["messageId"] == message_id
                && recipients(event).iter().any(|one| one == recipient)
        })
    }

    /// What `look` finds in all events so far, as soon as it finds something.
    pub(crate) fn wait_until<R>(&mut self, look: impl Fn(&[Value]) -> Option<R>) -> R {
        let deadline = Instant::now() + PATIENCE;
        self.catch_up();
        loop {
            if let Some(found) = look(&self.seen) {
                return found;
            }
            assert!(Instant::now() < deadline, "no such event in {}:\n{}", self.path.display(), self.summary());
            if let Some(line) = self.tail.wait_line(LOOK).unwrap() {
                self.seen.push(checked(&line.json));
                self.catch_up();
            }
        }
    }

    /// One line an event, for messages of failed tests.
    pub(crate) fn summary(&self) -> String {
        let line = |event: &Value| {
            let (kind, id) = (&event["eventType"], &event["mail"]["messageId"]);
            let extra = &event["posthaste"];
            let part = ["bounce", "deliveryDelay", "delivery"].into_iter().find_map(|name| event.get(name));
            format!("{kind} {id} {extra} {}", part.unwrap_or(&Value::Null))
        };
        self.seen.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    fn catch_up(&mut self) {
        while let Some(line) = self.tail.next_line().unwrap() {
            self.seen.push(checked(&line.json));
        }
    }
}

/// Whom the event is about; all recipients of the message for a Send.
pub(crate) fn recipients(event: &Value) -> Vec<String> {
    let texts = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect()
    };
    let addresses = |list: &Value| -> Vec<String> {
        let list = list.as_array().into_iter().flatten();
        list.filter_map(|one| one["emailAddress"].as_str().map(str::to_owned)).collect()
    };
    match event["eventType"].as_str() {
        Some("Delivery") => texts(&event["delivery"]["recipients"]),
        Some("Bounce") => addresses(&event["bounce"]["bouncedRecipients"]),
        Some("DeliveryDelay") => addresses(&event["deliveryDelay"]["delayedRecipients"]),
        _ => texts(&event["mail"]["destination"]),
    }
}

fn checked(line: &str) -> Value {
    static VALIDATOR: OnceLock<jsonschema::Validator> = OnceLock::new();
    let validator =
        VALIDATOR.get_or_init(|| jsonschema::validator_for(&serde_json::from_str(SCHEMA).unwrap()).unwrap());
    let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    if let Err(error) = validator.validate(&event) {
        panic!("{error} at {}: {line}", error.instance_path());
    }
    event
}
