//! `linux.intelRdt` over a container's life, in a tree that is as much of resctrl as files can be.

use crate::world::World;
use containerd_shim_protos::api::*;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

fn tree(world: &World) -> PathBuf {
    let root = world.resctrl();
    for name in ["L3", "MB", "L3_MON"] {
        fs::create_dir_all(root.join("info").join(name)).unwrap();
    }
    root
}

const LINUX: &str = "\"linux\": {";

fn with(rdt: &str) -> String {
    format!("{LINUX} \"intelRdt\": {rdt},")
}

#[test]
fn a_class_is_made_for_a_container_and_goes_with_it() {
    let mut world = World::new();
    let root = tree(&world);
    let rdt = r#"{ "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20", "schemata": ["L2:0=3"] }"#;
    world.create_with("c1", LINUX, &with(rdt));
    let schemata = root.join("c1/schemata");
    assert_eq!(fs::read_to_string(&schemata).unwrap(), "L3:0=f\nMB:0=20\nL2:0=3\n");
    // In resctrl it goes with its folder.
    fs::remove_file(schemata).unwrap();
    world.end("c1", "");
    world.delete("c1", "");
    assert!(!root.join("c1").exists());
}

#[test]
fn a_class_with_a_name_stays_and_what_counts_in_it_goes() {
    let mut world = World::new();
    let root = tree(&world);
    let rdt = r#"{ "closID": "gold", "l3CacheSchema": "L3:0=f", "enableMonitoring": true }"#;
    for id in ["c1", "c2"] {
        world.create_with(id, LINUX, &with(rdt));
        assert!(root.join("gold/mon_groups").join(id).is_dir());
    }
    // The cgroups of the stage are one, and a delete ends whoever is left in it.
    for id in ["c1", "c2"] {
        world.end(id, "");
    }
    for id in ["c1", "c2"] {
        world.delete(id, "");
        assert!(!root.join("gold/mon_groups").join(id).exists());
    }
    assert_eq!(fs::read_to_string(root.join("gold/schemata")).unwrap(), "L3:0=f\n");
}

#[test]
fn a_failed_create_leaves_no_class() {
    let mut world = World::new();
    let root = tree(&world);
    let request = world.create_request("c1");
    let config = PathBuf::from(&request.bundle).join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    for (rdt, why) in [
        ("{}", "create c1: a failure on purpose"),
        (r#"{ "closID": "silver" }"#, "silver\" is not there, and no schema is given to make it with"),
        (r#"{ "closID": "a/b" }"#, "linux.intelRdt.closID: \"a/b\" is not the name of a class"),
    ] {
        fs::write(&config, text.replacen(LINUX, &with(rdt), 1)).unwrap();
        world.stage.fail.store(true, Ordering::SeqCst);
        let refused = world.wire.task::<CreateTaskResponse>("Create", &request).unwrap_err();
        assert!(refused.1.contains(why), "{refused:?}");
        world.stage.fail.store(false, Ordering::SeqCst);
        assert_eq!(fs::read_dir(&root).unwrap().count(), 1, "{rdt}");
    }
}

#[test]
fn a_host_without_resctrl_says_so() {
    let mut world = World::new();
    let request = world.create_request("c1");
    let config = PathBuf::from(&request.bundle).join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replacen(LINUX, &with(r#"{ "memBwSchema": "MB:0=20" }"#), 1)).unwrap();
    let refused = world.wire.task::<CreateTaskResponse>("Create", &request).unwrap_err();
    assert!(refused.1.contains("linux.intelRdt.memBwSchema: the host has no MB in "), "{refused:?}");
}
