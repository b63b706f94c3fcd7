//! Task.Delete, of an exec and of a container.

use super::container::{Container, DEATH};
use super::freezer::Freezer;
use super::lifecycle::{not_started, Life};
use super::request::{Deleted, Event};
use super::undo::Undo;
use super::Exit;
use crate::error::{Context, Error, Kind, Result};
use crate::launch::{ExitStatus, Launcher};
use crate::stdio::Io;
use std::time::Duration;

/// How long Delete waits for the last output of a stream that the shim copies, as the Go shim does.
const DRAIN: Duration = Duration::from_secs(10);

impl Container {
    pub async fn delete_exec(&self, id: &str) -> Result<Deleted> {
        let (pid, exit, io) = {
            let mut slot = self.lock();
            let process = slot.process(&self.id, Some(id))?;
            let exit = match process.life {
                Life::Stopped(exit) => exit,
                Life::Added(_) => not_started(),
                Life::Running(_) | Life::Created(_) | Life::Starting(..) => {
                    return Err(process.cannot("delete"))
                }
            };
            let (pid, io) = (process.pid, process.io.take());
            // Whoever waits for an exec that was never started waits no longer.
            process.exit.set(exit);
            slot.execs.remove(id);
            (pid, exit, io)
        };
        if let Some(io) = io {
            self.drain(&io).await;
        }
        Ok(Deleted { pid, exit })
    }

    /// Ends what is left of a stopped (or not yet started) container: processes, cgroup, streams, records.
    pub async fn delete(&self, launcher: &dyn Launcher, hooks: Duration) -> Result<Deleted> {
        let (pid, exit) = {
            let mut slot = self.lock();
            match &slot.init.life {
                Life::Stopped(_) => {}
                // Whether it is there or has just ended: its exit is awaited below.
                Life::Created(_) => drop(slot.init.signal(libc::SIGKILL as u32)),
                _ if slot.freezer == Freezer::Frozen => {
                    let name = &slot.init.name;
                    return Err(Error::new(Kind::State, format!("cannot delete {name}: it is paused")));
                }
                _ => return Err(slot.init.cannot("delete")),
            }
            if std::mem::replace(&mut slot.deleting, true) {
                return Err(Error::new(Kind::State, format!("{} is being deleted", slot.init.name)));
            }
            (slot.init.pid, slot.init.exit.clone())
        };
        let undo = Undo::new(|| self.lock().deleting = false);
        let exit = self.end(launcher, hooks, &exit).await.context(|| format!("delete {}", self.id))?;
        undo.done();
        self.emit(Event::Delete { container: self.id.clone(), pid, exit });
        Ok(Deleted { pid, exit })
    }

    async fn drain(&self, io: &Io) {
        if !io.drain(DRAIN).await {
            log::warn!(id = self.id.as_str(); "output was lost: its reader did not take it within 10 s");
        }
    }

    async fn end(&self, launcher: &dyn Launcher, hooks: Duration, exit: &Exit) -> Result<ExitStatus> {
        // Where it is empty all the same, it can be removed.
        if let Err(e) = self.cgroup.kill() {
            log::warn!(id = self.id.as_str(); "could not kill what is left: {e}");
        }
        let exit = exit.within(DEATH).await.ok_or_else(|| {
            Error::new(Kind::Deadline, "its first process did not die of SIGKILL within 10 s")
        })?;
        let io = self.lock().init.io.take();
        if let Some(io) = io {
            self.drain(&io).await;
        }
        self.cgroup.remove().await?;
        super::hooks::poststop(launcher, self, hooks).await;
        self.forget();
        Ok(exit)
    }
}
