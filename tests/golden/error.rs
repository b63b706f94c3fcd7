//! Bad specs, and the exact sentence for each: it begins with the JSON path of the field.

use super::case::{directories, input, read, Hosts};
use super::mapping::USERS;
use serde_json::{json, Value};
use shoal::error::Kind;
use shoal::plan::{self, Host, RootfsMount};
use shoal::spec::{Process, Spec};

/// A change to ctr's default spec, and what comes of it.
pub(super) type Bad = (fn(&mut Value), &'static str);

pub(super) fn mount(s: &mut Value, mount: Value) {
    s["mounts"] = json!([s["mounts"][0], mount]);
}

pub(super) fn namespace(s: &mut Value, namespace: Value) {
    s["linux"]["namespaces"].as_array_mut().expect("a list").push(namespace);
}

pub(super) fn host(s: &mut Value, kind: &str) {
    s["linux"]["namespaces"].as_array_mut().expect("a list").retain(|n| n["type"] != kind);
}

pub(super) fn bind(options: Value) -> Value {
    json!({"destination": "/m", "type": "bind", "source": "/s", "options": options})
}

const INVALID: &[Bad] = &[
    (|s| s["root"] = Value::Null, "root: missing"),
    (|s| s["root"]["path"] = json!(""), "root.path: must not be empty"),
    (
        |s| s["root"]["readonly"] = json!("yes"),
        "root.readonly: invalid type: string \"yes\", expected a boolean",
    ),
    (|s| s["process"] = Value::Null, "process: missing"),
    (|s| s["process"]["args"] = json!([]), "process.args: must not be empty"),
    (
        |s| s["process"]["args"] = json!(["sh", 1]),
        "process.args[1]: invalid type: integer `1`, expected a string",
    ),
    (|s| s["process"]["args"] = json!(["a\u{0}b"]), "process.args[0]: a NUL byte in \"a\\0b\""),
    (|s| s["process"]["cwd"] = json!(""), "process.cwd: must not be empty"),
    (|s| s["process"]["cwd"] = json!("home"), "process.cwd: \"home\" is not an absolute path"),
    (|s| s["process"]["env"] = json!(["A=1", "B"]), "process.env[1]: \"B\" has no \"=\""),
    (|s| s["process"]["env"] = json!(["=x"]), "process.env[0]: \"=x\" has no name"),
    (
        |s| s["process"]["user"]["uid"] = json!(-1),
        "process.user.uid: invalid value: integer `-1`, expected u32",
    ),
    (|s| s["process"]["user"]["gid"] = json!(4294967295u32), "process.user.gid: 4294967295 is not an id"),
    (|s| s["process"]["user"]["umask"] = json!(512), "process.user.umask: 512 is more than 511 (octal 777)"),
    (
        |s| s["process"]["oomScoreAdj"] = json!(-1001),
        "process.oomScoreAdj: -1001 is not between -1000 and 1000",
    ),
    (
        |s| s["process"]["consoleSize"] = json!({"height": 70000, "width": 1}),
        "process.consoleSize.height: 70000 is more than a terminal can have",
    ),
    (
        |s| s["process"]["rlimits"][0]["type"] = json!("NOFILE"),
        "process.rlimits[0].type: \"NOFILE\" is not a resource limit",
    ),
    (
        |s| s["process"]["rlimits"][0]["soft"] = json!(2000),
        "process.rlimits[0].soft: 2000 is more than the hard limit 1024",
    ),
    (
        |s| s["process"]["rlimits"] = json!([s["process"]["rlimits"][0], s["process"]["rlimits"][0]]),
        "process.rlimits[1].type: a second RLIMIT_NOFILE",
    ),
    (
        |s| s["process"]["execCPUAffinity"] = json!({"initial": "0", "final": "1-x"}),
        "process.execCPUAffinity.final: \"1-x\" is not a list of processors",
    ),
    (
        |s| s["process"]["scheduler"] = json!({"policy": "SCHED_FAST"}),
        "process.scheduler.policy: \"SCHED_FAST\" is not a scheduling policy",
    ),
    (
        |s| s["process"]["scheduler"] = json!({"policy": "SCHED_OTHER", "nice": 20}),
        "process.scheduler.nice: 20 is not between -20 and 19",
    ),
    (
        |s| s["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 8}),
        "process.ioPriority.priority: 8 is not between 0 and 7",
    ),
    (
        |s| s["process"]["selinuxLabel"] = json!("system_u:system_r:container_t:s0"),
        "process.selinuxLabel: SELinux is not enabled on this host",
    ),
    (
        |s| {
            host(s, "uts");
            s["hostname"] = json!("web-1");
        },
        "hostname: cannot be set without a private uts namespace",
    ),
    (|s| s["mounts"][1]["destination"] = json!(""), "mounts[1].destination: \"\" is not a path"),
    (
        |s| s["mounts"][1]["options"] = json!("ro"),
        "mounts[1].options: invalid type: string \"ro\", expected a sequence",
    ),
    (
        |s| mount(s, bind(json!(["rbind", "ro", "roo"]))),
        "mounts[1].options[2]: \"roo\" is not an option of a bind mount",
    ),
    (
        |s| mount(s, json!({"destination": "/m", "options": ["remount", "size=1m"]})),
        "mounts[1].options[1]: \"size=1m\" is not an option of a remount",
    ),
    (
        |s| mount(s, json!({"destination": "/m", "source": "/s"})),
        "mounts[1].type: missing, and there is no bind option",
    ),
    (
        |s| mount(s, json!({"destination": "/m", "options": ["bind"]})),
        "mounts[1].source: a bind mount needs a source",
    ),
    (|s| mount(s, bind(json!(["bind", "tmpcopyup"]))), "mounts[1].options[1]: tmpcopyup is for a tmpfs"),
    (
        |s| mount(s, json!({"destination": "/../", "type": "tmpfs"})),
        "mounts[1].destination: the root itself cannot be mounted over",
    ),
    (
        |s| mount(s, json!({"destination": "/proc", "type": "tmpfs"})),
        "mounts[1].destination: only a procfs can be mounted on /proc",
    ),
    (
        |s| mount(s, json!({"destination": "/x/../proc/sys", "type": "tmpfs"})),
        "mounts[1].destination: /proc/sys is inside /proc, where nothing can be mounted",
    ),
    (|s| namespace(s, json!({"type": "pid"})), "linux.namespaces[5]: a second pid namespace"),
    (
        |s| s["linux"]["namespaces"][0]["path"] = json!("ns/pid"),
        "linux.namespaces[0].path: \"ns/pid\" is not absolute",
    ),
    (
        |s| s["linux"]["sysctl"] = json!({"kernel.core_pattern": "|/x"}),
        "linux.sysctl[\"kernel.core_pattern\"]: not in a namespace of its own, it would change the host",
    ),
    (
        |s| s["linux"]["sysctl"] = json!({"net/../kernel/core_pattern": "|/x"}),
        "linux.sysctl[\"net/../kernel/core_pattern\"]: not the name of a sysctl",
    ),
    (
        |s| {
            host(s, "network");
            s["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        },
        "linux.sysctl[\"net.ipv4.ip_forward\"]: not allowed in the host's network namespace",
    ),
    (
        |s| {
            host(s, "ipc");
            s["linux"]["sysctl"] = json!({"kernel.shmmax": "1"});
        },
        "linux.sysctl[\"kernel.shmmax\"]: not allowed in the host's ipc namespace",
    ),
    (
        |s| s["linux"]["sysctl"] = json!({"kernel.hostname": "x"}),
        "linux.sysctl[\"kernel.hostname\"]: set the field hostname instead",
    ),
    (
        |s| s["linux"]["devices"] = json!([{"path": "fuse", "type": "c", "major": 10, "minor": 229}]),
        "linux.devices[0].path: \"fuse\" is not an absolute path",
    ),
    (
        |s| s["linux"]["devices"] = json!([{"path": "/dev/x", "type": "c", "major": 4096, "minor": 0}]),
        "linux.devices[0].major: 4096 is not a device number",
    ),
    (
        |s| s["linux"]["devices"] = json!([{"path": "/dev/x", "type": "a"}]),
        "linux.devices[0].type: \"a\" is not a node",
    ),
    (
        |s| s["linux"]["maskedPaths"][1] = json!("proc/keys"),
        "linux.maskedPaths[1]: \"proc/keys\" is not an absolute path",
    ),
    (
        |s| s["linux"]["rootfsPropagation"] = json!("open"),
        "linux.rootfsPropagation: \"open\" is not a propagation type",
    ),
    (
        |s| s["linux"]["personality"] = json!({"domain": "BSD"}),
        "linux.personality.domain: \"BSD\" is neither LINUX nor LINUX32",
    ),
    (
        |s| s["hooks"] = json!({"createRuntime": [{"path": "/bin/true"}, {"path": "true"}]}),
        "hooks.createRuntime[1].path: \"true\" is not absolute",
    ),
    (
        |s| s["hooks"] = json!({"poststop": [{"path": "/bin/true", "timeout": 0}]}),
        "hooks.poststop[0].timeout: 0 is not greater than zero",
    ),
    (
        |s| s["linux"]["intelRdt"] = json!({"closID": "a/b"}),
        "linux.intelRdt.closID: \"a/b\" is not the name of a class",
    ),
    (
        |s| s["linux"]["netDevices"] = json!({"eth0": {"name": "eth%d"}}),
        "linux.netDevices.eth0.name: \"eth%d\" is not the name of a network device that can be moved",
    ),
    (
        |s| s["linux"]["netDevices"] = json!({"0123456789abcdef": {"name": "eth0"}}),
        "linux.netDevices.0123456789abcdef: \"0123456789abcdef\" is not the name of a network device that can be moved",
    ),
    (
        |s| s["linux"]["netDevices"] = json!({"eth1": {"name": "lo"}}),
        "linux.netDevices.eth1.name: \"lo\" is not the name of a network device that can be moved",
    ),
    (
        |s| s["linux"]["netDevices"] = json!({"eth1": {"name": "eth2"}, "eth2": {}}),
        "linux.netDevices.eth2.name: another device becomes \"eth2\" too",
    ),
    (
        |s| {
            host(s, "network");
            s["linux"]["netDevices"] = json!({"eth1": {}});
        },
        "linux.netDevices.eth1: cannot be moved without a private network namespace",
    ),
    (
        |s| s["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND"}),
        "linux.memoryPolicy.nodes: MPOL_BIND needs them",
    ),
    (
        |s| s["linux"]["memoryPolicy"] = json!({"mode": "MPOL_LOCAL", "nodes": "0"}),
        "linux.memoryPolicy.nodes: MPOL_LOCAL takes none",
    ),
    (
        |s| s["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0,x"}),
        "linux.memoryPolicy.nodes: \"0,x\" is not a list of nodes",
    ),
    (
        |s| s["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "1024"}),
        "linux.memoryPolicy.nodes: \"1024\" has a node that no kernel has",
    ),
    (
        |s| s["linux"]["memoryPolicy"] = json!({"mode": "bind", "nodes": "0"}),
        "linux.memoryPolicy.mode: \"bind\" is not known",
    ),
    (
        |s| s["linux"]["memoryPolicy"] = json!({"mode": "MPOL_DEFAULT", "flags": ["MPOL_F_X"]}),
        "linux.memoryPolicy.flags[0]: \"MPOL_F_X\" is not known",
    ),
    (
        |s| s["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1}}),
        "linux.timeOffsets.boottime: cannot be set without a time namespace",
    ),
    (
        |s| {
            namespace(s, json!({"type": "time", "path": "/proc/1/ns/time"}));
            s["linux"]["timeOffsets"] = json!({"monotonic": {"nanosecs": 1}});
        },
        "linux.timeOffsets.monotonic: cannot be set in a time namespace that is joined",
    ),
    (
        |s| {
            namespace(s, json!({"type": "time"}));
            s["linux"]["timeOffsets"] = json!({"realtime": {"secs": 1}});
        },
        "linux.timeOffsets.realtime: a time namespace has monotonic and boottime only",
    ),
    (
        |s| {
            namespace(s, json!({"type": "time"}));
            s["linux"]["timeOffsets"] = json!({"monotonic": {"secs": -1, "nanosecs": 1000000000}});
        },
        "linux.timeOffsets.monotonic.nanosecs: 1000000000 is a second or more",
    ),
    (
        |s| s["linux"]["resources"]["devices"][1]["access"] = json!(7),
        "linux.resources.devices[1].access: invalid type: integer `7`, expected a string",
    ),
];

const UNSUPPORTED: &[Bad] = &[
    (|s| s["ociVersion"] = json!("2.0.0"), "ociVersion: \"2.0.0\" is not a version 1"),
    (
        |s| {
            host(s, "pid");
            namespace(s, json!({"type": "pid", "path": "/proc/1/ns/pid"}));
            let flags = ["SCHED_FLAG_RESET_ON_FORK"];
            s["process"]["scheduler"] = json!({"policy": "SCHED_RR", "priority": 1, "flags": flags});
        },
        "process.scheduler.flags: SCHED_FLAG_RESET_ON_FORK in a pid namespace that is joined: not supported",
    ),
    (|s| host(s, "mount"), "linux.namespaces: a container in the host's mount namespace: not supported"),
];

fn sentence(spec: &Value, host: &Host) -> Option<(Kind, String)> {
    let compile = || {
        let spec = Spec::parse(spec.to_string().as_bytes())?;
        plan::create(&input(&spec, host, &directories(host)))
    };
    compile().err().map(|e| (e.kind(), e.to_string()))
}

#[test]
fn a_bad_spec_gets_a_sentence_that_names_the_field() {
    let base: Value = serde_json::from_str(&read("ctr-2.1-default")).expect("JSON");
    let mut wrong = Vec::new();
    for (kind, list) in [(Kind::Invalid, INVALID), (Kind::Invalid, USERS), (Kind::Unsupported, UNSUPPORTED)] {
        for (change, expected) in list {
            let mut spec = base.clone();
            change(&mut spec);
            let got = sentence(&spec, &Hosts::v2());
            if got != Some((kind, (*expected).to_owned())) {
                wrong.push(format!("  expected {kind:?}: {expected}\n  got      {got:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn broken_json_is_refused() {
    for (json, expected) in [
        ("{\"root\": ", "config.json: not JSON, in root: EOF while parsing a value"),
        (r#"{"linux": {"namespaces": [[null]]}}"#, "linux.namespaces[0][0]: expected value"),
        ("7", "config.json: invalid type: integer `7`, expected struct Spec"),
        ("{} x", "config.json: not JSON: trailing characters"),
        ("", "config.json: not JSON: EOF while parsing a value"),
    ] {
        let e = Spec::parse(json.as_bytes()).expect_err(json);
        assert_eq!((e.kind(), e.to_string().as_str()), (Kind::Invalid, expected));
    }
}

#[test]
fn an_exec_names_its_own_fields() {
    for (json, expected) in [
        (r#"{"cwd": "/", "args": []}"#, "args: must not be empty"),
        (r#"{"cwd": "x", "args": ["sh"]}"#, "cwd: \"x\" is not an absolute path"),
        (r#"{"cwd": 1}"#, "cwd: invalid type: integer `1`, expected a string"),
        ("[", "spec: not JSON: EOF while parsing a list"),
        (
            r#"{"cwd": "/", "args": ["sh"], "rlimits": [{"type": "x"}]}"#,
            "rlimits[0].type: \"x\" is not a resource limit",
        ),
        (r#"{"cwd": "/", "args": ["sh"], "user": {"uid": 4294967295}}"#, "user.uid: 4294967295 is not an id"),
    ] {
        let e = Process::parse(json.as_bytes()).expect_err(json);
        assert_eq!((e.kind(), e.to_string().as_str()), (Kind::Invalid, expected));
    }
}

#[test]
fn what_only_the_request_can_get_wrong() {
    let spec = Spec::parse(read("ctr-2.1-default").as_bytes()).expect("a good spec");
    let mut private = spec.clone();
    private.rootfs_propagation = shoal::spec::mount::Propagation::parse("rprivate");
    let mut joined = spec.clone();
    joined.namespaces.mount = shoal::spec::Ns::Join("/run/ns".into());
    let host = Hosts::v1();
    let overlay = |words: &[&str], target: &str| RootfsMount {
        fstype: "overlay".into(),
        source: "overlay".into(),
        target: target.into(),
        options: words.iter().map(|w| (*w).into()).collect(),
    };
    let long = format!("lowerdir={}", "x".repeat(5000));
    for (spec, mount, expected) in [
        (&spec, overlay(&["uidmap=0:1:1"], ""), "rootfs[0].options: uidmap and gidmap need each other"),
        (&spec, overlay(&["ro", "gidmap=0:1"], ""), "rootfs[0].options[1]: \"gidmap=0:1\" is not a map"),
        (&spec, overlay(&["uidmap=0:1:0"], ""), "rootfs[0].options[0]: \"uidmap=0:1:0\": must not be 0"),
        (&spec, overlay(&[&long], ""), "rootfs[0].options: longer than a page, the kernel takes no more"),
        (&spec, overlay(&[], "/a\0b"), "rootfs[0].target: a NUL byte in \"/a\\0b\""),
        (
            &spec,
            RootfsMount { fstype: "fuse3.sshfs".into(), ..overlay(&[], "/sub") },
            "rootfs[0].type: a FUSE helper can only mount the root, before all other mounts",
        ),
        (&spec, overlay(&["a\0"], ""), "rootfs[0].options: a NUL byte in \"a\\0\""),
        (&private, overlay(&[], ""), "linux.rootfsPropagation: private is not safe without pivot_root"),
        (
            &joined,
            overlay(&[], ""),
            "linux.namespaces: a mount namespace by path is not safe without pivot_root",
        ),
    ] {
        let input = plan::Input { rootfs: &[mount], no_pivot_root: Some(&[]), ..input(spec, &host, &[]) };
        assert_eq!(plan::create(&input).expect_err(expected).to_string(), expected);
    }
}
