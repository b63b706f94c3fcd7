//! The attacker: what the container's program may do, and what restricts it.

use serde_json::{json, Value};

/// A container's default capabilities.
const DEFAULT: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// The host id of root in a user namespace.
pub const FIRST: u32 = 300_000;

#[derive(Clone, Debug)]
pub struct Attacker {
    pub uid: u32,
    pub capabilities: Vec<&'static str>,
    pub seccomp: bool,
    pub no_new_privileges: bool,
    /// In a user namespace of its own.
    pub mapped: bool,
    /// In the host's pid namespace.
    pub host_pids: bool,
    /// The victims have a terminal.
    pub terminal: bool,
}

impl Attacker {
    pub fn with(capabilities: &[&'static str]) -> Attacker {
        Attacker {
            uid: 0,
            capabilities: capabilities.to_vec(),
            seccomp: false,
            no_new_privileges: false,
            mapped: false,
            host_pids: false,
            terminal: false,
        }
    }

    pub fn default_and(more: &[&'static str]) -> Attacker {
        Attacker::with(&[DEFAULT, more].concat())
    }

    /// Returns the `process` of config.json, and of an exec that has the same rights as the container's own program.
    pub fn process(&self, args: &[&str], env: &[&str]) -> Value {
        let all = [&["PATH=/"], env].concat();
        json!({
            "args": args, "cwd": "/", "env": all, "user": { "uid": self.uid, "gid": self.uid },
            "capabilities": {
                "bounding": self.capabilities, "effective": self.capabilities, "permitted": self.capabilities,
            },
            "noNewPrivileges": self.no_new_privileges,
        })
    }

    pub fn configure(&self, config: &mut Value, args: &[&str], env: &[&str]) {
        config["process"] = self.process(args, env);
        config["hostname"] = "inside".into();
        let mut namespaces = vec!["mount", "network", "ipc", "uts"];
        if !self.host_pids {
            namespaces.push("pid");
        }
        if self.mapped {
            namespaces.push("user");
            let ids = json!([{ "containerID": 0, "hostID": FIRST, "size": 65536 }]);
            config["linux"]["uidMappings"] = ids.clone();
            config["linux"]["gidMappings"] = ids;
        }
        config["linux"]["namespaces"] = namespaces.iter().map(|kind| json!({ "type": kind })).collect();
        if self.terminal {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.push(
                json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"] }),
            );
            mounts.push(json!({
                "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["newinstance", "ptmxmode=0666", "mode=0620"],
            }));
        }
        if self.seccomp {
            // Everything that the attack needs is allowed.
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{ "names": ["kexec_load", "bpf", "mount"], "action": "SCMP_ACT_ERRNO" }],
            });
        }
    }
}
