//! The v2 freezer: `cgroup.freeze`, and `frozen` in `cgroup.events` (Linux 5.2).

use std::time::Duration;

use crate::cgroup::dir::Dir;
use crate::cgroup::tree;
use crate::error::{Error, Kind, Result};
use crate::tasks::Looks;

const LIMIT: Duration = Duration::from_secs(10);

pub(super) async fn freeze(dir: &Dir) -> Result<()> {
    tree::frozen_or(until_frozen(dir).await, || thaw(dir))
}

/// Starts freezing: from now on processes in it do not get far.
pub(super) fn begin(dir: &Dir) -> Result<()> {
    dir.write("cgroup.freeze", "1")
}

async fn until_frozen(dir: &Dir) -> Result<()> {
    let mut looks = Looks::new(Duration::from_micros(20), Duration::from_millis(100));
    begin(dir)?;
    loop {
        if dir.read("cgroup.events")?.lines().any(|line| line == "frozen 1") {
            return Ok(());
        }
        if dir.read("cgroup.freeze")?.trim() != "1" {
            return Err(Error::new(Kind::State, format!("{:?} was thawed while it froze", dir.path())));
        }
        if looks.elapsed() > LIMIT {
            return Err(Error::new(
                Kind::Deadline,
                format!("{:?} is not frozen after {LIMIT:?}", dir.path()),
            ));
        }
        looks.again().await?;
    }
}

pub(super) fn thaw(dir: &Dir) -> Result<()> {
    dir.write("cgroup.freeze", "0")
}

/// Whether it is frozen, by its own state or that of a cgroup above it. False if it is gone.
pub(super) fn is_frozen(dir: &Dir) -> Result<bool> {
    Ok(dir.read_if("cgroup.events")?.is_some_and(|events| events.lines().any(|line| line == "frozen 1")))
}

/// Whether it is frozen or about to be: a process that enters it stops.
pub(super) fn is_freezing(dir: &Dir) -> Result<bool> {
    let own = dir.read_if("cgroup.freeze")?;
    Ok(own.is_some_and(|own| own.trim() == "1") || is_frozen(dir)?)
}

/// Refuses a frozen cgroup, which would hold the container's first process for ever.
pub(super) fn refuse_frozen(dir: &Dir) -> Result<()> {
    if is_freezing(dir)? {
        Err(tree::frozen_before(dir))
    } else {
        Ok(())
    }
}
