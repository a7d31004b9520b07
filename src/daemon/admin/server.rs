//! The Unix socket of the admin API: made with the right mode and group, guarded, removed at the end.

use std::fs;
use std::future::Ready;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::access::{Access, Peer, group_id};
use super::{Backend, routes};
use crate::daemon::config::AdminSettings;
use crate::daemon::http::{self, Accept, Accepted, Limits};

/// Why there is no admin socket: the daemon must not start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon answers there.
    #[error("admin socket {0} is in use: another posthaste runs with the same [admin] socket")]
    InUse(PathBuf),
    /// Something else has the name.
    #[error("{0} exists and is not a socket: remove it, or name another path in [admin] socket")]
    NotASocket(PathBuf),
    /// /etc/group does not have it.
    #[error("there is no group {0:?}: make it, or name another in [admin] group")]
    NoSuchGroup(String),
    /// The directory is missing, or not ours to write.
    #[error("cannot make admin socket {path}: {error}")]
    Io {
        /// Of the socket.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// A bound socket that is not served yet.
#[derive(Debug)]
pub struct AdminServer {
    listener: UnixListener,
    access: Access,
    path: PathBuf,
}

impl AdminServer {
    /// Makes the socket, and its directory where it is missing. A socket that nobody answers on is left over from a
    /// crash and is replaced. Must be called within a tokio runtime; blocks shortly on the file system.
    pub fn bind(settings: &AdminSettings) -> Result<AdminServer, BindError> {
        let path = settings.socket.clone();
        let failed = |error| BindError::Io { path: path.clone(), error };
        let group = settings.group.as_deref().filter(|_| settings.mode & 0o060 != 0);
        let gid =
            group.map(|name| group_id(name).ok_or_else(|| BindError::NoSuchGroup(name.to_owned()))).transpose()?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        remove_stale(&path)?;
        let listener = UnixListener::bind(&path).map_err(failed)?;
        if let Some(gid) = gid {
            chown(&path, None, Some(gid)).map_err(failed)?;
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(settings.mode)).map_err(failed)?;
        let own_gid = rustix::process::getegid().as_raw();
        let shared = settings.mode & 0o060 != 0;
        let access =
            Access { own_uid: rustix::process::geteuid().as_raw(), gid: shared.then(|| gid.unwrap_or(own_gid)) };
        Ok(AdminServer { listener, access, path })
    }

    /// Serves until `stop` is cancelled, lets requests under way end, then removes the socket.
    pub async fn serve(self, backend: Arc<dyn Backend>, stop: CancellationToken) {
        let AdminServer { listener, access, path } = self;
        let listener = GuardedListener { listener, access };
        http::serve(listener, routes::router(backend), Limits::OPERATORS, stop).await;
        if let Err(error) = fs::remove_file(&path) {
            tracing::debug!(path = %path.display(), %error, "admin socket not removed");
        }
    }
}

fn remove_stale(path: &Path) -> Result<(), BindError> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    match BlockingStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| BindError::Io { path: path.to_owned(), error })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(BindError::Io { path: path.to_owned(), error })
        }
        // Connected, or its backlog is full: somebody lives there.
        _ => Err(BindError::InUse(path.to_owned())),
    }
}

struct GuardedListener {
    listener: UnixListener,
    access: Access,
}

impl Accept for GuardedListener {
    type Stream = UnixStream;
    type Opening = Ready<io::Result<UnixStream>>;

    async fn accept(&mut self) -> io::Result<Option<Accepted<Self::Opening>>> {
        let (stream, _) = self.listener.accept().await?;
        let credentials = stream.peer_cred()?;
        let peer = Peer { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid() };
        if self.access.allows(peer) {
            return Ok(Some(Accepted::open(stream)));
        }
        tracing::warn!(uid = peer.uid, gid = peer.gid, "admin socket refused a peer: not in its group");
        Ok(None)
    }
}
