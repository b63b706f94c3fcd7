//! What is left of the time that the future which this thread polls may wait on the thread.

use super::MOMENT;
use std::cell::Cell;
use std::time::{Duration, Instant};

thread_local! {
    static LEFT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Of a future: taken from poll to poll, whichever thread does it.
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

/// Runs `wait`, which is to end after so long, or earlier; what it has taken is no more.
pub(super) fn spend<T>(wait: impl FnOnce(Duration) -> T) -> T {
    let left = LEFT.get();
    let begun = Instant::now();
    let waited = wait(left);
    LEFT.set(left.saturating_sub(begun.elapsed()));
    waited
}
