//! A shim that stays responsive: whatever holds a request up (a container, a filesystem, a hook or a logging
//! program), the request is answered in time, all others are served meanwhile, and nothing is left. Needs root.
//!
//! `SHOAL_SHIM=FILE` names another shim than the one of this build. One test runs at a time, since times are
//! measured.

mod abandoned;
mod ask;
mod files;
mod freezer;
mod fuse;
mod hear;
mod hooks;
mod left;
mod limits;
mod loggers;
mod named;
mod networks;
mod passwd;
mod pods;
mod refreeze;
mod stopped;
mod streams;
mod systemd;
mod world;

use nix::mount::{mount, MsFlags};
use nix::sched::{unshare, CloneFlags};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use testbed::skip;

/// Scales a time limit to this machine.
fn slow(time: Duration) -> Duration {
    time * std::env::var("SHOAL_TEST_SLOW").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1)
}

/// Runs a test in a mount namespace of its own, whose /etc has the operator's file with these settings. The shims
/// that it starts inherit it.
fn apart(settings: &str, test: impl FnOnce() + Send) {
    static ALONE: Mutex<()> = Mutex::new(());
    if !nix::unistd::geteuid().is_root() {
        return skip::missing("root");
    }
    if !std::path::Path::new("/dev/fuse").exists() {
        return skip::missing("/dev/fuse");
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let layer = tempfile::tempdir().unwrap();
    let run = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let [upper, work] = ["upper", "work"].map(|name| layer.path().join(name));
        std::fs::create_dir_all(upper.join("shoal")).unwrap();
        std::fs::create_dir(&work).unwrap();
        std::fs::write(upper.join("shoal/config.toml"), settings).unwrap();
        let options = format!("lowerdir=/etc,upperdir={},workdir={}", upper.display(), work.display());
        mount(Some("etc"), "/etc", Some("overlay"), MsFlags::empty(), Some(options.as_str())).unwrap();
        test();
    };
    let done = std::thread::scope(|scope| {
        let name = std::thread::current().name().unwrap_or("test").to_owned();
        std::thread::Builder::new().name(name).spawn_scoped(scope, run).unwrap().join()
    });
    if let Err(panic) = done {
        std::panic::resume_unwind(panic);
    }
}
