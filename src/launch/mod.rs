//! The shim's side of making a process: open what the plan names, clone, listen to the child, reap it.
//!
//! [`CloneLauncher`] makes processes, [`Reaper`] knows when they end, [`Waiting`] is one that has not been started.
//! A launcher for tests makes a [`Waiting`] of one end of a socket pair (`sys::socket::pair`) and plays the child
//! on the other: see [`Waiting::new`].

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
mod waiting;

pub use clone_launcher::{AtHooks, CloneLauncher};
pub(crate) use holder::Holder;
pub(crate) use leash::after;
pub use leash::Leash;
pub use reaper::{Reaper, Strangers};
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

/// The code of a process that SIGKILL ended.
pub(crate) const KILLED: u32 = 128 + libc::SIGKILL as u32;

/// Called once, on the reaper's thread. Must not block.
pub(crate) type OnExit = Box<dyn FnOnce(ExitStatus) + Send>;

/// One process to be made.
pub struct Order<'a> {
    pub plan: &'a Plan,
    /// None where the plan allocates a terminal.
    pub ends: Option<StdioFds>,
    pub entry: Entry,
    /// What `Open::Init` stands for.
    pub init: Option<BorrowedFd<'a>>,
    pub leash: &'a Leash,
    /// Called once, on the reaper's thread, when the process has ended for whatever reason after the launch
    /// has come to a [`Waiting`] (also where its start failed, or where that was dropped). Must not block.
    pub on_exit: OnExit,
}

/// How far a launch has come.
pub enum Launched<'a> {
    /// The plan has a `Step::Hooks`: they run now.
    AtHooks(AtHooks<'a>),
    Waiting(Waiting),
}

impl Launched<'_> {
    /// At its gate, for a process that has no hooks.
    pub async fn at_gate(self) -> Result<Waiting> {
        match self {
            Launched::AtHooks(process) => process.go_on(Ok(())).await,
            Launched::Waiting(waiting) => Ok(waiting),
        }
    }
}

/// Makes processes. The real one clones; tests have one that needs no root.
pub trait Launcher: Send + Sync {
    /// Is there when the process waits at its hooks, or at its gate. Where it fails, nothing is left of the process, unless
    /// it was killed because its time was over, and has not gone.
    fn launch<'a>(&'a self, order: Order<'a>) -> Answer<'a, Result<Launched<'a>>>;
}
