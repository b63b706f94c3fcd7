//! To look again and again at what tells nobody that it has changed.

use super::{moment, sleep};
use crate::error::Result;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The waits between the looks, each twice as long as the one before.
pub struct Looks {
    begun: Instant,
    next: Duration,
    longest: Duration,
}

impl Looks {
    pub fn new(first: Duration, longest: Duration) -> Self {
        Looks { begun: Instant::now(), next: first, longest }
    }

    /// Always the same.
    pub fn each(wait: Duration) -> Self {
        Looks::new(wait, wait)
    }

    /// Since the first look.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Until the next look. An error where there is no thread to wait in.
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

/// Up to a quarter longer, each time by another part of it: those that began together do not all look at once, for which
/// they would need a worker each.
fn spread(wait: Duration) -> Duration {
    /// 2³² divided by the golden ratio: its multiples lie evenly.
    const STEP: u32 = 0x9e37_79b9;
    static LAST: AtomicU32 = AtomicU32::new(0);
    let part = LAST.fetch_add(STEP, Ordering::Relaxed);
    wait + (wait / 4).mul_f64(f64::from(part) / f64::from(u32::MAX))
}
