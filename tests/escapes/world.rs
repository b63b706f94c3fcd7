//! A shim with two containers: one that attacks whatever joins it, and a neighbour with secrets.

use crate::attacker::{Attacker, FIRST};
use crate::containerd::{ended, eventually, Containerd, Shim, Version};
use crate::judge::{counts, Facts, Verdict, OWN};
use crate::planted::{Host, NEIGHBOUR, NEIGHBOUR_EXEC, VARIABLE};
use crate::trap::Trap;
use crate::wire::{decode, Refusal, Wire, DE, TASK_V3};
use containerd_shim_protos::api::*;
use protobuf::well_known_types::any::Any;
use protobuf::Message;
use serde_json::{json, Value};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// An answer that takes longer than this is none: what is asked for has a shorter limit of its own.
pub const PATIENCE: Duration = Duration::from_secs(8);

/// Of a start that the attacker lets through or kills.
pub const LIMIT: Duration = Duration::from_secs(5);

pub struct World {
    pub containerd: Containerd,
    pub shim: Shim,
    pub server: u32,
    pub host: Host,
    pub trap: Trap,
    pub attacker: Attacker,
    pub facts: Facts,
    pub verdict: Verdict,
    /// Pid namespaces of the containers.
    pub namespaces: Vec<String>,
    /// Containers that are there.
    pub ids: Vec<String>,
    count: u32,
}

impl World {
    /// Both containers run, and what a program of an exec is like is known.
    pub fn new(attacker: Attacker) -> World {
        let mut containerd = Containerd::new(Version::V2_3);
        containerd.program = crate::testbed::shim();
        containerd.environment.push(VARIABLE);
        // Whoever is root inside finds the way to its root.
        std::fs::set_permissions(containerd.dir.path(), PermissionsExt::from_mode(0o711)).unwrap();
        let host = Host::plant(containerd.dir.path());
        let program = host.attack("/catch");
        let program: Vec<&str> = program.iter().map(String::as_str).collect();
        prepare(&containerd, "c1", &attacker, &program, &[]);
        let trap = Trap::set(&containerd.bundle("c1").join("rootfs/catch"));
        if attacker.mapped {
            give(&containerd.bundle("c1").join("rootfs"));
        }
        prepare(&containerd, "c2", &Attacker::default_and(&[]), &["/probe", "sleep"], &[NEIGHBOUR]);
        let shim = containerd.start("c1");
        let mut wire = containerd.connect(&shim);
        let connect = ConnectRequest { id: "c1".into(), ..Default::default() };
        let server = wire.task::<ConnectResponse>("Connect", &connect).unwrap().shim_pid;
        let mut world = World {
            containerd,
            shim,
            server,
            host,
            trap,
            attacker,
            facts: Facts { host_root: host_root(), ..Facts::default() },
            verdict: Verdict::default(),
            namespaces: Vec::new(),
            ids: Vec::new(),
            count: 0,
        };
        assert_eq!(world.containerd.start("c2").path, world.shim.path, "one server for both");
        world.run("c1");
        world.run("c2");
        world.trap.mode("wait");
        let process = Attacker::default_and(&[]).process(&["/probe", "sleep"], &[NEIGHBOUR_EXEC]);
        world.exec("c2", "n", &process);
        world.start("c2", "n", LIMIT).unwrap();
        world.learn();
        world
    }

    pub fn wire(&self) -> Wire {
        self.containerd.connect(&self.shim)
    }

    /// Asks with a limit of time; nothing where no answer comes.
    pub fn ask<R: Message>(&self, method: &str, request: &impl Message, limit: Duration) -> Option<Result<R, Refusal>> {
        let mut wire = self.wire();
        wire.ask(TASK_V3, method, request, limit);
        wire.ready(limit + PATIENCE).then(|| decode(wire.next().expect("the shim lives").1))
    }

    #[track_caller]
    pub fn call<R: Message>(&self, method: &str, request: &impl Message) -> R {
        let answer = self.ask(method, request, Duration::ZERO);
        answer.unwrap_or_else(|| panic!("{method} is not answered")).unwrap_or_else(|e| panic!("{method}: {e:?}"))
    }

    /// Create and Start of a container whose bundle is there; its pid.
    #[track_caller]
    pub fn run(&mut self, id: &str) -> u32 {
        let pid = self.create(id, Duration::ZERO).expect("Create is answered").unwrap();
        self.start(id, "", LIMIT).unwrap();
        pid
    }

    pub fn create(&mut self, id: &str, limit: Duration) -> Option<Result<u32, Refusal>> {
        let request = self.create_request(id);
        let answer = self.ask::<CreateTaskResponse>("Create", &request, limit)?;
        self.ids.push(id.to_owned());
        Some(answer.map(|created| {
            let own = std::fs::read_link("/proc/self/ns/pid").unwrap();
            let link = std::fs::read_link(format!("/proc/{}/ns/pid", created.pid)).unwrap_or_default();
            let name = link.to_string_lossy().into_owned();
            if link != own && !name.is_empty() && !self.namespaces.contains(&name) {
                self.namespaces.push(name);
            }
            created.pid
        }))
    }

    pub fn create_request(&self, id: &str) -> CreateTaskRequest {
        let bundle = self.containerd.bundle(id);
        let out = bundle.join("out");
        let stdout = if out.exists() { out.to_str().unwrap().to_owned() } else { String::new() };
        CreateTaskRequest {
            id: id.into(),
            bundle: bundle.to_str().unwrap().into(),
            stdout,
            ..Default::default()
        }
    }

    #[track_caller]
    pub fn exec(&self, id: &str, exec: &str, process: &Value) {
        self.call::<Empty>("Exec", &exec_request(id, exec, process));
    }

    #[track_caller]
    pub fn start(&self, id: &str, exec: &str, limit: Duration) -> Result<u32, Refusal> {
        let request = StartRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
        let answer = self.ask::<StartResponse>("Start", &request, limit).expect("Start is answered");
        answer.map(|started| started.pid)
    }

    #[track_caller]
    pub fn kill(&self, id: &str, exec: &str) {
        let request = kill_request(id, exec);
        let answer = self.ask::<Empty>("Kill", &request, Duration::ZERO);
        answer.expect("Kill is answered").ok(); // it may have ended
    }

    /// Waits for an end that comes soon.
    pub fn wait(&self, id: &str, exec: &str) -> Option<u32> {
        let request = WaitRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
        let answer = self.ask::<WaitResponse>("Wait", &request, Duration::ZERO)?;
        Some(answer.map_or(0, |exit| exit.exit_status))
    }

    /// How it looks when it is over does not matter, but it must be over.
    pub fn delete(&self, id: &str, exec: &str) -> Option<Result<DeleteResponse, Refusal>> {
        let request = DeleteRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
        self.ask("Delete", &request, Duration::ZERO)
    }

    /// A program of an exec, as both sides see it.
    fn learn(&mut self) {
        let secret = format!("OWN={OWN}");
        let process = self.attacker.process(&["/probe", "sleep"], &[&secret]);
        self.exec("c1", "program", &process);
        let pid = self.start("c1", "program", LIMIT).unwrap();
        self.learn_of(pid);
        self.kill("c1", "program");
        self.wait("c1", "program").expect("it ends");
        self.delete("c1", "program").expect("Delete is answered").unwrap();
    }

    /// What a process that runs its program is like, for the host and for the attacker.
    #[track_caller]
    pub fn learn_of(&mut self, pid: u32) {
        let program = || crate::look::stat(pid).is_some_and(|stat| stat.name == "probe");
        assert!(eventually(program), "{pid} does not run its program: {:?}", crate::look::stat(pid));
        self.facts.outside.push(self.host.look(pid));
        let known = self.facts.inside.len();
        let programs = |trap: &Trap| -> Vec<Value> {
            trap.looks().into_iter().filter(|look| look["mode"] == "Wait" && look["program"] == true).collect()
        };
        assert!(eventually(|| programs(&self.trap).len() > known), "the attacker sees no program");
        self.facts.inside = programs(&self.trap);
    }

    /// An exec that is attacked from its first instruction to its end. Says whether the shim still answers.
    pub fn victim(&mut self, program: &[&str]) -> bool {
        self.count += 1;
        let exec = format!("v{}", self.count);
        let secret = format!("OWN={OWN}");
        let request = exec_request("c1", &exec, &self.attacker.process(program, &[&secret]));
        if self.ask::<Empty>("Exec", &request, Duration::ZERO).is_none() {
            self.verdict.add("Exec is not answered");
            return false;
        }
        let request = StartRequest { id: "c1".into(), exec_id: exec.clone(), ..Default::default() };
        let Some(started) = self.ask::<StartResponse>("Start", &request, LIMIT) else {
            self.verdict.add("Start of an attacked exec is not answered");
            return false;
        };
        if started.is_ok() && self.wait("c1", &exec).is_none() {
            // It may be stopped for good.
            self.kill("c1", &exec);
            if self.wait("c1", &exec).is_none() {
                self.verdict.add("Wait for an attacked exec is not answered, although it was killed");
                return false;
            }
        }
        if self.delete("c1", &exec).is_none() {
            self.verdict.add("Delete of an attacked exec is not answered");
            return false;
        }
        true
    }

    /// Execs that are started while everything is held; each has a time limit. The connections wait for the answers.
    pub fn held(&mut self, count: u32, limit: Duration) -> Vec<(String, Wire)> {
        let secret = format!("OWN={OWN}");
        let process = self.attacker.process(&["/probe", "sleep"], &[&secret]);
        let each = |number| {
            let exec = format!("h{number}");
            self.exec("c1", &exec, &process);
            let mut wire = self.wire();
            let request = StartRequest { id: "c1".into(), exec_id: exec.clone(), ..Default::default() };
            wire.ask(TASK_V3, "Start", &request, limit);
            (exec, wire)
        };
        let all = (self.count + 1..=self.count + count).map(each).collect();
        self.count += count;
        all
    }

    /// The end of an exec that is held: its time is over soon, or it was stopped only when it had begun.
    pub fn give_up(&mut self, exec: &str, mut wire: Wire) {
        if !wire.ready(PATIENCE) {
            self.verdict.add("Start of a held exec is not answered when its time is over");
            return;
        }
        let answer: Result<StartResponse, Refusal> = decode(wire.next().expect("the shim lives").1);
        match answer {
            Ok(_) => {
                self.kill("c1", exec);
                if self.wait("c1", exec).is_none() {
                    self.verdict.add("a program that is held does not die of SIGKILL");
                }
            }
            Err((code, _)) if code == DE => {}
            Err((code, words)) => self.verdict.add(format!("Start of a held exec: {code:?}: {words}")),
        }
        if self.delete("c1", exec).is_none() {
            self.verdict.add("Delete of a held exec is not answered");
        }
    }

    /// Looks from the host at everything in the containers' pid namespaces that is no program yet, and judges it.
    pub fn look_from_outside(&mut self) -> usize {
        let mut count = 0;
        let members = self.namespaces.iter().flat_map(|namespace| members(namespace)).collect::<Vec<_>>();
        for pid in members {
            let stat = crate::look::stat(pid);
            if stat.is_none_or(|stat| stat.name == "probe" || stat.state == 'Z') || is_first(pid) {
                continue;
            }
            let look = self.host.look(pid);
            if counts(&look) {
                count += 1;
                self.verdict.all(self.facts.judge(&look, "outside"));
            }
        }
        count
    }

    /// Judges all that the attacker has written down; how much of it could be judged.
    pub fn judge(&mut self) -> usize {
        let looks = self.trap.looks();
        let counted: Vec<&Value> = looks.iter().filter(|look| counts(look)).collect();
        for look in &counted {
            self.verdict.all(self.facts.judge(look, "inside"));
        }
        counted.len()
    }

    /// Kills and deletes everything; nothing may be left.
    pub fn end(mut self, what: &str) {
        for id in self.ids.clone().iter().rev() {
            self.kill(id, "");
            assert!(self.wait(id, "").is_some(), "{id} does not end");
            self.delete(id, "").expect("Delete is answered").ok(); // a create that failed has left nothing
        }
        let left: Vec<u32> = self.namespaces.iter().flat_map(|namespace| members(namespace)).collect();
        if !left.iter().all(|pid| eventually(|| ended(*pid))) {
            self.verdict.add("a process is left");
        }
        let mut wire = self.wire();
        let last = ShutdownRequest { id: "c1".into(), ..Default::default() };
        let answer = wire.task::<Empty>("Shutdown", &ShutdownRequest { id: "c2".into(), ..Default::default() });
        answer.unwrap();
        if wire.task::<Empty>("Shutdown", &last).is_ok() && wire.next().is_some() {
            self.verdict.add("the shim does not hang up");
        }
        if !eventually(|| ended(self.server)) || self.shim.path.exists() {
            self.verdict.add("the shim or its socket is left");
        }
        for id in self.ids.split_off(0) {
            self.containerd.delete(&id);
            self.containerd.remove_bundle(&id);
        }
        for cgroup in self.containerd.cgroups() {
            self.verdict.add(format!("{} is left", cgroup.display()));
        }
        self.verdict.assert_empty(what);
    }
}

impl Drop for World {
    /// After a failure too: nothing goes on.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (complaint, count) in &self.verdict.0 {
                println!("  {count:4} x {complaint}");
            }
        }
        if ended(self.server) {
            return;
        }
        self.trap.tell("end");
        for pid in self.namespaces.iter().flat_map(|namespace| members(namespace)).chain([self.server]) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::SIGKILL);
        }
        eventually(|| ended(self.server));
        for id in self.ids.iter().map(String::as_str).chain(["c1", "c2"]) {
            let bundle = self.containerd.bundle(id);
            if bundle.exists() {
                self.containerd.verb(id, &bundle, &["-bundle", bundle.to_str().unwrap(), "delete"]);
            }
        }
    }
}

/// A bundle of a container of the group.
pub fn prepare(containerd: &Containerd, id: &str, attacker: &Attacker, args: &[&str], env: &[&str]) {
    containerd.prepare(id, args, json!({ "io.containerd.runc.v2.group": "c1" }));
    containerd.configure(id, |config| {
        attacker.configure(config, args, env);
        config["linux"]["cgroupsPath"] = format!("/{}/{id}", containerd.namespace).into();
    });
}

/// Everything below is given to the root of a user namespace. What is given away is not the program that others run.
fn give(path: &Path) {
    let about = path.symlink_metadata().unwrap();
    if path.ends_with("probe") {
        std::fs::remove_file(path).unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_probe"), path).unwrap();
    }
    std::os::unix::fs::lchown(path, Some(FIRST), Some(FIRST)).unwrap();
    if about.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path());
        }
    }
}

pub fn exec_request(id: &str, exec: &str, process: &Value) -> ExecProcessRequest {
    let spec = Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
        value: process.to_string().into_bytes(),
        ..Default::default()
    };
    ExecProcessRequest { id: id.into(), exec_id: exec.into(), spec: Some(spec).into(), ..Default::default() }
}

pub fn kill_request(id: &str, exec: &str) -> KillRequest {
    let signal = libc::SIGKILL as u32;
    KillRequest { id: id.into(), exec_id: exec.into(), signal, all: exec.is_empty(), ..Default::default() }
}

pub fn host_root() -> String {
    crate::look::root_mount(&std::fs::read("/proc/self/mountinfo").unwrap())
}

/// The processes of a pid namespace, as the host numbers them.
pub fn members(namespace: &str) -> Vec<u32> {
    let listing = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = listing.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is = |pid: &u32| {
        std::fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|link| link.to_str() == Some(namespace))
    };
    pids.filter(is).collect()
}

/// The first one of its pid namespace.
fn is_first(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("NSpid:"));
    line.is_some_and(|line| line.split_whitespace().last() == Some("1"))
}
