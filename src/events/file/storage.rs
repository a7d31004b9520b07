//! The port to the file system, and the real one: a directory. Tests put a model behind it that forgets what was not
//! synced, runs full and stops at any step.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::types::Timestamp;

/// Mode of event files: they hold addresses, so not for everyone.
const FILE_MODE: u32 = 0o640;
/// Mode of their directory.
const DIRECTORY_MODE: u32 = 0o750;

/// Tells files apart, whatever their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileKey {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

/// What is known of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// Its identity.
    pub key: FileKey,
    /// Octets.
    pub len: u64,
    /// When it was made, or last changed where the file system does not know.
    pub created_at: Timestamp,
}

/// One directory of event files. Names are plain file names. Blocking.
pub trait Storage: Send + Sync + 'static {
    /// Makes the directory where it does not exist.
    fn prepare(&self) -> io::Result<()>;

    /// Opens a file for reading, and for writing where this storage allows it; `None` where there is none.
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn StorageFile>>>;

    /// Makes an empty file; fails where there is one.
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>>;

    /// Names of all regular files, in any order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// What stands under a name; `None` where nothing does.
    fn stat(&self, name: &str) -> io::Result<Option<FileStat>>;

    /// Renames; the caller made sure that `to` is free.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Deletes.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// After this, files made, renamed and deleted before are so after a power cut too.
    fn sync_directory(&self) -> io::Result<()>;

    /// The directory, for messages.
    fn directory(&self) -> &Path;
}

/// One open file.
pub trait StorageFile: Send {
    /// What is known of it now.
    fn stat(&self) -> io::Result<FileStat>;

    /// Reads at an offset; 0 octets at the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes at an offset, maybe less than all.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize>;

    /// Cuts the file off.
    fn truncate(&mut self, len: u64) -> io::Result<()>;

    /// After this, what was written before is there after a power cut too (fdatasync).
    fn sync(&mut self) -> io::Result<()>;
}

/// A directory of the real file system.
#[derive(Clone, Debug)]
pub struct DirStorage {
    directory: PathBuf,
    /// Files are opened for writing too.
    writes: bool,
}

impl DirStorage {
    /// Nothing is touched before [`Storage::prepare`].
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), writes: true }
    }

    /// For a reader that may not write.
    pub fn read_only(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), writes: false }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// `None` for "not found".
fn optional<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn to_stat(metadata: &std::fs::Metadata) -> FileStat {
    let time = metadata.created().or_else(|_| metadata.modified()).unwrap_or(UNIX_EPOCH);
    let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    FileStat {
        key: FileKey { device: metadata.dev(), inode: metadata.ino() },
        len: metadata.len(),
        created_at: Timestamp::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)),
    }
}

impl Storage for DirStorage {
    fn prepare(&self) -> io::Result<()> {
        if self.directory.is_dir() {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&self.directory)?;
        match self.directory.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
            _ => Ok(()),
        }
    }

    fn open(&self, name: &str) -> io::Result<Option<Box<dyn StorageFile>>> {
        let file = optional(OpenOptions::new().read(true).write(self.writes).open(self.path(name)))?;
        Ok(file.map(|file| Box::new(file) as Box<dyn StorageFile>))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(FILE_MODE).open(self.path(name))?;
        Ok(Box::new(file))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in self.directory.read_dir()? {
            let entry = entry?;
            // A name that is not UTF-8 is not one of ours.
            if let (true, Ok(name)) = (entry.file_type()?.is_file(), entry.file_name().into_string()) {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn stat(&self, name: &str) -> io::Result<Option<FileStat>> {
        Ok(optional(self.path(name).metadata())?.as_ref().map(to_stat))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    fn directory(&self) -> &Path {
        &self.directory
    }
}

impl StorageFile for File {
    fn stat(&self) -> io::Result<FileStat> {
        Ok(to_stat(&self.metadata()?))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}
