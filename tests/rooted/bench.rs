//! Shared by the tests here: the launcher, hand-made plans, and the check of what is left behind.

use shoal::cgroup::Entry;
use shoal::error::Result;
use shoal::launch::{
    CloneLauncher, ExitStatus, Launched, Launcher, Leash, Order, Reaper, Strangers, Waiting,
};
use shoal::plan::{Plan, Step};
use shoal::stdio::StdioFds;
use shoal::tasks::block_on;
use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{channel, Receiver};
use std::sync::OnceLock;
use std::time::Duration;

/// Returns a leash long enough for anything here.
pub fn leash() -> Leash {
    Leash::lasting(Duration::from_secs(60))
}

/// Returns the launcher of this process. Strangers are left alone: tests run other programs too.
pub fn launcher() -> &'static CloneLauncher {
    static LAUNCHER: OnceLock<CloneLauncher> = OnceLock::new();
    LAUNCHER.get_or_init(|| CloneLauncher::new(Reaper::start(Strangers::Leave).unwrap()).unwrap())
}

/// Returns whether a test can run, and reports it if not.
pub fn rooted(test: &str) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let root =
        status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"));
    if !root {
        testbed::skip::missing(&format!("{test} needs root"));
    }
    // A shell's background job ignores SIGINT, and runc passes on to the container what it ignores.
    // SAFETY: the default action is no code of this process.
    unsafe { nix::sys::signal::signal(nix::sys::signal::SIGINT, nix::sys::signal::SigHandler::SigDfl) }
        .unwrap();
    root
}

pub fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

pub const NAMESPACES: u64 =
    (libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS) as u64;

/// Plans a program in new namespaces on the host's root.
pub fn program(argv: &[&str], between: Vec<Step>) -> Plan {
    let mut steps = vec![Step::MakeSlave];
    steps.extend(between);
    steps.extend(run(argv));
    plan(NAMESPACES, steps)
}

/// Returns the last steps of every plan.
pub fn run(argv: &[&str]) -> Vec<Step> {
    let name = c(argv[0]);
    let candidates = if argv[0].contains('/') {
        vec![name.clone()]
    } else {
        ["/usr/local/bin", "/usr/bin", "/bin"].iter().map(|dir| c(&format!("{dir}/{}", argv[0]))).collect()
    };
    vec![
        Step::Umask(0o22),
        Step::Stdio { uid: 0 },
        Step::FindProgram { name, candidates },
        Step::Bare,
        Step::SetSid,
        Step::Gate,
        Step::Exec {
            argv: argv.iter().map(|a| c(a)).collect(),
            envp: vec![c("PATH=/usr/bin:/bin"), c("A=1")],
        },
    ]
}

pub fn plan(clone_flags: u64, steps: Vec<Step>) -> Plan {
    Plan { clone_flags, steps: steps.into_iter().map(|step| (step, "".into())).collect(), ..Plan::default() }
}

/// A process at its gate, with its output and its exit.
#[derive(Debug)]
pub struct Process {
    pub waiting: Waiting,
    pub output: std::io::PipeReader,
    pub exit: Receiver<ExitStatus>,
}

pub fn null() -> OwnedFd {
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap().into()
}

pub fn launch(plan: &Plan) -> Result<Process> {
    launch_with(plan, None, &mut |_, _| Ok(()))
}

pub fn launch_with(
    plan: &Plan,
    init: Option<std::os::fd::BorrowedFd<'_>>,
    hooks: &mut (dyn FnMut(u32, std::os::fd::BorrowedFd<'_>) -> Result<()> + Send),
) -> Result<Process> {
    let (output, end) = std::io::pipe().unwrap();
    let (tell, exit) = channel();
    let ends = StdioFds { stdin: null(), stdout: end.try_clone().unwrap().into(), stderr: end.into() };
    let order = Order {
        plan,
        ends: Some(ends),
        entry: Entry::default(),
        init,
        leash: &leash(),
        on_exit: Box::new(move |status| {
            let _ = tell.send(status);
        }),
    };
    let waiting = block_on(async {
        match launcher().launch(order).await? {
            Launched::AtHooks(process) => {
                let ran = hooks(process.pid, process.pidfd.as_fd());
                process.go_on(ran).await
            }
            Launched::Waiting(waiting) => Ok(waiting),
        }
    })?;
    Ok(Process { waiting, output, exit })
}

impl Process {
    /// Starts it, and returns its output and its exit code.
    pub fn finish(self) -> (String, u32) {
        let Process { waiting, mut output, exit } = self;
        waiting.start().unwrap();
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        (text, exit.recv_timeout(Duration::from_secs(20)).unwrap().code)
    }
}

/// Returns true in a process that runs only this test, so that no others come and go; otherwise runs that process.
pub fn alone(test: &str) -> bool {
    if std::env::var_os("SHOAL_TEST_ALONE").is_some() {
        return true;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env("SHOAL_TEST_ALONE", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
    false
}

/// Counts the descriptors of this process, and its children.
pub fn left_behind() -> (usize, usize) {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut children = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let list = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children += list.split_whitespace().count();
    }
    (fds, children)
}

/// Waits until the condition holds, or fails the test.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("not in 10 s: {what}");
}

pub fn exists(path: &str) -> bool {
    Path::new(path).exists()
}
