//! An attacker in a container, what is planted for it to find, and what it found.

use crate::judge::{counts, Facts, Verdict};
use crate::planted::Host;
use crate::trap::Trap;
use serde_json::Value;
use testbed::fake::eventually;

pub struct Ambush {
    pub host: Host,
    pub trap: Trap,
    pub facts: Facts,
    pub verdict: Verdict,
    /// The pid namespaces of the containers.
    pub namespaces: Vec<String>,
}

impl Ambush {
    /// Prepares the attack. `exact`: every victim is an exec of the attacker's container.
    pub fn new(host: Host, trap: Trap, exact: bool) -> Ambush {
        let host_root = crate::look::root_mount(&std::fs::read("/proc/self/mountinfo").unwrap());
        Ambush {
            host,
            trap,
            facts: Facts { host_root, exact, ..Facts::default() },
            verdict: Verdict::default(),
            namespaces: Vec::new(),
        }
    }

    /// Also observes the processes of a container from outside.
    pub fn watch(&mut self, pid: u32) {
        let own = std::fs::read_link("/proc/self/ns/pid").unwrap();
        let link = std::fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap_or_default();
        let name = link.to_string_lossy().into_owned();
        if link != own && !name.is_empty() && !self.namespaces.contains(&name) {
            self.namespaces.push(name);
        }
    }

    /// Learns how a process that runs its program looks to the host and to the attacker.
    #[track_caller]
    pub fn learn(&mut self, pid: u32) {
        let program = || crate::look::stat(pid).is_some_and(|stat| stat.name == "probe");
        assert!(eventually(program), "{pid} does not run its program: {:?}", crate::look::stat(pid));
        self.facts.outside.push(self.host.look(pid));
        let number = number_inside(pid);
        let programs = |trap: &Trap| -> Vec<Value> {
            trap.looks()
                .into_iter()
                .filter(|look| look["mode"] == "Wait" && look["program"] == true)
                .collect()
        };
        // Exactly this process: others run beside it.
        let seen = || programs(&self.trap).iter().any(|look| look["pid"] == number);
        assert!(eventually(seen), "the attacker does not see {pid}, {number} for it");
        self.facts.inside = programs(&self.trap);
    }

    /// Looks from the host at every process in the containers' pid namespaces that is no program yet, and judges it.
    pub fn look_from_outside(&mut self) -> usize {
        let mut count = 0;
        let members = self.namespaces.iter().flat_map(|namespace| members(namespace)).collect::<Vec<_>>();
        for pid in members {
            let stat = crate::look::stat(pid);
            if stat.is_none_or(|stat| stat.name == "probe" || stat.state == 'Z') || is_first(pid) {
                continue;
            }
            let look = self.host.look(pid);
            if counts(&look) {
                count += 1;
                self.verdict.all(self.facts.judge(&look, "outside"));
            }
        }
        count
    }

    /// Judges everything that the attacker has written down; returns how much of it could be judged.
    pub fn judge(&mut self) -> usize {
        let looks = self.trap.looks();
        // The judge must not find faults in a running program: it has only what is allowed, and memory of its own.
        let own = ["cmdline", "heap", "writable"];
        for look in looks.iter().filter(|look| self.facts.exact && is_stopped_program(look)) {
            let wrong = self.facts.judge(look, "inside");
            let wrong = wrong.into_iter().filter(|text| !own.iter().any(|word| text.contains(word)));
            wrong.for_each(|text| self.verdict.add(format!("of a program: {text}")));
        }
        let counted: Vec<&Value> = looks.iter().filter(|look| counts(look)).collect();
        for look in &counted {
            self.verdict.all(self.facts.judge(look, "inside"));
        }
        counted.len()
    }
}

/// Returns the pid of a process in its innermost pid namespace.
fn number_inside(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).expect("proc_pid_status(5)");
    line.split_whitespace().last().and_then(|number| number.parse().ok()).expect("a number")
}

fn is_stopped_program(look: &Value) -> bool {
    look["stopped"] == true && look["program"] == true && look["name"] == "probe"
}

/// Returns the processes of a pid namespace, by their pids on the host.
pub fn members(namespace: &str) -> Vec<u32> {
    let listing = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = listing.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is = |pid: &u32| {
        std::fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|link| link.to_str() == Some(namespace))
    };
    pids.filter(is).collect()
}

/// Returns whether a process is pid 1 of its pid namespace.
fn is_first(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("NSpid:"));
    line.is_some_and(|line| line.split_whitespace().last() == Some("1"))
}
