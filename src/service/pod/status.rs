//! What the responses tell about a pod beyond the fields of the messages.

use crate::error::{Error, Kind, Result};
use crate::launch::ExitStatus;
use crate::sandbox::{PodConfig, PodPid, PodState, PodStatus, Status};
use crate::service::convert::{any, timestamp};
use crate::service::protos::status::{ContainerStatus, PodStatus as Extra};
use crate::spec::{IdRange, Mappings, Ns};
use protobuf::well_known_types::any::Any;
use protobuf::well_known_types::timestamp::Timestamp;
use protobuf::Message;
use serde_json::{json, Map, Value};

const EXTRA: &str = "io.containerd.shoal.v1.PodStatus";

pub(in crate::service) fn word(state: PodState) -> &'static str {
    match state {
        PodState::Created => "created",
        PodState::Ready => "running",
        PodState::Paused => "paused",
        PodState::Stopped => "stopped",
    }
}

/// CRI's two states. A paused pod is ready: it has its namespaces and can be resumed.
pub(in crate::service) fn cri_word(state: PodState) -> &'static str {
    match state {
        PodState::Ready | PodState::Paused => "SANDBOX_READY",
        PodState::Created | PodState::Stopped => "SANDBOX_NOTREADY",
    }
}

pub(in crate::service) fn exited_at(exit: Option<ExitStatus>) -> Option<Timestamp> {
    exit.map(|exit| timestamp(exit.at))
}

/// Our own message, for clients that know it.
pub(in crate::service) fn extra(status: &PodStatus) -> Result<Any> {
    let containers = status.containers.iter().map(|container| ContainerStatus {
        id: container.key.container.clone(),
        state: match container.status {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
        .into(),
        pid: container.pid,
        exit_status: container.exit.map_or(0, |exit| exit.code),
        exited_at: exited_at(container.exit).into(),
        ..Default::default()
    });
    let extra = Extra {
        state: word(status.state).into(),
        cgroup: status.cgroup.clone(),
        containers: containers.collect(),
        ..Default::default()
    };
    let bytes =
        extra.write_to_bytes().map_err(|e| Error::caused_by(Kind::Bug, format!("encode {EXTRA}"), e))?;
    Ok(any(EXTRA, bytes))
}

/// containerd's `SandboxInfo` as JSON, which its CRI plugin decodes and completes: a wrong type would make
/// `crictl inspectp` fail.
pub(in crate::service) fn info(status: &PodStatus) -> String {
    let stopped = status.state == PodState::Stopped;
    let mut info = json!({
        "pid": status.pid,
        "processStatus": word(status.state),
        "netNamespaceClosed": stopped && status.config.net != Ns::Host,
        "runtimeType": "io.containerd.shoal.v2",
        "config": config(&status.config),
    });
    if let (Ok(spec @ Value::Object(_)), Some(info)) =
        (serde_json::from_slice(&status.spec), info.as_object_mut())
    {
        info.insert("runtimeSpec".into(), spec);
    }
    info.to_string()
}

/// PodSandboxConfig as Go's encoding/json writes it: CRI's own names, numbers for modes.
fn config(c: &PodConfig) -> Value {
    let mut namespaces = Map::new();
    for (name, mode) in [("network", shared(&c.net)), ("pid", pid(c.pid)), ("ipc", shared(&c.ipc))] {
        namespaces.insert(name.into(), mode.into());
    }
    if let Some(user) = &c.user {
        namespaces.insert("userns_options".into(), mappings(user));
    }
    let mut config = json!({
        "metadata": { "name": c.name, "uid": c.uid, "namespace": c.namespace, "attempt": c.attempt },
        "hostname": c.hostname,
        "labels": c.labels,
        "annotations": c.annotations,
        "linux": {
            "cgroup_parent": c.cgroup_parent,
            "security_context": { "namespace_options": namespaces },
            "sysctls": c.sysctls,
        },
    });
    if let (Some(dns), Some(config)) = (&c.dns, config.as_object_mut()) {
        let dns = json!({ "servers": dns.servers, "searches": dns.searches, "options": dns.options });
        config.insert("dns_config".into(), dns);
    }
    config
}

fn shared(namespace: &Ns) -> u32 {
    match namespace {
        Ns::Host => 2,
        Ns::New | Ns::Join(_) => 0,
    }
}

fn pid(mode: PodPid) -> u32 {
    match mode {
        PodPid::Pod => 0,
        PodPid::Container => 1,
        PodPid::Node => 2,
    }
}

fn mappings(user: &Mappings) -> Value {
    let list = |list: &[IdRange]| -> Vec<Value> {
        let one = |m: &IdRange| json!({ "host_id": m.outside, "container_id": m.inside, "length": m.count });
        list.iter().map(one).collect()
    };
    json!({ "mode": 0, "uids": list(&user.uids), "gids": list(&user.gids) })
}

#[cfg(test)]
mod tests;
