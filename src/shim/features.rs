//! The OCI features document of what is implemented: runtime-spec, features.md and features-linux.md.
//!
//! A test holds each word of it against the code that reads specs.

use crate::{seccomp, spec};
use serde_json::{json, Value};

/// Words that are not for the filesystem; `r…` is the recursive form of mount_setattr(2).
pub(super) const MOUNT_OPTIONS: &[&str] = &[
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
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

const NAMESPACES: [&str; 6] = ["cgroup", "ipc", "mount", "network", "pid", "uts"];

const ACTIONS: [&str; 8] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
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
const FLAGS: [&str; 3] =
    ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG"];

pub(super) fn features() -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.1",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": MOUNT_OPTIONS,
        "linux": {
            "namespaces": NAMESPACES,
            "capabilities": spec::capability::NAMES.as_slice(),
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": false, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": ACTIONS,
                "operators": OPERATORS,
                "archs": seccomp::accepted(),
                // Each kernel that can run the server knows them all.
                "knownFlags": FLAGS,
                "supportedFlags": FLAGS,
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": false },
            // containerd reads this one before it creates a container with mapped mounts.
            "mountExtensions": { "idmap": { "enabled": false } },
            "netDevices": { "enabled": false },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::spec::Spec;

    fn parsed(namespaces: Value, options: Value) -> Result<Spec, crate::error::Error> {
        let spec = json!({
            "ociVersion": features()["ociVersionMax"],
            "root": { "path": "rootfs" },
            "process": { "cwd": "/", "args": ["sh"], "user": { "uid": 0, "gid": 0 } },
            "mounts": [{ "destination": "/x", "type": "tmpfs", "source": "/", "options": options }],
            "linux": { "namespaces": namespaces },
        });
        Spec::parse(spec.to_string().as_bytes())
    }

    #[test]
    fn every_namespace_of_the_document_is_taken_and_no_other() {
        let mount = json!({ "type": "mount" });
        for name in NAMESPACES.iter().filter(|name| **name != "mount") {
            parsed(json!([mount, { "type": name }]), json!(["bind"]))
                .unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        for name in ["user", "time"] {
            let error = parsed(json!([mount, { "type": name }]), json!(["bind"])).expect_err(name);
            assert_eq!(error.kind(), Kind::Unsupported);
        }
    }

    #[test]
    fn every_mount_option_of_the_document_is_taken_and_none_twice() {
        for (i, word) in MOUNT_OPTIONS.iter().enumerate() {
            assert!(!MOUNT_OPTIONS[..i].contains(word), "{word} is there twice");
            // On a tmpfs a word that we do not know is the filesystem's; on a bind it is refused.
            let options = if *word == "tmpcopyup" { json!([word]) } else { json!(["bind", word]) };
            parsed(json!([{ "type": "mount" }]), options).unwrap_or_else(|e| panic!("{word}: {e}"));
        }
        for word in ["idmap", "ridmap", "size=1"] {
            assert!(parsed(json!([{ "type": "mount" }]), json!(["bind", word])).is_err());
        }
    }

    #[test]
    fn every_word_of_seccomp_is_compiled_and_no_other() {
        let compiled = |field: &str, word: &Value| {
            let mut profile = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["read"], "action": "SCMP_ACT_TRAP", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}],
            });
            match field {
                "actions" => profile["syscalls"][0]["action"] = word.clone(),
                "operators" => profile["syscalls"][0]["args"][0]["op"] = word.clone(),
                "archs" => profile["architectures"] = json!([word]),
                _ => profile["flags"] = json!([word]),
            }
            let spec = json!({
                "ociVersion": "1.2.0",
                "root": { "path": "rootfs" },
                "process": { "cwd": "/", "args": ["sh"], "user": { "uid": 0, "gid": 0 } },
                "linux": { "namespaces": [{ "type": "mount" }], "seccomp": profile },
            });
            let spec = Spec::parse(spec.to_string().as_bytes())?;
            crate::seccomp::compile(&spec.seccomp.expect("a profile"))
        };
        let features = features();
        for field in ["actions", "operators", "archs", "knownFlags", "supportedFlags"] {
            for word in features["linux"]["seccomp"][field].as_array().expect(field) {
                compiled(field, word).unwrap_or_else(|e| panic!("{word}: {e}"));
            }
        }
        let others = [("actions", "SCMP_ACT_NOTIFY"), ("flags", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")];
        for (field, word) in others {
            let error = compiled(field, &word.into()).expect_err(word);
            assert_eq!(error.kind(), Kind::Unsupported, "{word}");
        }
    }
}
