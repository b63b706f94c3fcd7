//! Opens what a plan lets the shim open before the clone: nothing that follows a path of the host.

use super::{mapping, Reaper};
use crate::error::{Context, Error, Kind, Result};
use crate::plan::{Field, Open};
use crate::sys::fd::{self, BorrowedFd, OwnedFd};
use crate::sys::netlink;

pub(super) fn all(
    opens: &[(Open, Field)],
    init: Option<BorrowedFd<'_>>,
    reaper: &Reaper,
) -> Result<Vec<OwnedFd>> {
    opens.iter().map(|(open, field)| one(open, field, init, reaper)).collect()
}

fn one(open: &Open, field: &Field, init: Option<BorrowedFd<'_>>, reaper: &Reaper) -> Result<OwnedFd> {
    let opened = match open {
        Open::UserNamespace(mappings) => mapping::namespace(reaper, mappings, field)?,
        Open::Descriptor(path) => fd::open(path, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY, 0)
            .context(|| format!("{field} {path:?}"))?,
        Open::HostNetwork => netlink::route().context(|| format!("{field}: socket(AF_NETLINK)"))?,
        Open::Init => {
            let init =
                init.ok_or_else(|| Error::new(Kind::Bug, "the plan needs the container's first process"))?;
            init.try_clone_to_owned().context(|| "dup(pidfd)")?
        }
    };
    fd::above_standard(opened).context(|| "fcntl(F_DUPFD_CLOEXEC)")
}
