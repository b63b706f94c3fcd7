//! Requests that wait, as futures, so that a waiting request occupies no thread.
//!
//! A worker polls a future. A future that waits (for a descriptor, for [`News`], for a time) first blocks its worker,
//! since nearly all waits are over in a moment, and a switch to another thread would cost more. Each future may block
//! for [`MOMENT`] in total, however often it waits. After that it is parked and the worker is free: a single thread,
//! which exists only while something is parked, watches all parked futures and hands them to a worker again. Dropping a
//! future ends its waits.

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
pub(crate) use stream::{connect, connect_abstract, connect_to};
pub(crate) use task::run;
pub use task::{block_on, Answer};
pub(crate) use workers::Workers;

use std::time::Duration;

/// How long a future may block the threads of its workers: enough for a child to reach its gate, and for a program to
/// run.
const MOMENT: Duration = Duration::from_millis(20);
