//! A future that moves between workers.

use super::moment::Moment;
use super::workers::Workers;
use crate::sync::Mutex;
use std::future::Future;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::{pin, Pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

/// A response that follows later.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

struct Task {
    workers: Workers,
    /// None once it has finished.
    future: Mutex<Option<(Answer<'static, ()>, Moment)>>,
}

impl Task {
    fn poll(self: &Arc<Self>) {
        let waker = Waker::from(Arc::clone(self));
        let mut place = self.future.lock();
        let Some((future, moment)) = place.as_mut() else { return };
        let mut context = Context::from_waker(&waker);
        let polled = moment.of(|| catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context))));
        // It is complete, or it panicked, which the panic hook has logged. Dropping what the future holds sends a
        // response.
        if !matches!(polled, Ok(Poll::Pending)) {
            let _ = catch_unwind(AssertUnwindSafe(|| *place = None));
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        let workers = self.workers.clone();
        workers.give_woken(Box::new(move || self.poll()));
    }
}

/// Polls the future on this thread, which is a worker's, and later on whichever worker is free when it is woken.
pub(crate) fn run(workers: &Workers, future: Answer<'static, ()>) {
    let task =
        Arc::new(Task { workers: workers.clone(), future: Mutex::new(Some((future, Moment::default()))) });
    task.poll();
}

struct Sleeper(Thread);

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on a thread that may block, such as that of a program with nothing else to do.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Sleeper(std::thread::current())));
    let (mut context, mut moment) = (Context::from_waker(&waker), Moment::default());
    loop {
        if let Poll::Ready(value) = moment.of(|| future.as_mut().poll(&mut context)) {
            return value;
        }
        std::thread::park();
    }
}
