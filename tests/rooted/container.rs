//! Makes a container from a spec with the compiler and the real launcher, and the same with runc: the probe must
//! report the same from inside.

use crate::bench::{launcher, leash, null};
use serde_json::{json, Value};
use shoal::cgroup::Entry;
use shoal::error::Result;
use shoal::launch::{CloneLauncher, ExitStatus, Launcher, Order, Waiting};
use shoal::plan::{self, Host, Plan, RootfsMount};
use shoal::spec::Spec;
use shoal::stdio::StdioFds;
use shoal::sys::seccomp::Filter;
use shoal::tasks::block_on;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{channel, Receiver};
use std::time::Duration;

pub struct Bundle {
    pub dir: tempfile::TempDir,
    pub spec: Value,
    /// The request's mounts, which only ours gets.
    pub rootfs: Vec<RootfsMount>,
    pub no_pivot_root: bool,
    pub no_new_keyring: bool,
}

/// A launched process, its console or output, and its exit.
pub struct Running {
    pub waiting: Waiting,
    pub output: std::io::PipeReader,
    pub exit: Receiver<ExitStatus>,
}

impl Bundle {
    /// Makes a root with the probe as its only program, and the spec of `ctr run`.
    pub fn new(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("rootfs");
        for name in ["etc", "proc", "sys", "dev", "run", "tmp", "home/user"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        // A link if possible: a copy is open for writing while it is made, also in a child that another test clones
        // at that moment, and cannot be executed then.
        let (probe, inside) = (env!("CARGO_BIN_EXE_probe"), root.join("probe"));
        std::fs::hard_link(probe, &inside).or_else(|_| std::fs::copy(probe, &inside).map(drop)).unwrap();
        std::fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/x\nuser:x:1000:1000::/home/user:/x\n")
            .unwrap();
        std::os::unix::fs::chown(root.join("home/user"), Some(1000), Some(1000)).unwrap();
        Bundle {
            dir,
            spec: default_spec(args),
            rootfs: Vec::new(),
            no_pivot_root: false,
            no_new_keyring: false,
        }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    pub fn plan(&self) -> Result<Plan> {
        self.plan_on(&Host::probe(Path::new("/"))?)
    }

    pub fn plan_on(&self, host: &Host) -> Result<Plan> {
        let spec = Spec::parse(&serde_json::to_vec(&self.spec).unwrap())?;
        let revealing = self.no_pivot_root.then(|| Host::revealing(Path::new("/"))).transpose()?;
        plan::create(&plan::Input {
            spec: &spec,
            host,
            id: "rooted",
            bundle: self.dir.path(),
            rootfs: &self.rootfs,
            filter: filter(&spec)?,
            cgroup_dirs: &[],
            no_pivot_root: revealing.as_deref(),
            no_new_keyring: self.no_new_keyring,
        })
    }

    pub fn exec_plan(&self, process: &Value) -> Result<Plan> {
        self.exec_plan_on(&Host::probe(Path::new("/"))?, process)
    }

    pub fn exec_plan_on(&self, host: &Host, process: &Value) -> Result<Plan> {
        let spec = Spec::parse(&serde_json::to_vec(&self.spec).unwrap())?;
        let process = shoal::spec::Process::parse(&serde_json::to_vec(process).unwrap())?;
        plan::exec(&plan::ExecInput {
            spec: &spec,
            process: &process,
            host,
            id: "rooted",
            filter: filter(&spec)?,
            no_new_keyring: self.no_new_keyring,
        })
    }

    pub fn create(&self) -> Result<Running> {
        launch(&self.plan()?, None)
    }

    pub fn create_in(&self, entry: Entry) -> Result<Running> {
        launch_in(&self.plan()?, None, entry)
    }

    /// Returns the probe's report from a container of ours.
    pub fn report(&self) -> Value {
        let text = self.create().unwrap().finish();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// Returns the same from runc, or `None`, and reports it, without runc.
    pub fn report_of_runc(&self) -> Option<Value> {
        let text = self.run_runc(&runc()?);
        Some(serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")))
    }

    /// Returns an exec's report in a container of ours.
    pub fn exec_report(&self, process: &Value) -> Value {
        let init = self.create().unwrap();
        let pidfd = init.waiting.start().unwrap();
        let text = launch(&self.exec_plan(process).unwrap(), Some(pidfd.as_fd())).unwrap().finish();
        shoal::sys::wait::signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
        init.exit.recv_timeout(Duration::from_secs(5)).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// Returns an exec's report in a container of runc's.
    pub fn exec_report_of_runc(&self, process: &Value) -> Option<Value> {
        let (runc, state) = (runc()?, tempfile::tempdir().unwrap());
        let id = self.configure_runc();
        let file = self.dir.path().join("process.json");
        std::fs::write(&file, serde_json::to_vec(process).unwrap()).unwrap();
        let call = |words: &[&str], output: Stdio| {
            let mut command = Command::new(&runc);
            command.arg("--root").arg(state.path()).args(words).current_dir(self.dir.path());
            let output = command.stdin(Stdio::null()).stdout(output).output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "runc {words:?}: {errors}");
            String::from_utf8(output.stdout).unwrap()
        };
        // Not with `call`: the container would keep its pipe for errors, and the call would wait for the end of that.
        let mut detached = Command::new(&runc);
        detached.arg("--root").arg(state.path()).args(["run", "--detach", &id]).current_dir(self.dir.path());
        detached.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(detached.status().unwrap().success(), "runc run --detach");
        let text = call(&["exec", "--process", file.to_str().unwrap(), &id], Stdio::piped());
        call(&["delete", "--force", &id], Stdio::null());
        Some(serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")))
    }

    /// Writes config.json with a cgroup of its own; returns the container's id.
    fn configure_runc(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let id = format!("rooted-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut spec = self.spec.clone();
        spec["linux"]["cgroupsPath"] = format!("/{id}").into();
        std::fs::write(self.dir.path().join("config.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
        id
    }

    pub fn run_runc(&self, runc: &Path) -> String {
        let output = self.try_runc(runc);
        assert!(output.status.success(), "runc: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs it with runc, whatever the result.
    pub fn try_runc(&self, runc: &Path) -> std::process::Output {
        let id = self.configure_runc();
        let state = tempfile::tempdir().unwrap();
        Command::new(runc)
            .arg("--root")
            .arg(state.path())
            .args(["run", "--bundle"])
            .arg(self.dir.path())
            .args(self.no_pivot_root.then_some("--no-pivot"))
            .args(self.no_new_keyring.then_some("--no-new-keyring"))
            .arg(&id)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Returns the reports of ours and, if there is a runc, of runc's, with names.
    pub fn reports(&self) -> Vec<(&'static str, Value)> {
        let mut reports = vec![("shoal", self.report())];
        reports.extend(self.report_of_runc().map(|report| ("runc", report)));
        reports
    }
}

/// Compiles the spec's profile, as for a container of the shim.
fn filter(spec: &Spec) -> Result<Option<Filter>> {
    spec.seccomp.as_ref().map(|profile| Ok(shoal::seccomp::compile(profile)?.filter)).transpose()
}

/// Returns the runc of the testbed, or of the system.
pub fn runc() -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/testbed");
    let testbed = std::env::var_os("SHOAL_TESTBED").map_or(here, PathBuf::from);
    let found =
        [testbed.join("forky/usr/sbin/runc"), testbed.join("trixie/usr/sbin/runc"), "/usr/sbin/runc".into()];
    let found = found.into_iter().find(|path| path.exists());
    if found.is_none() {
        testbed::skip::missing("no runc to compare with (tests/testbed/fetch gets one)");
    }
    found
}

pub fn launch(plan: &Plan, init: Option<std::os::fd::BorrowedFd<'_>>) -> Result<Running> {
    launch_in(plan, init, Entry::default())
}

pub fn launch_in(plan: &Plan, init: Option<std::os::fd::BorrowedFd<'_>>, entry: Entry) -> Result<Running> {
    launch_by(launcher(), plan, init, entry)
}

pub fn launch_by(
    launcher: &CloneLauncher,
    plan: &Plan,
    init: Option<std::os::fd::BorrowedFd<'_>>,
    entry: Entry,
) -> Result<Running> {
    let terminal = plan.steps.iter().any(|(step, _)| matches!(step, plan::Step::Console { .. }));
    let (output, end) = std::io::pipe().unwrap();
    let (tell, exit) = channel();
    let ends = StdioFds { stdin: null(), stdout: end.try_clone().unwrap().into(), stderr: end.into() };
    let order = Order {
        plan,
        ends: (!terminal).then_some(ends),
        entry,
        init,
        leash: &leash(),
        on_exit: Box::new(move |status| {
            let _ = tell.send(status);
        }),
    };
    let waiting = block_on(async { launcher.launch(order).await?.at_gate().await })?;
    Ok(Running { waiting, output, exit })
}

impl Running {
    /// Starts it, waits for its end, and returns its output.
    pub fn finish(self) -> String {
        let Running { mut waiting, mut output, exit } = self;
        let console = waiting.console.take();
        waiting.start().unwrap();
        let mut bytes = Vec::new();
        match console {
            // A terminal whose other side is closed gives EIO, not an end.
            Some(master) => drop(std::fs::File::from(master).read_to_end(&mut bytes)),
            None => drop(output.read_to_end(&mut bytes).unwrap()),
        }
        let status = exit.recv_timeout(Duration::from_secs(20)).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(status.code, 0, "{text}");
        text
    }
}

fn default_spec(args: &[&str]) -> Value {
    let capabilities = json!([
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FSETID",
        "CAP_FOWNER",
        "CAP_MKNOD",
        "CAP_NET_RAW",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETFCAP",
        "CAP_SETPCAP",
        "CAP_NET_BIND_SERVICE",
        "CAP_SYS_CHROOT",
        "CAP_KILL",
        "CAP_AUDIT_WRITE"
    ]);
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    json!({
        "ociVersion": "1.1.0",
        "process": {
            "user": { "uid": 0, "gid": 0, "additionalGids": [0, 10] },
            "args": args,
            "env": ["PATH=/usr/bin:/", "A=b"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1000 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs" },
        "hostname": "inside",
        "mounts": [
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/run", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "network" }
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/sys/devices/virtual/powercap", "/proc/scsi"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}
