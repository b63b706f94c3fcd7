//! The v2 freezer: `cgroup.freeze`, and `frozen` in `cgroup.events` (kernel 5.2).

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use crate::cgroup::dir::Dir;
use crate::cgroup::tree;
use crate::error::{Error, Kind, Result};

const LIMIT: Duration = Duration::from_secs(10);

pub(super) fn freeze(dir: &Dir) -> Result<()> {
    tree::frozen_or(until_frozen(dir), || thaw(dir))
}

/// The kernel tells by POLLPRI when `cgroup.events` has changed.
fn until_frozen(dir: &Dir) -> Result<()> {
    let events = dir.open_file("cgroup.events", OFlag::O_RDONLY)?;
    let start = Instant::now();
    dir.write("cgroup.freeze", "1")?;
    loop {
        let mut text = [0; 256];
        let length = nix::sys::uio::pread(&events, &mut text, 0).map_err(|errno| {
            Error::system(format!("read({:?})", dir.path().join("cgroup.events")), errno as i32)
        })?;
        if String::from_utf8_lossy(&text[..length]).lines().any(|line| line == "frozen 1") {
            return Ok(());
        }
        if dir.read("cgroup.freeze")?.trim() != "1" {
            return Err(Error::new(Kind::State, format!("{:?} was thawed while it froze", dir.path())));
        }
        let left = LIMIT.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(Error::new(
                Kind::Deadline,
                format!("{:?} is not frozen after {LIMIT:?}", dir.path()),
            ));
        }
        // A second look now and then, should the kernel's word get lost.
        let wait = left.min(Duration::from_millis(100));
        let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::system("poll(cgroup.events)", errno as i32)),
        }
    }
}

pub(super) fn thaw(dir: &Dir) -> Result<()> {
    dir.write("cgroup.freeze", "0")
}

/// By its own state or that of one above it. False where it is gone.
pub(super) fn is_frozen(dir: &Dir) -> Result<bool> {
    Ok(dir.read_if("cgroup.events")?.is_some_and(|events| events.lines().any(|line| line == "frozen 1")))
}

/// Also where that is not done yet: what enters it stops.
pub(super) fn is_freezing(dir: &Dir) -> Result<bool> {
    let own = dir.read_if("cgroup.freeze")?;
    Ok(own.is_some_and(|own| own.trim() == "1") || is_frozen(dir)?)
}

/// A frozen cgroup would hold the container's first process for ever.
pub(super) fn refuse_frozen(dir: &Dir) -> Result<()> {
    match is_freezing(dir)? {
        true => Err(tree::frozen_before(dir)),
        false => Ok(()),
    }
}
