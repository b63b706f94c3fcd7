//! The shim's side of creating a process: open what the plan names, clone, listen to the child, reap it.
//!
//! [`CloneLauncher`] creates processes, [`Reaper`] reports their exits, and [`Waiting`] is a process that has not been started.
//! A launcher for tests builds a [`Waiting`] from one end of a socket pair (`sys::socket::pair`) and plays the child on
//! the other: see [`Waiting::new`].

mod birth;
mod clone_launcher;
mod ended;
mod executed;
mod failure;
mod holder;
pub mod hooks;
mod last;
mod leash;
mod lend;
mod mapping;
mod reaper;
mod underway;
mod waiting;

pub use clone_launcher::CloneLauncher;
pub(crate) use holder::Holder;
pub(crate) use leash::after;
pub use leash::Leash;
pub use reaper::{Reaper, Strangers};
pub use underway::AtHooks;
pub use waiting::Waiting;

mod host;

use crate::cgroup::Entry;
use crate::error::Result;
use crate::plan::Plan;
use crate::stdio::StdioFds;
use crate::tasks::Answer;
use std::os::fd::BorrowedFd;
use std::time::SystemTime;

/// How a process ended: its exit code, or 128 + the signal that killed it, and when it was reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExitStatus {
    pub code: u32,
    pub at: SystemTime,
}

/// The exit code of a process killed by SIGKILL.
pub(crate) const KILLED: u32 = 128 + libc::SIGKILL as u32;

/// Called once, on the reaper's thread. Must not block.
pub(crate) type OnExit = Box<dyn FnOnce(ExitStatus) + Send>;

/// An order to create one process.
pub struct Order<'a> {
    pub plan: &'a Plan,
    /// None if the plan allocates a terminal.
    pub ends: Option<StdioFds>,
    pub entry: Entry,
    /// The process that `Open::Init` refers to.
    pub init: Option<BorrowedFd<'a>>,
    pub leash: &'a Leash,
    /// Called once, on the reaper's thread, when the process has ended for any reason after the launch has reached a
    /// [`Waiting`] (even if its start failed, or it was dropped). Must not block.
    pub on_exit: OnExit,
}

/// How far a launch has come.
pub enum Launched<'a> {
    /// The plan has a `Step::Hooks`: run them now.
    AtHooks(AtHooks<'a>),
    Waiting(Waiting),
}

impl Launched<'_> {
    /// Returns the process at its gate, for one that has no hooks.
    pub async fn at_gate(self) -> Result<Waiting> {
        match self {
            Launched::AtHooks(process) => process.go_on(Ok(())).await,
            Launched::Waiting(waiting) => Ok(waiting),
        }
    }
}

/// Creates processes. The real one clones; tests have one that needs no root.
pub trait Launcher: Send + Sync {
    /// Resolves when the process waits at its hooks or its gate. If it fails, nothing is left of the process, unless
    /// the process was killed at its deadline and has not gone.
    fn launch<'a>(&'a self, order: Order<'a>) -> Answer<'a, Result<Launched<'a>>>;
}
