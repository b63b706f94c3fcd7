//! Locks of the standard library whose locking cannot fail.
//!
//! The locks of std are poisoned when their holder panics, so that the next holder can refuse data that may be
//! half-changed. Here a panic ends one request, and the shim lives on for its containers. Code likely to panic runs
//! outside the locks, so the guarded data is consistent even then. parking_lot has no poisoning either, but is five
//! crates.

pub use std::sync::MutexGuard;
use std::sync::{PoisonError, TryLockError};
use std::time::Duration;

#[derive(Debug, Default)]
pub struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Self {
        Mutex(std::sync::Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None if it is locked.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

#[derive(Debug, Default)]
pub struct Condvar(std::sync::Condvar);

impl Condvar {
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    pub fn wait_while<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        self.0.wait_while(guard, condition).unwrap_or_else(PoisonError::into_inner)
    }

    pub fn wait_timeout<'a, T>(&self, guard: MutexGuard<'a, T>, limit: Duration) -> MutexGuard<'a, T> {
        self.0.wait_timeout(guard, limit).unwrap_or_else(PoisonError::into_inner).0
    }

    pub fn wait_timeout_while<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        limit: Duration,
        condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        self.0.wait_timeout_while(guard, limit, condition).unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{catch_unwind, AssertUnwindSafe};

    #[test]
    fn a_panic_of_its_holder_does_not_close_a_lock() {
        let (mutex, condvar) = (Mutex::new(0), Condvar::default());
        let died = catch_unwind(AssertUnwindSafe(|| {
            *mutex.lock() += 1;
            let _held = mutex.lock();
            panic!("with the lock");
        }));
        assert!(died.is_err());
        assert_eq!(*mutex.lock(), 1);
        assert!(mutex.try_lock().is_some());
        assert_eq!(*condvar.wait_timeout(mutex.lock(), Duration::ZERO), 1);
        assert_eq!(*condvar.wait_timeout_while(mutex.lock(), Duration::ZERO, |value| *value == 1), 1);
        assert_eq!(*condvar.wait_while(mutex.lock(), |value| *value == 0), 1);
    }
}
