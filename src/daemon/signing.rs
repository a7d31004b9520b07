//! Reads the keys that the config names.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::admission::signing::{Keyring, Settings};
use crate::message::dkim::{Key, Signer};

/// A key is a few kilobytes. What is longer is no key.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

/// A ring of the configured keys; what `old` has seen in DNS stays seen. The error names what to mend. Blocks on the disk.
pub(super) fn keyring(settings: &Settings, old: Option<&Keyring>) -> Result<Keyring, String> {
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
