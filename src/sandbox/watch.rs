//! The one thread that hears of exits and of OOM kills, and takes them to their containers.
//!
//! The reaper only queues an exit and goes on; here the container's state may be waited for. An OOM watch lasts
//! from Create until its container is dropped.

use super::container::Container;
use super::pod::InitExit;
use super::Exit;
use crate::cgroup::oom::{self, Happened};
use crate::error::{Context, Result};
use crate::launch::ExitStatus;
use crate::sync::{Mutex, MutexGuard};
use crate::sys::event::Event;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Weak};

/// Small: the thread only locks states and writes events.
const STACK: usize = 128 * 1024;

/// Whose exit it is.
pub(super) struct ExitOf {
    pub container: Weak<Container>,
    pub exec: Option<String>,
    /// Of the process itself: an id may be used again.
    pub exit: Exit,
}

enum News {
    Exit(ExitOf, ExitStatus),
    Oom(Weak<Container>, oom::Watch),
    Deleted(Weak<Container>),
    /// The end of a pod's first process.
    Pod(Arc<InitExit>, ExitStatus),
}

pub(super) struct Queue {
    news: Mutex<VecDeque<News>>,
    wake: Event,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, VecDeque<News>> {
        self.news.lock()
    }

    pub fn push(&self, of: ExitOf, status: ExitStatus) {
        self.tell(News::Exit(of, status));
    }

    pub fn push_pod(&self, of: Arc<InitExit>, status: ExitStatus) {
        self.tell(News::Pod(of, status));
    }

    fn tell(&self, news: News) {
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

    /// Nothing more is heard of it: its watch is given up now, and not with the next news of another one.
    pub fn forget(&self, container: Weak<Container>) {
        self.0.tell(News::Deleted(container));
    }

    pub fn oom(&self, container: Weak<Container>, watch: oom::Watch) {
        self.0.tell(News::Oom(container, watch));
    }
}

fn run(queue: &Queue) {
    let mut ooms: Vec<(Weak<Container>, oom::Watch)> = Vec::new();
    loop {
        let mut fds = vec![PollFd::new(queue.wake.as_fd(), PollFlags::POLLIN)];
        fds.extend(ooms.iter().map(|(_, watch)| PollFd::new(watch.as_fd(), PollFlags::POLLIN)));
        // EINTR is as good as a wake-up: everything below looks for itself.
        let _ = poll(&mut fds, PollTimeout::NONE);
        let fired: Vec<bool> = fds[1..].iter().map(|fd| fd.any().unwrap_or(false)).collect();
        queue.wake.clear();
        // OOM kills first: their exits are in the queue behind them.
        let mut fired = fired.into_iter();
        ooms.retain_mut(|(container, watch)| {
            let fired = fired.next().unwrap_or(false);
            let Some(container) = container.upgrade() else { return false };
            if !fired {
                return true;
            }
            match watch.take() {
                Ok(Happened::Kills(0)) => true,
                Ok(Happened::Kills(_)) => {
                    container.oom_killed();
                    true
                }
                Ok(Happened::Gone { changed }) => {
                    if changed {
                        container.perhaps_oom_killed();
                    }
                    false
                }
                Err(e) => {
                    log::warn!(id = container.id.as_str(); "no more OOM events: {e}");
                    false
                }
            }
        });
        let news = std::mem::take(&mut *queue.lock());
        for news in news {
            match news {
                News::Exit(of, status) => {
                    if let Some(container) = of.container.upgrade() {
                        // This thread is the only one: no defect may end it.
                        let told =
                            AssertUnwindSafe(|| container.exited(of.exec.as_deref(), &of.exit, status));
                        if catch_unwind(told).is_err() {
                            log::error!(id = container.id.as_str(); "a defect: an exit was not told");
                        }
                    }
                }
                News::Pod(of, status) => {
                    if catch_unwind(AssertUnwindSafe(|| of.ended(status))).is_err() {
                        log::error!("a defect: the exit of a pod's first process was not told");
                    }
                }
                News::Oom(container, watch) => ooms.push((container, watch)),
                News::Deleted(container) => ooms.retain(|(known, _)| !known.ptr_eq(&container)),
            }
        }
        // A container that is gone takes its watch with it.
        ooms.retain(|(container, _)| container.strong_count() > 0);
    }
}
