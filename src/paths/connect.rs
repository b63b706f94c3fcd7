//! Connects to a unix socket that a spec names.

use super::elsewhere::Order;
use super::here::{self, Found, Refused};
use super::{c_path, mount_of, refuse_own, Paths, Purpose};
use crate::error::{Context, Error, Kind, Result};
use crate::sys::path::cached;
use crate::tasks;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

enum Socket {
    /// Found on the trusted mount, by O_PATH.
    Found(OwnedFd),
    Connected(UnixStream),
}

impl Paths {
    /// Returns a non-blocking stream once the listener has room for it. `@name` is an abstract socket, as for Go's net.Dial.
    pub(crate) async fn connect(&self, path: &Path, deadline: Instant) -> Result<UnixStream> {
        let connected = match path.as_os_str().as_bytes().strip_prefix(b"@") {
            Some(name) => tasks::connect_abstract(name, deadline).await,
            None => match self.socket(path, deadline).await? {
                Socket::Found(socket) => tasks::connect_to(socket.as_fd(), deadline).await,
                Socket::Connected(stream) => Ok(stream),
            },
        };
        let what = || format!("connect({path:?})");
        match connected {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                let late = "not done within the time limit: its listener takes no connection";
                Err(Error::new(Kind::Deadline, late)).context(what)
            }
            connected => connected.context(what),
        }
    }

    async fn socket(&self, path: &Path, deadline: Instant) -> Result<Socket> {
        let c_path = c_path(path)?;
        let found = match self.own {
            None => here::open(path, Purpose::Connect),
            Some(own) => match cached(&c_path) {
                Ok(Some(fd)) if mount_of(fd.as_fd()) == Ok(own) => {
                    Found::of(fd, own, path).and_then(|found| here::of(&found, path, Purpose::Connect))
                }
                Err(errno) => Err(here::refused(path, errno)),
                Ok(_) => {
                    refuse_own(path)?;
                    let order = Order::Open(&c_path, Purpose::Connect);
                    let stream = self.openers.run(order, path, deadline).await?.fds.pop();
                    return stream.map(|fd| Socket::Connected(fd.into())).ok_or_else(|| none(path));
                }
            },
        };
        let socket = found.map_err(Refused::into_error)?.fds.pop();
        socket.map(Socket::Found).ok_or_else(|| none(path))
    }
}

fn none(path: &Path) -> Error {
    Error::new(Kind::Bug, format!("connect({path:?}): no descriptor came"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::block_on;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    use std::time::Duration;

    fn connect(paths: &Paths, path: &Path) -> Result<UnixStream> {
        block_on(paths.connect(path, Instant::now() + Duration::from_millis(200)))
    }

    #[test]
    fn a_path_may_be_longer_than_an_address() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(150));
        std::fs::create_dir(&deep).unwrap();
        let _listener = UnixListener::bind(dir.path().join("short")).unwrap();
        std::fs::rename(dir.path().join("short"), deep.join("agent")).unwrap();
        for paths in [Paths::default(), Paths::new(dir.path()).unwrap()] {
            connect(&paths, &deep.join("agent")).unwrap();
        }
    }

    #[test]
    fn an_abstract_name_is_no_path() {
        let name = format!("shoal-{}", std::process::id());
        let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        connect(&Paths::default(), Path::new(&format!("@{name}"))).unwrap();
        let error = connect(&Paths::default(), Path::new("@shoal-nobody")).unwrap_err();
        assert_eq!(error.to_string(), "connect(\"@shoal-nobody\"): connection refused (ECONNREFUSED)");
    }

    #[test]
    fn what_is_no_socket_or_takes_no_connection_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let trusting = Paths::new(dir.path()).unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        for at in [dir.path().to_owned(), dir.path().join("file")] {
            let error = connect(&trusting, &at).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("connect({at:?}): socket operation on non-socket (ENOTSOCK)")
            );
        }
        let own = connect(&trusting, Path::new("/proc/self/fd/0")).unwrap_err().to_string();
        assert_eq!(own, "open(\"/proc/self/fd/0\"): it is another file for each process");
        let busy = dir.path().join("busy");
        let listener = UnixListener::bind(&busy).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let _first = UnixStream::connect(&busy).unwrap();
        assert_eq!(connect(&trusting, &busy).unwrap_err().kind(), Kind::Deadline);
    }
}
