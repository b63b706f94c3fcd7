//! Task.Update: the limits of a container that is there.

use super::life::Refused;
use super::{Container, Verb};
use crate::error::{Context, Error, Kind, Result};
use crate::sandbox::undo::Undo;
use crate::spec::resources::Resources;
use crate::tasks::Looks;
use std::time::Duration;

/// How long an update waits for the one before it: systemd has half of this for one.
const UPDATE: Duration = Duration::from_secs(60);

impl Container {
    /// One after the other, and without the lock: systemd may take its time.
    pub async fn update(&self, resources: &Resources) -> Result<()> {
        let mut looks = Looks::new(Duration::from_millis(1), Duration::from_millis(20));
        loop {
            {
                let mut state = self.lock();
                if state.life.init.exited().is_some() {
                    let word = state.life.init.word();
                    return Err(self.refusal(Refused::Is(word), Verb::of("update"), None));
                }
                if !std::mem::replace(&mut state.updating, true) {
                    break;
                }
            }
            if looks.elapsed() > UPDATE {
                let what = format!("update {}: another update is still at work", self.id);
                return Err(Error::new(Kind::Deadline, what));
            }
            looks.again().await?;
        }
        let _done = Undo::new(|| self.lock().updating = false);
        self.cgroup.update(resources).await.context(|| format!("update {}", self.id))
    }
}
