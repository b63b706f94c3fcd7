//! A FUSE rootfs, mounted by a helper program that is called as containerd's Go package `mount` calls it
//! (core/mount/mount_linux.go).
//!
//! The helper leaves the filesystem's server behind, as a process of the host. In a mount namespace of the container's it
//! would keep the filesystem alive, and with it itself. So the helper mounts on the host, the container's process gets a
//! copy, and the host's mount is removed. The server then ends with the container's last process.

use super::Container;
use crate::cgroup::Entry;
use crate::error::{Context, Result};
use crate::launch::hooks::{self, Run};
use crate::launch::{after, Leash};
use crate::plan::{self, HookPlace};
use crate::spec::Hook;
use std::time::Duration;

/// If the shim itself has no PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long the host's mount may take to go: the server may have stopped answering. containerd unmounts it otherwise,
/// with the bundle.
const OFF: Duration = Duration::from_secs(2);

/// Has the rootfs on the host while `launch` is at work, if a helper mounts it.
pub(super) async fn during<T>(
    container: &Container,
    leash: &Leash,
    launch: impl Future<Output = Result<T>>,
) -> Result<T> {
    let Some((mount, helper)) = plan::by_helper(&container.rootfs) else { return launch.await };
    let target = plan::mountpoint(&container.bundle);
    let path = std::env::var("PATH").ok().filter(|path| !path.is_empty()).unwrap_or_else(|| PATH.into());
    let mut args = vec![helper.program.to_owned(), mount.source.clone(), target.display().to_string()];
    for option in mount.options.iter().filter(|word| !word.starts_with(plan::OF_MANAGER)) {
        args.extend(["-o".to_owned(), option.clone()]);
    }
    args.extend(["-t".to_owned(), helper.fstype.to_owned()]);
    let hook = Hook { path: helper.program.into(), args, env: vec![format!("PATH={path}")], timeout: None };
    let plan = plan::hook(&hook, HookPlace::Host { bundle: &container.bundle })?;
    let run = Run { plan: &plan, entry: Entry::default(), init: None, timeout: None, state: b"" };
    let ran = hooks::run(&*container.world.launcher, leash, run).await;
    let done = match ran.context(|| format!("rootfs[0].type: {}", helper.program)) {
        Ok(()) => launch.await,
        Err(e) => Err(e),
    };
    if let Err(e) = container.world.paths.unmount(&target, after(OFF)).await {
        log::warn!(container = container.id.as_str(); "the FUSE rootfs is still mounted on the host: {e}");
    }
    done
}
