//! The one thread that hears of exits and of OOM kills, and takes them to whom they are about.
//!
//! The reaper only queues an exit and goes on; here the state of a container or pod may be waited for. An OOM watch lasts
//! from Create until its container is dropped.

use crate::cgroup::oom::{self, Happened};
use crate::error::{Context, Result};
use crate::sync::{Mutex, MutexGuard};
use crate::sys::event::Event;
use crate::sys::memory::unforked_stack;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use std::any::Any;
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Weak};

/// Small: the thread only locks states and writes events.
const STACK: usize = 128 * 1024;

/// Tells an exit.
type Tell = Box<dyn FnOnce() + Send>;

/// A container, as far as this thread knows it.
type Watched = Weak<dyn Any + Send + Sync>;

/// Whom OOM kills are told.
struct Listener {
    container: Watched,
    watch: oom::Watch,
    tell: Box<dyn Fn(Result<Happened>) + Send>,
}

enum News {
    Exit(Tell),
    Oom(Listener),
    Deleted(Watched),
}

pub(super) struct Queue {
    news: Mutex<VecDeque<News>>,
    wake: Event,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, VecDeque<News>> {
        self.news.lock()
    }

    /// Calls `tell` on the thread, behind what was queued before.
    pub fn push(&self, tell: impl FnOnce() + Send + 'static) {
        self.add(News::Exit(Box::new(tell)));
    }

    fn add(&self, news: News) {
        self.lock().push_back(news);
        self.wake.raise();
    }
}

pub(super) struct Watch(Arc<Queue>);

impl Watch {
    pub fn start() -> Result<Self> {
        let wake = Event::new().context(|| "eventfd()")?;
        let queue = Arc::new(Queue { news: Mutex::default(), wake });
        let shared = Arc::clone(&queue);
        std::thread::Builder::new()
            .name("watch".into())
            .stack_size(STACK)
            .spawn(move || run(&shared))
            .context(|| "start the watch thread")?;
        Ok(Watch(queue))
    }

    pub fn queue(&self) -> &Arc<Queue> {
        &self.0
    }

    /// Calls `tell` with each OOM kill in the container's cgroup, until the container is dropped.
    pub fn oom<T: Any + Send + Sync>(
        &self,
        container: &Arc<T>,
        watch: oom::Watch,
        tell: fn(&T, Result<Happened>),
    ) {
        let (weak, container) = (Arc::downgrade(container), watched(container));
        let tell = Box::new(move |happened| {
            if let Some(container) = weak.upgrade() {
                tell(&container, happened);
            }
        });
        self.0.add(News::Oom(Listener { container, watch, tell }));
    }

    /// Nothing more is heard of it: its watch is given up now, and not with the next news of another one.
    pub fn forget<T: Any + Send + Sync>(&self, container: &Arc<T>) {
        self.0.add(News::Deleted(watched(container)));
    }
}

fn watched<T: Any + Send + Sync>(container: &Arc<T>) -> Watched {
    let container: Watched = Arc::<T>::downgrade(container);
    container
}

fn run(queue: &Queue) {
    let _own = unforked_stack();
    let mut listeners: Vec<Listener> = Vec::new();
    loop {
        let mut fds = vec![PollFd::new(queue.wake.as_fd(), PollFlags::POLLIN)];
        fds.extend(listeners.iter().map(|one| PollFd::new(one.watch.as_fd(), PollFlags::POLLIN)));
        // EINTR is as good as a wake-up: everything below looks for itself.
        let _ = poll(&mut fds, PollTimeout::NONE);
        let fired: Vec<bool> = fds[1..].iter().map(|fd| fd.any().unwrap_or(false)).collect();
        queue.wake.clear();
        // OOM kills first: the exits that they cause are queued after them.
        let mut fired = fired.into_iter();
        listeners.retain_mut(|one| !fired.next().unwrap_or(false) || heard(one));
        let news = std::mem::take(&mut *queue.lock());
        for news in news {
            match news {
                News::Exit(tell) => {
                    // This thread is the only one: no defect may end it.
                    if catch_unwind(AssertUnwindSafe(tell)).is_err() {
                        log::error!("a defect: an exit was not told");
                    }
                }
                News::Oom(listener) => listeners.push(listener),
                News::Deleted(container) => {
                    listeners.retain(|one| !std::ptr::addr_eq(one.container.as_ptr(), container.as_ptr()));
                }
            }
        }
        // A container that is gone takes its watch with it.
        listeners.retain(|one| one.container.strong_count() > 0);
    }
}

/// Tells what has happened; false: nothing more will.
fn heard(Listener { watch, tell, .. }: &mut Listener) -> bool {
    match watch.take() {
        Ok(Happened::Kills(0)) => true,
        happened => {
            let goes_on = matches!(happened, Ok(Happened::Kills(_)));
            tell(happened);
            goes_on
        }
    }
}
