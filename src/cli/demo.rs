//! `posthaste demo`: the real daemon on a temporary directory, the mailbox simulator in place of the world, messages
//! that end in every way, their events as they come, and a summary.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mail_builder::MessageBuilder;
use mail_send::SmtpClientBuilder;
use mail_send::smtp::message::Message;
use serde_json::Value;

use super::Failure;
use crate::daemon::config::Config;
use crate::daemon::instance::Instance;
use crate::daemon::run::install_tls_provider;
use crate::events::EventTail;

/// What cannot be delivered in the demo expires after this time.
const LIFETIME: Duration = Duration::from_secs(8);
/// How long the next event is waited for before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where the demo's mail comes from.
const SENDER: &str = "shop@shop.test";
/// Where it goes.
const DOMAIN: &str = "demo.test";

/// The events that each recipient is still to have, in order.
type Wanted = BTreeMap<&'static str, &'static [&'static str]>;

/// A message of the demo: what it shows, and its recipients with the events that each must have, in this order.
struct Scene {
    title: &'static str,
    recipients: &'static [(&'static str, &'static [&'static str])],
}

const SCENES: [Scene; 9] = [
    Scene { title: "delivered at once", recipients: &[("success@demo.test", &["Delivery"])] },
    Scene { title: "no such mailbox", recipients: &[("bounce@demo.test", &["Bounce"])] },
    Scene { title: "delivered, and somebody is out of the office", recipients: &[("ooto@demo.test", &["Delivery"])] },
    Scene {
        title: "delivered, and somebody complains",
        recipients: &[("complaint@demo.test", &["Delivery", "Complaint"])],
    },
    Scene {
        title: "an address on the global suppression list",
        recipients: &[("suppressionlist@demo.test", &["Bounce"])],
    },
    Scene {
        title: "taken, and bounced by mail later",
        recipients: &[("latebounce@demo.test", &["Delivery", "Bounce"])],
    },
    Scene { title: "greylisted, then delivered", recipients: &[("greylist@demo.test", &["Delivery"])] },
    Scene {
        title: "a host that is never ready, until the lifetime ends",
        recipients: &[("unavailable@demo.test", &["Bounce"])],
    },
    Scene {
        title: "four recipients, four fates",
        recipients: &[
            ("success+ann@demo.test", &["Delivery"]),
            ("full+bob@demo.test", &["Bounce"]),
            ("greylist+cem@demo.test", &["Delivery"]),
            ("policy+dee@demo.test", &["Bounce"]),
        ],
    },
];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print the event records as they stand in the file, instead of one readable line each.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    demonstrate(args.json).map_err(Failure::Failed)
}

/// Runs the demo to its end. `Err` says what went otherwise than it should.
fn demonstrate(json: bool) -> Result<(), String> {
    install_tls_provider();
    let directory = tempfile::tempdir().map_err(|error| format!("cannot make a temporary directory: {error}"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;
    runtime.block_on(play(directory.path(), json))
}

async fn play(directory: &Path, json: bool) -> Result<(), String> {
    let instance = Arc::new(Instance::start(config(directory)?)?);
    let (_, address) = instance.local_addrs().into_iter().next().ok_or("the daemon has no listener")?;
    say(&format!("posthaste listens on {address}; mail for {DOMAIN} goes to its mailbox simulator"));
    say(&format!("queue and event files are in {}\n", directory.display()));
    let mut wanted: Wanted = BTreeMap::new();
    for scene in &SCENES {
        submit(address.port(), scene).await?;
        wanted.extend(scene.recipients.iter().copied());
        let recipients: Vec<&str> = scene.recipients.iter().map(|(address, _)| *address).collect();
        say(&format!("submitted  {:<52} {}", scene.title, recipients.join(", ")));
    }
    say("");
    let path = directory.join("events/events.jsonl");
    let followed = tokio::task::spawn_blocking(move || follow(&path, wanted, json)).await;
    let outcome = followed.map_err(|error| error.to_string())?;
    let counts = instance.counts();
    let quiet = Arc::clone(&instance).stop().await;
    if let Some(instance) = Arc::into_inner(instance) {
        tokio::task::spawn_blocking(move || instance.close()).await.map_err(|error| error.to_string())?;
    }
    let deferrals = counts.deferred;
    let lines = outcome?;
    say(&format!(
        "\n{} messages, {} recipients delivered, {} bounced, {deferrals} deferrals on the way, {lines} events; {}",
        SCENES.len(),
        counts.delivered,
        counts.bounced,
        if quiet { "orderly stop" } else { "the stop was not orderly" },
    ));
    if quiet { Ok(()) } else { Err("the daemon did not stop in time".to_owned()) }
}

fn config(directory: &Path) -> Result<Config, String> {
    let text = format!(
        r#"
hostname = "mta.demo.test"
data_dir = "{data}/data"
[[listener]]
name = "demo"
address = "127.0.0.1:0"
tls = "none"
[queue]
free_space_reserve = "16MiB"
[retry]
steps = ["2s"]
[simulator]
domain = "{DOMAIN}"
[events]
directory = "{data}/events"
"#,
        data = directory.display()
    );
    let mut config = Config::parse(&text, "the demo's config").map_err(|errors| errors.to_string())?;
    // Shorter than any sensible config: nobody waits for days to see a message expire.
    config.queue.lifetime = LIFETIME;
    config.admission.lifetime = LIFETIME;
    config.retry.delay_notices = vec![Duration::ZERO];
    Ok(config)
}

async fn submit(port: u16, scene: &Scene) -> Result<(), String> {
    let to: Vec<&str> = scene.recipients.iter().map(|(address, _)| *address).collect();
    let text = MessageBuilder::new()
        .from(("Demo Shop", SENDER))
        .to(to.clone())
        .subject(scene.title)
        .text_body("This message was made by posthaste demo.\r\n")
        .write_to_vec()
        .map_err(|error| format!("cannot build a message: {error}"))?;
    let problem = |error: mail_send::Error| format!("cannot submit a message: {error}");
    let client = SmtpClientBuilder::new("127.0.0.1", port)?.helo_host("app.demo.test").timeout(PATIENCE);
    let mut client = client.connect_plain().await.map_err(problem)?;
    client.send(Message::new(SENDER, to, text)).await.map_err(problem)?;
    client.quit().await.map_err(problem)
}

/// Prints events until each recipient has its final one; returns how many there were. Blocking.
fn follow(path: &Path, mut wanted: Wanted, json: bool) -> Result<u64, String> {
    let mut tail = EventTail::follow(path).map_err(|error| format!("cannot follow {}: {error}", path.display()))?;
    let mut lines = 0;
    while wanted.values().any(|left| !left.is_empty()) {
        let line = tail.wait_line(PATIENCE).map_err(|error| format!("cannot read events: {error}"))?;
        let line = line.ok_or_else(|| format!("no event for {wanted:?} within {} s", PATIENCE.as_secs()))?;
        lines += 1;
        let event: Value = serde_json::from_str(&line.json).map_err(|error| format!("event is no JSON: {error}"))?;
        say(&if json { line.json } else { describe(&event) });
        let kind = text(&event, "/eventType").to_owned();
        if matches!(kind.as_str(), "Delivery" | "Bounce" | "Complaint") {
            for recipient in recipients(&event) {
                let left = wanted.get_mut(recipient.as_str()).ok_or_else(|| format!("{recipient} is nobody's"))?;
                match left.split_first() {
                    Some((first, rest)) if *first == kind => *left = rest,
                    Some((first, _)) => return Err(format!("{recipient} has {kind}, not {first}")),
                    None => return Err(format!("{recipient} has one event too many, {kind}")),
                }
            }
        }
    }
    Ok(lines)
}

/// One readable line.
fn describe(event: &Value) -> String {
    let kind = text(event, "/eventType");
    let to = recipients(event).join(", ");
    let detail = match kind {
        "Send" => text(event, "/mail/messageId").to_owned(),
        "Delivery" => text(event, "/delivery/smtpResponse").to_owned(),
        "Bounce" => format!(
            "{}/{}: {}",
            text(event, "/bounce/bounceType"),
            text(event, "/bounce/bounceSubType"),
            text(event, "/bounce/bouncedRecipients/0/diagnosticCode")
        ),
        "Complaint" => format!("complaint of type {}", text(event, "/complaint/complaintFeedbackType")),
        "DeliveryDelay" => text(event, "/deliveryDelay/delayedRecipients/0/diagnosticCode").to_owned(),
        _ => String::new(),
    };
    format!("{kind:<14} {to:<50} {detail}")
}

fn recipients(event: &Value) -> Vec<String> {
    let list = |pointer: &str| event.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let plain = |values: Vec<Value>| values.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let named = |values: Vec<Value>| values.iter().map(|value| text(value, "/emailAddress").to_owned()).collect();
    match text(event, "/eventType") {
        "Send" => plain(list("/mail/destination")),
        "Delivery" => plain(list("/delivery/recipients")),
        "Bounce" => named(list("/bounce/bouncedRecipients")),
        "Complaint" => named(list("/complaint/complainedRecipients")),
        "DeliveryDelay" => named(list("/deliveryDelay/delayedRecipients")),
        _ => Vec::new(),
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Prints a line; a reader that has gone is no reason to fail.
fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{line}");
}
