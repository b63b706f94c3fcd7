//! A value that is set once and that many may wait for.

use super::moment;
use super::parking::Alarm;
use crate::sync::{Condvar, Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// Cheap to clone; all clones share the same value.
pub(crate) struct News<T>(Arc<Shared<T>>);

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    known: Option<T>,
    /// By number, so that each waiter has one entry however often it is polled.
    waiting: BTreeMap<u64, Waker>,
    last: u64,
    then: BTreeMap<u64, Call<T>>,
}

type Call<T> = Box<dyn FnOnce(T) + Send>;

/// A pending call; dropping it cancels the call.
pub struct Then<T> {
    news: News<T>,
    number: u64,
}

impl<T> Drop for Then<T> {
    fn drop(&mut self) {
        let mut state = self.news.0.state.lock();
        let call = state.then.remove(&self.number);
        drop(state);
        drop(call);
    }
}

impl<T> Clone for News<T> {
    fn clone(&self) -> Self {
        News(Arc::clone(&self.0))
    }
}

impl<T> Default for News<T> {
    fn default() -> Self {
        let state = State { known: None, waiting: BTreeMap::new(), last: 0, then: BTreeMap::new() };
        News(Arc::new(Shared { state: Mutex::new(state), changed: Condvar::default() }))
    }
}

impl<T> std::fmt::Debug for News<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "News({})", self.0.state.lock().known.is_some())
    }
}

/// A waiter; dropping it removes its entry.
struct Waits<'a, T> {
    shared: &'a Shared<T>,
    number: Option<u64>,
}

impl<T> Drop for Waits<'_, T> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.shared.state.lock().waiting.remove(&number);
        }
    }
}

impl<T: Clone> News<T> {
    /// Sets the value and wakes all waiters; only the first call counts.
    pub(crate) fn set(&self, value: T) {
        let (wakers, then) = {
            let mut state = self.0.state.lock();
            if state.known.is_some() {
                return;
            }
            state.known = Some(value.clone());
            (std::mem::take(&mut state.waiting), std::mem::take(&mut state.then))
        };
        self.0.changed.notify_all();
        for (_, waker) in wakers {
            waker.wake();
        }
        for (_, call) in then {
            call(value.clone());
        }
    }

    /// None if it is not set yet.
    pub(crate) fn get(&self) -> Option<T> {
        self.0.state.lock().known.clone()
    }

    /// Whether both share the same value.
    pub(crate) fn is(&self, other: &News<T>) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Calls `call` once the value is set: immediately on this thread if it already is. Dropping the result cancels the
    /// call.
    #[must_use]
    pub(crate) fn then(&self, call: Call<T>) -> Option<Then<T>> {
        let mut state = self.0.state.lock();
        if let Some(value) = state.known.clone() {
            drop(state);
            call(value);
            return None;
        }
        state.last += 1;
        let number = state.last;
        state.then.insert(number, call);
        Some(Then { news: self.clone(), number })
    }

    fn known(&self, limit: Duration) -> MutexGuard<'_, State<T>> {
        let unknown = |state: &mut State<T>| state.known.is_none();
        self.0.changed.wait_timeout_while(self.0.state.lock(), limit, unknown)
    }

    /// Like [`News::within`], blocking the thread.
    pub(crate) fn wait(&self, limit: Duration) -> Option<T> {
        self.known(limit).known.clone()
    }

    /// Waits for the value; None if `limit` passes first.
    pub(crate) async fn within(&self, limit: Duration) -> Option<T> {
        let begun = Instant::now();
        let deadline = begun.checked_add(limit).unwrap_or(begun + Duration::from_secs(1 << 30));
        let (mut waits, mut alarm) = (Waits { shared: &self.0, number: None }, Alarm::default());
        poll_fn(|context| {
            let mut state = match waits.number {
                // Block this thread at first.
                None => moment::spend(|left| self.known(left.min(limit))),
                Some(_) => self.0.state.lock(),
            };
            if state.known.is_some() || Instant::now() >= deadline {
                return Poll::Ready(state.known.clone());
            }
            let number = match waits.number {
                Some(number) => number,
                None => {
                    state.last += 1;
                    state.last
                }
            };
            waits.number = Some(number);
            state.waiting.insert(number, context.waker().clone());
            drop(state);
            match alarm.set(deadline, context.waker()) {
                Ok(()) => Poll::Pending,
                // Without a thread for the timeout it cannot wait.
                Err(_) => Poll::Ready(self.get()),
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::super::{block_on, MOMENT};
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn all_that_wait_get_the_first() {
        let (news, sum) = (News::default(), Arc::new(AtomicU32::new(0)));
        let threads: Vec<_> = (0..8)
            .map(|i| {
                let news: News<u32> = news.clone();
                let limit = Duration::from_secs(10);
                std::thread::spawn(move || match i % 2 {
                    0 => news.wait(limit).unwrap(),
                    _ => block_on(news.within(limit)).unwrap(),
                })
            })
            .collect();
        let counted = sum.clone();
        let count = move |value| {
            counted.fetch_add(value, Ordering::SeqCst);
        };
        let then = news.then(Box::new(count.clone()));
        drop(news.then(Box::new(count.clone())));
        std::thread::sleep(4 * MOMENT);
        news.set(7);
        news.set(9);
        assert!(threads.into_iter().all(|thread| thread.join().unwrap() == 7));
        assert!(news.then(Box::new(count)).is_none());
        drop(then);
        assert_eq!(sum.load(Ordering::SeqCst), 14);
    }

    #[test]
    fn a_wait_has_an_end_and_leaves_nothing() {
        let news: News<u32> = News::default();
        for limit in [Duration::ZERO, MOMENT, 8 * MOMENT] {
            assert_eq!(block_on(news.within(limit)), None);
            assert!(news.0.state.lock().waiting.is_empty());
        }
        assert_eq!(news.wait(MOMENT), None);
    }
}
