//! Who may end a launch, and when it ends by itself.

use crate::error::{Context, Error, Kind, Result};
use crate::sys::fd::{AsFd, BorrowedFd, OwnedFd};
use crate::sys::wait;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A launch with a time limit, and with an owner who can send it a signal from its clone on. A clone of it is the same.
#[derive(Clone, Debug)]
pub struct Leash {
    pub deadline: Instant,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// The process that is at work.
    pidfd: Option<OwnedFd>,
    /// It was killed: whoever is made now is, too.
    killed: bool,
}

impl Leash {
    pub fn until(deadline: Instant) -> Self {
        Leash { deadline, state: Arc::default() }
    }

    /// For what has no request with a time limit of its own.
    pub fn lasting(limit: Duration) -> Self {
        Self::until(after(limit))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A SIGKILL is for the whole launch, also where it has made no process yet. Other signals go to the process that is
    /// at work; false where there is none.
    pub fn signal(&self, signal: i32) -> bool {
        let mut state = self.lock();
        state.killed |= signal == libc::SIGKILL;
        let sent = state.pidfd.as_ref().is_some_and(|pidfd| wait::signal(pidfd.as_fd(), signal).is_ok());
        sent || state.killed
    }

    pub fn kill(&self) {
        self.signal(libc::SIGKILL);
    }

    /// From now on this is the process. An error where it could not be killed through this.
    pub(super) fn hold(&self, pidfd: BorrowedFd<'_>) -> Result<()> {
        let mut state = self.lock();
        if state.killed {
            let _ = wait::signal(pidfd, libc::SIGKILL);
        }
        state.pidfd = Some(pidfd.try_clone_to_owned().context(|| "dup(pidfd)")?);
        Ok(())
    }

    /// An error where it was killed.
    pub fn check(&self) -> Result<()> {
        match self.lock().killed {
            true => Err(Error::new(Kind::State, "it was killed while it was made")),
            false => Ok(()),
        }
    }

    /// Whether both are of the same launch.
    pub fn is(&self, other: &Leash) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }

    /// Nobody waits for it any more.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// The process is its owner's from now on.
    pub fn release(&self) {
        self.lock().pidfd = None;
    }
}

/// A limit that is too long for a clock is a long one.
pub fn after(limit: Duration) -> Instant {
    const LONG: Duration = Duration::from_secs(1 << 30);
    let now = Instant::now();
    now.checked_add(limit).unwrap_or_else(|| now + LONG)
}
