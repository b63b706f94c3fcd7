//! The life of one process, and of the container around it.
//!
//! ```text
//!            Exec             Start                            the process ends
//!   (none) ────────► Added ───────────► Starting ───► Running ─────────────────► Stopped ──Delete──► (none)
//!            Create           Start      ▲  │                                       ▲
//!   (none) ────────► Created ────────────┘  └───────── the start failed ────────────┤
//!                       └──────────────── killed at its gate ───────────────────────┘
//! ```
//!
//! A start is made without the container's slot; an exit that comes while it is `Starting` waits for it in `early`.
//!
//! A state owns what is valid in it (the gate, the pidfd, the exit), and a transition consumes it. A frozen
//! container is a running one whose cgroup is frozen: `Slot::freezer`, since its processes can still end.

use super::Exit;
use crate::error::{Error, Kind};
use crate::launch::{ExitStatus, Leash, Waiting};
use crate::spec;
use crate::stdio::{Io, Stdio};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime};

/// How long after an exit its news waits for the terminal's last output; copying it takes well under a millisecond.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// How long it waits at least: it may have been kept by another exit, whose reader is stuck.
const LEAST_WORDS: Duration = Duration::from_millis(10);

/// The exit code that stands for "it could not be run".
pub(super) const NEVER_RAN: u32 = 255;

pub(super) enum Life {
    /// An exec that nobody has started.
    Added(Box<spec::Process>),
    /// At its gate.
    Created(Waiting),
    /// On its way, without the slot: a start may take as long as a hook, or as a hostile container can make an
    /// exec's. The descriptor is the pidfd, where there was a process before; the leash ends whatever is being made.
    Starting(Option<OwnedFd>, Leash),
    /// The descriptor is its pidfd.
    Running(OwnedFd),
    Stopped(ExitStatus),
}

impl Life {
    pub fn word(&self) -> &'static str {
        match self {
            Life::Added(_) => "not started",
            Life::Created(_) => "created",
            Life::Starting(..) => "starting",
            Life::Running(_) => "running",
            Life::Stopped(_) => "stopped",
        }
    }
}

pub(super) struct Process {
    /// How errors speak of it: `container c1`, `exec e1 of container c1`.
    pub name: String,
    /// 0 before an exec is started.
    pub pid: u32,
    pub stdio: Stdio,
    /// None before an exec is started.
    pub io: Option<Io>,
    pub exit: Exit,
    pub life: Life,
    /// It ended before its start had returned: the exit waits for the start's event.
    pub early: Option<ExitStatus>,
    /// What was asked of its streams before there were any.
    pub asked: Asked,
}

/// It is done once the streams are there.
#[derive(Default)]
pub(super) struct Asked {
    pub close_stdin: bool,
    /// Columns and rows.
    pub size: Option<(u16, u16)>,
}

impl Process {
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        match &self.life {
            Life::Created(waiting) => Some(waiting.pidfd.as_fd()),
            Life::Running(pidfd) => Some(pidfd.as_fd()),
            Life::Starting(pidfd, _) => pidfd.as_ref().map(AsFd::as_fd),
            Life::Added(_) | Life::Stopped(_) => None,
        }
    }

    pub fn is_running(&self) -> bool {
        matches!(self.life, Life::Running(_))
    }

    /// Its exit is still to come.
    pub fn is_alive(&self) -> bool {
        matches!(self.life, Life::Running(_) | Life::Starting(..))
    }

    /// The one answer to a request in the wrong state.
    pub fn cannot(&self, verb: &str) -> Error {
        Error::new(Kind::State, format!("cannot {verb} {}: it is {}", self.name, self.life.word()))
    }

    /// Takes the state out for a transition.
    pub fn take_life(&mut self) -> Life {
        std::mem::replace(&mut self.life, Life::Stopped(never_ran()))
    }

    /// Its process is there, and so are its streams: what was asked for before is done now.
    pub fn connect(&mut self, io: Io) {
        let Asked { close_stdin, size } = std::mem::take(&mut self.asked);
        if close_stdin {
            io.close_stdin();
        }
        if let Some((columns, rows)) = size {
            if let Err(e) = io.resize(columns, rows) {
                log::warn!(process = self.name.as_str(); "the size of its terminal: {e}");
            }
        }
        self.io = Some(io);
    }

    /// The process has ended: its streams see EOF once no other process holds them.
    pub fn stop(&mut self, status: ExitStatus) {
        self.life = Life::Stopped(status);
        if let Some(io) = &self.io {
            io.ended();
            io.settle(patience(status.at.elapsed().unwrap_or_default()));
        }
    }

    pub fn exited(&self) -> Option<ExitStatus> {
        match self.life {
            Life::Stopped(status) => Some(status),
            _ => None,
        }
    }
}

/// Of an exec that nobody has started, as containerd's own shim has it.
pub(super) fn not_started() -> ExitStatus {
    ExitStatus { code: 0, at: SystemTime::now() }
}

pub(super) fn never_ran() -> ExitStatus {
    ExitStatus { code: NEVER_RAN, at: SystemTime::now() }
}

/// All exits wait one after the other, so the time that one has waited for others counts.
fn patience(since_exit: Duration) -> Duration {
    LAST_WORDS.saturating_sub(since_exit).max(LEAST_WORDS)
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
