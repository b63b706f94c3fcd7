//! The end of a process: set by the reaper, awaited by whoever created it.

use super::{ExitStatus, OnExit};
use crate::sync::Mutex;
use crate::tasks::News;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a child that reported a failure, or was killed, may take to exit.
pub(super) const GONE: Duration = Duration::from_secs(5);
/// The same for one that has exceeded its deadline: nobody waits for it any longer than that.
pub(super) const LATE: Duration = Duration::from_millis(250);

/// The end of one process, for those who wait for it.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    status: News<ExitStatus>,
    untold: Mutex<Untold>,
    /// Its program has been seen running.
    pub(super) started: AtomicBool,
    /// It ended before that, without having executed a program.
    pub(super) bare: AtomicBool,
}

/// The exit handler of a process that ended before its launcher asked for it to be called.
#[derive(Default)]
struct Untold(Option<OnExit>);

impl std::fmt::Debug for Untold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Untold({})", self.0.is_some())
    }
}

impl Ended {
    /// Records that its program runs: the reaper then need not find out whether it had one.
    pub(super) fn started(&self) {
        self.started.store(true, Ordering::SeqCst);
    }

    /// Whether it has been reaped without ever having executed a program.
    pub(super) fn never_executed(&self) -> bool {
        self.bare.load(Ordering::SeqCst)
    }

    /// Sets the status of a process whose exit handler nobody has asked for, and keeps the handler.
    pub(super) fn set_untold(&self, status: ExitStatus, on_exit: OnExit) {
        *self.untold.lock() = Untold(Some(on_exit));
        self.set(status);
    }

    /// Takes the exit handler; returns it only once.
    pub(super) fn take_untold(&self) -> Option<OnExit> {
        self.untold.lock().0.take()
    }

    pub(super) fn set(&self, status: ExitStatus) {
        self.status.set(status);
    }

    /// None until it has been reaped.
    pub fn status(&self) -> Option<ExitStatus> {
        self.status.get()
    }

    /// Waits until the process has been reaped; returns None if that takes longer than `limit`.
    pub async fn within(&self, limit: Duration) -> Option<ExitStatus> {
        self.status.within(limit).await
    }
}
