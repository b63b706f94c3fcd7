//! One case, run for each containerd in each mode. runc is the control: a case that fails with it is wrong.

use std::path::PathBuf;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use serde_json::{json, Value};

use super::client::Failure;
use super::node::{Mode, Node};
use super::pod::{merge, must, Pod};
use crate::testbed::{Runtime, Snapshot, Suite};

/// What a case gets: a node, and a name of its own.
pub struct Case<'a> {
    pub node: &'a mut Node,
    pub mode: Mode,
    pub suite: Suite,
    pub name: String,
}

/// Runs `body` and fails when it fails or leaves anything behind.
pub fn case(suite: Suite, mode: Mode, name: &str, body: fn(&mut Case<'_>)) {
    if !mode.selected() {
        println!("left out by SHOAL_TEST_MODES");
        return;
    }
    let runtime = if mode == Mode::Runc { Runtime::Runc } else { Runtime::Shoal };
    runtime.twice_for_the_control(|| attempt(suite, mode, name, body));
}

fn attempt(suite: Suite, mode: Mode, name: &str, body: fn(&mut Case<'_>)) {
    let mut node = shared(suite, mode);
    let before = Snapshot::take(node.machine());
    let rules = node.rules();
    let log = node.containerd.log().len();
    let mut case = Case { node: &mut node, mode, suite, name: name.replace('_', "-") };
    let result = catch_unwind(AssertUnwindSafe(|| body(&mut case)));
    let of_this_case = |node: &Node| {
        let all = node.containerd.log();
        format!("--- containerd's log of this case:\n{}---", all.get(log..).unwrap_or(&all))
    };
    if let Err(panic) = result {
        eprintln!("{}", of_this_case(&node));
        node.clear();
        let _ = before.wait_for_nothing_left(node.machine()); // the case's own failure counts
        resume_unwind(panic);
    }
    let left = before.wait_for_nothing_left(node.machine());
    let kept = node.kept();
    let rules_now = node.rules();
    if left.is_some() || !kept.is_empty() || rules != rules_now {
        let log = of_this_case(&node);
        node.clear();
        panic!(
            "left behind:\n{}{kept}rules of the packet filter before:\n{rules}and after:\n{rules_now}{log}",
            left.unwrap_or_default()
        );
    }
}

/// One node per version, mode and test program; its cases run one after the other.
fn shared(suite: Suite, mode: Mode) -> MutexGuard<'static, Node> {
    static NODES: [[OnceLock<Mutex<Node>>; 3]; 2] = [const { [const { OnceLock::new() }; 3] }; 2];
    NODES[suite as usize][mode as usize]
        .get_or_init(|| Mutex::new(Node::start(suite, mode)))
        .lock()
        // A case that failed has cleaned up after itself.
        .unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    /// What containerd still knows of containers.
    fn kept(&self) -> String {
        let containers = self.containerd.ctr(["containers", "ls", "-q"]);
        let snapshots = self.containerd.ctr(["snapshots", "ls"]);
        let active = snapshots.ok().lines().filter(|line| line.trim_end().ends_with("Active"));
        containers
            .ok()
            .lines()
            .chain(active)
            .map(|line| format!("  containerd's own: {line}\n"))
            .collect()
    }

    /// The rules by which ports of the node lead to pods: none but those of the plugin's own chains.
    fn rules(&self) -> String {
        let mut list = self.machine().command(self.containerd.suite.program("iptables-nft"));
        let libraries = self.containerd.suite.dir().join("usr/lib/x86_64-linux-gnu/xtables");
        list.env("XTABLES_LIBDIR", libraries).args(["-t", "nat", "-S"]);
        let all = crate::testbed::run(&mut list);
        all.ok().lines().filter(|line| line.contains("CNI-DN-")).map(|line| format!("{line}\n")).collect()
    }

    /// Removes all pods, whatever state a failed test left them in.
    fn clear(&mut self) {
        if !self.containerd.runs() {
            self.containerd.serve();
        }
        let client = self.client();
        let pods = client.call("ListPodSandbox", &json!({})).unwrap_or_default();
        for pod in pods["items"].as_array().into_iter().flatten() {
            let request = json!({ "pod_sandbox_id": pod["id"] });
            for method in ["StopPodSandbox", "RemovePodSandbox"] {
                if let Err(failure) = client.call(method, &request) {
                    eprintln!("{method} of a failed test: {failure:?}");
                }
            }
        }
        self.containerd.clear();
        self.containerd.remove_empty_cgroups("");
    }
}

impl Case<'_> {
    /// What a kubelet says about a plain pod, with `config` on top.
    pub fn config(&self, name: &str, config: &Value) -> Value {
        let machine = self.node.machine();
        let mut all = json!({
            "metadata": { "name": name, "namespace": "tests", "uid": name },
            "hostname": name,
            "log_directory": machine.dir.join("logs").join(name),
            "linux": {
                "cgroup_parent": format!("/{}/{name}", machine.mark),
                "security_context": { "namespace_options": { "network": "POD", "pid": "CONTAINER", "ipc": "POD" } },
            },
        });
        merge(&mut all, config);
        all
    }

    pub fn try_pod(&self, name: &str, config: Value) -> Result<Pod, Failure> {
        Pod::run(self.node.client(), self.mode.handler(), self.config(name, &config))
    }

    /// A running pod with the case's name.
    #[track_caller]
    pub fn pod(&self, config: Value) -> Pod {
        must("RunPodSandbox", self.try_pod(&self.name, config))
    }

    /// A plain pod.
    #[track_caller]
    pub fn plain_pod(&self) -> Pod {
        self.pod(json!({}))
    }

    /// A new folder of the node, for mounts.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.node.containerd.dir("volumes").join(&self.name).join(name);
        std::fs::create_dir_all(&folder).expect("make a folder");
        folder
    }

    /// What a kubelet does after a pod that could not be run.
    pub fn remove_cgroup(&self, name: &str) {
        super::pod::remove_cgroup(&format!("/{}/{name}", self.node.machine().mark));
    }

    /// containerd is killed and started again: pods and containers are what they were.
    pub fn restart_containerd(&mut self) {
        self.node.containerd.kill();
        self.node.containerd.serve();
        let client = self.node.client();
        crate::testbed::until("the CRI to answer", 30, || client.call("Status", &json!({})).ok());
    }
}
