//! Sockets.

use crate::options::Listen;
use crate::server::ServeError;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, UnixListener};

/// A socket that is listened on.
pub enum Socket {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket, whose file goes when it is closed.
    Unix {
        /// The socket.
        listener: UnixListener,
        /// Its file, for as long as it is listened on.
        _file: SocketFile,
    },
}

/// The file of a Unix socket.
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another server may have taken it away already.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Listen.
///
/// # Errors
/// The address is taken, is not of this machine, or may not be used.
pub async fn listen(listen: &Listen) -> Result<Socket, ServeError> {
    let failed = |source: std::io::Error| match source.kind() {
        ErrorKind::AddrInUse => ServeError::InUse { listen: listen.clone() },
        _ => ServeError::Listen { listen: listen.clone(), source },
    };
    match listen {
        Listen::Tcp(address) => TcpListener::bind(address).await.map(Socket::Tcp).map_err(failed),
        Listen::Unix(path) => unix(path).map_err(failed),
    }
}

fn unix(path: &Path) -> std::io::Result<Socket> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    if let Ok(found) = std::fs::symlink_metadata(path) {
        // A server that was killed leaves its socket behind; one that lives answers.
        if !found.file_type().is_socket() || std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(Socket::Unix { listener, _file: SocketFile(path.to_owned()) })
}

impl Socket {
    /// Where it listens; a port that the system chose is known here.
    pub fn address(&self, asked: &Listen) -> Listen {
        match self {
            Socket::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| asked.clone(), Listen::Tcp)
            }
            Socket::Unix { .. } => asked.clone(),
        }
    }
}
