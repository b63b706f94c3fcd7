//! One private containerd that serves the CRI, with the files of `runtime-config` and a bridge of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{json, Value};

use super::client::Client;
use crate::suite::criu;
use crate::{image, pause_image, source, systemd, until, Containerd, Machine, Setting, Suite, IMAGE, PAUSE};

/// The runtime of the containers, and what holds the pod's namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// runc with a pause container: the control.
    Runc,
    /// shoal with a pause container.
    Shoal,
    /// shoal alone: the shim serves the Sandbox API.
    Shim,
}

impl Mode {
    /// Returns the runtime handler: a table of the configuration.
    pub fn handler(self) -> &'static str {
        match self {
            Mode::Runc => "runc",
            Mode::Shoal => "shoal",
            Mode::Shim => "shoal-shim",
        }
    }

    /// Returns whether the mode is selected by `SHOAL_TEST_MODES=runc,shoal,shim`.
    pub fn selected(self) -> bool {
        let short = match self {
            Mode::Runc => "runc",
            Mode::Shoal => "shoal",
            Mode::Shim => "shim",
        };
        std::env::var("SHOAL_TEST_MODES").map_or(true, |list| list.split(',').any(|name| name == short))
    }
}

pub struct Node {
    pub containerd: Containerd,
}

impl Node {
    pub fn start(suite: Suite, mode: Mode) -> Node {
        let machine = Machine::new();
        network(&machine.dir, suite);
        let setting = setting(&machine.dir, suite, mode);
        Node::of(suite, machine, setting)
    }

    /// Starts a node whose CNI plugin does nothing and takes no time, for measurements without the network.
    /// containerd 2 only.
    pub fn without_network(mode: Mode) -> Node {
        Node::without_network_in(Machine::new(), mode)
    }

    pub fn without_network_in(machine: Machine, mode: Mode) -> Node {
        let plugins = machine.dir.join("cni/bin");
        std::fs::create_dir_all(&plugins).expect("make a folder of the node");
        std::fs::create_dir_all(machine.dir.join("cni/net.d")).expect("make a folder of the node");
        let list = json!({ "cniVersion": "1.0.0", "name": "none", "plugins": [{ "type": "nothing" }] });
        std::fs::write(machine.dir.join("cni/net.d/10-none.conflist"), list.to_string()).expect("write it");
        // Static, since a dynamic linker, or a shell, takes longer than all that the plugin does.
        let compiled = Command::new("cc")
            .args(["-static", "-Os", "-s", "-o"])
            .arg(plugins.join("nothing"))
            .arg(source("tests/testbed/src/cri/nothing.c"))
            .status();
        assert!(compiled.expect("run cc").success(), "compile the plugin");
        let mut setting = setting(&machine.dir, Suite::Forky, mode);
        let suites = Suite::Forky.dir().join("usr/lib/cni");
        let found = format!("bin_dirs = [{suites:?}]\n");
        assert!(setting.tables.contains(&found));
        let own = format!("bin_dirs = [{plugins:?}]\nuse_internal_loopback = true\n");
        setting.tables = setting.tables.replace(&found, &own);
        Node::of(Suite::Forky, machine, setting)
    }

    /// Returns the plugin of `without_network`.
    pub fn plugin(&self) -> PathBuf {
        self.machine().dir.join("cni/bin/nothing")
    }

    fn of(suite: Suite, machine: Machine, setting: Setting) -> Node {
        let node = Node { containerd: Containerd::start_in(suite, machine, setting) };
        // The CRI plugin learns of images by events.
        until("the CRI to see the images", 10, || {
            let seen = |image: &str| {
                let request = json!({ "image": { "image": image } });
                let answer = node.client().call_of("ImageService", "ImageStatus", &request);
                answer.is_ok_and(|answer| !answer["image"].is_null())
            };
            (seen(IMAGE) && seen(PAUSE)).then_some(())
        });
        node
    }

    /// Returns what a kubelet sends for a pod with no special requests.
    pub fn plain_pod(&self, name: &str) -> Value {
        let machine = self.machine();
        let namespaces = json!({ "network": "POD", "pid": "CONTAINER", "ipc": "POD" });
        json!({
            "metadata": { "name": name, "namespace": "plain", "uid": name },
            "hostname": name,
            "log_directory": machine.dir.join("logs").join(name),
            "linux": {
                "cgroup_parent": format!("/{}/{name}", machine.mark),
                "security_context": { "namespace_options": namespaces },
            },
        })
    }

    pub fn client(&self) -> Client {
        Client::new(self.containerd.socket())
    }

    pub fn machine(&self) -> &Machine {
        &self.containerd.machine
    }
}

/// Sets up a bridge with addresses of its own, as in most clusters, and `iptables` under the name that CNI looks for.
fn network(dir: &Path, suite: Suite) {
    for name in ["cni/net.d", "bin", "logs"] {
        std::fs::create_dir_all(dir.join(name)).expect("make a folder of the node");
    }
    for name in ["iptables", "ip6tables"] {
        std::os::unix::fs::symlink(suite.program(&format!("{name}-nft")), dir.join("bin").join(name))
            .expect("link iptables");
    }
    let list = json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": false,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": dir.join("cni/addresses"),
                    "ranges": [[{ "subnet": "10.88.0.0/16" }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    std::fs::write(dir.join("cni/net.d/10-pods.conflist"), list.to_string()).expect("write the CNI list");
}

/// Returns runc's setting for systemd; shoal recognises systemd by the form of a cgroup's path.
fn runc_with_systemd() -> &'static str {
    if systemd() {
        "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runc]\n\
         runtime_type = \"io.containerd.runc.v2\"\n\
         [plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runc.options]\n\
         SystemdCgroup = true\n"
    } else {
        ""
    }
}

/// Returns the settings. Limits of this machine must not matter to the tests: `restrict_oom_score_adj` is for
/// machines without CAP_SYS_RESOURCE.
fn setting(dir: &Path, suite: Suite, mode: Mode) -> Setting {
    let (plugins, lists) = (suite.dir().join("usr/lib/cni"), dir.join("cni/net.d"));
    // On by default in containerd 2 and in shoal's own configuration, off in 1.7.
    let common = "enable_unprivileged_ports = true\nenable_unprivileged_icmp = true\n\
                  restrict_oom_score_adj = true\ndrain_exec_sync_io_timeout = \"5s\"\n";
    let (version, imports, tables) = match suite {
        Suite::Trixie => {
            let shoal =
                std::fs::read_to_string(source("runtime-config/containerd-1.7.toml")).expect("read it");
            let tables = format!(
                "[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = {PAUSE:?}\n{common}\
                 [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = {plugins:?}\n\
                 conf_dir = {lists:?}\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n\
                 runtime_type = \"io.containerd.runc.v2\"\n{}",
                shoal.replace("version = 2\n", "")
            );
            (2, Vec::new(), tables)
        }
        Suite::Forky => {
            let tables = format!(
                "[plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = {PAUSE:?}\n\
                 [plugins.\"io.containerd.cri.v1.runtime\"]\n{common}\
                 [plugins.\"io.containerd.cri.v1.runtime\".cni]\nbin_dirs = [{plugins:?}]\n\
                 conf_dir = {lists:?}\n"
            );
            (3, vec![source("runtime-config/containerd-2.toml")], tables + runc_with_systemd())
        }
    };
    let mut path = dir.join("bin").into_os_string();
    path.push(":");
    path.push(suite.path());
    path.push(":");
    path.push(criu());
    let mut environment = vec![
        ("PATH", path),
        ("XTABLES_LIBDIR", suite.dir().join("usr/lib/x86_64-linux-gnu/xtables").into_os_string()),
    ];
    if suite == Suite::Trixie && mode == Mode::Shim {
        environment.push(("ENABLE_CRI_SANDBOXES", "1".into()));
    }
    Setting {
        namespace: "k8s.io".to_owned(),
        version,
        cri: true,
        rootless: false,
        imports,
        tables,
        environment,
        images: vec![image(), pause_image()],
    }
}
