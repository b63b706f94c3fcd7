//! Task.Kill: to one process, or to all of a container.

use super::container::{Container, Slot, DEATH};
use super::lifecycle::{Life, Process};
use super::request::ProcessKey;
use super::{Exit, Sandbox};
use crate::cgroup::Dying;
use crate::error::{Error, Kind, Result};
use crate::sys::{wait, Errno};
use std::os::fd::AsFd;

impl Sandbox {
    /// `all` signals every process of the container; it means nothing for an exec.
    pub async fn kill(&self, key: &ProcessKey, signal: u32, all: bool) -> Result<()> {
        if let Some(leash) = self.making(&key.container).filter(|_| key.exec.is_none()) {
            // No other one: it may be a hook that would get it.
            let sent = number(signal)? == libc::SIGKILL && leash.signal(libc::SIGKILL);
            // It may have come through meanwhile: then the signal is for the container, unless it was.
            match (self.container(&key.container), sent) {
                (Ok(_), false) => {}
                (Ok(container), true) => {
                    return match container.kill(None, signal, all) {
                        Err(e) if e.kind() == Kind::NotFound => Ok(()),
                        again => again,
                    };
                }
                (Err(_), true) => return Ok(()),
                (Err(_), false) => {
                    let what = format!("container {}: process not created", key.container);
                    return Err(Error::new(Kind::State, what));
                }
            }
        }
        let container = self.container(&key.container)?;
        container.kill(key.exec.as_deref(), signal, all)?;
        if signal == libc::SIGKILL as u32 && key.exec.is_none() {
            self.let_die(&container).await?;
        }
        Ok(())
    }
}

impl Container {
    pub fn kill(&self, exec: Option<&str>, signal: u32, all: bool) -> Result<()> {
        let mut slot = self.lock();
        let process = slot.process(&self.id, exec)?;
        let pid = match &process.life {
            Life::Starting(_, leash) => leash.pid(),
            _ => Some(process.pid).filter(|pid| *pid != 0),
        };
        let sent = match exec {
            None if all => self.signal_all(&slot, signal),
            _ => process.signal(signal),
        };
        if signal != libc::SIGKILL as u32 {
            return sent;
        }
        match (exec, pid) {
            (None, _) => self.thaw_to_die(&mut slot)?,
            // The container stays as it is.
            (Some(_), Some(pid)) if sent.is_ok() => self.cgroup.let_die(Dying::One(pid))?,
            (Some(_), _) => {}
        }
        sent
    }

    /// SIGKILL to all of it, also to who has left the cgroup.
    pub fn kill_all(&self, slot: &Slot) -> Result<()> {
        let killed = self.cgroup.kill();
        for process in slot.own().filter(|process| process.pidfd().is_some()) {
            // It may have ended by the other one.
            let _ = process.signal(libc::SIGKILL as u32);
        }
        killed
    }

    /// It runs, and its start has failed all the same: containerd deletes it next.
    pub(super) async fn give_up(&self, exit: &Exit) {
        match self.kill(None, libc::SIGKILL as u32, false) {
            Err(e) if exit.get().is_none() => log::warn!(id = self.id.as_str(); "{e}"),
            _ if exit.within(DEATH).await.is_none() => {
                log::warn!(id = self.id.as_str(); "its first process did not end after a failed start");
            }
            _ => {}
        }
    }

    fn signal_all(&self, slot: &Slot, signal: u32) -> Result<()> {
        let init = &slot.init;
        if init.exited().is_some() {
            return Err(init.gone());
        }
        let number = number(signal)?;
        if number == libc::SIGKILL {
            return self.kill_all(slot);
        }
        let mut pids = self.cgroup.pids()?;
        if pids.is_empty() {
            return init.signal(signal);
        }
        slot.complete(&mut pids);
        for pid in pids {
            // Between the listing and the signal a pid may be gone, and that is what was wanted.
            match wait::open_pidfd(pid).and_then(|pidfd| wait::signal(pidfd.as_fd(), number)) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(Error::system(format!("kill({pid}, {number})"), errno as i32)),
            }
        }
        Ok(())
    }
}

impl Slot {
    /// The processes that were asked for.
    fn own(&self) -> impl Iterator<Item = &Process> {
        self.execs.values().chain([&self.init])
    }

    /// Adds those that run and have left the container's cgroup.
    pub fn complete(&self, pids: &mut Vec<u32>) {
        for process in self.own().filter(|process| process.is_running()) {
            if !pids.contains(&process.pid) {
                pids.push(process.pid);
            }
        }
    }
}

impl Process {
    /// Sends a signal. A process that is gone is NotFound: containerd relies on it.
    pub fn signal(&self, signal: u32) -> Result<()> {
        let unborn = || Err(Error::new(Kind::State, format!("{}: process not created", self.name)));
        match &self.life {
            Life::Added(_) => return unborn(),
            Life::Starting(pidfd, leash) => {
                let signal = number(signal)?;
                if signal == libc::SIGKILL || pidfd.is_none() {
                    let sent = leash.signal(signal);
                    if pidfd.is_none() {
                        return if sent { Ok(()) } else { unborn() };
                    }
                }
            }
            _ => {}
        }
        let pidfd = self.pidfd().ok_or_else(|| self.gone())?;
        let signal = number(signal)?;
        match wait::signal(pidfd, signal) {
            Ok(()) => Ok(()),
            Err(Errno::ESRCH) => Err(self.gone()),
            Err(errno) => {
                Err(Error::system(format!("pidfd_send_signal({}, {signal})", self.name), errno as i32))
            }
        }
    }

    fn gone(&self) -> Error {
        Error::new(Kind::NotFound, format!("{}: process already finished", self.name))
    }
}

/// 0, which only asks whether the process is there, to SIGRTMAX.
pub(super) fn number(signal: u32) -> Result<i32> {
    let number = i32::try_from(signal).ok().filter(|number| (0..=64).contains(number));
    number.ok_or_else(|| Error::new(Kind::Invalid, format!("signal {signal} does not exist")))
}
