//! Requests that wait: as futures, so that none of them has a thread while it does.
//!
//! A future is polled by a worker. Where it waits (for a descriptor, for [`News`], for a time), it first does so on its
//! worker, since nearly all waits are over in a moment, and a switch to another thread would cost more. A future has
//! [`MOMENT`] of that in all, however often it waits. After that the worker goes, and the wait is parked: one thread,
//! which is there only while something is, looks at all that is parked, and gives the future to a worker again. A future
//! that is dropped waits no more.

mod looks;
mod moment;
mod news;
mod parking;
mod stream;
mod task;
mod workers;

pub(crate) use looks::Looks;
pub(crate) use news::{News, Then};
pub use parking::sleep;
pub(crate) use parking::{either, ready};
pub(crate) use stream::connect;
pub(crate) use task::run;
pub use task::{block_on, Answer};
pub(crate) use workers::Workers;

use std::time::Duration;

/// How long a future's waits have the threads of its workers: a child is at its gate within it, and a program runs.
const MOMENT: Duration = Duration::from_millis(20);
