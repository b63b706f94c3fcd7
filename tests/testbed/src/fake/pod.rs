//! A pod whose containers share its pid namespace, in the order of containerd's calls.

use super::{Containerd, Shim};
use crate::wire::{Wire, SANDBOX};
use containerd_shim_protos::sandbox_api::*;
use protobuf::well_known_types::any::Any;
use protobuf::Message;
use shoal::service::protos::pod::{NamespaceMode, NamespaceOption, PodSandboxConfig};

pub fn about() -> PingRequest {
    PingRequest { sandbox_id: "s1".into(), ..Default::default() }
}

pub fn launch(containerd: &Containerd) -> Shim {
    let bundle = containerd.prepare_pod("s1", None);
    containerd.try_start("s1", &bundle, None).unwrap()
}

/// Makes CreateSandbox and StartSandbox; returns the pod's pid.
pub fn run(containerd: &Containerd, wire: &mut Wire) -> u32 {
    create(containerd, wire);
    wire.call::<StartSandboxResponse>(SANDBOX, "StartSandbox", &about()).unwrap().pid
}

pub fn create(containerd: &Containerd, wire: &mut Wire) {
    let request = request(containerd, |_| ());
    wire.call::<CreateSandboxResponse>(SANDBOX, "CreateSandbox", &request).unwrap();
}

/// Returns a CreateSandbox request, and makes the pod's cgroups.
pub fn request(containerd: &Containerd, change: impl FnOnce(&mut NamespaceOption)) -> CreateSandboxRequest {
    for folder in containerd.pod_cgroups() {
        std::fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{folder:?}: {e}"));
    }
    let options = containerd.pod_options();
    let mut config = PodSandboxConfig::parse_from_bytes(&options.value).unwrap();
    let security_context = &mut config.linux.mut_or_insert_default().security_context;
    let namespaces = &mut security_context.mut_or_insert_default().namespace_options;
    namespaces.mut_or_insert_default().pid = NamespaceMode::POD.into();
    change(namespaces.mut_or_insert_default());
    let options = Any { value: config.write_to_bytes().unwrap(), ..options };
    CreateSandboxRequest {
        sandbox_id: "s1".into(),
        bundle_path: containerd.pod_bundle("s1").to_str().unwrap().into(),
        options: Some(options).into(),
        ..Default::default()
    }
}

pub fn shut_down(wire: &mut Wire) {
    wire.call::<StopSandboxResponse>(SANDBOX, "StopSandbox", &about()).unwrap();
    wire.call::<ShutdownSandboxResponse>(SANDBOX, "ShutdownSandbox", &about()).unwrap();
}

/// Does what containerd, and then the kubelet, do afterwards.
pub fn forget(containerd: &Containerd) {
    let bundle = containerd.pod_bundle("s1");
    containerd.delete_in("s1", &bundle);
    containerd.remove(&bundle);
    for folder in containerd.pod_cgroups().into_iter().filter(|folder| folder.exists()) {
        std::fs::remove_dir(&folder).unwrap_or_else(|e| panic!("{folder:?}: {e}"));
    }
}
