//! Task.Pause and Task.Resume.

use super::container::{Container, Slot};
use super::lifecycle::Life;
use super::request::Event;
use super::undo::Undo;
use crate::cgroup::Dying;
use crate::error::{Context, Error, Kind, Result};
use crate::spec::Ns;

/// What the container's cgroup is, as far as requests are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freezer {
    Thawed,
    /// A pause is at work, without the slot: a process in an uninterruptible sleep can make it long.
    Freezing,
    /// By a pause of its own, which the end of its pod's does not end. Whether its processes stand still is for the kernel
    /// to say: others may write to the cgroup, the container among them.
    Frozen,
}

impl Slot {
    fn can_pause(&self) -> Result<()> {
        match self.init.is_running() && self.ending.is_none() {
            true => Ok(()),
            false => Err(self.init.cannot("pause")),
        }
    }
}

impl Container {
    /// What is asked of its processes now can be done.
    pub fn thawed(&self, slot: &Slot, verb: &str) -> Result<()> {
        let refuse =
            |what: &str| Err(Error::new(Kind::State, format!("cannot {verb} {}: {what}", slot.init.name)));
        match slot.freezer {
            Freezer::Freezing => refuse("it is being paused"),
            _ if slot.frozen_with_pod => refuse("its sandbox is paused"),
            _ if self.cgroup.frozen()? => refuse("it is paused"),
            _ => Ok(()),
        }
    }

    /// A pause that is at work is not told before it is done.
    pub fn stands_still(&self, slot: &Slot) -> bool {
        slot.freezer != Freezer::Freezing
            && self.cgroup.frozen().unwrap_or(slot.freezer == Freezer::Frozen || slot.frozen_with_pod)
    }

    pub async fn pause(&self) -> Result<()> {
        {
            let mut slot = self.lock();
            self.thawed(&slot, "pause")?;
            slot.can_pause()?;
            slot.freezer = Freezer::Freezing;
        }
        let undo = Undo::new(|| self.lock().freezer = Freezer::Thawed);
        let frozen = self.cgroup.freeze().await.context(|| format!("pause {}", self.id));
        undo.done();
        let mut slot = self.lock();
        let wanted = std::mem::replace(&mut slot.freezer, Freezer::Thawed) == Freezer::Freezing;
        let still = match wanted {
            true => slot.can_pause(),
            false => {
                Err(Error::new(Kind::State, format!("{} was killed while it was paused", slot.init.name)))
            }
        };
        if let Err(e) = still {
            // The kill has thawed it, maybe before it was frozen.
            if let Err(e) = frozen.and_then(|()| self.cgroup.thaw()) {
                log::debug!(id = self.id.as_str(); "the freezer of a container that ends: {e}");
            }
            return Err(e);
        }
        frozen?;
        slot.freezer = Freezer::Frozen;
        self.emit(Event::Paused { container: self.id.clone() });
        Ok(())
    }

    pub fn resume(&self) -> Result<()> {
        let mut slot = self.lock();
        if slot.frozen_with_pod {
            let what = format!("cannot resume container {}: its sandbox is paused", self.id);
            return Err(Error::new(Kind::State, what));
        }
        let held = match slot.freezer {
            Freezer::Frozen => true,
            Freezer::Freezing => false,
            // By somebody else.
            Freezer::Thawed => slot.init.is_running() && self.cgroup.frozen()?,
        };
        if !held {
            return Err(match slot.init.life {
                Life::Running(_) => {
                    Error::new(Kind::State, format!("cannot resume container {}: it is not paused", self.id))
                }
                _ => slot.init.cannot("resume"),
            });
        }
        self.cgroup.thaw().context(|| format!("resume {}", self.id))?;
        slot.freezer = Freezer::Thawed;
        if self.cgroup.frozen()? {
            let what = format!("cannot resume container {}: a cgroup above its own is frozen", self.id);
            return Err(Error::new(Kind::State, what));
        }
        self.emit(Event::Resumed { container: self.id.clone() });
        Ok(())
    }

    /// After a SIGKILL for its first process: a frozen v1 cgroup would keep it for ever. A pause that is at work fails.
    pub fn thaw_to_die(&self, slot: &mut Slot) -> Result<()> {
        // With the first process of a pid namespace all of it ends.
        let who = match self.spec.namespaces.pid {
            Ns::New => Dying::All,
            _ => Dying::One(slot.init.pid),
        };
        let thawed = match slot.freezer {
            Freezer::Thawed => Ok(()),
            Freezer::Freezing | Freezer::Frozen => self.cgroup.thaw(),
        };
        // The others of a paused pod are to stay as they are: see `let_die` of a pod.
        let thawed = thawed.and_then(|()| match slot.frozen_with_pod {
            true => Ok(()),
            false => self.cgroup.let_die(who),
        });
        // Where this failed, the pause tries it again.
        if thawed.is_ok() || slot.freezer == Freezer::Freezing {
            slot.freezer = Freezer::Thawed;
        }
        thawed
    }

    /// Its pod's pause begins.
    pub fn freeze_with_pod(&self) {
        self.lock().frozen_with_pod = true;
    }

    /// Its pod is paused, and it with it, unless it is paused by itself, ends, or does not run yet.
    pub fn tell_frozen_with_pod(&self) {
        let mut slot = self.lock();
        if slot.frozen_with_pod && slot.freezer == Freezer::Thawed && slot.can_pause().is_ok() {
            slot.told_frozen = true;
            self.emit(Event::Paused { container: self.id.clone() });
        }
    }

    /// Its pod's pause is over.
    pub fn thaw_with_pod(&self) {
        let mut slot = self.lock();
        slot.frozen_with_pod = false;
        if std::mem::take(&mut slot.told_frozen) && slot.can_pause().is_ok() {
            self.emit(Event::Resumed { container: self.id.clone() });
        }
    }

    /// It was thawed to die, which is no resume.
    pub fn dies_with_pod_frozen(&self) {
        let mut slot = self.lock();
        (slot.frozen_with_pod, slot.told_frozen) = (false, false);
    }

    /// It has, or will have, processes that a freezer can hold.
    pub fn lives(&self) -> bool {
        self.lock().init.exited().is_none()
    }

    /// After a pause of its pod, container by container.
    pub fn thaw_unless_paused(&self) -> Result<()> {
        let own = self.lock().freezer;
        match own {
            Freezer::Thawed => self.cgroup.thaw(),
            Freezer::Freezing | Freezer::Frozen => Ok(()),
        }
    }
}
