//! Traces the system calls of a process and of its children with strace.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use testbed::fake::eventually;

/// A system call that has begun.
#[derive(Debug)]
pub struct Call {
    pub pid: u32,
    /// Time since the Unix epoch.
    pub at: Duration,
    pub name: String,
}

pub struct Strace {
    child: Child,
    file: PathBuf,
}

pub fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

pub fn is_there() -> bool {
    let version = Command::new("strace").arg("-V").stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

impl Strace {
    /// Attaches strace, and returns once it traces every thread of `pid`.
    pub fn attach(pid: u32, folder: &Path) -> Strace {
        let file = folder.join("strace");
        let mut command = Command::new("strace");
        // The arguments are not needed.
        command.args(["-f", "-q", "-ttt", "-s", "0", "-e", "signal=none", "-o"]).arg(&file);
        let child = command.args(["-p", &pid.to_string()]).stderr(Stdio::null()).spawn().unwrap();
        let traced =
            |status: String| status.lines().any(|line| line == format!("TracerPid:\t{}", child.id()));
        let all = || {
            let mut tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
            // A thread that has ended meanwhile has no status.
            tasks.all(|task| std::fs::read_to_string(task.path().join("status")).map_or(true, traced))
        };
        assert!(eventually(all), "strace does not trace {pid}");
        Strace { child, file }
    }

    /// Detaches, and returns the calls in the order in which they began.
    pub fn detach(mut self) -> Vec<Call> {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        self.child.wait().unwrap();
        let text = std::fs::read(&self.file).unwrap();
        String::from_utf8_lossy(&text).lines().filter_map(parse).collect()
    }
}

/// Leaves no strace behind if a test fails.
impl Drop for Strace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Parses `4711 1764197112.123456 openat(AT_FDCWD, …`. Returns `None` for lines that do not begin a call: `<... read
/// resumed>`, `+++ exited …`.
fn parse(line: &str) -> Option<Call> {
    let (pid, rest) = line.split_once(' ')?;
    let (at, rest) = rest.trim_start().split_once(' ')?;
    let (name, _) = rest.split_once('(')?;
    let named = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    let at = Duration::try_from_secs_f64(at.parse().ok()?).ok()?;
    named.then(|| Call { pid: pid.parse().unwrap_or(0), at, name: name.into() })
}

#[test]
fn a_line_of_strace_is_read() {
    let call = parse("4711 1764197112.123456 clone3({flags=CLONE_VM} <unfinished ...>").unwrap();
    assert_eq!((call.pid, call.at.as_millis(), &*call.name), (4711, 1_764_197_112_123, "clone3"));
    for line in [
        "4711 1764197112.123456 <... read resumed>\"\"..., 10) = 10",
        "4711 1764197112.123456 +++ exited with 0 +++",
        "4711 1764197112.123456 --- SIGCHLD {si_signo=SIGCHLD} ---",
    ] {
        assert!(parse(line).is_none(), "{line}");
    }
}
