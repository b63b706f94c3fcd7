//! The test images, made of the host's busybox and a few lines of C if they do not exist yet.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use super::suite::{source, testbed_dir};

pub const IMAGE: &str = "shoal.test/busybox:latest";

/// The image that holds a pod's namespaces if the runtime needs a process for that.
pub const PAUSE: &str = "shoal.test/pause:latest";

/// Returns the image as a tar for `ctr images import` and `docker load`.
pub fn image() -> PathBuf {
    static TAR: OnceLock<PathBuf> = OnceLock::new();
    TAR.get_or_init(|| made("image.tar", &[])).clone()
}

pub fn pause_image() -> PathBuf {
    static TAR: OnceLock<PathBuf> = OnceLock::new();
    TAR.get_or_init(|| made("pause.tar", &["--pause"])).clone()
}

fn made(name: &str, flags: &[&str]) -> PathBuf {
    let (script, tar) = (source("tests/testbed/image"), testbed_dir().join(name));
    // Made again if the script has changed. In the test VM the directory is read-only, and the host has made the
    // image.
    let made = modified(&tar);
    if made.is_none() || made < modified(&script) {
        std::fs::create_dir_all(testbed_dir()).expect("create the testbed's folder");
        let status = Command::new(script).args(flags).arg(&tar).status().expect("run tests/testbed/image");
        assert!(status.success(), "tests/testbed/image failed");
    }
    tar
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|data| data.modified()).ok()
}
