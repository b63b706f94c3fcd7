//! One case, run for each containerd in each mode. runc is the control: a case that fails with it is wrong.

use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{json, Value};

use super::client::Failure;
use super::node::{Mode, Node};
use super::pod::{merge, must, Pod};
use crate::{systemd, Runtime, Snapshot, Suite};

/// What a case gets: a node, and a name of its own.
pub struct Case<'a> {
    pub node: &'a mut Node,
    pub mode: Mode,
    pub suite: Suite,
    pub name: String,
}

/// Runs `body`, and fails if it fails or leaves anything behind.
pub fn case(suite: Suite, mode: Mode, name: &str, body: fn(&mut Case<'_>)) {
    if !mode.selected() {
        println!("left out by SHOAL_TEST_MODES");
        return;
    }
    let runtime = if mode == Mode::Runc { Runtime::Runc } else { Runtime::Shoal };
    runtime.again_for_the_control(|| attempt(suite, mode, name, body));
}

fn attempt(suite: Suite, mode: Mode, name: &str, body: fn(&mut Case<'_>)) {
    let mut slot = shared(suite, mode);
    let node = slot.get_or_insert_with(|| Node::start(suite, mode));
    let before = Snapshot::take(node.machine());
    let rules = node.rules();
    let log = node.containerd.log().len();
    let mut case = Case { node, mode, suite, name: name.replace('_', "-") };
    let result = catch_unwind(AssertUnwindSafe(|| {
        body(&mut case);
        if suite == Suite::Trixie && mode == Mode::Shim {
            case.node.remove_orphans();
        }
        before.assert_nothing_left(case.node.machine());
        let kept = case.node.kept();
        assert!(kept.is_empty(), "containerd has kept:\n{kept}");
        assert_eq!(case.node.rules(), rules, "rules of the packet filter are what they were");
    }));
    if let Err(panic) = result {
        let all = node.containerd.log();
        eprintln!("--- containerd's log of this case:\n{}---", all.get(log..).unwrap_or(&all));
        node.containerd.kill();
        *slot = None; // with all that is left; the next case starts a new node
        resume_unwind(panic);
    }
}

/// Returns the node of this version, mode and test program; its cases run one after the other.
fn shared(suite: Suite, mode: Mode) -> MutexGuard<'static, Option<Node>> {
    static NODES: [[Mutex<Option<Node>>; 3]; 2] = [const { [const { Mutex::new(None) }; 3] }; 2];
    // A case that failed has removed its node.
    NODES[suite as usize][mode as usize].lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    /// Removes the empty directories that containerd 1.7 makes in place of a pod's files, and removes only when it
    /// restarts.
    fn remove_orphans(&self) {
        for place in [self.containerd.dir("root"), self.machine().state()] {
            let all = place.join("io.containerd.grpc.v1.cri/sandboxes");
            for pod in std::fs::read_dir(all).into_iter().flatten().flatten() {
                // Anything but an empty directory stays, and fails the case.
                for name in ["hosts", "resolv.conf", "shm"] {
                    let _ = std::fs::remove_dir(pod.path().join(name));
                }
                let _ = std::fs::remove_dir(pod.path());
            }
        }
    }

    /// Lists what containerd still has of containers.
    fn kept(&self) -> String {
        let containers = self.containerd.ctr(["containers", "ls", "-q"]);
        let snapshots = self.containerd.ctr(["snapshots", "ls"]);
        let active = snapshots.ok().lines().filter(|line| line.trim_end().ends_with("Active"));
        containers.ok().lines().chain(active).map(|line| format!("  containerd's own: {line}\n")).collect()
    }

    /// Lists the rules by which node ports lead to pods, except those of the plugin's own chains.
    fn rules(&self) -> String {
        let mut list = self.machine().command(self.containerd.suite.program("iptables-nft"));
        let libraries = self.containerd.suite.dir().join("usr/lib/x86_64-linux-gnu/xtables");
        list.env("XTABLES_LIBDIR", libraries).args(["-t", "nat", "-S"]);
        let all = crate::run(&mut list);
        all.ok().lines().filter(|line| line.contains("CNI-DN-")).map(|line| format!("{line}\n")).collect()
    }
}

impl Case<'_> {
    /// Returns the configuration that a kubelet sends for a plain pod, merged with `config`.
    pub fn config(&self, name: &str, config: &Value) -> Value {
        let machine = self.node.machine();
        let parent = if systemd() {
            format!("{}_{name}.slice", machine.mark).replace('-', "_")
        } else {
            format!("/{}/{name}", machine.mark)
        };
        let mut all = json!({
            "metadata": { "name": name, "namespace": "tests", "uid": name },
            "hostname": name,
            "log_directory": machine.dir.join("logs").join(name),
            "linux": {
                "cgroup_parent": parent,
                "security_context": { "namespace_options": { "network": "POD", "pid": "CONTAINER", "ipc": "POD" } },
            },
        });
        merge(&mut all, config);
        all
    }

    pub fn try_pod(&self, name: &str, config: Value) -> Result<Pod, Failure> {
        Pod::run(self.node.client(), self.mode.handler(), self.config(name, &config))
    }

    /// Runs a pod with the case's name.
    #[track_caller]
    pub fn pod(&self, config: Value) -> Pod {
        must("RunPodSandbox", self.try_pod(&self.name, config))
    }

    #[track_caller]
    pub fn plain_pod(&self) -> Pod {
        self.pod(json!({}))
    }

    /// Makes a new directory on the node, for mounts.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.node.containerd.dir("volumes").join(&self.name).join(name);
        std::fs::create_dir_all(&folder).expect("make a folder");
        folder
    }

    /// Kills and restarts containerd; pods and containers stay as they were.
    pub fn restart_containerd(&mut self) {
        self.node.containerd.kill();
        self.node.containerd.serve();
        let client = self.node.client();
        crate::until("the CRI to answer", 30, || client.call("Status", &json!({})).ok());
    }
}
