//! The file of the keys that return paths and unsubscribe links are signed with, and their rotation.
//!
//! The file is made at the first start, by writing another beside it and renaming it, mode 0600. Several servers may share one: it
//! is changed under a lock of `NAME.lock`, and read again once an hour. Promises: a token that was given out can be read as long as
//! it counts, by every server that shares the file; a key is in use only once it is on the disk; nobody is waited for longer than
//! [`LOCK_TRIES`] say, and nothing that others wait for is held meanwhile. A file that cannot be written is used as it is, with a
//! warning when it should be changed. Does not: mend a damaged file, or make one anew in place of one that was in use and is gone (a
//! mount that is away, a slip of the hand), for new keys in its place would make every token that is under way worthless.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::config::Config;
use crate::policy::token::{KeyRing, RotationPlan, Secret, TokenKeys};
use crate::types::{Clock, Timestamp};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);
/// A full ring has 40 KB. A file above is not ours.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// The name in the data directory.
const NAME: &str = "token-keys";
/// How often the lock is tried for, with a pause of [`LOCK_PAUSE`] before the next time: 5 s. After that the file is used as it is,
/// and not changed; one that is not there is not made.
const LOCK_TRIES: u32 = 100;
/// See [`LOCK_TRIES`].
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// The keys in use, and where they come from.
pub(super) struct TokenKeyFile {
    clock: Arc<dyn Clock>,
    keys: Arc<ArcSwap<TokenKeys>>,
    state: Mutex<State>,
}

struct State {
    place: Place,
    looked_at: Timestamp,
    /// How many configs were adopted: keys that were read before the last one came are not put into use after it.
    adopted: u64,
}

/// What to do where there is no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IfMissing {
    /// No token is signed with its keys yet.
    Make,
    /// Its keys are in use: they stay.
    Keep,
}

/// Where the keys are, and when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    path: PathBuf,
    plan: RotationPlan,
}

impl Place {
    fn of(config: &Config) -> Self {
        let settings = &config.return_path;
        let path = settings.key_file.clone().unwrap_or_else(|| config.queue.data_dir.join(NAME));
        let plan = RotationPlan { key_age_max: settings.key_age_max, token_lifetime: settings.token_lifetime };
        Self { path, plan }
    }
}

/// Keys that were read for a new config and are not in use yet.
pub(super) struct Prepared {
    place: Place,
    /// `None`: those in use stay.
    keys: Option<TokenKeys>,
    read_at: Timestamp,
}

impl TokenKeyFile {
    /// Reads the keys, or makes the file. The data directory is there. The error is a sentence for the administrator. Blocks.
    pub(super) fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let (place, now) = (Place::of(config), clock.now());
        let keys = look(&place, now, IfMissing::Make)?.ok_or_else(|| is_missing(&place.path))?;
        let keys = Arc::new(ArcSwap::from_pointee(keys));
        Ok(Self { clock, keys, state: Mutex::new(State { place, looked_at: now, adopted: 0 }) })
    }

    /// The keys; what is in it changes with each rotation.
    pub(super) fn keys(&self) -> Arc<ArcSwap<TokenKeys>> {
        Arc::clone(&self.keys)
    }

    /// Reads the keys that a new config asks for, and makes a file where it names another one, that is not there. Nothing is in use
    /// before [`TokenKeyFile::adopt`]. Blocks.
    pub(super) fn prepare(&self, config: &Config) -> Result<Prepared, String> {
        let (place, read_at) = (Place::of(config), self.clock.now());
        let is_in_use = self.state().place.path == place.path;
        let keys = look(&place, read_at, if is_in_use { IfMissing::Keep } else { IfMissing::Make })?;
        if keys.is_none() {
            tell_missing(&place.path);
        }
        Ok(Prepared { keys, place, read_at })
    }

    /// Puts them into use.
    pub(super) fn adopt(&self, prepared: Prepared) {
        let mut state = self.state();
        let adopted = state.adopted.wrapping_add(1);
        *state = State { place: prepared.place, looked_at: prepared.read_at, adopted };
        if let Some(keys) = prepared.keys {
            self.keys.store(Arc::new(keys));
        }
    }

    /// Whether an hour has passed since the file was looked at.
    pub(super) fn is_look_due(&self) -> bool {
        self.clock.now().since(self.state().looked_at) >= LOOK_EVERY
    }

    /// Looks at the file: keys that other servers made, and those that are due. Where that fails, or the file is gone, the keys in use
    /// stay. Blocks.
    pub(super) fn tend(&self) {
        let now = self.clock.now();
        let (place, adopted) = {
            let mut state = self.state();
            state.looked_at = now;
            (state.place.clone(), state.adopted)
        };
        match look(&place, now, IfMissing::Keep) {
            Ok(Some(keys)) => {
                let state = self.state();
                if state.adopted == adopted {
                    self.keys.store(Arc::new(keys));
                }
            }
            Ok(None) => tell_missing(&place.path),
            Err(error) => tracing::error!(error, "the token keys cannot be read; those in memory stay in use"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_missing(path: &Path) -> String {
    format!(
        "the token keys {} are not there. Mount their file system, or bring the file back from a backup",
        path.display()
    )
}

fn tell_missing(path: &Path) {
    let error = is_missing(path);
    tracing::error!(error, "those in memory stay in use until the daemon stops; bring the file back before that");
}

/// Reads the file, makes or changes it where that is due. `None`: it is not there, and is not to be made.
fn look(place: &Place, now: Timestamp, if_missing: IfMissing) -> Result<Option<TokenKeys>, String> {
    // No lock is left where the file was, on the disk below a mount that is away.
    if if_missing == IfMissing::Keep && matches!(place.path.try_exists(), Ok(false)) {
        return Ok(None);
    }
    // Held until the end of this function. Where it cannot be had, nothing is written.
    look_under(lock(&place.path, LOCK_TRIES), place, now, if_missing)
}

fn look_under(
    lock: io::Result<File>,
    place: &Place,
    now: Timestamp,
    if_missing: IfMissing,
) -> Result<Option<TokenKeys>, String> {
    let path = &place.path;
    let sentence = |what: &str, error: &dyn std::fmt::Display| format!("{what} {}: {error}", path.display());
    let Some(text) = read(path).map_err(|error| sentence("cannot read the token keys", &error))? else {
        if if_missing == IfMissing::Keep {
            return Ok(None);
        }
        let _lock = lock.map_err(|error| sentence("cannot make the token keys", &error))?;
        let ring = KeyRing::new(now, fresh());
        write(path, &ring).map_err(|error| sentence("cannot make the token keys", &error))?;
        tracing::info!(path = %path.display(), "made the first key for return paths and unsubscribe links");
        return Ok(Some(ring.to_keys()));
    };
    let mut ring = parse(path, &text)?;
    let keys = ring.to_keys();
    let rotated = ring.rotate(now, place.plan, fresh);
    if rotated.is_full {
        tracing::warn!(path = %path.display(), "no id is left for a new token key: lengthen key_age_max in [return_path]");
    }
    if !rotated.is_change() {
        return Ok(Some(keys));
    }
    match lock.and_then(|_lock| write(path, &ring)) {
        Ok(()) => {
            tracing::info!(added = ?rotated.added, dropped = ?rotated.dropped, "token keys were rotated");
            Ok(Some(ring.to_keys()))
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "token keys are due for rotation and cannot be written");
            Ok(Some(keys))
        }
    }
}

fn parse(path: &Path, text: &str) -> Result<KeyRing, String> {
    KeyRing::parse(text).map_err(|error| {
        format!(
            "token keys {}: {error}. Bring the file back from a backup; or move it away, and a new one is made, but then bounces \
             and unsubscribe links of mail that was sent before are not recognised",
            path.display()
        )
    })
}

/// `None` where there is no file.
fn read(path: &Path) -> io::Result<Option<Zeroizing<String>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    if metadata.mode() & 0o077 != 0 {
        let path = path.display();
        tracing::warn!(%path, "others than the owner have access to the token keys, and could forge return paths: run chmod 600");
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(io::Error::other("it is far larger than token keys are"));
    }
    // With room for all, so that no copy is left behind by growing.
    let capacity = usize::try_from(metadata.len()).unwrap_or_default() + 1;
    let mut text = Zeroizing::new(String::with_capacity(capacity));
    file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(Some(text))
}

/// All or nothing, and on the disk when it returns.
fn write(path: &Path, ring: &KeyRing) -> io::Result<()> {
    let new = beside(path, "new");
    // Left by a crash.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(ring.to_text().as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

/// Waits for others that share the file. They hold it for milliseconds, so who holds it longer hangs.
fn lock(path: &Path, tries: u32) -> io::Result<File> {
    let name = beside(path, "lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&name)?;
    for _ in 0..tries {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK | Errno::INTR) => thread::sleep(LOCK_PAUSE),
            Err(error) => return Err(error.into()),
        }
    }
    let held = format!("another process holds {}; `fuser` tells which one", name.display());
    Err(io::Error::new(io::ErrorKind::TimedOut, held))
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{end}"));
    PathBuf::from(name)
}

fn fresh() -> Secret {
    Zeroizing::new(rand::random())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::policy::token::{Addressee, Purpose, mint, verify};
    use crate::types::{ManualClock, MessageId};

    const DAY: Duration = Duration::from_secs(86_400);
    const NOW: Timestamp = Timestamp::from_millis(1_795_302_000_000);

    fn config(directory: &Path, more: &str) -> Config {
        let text = format!(
            "hostname = \"a.test\"\ndata_dir = {directory:?}\nlistener = [{{ name = \"a\", address = \"127.0.0.1:0\" }}]\n\
             [return_path]\n{more}"
        );
        Config::parse(&text, "c.toml").unwrap()
    }

    fn open(directory: &Path, clock: &Arc<ManualClock>) -> Result<TokenKeyFile, String> {
        TokenKeyFile::open(&config(directory, ""), Arc::clone(clock) as Arc<dyn Clock>)
    }

    fn token(file: &TokenKeyFile, now: Timestamp) -> String {
        mint(&file.keys().load(), Purpose::ReturnPath, MessageId::new(now, 1), Addressee::Message)
    }

    fn counts(file: &TokenKeyFile, token: &str, now: Timestamp) -> bool {
        verify(&file.keys().load(), Purpose::ReturnPath, token, now, 60 * DAY).is_ok()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_first_start_makes_a_file_for_the_owner_alone_and_the_next_one_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(NOW));
        // Left by a crash amid the writing.
        fs::write(directory.path().join("token-keys.new"), "half").unwrap();
        let first = open(directory.path(), &clock).unwrap();
        assert_eq!(mode(&directory.path().join("token-keys")), 0o600);
        assert!(!directory.path().join("token-keys.new").exists());
        let token = token(&first, NOW);
        assert!(counts(&open(directory.path(), &clock).unwrap(), &token, NOW));
    }

    #[test]
    fn a_key_is_made_when_the_newest_is_too_old_and_old_tokens_count_on() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(NOW));
        let file = open(directory.path(), &clock).unwrap();
        clock.advance(180 * DAY);
        let old = token(&file, clock.now());
        assert!(file.is_look_due());
        file.tend();
        assert_eq!((file.keys().load().count(), file.is_look_due()), (1, false));
        clock.advance(LOOK_EVERY);
        file.tend();
        assert_eq!(file.keys().load().count(), 2);
        let new = token(&file, clock.now());
        assert_ne!(old[..2], new[..2], "another key");
        let again = open(directory.path(), &clock).unwrap();
        assert!(counts(&again, &old, clock.now()) && counts(&again, &new, clock.now()));
        clock.advance(61 * DAY + LOOK_EVERY);
        file.tend();
        assert_eq!(file.keys().load().count(), 1, "no token of the first key counts any more");
        assert!(!counts(&file, &old, clock.now()));
        assert_eq!(mode(&directory.path().join("token-keys")), 0o600);
    }

    #[test]
    fn servers_that_share_a_file_read_each_others_tokens_within_the_hour() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(NOW));
        let [one, two] = [open(directory.path(), &clock).unwrap(), open(directory.path(), &clock).unwrap()];
        assert!(counts(&two, &token(&one, NOW), NOW));
        clock.advance(181 * DAY);
        one.tend();
        let (new, old) = (token(&one, clock.now()), token(&two, clock.now()));
        assert!(counts(&one, &old, clock.now()), "the other still signs with the old key");
        two.tend();
        assert!(counts(&two, &new, clock.now()));
        assert_eq!(two.keys().load().count(), 2, "it made no key of its own");
    }

    #[test]
    fn a_damaged_file_is_refused_by_name_and_left_alone_and_keys_in_use_stay() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(NOW));
        let file = open(directory.path(), &clock).unwrap();
        let path = directory.path().join("token-keys");
        let text = fs::read_to_string(&path).unwrap();
        let token = token(&file, NOW);
        for damaged in ["", &text[..text.len() / 2], &text.replace("end 1", "end 2")] {
            fs::write(&path, damaged).unwrap();
            let error = open(directory.path(), &clock).err().unwrap();
            assert!(error.starts_with(&format!("token keys {}: ", path.display())), "{error}");
            assert!(error.contains("backup"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
            assert!(file.prepare(&config(directory.path(), "")).is_err());
            file.tend();
            assert!(counts(&file, &token, NOW));
        }
        fs::write(&path, vec![b'#'; 1 << 20]).unwrap();
        assert!(open(directory.path(), &clock).err().unwrap().contains("far larger"));
    }

    #[test]
    fn a_reload_takes_another_file_only_when_it_is_adopted() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(NOW));
        let file = open(directory.path(), &clock).unwrap();
        let old = token(&file, NOW);
        let shared = directory.path().join("shared");
        let prepared = file.prepare(&config(directory.path(), &format!("key_file = {shared:?}\n"))).unwrap();
        assert!(shared.exists() && counts(&file, &old, NOW));
        file.adopt(prepared);
        assert!(!counts(&file, &old, NOW));
        let missing = config(directory.path(), "key_file = \"/nonexistent/keys\"\n");
        assert!(file.prepare(&missing).err().unwrap().starts_with("cannot make the token keys /nonexistent/keys: "));
    }

    #[test]
    fn a_file_in_use_that_is_gone_is_not_made_anew_and_counts_when_it_is_back() {
        let directory = tempfile::tempdir().unwrap();
        let mount = directory.path().join("mount");
        fs::create_dir(&mount).unwrap();
        let clock = Arc::new(ManualClock::at(NOW));
        let shared = config(directory.path(), &format!("key_file = {:?}\n", mount.join("keys")));
        let file = TokenKeyFile::open(&shared, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        let old = token(&file, NOW);
        // As where a file system is not mounted: its place is there, and empty.
        let away = directory.path().join("away");
        fs::rename(&mount, &away).unwrap();
        fs::create_dir(&mount).unwrap();
        clock.advance(181 * DAY);
        file.tend();
        file.adopt(file.prepare(&shared).unwrap());
        assert_eq!(fs::read_dir(&mount).unwrap().count(), 0, "neither keys nor a lock");
        assert!(counts(&file, &old, NOW) && !file.is_look_due());
        // Another server made a key meanwhile.
        let moved = config(directory.path(), &format!("key_file = {:?}\n", away.join("keys")));
        let other = TokenKeyFile::open(&moved, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        fs::remove_dir(&mount).unwrap();
        fs::rename(&away, &mount).unwrap();
        let new = token(&other, clock.now());
        assert!(!counts(&file, &new, clock.now()));
        file.tend();
        assert!(counts(&file, &new, clock.now()) && counts(&file, &old, NOW));
    }

    #[test]
    fn a_lock_that_somebody_keeps_is_not_waited_for_forever_and_the_file_is_used_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(NOW));
        let file = open(directory.path(), &clock).unwrap();
        let place = Place::of(&config(directory.path(), ""));
        let text = fs::read_to_string(&place.path).unwrap();
        let held = lock(&place.path, 1).unwrap();
        let error = lock(&place.path, 2).unwrap_err();
        assert!(error.to_string().contains("token-keys.lock"), "{error}");
        clock.advance(181 * DAY);
        let keys = look_under(Err(error), &place, clock.now(), IfMissing::Make).unwrap().unwrap();
        assert_eq!(keys.count(), 1, "it is due for rotation and cannot be written");
        assert_eq!(fs::read_to_string(&place.path).unwrap(), text);
        drop(held);
        file.tend();
        assert_eq!(file.keys().load().count(), 2);
    }
}
