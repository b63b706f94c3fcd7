//! What may be seen of a process that is not yet the container's program: nothing that its program will not have.

use serde_json::Value;
use std::collections::BTreeMap;

/// The victim's own secret, which must be found: it proves that the search works.
pub const OWN: &str = "PLANTED-own";

/// KiB: arguments, environment and a stack. The shim's own memory is larger.
const WRITABLE: u64 = 1024;

/// What the programs that the victims become look like.
#[derive(Default)]
pub struct Facts {
    /// The host root's line of mountinfo.
    pub host_root: String,
    /// The programs as the attacker sees them.
    pub inside: Vec<Value>,
    /// The programs as the host sees them.
    pub outside: Vec<Value>,
    /// The last parts of the names of the victims' streams, besides /dev/null.
    pub streams: Vec<String>,
    /// The roots of containers that are made while they are attacked.
    pub roots: Vec<Value>,
    /// The victims are execs of one container, so all its namespaces are known.
    pub exact: bool,
}

/// Complaints, and how often each was raised.
#[derive(Default)]
pub struct Verdict(pub BTreeMap<String, usize>);

impl Verdict {
    pub fn add(&mut self, complaint: impl Into<String>) {
        *self.0.entry(complaint.into()).or_default() += 1;
    }

    pub fn all(&mut self, complaints: Vec<String>) {
        complaints.into_iter().for_each(|complaint| self.add(complaint));
    }

    /// Keeps only complaints that contain one of these words.
    pub fn keep(&mut self, words: &[&str]) {
        self.0.retain(|complaint, _| words.iter().any(|word| complaint.contains(word)));
    }

    #[track_caller]
    pub fn assert_empty(&self, what: &str) {
        let lines: Vec<String> = self.0.iter().map(|(text, count)| format!("  {count:4} x {text}")).collect();
        assert!(lines.is_empty(), "{what}:\n{}", lines.join("\n"));
    }
}

/// Returns whether a look can be judged: the victim did not move meanwhile, and is no program yet.
pub fn counts(look: &Value) -> bool {
    look["stopped"] == true && look["program"] != true
}

fn known(value: &Value) -> bool {
    !value.is_null() && value.get("error").is_none()
}

/// Returns whether a namespace is the host's, for the kinds that every container here has of its own or of its pod.
fn is_the_hosts(kind: &str, link: &Value) -> bool {
    let own = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap_or_default();
    ["mnt", "net", "ipc", "uts", "pid", "pid_for_children"].contains(&kind) && own.to_str() == link.as_str()
}

fn words(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

impl Facts {
    /// Returns everything that is wrong with one look, by who looked. It is a complaint if the host was refused
    /// something, but not if the attacker was.
    pub fn judge(&self, look: &Value, from: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        let view = if from == "inside" { &self.inside } else { &self.outside };
        for key in ["root", "cwd"] {
            let found = &look[key];
            let mut own = self.outside.iter().map(|program| &program[key]).chain(&self.roots);
            // If the roots are the snapshotter's, they are at least not the host's.
            let unknown = !self.exact && self.roots.is_empty() && *found != crate::look::place("/");
            if known(found) && !unknown && !own.any(|own| own == found) {
                wrong.push(format!("{from}: {key} is not the container's"));
            }
        }
        for key in ["host_file", "exe_for_writing"] {
            if look[key] == "opened" {
                wrong.push(format!("{from}: {key} can be opened"));
            }
        }
        for key in ["host_socket", "host_port"] {
            if look[key] == true {
                wrong.push(format!("{from}: {key} is seen"));
            }
        }
        if look["root_mount"] == self.host_root.as_str() {
            wrong.push(format!("{from}: mountinfo is the host's"));
        }
        self.judge_descriptors(look, from, &mut wrong);
        if let Some(links) = look["ns"].as_object().filter(|_| known(&look["ns"])) {
            for (kind, link) in links.iter().filter(|(_, link)| known(link)) {
                let own = self.outside.iter().any(|program| program["ns"][kind] == *link);
                if !own && (self.exact || is_the_hosts(kind, link)) {
                    wrong.push(format!("{from}: ns/{kind} is not the container's"));
                }
            }
        }
        // A short-lived program may have been caught between its execve and its end.
        const ARGUMENTS: [&str; 6] = ["/probe", "linger", "3", "exit", "0", "sleep"];
        for key in ["environ", "cmdline"] {
            let mut own: Vec<&str> = self.outside.iter().flat_map(|program| words(&program[key])).collect();
            own.extend(ARGUMENTS);
            if let Some(word) = words(&look[key]).iter().find(|word| !own.contains(word)) {
                wrong.push(format!("{from}: {key} has {word:?}, which is not its own"));
            }
        }
        for secret in words(&look["secrets"]).into_iter().filter(|secret| *secret != OWN) {
            wrong.push(format!("{from}: {secret} is in its memory"));
        }
        // It may have become the container's program since its name was read, and have that program's memory.
        let program = words(&look["maps"]).iter().any(|line| line.ends_with("/probe"));
        if known(&look["maps"]) && !program {
            if look["writable_kib"].as_u64().is_none_or(|size| size > WRITABLE) {
                wrong.push(format!("{from}: more than {WRITABLE} KiB of writable memory"));
            }
            if words(&look["maps"]).iter().any(|line| line.contains("[heap]")) {
                wrong.push(format!("{from}: it has a heap"));
            }
        }
        if let Some(status) = look["status"].as_object() {
            for (key, value) in status {
                if !view.iter().any(|program| program["status"][key] == *value) {
                    wrong.push(format!("{from}: {key} is {value}, which no program has"));
                }
            }
        }
        if known(&look["cgroup"])
            && !view.iter().any(|program| self.same_cgroup(&program["cgroup"], &look["cgroup"]))
        {
            wrong.push(format!("{from}: cgroup is not the container's"));
        }
        if from == "outside" {
            for key in ["root", "cwd", "fd", "maps", "environ", "status", "mem"] {
                // It may have been killed meanwhile, and an exiting process has no memory.
                if look["stopped"] == true && !known(&look[key]) {
                    wrong.push(format!("{from}: {key}: {}", look[key]));
                }
            }
        }
        wrong
    }

    /// Returns whether two cgroups match; those of containers of one pod differ in the last name.
    fn same_cgroup(&self, one: &Value, other: &Value) -> bool {
        let parents = |text: &Value| -> Vec<String> {
            let lines = text.as_str().unwrap_or("").lines();
            lines.map(|line| line.rsplit_once('/').map_or(line, |(parent, _)| parent).to_owned()).collect()
        };
        one == other || (!self.exact && parents(one) == parents(other))
    }

    fn judge_descriptors(&self, look: &Value, from: &str, wrong: &mut Vec<String>) {
        let Some(descriptors) = look["fd"].as_object().filter(|_| known(&look["fd"])) else { return };
        let mut sockets = 0;
        if descriptors.len() > 4 {
            wrong.push(format!("{from}: more than four descriptors"));
        }
        for (number, target) in descriptors {
            // Descriptor numbers may be readable where links are not.
            let Some(target) = target.as_str() else { continue };
            let stream = ["0", "1", "2"].contains(&number.as_str());
            let plain =
                ["/dev/null", "/null", "pipe:[", "/memfd:state"].iter().any(|name| target.starts_with(name));
            if stream && (plain || self.streams.iter().any(|name| target.ends_with(name))) {
                continue;
            }
            sockets += usize::from(!stream && target.starts_with("socket:"));
            if stream || !target.starts_with("socket:") {
                // Only as much of the path as tells whose it is.
                let kind: Vec<&str> = target.split(":[").next().unwrap_or("").split('/').take(4).collect();
                let kind = kind.join("/");
                let shown = if stream { number } else { "a descriptor" };
                wrong.push(format!("{from}: {shown} is {kind}"));
            }
        }
        if sockets > 1 {
            wrong.push(format!("{from}: more than one socket"));
        }
    }
}
