//! Task.Update: changes the limits of an existing container.

use super::life::Refused;
use super::{Container, State, Verb};
use crate::error::{Context, Error, Kind, Result};
use crate::sandbox::undo::Undo;
use crate::spec::resources::Resources;
use crate::tasks::Looks;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long an update waits for earlier ones: systemd has half of this for one.
const UPDATE: Duration = Duration::from_secs(60);

/// The queue of updates; the first one is in progress.
#[derive(Default)]
pub(super) struct Updates {
    last: u64,
    queue: VecDeque<u64>,
}

impl Updates {
    fn enter(&mut self) -> u64 {
        self.last += 1;
        self.queue.push_back(self.last);
        self.last
    }
}

impl Container {
    /// Applies updates one after the other and without the state lock, since systemd may take its time. An update whose
    /// `deadline` has passed is not begun.
    pub async fn update(&self, resources: &Resources, deadline: Option<Instant>) -> Result<()> {
        let mine = self.lock().updates.enter();
        let _over = Undo::new(|| self.lock().updates.queue.retain(|number| *number != mine));
        let mut looks = Looks::new(Duration::from_millis(1), Duration::from_millis(20));
        loop {
            {
                let state = self.lock();
                self.can_update(&state)?;
                if state.updates.queue.front() == Some(&mine) {
                    break;
                }
            }
            if looks.elapsed() > UPDATE || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                let what = format!("update {}: another update is still at work", self.id);
                return Err(Error::new(Kind::Deadline, what));
            }
            looks.again().await?;
        }
        self.cgroup.update(resources).await.context(|| format!("update {}", self.id))
    }

    fn can_update(&self, state: &State) -> Result<()> {
        let init = &state.life.init;
        let refused = match init.is_being_deleted() {
            true => Refused::BeingDeleted,
            false if init.exited().is_some() => Refused::Is(init.word()),
            false => return Ok(()),
        };
        Err(self.refusal(refused, Verb::of("update"), None))
    }

    /// For Delete, after which no update begins: a request to systemd could hit the next unit with the same name.
    pub(super) async fn updates_are_over(&self) -> Result<()> {
        let mut looks = Looks::new(Duration::from_millis(1), Duration::from_millis(20));
        while !self.lock().updates.queue.is_empty() {
            if looks.elapsed() > UPDATE {
                return Err(Error::new(Kind::Deadline, "an update is still at work"));
            }
            looks.again().await?;
        }
        Ok(())
    }
}
