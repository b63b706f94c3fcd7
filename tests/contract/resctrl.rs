//! `linux.intelRdt` in a container's life, with files in place of resctrl.

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
    // In resctrl it goes with its directory.
    fs::remove_file(schemata).unwrap();
    world.end("c1", "");
    world.delete("c1", "");
    assert!(!root.join("c1").exists());
}

#[test]
fn a_class_with_a_name_stays_and_what_counts_in_it_goes() {
    let mut world = World::new();
    let root = tree(&world);
    // The class is there, as the kernel would make it.
    fs::create_dir_all(root.join("gold/mon_groups")).unwrap();
    fs::write(root.join("gold/schemata"), "L3:0=000f\n").unwrap();
    let rdt = r#"{ "closID": "gold", "l3CacheSchema": "L3:0=f", "enableMonitoring": true }"#;
    for id in ["c1", "c2"] {
        world.create_with(id, LINUX, &with(rdt));
        assert!(root.join("gold/mon_groups").join(id).is_dir());
    }
    // All fake containers share a cgroup, and a delete kills whatever is left in it.
    for id in ["c1", "c2"] {
        world.end(id, "");
    }
    for id in ["c1", "c2"] {
        world.delete(id, "");
        assert!(!root.join("gold/mon_groups").join(id).exists());
    }
    assert_eq!(fs::read_to_string(root.join("gold/schemata")).unwrap(), "L3:0=000f\n");
}

#[test]
fn a_group_that_cannot_be_removed_keeps_no_container() {
    let mut world = World::new();
    let root = tree(&world);
    world.create_with("c1", LINUX, &with(r#"{ "l3CacheSchema": "L3:0=f" }"#));
    world.end("c1", "");
    // A plain directory with a file in it.
    world.delete("c1", "");
    assert!(root.join("c1").is_dir());
    // Nor is it taken over later.
    let request = world.create_request("c1");
    let config = PathBuf::from(&request.bundle).join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replacen(LINUX, &with("{}"), 1)).unwrap();
    let refused = world.wire.task::<CreateTaskResponse>("Create", &request).unwrap_err();
    assert!(refused.1.contains("c1\" exists, and is not this container's"), "{refused:?}");
    assert!(root.join("c1/schemata").exists());
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
        (r#"{ "closID": "silver" }"#, "silver\" does not exist, and there is no schema to make it with"),
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
fn a_group_that_a_failed_create_leaves_is_in_its_record() {
    let mut world = World::new();
    let root = tree(&world);
    let request = world.create_request("c1");
    let config = PathBuf::from(&request.bundle).join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    // A plain directory has no `mon_groups`, and stays because of its schemata.
    let rdt = r#"{ "l3CacheSchema": "L3:0=f", "enableMonitoring": true }"#;
    fs::write(&config, text.replacen(LINUX, &with(rdt), 1)).unwrap();
    let refused = world.wire.task::<CreateTaskResponse>("Create", &request).unwrap_err();
    assert!(refused.1.contains("linux.intelRdt: mkdir("), "{refused:?}");
    let record = fs::read_to_string(PathBuf::from(&request.bundle).join("shoal.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["resctrl"][0], root.join("c1").to_str().unwrap());
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
