//! The keys that the config names, read and ready to sign.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::assembly::OwnSigners;
use super::config::Config;
use crate::admission::signing::{Keyring, Settings, Slot};
use crate::events::audit::{AuditEntry, AuditLog};
use crate::message::dkim::{self, Key, Signer};
use crate::net::DnsError;
use crate::net::dns::HickoryResolver;
use crate::types::{Domain, EmailAddress};

/// What signing needs, as of now.
#[derive(Clone, Debug, Default)]
pub struct Signatures {
    /// The keys.
    pub keyring: Arc<Keyring>,
    /// Last part of `Feedback-ID`; `None`: no such field is added.
    pub sender_id: Option<Box<str>>,
    /// Where `CFBL-Address` asks complaints to be sent to; `None`: no such field is added.
    pub cfbl_address: Option<EmailAddress>,
    /// How often the records of next keys are looked for.
    pub check_interval: Duration,
}

impl Signatures {
    /// By these settings, with key files read anew; what `old` has seen in DNS stays seen. The error names what to mend. Blocks on
    /// the disk.
    pub fn load(settings: &Settings, old: Option<&Signatures>) -> Result<Signatures, String> {
        let keyring = keyring(settings, old.map(|old| &*old.keyring))?;
        let (sender_id, check_interval) = (settings.sender_id.clone(), settings.check_interval);
        let cfbl_address = settings.cfbl_address.clone();
        Ok(Signatures { keyring: Arc::new(keyring), sender_id, cfbl_address, check_interval })
    }
}

/// The keys of a daemon, over its reloads. A clone is another handle of the same.
#[derive(Clone)]
pub(super) struct SigningKeys {
    in_force: Arc<ArcSwap<Signatures>>,
    own: OwnSigners,
    hostname: Domain,
    /// Settings were replaced: the watch looks now.
    changed: Arc<Notify>,
}

impl SigningKeys {
    /// Reads the keys. The error names what to mend. Blocks on the disk.
    pub(super) fn open(config: &Config) -> Result<Self, String> {
        let signatures = Signatures::load(&config.signing, None)?;
        let own = OwnSigners::default();
        own.store(Arc::new(signatures.keyring.own_signers(&config.hostname)));
        let in_force = Arc::new(ArcSwap::from_pointee(signatures));
        Ok(Self { in_force, own, hostname: config.hostname.clone(), changed: Arc::default() })
    }

    /// What signs mail, as of any time.
    pub(super) fn in_force(&self) -> Arc<ArcSwap<Signatures>> {
        Arc::clone(&self.in_force)
    }

    /// Who signs what this server has to say itself, as of any time.
    pub(super) fn own(&self) -> OwnSigners {
        Arc::clone(&self.own)
    }

    /// Reads the keys of a new config, and changes nothing. Blocks on the disk.
    pub(super) fn prepare(&self, config: &Config) -> Result<Signatures, String> {
        Signatures::load(&config.signing, Some(&self.in_force.load()))
    }

    /// Signs by these from now on.
    pub(super) fn adopt(&self, signatures: Signatures) {
        self.own.store(Arc::new(signatures.keyring.own_signers(&self.hostname)));
        self.in_force.store(Arc::new(signatures));
        self.changed.notify_one();
    }

    /// What looks for the records of next keys, until `stop`.
    pub(super) fn watch(&self, resolver: Arc<HickoryResolver>, audit: Arc<AuditLog>, stop: CancellationToken) -> Watch {
        let (signing, own_signers, changed) = (self.in_force(), self.own(), Arc::clone(&self.changed));
        Watch { signing, own_signers, hostname: self.hostname.clone(), resolver, audit, changed, stop }
    }
}

/// A key is a few kilobytes. What is longer is no key.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

fn keyring(settings: &Settings, old: Option<&Keyring>) -> Result<Keyring, String> {
    let mut keys = Vec::with_capacity(settings.keys.len());
    for key in &settings.keys {
        let shown = key.key_file.display();
        let pem = read(&key.key_file).map_err(|error| format!("key_file {shown} cannot be read: {error}"))?;
        let loaded = Key::from_pem(&pem).map_err(|error| format!("key_file {shown}: {error}"))?;
        let (domain, selector) = (key.domain.clone(), key.selector.clone());
        keys.push((Signer { domain, selector, key: Arc::new(loaded) }, key.state));
    }
    Keyring::new(keys, settings.operator_domain.clone(), old).map_err(|error| error.to_string())
}

fn read(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut pem = Zeroizing::new(Vec::with_capacity(usize::try_from(KEY_FILE_BYTES_MAX).unwrap_or_default()));
    File::open(path)?.take(KEY_FILE_BYTES_MAX).read_to_end(&mut pem)?;
    Ok(pem)
}

/// Looks for the records of next keys, so that each begins to sign when others can verify it.
pub(super) struct Watch {
    signing: Arc<ArcSwap<Signatures>>,
    own_signers: OwnSigners,
    hostname: Domain,
    resolver: Arc<HickoryResolver>,
    audit: Arc<AuditLog>,
    changed: Arc<Notify>,
    stop: CancellationToken,
}

impl Watch {
    /// Runs until it is stopped.
    pub(super) async fn run(self) {
        loop {
            let signatures = self.signing.load_full();
            for slot in signatures.keyring.pending() {
                self.look(slot).await;
            }
            self.own_signers.store(Arc::new(signatures.keyring.own_signers(&self.hostname)));
            let pause = tokio::time::sleep(signatures.check_interval);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.changed.notified() => {}
                () = pause => {}
            }
        }
    }

    /// An answer that is not to be had changes nothing.
    async fn look(&self, slot: &Slot) {
        let Some(next) = slot.next() else { return };
        let name = format!("{}._domainkey.{}", next.selector, next.domain);
        let Ok(domain) = Domain::parse(&name) else { return };
        let visible = match self.resolver.texts(&domain).await {
            Ok(answer) => {
                let records: Vec<&str> = answer.records.iter().map(|record| &**record).collect();
                dkim::fault_of(&next.key, &records).is_none()
            }
            Err(DnsError::NoSuchDomain(_)) => false,
            Err(error) => {
                tracing::debug!(%error, "the record of a next DKIM key was not found out");
                return;
            }
        };
        if slot.saw(visible) {
            let signs = slot.in_force().map_or("", |signer| signer.selector.as_str());
            tracing::info!(domain = %next.domain, selector = %next.selector, visible, signs, "next DKIM key");
            let entry = AuditEntry::new("dkim")
                .text("domain", next.domain.as_str())
                .text("selector", next.selector.as_str())
                .flag("visible", visible)
                .text("signs", signs);
            self.audit.note(entry);
        }
    }
}
