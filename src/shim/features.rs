//! The OCI features document of what is implemented: runtime-spec, features.md and features-linux.md.
//!
//! A test holds each word of it against the code that reads specs.

use crate::spec;
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
    "idmap",
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

const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"];

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
                "actions": [
                    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                    "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
                ],
                "operators": [
                    "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ",
                    "SCMP_CMP_NE",
                ],
                "archs": [
                    "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64",
                    "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32",
                    "SCMP_ARCH_PPC", "SCMP_ARCH_PPC64", "SCMP_ARCH_PPC64LE", "SCMP_ARCH_RISCV64", "SCMP_ARCH_S390",
                    "SCMP_ARCH_S390X", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64",
                ],
                "knownFlags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG"],
                "supportedFlags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG"],
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": false },
            // containerd reads this one before it creates a container with mapped mounts.
            "mountExtensions": { "idmap": { "enabled": true } },
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
    fn every_namespace_of_the_document_is_taken_and_no_other() {
        let mount = json!({ "type": "mount" });
        for name in NAMESPACES.iter().filter(|name| **name != "mount") {
            parsed(json!([mount, { "type": name }]), json!(["bind"]))
                .unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        let error = parsed(json!([mount, { "type": "time" }]), json!(["bind"])).expect_err("not supported");
        assert_eq!(error.kind(), Kind::Unsupported);
    }

    #[test]
    fn every_mount_option_of_the_document_is_taken_and_none_twice() {
        for (i, word) in MOUNT_OPTIONS.iter().enumerate() {
            assert!(!MOUNT_OPTIONS[..i].contains(word), "{word} is there twice");
            // On a tmpfs a word that we do not know is the filesystem's; on a bind it is refused.
            let options = if *word == "tmpcopyup" { json!([word]) } else { json!(["bind", word]) };
            parsed(json!([{ "type": "mount" }, { "type": "user" }]), options)
                .unwrap_or_else(|e| panic!("{word}: {e}"));
        }
        for word in ["iversion", "size=1"] {
            assert!(parsed(json!([{ "type": "mount" }]), json!(["bind", word])).is_err());
        }
    }
}
