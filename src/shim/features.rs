//! The OCI features document of this runtime: runtime-spec, features.md and features-linux.md.
//!
//! Its words come from the tables that the parser reads.

use super::names;
use super::version::REVISION;
use crate::error::{Context, Result};
use crate::seccomp;
use crate::spec::{annotation, capability, memory_policy, mount};
use oci_spec::runtime::{
    Hooks, LinuxNamespaceType, LinuxSeccompAction, LinuxSeccompFilterFlag as Flag, LinuxSeccompOperator,
};
use serde::de::DeserializeOwned;
use serde_json::{json, Value};
use std::io::Write;

fn sorted<T: Ord>(words: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut words: Vec<T> = words.into_iter().collect();
    words.sort();
    words
}

fn names_of<T: DeserializeOwned>() -> Vec<&'static str> {
    sorted(names::of::<T>().iter().copied())
}

/// Every kernel that can run the server knows the others.
fn supported_flags() -> Vec<&'static str> {
    let (waits, newer) = (seccomp::waits_killable(), Flag::SeccompFilterFlagWaitKillableRecv.to_string());
    names_of::<Flag>().into_iter().filter(|flag| waits || *flag != newer).collect()
}

/// The verb `features`, which is named as runc's.
pub(super) fn print() -> Result<()> {
    writeln!(std::io::stdout(), "{:#}", features()).context(|| "write the answer")
}

/// What the runtime implements, whatever the host has: so the document wants it, except for `supportedFlags`.
pub(super) fn features() -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": names::of::<Hooks>(),
        // Recursive ones begin with an `r`.
        "mountOptions": sorted(mount::words()),
        "annotations": {
            "io.containerd.shoal.version": env!("CARGO_PKG_VERSION"),
            "io.containerd.shoal.revision": REVISION,
            // By the names that runc gives them.
            "io.github.seccomp.libseccomp.version": seccomp::version(),
            "org.opencontainers.runc.checkpoint.enabled": "true",
        },
        "potentiallyUnsafeConfigAnnotations": annotation::ALL,
        "linux": {
            "namespaces": names_of::<LinuxNamespaceType>(),
            "capabilities": capability::NAMES.as_slice(),
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": names_of::<LinuxSeccompAction>(),
                "operators": names_of::<LinuxSeccompOperator>(),
                "archs": seccomp::accepted(),
                "knownFlags": names_of::<Flag>(),
                "supportedFlags": supported_flags(),
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            // containerd checks this one before it creates a container with idmapped mounts.
            "mountExtensions": { "idmap": { "enabled": true } },
            "memoryPolicy": {
                "modes": memory_policy::MODES.map(|(name, _)| name),
                "flags": memory_policy::FLAGS.map(|(name, _)| name),
            },
            "netDevices": { "enabled": true },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{self, Spec};

    fn parsed(namespaces: Value, options: Value) -> Result<Spec, crate::error::Error> {
        let mut spec = json!({
            "ociVersion": features()["ociVersionMax"],
            "root": { "path": "rootfs" },
            "process": { "cwd": "/", "args": ["sh"], "user": { "uid": 0, "gid": 0 } },
            "mounts": [{ "destination": "/x", "type": "tmpfs", "source": "/", "options": options }],
            "linux": { "namespaces": namespaces },
        });
        if namespaces.as_array().is_some_and(|list| list.iter().any(|one| one["type"] == "user")) {
            let map = json!([{ "containerID": 0, "hostID": 100000, "size": 65536 }]);
            spec["linux"]["uidMappings"] = map.clone();
            spec["linux"]["gidMappings"] = map;
        }
        Spec::parse(spec.to_string().as_bytes())
    }

    /// A runtime must not tell of what the version of the document does not know.
    #[test]
    fn the_document_has_every_property_and_no_other() {
        let typed: oci_spec::runtime::Features = serde_json::from_value(features()).expect("its own type");
        assert_eq!(serde_json::to_value(typed).expect("JSON"), features());
        for version in ["ociVersionMin", "ociVersionMax"] {
            let version = features()[version].as_str().expect("a version").to_owned();
            with("/ociVersion", version.into()).expect("taken");
        }
    }

    #[test]
    fn every_namespace_of_the_document_is_taken() {
        let mount = json!({ "type": "mount" });
        for name in words("/linux/namespaces").iter().filter(|name| *name != "mount") {
            parsed(json!([mount, { "type": name }]), json!(["bind"]))
                .unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }

    #[test]
    fn every_mount_option_of_the_document_is_taken_and_none_twice() {
        let options = words("/mountOptions");
        for (i, word) in options.iter().enumerate() {
            assert!(!options[..i].contains(word), "{word} is there twice");
            // On a tmpfs an unknown word goes to the filesystem; on a bind mount it is refused.
            let options = if word == "tmpcopyup" { json!([word]) } else { json!(["bind", word]) };
            parsed(json!([{ "type": "mount" }, { "type": "user" }]), options)
                .unwrap_or_else(|e| panic!("{word}: {e}"));
        }
        assert!(parsed(json!([{ "type": "mount" }]), json!(["bind", "size=1"])).is_err());
    }

    #[test]
    fn every_policy_of_the_document_is_taken() {
        for mode in words("/linux/memoryPolicy/modes") {
            let nodes = if matches!(mode.as_str(), "MPOL_DEFAULT" | "MPOL_LOCAL") { "" } else { "0" };
            let policy = json!({ "mode": mode, "nodes": nodes, "flags": features()["linux"]["memoryPolicy"]["flags"] });
            with("/linux/memoryPolicy", policy).unwrap_or_else(|e| panic!("{mode}: {e}"));
        }
    }

    /// What is `true` in the document is not lost between the spec and the plan.
    #[test]
    fn what_is_enabled_is_read() {
        let map = json!([{ "containerID": 0, "hostID": 1, "size": 1 }]);
        let bind = json!([{ "destination": "/x", "source": "/y", "options": ["bind"], "uidMappings": map, "gidMappings": map }]);
        let rdt = json!({ "closID": "a", "schemata": ["L3:0=1"], "enableMonitoring": true });
        let read = |field: &str, value: Value, is_there: fn(Spec) -> bool| {
            assert!(is_there(with(field, value).unwrap_or_else(|e| panic!("{e}"))), "{field}");
        };
        read("/mounts", bind, |spec| spec.mounts.iter().any(|mount| mount.idmap.is_some()));
        read("/process/apparmorProfile", json!("a"), |spec| spec.process.apparmor_profile.is_some());
        read("/process/selinuxLabel", json!("a"), |spec| spec.process.selinux_label.is_some());
        read("/linux/netDevices", json!({ "eth0": {} }), |spec| spec.net_devices.len() == 1);
        read("/linux/intelRdt", rdt, |spec| {
            spec.intel_rdt.is_some_and(|r| r.monitoring && r.schemata.len() == 1)
        });
        let rdma = json!({ "rdma": { "mlx5_1": { "hcaHandles": 3 } } });
        read("/linux/resources", rdma, |spec| spec.resources.rdma.len() == 1);
    }

    fn words(at: &str) -> Vec<String> {
        let words: Vec<String> = serde_json::from_value(features().pointer(at).expect(at).clone()).expect(at);
        assert!(!words.is_empty(), "{at}");
        words
    }

    fn with(field: &str, value: Value) -> Result<Spec, crate::error::Error> {
        let mut spec = json!({
            "ociVersion": "1.3.0",
            "root": { "path": "rootfs" },
            "process": { "cwd": "/", "args": ["sh"], "user": { "uid": 0, "gid": 0 } },
            "linux": { "namespaces": [{ "type": "mount" }] },
        });
        let (place, name) = field.rsplit_once('/').expect("a pointer");
        spec.pointer_mut(place).expect(place)[name] = value;
        Spec::parse(spec.to_string().as_bytes())
    }

    #[test]
    fn every_hook_of_the_document_is_read_and_there_are_no_others() {
        let spec::hook::Hooks {
            prestart,
            create_runtime,
            create_container,
            start_container,
            poststart,
            poststop,
        } = {
            let hook = |name: String| (name.clone(), json!([{ "path": format!("/{name}") }]));
            let all: serde_json::Map<String, Value> = words("/hooks").into_iter().map(hook).collect();
            with("/hooks", all.into()).expect("all are known").hooks
        };
        let lists = [prestart, create_runtime, create_container, start_container, poststart, poststop];
        let read: Vec<String> =
            lists.iter().flatten().map(|hook| hook.path.display().to_string()[1..].to_owned()).collect();
        assert_eq!(read, words("/hooks"));
    }

    #[test]
    fn every_capability_of_the_document_is_known_and_the_next_one_is_not() {
        let names = words("/linux/capabilities");
        let spec = with("/process/capabilities", json!({ "bounding": names })).expect("all are known");
        let process = spec.process;
        assert_eq!(process.warnings, Vec::<String>::new());
        assert_eq!(process.capabilities.expect("given").bounding, (1 << names.len()) - 1);
        let spec = with("/process/capabilities", json!({ "bounding": ["CAP_NEXT"] })).expect("ignored");
        assert_eq!(spec.process.warnings.len(), 1);
    }

    /// Parses and compiles the profile: the document must not promise what libseccomp cannot do.
    fn compiled(profile: Value) -> Result<(), crate::error::Error> {
        let seccomp = with("/linux/seccomp", profile)?.seccomp.expect("given");
        crate::seccomp::compile(&seccomp).map(drop)
    }

    #[test]
    fn every_seccomp_word_of_the_document_is_taken() {
        for action in words("/linux/seccomp/actions") {
            compiled(with_rule(&action)).unwrap_or_else(|e| panic!("{action}: {e}"));
            let default = compiled(json!({ "defaultAction": action, "listenerPath": "/agent" }));
            assert_eq!(default.is_ok(), action != "SCMP_ACT_NOTIFY", "default {action}: {default:?}");
        }
        for operator in words("/linux/seccomp/operators") {
            let condition = json!({ "index": 0, "value": 7, "valueTwo": 3, "op": operator });
            let rule = json!({ "names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [condition] });
            compiled(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule] }))
                .unwrap_or_else(|e| panic!("{operator}: {e}"));
        }
        for arch in words("/linux/seccomp/archs") {
            let rule = json!({ "names": ["mkdirat"], "action": "SCMP_ACT_ALLOW" });
            let profile =
                json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": [arch], "syscalls": [rule] });
            compiled(profile).unwrap_or_else(|e| panic!("{arch}: {e}"));
        }
        let known = words("/linux/seccomp/knownFlags");
        assert!(words("/linux/seccomp/supportedFlags").iter().all(|flag| known.contains(flag)));
        for flag in known {
            let mut profile = with_rule("SCMP_ACT_NOTIFY");
            profile["flags"] = json!([flag]);
            compiled(profile).unwrap_or_else(|e| panic!("{flag}: {e}"));
        }
    }

    fn with_rule(action: &str) -> Value {
        let rule = json!({ "names": ["mkdir"], "action": action });
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent", "syscalls": [rule] })
    }
}
