//! A process's exit: set once, awaited by many.

use crate::launch::ExitStatus;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

type Waiter = Box<dyn FnOnce(ExitStatus) + Send>;

/// Cheap to clone; all clones are the same exit.
#[derive(Clone, Default)]
pub struct Exit(Arc<Cell>);

#[derive(Default)]
struct Cell {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    status: Option<ExitStatus>,
    waiters: Vec<Waiter>,
}

impl Exit {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first call counts; it wakes every waiter.
    pub fn set(&self, status: ExitStatus) {
        let mut state = self.lock();
        if state.status.is_some() {
            return;
        }
        state.status = Some(status);
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        self.0.changed.notify_all();
        for waiter in waiters {
            waiter(status);
        }
    }

    /// None while it is still to come.
    pub fn status(&self) -> Option<ExitStatus> {
        self.lock().status
    }

    /// Whether both are the exit of the same process.
    pub fn is(&self, other: &Exit) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// None when `limit` has passed first.
    pub fn wait_for(&self, limit: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + limit;
        let mut state = self.lock();
        while state.status.is_none() {
            let left = end.checked_duration_since(Instant::now())?;
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.status
    }

    /// Calls `waiter` once the process has ended: at once, on this thread, if it has.
    pub fn then(&self, waiter: Waiter) {
        let mut state = self.lock();
        match state.status {
            Some(status) => {
                drop(state);
                waiter(status);
            }
            None => state.waiters.push(waiter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::SystemTime;

    fn status(code: u32) -> ExitStatus {
        ExitStatus { code, at: SystemTime::now() }
    }

    #[test]
    fn every_waiter_gets_the_first_status() {
        let exit = Exit::default();
        let sum = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let exit = exit.clone();
                std::thread::spawn(move || exit.wait_for(Duration::from_secs(10)).unwrap().code)
            })
            .collect();
        let counted = sum.clone();
        exit.then(Box::new(move |s| {
            counted.fetch_add(s.code, Ordering::SeqCst);
        }));
        exit.set(status(7));
        exit.set(status(9));
        assert!(threads.into_iter().all(|t| t.join().unwrap() == 7));
        let counted = sum.clone();
        exit.then(Box::new(move |s| {
            counted.fetch_add(s.code, Ordering::SeqCst);
        }));
        assert_eq!(sum.load(Ordering::SeqCst), 14);
    }

    #[test]
    fn a_wait_with_a_limit_ends() {
        assert!(Exit::default().wait_for(Duration::from_millis(5)).is_none());
    }
}
