//! The test image: made from the host's busybox when it is not there yet.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use super::suite::{source, testbed_dir};

pub const IMAGE: &str = "shoal.test/busybox:latest";

/// The image as a tar that `ctr images import` and `docker load` take.
pub fn image() -> PathBuf {
    static IMAGE_TAR: OnceLock<PathBuf> = OnceLock::new();
    IMAGE_TAR
        .get_or_init(|| {
            let (script, tar) = (source("tests/testbed/image"), testbed_dir().join("image.tar"));
            // Made again when the script changed. In the test VM the folder is read-only, and the host has made it.
            let made = modified(&tar);
            if made.is_none() || made < modified(&script) {
                std::fs::create_dir_all(testbed_dir()).expect("create the testbed's folder");
                let status = Command::new(script).arg(&tar).status().expect("run tests/testbed/image");
                assert!(status.success(), "tests/testbed/image failed");
            }
            tar
        })
        .clone()
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|data| data.modified()).ok()
}
