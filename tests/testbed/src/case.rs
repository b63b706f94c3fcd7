//! One test case, run for each containerd with each runtime. runc is the control: a case that fails with it is wrong,
//! whatever it says about shoal.

use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::containerd::{Containerd, Setting};
use super::events::Events;
use super::leak::Snapshot;
use super::machine::Machine;
use super::run::{run, until, Output};
use super::suite::Suite;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    Runc,
    Shoal,
}

impl Runtime {
    /// containerd's name of the runtime.
    pub fn name(self) -> &'static str {
        match self {
            Runtime::Runc => "io.containerd.runc.v2",
            Runtime::Shoal => "io.containerd.shoal.v2",
        }
    }

    /// Runs an attempt, and up to two more for the control. runc shows that a case is right: a failure on a busy machine
    /// says nothing about the case, and its shim loses an event now and then when containerd restarts. shoal has one attempt.
    pub fn again_for_the_control(self, attempt: impl Fn()) {
        if self == Runtime::Runc {
            for _ in 0..2 {
                if catch_unwind(AssertUnwindSafe(&attempt)).is_ok() {
                    return;
                }
                println!("the control has failed: once more");
            }
        }
        attempt();
    }

    /// Returns whether the runtime is selected: `SHOAL_TEST_RUNTIMES=runc` or `=shoal` leaves the other one out.
    pub fn selected(self) -> bool {
        let short = if self == Runtime::Runc { "runc" } else { "shoal" };
        std::env::var("SHOAL_TEST_RUNTIMES").map_or(true, |list| list.split(',').any(|name| name == short))
    }
}

/// What a case gets: a containerd with the image, a runtime, and ids of its own.
pub struct Case<'a> {
    pub containerd: &'a mut Containerd,
    pub runtime: Runtime,
    pub id: String,
}

/// Runs `body`, and fails if it fails or leaves anything behind.
pub fn case(suite: Suite, runtime: Runtime, name: &str, body: fn(&mut Case<'_>)) {
    static SERVERS: Servers = [const { OnceLock::new() }; 2];
    let start = |suite| {
        let machine = Machine::new();
        let setting = Setting::with_criu(&machine, suite);
        Containerd::start_in(suite, machine, setting)
    };
    case_on(&SERVERS, start, suite, runtime, name, body);
}

/// Like `case`, with a containerd that an ordinary user runs.
pub fn rootless_case(suite: Suite, runtime: Runtime, name: &str, body: fn(&mut Case<'_>)) {
    static SERVERS: Servers = [const { OnceLock::new() }; 2];
    case_on(&SERVERS, Containerd::start_rootless, suite, runtime, name, body);
}

/// The containerd of each version and test program; cases of one version run one after the other.
type Servers = [OnceLock<Mutex<Containerd>>; 2];

fn case_on(
    servers: &'static Servers,
    start: fn(Suite) -> Containerd,
    suite: Suite,
    runtime: Runtime,
    name: &str,
    body: fn(&mut Case<'_>),
) {
    if !runtime.selected() {
        println!("left out by SHOAL_TEST_RUNTIMES");
        return;
    }
    let server = servers[suite as usize].get_or_init(|| Mutex::new(start(suite)));
    runtime.again_for_the_control(|| attempt(server, runtime, name, body));
}

fn attempt(server: &Mutex<Containerd>, runtime: Runtime, name: &str, body: fn(&mut Case<'_>)) {
    // A case that failed has cleaned up after itself.
    let mut containerd = server.lock().unwrap_or_else(PoisonError::into_inner);
    let before = Snapshot::take(&containerd.machine);
    let log = containerd.log().len();
    let mut case = Case { containerd: &mut containerd, runtime, id: name.replace('_', "-") };
    let result = catch_unwind(AssertUnwindSafe(|| body(&mut case)));
    if let Err(panic) = result {
        let all = containerd.log();
        eprintln!("--- containerd's log of this case:\n{}---", all.get(log..).unwrap_or(&all));
        containerd.clear();
        let _ = before.wait_for_nothing_left(&containerd.machine); // the case's own failure is reported
        resume_unwind(panic);
    }
    let left = before.wait_for_nothing_left(&containerd.machine);
    if let Some(left) = left {
        let all = containerd.log();
        containerd.clear();
        panic!(
            "left behind:\n{left}--- containerd's log of this case:\n{}---",
            all.get(log..).unwrap_or(&all)
        );
    }
}

/// Returns whether systemd makes the containers' scopes: `SHOAL_TEST_CGROUPS=systemd`.
pub fn systemd() -> bool {
    std::env::var("SHOAL_TEST_CGROUPS").is_ok_and(|driver| driver == "systemd")
}

impl Case<'_> {
    /// Returns an id for another container of the same case.
    pub fn id(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.id)
    }

    #[track_caller]
    pub fn ctr(&self, args: &[&str]) -> Output {
        self.containerd.ctr(args)
    }

    /// Builds `ctr run FLAGS IMAGE ID COMMAND`, without running it.
    pub fn run_command(&self, flags: &[&str], id: &str, command: &[&str]) -> Command {
        let scope = format!("system.slice:{}:{id}", self.containerd.namespace());
        let mut args = vec!["run", "--runtime", self.runtime.name()];
        if systemd() {
            args.extend(["--cgroup", &scope]);
            if self.runtime == Runtime::Runc {
                args.push("--runc-systemd-cgroup");
            }
        }
        args.extend(flags);
        args.extend([self.containerd.image(), id]);
        args.extend(command);
        self.containerd.ctr_command(args)
    }

    /// Runs `ctr run --rm FLAGS IMAGE ID COMMAND` to its end.
    #[track_caller]
    pub fn run(&self, flags: &[&str], command: &[&str]) -> Output {
        let mut all = vec!["--rm"];
        all.extend(flags);
        run(&mut self.run_command(&all, &self.id, command))
    }

    /// Runs `ctr run -d`: the container runs when this returns.
    #[track_caller]
    pub fn detach(&self, flags: &[&str], command: &[&str]) {
        let mut all = vec!["-d"];
        all.extend(flags);
        run(&mut self.run_command(&all, &self.id, command)).ok();
    }

    /// Runs `ctr tasks exec` to its end.
    #[track_caller]
    pub fn exec(&self, flags: &[&str], command: &[&str]) -> Output {
        run(&mut self.exec_command(flags, command))
    }

    pub fn exec_command(&self, flags: &[&str], command: &[&str]) -> Command {
        let mut args = vec!["tasks", "exec"];
        args.extend(flags);
        if !flags.contains(&"--exec-id") {
            args.extend(["--exec-id", "e"]);
        }
        args.push(&self.id);
        args.extend(command);
        self.containerd.ctr_command(args)
    }

    #[track_caller]
    pub fn kill(&self, signal: &str) {
        self.ctr(&["tasks", "kill", "-s", signal, &self.id]).ok();
    }

    /// Returns the task's state as `ctr tasks ls` shows it; empty if there is none.
    pub fn state(&self) -> String {
        self.column(2)
    }

    pub fn pid(&self) -> u32 {
        self.column(1).parse().expect("a task has a pid")
    }

    fn column(&self, n: usize) -> String {
        let all = self.ctr(&["tasks", "ls"]);
        let line = all.ok().lines().find(|line| line.split_whitespace().next() == Some(&self.id));
        line.and_then(|line| line.split_whitespace().nth(n)).unwrap_or("").to_owned()
    }

    /// Reads a file of the container's cgroup: by controller and name on v1, or by name on v2.
    #[track_caller]
    pub fn cgroup_file(&self, controller: &str, v1: &str, v2: &str) -> String {
        cgroup_file(self.pid(), controller, v1, v2)
    }

    #[track_caller]
    pub fn until_state(&self, state: &str) {
        until(&format!("{} to be {state}", self.id), 20, || (self.state() == state).then_some(()));
    }

    /// Runs `ctr tasks delete`, and returns the exit code that it reports.
    #[track_caller]
    pub fn delete_task(&self) -> i32 {
        // ctr itself exits with 0 and reports the code in a warning.
        let out = self.ctr(&["tasks", "delete", &self.id]);
        match out.stderr.split("non-zero exit code ").nth(1) {
            Some(rest) => rest.trim_end().trim_matches('"').parse().unwrap_or_else(|e| panic!("{e}: {out}")),
            None => out.code,
        }
    }

    /// Kills the task and removes task and container.
    #[track_caller]
    pub fn remove(&self) {
        if self.state() == "RUNNING" {
            self.kill("KILL");
            self.until_state("STOPPED");
        }
        self.delete_task();
        self.ctr(&["containers", "delete", &self.id]).ok();
    }

    pub fn events(&self) -> Events {
        Events::listen(self.containerd)
    }
}

/// Reads a file of the cgroup of process `pid`.
#[track_caller]
pub fn cgroup_file(pid: u32, controller: &str, v1: &str, v2: &str) -> String {
    let file = cgroup_path(pid, controller, v1, v2);
    let value = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    value.trim().to_owned()
}

#[track_caller]
pub fn cgroup_path(pid: u32, controller: &str, v1: &str, v2: &str) -> std::path::PathBuf {
    let text = std::fs::read_to_string(format!("/proc/{}/cgroup", pid)).expect("read the init's cgroup");
    let root = std::path::Path::new("/sys/fs/cgroup");
    let of = |wanted: &str| {
        let mut lines = text.lines().map(|line| line.splitn(3, ':').skip(1));
        lines.find_map(|mut words| words.next()?.split(',').any(|c| c == wanted).then(|| words.next())?)
    };
    match of(controller) {
        Some(path) => root.join(controller).join(path.trim_start_matches('/')).join(v1),
        None => root.join(of("").expect("a v2 line").trim_start_matches('/')).join(v2),
    }
}
