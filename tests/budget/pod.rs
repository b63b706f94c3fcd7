//! A pod without a pause container and with one container, made as CRI makes it.

use crate::life::{containerd, give_up};
use containerd_shim_protos::api::*;
use containerd_shim_protos::sandbox_api::*;
use serde_json::json;
use std::path::PathBuf;
use testbed::fake::{ended, eventually, Containerd, Version};
use testbed::wire::{Wire, SANDBOX, TASK_V3};

const POD: &str = "s1";
const MEMBER: &str = "c1";

pub struct Pod {
    containerd: Containerd,
    wire: Wire,
    pub server: u32,
}

fn about() -> PingRequest {
    PingRequest { sandbox_id: POD.into(), ..Default::default() }
}

impl Pod {
    pub fn run(program: PathBuf) -> Pod {
        let containerd = containerd(Version::V2_3, program);
        for folder in containerd.pod_cgroups() {
            std::fs::create_dir_all(folder).unwrap();
        }
        let bundle = containerd.prepare_pod(POD, None);
        let shim = containerd.try_start(POD, &bundle, None).unwrap();
        let mut wire = containerd.connect(&shim);
        let request = ConnectRequest { id: POD.into(), ..Default::default() };
        let server = wire.task::<ConnectResponse>("Connect", &request).unwrap().shim_pid;
        let request = CreateSandboxRequest {
            sandbox_id: POD.into(),
            bundle_path: bundle.to_str().unwrap().into(),
            options: Some(containerd.pod_options()).into(),
            ..Default::default()
        };
        wire.call::<CreateSandboxResponse>(SANDBOX, "CreateSandbox", &request).unwrap();
        let pid = wire.call::<StartSandboxResponse>(SANDBOX, "StartSandbox", &about()).unwrap().pid;
        prepare(&containerd, pid);
        // containerd opens a connection for each container.
        let mut member = containerd.connect(&shim);
        let bundle = containerd.bundle(MEMBER).to_str().unwrap().into();
        let request = CreateTaskRequest { id: MEMBER.into(), bundle, ..Default::default() };
        member.call::<CreateTaskResponse>(TASK_V3, "Create", &request).unwrap();
        let request = StartRequest { id: MEMBER.into(), ..Default::default() };
        member.call::<StartResponse>(TASK_V3, "Start", &request).unwrap();
        Pod { containerd, wire, server }
    }

    pub fn end(mut self) {
        self.wire.call::<StopSandboxResponse>(SANDBOX, "StopSandbox", &about()).unwrap();
        self.wire.call::<ShutdownSandboxResponse>(SANDBOX, "ShutdownSandbox", &about()).unwrap();
        assert!(self.wire.next().is_none(), "the shim hangs up");
        assert!(eventually(|| ended(self.server)), "the shim ends");
        let bundle = self.containerd.pod_bundle(POD);
        self.containerd.delete_in(POD, &bundle);
        self.containerd.remove(&bundle);
        self.containerd.remove_bundle(MEMBER);
        for folder in self.containerd.pod_cgroups().iter().filter(|folder| folder.exists()) {
            std::fs::remove_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        }
    }
}

/// Leaves no process behind if a test fails.
impl Drop for Pod {
    fn drop(&mut self) {
        if !ended(self.server) {
            give_up(&self.containerd, self.server, POD, &self.containerd.pod_bundle(POD));
        }
    }
}

fn prepare(containerd: &Containerd, pod: u32) {
    let annotations =
        json!({ "io.kubernetes.cri.sandbox-id": POD, "io.kubernetes.cri.container-type": "container" });
    let bundle = containerd.prepare(MEMBER, &["/probe", "sleep"], annotations);
    std::fs::write(bundle.join("sandbox"), POD).unwrap();
    containerd.configure(MEMBER, |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        for (kind, name) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
            namespaces.push(json!({ "type": kind, "path": format!("/proc/{pod}/ns/{name}") }));
        }
        config["linux"]["cgroupsPath"] = format!("/{}/pod/{MEMBER}", containerd.namespace).into();
    });
}
