//! The desk for mail that comes home, put together: what the config says of it, what tenants want, who else hears of a complaint.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use super::assembly::OwnSigners;
use super::config::Config;
use crate::delivery::dispatch::Dispatcher;
use crate::feedback::addresses::{Addresses, Unknown};
use crate::feedback::desk::{Complained, Desk, Message, Settings, TakeError};
use crate::feedback::forward;
use crate::feedback::kept::Kept;
use crate::feedback::receivers::OwnDomains;
use crate::net::BoxFuture;
use crate::policy::lane::WarmupOrder;
use crate::policy::token::TokenKeys;
use crate::queue::Queue;
use crate::queue::sent::SentRecipient;
use crate::reception::{self, Inbox};
use crate::scheduler::warmup::WarmupFilter;
use crate::types::{Clock, EmailAddress, Reply, ReversePath};

/// Where messages are kept that nobody understood, below `data_dir`.
const KEPT_DIRECTORY: &str = "feedback";

/// What the desk goes by.
pub(super) fn settings(config: &Config, rules: &Arc<crate::policy::Rules>, signers: OwnSigners) -> Settings {
    let admission = &config.admission;
    let mail_from = admission.identities().filter_map(|identity| identity.mail_from.clone());
    let return_paths: HashSet<_> = admission.return_path_domain.iter().cloned().chain(mail_from).collect();
    Settings {
        addresses: Addresses {
            return_paths,
            complaints: config.feedback.complaints.iter().chain(&config.signing.cfbl_address).cloned().collect(),
            dmarc: config.feedback.dmarc_reports.clone(),
            tls_rpt: config.feedback.tls_reports.clone(),
            hostname: Some(config.hostname.clone()),
            token_lifetime: config.return_path.token_lifetime,
        },
        rules: Arc::clone(rules),
        listing: Arc::new(config.listing()),
        counting: config.counting(),
        own_domains: Arc::new(own_domains(config)),
        forward: forward::Settings {
            hostname: config.hostname.as_str().into(),
            bounces: Arc::new(config.mailed_bounces()),
            complaints: Arc::new(config.mailed_complaints()),
            lifetime: config.queue.lifetime,
            signers,
        },
    }
}

/// Those that metrics may name: of senders, signatures and return paths, of addresses for reports, and our own.
fn own_domains(config: &Config) -> OwnDomains {
    let admission = &config.admission;
    let senders = admission.identities().map(|identity| identity.name.domain());
    let mail_from = admission.identities().filter_map(|identity| identity.mail_from.as_ref());
    let signers = config.signing.keys.iter().map(|key| &key.domain);
    let of_reports = config.feedback.dmarc_reports.iter().chain(&config.feedback.tls_reports);
    let others = admission.return_path_domain.iter().chain([&config.hostname]);
    let all = senders.chain(mail_from).chain(signers).chain(of_reports.map(EmailAddress::domain)).chain(others);
    OwnDomains::new(all)
}

/// Warm-ups of the source there hear of a complaint. There is a dispatcher once deliveries begin.
fn tell_warmups(dispatcher: Arc<OnceLock<Dispatcher>>) -> Arc<Complained> {
    Arc::new(move |sent: &SentRecipient| {
        let (Some(dispatcher), Some(source)) = (dispatcher.get().cloned(), sent.source.clone()) else { return };
        let site = sent.site.as_deref().map(Into::into);
        let filter = WarmupFilter { source: Some(source), site, ..WarmupFilter::default() };
        tokio::spawn(async move {
            // An error means that the daemon stops: the brake looks at a day, of which this was a moment.
            let _ = dispatcher.order_warmup(filter, WarmupOrder::Complaints(1)).await;
        });
    })
}

/// The desk, and what is to be put into its hands later.
pub(super) struct Opened {
    pub(super) desk: Arc<Desk>,
    /// For reloads.
    pub(super) settings: Arc<ArcSwap<Settings>>,
    /// Once there is one: who is told of complaints.
    pub(super) dispatcher: Arc<OnceLock<Dispatcher>>,
}

/// Puts the desk together.
pub(super) fn open(
    config: &Config,
    queue: &Queue,
    keys: Arc<ArcSwap<TokenKeys>>,
    rules: &Arc<crate::policy::Rules>,
    signers: OwnSigners,
    clock: &Arc<dyn Clock>,
) -> Opened {
    let settings = Arc::new(ArcSwap::from_pointee(settings(config, rules, signers)));
    let dispatcher = Arc::new(OnceLock::new());
    let complained = tell_warmups(Arc::clone(&dispatcher));
    let kept = Kept::new(config.queue.data_dir.join(KEPT_DIRECTORY));
    let desk = Desk::new(queue.clone(), keys, Arc::clone(&settings), Arc::clone(clock), kept, complained);
    Opened { desk: Arc::new(desk), settings, dispatcher }
}

/// The desk as reception sees it.
pub(super) struct DeskInbox(pub(super) Arc<Desk>);

impl Inbox for DeskInbox {
    fn admits(&self, recipient: &EmailAddress, _: &ReversePath) -> Result<(), Reply> {
        match self.0.recognise(recipient) {
            Ok(_) => Ok(()),
            Err(error @ Unknown::Domain) => Err(reception::reply(550, (5, 7, 1), &error.to_string())),
            Err(error @ Unknown::Address) => Err(reception::reply(550, (5, 1, 1), &error.to_string())),
        }
    }

    fn take(&self, message: Message) -> BoxFuture<'_, Result<(), Reply>> {
        Box::pin(async move { self.0.take(message).await.map_err(|error| refusal(&error)) })
    }
}

/// The host tries again: nothing of it is lost.
fn refusal(error: &TakeError) -> Reply {
    match error {
        TakeError::Keep(_) => {
            tracing::error!(%error, "a message that nobody understood cannot be kept; it is refused for now")
        }
        error => tracing::warn!(%error, "a report is refused for now"),
    }
    match error {
        TakeError::Queue(error) => reception::reply_to(error),
        TakeError::Keep(_) => reception::reply(452, (4, 3, 1), "Insufficient system storage"),
        TakeError::Sent(_) | TakeError::Broken(_) => reception::local_error(),
    }
}
