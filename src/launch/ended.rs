//! The end of a process: set by the reaper, waited for by whoever has made it.

use super::{ExitStatus, OnExit};
use crate::sync::Mutex;
use crate::tasks::News;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a child that reported a failure, or was killed, may take to be gone.
pub(super) const GONE: Duration = Duration::from_secs(5);
/// The same for one whose time is over: nobody waits for it any longer than that.
pub(super) const LATE: Duration = Duration::from_millis(250);

/// The end of one process, for those who wait for it.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    status: News<ExitStatus>,
    untold: Mutex<Untold>,
    /// Its program runs: somebody has seen it.
    pub(super) started: AtomicBool,
    /// It ended before that, and had executed nothing.
    pub(super) bare: AtomicBool,
}

/// Of a process that ended before anybody had said that he wants to hear of it.
#[derive(Default)]
struct Untold(Option<OnExit>);

impl std::fmt::Debug for Untold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Untold({})", self.0.is_some())
    }
}

impl Ended {
    /// From now on nobody asks whether it had a program.
    pub(super) fn started(&self) {
        self.started.store(true, Ordering::SeqCst);
    }

    /// It has been reaped, and never had a program.
    pub(super) fn never_executed(&self) -> bool {
        self.bare.load(Ordering::SeqCst)
    }

    /// Of one that nobody has said he wants to hear of.
    pub(super) fn set_untold(&self, status: ExitStatus, on_exit: OnExit) {
        *self.untold.lock() = Untold(Some(on_exit));
        self.set(status);
    }

    /// Once.
    pub(super) fn take_untold(&self) -> Option<OnExit> {
        self.untold.lock().0.take()
    }

    pub(super) fn set(&self, status: ExitStatus) {
        self.status.set(status);
    }

    /// None while it has not been reaped.
    pub fn status(&self) -> Option<ExitStatus> {
        self.status.get()
    }

    /// Waits until the process has been reaped; None where that takes longer than `limit`.
    pub async fn within(&self, limit: Duration) -> Option<ExitStatus> {
        self.status.within(limit).await
    }
}
