//! The server's socket: its location, who binds it, and what to do with an existing one.

use crate::error::{invalid, Context, Error, Kind, Result};
use crate::sys::peer::listen_privately;
use sha2::{Digest, Sha256};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The directory that containerd's own shims use; short, because of [`PATH_MAX`].
const FOLDER: &str = "/run/containerd/s";
/// sun_path of unix(7) has 108 bytes; the Go shims use this limit.
const PATH_MAX: usize = 106;

/// The result of binding the socket.
#[derive(Debug)]
pub enum Socket {
    /// Bound by us, to be served.
    Bound(UnixListener),
    /// A server is running: join it if it belongs to the group.
    Live(UnixStream),
}

/// The socket path of a group, named like those of containerd's own shims, where tools such as `ctr shim` look for it.
/// Of a fixed length, whatever the ids.
pub fn path(folder: Option<&Path>, address: &str, namespace: &str, group: &str) -> Result<PathBuf> {
    let digest = Sha256::digest(join(&[address, namespace, group]));
    let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = folder.unwrap_or(Path::new(FOLDER)).join(name);
    if path.as_os_str().len() > PATH_MAX {
        Err(invalid(format!("socket path {path:?} is longer than {PATH_MAX} bytes")))
    } else {
        Ok(path)
    }
}

/// Go's path.Join: skips empty parts and cleans the result lexically.
fn join(parts: &[&str]) -> String {
    let joined = parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("/");
    let rooted = joined.starts_with('/');
    let mut clean: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match (part, clean.last()) {
            ("" | ".", _) => {}
            ("..", Some(last)) if *last != ".." => drop(clean.pop()),
            ("..", None) if rooted => {}
            (part, _) => clean.push(part),
        }
    }
    match (rooted, clean.join("/")) {
        (true, path) => format!("/{path}"),
        // Join of nothing but empty parts is empty.
        (false, path) if path.is_empty() && !joined.is_empty() => ".".into(),
        (false, path) => path,
    }
}

/// Binds the socket, or connects to its live server. Replaces a socket without a listener.
pub fn bind(path: &Path) -> Result<Socket> {
    let folder = folder_of(path)?;
    DirBuilder::new().recursive(true).mode(0o700).create(folder).context(|| format!("mkdir({folder:?})"))?;
    let _lock = lock(folder)?;
    let what = || format!("bind({path:?})");
    match listen_privately(path) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
        bound => return bound.map(Socket::Bound).context(what),
    }
    match connect(path)? {
        None => {
            remove(path)?;
            listen_privately(path).map(Socket::Bound).context(what)
        }
        Some(server) => Ok(Socket::Live(server)),
    }
}

/// Unlinks the socket unless a server answers there.
pub fn remove_stale(path: &Path) -> Result<()> {
    let folder = folder_of(path)?;
    if !folder.exists() {
        return Ok(());
    }
    let _lock = lock(folder)?;
    match connect(path)? {
        None => remove(path),
        Some(_) => Ok(()),
    }
}

fn folder_of(path: &Path) -> Result<&Path> {
    path.parent().ok_or_else(|| invalid(format!("socket path {path:?} has no folder")))
}

/// Locks the directory; the lock ends with the descriptor. Between bind(2) and listen(2) a socket looks dead, and
/// nobody may see it then and unlink it. Refuses a directory writable by others: the sockets in it might not be ours.
fn lock(folder: &Path) -> Result<File> {
    let lock = File::open(folder).context(|| format!("open({folder:?})"))?;
    let about = lock.metadata().context(|| format!("fstat({folder:?})"))?;
    let (owner, mode) = (about.uid(), about.mode() & 0o7777);
    if owner != nix::unistd::geteuid().as_raw() || mode & 0o022 != 0 {
        let text = format!("{folder:?} belongs to {owner} and has mode 0{mode:o}: others may write to it");
        return Err(Error::new(Kind::State, text));
    }
    lock.lock().context(|| format!("flock({folder:?})"))?;
    Ok(lock)
}

/// Connects, under the directory's lock; None if nobody is listening.
fn connect(path: &Path) -> Result<Option<UnixStream>> {
    match UnixStream::connect(path) {
        Ok(server) => Ok(Some(server)),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused || e.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(e) => Err(e).context(|| format!("connect({path:?})")),
    }
}

/// Unlinks the socket; succeeds if it is already gone.
pub fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).context(|| format!("unlink({path:?})")),
        _ => Ok(()),
    }
}

/// The address in containerd's format.
pub fn address(path: &Path) -> String {
    format!("unix://{}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_path_is_short_and_differs_by_each_part() {
        let paths: Vec<_> = [("/a", "n", "x"), ("/b", "n", "x"), ("/a", "m", "x"), ("/a", "n", "y")]
            .iter()
            .map(|(a, n, g)| path(None, a, n, g).unwrap())
            .collect();
        assert!(paths.iter().all(|p| p.as_os_str().len() == FOLDER.len() + 65));
        assert!((1..4).all(|i| paths[0] != paths[i]));
        assert!(path(Some(Path::new(&"/x".repeat(30))), "/a", "n", "x").is_err());
    }

    #[test]
    fn parts_are_joined_as_go_joins_them() {
        for (parts, joined) in [
            (["/run/c.sock", "default", "x"], "/run/c.sock/default/x"),
            (["", "default", "x"], "default/x"),
            (["", "", ""], ""),
            (["/run//c.sock/", "default", "./x/"], "/run/c.sock/default/x"),
            (["/a", "b", "../../../../x"], "/x"),
            (["a", "b", "../../../x"], "../x"),
            (["a", "b", "../.."], "."),
            (["/", "b", ".."], "/"),
        ] {
            assert_eq!(join(&parts), joined, "{parts:?}");
        }
    }

    #[test]
    fn a_live_socket_is_joined_and_a_stale_one_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/s");
        let Socket::Bound(listener) = bind(&path).unwrap() else { panic!("not bound") };
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert!(matches!(bind(&path).unwrap(), Socket::Live(_)));
        drop(listener);
        assert!(matches!(bind(&path).unwrap(), Socket::Bound(_)));
    }
    #[test]
    fn a_socket_is_unlinked_only_under_the_folders_lock_and_without_a_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let Socket::Bound(listener) = bind(&path).unwrap() else { panic!("not bound") };
        remove_stale(&path).unwrap();
        assert!(path.exists(), "a server answers there");
        drop(listener);
        let held = lock(folder.path()).unwrap();
        std::thread::scope(|scope| {
            let removing = scope.spawn(|| remove_stale(&path));
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(path.exists(), "another start may be between bind and listen");
            drop(held);
            removing.join().unwrap().unwrap();
        });
        assert!(!path.exists());
        remove_stale(&path).unwrap();
        remove_stale(&folder.path().join("nowhere/s")).unwrap();
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        for (mode, good) in [(0o755, true), (0o711, true), (0o770, false), (0o1777, false)] {
            std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            let bound = bind(&path);
            assert_eq!(bound.is_ok(), good, "{mode:o}: {bound:?}");
        }
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(folder.path(), Some(1), None).unwrap();
            assert!(bind(&path).unwrap_err().to_string().contains("belongs to 1"));
        }
    }
}
