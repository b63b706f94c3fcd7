//! Task.Pause and Task.Resume, and the effect of a pod's pause on its containers.

use super::life::{Freezer, Input, Own};
use super::{Container, Verb};
use crate::error::{Context, Result};
use crate::sandbox::undo::Undo;

const PAUSE: Verb = Verb::of("pause");
const RESUME: Verb = Verb::of("resume");

impl Container {
    pub async fn pause(&self) -> Result<()> {
        self.refuse_during_checkpoint().context(|| format!("pause {}", self.id))?;
        {
            let mut state = self.lock();
            let frozen = self.cgroup.frozen()?;
            self.act(&mut state, &mut Vec::new(), PAUSE, None, Input::Pause { frozen })?;
        }
        let undo = Undo::new(|| self.hear(Input::PauseOver { frozen: false }));
        let frozen = self.cgroup.freeze().await.context(|| format!("pause {}", self.id));
        undo.done();
        let over = self.on(PAUSE, None, Input::PauseOver { frozen: frozen.is_ok() });
        over.and(frozen)
    }

    pub fn resume(&self) -> Result<()> {
        self.refuse_during_checkpoint().context(|| format!("resume {}", self.id))?;
        let mut late = Vec::new();
        let resumed = {
            let mut state = self.lock();
            let frozen = self.cgroup.frozen()?;
            let thawed = self.act(&mut state, &mut late, RESUME, None, Input::Resume { frozen });
            thawed.and_then(|_| {
                let frozen = self.cgroup.frozen()?;
                self.act(&mut state, &mut late, RESUME, None, Input::Thawed { frozen })
            })
        };
        self.finish(late);
        resumed.map(drop)
    }

    /// The pause of the pod begins.
    pub fn pod_pauses(&self) {
        self.hear(Input::PodPauses);
    }

    /// The pod is paused, and this container with it.
    pub fn pod_paused(&self) {
        self.hear(Input::PodPaused);
    }

    /// The pause of the pod is over.
    pub fn pod_resumed(&self) {
        self.hear(Input::PodResumed);
    }

    /// The container was thawed to die, which is not a resume.
    pub fn pod_thaw_to_die(&self) {
        self.hear(Input::PodLetDie);
    }

    /// Whether it has, or will have, processes that can be frozen.
    pub fn lives(&self) -> bool {
        self.lock().life.init.exited().is_none()
    }

    /// Undoes the container's share of a pod's pause, unless it is paused by itself.
    pub fn thaw_unless_paused(&self) -> Result<()> {
        let freezer: Freezer = self.lock().life.freezer;
        match freezer.own() {
            Own::Thawed => self.cgroup.thaw(),
            Own::Freezing | Own::Frozen => Ok(()),
        }
    }
}
