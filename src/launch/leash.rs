//! Who may end a launch, and when it ends by itself.

use crate::error::{Context, Error, Kind, Result};
use crate::sync::{Mutex, MutexGuard};
use crate::sys::clone::Child;
use crate::sys::epoll::Interest;
use crate::sys::fd::{AsFd, OwnedFd};
use crate::sys::{poll, wait};
use crate::tasks::News;
use std::future::{poll_fn, Future};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// The bounds of a launch: a deadline, and an owner who can signal it from its clone on. Clones share one state.
#[derive(Clone, Debug)]
pub struct Leash {
    pub deadline: Instant,
    /// Set by a kill: a process created from now on is killed, too.
    killed: News<()>,
    /// The process currently at work.
    process: Arc<Mutex<Option<Held>>>,
}

#[derive(Debug)]
struct Held {
    pid: u32,
    pidfd: OwnedFd,
}

impl Leash {
    pub(crate) fn until(deadline: Instant) -> Self {
        Leash { deadline, killed: News::default(), process: Arc::default() }
    }

    /// For work outside a request that has a deadline of its own.
    pub fn lasting(limit: Duration) -> Self {
        Self::until(after(limit))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Held>> {
        self.process.lock()
    }

    fn killed(&self) -> bool {
        self.killed.get().is_some()
    }

    /// Sends a signal to the process currently at work; returns false if there is none. SIGKILL is for the whole
    /// launch, even if it has not created a process yet.
    pub(crate) fn signal(&self, signal: i32) -> bool {
        // First, so that a process held after the check below sees it.
        if signal == libc::SIGKILL {
            self.killed.set(());
        }
        let sent = self.lock().as_ref().is_some_and(|held| wait::signal(held.pidfd.as_fd(), signal).is_ok());
        sent || self.killed()
    }

    pub(crate) fn kill(&self) {
        self.signal(libc::SIGKILL);
    }

    /// Makes this the current process. Fails if it could not be killed through the leash.
    pub(super) fn hold(&self, Child { pid, pidfd }: &Child) -> Result<()> {
        let mut process = self.lock();
        if self.killed() {
            let _ = wait::signal(pidfd.as_fd(), libc::SIGKILL);
        }
        let pidfd = pidfd.try_clone().context(|| "dup(pidfd)")?;
        *process = Some(Held { pid: *pid, pidfd });
        Ok(())
    }

    /// The pid of the current process, unless it has ended.
    pub(crate) fn pid(&self) -> Option<u32> {
        let process = self.lock();
        let Held { pid, pidfd } = process.as_ref()?;
        let ended = poll::ready(pidfd.as_fd(), Interest::READ, Instant::now());
        matches!(ended, Ok(false)).then_some(*pid)
    }

    /// Fails if the launch was killed.
    pub(crate) fn check(&self) -> Result<()> {
        if self.killed() {
            Err(was_killed())
        } else {
            Ok(())
        }
    }

    /// Whether the deadline has passed, so that nobody waits for it any more.
    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Hands the process over to its owner.
    pub(crate) fn release(&self) {
        *self.lock() = None;
    }

    /// Returns the result of `future`, which observes the deadline itself, or drops it if the launch is killed first.
    pub async fn unless_killed<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        let never = after(Duration::MAX).saturating_duration_since(Instant::now());
        let (mut future, mut killed) = (pin!(future), pin!(self.killed.within(never)));
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Pending => killed.as_mut().poll(context).map(|killed| match killed {
                Some(()) => Err(was_killed()),
                None => Err(Error::new(Kind::System, "no thread is to be had that would tell of a kill")),
            }),
            done => done,
        })
        .await
    }

    /// Returns the result of `future`, or drops it if the launch is killed or the deadline passes first, but not while
    /// `kept` is set. For work that has no process, and waits for something other than the kernel.
    pub(crate) async fn bounds<T>(
        &self,
        what: &str,
        kept: &AtomicBool,
        future: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let limit = self.deadline.saturating_duration_since(Instant::now());
        let (mut future, mut killed) = (pin!(future), pin!(self.killed.within(limit)));
        let mut over = None;
        poll_fn(|context| {
            if let Poll::Ready(done) = future.as_mut().poll(context) {
                return Poll::Ready(done);
            }
            if over.is_none()
                && let Poll::Ready(killed) = killed.as_mut().poll(context)
            {
                over = Some(killed);
            }
            match over {
                None => Poll::Pending,
                Some(_) if kept.load(Ordering::SeqCst) => Poll::Pending,
                Some(Some(())) => Poll::Ready(Err(was_killed())),
                Some(None) => {
                    let late = format!("{what}: not done within the time limit");
                    Poll::Ready(Err(Error::new(Kind::Deadline, late)))
                }
            }
        })
        .await
    }
}

fn was_killed() -> Error {
    Error::new(Kind::State, "it was killed while it was made")
}

/// Saturates: a limit too long for a clock becomes merely a long one.
pub(crate) fn after(limit: Duration) -> Instant {
    const LONG: Duration = Duration::from_secs(1 << 30);
    let now = Instant::now();
    now.checked_add(limit).unwrap_or_else(|| now + LONG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::{block_on, sleep};

    async fn slow() -> Result<u32> {
        sleep(Duration::from_millis(200)).await?;
        Ok(7)
    }

    #[test]
    fn what_a_leash_bounds_ends_with_it_unless_it_is_kept() {
        for (killed, limit, kept) in
            [(true, 9000, false), (false, 50, false), (true, 9000, true), (false, 50, true)]
        {
            let leash = Leash::lasting(Duration::from_millis(limit));
            let other = leash.clone();
            let killer = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(60));
                if killed {
                    other.kill();
                }
            });
            let begun = Instant::now();
            let answer = block_on(leash.bounds("it", &AtomicBool::new(kept), slow()));
            killer.join().unwrap();
            match answer {
                Ok(value) => assert!(kept && value == 7),
                Err(e) => {
                    assert!(!kept && begun.elapsed() < Duration::from_millis(190), "{e}");
                    assert_eq!(e.kind(), if killed { Kind::State } else { Kind::Deadline }, "{e}");
                }
            }
        }
    }
}
