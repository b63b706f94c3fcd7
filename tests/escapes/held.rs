//! Processes that are held while they join a container: whoever waits for them is answered in time, and no other
//! request waits.

use crate::attacker::Attacker;
use crate::calls::{exec_request, kill_request};
use crate::judge::OWN;
use crate::world::World;
use containerd_shim_protos::api::*;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};
use testbed::fake::eventually;
use testbed::wire::{code, decode, Wire, DE, TASK_V3};

/// More than the shim has workers.
const MANY: u32 = 90;

/// The limit for a request that waits for nothing held, on a busy machine.
const SOON: Duration = Duration::from_secs(3);

fn hold(name: &str, attacker: Attacker) -> Option<World> {
    if !crate::root(name) {
        return None;
    }
    let world = World::new(attacker);
    world.ambush.trap.mode("hold");
    Some(world)
}

fn state(world: &World, id: &str) -> bool {
    let mut wire = world.wire();
    wire.ask(TASK_V3, "State", &StateRequest { id: id.into(), ..Default::default() }, Duration::ZERO);
    wire.ready(SOON)
}

#[test]
fn a_shim_with_many_held_execs_answers_everybody() {
    let name = "a_shim_with_many_held_execs_answers_everybody";
    let Some(mut world) = hold(name, Attacker::default_and(&[])) else { return };
    let (threads, descriptors) = (count(&world, "task"), count(&world, "fd"));
    let begun = Instant::now();
    let held = world.held(MANY, Duration::from_secs(6));
    assert!(state(&world, "c1") && state(&world, "c2"), "the shim is deaf");
    // The neighbour can still start an exec.
    let process = Attacker::default_and(&[]).process(&["/probe", "exit", "3"], &[]);
    world.exec("c2", "meanwhile", &process);
    world.start("c2", "meanwhile", SOON).unwrap();
    assert_eq!(world.wait("c2", "meanwhile"), Some(3));
    world.delete("c2", "meanwhile").expect("Delete is answered").unwrap();
    println!("{} threads with {MANY} held execs, after {:?}", count(&world, "task"), begun.elapsed());
    assert!(world.ambush.look_from_outside() > 0, "nothing is held");
    let mut late = 0;
    for (exec, mut wire) in held {
        assert!(wire.ready(Duration::from_secs(15)), "{exec} has no answer after {:?}", begun.elapsed());
        let answer = decode::<StartResponse>(wire.next().expect("the shim lives").1);
        match answer {
            Ok(_) => world.kill("c1", &exec),
            Err((DE, words)) => {
                late += 1;
                assert!(words.len() > 20, "it does not say at which step it was: {words:?}");
                if late == 1 {
                    println!("{words}");
                }
            }
            Err(other) => panic!("{exec}: {other:?}"),
        }
        world.delete_when_over("c1", &exec);
    }
    assert!(late > 0, "nothing was held");
    world.ambush.judge();
    assert!(eventually(|| count(&world, "task") <= threads + 1), "{} threads", count(&world, "task"));
    assert!(eventually(|| count(&world, "fd") <= descriptors + 2), "{} descriptors", count(&world, "fd"));
    world.end(name);
}

fn count(world: &World, folder: &str) -> usize {
    std::fs::read_dir(format!("/proc/{}/{folder}", world.server)).unwrap().count()
}

#[test]
fn a_held_exec_that_is_killed_is_over_before_its_time() {
    let name = "a_held_exec_that_is_killed_is_over_before_its_time";
    let Some(mut world) = hold(name, Attacker::default_and(&[])) else { return };
    for (exec, mut wire) in world.held(6, Duration::from_secs(60)) {
        std::thread::sleep(Duration::from_millis(200));
        let mut killer = world.wire();
        killer.ask(TASK_V3, "Kill", &kill_request("c1", &exec), Duration::ZERO);
        assert!(killer.ready(SOON), "Kill waits for the start");
        assert!(wire.ready(SOON), "Start goes on although it was killed");
        drop(wire.next());
        world.delete_when_over("c1", &exec);
    }
    world.ambush.judge();
    world.end(name);
}

#[test]
fn a_container_with_held_execs_is_killed_and_deleted_at_once() {
    let name = "a_container_with_held_execs_is_killed_and_deleted_at_once";
    let Some(mut world) = hold(name, Attacker::default_and(&[])) else { return };
    let held = world.held(5, Duration::from_secs(60));
    std::thread::sleep(Duration::from_millis(300));
    world.kill("c1", "");
    assert!(world.wait("c1", "").is_some(), "it does not end");
    for (exec, mut wire) in held {
        assert!(wire.ready(SOON), "{exec} is waited for although its container has ended");
        drop(wire.next());
    }
    assert!(world.delete("c1", "").is_some(), "Delete waits");
    assert!(state(&world, "c2"));
    world.ambush.judge();
    world.end(name);
}

#[test]
fn the_output_of_a_neighbour_ends_with_it_while_an_exec_is_held() {
    let name = "the_output_of_a_neighbour_ends_with_it_while_an_exec_is_held";
    let Some(mut world) = hold(name, Attacker::default_and(&[])) else { return };
    world.neighbour("c3", &["/probe", "sleep"]);
    let out = world.containerd.bundle("c3").join("out");
    nix::unistd::mkfifo(&out, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let reader = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&out);
    world.run("c3");
    let held = world.held(4, Duration::from_secs(60));
    std::thread::sleep(Duration::from_millis(300));
    world.kill("c3", "");
    assert!(world.wait("c3", "").is_some());
    world.delete("c3", "").expect("Delete is answered").unwrap();
    let mut reader = reader.unwrap();
    // No process has it open for writing any more; otherwise the read would fail with EAGAIN.
    let ended = || reader.read(&mut [0; 16]).is_ok_and(|got| got == 0);
    assert!(within(SOON, ended), "somebody still holds a neighbour's stream");
    for (exec, wire) in held {
        world.kill("c1", &exec);
        drop(wire);
    }
    world.ambush.judge();
    world.end(name);
}

fn within(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + time;
    while Instant::now() < end {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// A tracer that does not reap its tracee keeps the tracee's parent from reaping it.
#[test]
fn a_start_whose_process_is_kept_as_a_zombie_is_over_in_time() {
    let name = "a_start_whose_process_is_kept_as_a_zombie_is_over_in_time";
    let Some(mut world) = hold(name, Attacker::default_and(&["CAP_SYS_PTRACE"])) else { return };
    world.ambush.trap.mode("keep");
    let process = world.attacker.process(&["/probe", "linger", "3"], &[&format!("OWN={OWN}")]);
    for number in 0..20 {
        let exec = format!("k{number}");
        let mut wire = world.wire();
        assert!(code(wire.task::<Empty>("Exec", &exec_request("c1", &exec, &process))) == testbed::wire::OK);
        let request = StartRequest { id: "c1".into(), exec_id: exec, ..Default::default() };
        wire.ask(TASK_V3, "Start", &request, Duration::from_secs(1));
        assert!(wire.ready(Duration::from_secs(1) + SOON), "Start is not answered");
    }
    assert!(state(&world, "c1") && state(&world, "c2"), "the shim is deaf");
    world.ambush.judge();
    // With its tracer, everything that the tracer has kept ends.
    world.end(name);
}

/// All of the host is visible there anyway, but nothing is held up, and nothing is left.
#[test]
fn an_exec_that_is_held_in_the_hosts_pid_namespace_holds_nobody_up() {
    let name = "an_exec_that_is_held_in_the_hosts_pid_namespace_holds_nobody_up";
    if !crate::root(name) {
        return;
    }
    let mut world = World::new(Attacker { host_pids: true, ..Attacker::default_and(&["CAP_SYS_PTRACE"]) });
    world.ambush.trap.mode("mine");
    let held: Vec<(String, Wire)> = world.held(10, Duration::from_secs(2));
    std::thread::sleep(Duration::from_millis(300));
    assert!(state(&world, "c1") && state(&world, "c2"), "the shim is deaf");
    for (exec, wire) in held {
        world.give_up(&exec, wire);
    }
    world.end(name);
}
