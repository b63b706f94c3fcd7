//! The end of the shim, and of containers that are being created.

use crate::states::call;
use crate::world::World;
use containerd_shim_protos::api::*;
use shoal::service::about::SHIM;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;
use testbed::wire::{code, decode, NF, OK, TASK_V3, UNAVAILABLE};
use ttrpc::proto::Code;

#[test]
fn the_shim_ends_when_it_was_asked_and_its_last_container_is_gone() {
    let mut world = World::new();
    let ended = |world: &World| world.ended.load(std::sync::atomic::Ordering::SeqCst);
    world.create("c1");
    world.create("c2");
    assert_eq!(call(&mut world, "Shutdown", ""), OK);
    world.delete("c2", "");
    assert!(!ended(&world));
    world.delete("c1", "");
    assert!(world.wire.next().is_none(), "the server hangs up");
    assert!(ended(&world));
}

#[test]
fn a_shim_that_ends_says_so_to_whoever_would_join_it() {
    let mut world = World::new();
    world.stage.stays.store(true, Ordering::SeqCst);
    let about = |world: &mut World| code(world.wire.call::<Empty>(SHIM, "About", &Empty::new()));
    assert_eq!(about(&mut world), OK);
    world.wire.task::<Empty>("Shutdown", &ShutdownRequest::new()).unwrap();
    world.until(|_| world.has_ended());
    assert_eq!(about(&mut world), UNAVAILABLE);
}

#[test]
fn the_shim_ends_when_it_was_asked_while_a_create_was_about_to_fail() {
    let mut world = World::new();
    let request = world.create_request("c1");
    world.stage.hold.store(true, Ordering::SeqCst);
    let mut one = world.connect();
    one.ask(TASK_V3, "Create", &request, Duration::ZERO);
    world.until(|stage| stage.held.load(Ordering::SeqCst));
    assert_eq!(call(&mut world, "Shutdown", ""), OK);
    assert!(!world.ended.load(Ordering::SeqCst));
    world.stage.fail.store(true, Ordering::SeqCst);
    world.stage.hold.store(false, Ordering::SeqCst);
    decode::<CreateTaskResponse>(one.next().unwrap().1).unwrap_err();
    assert!(world.wire.next().is_none(), "the server hangs up");
    assert!(world.ended.load(Ordering::SeqCst));
}

#[test]
fn a_create_that_fails_forgets_its_cgroup_only_once_it_is_removed() {
    for busy in [false, true] {
        let mut world = World::new();
        world.stage.busy.store(busy, Ordering::SeqCst);
        let request = CreateTaskRequest { stdout: "/no/such/fifo".into(), ..world.create_request("c1") };
        world.wire.task::<CreateTaskResponse>("Create", &request).unwrap_err();
        assert_eq!(world.stage.removals.load(Ordering::SeqCst), 1);
        // The `delete` verb finds by the record what is left.
        assert_eq!(Path::new(&request.bundle).join("shoal.json").exists(), busy);
    }
}

/// The fake's launches cannot be killed: this one succeeds after all.
#[test]
fn a_delete_takes_what_was_being_created_with_it() {
    let mut world = World::new();
    let request = world.create_request("c1");
    world.stage.hold.store(true, Ordering::SeqCst);
    let (mut one, mut other) = (world.connect(), world.connect());
    one.ask(TASK_V3, "Create", &request, Duration::ZERO);
    world.until(|stage| stage.held.load(Ordering::SeqCst));
    other.ask(TASK_V3, "Delete", &DeleteRequest { id: "c1".into(), ..Default::default() }, Duration::ZERO);
    assert!(other.silent(Duration::from_millis(50)));
    world.stage.hold.store(false, Ordering::SeqCst);
    decode::<CreateTaskResponse>(one.next().unwrap().1).unwrap();
    decode::<DeleteResponse>(other.next().unwrap().1).unwrap();
    assert_eq!(call(&mut world, "State", ""), NF);
    world.until(|stage| stage.pids().is_empty());
}

/// A transition that panics halfway leaves a state from which other requests can continue.
#[test]
fn a_panic_in_the_middle_of_a_request_keeps_nothing_from_the_next() {
    let mut world = World::new();
    let panics = |world: &mut World, method: &str, exec: &str| {
        world.stage.panic.store(true, Ordering::SeqCst);
        assert_eq!(call(world, method, exec), Code::INTERNAL, "{method}");
        assert!(!world.stage.panic.load(Ordering::SeqCst), "{method}");
    };
    world.create("c1");
    world.start("c1", "");
    world.add("c1", "e1");
    panics(&mut world, "Start", "e1");
    assert_eq!(world.wait("c1", "e1").exit_status, 255);
    assert_eq!(call(&mut world, "Delete", "e1"), OK);
    panics(&mut world, "Pause", "");
    world.pause("c1");
    assert_eq!(call(&mut world, "Resume", ""), OK);
    world.end("c1", "");
    panics(&mut world, "Delete", "");
    assert_eq!(call(&mut world, "Delete", ""), OK);

    let hook = r#""hooks": { "startContainer": [{ "path": "/bin/hook" }] }, "root""#;
    world.create_with("c1", r#""root""#, hook);
    panics(&mut world, "Start", "");
    assert_eq!(world.wait("c1", "").exit_status, 137);
    assert_eq!(call(&mut world, "Delete", ""), OK);
}
