//! A node for each peer: a containerd of its own that serves the CRI, with a network plugin that does nothing.

use std::path::Path;
use std::process::Command;

use serde_json::{json, Value};

use crate::peer::Peer;
use crate::Run;
use testbed::cri::{Mode, Node, Pod};
use testbed::{Machine, Snapshot};

/// The number of threads that remove pods at the same time.
const REMOVERS: usize = 4;

pub struct Host {
    pub peer: Peer,
    pub node: Node,
    handler: &'static str,
    /// The machine's state without a pod.
    empty: Snapshot,
}

/// The peers of a run that have a node: shoal without a pause container, runc with one.
pub fn peers(run: &Run) -> Vec<Peer> {
    run.peers.iter().copied().filter(|peer| matches!(peer, Peer::Shoal | Peer::Runc)).collect()
}

/// The nodes of all peers, to be used in turn.
pub fn all(run: &Run) -> Vec<Host> {
    peers(run).into_iter().map(|peer| Host::start(peer, Path::new("/tmp"))).collect()
}

impl Host {
    /// `folder` is the parent of the node's own folder: containerd's database, its snapshots, the bundles.
    pub fn start(peer: Peer, folder: &Path) -> Host {
        let mode = if peer == Peer::Shoal { Mode::Shim } else { Mode::Runc };
        let node = Node::without_network_in(Machine::below(folder), mode);
        // Pods and the server share a parent cgroup, which counts what the kernel spends on either.
        Pod::make_cgroup(
            &json!({ "linux": { "cgroup_parent": format!("/{}/server", node.machine().mark) } }),
        );
        let empty = Snapshot::take(node.machine());
        Host { peer, node, handler: mode.handler(), empty }
    }

    pub fn config(&self, name: &str) -> Value {
        self.node.plain_pod(name)
    }

    /// RunPodSandbox, in an existing cgroup.
    pub fn run(&self, config: Value) -> Pod {
        Pod::run_in_cgroup(self.node.client(), self.handler, config)
            .unwrap_or_else(|e| panic!("RunPodSandbox by {}: {e:?}", self.peer.name()))
    }

    /// RunPodSandbox, and a running container in it.
    pub fn run_with_container(&self, config: Value) -> Pod {
        let pod = self.run(config);
        pod.start("one", json!({}));
        pod
    }

    /// The same, and creates the cgroup first.
    pub fn pod(&self, name: &str) -> Pod {
        let config = self.config(name);
        Pod::make_cgroup(&config);
        self.run_with_container(config)
    }

    pub fn remove(&self, pods: &[Pod]) {
        std::thread::scope(|scope| {
            for part in pods.chunks(pods.len().div_ceil(REMOVERS).max(1)) {
                scope.spawn(|| part.iter().for_each(Pod::remove));
            }
        });
    }

    /// Ends the node. The pods must have been removed, and nothing of them may be left.
    pub fn end(self) {
        self.empty.assert_nothing_left(self.node.machine());
    }
}

/// A folder in memory.
pub struct Memory(tempfile::TempDir);

impl Memory {
    pub fn mount() -> Memory {
        let dir = tempfile::Builder::new().prefix("sb-memory-").tempdir_in("/tmp").expect("make a folder");
        let mut mount = Command::new("mount");
        let status = mount.args(["-t", "tmpfs", "-o", "mode=755", "memory"]).arg(dir.path()).status();
        assert!(status.expect("run mount").success(), "mount a tmpfs");
        Memory(dir)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // The mount is in this process's mount namespace, and goes with it if this fails.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}
