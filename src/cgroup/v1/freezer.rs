//! The v1 freezer (Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst).

use std::path::Path;
use std::time::Duration;

use crate::cgroup::dir::Dir;
use crate::cgroup::{tree, walk, Dying};
use crate::error::{Error, Kind, Result};
use crate::tasks::Looks;

const STATE: &str = "freezer.state";
const LIMIT: Duration = Duration::from_secs(10);

pub(super) async fn freeze(dir: &Dir) -> Result<()> {
    tree::frozen_or(until_frozen(dir).await, || thaw(dir))
}

/// It freezes from now on: whoever is in it does not get far.
pub(super) fn begin(dir: &Dir) -> Result<()> {
    dir.write(STATE, "FROZEN")
}

/// FREEZING lasts while a task is in uninterruptible sleep, and for good where tasks hold each other up (a
/// vfork whose child is frozen first); reading the state makes the kernel look again, and letting all run for
/// a moment helps the second kind.
async fn until_frozen(dir: &Dir) -> Result<()> {
    let mut looks = Looks::new(Duration::from_micros(20), Duration::from_millis(100));
    let mut round: u32 = 0;
    begin(dir)?;
    loop {
        match dir.read(STATE)?.trim() {
            "FROZEN" => return Ok(()),
            "FREEZING" if looks.elapsed() < LIMIT => {}
            // By somebody else, for a SIGKILL.
            "THAWED" => {
                return Err(Error::new(Kind::State, format!("{:?} was thawed while it froze", dir.path())))
            }
            state => {
                return Err(Error::new(
                    Kind::Deadline,
                    format!("{:?} is {state} after {:?}", dir.path().join(STATE), looks.elapsed()),
                ))
            }
        }
        round += 1;
        if round.is_multiple_of(16) {
            thaw(dir)?;
            looks.again().await?;
            begin(dir)?;
        }
        looks.again().await?;
    }
}

pub(super) fn thaw(dir: &Dir) -> Result<()> {
    dir.write(STATE, "THAWED")
}

/// Or about to be, by its own state or that of one above it: what enters it stops. False where it is gone.
pub(super) fn is_frozen(dir: &Dir) -> Result<bool> {
    let state = dir.read_if(STATE)?;
    Ok(state.is_some_and(|state| matches!(state.trim(), "FROZEN" | "FREEZING")))
}

/// A frozen cgroup would hold the container's first process for ever.
pub(super) fn refuse_frozen(dir: &Dir) -> Result<()> {
    if is_frozen(dir)? {
        Err(tree::frozen_before(dir))
    } else {
        Ok(())
    }
}

/// Thaws it, and each below it that has frozen itself.
fn thaw_all(dir: &Dir) -> Result<()> {
    walk::each(dir, |dir| tree::unless_absent(thaw(dir)))
}

/// A frozen process does not die of SIGKILL. `root` is the mount point of the hierarchy.
///
/// Where a cgroup above it is frozen, others are in there that are to stay so: who dies goes to the root of the hierarchy
/// instead, which cannot be frozen.
pub(super) fn thaw_to_die(dir: &Dir, root: &Path, who: Dying) -> Result<()> {
    let frozen = is_frozen(dir)?;
    if !frozen && !dir.may_have_children() {
        return Ok(());
    }
    match who {
        // It may be in a cgroup below that is frozen by itself.
        Dying::One(pid) if !frozen => tree::unless_absent(tree::move_to(dir, &[pid])),
        Dying::One(pid) => tree::move_to(&Dir::open(root)?, &[pid]),
        Dying::All => {
            // Who is not frozen could freeze the others again, and a frozen process that was thawed for less than a moment
            // has not died.
            tree::kill_all(&tree::processes(dir)?)?;
            thaw_all(dir)?;
            if !is_frozen(dir)? {
                return Ok(());
            }
            let pids = tree::processes(dir)?;
            tree::kill_all(&pids)?;
            tree::move_to(&Dir::open(root)?, &pids)
        }
    }
}
