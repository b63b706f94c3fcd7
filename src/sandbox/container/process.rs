//! What is known of a process in every state of its life, and what it is signalled by.

use crate::error::{Error, Kind, Result};
use crate::launch::{ExitStatus, Leash};
use crate::sandbox::Exit;
use crate::stdio::{Io, Stdio};
use crate::sys::{wait, Errno};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long after an exit its news waits for the terminal's last output; copying it takes well under a millisecond.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// How long it waits at least: it may have been kept by another exit, whose reader is stuck.
const LEAST_WORDS: Duration = Duration::from_millis(10);

/// The exit code that stands for "it could not be run".
const NEVER_RAN: u32 = 255;

#[derive(Default)]
pub struct Facts {
    /// 0 before it is there.
    pub pid: u32,
    pub stdio: Stdio,
    /// None before there are streams.
    pub io: Option<Arc<Io>>,
    pub exit: Exit,
    /// What was asked of its streams before there were any.
    pub asked: Asked,
}

/// It is done once the streams are there.
#[derive(Default)]
pub struct Asked {
    pub close_stdin: bool,
    /// Columns and rows.
    pub size: Option<(u16, u16)>,
}

impl Facts {
    pub fn of(stdio: Stdio) -> Self {
        Facts { stdio, ..Facts::default() }
    }

    /// Its process is there, and so are its streams: what was asked for before is done now.
    pub fn connect(&mut self, pid: u32, io: Io, name: &str) {
        let Asked { close_stdin, size } = std::mem::take(&mut self.asked);
        if close_stdin {
            io.close_stdin();
        }
        if let Some((columns, rows)) = size
            && let Err(e) = io.resize(columns, rows)
        {
            log::warn!(process = name; "the size of its terminal: {e}");
        }
        (self.pid, self.io) = (pid, Some(Arc::new(io)));
    }
}

/// Its streams see EOF once no other process holds them.
pub fn settle(io: &Io, exit: ExitStatus) {
    io.ended();
    io.settle(patience(exit.at.elapsed().unwrap_or_default()));
}

/// Of an exec that nobody has started, as containerd's own shim has it.
pub fn exit_of_not_started() -> ExitStatus {
    ExitStatus { code: 0, at: SystemTime::now() }
}

pub fn exit_of_never_ran() -> ExitStatus {
    ExitStatus { code: NEVER_RAN, at: SystemTime::now() }
}

/// All exits wait one after the other, so the time that one has waited for others counts.
fn patience(since_exit: Duration) -> Duration {
    LAST_WORDS.saturating_sub(since_exit).max(LEAST_WORDS)
}

/// What a process that is not at its gate is signalled by.
pub enum Handle {
    /// Whatever is being made.
    Launch(Leash),
    /// A process, and what is made for it: a hook.
    Starting(OwnedFd, Leash),
    Process(OwnedFd),
}

impl Handle {
    fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Handle::Launch(_) => None,
            Handle::Starting(pidfd, _) | Handle::Process(pidfd) => Some(pidfd.as_fd()),
        }
    }

    /// A SIGKILL ends what is made for it too.
    pub fn signal(&self, name: &str, signal: i32) -> Result<()> {
        match self {
            Handle::Launch(leash) if leash.signal(signal) => return Ok(()),
            Handle::Starting(_, leash) if signal == libc::SIGKILL => leash.kill(),
            _ => {}
        }
        self.pidfd().map_or_else(|| Err(not_created(name)), |pidfd| send(pidfd, name, signal))
    }
}

/// A process that is gone is NotFound: containerd relies on it.
pub fn send(pidfd: BorrowedFd<'_>, name: &str, signal: i32) -> Result<()> {
    match wait::signal(pidfd, signal) {
        Ok(()) => Ok(()),
        Err(Errno::ESRCH) => Err(already_finished(name)),
        Err(errno) => Err(Error::system(format!("pidfd_send_signal({name}, {signal})"), errno as i32)),
    }
}

pub fn not_created(name: &str) -> Error {
    Error::new(Kind::State, format!("{name}: process not created"))
}

pub fn already_finished(name: &str) -> Error {
    Error::new(Kind::NotFound, format!("{name}: process already finished"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_exits_with_stuck_readers_are_told_within_two_seconds() {
        let mut clock = Duration::ZERO;
        for _ in 0..100 {
            clock += patience(clock);
        }
        assert!(clock < Duration::from_secs(2), "{clock:?}");
        assert_eq!(patience(Duration::ZERO), LAST_WORDS);
    }
}
