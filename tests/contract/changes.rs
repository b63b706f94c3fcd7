//! Pauses and updates that take long: a process cannot be frozen, or systemd is slow.

use crate::states::{call, container_in};
use crate::world::{kill_request, update_request, World};
use containerd_shim_protos::api::*;
use std::sync::atomic::Ordering;
use std::time::Duration;
use testbed::wire::{code, decode, Wire, DE, FP, OK, TASK_V3};

/// Starts an update that lasts while the stage is stuck.
fn updating(world: &mut World) -> Wire {
    container_in(world, "running");
    world.stage.stuck.store(true, Ordering::SeqCst);
    let mut other = world.connect();
    other.ask(TASK_V3, "Update", &update_request("c1"), Duration::ZERO);
    world.until(|stage| stage.updates.load(Ordering::SeqCst) == 1);
    other
}

#[test]
fn an_update_that_takes_long_keeps_nobody_from_the_container() {
    let mut world = World::new();
    let mut other = updating(&mut world);
    let state: StateResponse =
        world.wire.task("State", &StateRequest { id: "c1".into(), ..Default::default() }).unwrap();
    assert_eq!(state.status.value(), 2, "it runs");
    world.add("c1", "e1");
    world.start("c1", "e1");
    assert_eq!(world.end("c1", "e1").exit_status, 137);
    world.delete("c1", "e1");
    // Its exit, too, is reported at once.
    world.wire.task::<Empty>("Kill", &kill_request("c1", "", libc::SIGKILL, false)).unwrap();
    assert_eq!(world.wait("c1", "").exit_status, 137);
    world.stage.stuck.store(false, Ordering::SeqCst);
    decode::<Empty>(other.next().unwrap().1).unwrap();
    world.delete("c1", "");
}

#[test]
fn updates_come_one_after_the_other() {
    let mut world = World::new();
    let mut first = updating(&mut world);
    let mut second = world.connect();
    second.ask(TASK_V3, "Update", &update_request("c1"), Duration::ZERO);
    assert!(second.silent(Duration::from_millis(300)));
    assert_eq!(world.stage.updates.load(Ordering::SeqCst), 1);
    world.stage.stuck.store(false, Ordering::SeqCst);
    for wire in [&mut first, &mut second] {
        decode::<Empty>(wire.next().unwrap().1).unwrap();
    }
    assert_eq!(world.stage.updates.load(Ordering::SeqCst), 2);
    world.end("c1", "");
    world.delete("c1", "");
}

#[test]
fn an_update_that_was_given_up_is_not_begun() {
    let mut world = World::new();
    let mut first = updating(&mut world);
    let (mut second, mut third) = (world.connect(), world.connect());
    second.ask(TASK_V3, "Update", &update_request("c1"), Duration::from_millis(200));
    std::thread::sleep(Duration::from_millis(50));
    third.ask(TASK_V3, "Update", &update_request("c1"), Duration::ZERO);
    assert_eq!(decode::<Empty>(second.next().unwrap().1).unwrap_err().0, DE);
    // A Delete waits for updates in progress, and none follows it.
    world.wire.task::<Empty>("Kill", &kill_request("c1", "", libc::SIGKILL, false)).unwrap();
    assert_eq!(world.wait("c1", "").exit_status, 137);
    assert_eq!(decode::<Empty>(third.next().unwrap().1).unwrap_err().0, FP);
    let mut delete = world.connect();
    let request = DeleteRequest { id: "c1".into(), ..Default::default() };
    delete.ask(TASK_V3, "Delete", &request, Duration::ZERO);
    assert!(delete.silent(Duration::from_millis(200)));
    world.stage.stuck.store(false, Ordering::SeqCst);
    decode::<Empty>(first.next().unwrap().1).unwrap();
    decode::<DeleteResponse>(delete.next().unwrap().1).unwrap();
    assert_eq!(world.stage.updates.load(Ordering::SeqCst), 1);
}

#[test]
fn an_update_that_waits_for_another_ends_with_the_container() {
    let mut world = World::new();
    let mut first = updating(&mut world);
    let mut second = world.connect();
    second.ask(TASK_V3, "Update", &update_request("c1"), Duration::ZERO);
    assert!(second.silent(Duration::from_millis(100)));
    world.end("c1", "");
    assert_eq!(decode::<Empty>(second.next().unwrap().1).unwrap_err().0, FP);
    world.stage.stuck.store(false, Ordering::SeqCst);
    assert_eq!(first.next().unwrap().1.status.code(), OK);
    world.delete("c1", "");
}

#[test]
fn a_pause_that_takes_long_keeps_nobody_from_the_container() {
    let mut world = World::new();
    container_in(&mut world, "running");
    world.add("c1", "e1");
    world.stage.stuck.store(true, Ordering::SeqCst);
    let mut other = world.connect();
    let request = PauseRequest { id: "c1".into(), ..Default::default() };
    other.ask(TASK_V3, "Pause", &request, Duration::ZERO);
    world.until(|stage| stage.freezing.load(Ordering::SeqCst));
    let answers = [
        ("State", "", OK),
        ("Kill", "", OK),
        ("Pause", "", FP),
        ("Resume", "", FP),
        ("Start", "e1", FP),
        ("Delete", "", FP),
    ];
    for (method, exec, expected) in answers {
        assert_eq!(call(&mut world, method, exec), expected, "{method} {exec}");
    }
    let kill = kill_request("c1", "", libc::SIGKILL, false);
    world.wire.task::<Empty>("Kill", &kill).unwrap();
    assert_eq!(world.wait("c1", "").exit_status, 137);
    // The kill's thaw came before the freeze, which must be undone.
    world.stage.stuck.store(false, Ordering::SeqCst);
    assert_eq!(code(decode::<Empty>(other.next().unwrap().1)), FP);
    assert!(!world.stage.frozen.load(Ordering::SeqCst));
    assert!(!world.events(4).contains(&"paused c1".into()));
    world.delete("c1", "");
}
