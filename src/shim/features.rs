//! The OCI features document of this runtime: runtime-spec, features.md and features-linux.md.
//!
//! Tests check its lists of words against the code that parses specs.

use crate::seccomp;
use crate::spec::{self, memory_policy};
use serde_json::{json, Value};

/// Options not passed to the filesystem; `r…` is the recursive form of mount_setattr(2).
pub(super) const MOUNT_OPTIONS: &[&str] = &[
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
    "noiversion",
];

const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];

const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];
const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];
const FLAGS: [&str; 4] =
    ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG", WAIT_KILLABLE];
const WAIT_KILLABLE: &str = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV";

/// Every kernel that can run the server knows the others.
fn supported_flags() -> Vec<&'static str> {
    let waits = seccomp::waits_killable();
    FLAGS.into_iter().filter(|flag| waits || *flag != WAIT_KILLABLE).collect()
}

pub(super) fn features() -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": MOUNT_OPTIONS,
        // By the names that runc gives them. The program may be missing on the host, as with runc.
        "annotations": { "org.opencontainers.runc.checkpoint.enabled": "true" },
        "linux": {
            "namespaces": NAMESPACES,
            "capabilities": spec::capability::NAMES.as_slice(),
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": ACTIONS,
                "operators": OPERATORS,
                "archs": seccomp::accepted(),
                "knownFlags": FLAGS,
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
    use crate::spec::Spec;

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

    #[test]
    fn every_namespace_of_the_document_is_taken() {
        let mount = json!({ "type": "mount" });
        for name in NAMESPACES.iter().filter(|name| **name != "mount") {
            parsed(json!([mount, { "type": name }]), json!(["bind"]))
                .unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }

    #[test]
    fn every_mount_option_of_the_document_is_taken_and_none_twice() {
        for (i, word) in MOUNT_OPTIONS.iter().enumerate() {
            assert!(!MOUNT_OPTIONS[..i].contains(word), "{word} is there twice");
            // On a tmpfs an unknown word goes to the filesystem; on a bind mount it is refused.
            let options = if *word == "tmpcopyup" { json!([word]) } else { json!(["bind", word]) };
            parsed(json!([{ "type": "mount" }, { "type": "user" }]), options)
                .unwrap_or_else(|e| panic!("{word}: {e}"));
        }
        assert!(parsed(json!([{ "type": "mount" }]), json!(["bind", "size=1"])).is_err());
    }

    fn words(at: &str) -> Vec<String> {
        serde_json::from_value(features().pointer(at).expect(at).clone()).expect(at)
    }

    fn with(field: &str, value: Value) -> Result<Spec, crate::error::Error> {
        let mut spec = json!({
            "ociVersion": "1.2.1",
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
