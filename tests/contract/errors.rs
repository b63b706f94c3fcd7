//! Error texts: the field first, no position in a file that nobody reads by lines, and nothing twice.

use super::world::{exec_request, World};
use containerd_shim_protos::api::*;

fn create(world: &mut World, id: &str, config: &str) -> String {
    let request = world.create_request(id);
    std::fs::write(std::path::Path::new(&request.bundle).join("config.json"), config).unwrap();
    world.wire.task::<CreateTaskResponse>("Create", &request).unwrap_err().1
}

#[test]
fn a_bad_specification_is_told_by_its_field() {
    let mut world = World::new();
    for (config, message) in [
        (
            r#"{"ociVersion":"1.0.2","root":{"path":"rootfs"},"process":{"cwd":"/","args":[]}}"#,
            "create c1: process.args: must not be empty",
        ),
        (
            r#"{"process":{"args":["sh",1]}}"#,
            "create c1: process.args[1]: invalid type: integer `1`, expected a string",
        ),
        (r#"{"process":"#, "create c1: config.json: not JSON, in process: EOF while parsing a value"),
        ("", "create c1: config.json: not JSON: EOF while parsing a value"),
    ] {
        assert_eq!(create(&mut world, "c1", config), message);
    }
}

#[test]
fn what_is_not_there_and_what_is_there_are_told_once() {
    let mut world = World::new();
    world.create("c1");
    let request = world.create_request("c1");
    let (_, message) = world.wire.task::<CreateTaskResponse>("Create", &request).unwrap_err();
    assert_eq!(message, "container c1: already exists");
    world.start("c1", "");
    world.add("c1", "e1");
    let (_, message) = world.wire.task::<Empty>("Exec", &exec_request("c1", "e1")).unwrap_err();
    assert_eq!(message, "exec e1 of container c1: already exists");
    let start = StartRequest { id: "c1".into(), exec_id: "e2".into(), ..Default::default() };
    let (_, message) = world.wire.task::<StartResponse>("Start", &start).unwrap_err();
    assert_eq!(message, "exec e2 of container c1: not found");
    let state = StateRequest { id: "c2".into(), ..Default::default() };
    let (_, message) = world.wire.task::<StateResponse>("State", &state).unwrap_err();
    assert_eq!(message, "container c2 not created: not found");
}
