//! Creates a user namespace with given maps. Joining a user namespace, and idmapping a mount, take one by descriptor.
//!
//! A user namespace exists only with a process in it until its maps are written, so one is created for that moment. A
//! container's new user namespace is made this way too, and then joined like any other.

use super::ended::GONE;
use super::reaper::Reaper;
use super::waiting::end;
use crate::error::{Context, Result};
use crate::init;
use crate::plan::step::Mappings;
use crate::plan::Field;
use crate::sys::clone::clone;
use crate::sys::fd::{self, AsFd, OwnedFd};
use crate::sys::{signal, socket};
use crate::tasks::block_on;
use std::convert::Infallible;
use std::fs::File;
use std::io::Write;

/// `field` is the source of the maps: `linux.uidMappings` or `mounts[3].uidMappings`.
pub(super) fn namespace(reaper: &Reaper, mappings: &Mappings, field: &Field) -> Result<OwnedFd> {
    let (ours, theirs) = socket::pair().context(|| "socketpair(SOCK_SEQPACKET)")?;
    let theirs = fd::above_standard(theirs).context(|| "fcntl(F_DUPFD_CLOEXEC)")?;
    let mask = signal::block_all().context(|| "sigprocmask")?;
    let make = || {
        clone(libc::CLONE_NEWUSER as u64, None, |forked| -> Infallible { init::hold(forked, theirs.as_fd()) })
            .context(|| "clone3(user)")
            .context(|| field.to_string())
    };
    let holder = reaper.spawn(make, Box::new(|_| {}));
    signal::restore(mask).context(|| "sigprocmask")?;
    let holder = holder?;
    let process = holder.child.pid;
    let write = |name: &str, field: &str, lines: String| {
        let written = File::options().write(true).open(format!("/proc/{process}/{name}"));
        // One call: the kernel accepts a map only once.
        let written = written.and_then(|mut file| file.write_all(lines.as_bytes()));
        written.context(|| format!("write({name}, {:?})", lines.trim_end())).context(|| field.to_owned())
    };
    let gids = field.replace("uidMappings", "gidMappings");
    let made = write("uid_map", field, mappings.uid_map())
        .and_then(|()| write("gid_map", &gids, mappings.gid_map()))
        .and_then(|()| File::open(format!("/proc/{process}/ns/user")).context(|| "open(ns/user)"));
    drop(ours);
    // The socket's end of file may take a while: a process that another thread is just cloning has a copy of our end.
    block_on(end(holder.child.pidfd.as_fd(), Some(&holder.ended), GONE));
    made.map(OwnedFd::from)
}
