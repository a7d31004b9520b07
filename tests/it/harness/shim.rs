//! The library shim.c between the daemon and the kernel: failing system calls, kills at named calls, and what a power cut
//! would have left of the files.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::poll;

const SOURCE: &str = include_str!("shim.c");

/// The shim of the daemons of one directory.
pub(crate) struct Shim {
    library: PathBuf,
    dir: PathBuf,
    /// The directories whose calls it sees: the store and the event files.
    tracked: [PathBuf; 2],
    /// What was there when the journal began: path, inode, length.
    before: Vec<(PathBuf, u64, u64)>,
}

/// What of the unsynced a power cut leaves: each is something that a disk may do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unsynced {
    /// Nothing: files end where they were last synced, and files made or renamed without a sync of their directory are not.
    Lost,
    /// Some: any part of the octets, and the first few changes of the directories.
    Torn,
    /// All names, and no octet.
    NamesKept,
}

impl Shim {
    /// For a daemon with its files in `dir`, as [`super::ConfigText::for_lab`] places them.
    pub(crate) fn new(dir: &Path) -> Self {
        let shim = dir.join("shim");
        fs::create_dir_all(shim.join("graveyard")).unwrap();
        let tracked = [dir.join("queue/queue"), dir.join("events")];
        let before =
            tracked.iter().flat_map(|directory| files(directory)).filter(|(path, ..)| is_journaled(path)).collect();
        let shim = Self { library: library(), dir: shim, tracked, before };
        shim.clear();
        shim
    }

    /// What to put before the daemon's command line.
    pub(crate) fn wrapper(&self) -> Vec<String> {
        let [store, events] = &self.tracked;
        vec![
            "env".to_owned(),
            format!("LD_PRELOAD={}", self.library.display()),
            format!("SHIM_DIR={}", self.dir.display()),
            format!("SHIM_STORE={}", store.display()),
            format!("SHIM_EVENTS={}", events.display()),
        ]
    }

    /// From now on these rules hold, and count anew. See shim.c.
    pub(crate) fn set(&self, rules: &str) {
        // Emptied, not removed: a daemon that runs has it open.
        fs::write(self.dir.join("fired"), "").unwrap();
        fs::write(self.dir.join("rules.new"), rules).unwrap();
        fs::rename(self.dir.join("rules.new"), self.dir.join("rules")).unwrap();
    }

    /// Every call does what it should again.
    pub(crate) fn clear(&self) {
        self.set("# none\n");
    }

    /// The rules that took effect in the daemon that runs now, or ran last; a line each.
    pub(crate) fn fired(&self) -> String {
        fs::read_to_string(self.dir.join("fired")).unwrap_or_default()
    }

    /// Waits until a rule took effect.
    pub(crate) fn wait_fired(&self) {
        poll(|| (!self.fired().is_empty()).then_some(()), || "no rule took effect".to_owned());
    }

    /// Makes in `target` what a power cut would have left of the files of a daemon that was just killed. `chance` is asked
    /// for numbers below its argument.
    pub(crate) fn power_cut(&self, unsynced: Unsynced, target: &Path, mut chance: impl FnMut(u64) -> u64) {
        let mut disk = Disk::new(&self.before);
        for line in fs::read_to_string(self.dir.join("journal")).unwrap().lines() {
            disk.apply(line);
        }
        let contents = self.contents();
        for directory in &self.tracked {
            let inside = directory.strip_prefix(self.dir.parent().unwrap()).unwrap();
            fs::create_dir_all(target.join(inside)).unwrap();
            let pending = disk.pending.remove(directory).unwrap_or_default();
            let kept = match unsynced {
                Unsynced::Lost => 0,
                Unsynced::NamesKept => pending.len(),
                Unsynced::Torn => usize::try_from(chance(pending.len() as u64 + 1)).unwrap(),
            };
            pending.into_iter().take(kept).for_each(|change| disk.names.change(change));
            for (path, inode) in disk.names.0.iter().filter(|(path, _)| path.parent() == Some(directory)) {
                let content = contents.get(inode).unwrap_or_else(|| panic!("{} is nowhere", path.display()));
                let bytes = fs::read(content).unwrap();
                let synced = disk.synced.get(inode).copied().unwrap_or(0).min(bytes.len() as u64);
                let more = bytes.len() as u64 - synced;
                let len = synced + if matches!(unsynced, Unsynced::Torn) { chance(more + 1) } else { 0 };
                let name = path.file_name().unwrap();
                fs::write(target.join(inside).join(name), &bytes[..usize::try_from(len).unwrap()]).unwrap();
            }
        }
    }

    /// Where the octets of each inode are: under a name, or in the graveyard.
    fn contents(&self) -> BTreeMap<u64, PathBuf> {
        let graveyard = self.dir.join("graveyard");
        let places = self.tracked.iter().chain([&graveyard]);
        places.flat_map(|directory| files(directory)).map(|(path, inode, _)| (inode, path)).collect()
    }
}

/// Compiled once for each version of the source.
fn library() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    SOURCE.hash(&mut hasher);
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let library = directory.join(format!("shim-{:016x}.so", hasher.finish()));
    if !library.exists() {
        let own = directory.join(format!("shim-{}.so", std::process::id()));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/harness/shim.c");
        let flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"];
        let gcc = Command::new("gcc").args(flags).arg(&own).arg(source).args(["-ldl", "-lpthread"]).output();
        let gcc = gcc.expect("gcc is needed for this test and was not found: run `scripts/setup test`");
        assert!(gcc.status.success(), "{}", String::from_utf8_lossy(&gcc.stderr));
        fs::rename(own, &library).unwrap();
    }
    library
}

/// Whether shim.c sees the calls on this file: of the store, what holds data.
fn is_journaled(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    let ends = [".log", ".sst", ".dbtmp", ".jsonl"];
    ends.iter().any(|end| name.ends_with(end)) || name.starts_with("MANIFEST-") || name == "CURRENT"
}

fn files(directory: &Path) -> Vec<(PathBuf, u64, u64)> {
    let entries = fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.is_file());
    files.map(|path| (path.metadata().unwrap(), path)).map(|(stat, path)| (path, stat.ino(), stat.len())).collect()
}

/// What is safe: names after the last sync of their directory, octets up to the last sync of their file.
struct Disk {
    names: Names,
    synced: BTreeMap<u64, u64>,
    /// Changes of each directory since its last sync.
    pending: BTreeMap<PathBuf, Vec<NameChange>>,
}

struct Names(BTreeMap<PathBuf, u64>);

enum NameChange {
    Create(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
}

impl Names {
    fn change(&mut self, change: NameChange) {
        match change {
            NameChange::Create(path, inode) => {
                self.0.insert(path, inode);
            }
            NameChange::Rename(from, to) => {
                let inode = self.0.remove(&from).expect("what is renamed was made before");
                self.0.insert(to, inode);
            }
            NameChange::Unlink(path) => {
                self.0.remove(&path);
            }
        }
    }
}

impl Disk {
    fn new(before: &[(PathBuf, u64, u64)]) -> Self {
        Self {
            names: Names(before.iter().map(|(path, inode, _)| (path.clone(), *inode)).collect()),
            synced: before.iter().map(|(_, inode, len)| (*inode, *len)).collect(),
            pending: BTreeMap::new(),
        }
    }

    fn apply(&mut self, line: &str) {
        let mut words = line.splitn(3, ' ');
        let (what, number, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let number: u64 = number.parse().unwrap();
        let change = match what {
            "sync" => {
                self.synced.insert(number, rest.parse().unwrap());
                return;
            }
            "syncdir" => {
                let pending = self.pending.remove(Path::new(rest)).unwrap_or_default();
                return pending.into_iter().for_each(|change| self.names.change(change));
            }
            "create" => NameChange::Create(rest.into(), number),
            "unlink" => NameChange::Unlink(rest.into()),
            "rename" => {
                let (from, to) = rest.split_once('\t').unwrap();
                NameChange::Rename(from.into(), to.into())
            }
            _ => panic!("{line:?} in the journal"),
        };
        let (NameChange::Create(path, _) | NameChange::Rename(path, _) | NameChange::Unlink(path)) = &change;
        self.pending.entry(path.parent().unwrap().to_owned()).or_default().push(change);
    }
}
