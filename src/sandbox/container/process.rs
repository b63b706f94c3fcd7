//! What is known about a process in every state of its life, and how to signal it.

use crate::error::{Error, Kind, Result};
use crate::launch::{ExitStatus, Leash};
use crate::sandbox::Exit;
use crate::stdio::{Io, Stdio};
use crate::sys::{wait, Errno};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long the report of an exit waits for the terminal's last output; copying it takes well under a millisecond.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// The minimum wait: another exit, whose reader is stuck, may have used up the time.
const LEAST_WORDS: Duration = Duration::from_millis(10);

/// The exit code for "it could not be run".
const NEVER_RAN: u32 = 255;

#[derive(Default)]
pub struct Facts {
    /// 0 before the process exists.
    pub pid: u32,
    pub stdio: Stdio,
    /// None before the streams exist.
    pub io: Option<Arc<Io>>,
    pub exit: Exit,
    /// Requests to the streams from before they existed.
    pub asked: Asked,
}

/// Requests to be carried out once the streams exist.
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

    /// Stores the new process and its streams, and carries out the requests that arrived before.
    pub fn connect(&mut self, pid: u32, io: Io, name: &str) {
        let Asked { close_stdin, size } = std::mem::take(&mut self.asked);
        if close_stdin {
            io.close_stdin();
        }
        if let Some((columns, rows)) = size
            && let Err(e) = io.resize(columns, rows)
        {
            log::warn!(process = name; "could not set the terminal size: {e}");
        }
        (self.pid, self.io) = (pid, Some(Arc::new(io)));
    }
}

/// Ends the streams, which see EOF once no other process holds them.
pub fn settle(io: &Io, exit: ExitStatus) {
    io.ended();
    io.settle(patience(exit.at.elapsed().unwrap_or_default()));
}

/// The exit status of an exec that was never started, as containerd's own shim reports it.
pub fn exit_of_not_started() -> ExitStatus {
    ExitStatus { code: 0, at: SystemTime::now() }
}

pub fn exit_of_never_ran() -> ExitStatus {
    ExitStatus { code: NEVER_RAN, at: SystemTime::now() }
}

/// Exits are handled one after the other, so the time that this one has waited for others counts.
fn patience(since_exit: Duration) -> Duration {
    LAST_WORDS.saturating_sub(since_exit).max(LEAST_WORDS)
}

/// How to signal a process that is not at its gate.
pub enum Handle {
    /// A launch in progress.
    Launch(Leash),
    /// A process, and a launch on its behalf: a hook.
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

    /// Sends a signal; SIGKILL also ends a launch on behalf of the process.
    pub fn signal(&self, name: &str, signal: i32) -> Result<()> {
        match self {
            Handle::Launch(leash) if leash.signal(signal) => return Ok(()),
            Handle::Starting(_, leash) if signal == libc::SIGKILL => leash.kill(),
            _ => {}
        }
        self.pidfd().map_or_else(|| Err(not_created(name)), |pidfd| send(pidfd, name, signal))
    }
}

/// Sends a signal. Returns NotFound if the process is gone, which containerd relies on.
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
