//! Polling, for changes that nobody reports.

use super::{moment, sleep};
use crate::error::Result;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The intervals between the checks, each twice as long as the previous one.
pub struct Looks {
    begun: Instant,
    next: Duration,
    longest: Duration,
}

impl Looks {
    pub fn new(first: Duration, longest: Duration) -> Self {
        Looks { begun: Instant::now(), next: first, longest }
    }

    /// A constant interval.
    pub fn each(wait: Duration) -> Self {
        Looks::new(wait, wait)
    }

    /// The time since the first check.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Waits until the next check. An error if there is no thread that could wake it.
    pub async fn again(&mut self) -> Result<()> {
        let wait = self.next;
        self.next = (wait * 2).min(self.longest);
        let on_thread = moment::spend(|left| {
            let short = wait <= left;
            if short {
                std::thread::sleep(wait);
            }
            short
        });
        if on_thread {
            Ok(())
        } else {
            sleep(spread(wait)).await
        }
    }
}

/// Extends the interval by up to a quarter, each time by a different amount, so that waits begun together do not all
/// end at once: they would need a worker each.
fn spread(wait: Duration) -> Duration {
    /// 2³² divided by the golden ratio: its multiples are evenly distributed.
    const STEP: u32 = 0x9e37_79b9;
    static LAST: AtomicU32 = AtomicU32::new(0);
    let part = LAST.fetch_add(STEP, Ordering::Relaxed);
    wait + (wait / 4).mul_f64(f64::from(part) / f64::from(u32::MAX))
}
