//! The streams as their users see them: the container's descriptors on one side, containerd's fifos on the other.

mod console;
mod fifos;
mod files;
mod loggers;

use super::*;
use crate::tasks::block_on;
use nix::fcntl::{fcntl, FcntlArg, OFlag};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use tempfile::TempDir;

const LABELS: Labels<'static> = Labels { container: "c1", namespace: "tests" };
/// Longer than anything here takes; running into it is an error.
const LONG: Duration = Duration::from_secs(20);

fn soon() -> Instant {
    Instant::now() + LONG
}

/// A directory with fifos, as containerd creates them, and a switchboard.
struct Bench {
    board: Streams,
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        Bench { board: Streams::with(limits, crate::paths::Paths::default()), dir: TempDir::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn fifo(&self, name: &str) -> String {
        nix::unistd::mkfifo(&self.path(name), nix::sys::stat::Mode::from_bits_truncate(0o700)).unwrap();
        self.text(name)
    }

    fn open(&self, request: &Stdio) -> Result<(Option<StdioFds>, Io)> {
        block_on(self.board.open(request, &LABELS, (0, 0), Whose::Container, soon()))
    }

    fn open_ends(&self, request: &Stdio) -> (StdioFds, Io) {
        let (ends, io) = self.open(request).unwrap();
        (ends.unwrap(), io)
    }

    /// A blocking open(2), as in containerd. It hangs if nobody writes.
    fn reader(&self, name: &str) -> File {
        File::open(self.path(name)).unwrap()
    }

    /// A non-blocking read end.
    fn peek(&self, name: &str) -> File {
        OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(self.path(name)).unwrap()
    }

    fn writer(&self, name: &str) -> File {
        OpenOptions::new().write(true).open(self.path(name)).unwrap()
    }
}

/// Runs code that may hang on a thread of its own.
fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // The receiver is gone only if the test has already failed.
        let _ = sender.send(work());
    });
    receiver.recv_timeout(limit).expect("this hangs")
}

fn read_all(mut file: File) -> String {
    within(LONG, move || {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    })
}

fn read_some(file: &mut File) -> String {
    let mut file = file.try_clone().unwrap();
    within(LONG, move || {
        let mut bytes = [0; 4096];
        let count = file.read(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    })
}

/// For conditions that another test's clone may delay for a moment: between clone and execve, a child has copies of all
/// descriptors.
fn eventually(mut check: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + LONG;
    while !check() {
        assert!(std::time::Instant::now() < until, "this does not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn blocks(end: &OwnedFd) -> bool {
    let flags = fcntl(end, FcntlArg::F_GETFL).unwrap();
    !OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK)
}

fn is_blocked(result: std::io::Result<usize>) -> bool {
    result.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
}
