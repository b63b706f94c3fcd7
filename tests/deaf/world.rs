//! A shim with an idle neighbour, and containers that are held up.

use crate::ask::{self, Line};
use crate::fuse::{Fuse, Waits};
use crate::hear::Ears;
use crate::left::{self, Before};
use containerd_shim_protos::api::*;
use serde_json::{json, Value};
use std::time::Duration;
use testbed::fake::pod;
use testbed::fake::{ended, eventually, Containerd, Shim, Version};
use testbed::wire::Wire;

pub struct World {
    pub containerd: Containerd,
    pub shim: Shim,
    pub server: u32,
    pub fuse: Fuse,
    pub ears: Ears,
    /// What went wrong.
    pub complaints: Vec<String>,
    /// The containers with a bundle.
    ids: Vec<String>,
    before: Before,
    /// The pid of the pod, if the containers are members of one that shares its pid namespace.
    pod: Option<u32>,
    over: bool,
}

/// The container that is there all the time.
pub const NEIGHBOUR: &str = "n";
pub const POD: &str = "s1";

impl World {
    pub fn new(waits: Waits) -> World {
        World::of(waits, false)
    }

    pub fn of(waits: Waits, in_pod: bool) -> World {
        let mut containerd = Containerd::new(Version::V2_3);
        containerd.program = testbed::shim();
        let before = Before::now();
        let fuse = Fuse::mount(&containerd.dir.path().join("hang"), waits);
        let neighbour = ["/probe", "sleep"];
        let (shim, id) = if in_pod {
            (pod::launch(&containerd), POD)
        } else {
            prepare(&containerd, NEIGHBOUR, &neighbour, &fuse, |_| ());
            (containerd.start(NEIGHBOUR), NEIGHBOUR)
        };
        let line = Line { containerd: &containerd, shim: &shim };
        let ears = Ears::new(line);
        let connect = ConnectRequest { id: id.into(), ..Default::default() };
        let server = line.call::<ConnectResponse>("Connect", &connect).unwrap().shim_pid;
        let pod = in_pod.then(|| pod::run(&containerd, &mut containerd.connect(&shim)));
        let (ids, complaints) = (Vec::new(), Vec::new());
        let mut world =
            World { containerd, shim, server, fuse, ears, complaints, ids, before, pod, over: false };
        if in_pod {
            world.prepare(NEIGHBOUR, &neighbour, |_| ());
        } else {
            world.ids.push(NEIGHBOUR.to_owned());
        }
        world.run(NEIGHBOUR);
        world
    }

    pub fn line(&self) -> Line<'_> {
        Line { containerd: &self.containerd, shim: &self.shim }
    }

    pub fn wire(&self) -> Wire {
        self.containerd.connect(&self.shim)
    }

    pub fn complain(&mut self, what: impl Into<String>) {
        self.complaints.push(what.into());
    }

    /// Prepares the bundle of another container of this shim.
    pub fn prepare(&mut self, id: &str, args: &[&str], change: impl FnOnce(&mut Value)) {
        let pod = self.pod;
        prepare(&self.containerd, id, args, &self.fuse, |config| {
            if let Some(pod) = pod {
                join(config, pod, &format!("/{}/pod/{id}", self.containerd.namespace));
            }
            change(config);
        });
        match pod {
            Some(_) => std::fs::write(self.containerd.bundle(id).join("sandbox"), POD).unwrap(),
            None => assert_eq!(self.containerd.start(id).path, self.shim.path, "one server for all"),
        }
        self.ids.push(id.to_owned());
    }

    pub fn create_request(&self, id: &str) -> CreateTaskRequest {
        let bundle = self.containerd.bundle(id).to_str().unwrap().to_owned();
        CreateTaskRequest { id: id.into(), bundle, ..Default::default() }
    }

    /// Creates and starts a container that nothing holds up.
    pub fn run(&self, id: &str) -> u32 {
        let created: CreateTaskResponse = self.line().call("Create", &self.create_request(id)).unwrap();
        self.line().call::<StartResponse>("Start", &ask::start_request(id, "")).unwrap();
        created.pid
    }

    pub fn exec(&self, id: &str, exec: &str, process: &Value) {
        self.line().call::<Empty>("Exec", &ask::exec_request(id, exec, process)).unwrap();
    }

    /// Checks that containers that are not held up are served.
    pub fn hear(&mut self, ids: &[&str]) {
        let line = Line { containerd: &self.containerd, shim: &self.shim };
        let complaints = self.ears.hear(line, ids);
        self.complaints.extend(complaints);
    }

    /// Kills, awaits and deletes a container.
    pub fn end_container(&mut self, id: &str) {
        let line = Line { containerd: &self.containerd, shim: &self.shim };
        let killed = line.call::<Empty>("Kill", &ask::kill_request(id, ""));
        let waited = line.call::<WaitResponse>("Wait", &ask::wait_request(id, ""));
        let waited = waited.map(|exit| exit.exit_status);
        let deleted = line.call::<DeleteResponse>("Delete", &ask::delete_request(id, ""));
        if killed.is_err() || waited != Ok(137) || deleted.is_err() {
            let deleted = deleted.map(|deleted| deleted.exit_status);
            self.complain(format!("{id}: Kill: {killed:?}, Wait: {waited:?}, Delete: {deleted:?}"));
        }
    }

    /// Returns the shim's children that are not among the known ones.
    pub fn strangers(&self, known: &[u32]) -> Vec<u32> {
        left::children(self.server).into_iter().filter(|pid| !known.contains(pid)).collect()
    }

    /// Ends the shim, in which only the neighbour is left, and checks what is left. The filesystem has ended by then.
    pub fn end(mut self, what: &str) {
        self.fuse.kill();
        self.end_container(NEIGHBOUR);
        let mut wire = self.wire();
        let shutdown = ShutdownRequest { id: NEIGHBOUR.into(), ..Default::default() };
        wire.ask(testbed::wire::TASK_V3, "Shutdown", &shutdown, Duration::ZERO);
        if !eventually(|| ended(self.server)) || self.shim.path.exists() {
            self.complain("the shim or its socket is left");
            self.force();
        }
        self.after(what);
    }

    /// Checks what is left after the end of the shim.
    pub fn after(&mut self, what: &str) {
        for id in std::mem::take(&mut self.ids) {
            if self.pod.is_none() {
                self.containerd.delete(&id);
            }
            self.containerd.remove_bundle(&id);
        }
        if self.pod.is_some() {
            pod::forget(&self.containerd);
        }
        let gone = || self.before.processes(&self.containerd).is_empty();
        if !eventually(gone) {
            for pid in self.before.processes(&self.containerd) {
                self.complaints.push(format!("left: {}", left::name(pid)));
            }
            self.force();
        }
        for cgroup in self.containerd.cgroups() {
            self.complaints.push(format!("left: {}", cgroup.display()));
            let _ = std::fs::remove_dir(cgroup); // leaves nothing for the next test
        }
        for mount in self.before.left_mounts() {
            self.complaints.push(format!("left: {mount}"));
        }
        self.over = true;
        let complaints = std::mem::take(&mut self.complaints);
        assert!(complaints.is_empty(), "{what}:\n  {}", complaints.join("\n  "));
    }

    fn force(&self) {
        for pid in self.before.processes(&self.containerd) {
            let pid = nix::unistd::Pid::from_raw(pid as i32);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL); // it may have ended
        }
        eventually(|| self.before.processes(&self.containerd).into_iter().all(ended));
        let _ = std::fs::remove_file(&self.shim.path); // it is gone if the shim has ended by itself
    }
}

impl Drop for World {
    /// Cleans up after a failure too.
    fn drop(&mut self) {
        if self.over {
            return;
        }
        for complaint in &self.complaints {
            println!("  {complaint}");
        }
        self.fuse.kill();
        self.force();
        for id in std::mem::take(&mut self.ids) {
            let bundle = self.containerd.bundle(&id);
            self.containerd.verb(&id, &bundle, &["-bundle", bundle.to_str().unwrap(), "delete"]);
        }
        if self.pod.is_some() {
            let bundle = self.containerd.pod_bundle(POD);
            self.containerd.verb(POD, &bundle, &["-bundle", bundle.to_str().unwrap(), "delete"]);
        }
        // These cgroups could not be removed before their processes had ended.
        for cgroup in self.containerd.cgroups().into_iter().chain(self.containerd.pod_cgroups()) {
            let _ = std::fs::remove_dir(cgroup); // it may be gone
        }
    }
}

/// Marks a container as the pod's member, and names the pod's namespaces.
fn join(config: &mut Value, pod: u32, cgroup: &str) {
    let names = [("mount", None), ("pid", Some("pid")), ("network", Some("net")), ("ipc", Some("ipc"))];
    let namespace = |(kind, name): &(&str, Option<&str>)| match name {
        Some(name) => json!({ "type": kind, "path": format!("/proc/{pod}/ns/{name}") }),
        None => json!({ "type": kind }),
    };
    config["linux"]["namespaces"] = names.iter().map(namespace).collect();
    config["linux"]["cgroupsPath"] = cgroup.into();
    config["annotations"] =
        json!({ "io.kubernetes.cri.sandbox-id": POD, "io.kubernetes.cri.container-type": "container" });
}

/// Prepares a bundle with the filesystem at /f.
fn prepare(containerd: &Containerd, id: &str, args: &[&str], fuse: &Fuse, change: impl FnOnce(&mut Value)) {
    containerd.prepare(id, args, json!({ "io.containerd.runc.v2.group": NEIGHBOUR }));
    std::fs::create_dir(containerd.bundle(id).join("rootfs/f")).unwrap();
    containerd.configure(id, |config| {
        config["linux"]["cgroupsPath"] = format!("/{}/{id}", containerd.namespace).into();
        let hang = json!({ "destination": "/f", "type": "none", "source": fuse.path, "options": ["rbind"] });
        config["mounts"].as_array_mut().unwrap().push(hang);
        change(config);
    });
}
