//! What holds for every plan.

use super::case::{directories, input, read, Case, Hosts};
use serde_json::{json, Value};
use shoal::plan::{self, Host, Open, Plan, Slot, Step};
use shoal::spec::Spec;
use shoal::sys::seccomp::{Filter, SockFilter};

fn uses(step: &Step) -> Vec<Slot> {
    match step {
        Step::Attach { slot, .. }
        | Step::SetNs { slot, .. }
        | Step::Aim { slot }
        | Step::JoinUser { slot, .. }
        | Step::LockMounts { user: slot }
        | Step::OwnNetwork { user: slot }
        | Step::FindNetDevice { host: slot, .. }
        | Step::NetDevice { host: slot, .. }
        | Step::MoveBelow { namespace: Some(slot), .. }
        | Step::Idmap { namespace: slot, .. }
        | Step::MountRootfs { device: Some(slot), .. }
        | Step::MountFs { pids: Some(slot), .. }
        | Step::OpenProc { pids: Some(slot) } => vec![*slot],
        Step::MapTree { slot, namespace, .. } => vec![*slot, *namespace],
        _ => Vec::new(),
    }
}

pub fn check(plan: &Plan, name: &str) {
    let steps: Vec<&Step> = plan.steps.iter().map(|(step, _)| step).collect();
    // Each process of the two that a user namespace needs has an order of its own. Where others are in its pid namespace
    // already it stays the same process.
    let divides = |at: usize| match steps[at] {
        Step::Sibling { .. } => true,
        Step::JoinUser { .. } => !matches!(steps[at + 1], Step::Sibling { .. }),
        _ => false,
    };
    let mut at = 0;
    for part in steps.split_inclusive(|_| {
        at += 1;
        divides(at - 1)
    }) {
        for pair in part.windows(2).filter(|pair| !matches!(pair[1], Step::Unshare { .. })) {
            assert!(pair[0].phase() <= pair[1].phase(), "{name}: {} before {}", pair[0], pair[1]);
        }
    }
    let position = |wanted: fn(&Step) -> bool| steps.iter().position(|step| wanted(step));
    let bare = position(|s| matches!(s, Step::Bare)).expect("every plan gives up what is the shim's");
    let last = |s: &Step| {
        matches!(
            s,
            Step::Seccomp(_)
                | Step::Birth
                | Step::SetSid
                | Step::ControlTerminal
                | Step::Gate
                | Step::Exec { .. }
        )
    };
    // Nothing is left to be done by then that needs the shim's memory, or that the container should not see.
    assert!(steps[bare + 1..].iter().all(|s| last(s)), "{name}");
    let birth = position(|s| matches!(s, Step::Birth));
    let filter = steps.iter().position(|s| matches!(s, Step::Seccomp(_) | Step::SeccompEarly(_)));
    assert!(filter.is_none() || birth.is_none() || filter < birth, "{name}: born without its filter");
    let into = |s: &Step| match s {
        Step::SetNs { flags, .. } => flags & libc::CLONE_NEWPID as u64 != 0,
        step => matches!(step, Step::Aim { .. }),
    };
    let aimed = steps.iter().position(|s| into(s));
    assert_eq!(aimed.is_some(), birth.is_some(), "{name}: who joins a pid namespace is born last");
    assert!(!(birth.is_some() && steps.iter().any(|s| matches!(s, Step::Sibling { .. }))), "{name}");
    assert!(matches!(steps.last(), Some(Step::Exec { .. })), "{name}: ends in an execve");
    let ids = position(|s| matches!(s, Step::SetIds { .. })).expect("every plan gives up its ids");
    let capabilities = position(|s| matches!(s, Step::Capabilities(_))).expect("and its capabilities");
    assert!(ids < capabilities && capabilities < bare, "{name}");
    for (step, field) in &plan.steps {
        assert!(!field.is_empty(), "{name}: {step} has no field");
    }
    // Each slot is filled once, before anybody uses it, and for somebody.
    let mut filled: Vec<Slot> = (0..plan.opens.len()).map(|i| Slot::Lent(i as u16)).collect();
    let mut unused = filled.clone();
    for step in &steps {
        for slot in uses(step) {
            assert!(filled.contains(&slot), "{name}: {step}: nothing is in {slot}");
            unused.retain(|other| *other != slot);
        }
        if let Some(slot) = step.fills().filter(|slot| matches!(slot, Slot::Opened(_))) {
            assert!(!filled.contains(&slot), "{name}: {step}: a slot is filled twice");
            let Slot::Opened(number) = slot else { continue };
            assert!(usize::from(number) < plan.opened(), "{name}: {step}");
            filled.push(slot);
            unused.push(slot);
        }
    }
    assert!(unused.is_empty(), "{name}: nobody uses {unused:?}");
    assert!(filled.len() == plan.opens.len() + plan.opened(), "{name}");
    // The host's root is gone before its namespaces are, and nothing is done as nobody.
    if let Some(user) = position(|s| matches!(s, Step::JoinUser { .. })) {
        let sibling = position(|s| matches!(s, Step::Sibling { .. })).unwrap_or(user + 1);
        let root = position(|s| matches!(s, Step::BecomeRoot { .. })).expect("root of it");
        let groups = position(|s| matches!(s, Step::LeaveGroups)).expect("without the host's groups");
        assert!(groups < user && user < sibling && sibling <= root && root < ids, "{name}");
        assert_eq!(plan.clone_flags, 0, "{name}");
        assert!(!steps
            .iter()
            .any(|s| matches!(s, Step::Mknod { mode, .. } if mode & libc::S_IFMT != libc::S_IFIFO)));
    }
    // A root that is read-only, or hidden, cannot be prepared any more.
    if let Some(closed) = position(|s| matches!(s, Step::ReadonlyRoot)) {
        let creates = |s: &Step| {
            matches!(
                s,
                Step::Mkdir { .. }
                    | Step::Mknod { .. }
                    | Step::Symlink { .. }
                    | Step::MountFs { .. }
                    | Step::Attach { .. }
                    | Step::Console { .. }
                    | Step::Hooks
            )
        };
        assert!(!steps[closed..].iter().any(|s| creates(s)), "{name}");
    }
}

#[test]
fn golden_plans_are_in_order() {
    for case in Case::all() {
        for (host_name, host) in Hosts::both() {
            check(&case.compile(&host).expect("compiles"), &format!("{} on {host_name}", case.name));
        }
    }
}

/// One change to a spec.
type Toggle = fn(&mut Value);

const TOGGLES: [Toggle; 11] = [
    |s| s["root"]["readonly"] = json!(true),
    |s| s["process"]["terminal"] = json!(true),
    |s| s["process"]["user"]["uid"] = json!(1000),
    |s| s["process"]["noNewPrivileges"] = json!(false),
    |s| s["linux"]["sysctl"] = json!({"net.core.somaxconn": "1"}),
    |s| s["linux"]["rootfsPropagation"] = json!("rshared"),
    |s| {
        s["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({"type": "user"}));
        s["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 100000, "size": 65536}]);
        s["linux"]["gidMappings"] = s["linux"]["uidMappings"].clone();
        let mounts = s["mounts"].as_array_mut().expect("a list");
        mounts.push(json!({"destination": "/z", "source": "/z", "options": ["rbind", "ridmap"]}));
    },
    |s| s["hooks"] = json!({"createContainer": [{"path": "/bin/true"}]}),
    |s| {
        let namespaces = s["linux"]["namespaces"].as_array_mut().expect("a list");
        namespaces.retain(|n| n["type"] != "pid");
        namespaces.push(json!({"type": "pid", "path": "/proc/1/ns/pid"}));
        namespaces.push(json!({"type": "cgroup"}));
    },
    |s| {
        let mounts = s["mounts"].as_array_mut().expect("a list");
        mounts.push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro"]}));
        mounts.push(json!({"destination": "/x", "type": "tmpfs", "options": ["ro", "tmpcopyup"]}));
        mounts.push(json!({"destination": "/y", "source": "/y", "options": ["rbind", "shared"]}));
    },
    |s| {
        s["process"]["rlimits"] = json!([{"type": "RLIMIT_NPROC", "soft": 1, "hard": 1}]);
        s["process"]["apparmorProfile"] = json!("p");
        s["process"]["scheduler"] = json!({"policy": "SCHED_RR", "priority": 1});
    },
];

fn compile(spec: &Value, host: &Host) -> Plan {
    let spec = Spec::parse(spec.to_string().as_bytes()).expect("a good spec");
    plan::create(&plan::Input {
        filter: Some(Filter { program: [SockFilter { code: 6, jt: 0, jf: 0, k: 0 }].into(), flags: 0 }),
        ..input(&spec, host, &directories(host))
    })
    .expect("compiles")
}

#[test]
fn every_mixture_is_in_order() {
    let base: Value = serde_json::from_str(&read("ctr-2.1-default")).expect("JSON");
    for mixture in 0u32..1 << TOGGLES.len() {
        let mut spec = base.clone();
        for (i, toggle) in TOGGLES.iter().enumerate() {
            if mixture & (1 << i) != 0 {
                toggle(&mut spec);
            }
        }
        for (host_name, host) in Hosts::both() {
            check(&compile(&spec, &host), &format!("mixture {mixture:#b} on {host_name}"));
        }
    }
}

#[test]
fn the_same_spec_is_the_same_plan() {
    // Twice on purpose: each hash map has an order of its own, which must not reach the plan.
    let spec: Value = serde_json::from_str(&read("process-everything")).expect("JSON");
    assert_eq!(compile(&spec, &Hosts::v2()), compile(&spec, &Hosts::v2()));
}

#[test]
fn an_exec_takes_nothing_from_the_host() {
    for case in Case::all().iter().filter(|case| case.name.starts_with("exec-")) {
        let plan = case.compile(&Hosts::v1()).expect("compiles");
        assert!(plan.opens.iter().all(|(open, _)| *open == Open::Init), "{}", case.name);
        assert_eq!(plan.opened(), 0, "{}", case.name);
        assert_eq!(plan.clone_flags, 0, "{}", case.name);
    }
}

/// As in runc. It is written to a file that was opened while the procfs was the host's.
#[test]
fn a_label_of_selinux_is_the_session_keyrings_too() {
    let label = "system_u:system_r:container_t:s0:c1,c2";
    let mut spec: Value = serde_json::from_str(&read("ctr-2.1-default")).expect("JSON");
    spec["process"]["selinuxLabel"] = label.into();
    let host = Host { selinux: true, ..Hosts::v2() };
    let spec = Spec::parse(spec.to_string().as_bytes()).expect("it is taken");
    let compile = |no_new_keyring| {
        let plan = plan::create(&plan::Input { no_new_keyring, ..input(&spec, &host, &directories(&host)) });
        let plan = plan.expect("compiled");
        plan.steps.iter().map(|(step, _)| step.to_string()).collect::<Vec<_>>()
    };
    let steps = compile(false);
    let at = |wanted: &str| steps.iter().position(|step| step == wanted);
    let opened = at("open(\"/proc/thread-self/attr/keycreate\", O_WRONLY)").expect("opened");
    let joined = format!("write(attr/keycreate, {label:?}), keyctl(JOIN_SESSION_KEYRING, \"_ses.c1\")");
    assert!(at(&joined).expect("written") > opened, "{steps:#?}");
    assert!(at(&format!("write(attr/exec, {label:?})")).is_some(), "{steps:#?}");
    assert!(compile(true).iter().all(|step| !step.contains("keyctl")));
}
