//! The unpacked programs of a Debian suite.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The version of containerd, by the suite that ships it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// containerd 1.7, runc 1.1, docker 26.
    Trixie,
    /// containerd 2.1, runc 1.3, docker 28.
    Forky,
}

impl Suite {
    pub fn name(self) -> &'static str {
        match self {
            Suite::Trixie => "trixie",
            Suite::Forky => "forky",
        }
    }

    /// Returns the suite's directory, which is fetched first if it does not exist.
    pub fn dir(self) -> PathBuf {
        static READY: [OnceLock<()>; 2] = [OnceLock::new(), OnceLock::new()];
        READY[self as usize].get_or_init(|| fetch(self.name()));
        testbed_dir().join(self.name())
    }

    pub fn program(self, name: &str) -> PathBuf {
        let dir = self.dir();
        ["usr/bin", "usr/sbin"]
            .iter()
            .map(|bin| dir.join(bin).join(name))
            .find(|path| path.exists())
            .unwrap_or_else(|| panic!("{} has no {name}", dir.display()))
    }

    /// Returns `PATH` for a server: our shim first, then the suite's own runc and shim, then the system.
    pub fn path(self) -> OsString {
        let dir = self.dir();
        let mut path = OsString::from(shim().parent().expect("the shim is a file"));
        for part in [dir.join("usr/bin"), dir.join("usr/sbin")] {
            path.push(":");
            path.push(part);
        }
        path.push(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        path
    }
}

/// The directory of criu and of the programs that it runs: in no `PATH` but that of a server that is to have it.
pub fn criu() -> PathBuf {
    static READY: OnceLock<()> = OnceLock::new();
    READY.get_or_init(|| fetch("criu"));
    testbed_dir().join("criu/usr/sbin")
}

/// Returns the directory of what starts a server as an ordinary user, which is fetched first if it does not exist.
pub fn rootless_tools() -> PathBuf {
    static READY: OnceLock<()> = OnceLock::new();
    READY.get_or_init(|| fetch("rootless"));
    testbed_dir().join("rootless")
}

fn fetch(what: &str) {
    let mut command = Command::new(source("tests/testbed/fetch"));
    let status = command.arg(what).stdout(std::process::Stdio::null()).status();
    assert!(status.expect("run tests/testbed/fetch").success(), "tests/testbed/fetch {what} failed");
}

/// Returns a file of the source tree.
pub fn source(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("it is two folders down");
    root.join(path)
}

pub fn testbed_dir() -> PathBuf {
    std::env::var_os("SHOAL_TESTBED").map_or_else(|| source("target/testbed"), PathBuf::from)
}

/// Returns the shim under test: that of this build, or the file that `SHOAL_SHIM` names.
pub fn shim() -> PathBuf {
    std::env::var_os("SHOAL_SHIM").map_or_else(|| built("containerd-shim-shoal-v2"), PathBuf::from)
}

/// Returns a program of this build. Cargo reports its path only to shoal's own tests, so it is looked up where cargo
/// puts it: above the directory of the test.
pub fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test is a file");
    test.ancestors().nth(2).expect("it is two folders down").join(name)
}
