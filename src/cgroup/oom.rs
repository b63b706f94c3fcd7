//! Out-of-memory kills, reported through a pollable descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::dir::Dir;
use super::stats::MemoryEvents;
use crate::error::{Context, Error, Result};

/// What a readable watch reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// The number of kills since the last call; 0 if the descriptor was readable for another reason.
    Kills(u64),
    /// The cgroup and its counters have been removed, as systemd does as soon as it is empty: nothing more will come.
    /// `changed`: there was a memory event, maybe a kill, that can no longer be read.
    Gone { changed: bool },
}

/// Becomes readable when the kernel has killed in this cgroup or below.
#[derive(Debug)]
pub struct Watch {
    dir: Dir,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// An eventfd on memory.oom_control (Documentation/admin-guide/cgroup-v1/memory.rst, section 10), and the number of
    /// its signals since that file disappeared.
    V1(EventFd, u64),
    /// An inotify watch on memory.events, and its oom_kill so far.
    V2(Inotify, u64),
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.source {
            Source::V1(event, _) => event.as_fd(),
            Source::V2(inotify, _) => inotify.as_fd(),
        }
    }
}

const EVENTS: &str = "memory.events";
const CONTROL: &str = "memory.oom_control";

impl Watch {
    pub(super) fn v1(dir: &Dir) -> Result<Watch> {
        use std::os::fd::AsRawFd;
        let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .context(|| "eventfd()")?;
        let control: OwnedFd = dir.open_file(CONTROL, OFlag::O_RDONLY)?;
        let numbers = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
        dir.write("cgroup.event_control", &numbers)?;
        Ok(Watch { dir: Dir::open(dir.path())?, source: Source::V1(event, 0) })
    }

    pub(super) fn v2(dir: &Dir) -> Result<Watch> {
        let path = dir.path().join(EVENTS);
        let inotify =
            Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).context(|| "inotify_init1()")?;
        inotify
            .add_watch(&path, AddWatchFlags::IN_MODIFY)
            .context(|| format!("inotify_add_watch({path:?}, IN_MODIFY)"))?;
        let so_far = MemoryEvents::parse(&dir.read(EVENTS)?).oom_kill;
        Ok(Watch { dir: Dir::open(dir.path())?, source: Source::V2(inotify, so_far) })
    }

    /// Call when the descriptor is readable; never blocks.
    pub fn take(&mut self) -> Result<Happened> {
        match &mut self.source {
            Source::V1(event, late) => {
                let signals = match event.read() {
                    Ok(n) => n,
                    Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Happened::Kills(0)),
                    Err(errno) => return Err(Error::system("read(eventfd)", errno as i32)),
                };
                // The kernel signals before it picks a victim: the file's oom_kill may not include it yet, so the
                // signal itself is counted. Removing the cgroup also signals once, after the file has gone: any further
                // signal was a kill.
                if self.dir.read_if(CONTROL)?.is_some() {
                    return Ok(Happened::Kills(signals));
                }
                let before = late.saturating_sub(1);
                *late += signals;
                Ok(Happened::Kills(late.saturating_sub(1) - before))
            }
            Source::V2(inotify, so_far) => {
                let changed = match inotify.read_events() {
                    Ok(events) => events.iter().any(|event| event.mask.contains(AddWatchFlags::IN_MODIFY)),
                    Err(Errno::EAGAIN | Errno::EINTR) => false,
                    Err(errno) => return Err(Error::system("read(inotify)", errno as i32)),
                };
                let Some(text) = self.dir.read_if(EVENTS)? else { return Ok(Happened::Gone { changed }) };
                let now = MemoryEvents::parse(&text).oom_kill;
                let kills = now.saturating_sub(*so_far);
                *so_far = now;
                Ok(Happened::Kills(kills))
            }
        }
    }
}
