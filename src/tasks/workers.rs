//! The threads that answer requests: as many as requests are at work at once, and none when there are none.
//!
//! The worker that became idle last gets the next job, so that those that a busy moment needed once stay idle and
//! end. Their stacks, of which a Create touches a hundred KiB and more, go with them.

use crate::sync::{Mutex, MutexGuard};
use crate::sys::process;
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant};

/// So many requests are at work at once that wait for nothing; the others wait in the queue.
const WORKERS_MAX: usize = 64;
/// So many more that may take long in the kernel, as a Create on slow storage. None of them has the place of one that does
/// not. (What waits for a process, for systemd or for containerd is parked, and has no worker.)
const LONG_MAX: usize = 512;
/// An idle worker ends after this. Within a container's start the requests are milliseconds apart, and to start
/// a thread takes tens of microseconds.
const IDLE: Duration = Duration::from_millis(500);
/// A Create with a default spec touches under 200 KiB in a debug build, and only touched pages count.
const STACK: usize = 512 << 10;

pub type Job = Box<dyn FnOnce() + Send>;

#[derive(Clone, Default)]
pub struct Workers(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    count: usize,
    /// The last one is the one that became idle last.
    idle: Vec<Arc<Seat>>,
    /// Only while all that there may be are at work.
    queue: VecDeque<Job>,
    /// How many workers are at a long job, and counted there.
    long: usize,
    /// Only while all that there may be are at work.
    long_queue: VecDeque<Job>,
    /// What is no longer parked.
    woken: VecDeque<Job>,
    /// A worker was called for those, and is still to come.
    called: bool,
}

/// Where an idle worker gets its next job.
struct Seat {
    thread: Thread,
    job: Mutex<Option<Job>>,
}

impl Workers {
    /// Never blocks. A job must not panic.
    pub fn give(&self, job: Job) {
        let mut state = self.0.lock();
        if let Some(seat) = state.idle.pop() {
            *seat.job.lock() = Some(job);
            seat.thread.unpark();
            return;
        }
        state.queue.push_back(job);
        if !self.hire(state, |workers| workers.work()) {
            // With no worker at all nobody would ever look into the queue.
            let mut state = self.0.lock();
            let alone = if state.count == 0 { state.queue.pop_front() } else { None };
            drop(state);
            if let Some(job) = alone {
                job();
            }
        }
    }

    /// One more worker; false: there are as many as there may be, or no thread is to be had.
    fn hire(&self, mut state: MutexGuard<'_, State>, work: fn(&Workers)) -> bool {
        if state.count >= WORKERS_MAX {
            return false;
        }
        state.count += 1;
        drop(state);
        let workers = self.clone();
        let thread = std::thread::Builder::new().name("rpc".into()).stack_size(STACK);
        if let Err(e) = thread.spawn(move || work(&workers)) {
            log::warn!("start a thread for requests: {e}");
            self.0.lock().count -= 1;
            return false;
        }
        true
    }

    /// Never blocks: the job may wait.
    pub fn give_long(&self, job: Job) {
        let workers = self.clone();
        self.give(Box::new(move || workers.long(job)));
    }

    /// Never blocks, and never does the job itself, since whoever wakes may hold a lock that it needs: the job may wait, and
    /// has done so. Many come at once, and most have only a look and wait again: so a worker takes one, and calls another
    /// worker for the next.
    pub(super) fn give_woken(&self, job: Job) {
        let mut state = self.0.lock();
        state.woken.push_back(job);
        self.call(state);
    }

    /// Unless one is on its way already.
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
        // Whoever is done with its own work looks for these too.
        if !self.hire(state, come_and_stay) {
            self.0.lock().called = false;
        }
    }

    /// By the one that was called.
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

    /// By a worker, within its job: this part of it may wait. It is done now, or once another one is done.
    pub fn long(&self, job: Job) {
        let mut state = self.0.lock();
        if state.long >= LONG_MAX {
            return state.long_queue.push_back(job);
        }
        state.long += 1;
        // Whoever does a job for lack of workers is none.
        let counted = state.count > 0;
        state.count -= usize::from(counted);
        if state.queue.is_empty() {
            drop(state);
        } else {
            // Its place is free for somebody else.
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

    /// The next job; None: nothing came, and the worker is not counted any more.
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
                // It was taken from the list a moment ago: its job is there, or about to be.
                drop(state);
                std::thread::yield_now();
                continue;
            };
            state.idle.remove(at);
            state.count -= 1;
            if state.count == 0 {
                drop(state);
                // A quiet moment: what the busy one before it needed is given back.
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
            // It sits down again a moment after its job is done.
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
