//! One private containerd.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::image::{image, IMAGE};
use super::machine::Machine;
use super::run::{end, patience, run, until, Output};
use super::suite::{criu, rootless_tools, source, Suite};

/// Plugins that serve Kubernetes.
const CRI: &[&str] =
    &["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"];

/// Plugins that no test needs, and that would touch the host (`/opt/containerd`, `/var/run/nri`) or only cost time.
const UNUSED: &[&str] = &[
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.tracing",
    "io.containerd.nri.v1.nri",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.erofs",
    "io.containerd.snapshotter.v1.zfs",
];

/// The settings of a containerd.
pub struct Setting {
    /// The containerd namespace that `ctr` works in.
    pub namespace: String,
    /// The version of the configuration's format.
    pub version: u32,
    pub cri: bool,
    /// Runs as an ordinary user who is root of a user namespace: see `tests/testbed/rootless`.
    pub rootless: bool,
    pub imports: Vec<PathBuf>,
    /// Additional tables of the configuration.
    pub tables: String,
    pub environment: Vec<(&'static str, OsString)>,
    pub images: Vec<PathBuf>,
}

impl Setting {
    /// Returns the settings for `ctr` and dockerd. The namespace is the mark, so that cgroup paths carry it.
    pub fn plain(machine: &Machine) -> Setting {
        Setting {
            namespace: machine.mark.clone(),
            version: 2,
            cri: false,
            rootless: false,
            imports: Vec::new(),
            tables: String::new(),
            environment: Vec::new(),
            images: vec![image()],
        }
    }
}

impl Setting {
    /// The same, where criu is found.
    pub fn with_criu(machine: &Machine, suite: Suite) -> Setting {
        let mut path = suite.path();
        path.push(":");
        path.push(criu());
        Setting { environment: vec![("PATH", path)], ..Setting::plain(machine) }
    }
}

pub struct Containerd {
    pub suite: Suite,
    pub machine: Machine,
    setting: Setting,
    server: Option<Child>,
}

impl Containerd {
    /// Removes what containerd leaves of each restore: the directory of images that it has given to the shim.
    pub fn forget_checkpoints(&self) {
        for entry in std::fs::read_dir(self.dir("tmp")).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("ctrd-checkpoint") {
                std::fs::remove_dir_all(entry.path()).expect("remove what containerd left");
            }
        }
    }

    /// Starts a containerd of `suite` and imports the test image.
    pub fn start(suite: Suite) -> Containerd {
        let machine = Machine::new();
        let setting = Setting::plain(&machine);
        Containerd::start_in(suite, machine, setting)
    }

    /// The same, run by an ordinary user.
    pub fn start_rootless(suite: Suite) -> Containerd {
        let machine = Machine::new();
        let setting = Setting { rootless: true, ..Setting::plain(&machine) };
        Containerd::start_in(suite, machine, setting)
    }

    pub fn start_in(suite: Suite, machine: Machine, setting: Setting) -> Containerd {
        let mut containerd = Containerd { suite, machine, setting, server: None };
        std::fs::write(containerd.dir("config.toml"), containerd.config())
            .expect("write containerd's config");
        containerd.serve();
        for image in &containerd.setting.images {
            containerd.ctr(["images", "import", &image.to_string_lossy()]).ok();
        }
        containerd.ctr(["images", "check"]).ok();
        containerd
    }

    pub fn dir(&self, name: &str) -> PathBuf {
        self.machine.dir.join(name)
    }

    pub fn namespace(&self) -> &str {
        &self.setting.namespace
    }

    pub fn socket(&self) -> PathBuf {
        self.dir("c.sock")
    }

    /// Returns the directory that containerd makes for container `id`, as this process can open it.
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.machine.state().join("io.containerd.runtime.v2.task").join(self.namespace()).join(id)
    }

    fn config(&self) -> String {
        let level = if std::env::var_os("SHOAL_TEST_DEBUG").is_some() { "debug" } else { "info" };
        let unused: Vec<_> = UNUSED.iter().chain(CRI.iter().filter(|_| !self.setting.cri)).collect();
        format!(
            "version = {}\nimports = {:?}\nroot = {:?}\nstate = {:?}\ntemp = {:?}\ndisabled_plugins = {unused:?}\n\
             oom_score = 0\n[grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n[debug]\naddress = {:?}\n\
             level = {level:?}\n{}",
            self.setting.version,
            self.setting.imports,
            self.dir("root"),
            self.dir("state"),
            self.dir("tmp"),
            self.socket(),
            self.dir("c.sock.ttrpc"),
            self.dir("debug.sock"),
            self.setting.tables,
        )
    }

    /// Starts the server, or restarts it after `kill`; waits until it answers.
    pub fn serve(&mut self) {
        let log =
            File::options().append(true).create(true).open(self.dir("log")).expect("open containerd's log");
        let program = self.suite.program("containerd");
        let mut server = if self.setting.rootless {
            let mut server = self.machine.server(source("tests/testbed/rootless"));
            server.arg(&self.machine.dir).arg(rootless_tools()).arg(program);
            server
        } else {
            self.machine.server(program)
        };
        let server = server
            .arg("--config")
            .arg(self.dir("config.toml"))
            .env("PATH", self.suite.path())
            .envs(self.setting.environment.iter().map(|(name, value)| (name, value)))
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("clone a descriptor"))
            .stderr(log)
            .spawn()
            .expect("start containerd");
        self.server = Some(server);
        until("containerd to answer", 30, || {
            if let Some(code) = self.server.as_mut().and_then(end_now) {
                panic!("containerd ended with {code}:\n{}", self.log());
            }
            (self.socket().exists() && self.ctr(["version"]).code == 0).then_some(())
        });
    }

    /// Kills the server with SIGKILL, like a crash.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().expect("kill containerd");
            server.wait().expect("wait for containerd");
        }
    }

    pub fn pid(&self) -> u32 {
        self.server.as_ref().expect("containerd runs").id()
    }

    /// Builds a `ctr` command of this version.
    pub fn ctr_command<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let program = self.suite.program("ctr");
        let mut command =
            if self.setting.rootless { self.as_user(program) } else { self.machine.command(program) };
        command.env("CONTAINERD_ADDRESS", self.socket()).env("CONTAINERD_NAMESPACE", self.namespace());
        command.args(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        command
    }

    /// Builds a command that runs as root of the user namespace, beside containerd.
    pub fn as_user(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        let pid = std::fs::read_to_string(self.dir("rk/child_pid")).unwrap_or_default();
        command.args(["--user", "--mount", "--net", "--target", pid.trim(), "--"]).arg(program);
        command.env("SHOAL_MARK", &self.machine.mark);
        command
    }

    #[track_caller]
    pub fn ctr<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        run(&mut self.ctr_command(args))
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir("log")).unwrap_or_default()
    }

    /// Ends every task and removes every container, whatever state a failed test left them in.
    pub fn clear(&self) {
        for task in self.ctr(["tasks", "ls", "-q"]).stdout.lines() {
            self.ctr(["tasks", "resume", task]);
            self.ctr(["tasks", "kill", "-s", "KILL", "-a", task]);
            self.ctr(["tasks", "delete", "--force", task]);
        }
        for container in self.ctr(["containers", "ls", "-q"]).stdout.lines() {
            self.ctr(["containers", "delete", container]);
        }
        for line in self.ctr(["snapshots", "ls"]).stdout.lines().skip(1) {
            let mut words = line.split_whitespace();
            let (key, kind) = (words.next(), words.next_back());
            if let (Some(key), Some("Active")) = (key, kind) {
                self.ctr(["snapshots", "rm", key]);
            }
        }
    }

    /// Removes the empty cgroups `name` that are left below the namespace's own.
    pub fn remove_empty_cgroups(&self, name: &str) {
        let below = format!("*/{}/{name}*", self.namespace());
        run(Command::new("find")
            .args(["/sys/fs/cgroup", "-depth", "-type", "d", "-path", &below, "-exec", "rmdir"])
            .args(["{}", "+"]));
    }

    pub fn remove_shim_sockets(&self) {
        for entry in
            std::fs::read_dir(self.machine.inside("/run/containerd/s")).into_iter().flatten().flatten()
        {
            std::fs::remove_file(entry.path()).expect("remove a dead shim's socket");
        }
    }

    pub fn image(&self) -> &'static str {
        IMAGE
    }
}

fn end_now(child: &mut Child) -> Option<i32> {
    child.try_wait().expect("wait for containerd").map(|status| status.code().unwrap_or(-1))
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Some(server) = self.server.as_mut() {
            // SIGTERM first, so that containerd closes its database properly. The machine kills what stays.
            let _ = Command::new("kill").arg(server.id().to_string()).status();
            if end(server, patience(5)).is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> =
                log.lines().filter(|line| !line.contains("loading plugin")).rev().take(40).collect();
            eprintln!("--- end of containerd's log ({}):", self.suite.name());
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}
