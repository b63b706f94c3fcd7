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

/// Starts freezing: from now on processes in it do not get far.
pub(super) fn begin(dir: &Dir) -> Result<()> {
    dir.write(STATE, "FROZEN")
}

/// FREEZING lasts while a task is in uninterruptible sleep, and for good if tasks block each other (a vfork whose child
/// is frozen first). Reading the state makes the kernel check again, and letting everything run for a moment helps in
/// the second case.
async fn until_frozen(dir: &Dir) -> Result<()> {
    let mut looks = Looks::new(Duration::from_micros(20), Duration::from_millis(100));
    let mut round: u32 = 0;
    begin(dir)?;
    loop {
        match dir.read(STATE)?.trim() {
            "FROZEN" => return Ok(()),
            "FREEZING" if looks.elapsed() < LIMIT => {}
            // Another request thawed it, for a SIGKILL.
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

/// Whether it is frozen or about to be, by its own state or that of a cgroup above it: a process that enters it stops.
/// False if it is gone.
pub(super) fn is_frozen(dir: &Dir) -> Result<bool> {
    let state = dir.read_if(STATE)?;
    Ok(state.is_some_and(|state| matches!(state.trim(), "FROZEN" | "FREEZING")))
}

/// Refuses a frozen cgroup, which would hold the container's first process for ever.
pub(super) fn refuse_frozen(dir: &Dir) -> Result<()> {
    if is_frozen(dir)? {
        Err(tree::frozen_before(dir))
    } else {
        Ok(())
    }
}

/// Thaws it, and each cgroup below it that has been frozen separately.
fn thaw_all(dir: &Dir) -> Result<()> {
    walk::each(dir, |dir| tree::unless_absent(thaw(dir)))
}

/// Lets killed processes die: a frozen process does not die of SIGKILL. `root` is the hierarchy's mount point.
///
/// If a cgroup above it is frozen, other processes there must stay frozen: the dying ones move to the root of the
/// hierarchy instead, which cannot be frozen.
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
            // A process that is not frozen could freeze the others again, and one that was thawed only for an instant
            // has not died yet.
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
