//! The v1 freezer (Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst).

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::cgroup::dir::Dir;
use crate::cgroup::tree;
use crate::error::{Error, Kind, Result};

const STATE: &str = "freezer.state";
const LIMIT: Duration = Duration::from_secs(10);

pub(super) fn freeze(dir: &Dir) -> Result<()> {
    tree::frozen_or(until_frozen(dir), || thaw(dir))
}

/// FREEZING lasts while a task is in uninterruptible sleep, and for good where tasks hold each other up (a
/// vfork whose child is frozen first); reading the state makes the kernel look again, and letting all run for
/// a moment helps the second kind.
fn until_frozen(dir: &Dir) -> Result<()> {
    let start = Instant::now();
    let mut round: u32 = 0;
    let mut pause = Duration::from_micros(20);
    dir.write(STATE, "FROZEN")?;
    loop {
        match dir.read(STATE)?.trim() {
            "FROZEN" => return Ok(()),
            "FREEZING" if start.elapsed() < LIMIT => {}
            // By somebody else, for a SIGKILL.
            "THAWED" => {
                return Err(Error::new(Kind::State, format!("{:?} was thawed while it froze", dir.path())))
            }
            state => {
                return Err(Error::new(
                    Kind::Deadline,
                    format!("{:?} is {state} after {:?}", dir.path().join(STATE), start.elapsed()),
                ))
            }
        }
        round += 1;
        if round.is_multiple_of(25) {
            thaw(dir)?;
            sleep(Duration::from_millis(1));
            dir.write(STATE, "FROZEN")?;
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

pub(super) fn thaw(dir: &Dir) -> Result<()> {
    dir.write(STATE, "THAWED")
}

/// A frozen cgroup would hold the container's first process for ever.
pub(super) fn refuse_frozen(dir: &Dir) -> Result<()> {
    match dir.read_if(STATE)?.as_deref().map(str::trim) {
        Some("FROZEN" | "FREEZING") => Err(Error::new(
            Kind::State,
            format!("linux.cgroupsPath: the cgroup {:?} was there, and is frozen", dir.path()),
        )),
        _ => Ok(()),
    }
}
