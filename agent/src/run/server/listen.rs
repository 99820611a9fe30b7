//! The socket itself: where it is. Who may use it is settled by its mode, and by the peer's credentials when it connects.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// Name of the socket in the run directory.
pub const SOCKET: &str = "longshore.sock";

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("socket {path}: {source}")]
    Socket { path: PathBuf, source: io::Error },
}

/// Where clients find the socket. It goes with this: a program that the daemon is just starting when it ends has a copy
/// of the listener for a moment, and who connected to that would be cut off instead of told that nobody answers.
pub struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "the socket stays");
        }
    }
}

/// Listens in the run directory, which our lock on it has made. A socket that a daemon before us left is replaced: by
/// the lock it does not run any more.
pub fn listen(run_dir: &Path) -> Result<(UnixListener, Place), ListenError> {
    let path = run_dir.join(SOCKET);
    let socket = |source| ListenError::Socket { path: path.clone(), source };
    // Bound beside its place and moved over it: nobody ever meets an open mode or a missing socket.
    let beside = run_dir.join(format!(".{SOCKET}.{}", std::process::id()));
    let _ = std::fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside).map_err(socket)?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600)).map_err(socket)?;
    std::fs::rename(&beside, &path).map_err(socket)?;
    Ok((listener, Place(path)))
}
