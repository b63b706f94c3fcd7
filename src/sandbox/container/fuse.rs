//! A rootfs of FUSE, mounted by a helper as containerd's Go package `mount` calls it (core/mount/mount_linux.go).
//!
//! The helper leaves the server of the filesystem behind, a process of the host's. In a mount namespace of the container's it
//! would keep that alive, and with it what it serves. So it mounts on the host, before the launch: the container's process
//! has a copy of that then, and the host's is taken away again. The server ends with the container's last process.

use super::Container;
use crate::cgroup::Entry;
use crate::error::{Context, Error, Kind, Result};
use crate::launch::hooks::{self, Run};
use crate::launch::Leash;
use crate::plan::{self, HookPlace};
use crate::sandbox::undo::Undo;
use crate::spec::Hook;
use crate::sys::mount;
use crate::sys::Errno;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where the shim itself has none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is returned takes the host's mount away.
pub(super) async fn mount<'a>(
    container: &'a Container,
    leash: &Leash,
) -> Result<Option<Undo<impl FnOnce() + 'a>>> {
    let Some((mount, helper)) = plan::by_helper(&container.rootfs) else { return Ok(None) };
    let target = plan::mountpoint(&container.bundle);
    let path = std::env::var_os("PATH").filter(|path| !path.is_empty()).unwrap_or_else(|| PATH.into());
    let program = find(helper.program, &path)?;
    let mut args = vec![helper.program.to_owned(), mount.source.clone(), target.display().to_string()];
    for option in mount.options.iter().filter(|word| !word.starts_with(plan::OF_MANAGER)) {
        args.extend(["-o".to_owned(), option.clone()]);
    }
    args.extend(["-t".to_owned(), helper.fstype.to_owned()]);
    let env = vec![format!("PATH={}", path.display())];
    let hook = Hook { path: program, args, env, timeout: None };
    let undo = Undo::new(move || {
        unmount(&target).unwrap_or_else(|e| log::warn!(container = container.id.as_str(); "could not unmount the FUSE rootfs on the host: {e}"));
    });
    let launcher = &*container.world.launcher;
    let plan = plan::hook(&hook, HookPlace::Host { bundle: &container.bundle })?;
    let run = Run { plan: &plan, entry: Entry::default(), init: None, timeout: None, state: b"" };
    let ran = hooks::run(launcher, leash, run).await;
    ran.context(|| format!("rootfs[0] {:?}", hook.path))?;
    Ok(Some(undo))
}

fn find(program: &str, path: &OsStr) -> Result<PathBuf> {
    let runs = |file: &PathBuf| {
        file.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    };
    let found = std::env::split_paths(path).map(|folder| folder.join(program)).find(runs);
    found.ok_or_else(|| {
        Error::new(Kind::Unsupported, format!("rootfs[0].type: there is no {program} in {}", path.display()))
    })
}

/// Ok where the helper has mounted nothing.
fn unmount(target: &Path) -> Result<()> {
    let what = || format!("umount2({target:?}, MNT_DETACH)");
    let path = CString::new(target.as_os_str().as_bytes());
    let path = path.map_err(|e| Error::caused_by(Kind::Bug, what(), e))?;
    match mount::unmount(&path, libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno).context(what),
    }
}
