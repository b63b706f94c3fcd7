//! How much longer the future polled by this thread may block it.

use super::MOMENT;
use std::cell::Cell;
use std::time::{Duration, Instant};

thread_local! {
    static LEFT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// The remaining time of a future, carried from poll to poll across threads.
pub(super) struct Moment(Duration);

impl Default for Moment {
    fn default() -> Self {
        Moment(MOMENT)
    }
}

impl Moment {
    /// Runs one poll.
    pub(super) fn of<T>(&mut self, poll: impl FnOnce() -> T) -> T {
        LEFT.set(self.0);
        let polled = poll();
        self.0 = LEFT.replace(Duration::ZERO);
        polled
    }
}

/// Runs `wait`, which must return within the given time, and deducts the time it has taken.
pub(super) fn spend<T>(wait: impl FnOnce(Duration) -> T) -> T {
    let left = LEFT.get();
    let begun = Instant::now();
    let waited = wait(left);
    LEFT.set(left.saturating_sub(begun.elapsed()));
    waited
}
