//! What a container hears of its processes: exits, and kills for want of memory.

use super::life::Input;
use super::{Container, NEWS};
use crate::cgroup::oom::Happened;
use crate::error::Result;
use crate::launch::{ExitStatus, OnExit};
use crate::sandbox::Exit;
use std::sync::Arc;

impl Container {
    /// The reaper's news, in its order. `whose` tells the process from a later one with the same id.
    fn exited(&self, exec: Option<&str>, whose: &Exit, exit: ExitStatus) {
        let mut late = Vec::new();
        {
            let mut state = self.lock();
            if state.facts(exec).is_none_or(|facts| !facts.exit.is(whose)) {
                return;
            }
            let input = Input::Exited { who: exec.map(Into::into), exit };
            let _ = self.act(&mut state, &mut late, NEWS, exec, input); // it is never refused
        }
        self.finish(late);
    }

    /// What its OOM watch says.
    pub(super) fn hear_oom(&self, happened: Result<Happened>) {
        match happened {
            Ok(Happened::Kills(_)) => self.hear(Input::OomKill),
            // The cgroup is gone, and its last news with it.
            Ok(Happened::Gone { changed: true }) => self.hear(Input::OomGone),
            Ok(Happened::Gone { changed: false }) => {}
            Err(e) => log::warn!(container = self.id.as_str(); "no more OOM events: {e}"),
        }
    }

    /// What the reaper calls with the exit of a process: the watch thread tells it to the container, if that is still there.
    pub(super) fn on_exit(self: &Arc<Self>, exec: Option<String>, exit: Exit) -> OnExit {
        let (queue, container) = (Arc::clone(self.world.watch.queue()), Arc::downgrade(self));
        Box::new(move |status| {
            queue.push(move || {
                if let Some(container) = container.upgrade() {
                    container.exited(exec.as_deref(), &exit, status);
                }
            });
        })
    }
}
