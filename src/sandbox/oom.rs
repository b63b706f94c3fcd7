//! What the container hears of the kernel's OOM killer.

use super::container::Container;
use super::request::Event;

/// The exit of a process that was killed: 128 + SIGKILL.
pub(super) const KILLED: u32 = 137;

impl Container {
    pub fn oom_killed(&self) {
        self.emit(Event::Oom { container: self.id.clone() });
    }

    /// The cgroup is gone, and its last news with it. The OOM killer it was where the first process was killed: that
    /// may be known already, or come next.
    pub fn perhaps_oom_killed(&self) {
        let mut slot = self.lock();
        match slot.init.exited() {
            None => slot.oom_suspected = true,
            Some(status) if status.code == KILLED => self.oom_killed(),
            Some(_) => {}
        }
    }
}
