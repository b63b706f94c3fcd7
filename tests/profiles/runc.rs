//! The same cases with runc: what it runs must run here too.

use crate::case::{config, process, Case, Kind, Outcome};
use crate::program::Program;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use testbed::fake::eventually;

/// runc itself waits forever under some profiles.
const LIMIT: Duration = Duration::from_secs(2);

pub struct Runc {
    runc: PathBuf,
    dir: tempfile::TempDir,
    program: Program,
    count: u32,
}

impl Runc {
    /// Returns `None` if there is no runc.
    pub fn new() -> Option<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/testbed");
        let testbed = std::env::var_os("SHOAL_TESTBED").map_or(here, PathBuf::from);
        let found = ["forky/usr/sbin/runc", "trixie/usr/sbin/runc"].map(|path| testbed.join(path));
        let Some(runc) = found.into_iter().chain(["/usr/sbin/runc".into()]).find(|path| path.exists()) else {
            testbed::skip::missing("no runc to compare with (tests/testbed/fetch gets one)");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let program = Program::install(&dir.path().join("rootfs"));
        Some(Runc { runc, dir, program, count: 0 })
    }

    pub fn run(&mut self, case: &Case, kind: Kind) -> Outcome {
        self.count += 1;
        // The directory's name is unique.
        let of = self.dir.path().file_name().unwrap().to_string_lossy().replace('.', "");
        let id = format!("profiles-{of}-{}", self.count);
        let words: &[&str] = if kind == Kind::Container { &["/program"] } else { &["/program", "sleep"] };
        let mut config = config(case, "rootfs", words);
        config["linux"]["cgroupsPath"] = format!("/{id}").into();
        std::fs::write(self.dir.path().join("config.json"), config.to_string()).unwrap();
        self.program.was_executed();
        let outcome = match kind {
            Kind::Container => self.outcome(&["run", &id]),
            // Without a terminal, in both cases: it would need one of its own here.
            Kind::Exec { .. } => {
                let file = self.dir.path().join("process.json");
                std::fs::write(&file, process(case, &["/program"], false).to_string()).unwrap();
                match self.outcome(&["run", "--detach", &id]) {
                    Outcome::Ran(0, _) => self.outcome(&["exec", "--process", file.to_str().unwrap(), &id]),
                    _ => Outcome::NoContainer,
                }
            }
        };
        self.call(&["delete", "--force", &id]);
        remove(&id);
        outcome
    }

    fn outcome(&self, words: &[&str]) -> Outcome {
        let status = self.call(words);
        match (status, self.program.was_executed()) {
            (None, _) => Outcome::Hung("runc"),
            (Some(status), true) => Outcome::Ran(status, String::new()),
            (Some(status), false) => Outcome::Refused(format!("exit status {status}")),
        }
    }

    /// Returns its exit status, or `None` if it was killed for taking too long.
    fn call(&self, words: &[&str]) -> Option<u32> {
        let mut command = Command::new(&self.runc);
        command.arg("--root").arg(self.dir.path().join("state")).args(words).current_dir(self.dir.path());
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let until = Instant::now() + LIMIT;
        while Instant::now() < until {
            if let Some(status) = child.try_wait().unwrap() {
                return Some(status.code().unwrap_or(255) as u32);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        None
    }
}

/// Ends what runc has given up, and removes what it forgets: its cgroup in the unified hierarchy beside those of v1.
fn remove(id: &str) {
    let cgroups: Vec<PathBuf> =
        std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path().join(id)).collect();
    eventually(|| {
        let left: Vec<&PathBuf> = cgroups.iter().filter(|path| path.exists()).collect();
        for path in &left {
            let processes = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            for pid in processes.lines().filter_map(|line| line.parse().ok()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            let _ = std::fs::remove_dir(path);
        }
        left.is_empty()
    });
}
