//! The threads that handle requests: as many as there are requests in progress, and none if there are none.
//!
//! The worker that became idle last gets the next job, so that workers from a busy moment stay idle and exit. Their
//! stacks, of which a Create touches a hundred KiB and more, are freed with them.

use crate::sync::{Mutex, MutexGuard};
use crate::sys::process;
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant};

/// The number of concurrent jobs that do not wait; further ones are queued.
const WORKERS_MAX: usize = 64;
/// The number of additional jobs that may take long in the kernel, such as a Create on slow storage. They take no
/// places of those that do not. (What waits for a process, for systemd or for containerd is parked and has no worker.)
const LONG_MAX: usize = 512;
/// How long a worker stays idle before it exits. Within a container's start the requests are milliseconds apart, and
/// starting a thread takes tens of microseconds.
const IDLE: Duration = Duration::from_millis(500);
/// A Create touches less than 500 KiB in a debug build, and only touched pages count.
const STACK: usize = 1 << 20;

pub type Job = Box<dyn FnOnce() + Send>;

#[derive(Clone, Default)]
pub struct Workers(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    count: usize,
    /// The last entry became idle last.
    idle: Vec<Arc<Seat>>,
    /// Used only while the maximum number of workers is busy.
    queue: VecDeque<Job>,
    /// The number of workers running a long job; they are not part of `count`.
    long: usize,
    /// Used only while the maximum number of long jobs is running.
    long_queue: VecDeque<Job>,
    /// Jobs that are no longer parked.
    woken: VecDeque<Job>,
    /// A worker was called for the woken jobs and has not arrived yet.
    called: bool,
}

/// The place where an idle worker gets its next job.
struct Seat {
    thread: Thread,
    job: Mutex<Option<Job>>,
}

impl Workers {
    /// Runs a job on a worker. Never blocks, unless no thread can be started. A job must not panic.
    pub fn give(&self, job: Job) {
        let mut state = self.0.lock();
        if let Some(seat) = state.idle.pop() {
            *seat.job.lock() = Some(job);
            seat.thread.unpark();
            return;
        }
        state.queue.push_back(job);
        if !self.hire(state, |workers| workers.work()) {
            // Without any worker nobody would ever take jobs from the queue.
            let mut state = self.0.lock();
            let alone = if state.count == 0 { state.queue.pop_front() } else { None };
            drop(state);
            if let Some(job) = alone {
                job();
            }
        }
    }

    /// Starts a worker; false if the maximum is reached or no thread can be started.
    fn hire(&self, mut state: MutexGuard<'_, State>, work: fn(&Workers)) -> bool {
        if state.count >= WORKERS_MAX {
            return false;
        }
        state.count += 1;
        drop(state);
        let workers = self.clone();
        let thread = std::thread::Builder::new().name("rpc".into()).stack_size(STACK);
        if let Err(e) = thread.spawn(move || work(&workers)) {
            log::warn!("could not start a thread for requests: {e}");
            self.0.lock().count -= 1;
            return false;
        }
        true
    }

    /// Like [`Workers::give`], for a job that may block.
    pub fn give_long(&self, job: Job) {
        let workers = self.clone();
        self.give(Box::new(move || workers.long(job)));
    }

    /// Queues a job that was woken and may block again. Never blocks and never runs the job itself, because the caller
    /// may hold a lock that the job needs. Many arrive at once, and most only check something and wait again: so a
    /// worker takes one and calls another worker for the next.
    pub(super) fn give_woken(&self, job: Job) {
        let mut state = self.0.lock();
        state.woken.push_back(job);
        self.call(state);
    }

    /// Calls a worker for the woken jobs, unless one has already been called.
    fn call(&self, mut state: MutexGuard<'_, State>) {
        if std::mem::replace(&mut state.called, true) {
            return;
        }
        if let Some(seat) = state.idle.pop() {
            let workers = self.clone();
            *seat.job.lock() = Some(Box::new(move || workers.come()));
            return seat.thread.unpark();
        }
        let come_and_stay = |workers: &Workers| {
            workers.come();
            workers.work();
        };
        // Workers that finish their own jobs look for these too.
        if !self.hire(state, come_and_stay) {
            self.0.lock().called = false;
        }
    }

    /// Run by the worker that was called.
    fn come(&self) {
        self.0.lock().called = false;
        self.fetch();
    }

    fn fetch(&self) {
        let mut state = self.0.lock();
        let Some(job) = state.woken.pop_front() else { return };
        if state.woken.is_empty() {
            drop(state);
        } else {
            self.call(state);
        }
        self.long(job);
    }

    /// Runs the part of a worker's job that may block, now or, if too many are running, after another one.
    pub fn long(&self, job: Job) {
        let mut state = self.0.lock();
        if state.long >= LONG_MAX {
            return state.long_queue.push_back(job);
        }
        state.long += 1;
        // A thread that runs a job for lack of workers is not counted.
        let counted = state.count > 0;
        state.count -= usize::from(counted);
        if state.queue.is_empty() {
            drop(state);
        } else {
            // Its place is free for another worker.
            self.hire(state, |workers| workers.work());
        }
        let mut job = job;
        loop {
            job();
            let mut state = self.0.lock();
            match state.long_queue.pop_front() {
                Some(next) => job = next,
                None => {
                    state.long -= 1;
                    state.count += usize::from(counted);
                    return;
                }
            }
        }
    }

    fn work(&self) {
        let seat = Arc::new(Seat { thread: std::thread::current(), job: Mutex::default() });
        while let Some(job) = self.next(&seat) {
            job();
        }
    }

    /// The next job; None if nothing arrived and the worker is no longer counted.
    fn next(&self, seat: &Arc<Seat>) -> Option<Job> {
        let mut state = self.0.lock();
        if let Some(job) = state.queue.pop_front() {
            return Some(job);
        }
        if !state.woken.is_empty() {
            let workers = self.clone();
            return Some(Box::new(move || workers.fetch()));
        }
        state.idle.push(seat.clone());
        drop(state);
        let end = Instant::now() + IDLE;
        loop {
            if let Some(job) = seat.job.lock().take() {
                return Some(job);
            }
            let left = end.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                std::thread::park_timeout(left);
                continue;
            }
            let mut state = self.0.lock();
            let Some(at) = state.idle.iter().position(|other| Arc::ptr_eq(other, seat)) else {
                // It was taken off the list a moment ago: its job is there, or about to be.
                drop(state);
                std::thread::yield_now();
                continue;
            };
            state.idle.remove(at);
            state.count -= 1;
            if state.count == 0 {
                drop(state);
                // A quiet moment: return the memory used by the busy one before it.
                process::trim_heap();
            }
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;
    use std::sync::Barrier;

    #[test]
    fn every_job_is_done_however_many_come_at_once() {
        let workers = Workers::default();
        let done = Arc::new(AtomicUsize::new(0));
        let (sender, all) = channel();
        for _ in 0..1000 {
            let (done, sender) = (done.clone(), sender.clone());
            workers.give(Box::new(move || {
                std::thread::yield_now();
                if done.fetch_add(1, Ordering::SeqCst) == 999 {
                    sender.send(()).unwrap();
                }
            }));
        }
        all.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(workers.0.lock().count <= WORKERS_MAX);
    }

    #[test]
    fn jobs_that_wait_for_each_other_run_at_once_and_more_have_their_turn() {
        let workers = Workers::default();
        let together = Arc::new(Barrier::new(WORKERS_MAX));
        let (sender, all) = channel();
        for _ in 0..2 * WORKERS_MAX {
            let (together, sender) = (together.clone(), sender.clone());
            workers.give(Box::new(move || {
                together.wait();
                sender.send(()).unwrap();
            }));
        }
        for _ in 0..2 * WORKERS_MAX {
            all.recv_timeout(Duration::from_secs(20)).unwrap();
        }
    }

    #[test]
    fn jobs_that_wait_have_no_place_of_those_that_do_not() {
        let workers = Workers::default();
        let (release, held) = channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let (begun, begins) = channel();
        for _ in 0..2 * WORKERS_MAX {
            let (held, begun, own) = (held.clone(), begun.clone(), workers.clone());
            workers.give(Box::new(move || {
                let job = move || {
                    begun.send(()).unwrap();
                    let _ = held.lock().recv();
                };
                own.long(Box::new(job));
            }));
        }
        for _ in 0..2 * WORKERS_MAX {
            begins.recv_timeout(Duration::from_secs(20)).expect("all of them are at work");
        }
        let (sender, done) = channel();
        workers.give(Box::new(move || sender.send(()).unwrap()));
        done.recv_timeout(Duration::from_secs(20)).expect("and one more");
        drop(release);
        let end = Instant::now() + Duration::from_secs(20);
        while workers.0.lock().long > 0 {
            assert!(Instant::now() < end, "they end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn one_job_after_the_other_is_one_worker_s_and_then_it_ends() {
        let workers = Workers::default();
        for _ in 0..50 {
            let (sender, done) = channel();
            workers.give(Box::new(move || sender.send(()).unwrap()));
            done.recv_timeout(Duration::from_secs(20)).unwrap();
            // The worker becomes idle a moment after its job is done.
            while workers.0.lock().idle.is_empty() {
                std::thread::yield_now();
            }
        }
        assert_eq!(workers.0.lock().count, 1);
        let end = Instant::now() + 20 * IDLE;
        while workers.0.lock().count > 0 {
            assert!(Instant::now() < end, "an idle worker stays");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
