//! A shim with two containers: one that attacks whatever joins it, and a neighbour with secrets.

use crate::ambush::{members, Ambush};
use crate::attacker::{Attacker, FIRST};
use crate::calls::LIMIT;
use crate::planted::{Host, NEIGHBOUR, NEIGHBOUR_EXEC, VARIABLE};
use crate::trap::Trap;
use containerd_shim_protos::api::*;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use testbed::fake::pod;
use testbed::fake::{ended, eventually, Containerd, Shim, Version};
use testbed::wire::{Wire, TASK_V3};

/// An answer that takes longer than this counts as missing: what is requested has a shorter limit of its own.
pub const PATIENCE: Duration = Duration::from_secs(8);

/// What the containers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The shim; each has a pid namespace of its own.
    Group,
    /// Containers other than these two join the attacker's pid namespace by path.
    Joined,
    /// A pod without a pause container, whose members share their pid namespace.
    Pod,
}

pub struct World {
    pub containerd: Containerd,
    pub kind: Kind,
    pub shim: Shim,
    pub server: u32,
    pub ambush: Ambush,
    pub attacker: Attacker,
    /// The containers that exist.
    pub ids: Vec<String>,
    /// The pid of the pod, or of the attacker, whose pid namespace is shared.
    pub shared: u32,
    pub count: u32,
}

impl World {
    /// Runs both containers, and learns what a program of an exec looks like.
    pub fn new(attacker: Attacker) -> World {
        World::of(Kind::Group, attacker)
    }

    pub fn of(kind: Kind, attacker: Attacker) -> World {
        let mut containerd = Containerd::new(Version::V2_3);
        containerd.program = testbed::shim();
        containerd.environment.push(VARIABLE);
        // Root of the user namespace can reach the container's root.
        std::fs::set_permissions(containerd.dir.path(), PermissionsExt::from_mode(0o711)).unwrap();
        let host = Host::plant(containerd.dir.path());
        let trap = Trap(containerd.bundle("c1").join("rootfs/catch"));
        let (shim, id) = match kind {
            Kind::Pod => (pod::launch(&containerd), "s1"),
            _ => {
                prepare(&containerd, "c1", &attacker, &[], &[], |_| ());
                (containerd.start("c1"), "c1")
            }
        };
        let mut wire = containerd.connect(&shim);
        let connect = ConnectRequest { id: id.into(), ..Default::default() };
        let server = wire.call::<ConnectResponse>(TASK_V3, "Connect", &connect).unwrap().shim_pid;
        let mut world = World {
            containerd,
            kind,
            shim,
            server,
            ambush: Ambush::new(host, trap, kind == Kind::Group),
            attacker,
            ids: Vec::new(),
            shared: 0,
            count: 0,
        };
        if kind == Kind::Pod {
            world.shared = pod::run(&world.containerd, &mut wire);
        }
        world.settle();
        world
    }

    fn settle(&mut self) {
        let program = self.ambush.host.attack("/catch");
        let program: Vec<&str> = program.iter().map(String::as_str).collect();
        let attacker = self.attacker.clone();
        if self.kind == Kind::Pod {
            self.member("c1", &attacker, &program, &[]);
        } else {
            self.containerd.configure("c1", |config| config["process"]["args"] = json!(program));
        }
        Trap::set(&self.ambush.trap.0);
        if attacker.mapped {
            give(&self.containerd.bundle("c1").join("rootfs"));
        }
        self.neighbour("c2", &["/probe", "sleep"]);
        let pid = self.run("c1");
        let neighbour = self.run("c2");
        self.ambush.trap.mode("wait");
        let process = Attacker::default_and(&[]).process(&["/probe", "sleep"], &[NEIGHBOUR_EXEC]);
        self.exec("c2", "n", &process);
        self.start("c2", "n", LIMIT).unwrap();
        match self.kind {
            Kind::Group => {}
            Kind::Joined => self.shared = pid,
            Kind::Pod => self.ambush.learn(neighbour),
        }
        self.learn();
    }

    /// Prepares the bundle of another container of the shim, and launches it if it needs a launch.
    pub fn neighbour(&mut self, id: &str, args: &[&str]) {
        let plain = Attacker::default_and(&[]);
        if self.kind == Kind::Pod {
            return self.member(id, &plain, args, &[NEIGHBOUR]);
        }
        prepare(&self.containerd, id, &plain, args, &[NEIGHBOUR], |_| ());
        assert_eq!(self.containerd.start(id).path, self.shim.path, "one server for all");
    }

    /// Prepares the bundle of a container that shares the pid namespace of the pod or of the attacker.
    pub fn member(&mut self, id: &str, attacker: &Attacker, args: &[&str], env: &[&str]) {
        let shared = self.shared;
        let in_pod = self.kind == Kind::Pod;
        prepare(&self.containerd, id, attacker, args, env, |config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            for namespace in namespaces {
                let name = match namespace["type"].as_str().unwrap() {
                    "pid" => "pid",
                    "network" if in_pod => "net",
                    "ipc" if in_pod => "ipc",
                    "uts" if in_pod => "uts",
                    "user" => "user",
                    _ => continue,
                };
                namespace["path"] = format!("/proc/{shared}/ns/{name}").into();
            }
            // The user namespace has its own mappings.
            for maps in ["uidMappings", "gidMappings"] {
                config["linux"].as_object_mut().unwrap().remove(maps);
            }
            if in_pod {
                config["annotations"] = json!({
                    "io.kubernetes.cri.sandbox-id": "s1", "io.kubernetes.cri.container-type": "container",
                });
                config.as_object_mut().unwrap().remove("hostname");
            }
        });
        if in_pod {
            std::fs::write(self.containerd.bundle(id).join("sandbox"), "s1").unwrap();
        } else {
            assert_eq!(self.containerd.start(id).path, self.shim.path, "one server for all");
        }
        let root = self.containerd.bundle(id).join("rootfs");
        if attacker.mapped {
            give(&root);
        }
        self.ambush.facts.roots.push(crate::look::place(root.to_str().unwrap()));
    }

    /// Removes what containerd removes after a container's Delete.
    pub fn forget(&mut self, id: &str) {
        if self.kind != Kind::Pod {
            self.containerd.delete(id);
        }
        self.containerd.remove_bundle(id);
        self.ids.retain(|other| other != id);
    }

    /// Kills and deletes everything, and checks that nothing is left.
    pub fn end(self, what: &str) {
        for id in self.ids.clone().iter().rev() {
            self.kill(id, "");
            assert!(self.wait(id, "").is_some(), "{id} does not end");
            self.delete(id, "").expect("Delete is answered").ok(); // a failed create has left nothing
        }
        self.end_of_shim(what);
    }

    /// Ends the shim once there is no container any more.
    pub fn end_of_shim(self, what: &str) {
        let mut wire = self.wire();
        if self.kind == Kind::Pod {
            pod::shut_down(&mut wire);
        } else {
            for id in ["c2", "c1"] {
                let _ =
                    wire.task::<Empty>("Shutdown", &ShutdownRequest { id: id.into(), ..Default::default() });
            }
        }
        self.after(wire, what);
    }

    /// Checks what is left once the shim was told to end.
    pub fn after(mut self, mut wire: Wire, what: &str) {
        if wire.next().is_some() || !eventually(|| ended(self.server)) || self.shim.path.exists() {
            self.ambush.verdict.add("the shim or its socket is left");
        }
        let left: Vec<u32> = self.ambush.namespaces.iter().flat_map(|namespace| members(namespace)).collect();
        if !left.iter().all(|pid| eventually(|| ended(*pid))) {
            self.ambush.verdict.add("a process is left");
        }
        for id in self.ids.clone() {
            self.forget(&id);
        }
        if self.kind == Kind::Pod {
            pod::forget(&self.containerd);
        }
        for cgroup in self.containerd.cgroups() {
            self.ambush.verdict.add(format!("{} is left", cgroup.display()));
        }
        self.ambush.verdict.assert_empty(what);
    }
}

impl Drop for World {
    /// Cleans up after a failure too.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (complaint, count) in &self.ambush.verdict.0 {
                println!("  {count:4} x {complaint}");
            }
        }
        if ended(self.server) {
            return;
        }
        self.ambush.trap.tell("end");
        for pid in self.ambush.namespaces.iter().flat_map(|namespace| members(namespace)).chain([self.server])
        {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::SIGKILL);
        }
        eventually(|| ended(self.server));
        for id in self.ids.iter().map(String::as_str).chain(["c1", "c2"]) {
            let bundle = self.containerd.bundle(id);
            if bundle.exists() {
                self.containerd.verb(id, &bundle, &["-bundle", bundle.to_str().unwrap(), "delete"]);
            }
        }
        if self.kind == Kind::Pod {
            let bundle = self.containerd.pod_bundle("s1");
            self.containerd.verb("s1", &bundle, &["-bundle", bundle.to_str().unwrap(), "delete"]);
            for folder in self.containerd.pod_cgroups() {
                let _ = std::fs::remove_dir(folder); // a failed test leaves what it cannot remove any more
            }
        }
    }
}

/// Prepares a bundle of a container of the group.
fn prepare(
    containerd: &Containerd,
    id: &str,
    attacker: &Attacker,
    args: &[&str],
    env: &[&str],
    change: impl FnOnce(&mut serde_json::Value),
) {
    containerd.prepare(id, args, json!({ "io.containerd.runc.v2.group": "c1" }));
    containerd.configure(id, |config| {
        attacker.configure(config, args, env);
        config["linux"]["cgroupsPath"] = format!("/{}/pod/{id}", containerd.namespace).into();
        change(config);
        if config["annotations"]["io.kubernetes.cri.sandbox-id"].is_null() {
            config["linux"]["cgroupsPath"] = format!("/{}/{id}", containerd.namespace).into();
        }
    });
}

/// Gives everything below a path to the root of a user namespace. The program is given away as a copy, since others
/// run it.
fn give(path: &Path) {
    let about = path.symlink_metadata().unwrap();
    if path.ends_with("probe") {
        std::fs::remove_file(path).unwrap();
        testbed::program::copy(env!("CARGO_BIN_EXE_probe"), path);
    }
    std::os::unix::fs::lchown(path, Some(FIRST), Some(FIRST)).unwrap();
    if about.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path());
        }
    }
}
