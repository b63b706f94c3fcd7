//! Images of a checkpoint that give a process more than its specification does.

use crate::checkpoint::{prepare, World, COUNT};
use crate::{delete, wait};
use containerd_shim_protos::shim::oci::CheckpointOptions;
use serde_json::{json, Value};
use testbed::wire::TASK_V3;

/// Writes `c1`, with one change, down, and restores it with `c2`'s specification, which has another one.
fn judged(dumped: impl Fn(&mut Value), wanted: impl Fn(&mut Value)) -> Result<(), String> {
    let mut world = World::new(None);
    world.containerd.configure("c1", dumped);
    world.run();
    world
        .checkpoint(CheckpointOptions { exit: true, ..Default::default() })
        .unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(wait(&mut world.wire, TASK_V3, "c1"), 137);
    let at = world.count("c1");
    delete(&mut world.wire, TASK_V3, "c1");
    prepare(&world.containerd, "c2", COUNT, wanted);
    std::fs::write(world.containerd.bundle("c2").join("rootfs/count"), format!("{at:06}")).unwrap();
    let restored = match world.restore() {
        Ok(_) => {
            let started = world.start();
            if started.is_ok() {
                assert!(world.goes_on("c2") && world.count("c2") < at + 100);
                world.end("c2");
            } else {
                assert_eq!(wait(&mut world.wire, TASK_V3, "c2"), 137);
                assert_eq!(world.count("c2"), at, "no instruction of it ran");
                delete(&mut world.wire, TASK_V3, "c2");
            }
            started.map(drop)
        }
        Err(e) => Err(e),
    };
    let bundle = world.containerd.bundle("c2");
    world.finish();
    assert!(!bundle.exists());
    restored.map_err(|(_, words)| words)
}

fn nothing(_: &mut Value) {}

fn capabilities(names: &'static [&'static str]) -> impl Fn(&mut Value) {
    move |config| {
        let sets = ["bounding", "permitted", "effective"].map(|set| (set.to_owned(), json!(names)));
        config["process"]["capabilities"] = Value::Object(sets.into_iter().collect());
    }
}

fn mount(destination: &'static str) -> impl Fn(&mut Value) {
    move |config| {
        let mount = json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs" });
        config["mounts"].as_array_mut().unwrap().push(mount);
    }
}

fn without(kind: &'static str) -> impl Fn(&mut Value) {
    move |config| config["linux"]["namespaces"].as_array_mut().unwrap().retain(|ns| ns["type"] != kind)
}

#[test]
fn an_image_goes_on_with_the_rights_of_its_specification() {
    judged(nothing, nothing).unwrap();
    judged(capabilities(&["CAP_KILL"]), capabilities(&["CAP_KILL", "CAP_CHOWN"])).unwrap();
    judged(|config| config["process"]["noNewPrivileges"] = true.into(), nothing).unwrap();
    let filter = |config: &mut Value| {
        let rule = json!({ "names": ["keyctl"], "action": "SCMP_ACT_ERRNO" });
        config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] });
    };
    judged(filter, filter).unwrap();
    judged(mount("/proc/../extra"), mount("/extra")).unwrap();
}

fn refused(dumped: impl Fn(&mut Value), wanted: impl Fn(&mut Value), words: &str) {
    let error = judged(dumped, wanted).unwrap_err();
    assert!(error.contains(words), "{error}");
}

#[test]
fn an_image_with_more_capabilities_than_the_specification_is_refused() {
    refused(capabilities(&["CAP_KILL", "CAP_CHOWN"]), capabilities(&["CAP_KILL"]), "process.capabilities");
    refused(capabilities(&["CAP_SYS_ADMIN"]), nothing, "process.capabilities");
}

#[test]
fn an_image_without_no_new_privileges_is_refused_where_they_are_wanted() {
    refused(nothing, |config| config["process"]["noNewPrivileges"] = true.into(), "process.noNewPrivileges");
}

#[test]
fn an_image_with_another_filter_is_refused() {
    let filter = |name: &'static str| {
        move |config: &mut Value| {
            let rule = json!({ "names": [name], "action": "SCMP_ACT_ERRNO" });
            config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] });
        }
    };
    refused(nothing, filter("keyctl"), "linux.seccomp");
    refused(filter("acct"), filter("keyctl"), "linux.seccomp");
}

#[test]
fn an_image_of_other_namespaces_is_refused() {
    refused(without("network"), nothing, "net namespace");
    refused(without("ipc"), nothing, "ipc namespace");
    refused(without("uts"), nothing, "uts namespace");
    refused(nothing, without("network"), "net namespace");
}

#[test]
fn an_image_with_other_mounts_is_refused() {
    refused(mount("/extra"), nothing, "that is not in mounts");
    refused(nothing, mount("/extra"), "has no mount at");
    let masked = |config: &mut Value| config["linux"]["maskedPaths"] = json!(["/proc/keys", "/proc/none"]);
    let readonly = |config: &mut Value| config["linux"]["readonlyPaths"] = json!(["/proc/sys"]);
    judged(masked, masked).unwrap();
    judged(readonly, readonly).unwrap();
    refused(nothing, masked, "linux.maskedPaths");
    refused(nothing, readonly, "linux.readonlyPaths");
}
