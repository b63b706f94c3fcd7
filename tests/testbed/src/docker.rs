//! One private dockerd with its own containerd of the same suite. No bridge and no packet filter: the host's network
//! is untouched, so containers have the `none` or the `host` network.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::case::Runtime;
use super::containerd::{Containerd, Setting};
use super::image::{image, IMAGE};
use super::leak::Snapshot;
use super::machine::Machine;
use super::run::{end, patience, run, until, Output};
use super::suite::Suite;

pub struct Docker {
    server: Child,
    pub containerd: Containerd,
}

/// The ids that containers have on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// The same as inside.
    Plain,
    /// `userns-remap`: 300000 and the 65535 after it.
    Remapped,
}

/// Assigns subordinate id ranges, in the machine's own /etc.
fn subordinate_ids(containerd: &Containerd) {
    let dir = |name: &str| containerd.dir(name).to_string_lossy().into_owned();
    for name in ["etc", "etc-work"] {
        std::fs::create_dir(dir(name)).expect("make a folder");
    }
    let add = |name: &str, line: &str| {
        let there = std::fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default();
        std::fs::write(containerd.dir("etc").join(name), there + line).expect("write a file");
    };
    add("passwd", "remapped:x:64999:64999::/:/bin/false\n");
    add("group", "remapped:x:64999:\n");
    add("subuid", "remapped:300000:65536\n");
    add("subgid", "remapped:300000:65536\n");
    let options = format!("lowerdir=/etc,upperdir={},workdir={}", dir("etc"), dir("etc-work"));
    let mut mount = containerd.machine.command("mount");
    run(mount.args(["-t", "overlay", "etc", "-o", &options, "/etc"])).ok();
}

impl Docker {
    pub fn start(suite: Suite, ids: Ids) -> Docker {
        let machine = Machine::new();
        let setting = Setting::with_criu(&machine, suite);
        let containerd = Containerd::start_in(suite, machine, setting);
        let mark = &containerd.machine.mark;
        let dir = |name: &str| containerd.dir(name).to_string_lossy().into_owned();
        let mut config = serde_json::json!({
            "data-root": dir("docker"),
            "exec-root": dir("exec"),
            "pidfile": dir("docker.pid"),
            "hosts": [format!("unix://{}", dir("d.sock"))],
            "containerd": dir("c.sock"),
            "containerd-namespace": mark,
            "containerd-plugins-namespace": format!("{mark}-plugins"),
            "cgroup-parent": format!("/{mark}"),
            "storage-driver": "overlay2",
            "bridge": "none",
            "iptables": false,
            "ip6tables": false,
            "ip-forward": false,
            "userland-proxy": false,
            // docker checkpoint
            "experimental": true,
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "runtimes": { "shoal": { "runtimeType": Runtime::Shoal.name() } },
        });
        if ids == Ids::Remapped {
            subordinate_ids(&containerd);
            config["userns-remap"] = "remapped".into();
        }
        let file = containerd.dir("daemon.json");
        std::fs::write(&file, config.to_string()).expect("write dockerd's config");
        let log = File::create(containerd.dir("docker.log")).expect("make dockerd's log");
        let server = containerd
            .machine
            .server(suite.program("dockerd"))
            .arg("--config-file")
            .arg(&file)
            .env("PATH", suite.path())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("clone a descriptor"))
            .stderr(log)
            .spawn()
            .expect("start dockerd");
        let mut docker = Docker { server, containerd };
        until("dockerd to answer", 60, || {
            if let Some(status) = docker.server.try_wait().expect("wait for dockerd") {
                panic!("dockerd ended with {status}:\n{}", docker.log());
            }
            (docker.docker(["version"]).code == 0).then_some(())
        });
        docker.docker(["load", "-i", &image().to_string_lossy()]).ok();
        docker
    }

    pub fn command<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.containerd.machine.command(self.containerd.suite.program("docker"));
        let host = format!("unix://{}", self.containerd.dir("d.sock").display());
        command.env("DOCKER_HOST", host).env("DOCKER_CONFIG", self.containerd.dir("docker-config"));
        command.args(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        command
    }

    #[track_caller]
    pub fn docker<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        run(&mut self.command(args))
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.containerd.dir("docker.log")).unwrap_or_default()
    }

    fn clear(&self) {
        for id in self.docker(["ps", "-aq"]).stdout.lines() {
            self.docker(["unpause", id]);
            self.docker(["rm", "-f", "-v", id]);
        }
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.server.id().to_string()).status();
        let _ = end(&mut self.server, patience(10)); // the machine kills what stays
    }
}

pub struct DockerCase<'a> {
    pub docker: &'a Docker,
    pub runtime: Runtime,
    pub name: String,
}

/// Runs `body`, and fails if it fails or leaves anything behind.
pub fn docker_case(suite: Suite, ids: Ids, runtime: Runtime, name: &str, body: fn(&DockerCase<'_>)) {
    if !runtime.selected() {
        println!("left out by SHOAL_TEST_RUNTIMES");
        return;
    }
    runtime.again_for_the_control(|| attempt(suite, ids, runtime, name, body));
}

fn attempt(suite: Suite, ids: Ids, runtime: Runtime, name: &str, body: fn(&DockerCase<'_>)) {
    let docker = shared(suite, ids);
    let before = Snapshot::take(&docker.containerd.machine);
    let logs = (docker.log().len(), docker.containerd.log().len());
    let show = || {
        let (docker_log, log) = (docker.log(), docker.containerd.log());
        eprintln!("--- dockerd's log of this case:\n{}---", docker_log.get(logs.0..).unwrap_or(&docker_log));
        eprintln!("--- containerd's log of this case:\n{}---", log.get(logs.1..).unwrap_or(&log));
    };
    let case = DockerCase { docker: &docker, runtime, name: name.to_owned() };
    let result = catch_unwind(AssertUnwindSafe(|| body(&case)));
    if let Err(panic) = result {
        show();
        docker.clear();
        let _ = before.wait_for_nothing_left(&docker.containerd.machine); // the case's own failure is reported
        resume_unwind(panic);
    }
    if let Some(left) = before.wait_for_nothing_left(&docker.containerd.machine) {
        show();
        docker.clear();
        panic!("left behind:\n{left}");
    }
}

/// Returns the dockerd of this version, kind of ids and test program; its cases run one after the other.
fn shared(suite: Suite, ids: Ids) -> MutexGuard<'static, Docker> {
    static SERVERS: [OnceLock<Mutex<Docker>>; 4] = [const { OnceLock::new() }; 4];
    SERVERS[suite as usize * 2 + ids as usize]
        .get_or_init(|| Mutex::new(Docker::start(suite, ids)))
        .lock()
        // A case that failed has cleaned up after itself.
        .unwrap_or_else(PoisonError::into_inner)
}

impl DockerCase<'_> {
    #[track_caller]
    pub fn docker(&self, args: &[&str]) -> Output {
        self.docker.docker(args)
    }

    /// Builds `docker run --name NAME FLAGS IMAGE COMMAND`, without running it.
    pub fn run_command(&self, flags: &[&str], command: &[&str]) -> Command {
        let mut args = vec!["run", "--runtime", self.runtime.name(), "--name", &self.name];
        args.extend(flags);
        args.push(IMAGE);
        args.extend(command);
        self.docker.command(args)
    }

    /// Runs `docker run --rm` to its end.
    #[track_caller]
    pub fn run(&self, flags: &[&str], command: &[&str]) -> Output {
        let mut all = vec!["--rm"];
        all.extend(flags);
        run(&mut self.run_command(&all, command))
    }

    #[track_caller]
    pub fn detach(&self, flags: &[&str], command: &[&str]) {
        let mut all = vec!["-d"];
        all.extend(flags);
        run(&mut self.run_command(&all, command)).ok();
    }

    #[track_caller]
    pub fn exec(&self, flags: &[&str], command: &[&str]) -> Output {
        let mut args = vec!["exec"];
        args.extend(flags);
        args.push(&self.name);
        args.extend(command);
        self.docker(&args)
    }

    /// Returns a field of `docker inspect`.
    #[track_caller]
    pub fn inspect(&self, field: &str) -> String {
        self.docker(&["inspect", "-f", &format!("{{{{{field}}}}}"), &self.name]).ok().trim_end().to_owned()
    }

    #[track_caller]
    pub fn until_inspect(&self, field: &str, value: &str) {
        until(&format!("{field} to be {value}"), 20, || (self.inspect(field) == value).then_some(()));
    }

    #[track_caller]
    pub fn remove(&self) {
        self.docker(&["rm", "-f", "-v", &self.name]).ok();
    }

    /// Reads a file of the container's cgroup: by controller and name on v1, or by name on v2.
    #[track_caller]
    pub fn cgroup_file(&self, controller: &str, v1: &str, v2: &str) -> String {
        let pid = self.inspect(".State.Pid").parse().expect("a pid");
        super::case::cgroup_file(pid, controller, v1, v2)
    }
}
