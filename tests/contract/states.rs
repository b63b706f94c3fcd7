//! The table: the code and the events of every method of the Task service in every state.

use crate::world::{exec_request, kill_request, update_request, World};
use containerd_shim_protos::api::*;
use std::time::Duration;
use testbed::wire::{code, decode, AE, DE, FP, IA, NF, OK, TASK_V3, UN};
use ttrpc::proto::Code;

/// The states of a container's first process.
const STATES: [&str; 6] = ["unknown", "created", "running", "paused", "stopped", "deleted"];
/// The states of an exec in a running container.
const EXEC_STATES: [&str; 5] = ["unknown", "added", "running", "stopped", "deleted"];

/// Takes container `c1` into a state.
pub fn container_in(world: &mut World, state: &str) {
    let steps = match state {
        "unknown" => 0,
        "created" => 1,
        "running" => 2,
        "paused" | "stopped" => 3,
        _ => 4,
    };
    if steps >= 1 {
        world.create("c1");
    }
    if steps >= 2 {
        world.start("c1", "");
    }
    if state == "paused" {
        world.pause("c1");
    } else if steps >= 3 {
        world.end("c1", "");
    }
    if steps >= 4 {
        world.delete("c1", "");
    }
}

fn exec_in(world: &mut World, state: &str) {
    container_in(world, "running");
    let steps = EXEC_STATES.iter().position(|name| *name == state).unwrap();
    if steps >= 1 {
        world.add("c1", "e1");
    }
    if steps >= 2 {
        world.start("c1", "e1");
    }
    if steps >= 3 {
        world.end("c1", "e1");
    }
    if steps >= 4 {
        world.delete("c1", "e1");
    }
}

pub fn call(world: &mut World, method: &str, exec: &str) -> Code {
    let (id, exec_id) = ("c1".to_owned(), exec.to_owned());
    match method {
        "Create" => {
            let request = world.create_request("c1");
            code(world.wire.task::<CreateTaskResponse>(method, &request))
        }
        "Start" => code(
            world.wire.task::<StartResponse>(method, &StartRequest { id, exec_id, ..Default::default() }),
        ),
        "State" => code(
            world.wire.task::<StateResponse>(method, &StateRequest { id, exec_id, ..Default::default() }),
        ),
        "Pids" => code(world.wire.task::<PidsResponse>(method, &PidsRequest { id, ..Default::default() })),
        "Exec" => code(world.wire.task::<Empty>(method, &exec_request("c1", "e1"))),
        "ResizePty" => {
            let request = ResizePtyRequest { id, exec_id, width: 80, height: 24, ..Default::default() };
            code(world.wire.task::<Empty>(method, &request))
        }
        "CloseIO" => {
            let request = CloseIORequest { id, exec_id, stdin: true, ..Default::default() };
            code(world.wire.task::<Empty>(method, &request))
        }
        "Kill" => code(world.wire.task::<Empty>(method, &kill_request("c1", exec, libc::SIGCONT, false))),
        "Kill all" => code(world.wire.task::<Empty>("Kill", &kill_request("c1", exec, libc::SIGCONT, true))),
        "Kill all, 65" => code(world.wire.task::<Empty>("Kill", &kill_request("c1", exec, 65, true))),
        "Pause" => code(world.wire.task::<Empty>(method, &PauseRequest { id, ..Default::default() })),
        "Resume" => code(world.wire.task::<Empty>(method, &ResumeRequest { id, ..Default::default() })),
        "Update" => code(world.wire.task::<Empty>(method, &update_request("c1"))),
        "Stats" => code(world.wire.task::<StatsResponse>(method, &StatsRequest { id, ..Default::default() })),
        "Connect" => {
            code(world.wire.task::<ConnectResponse>(method, &ConnectRequest { id, ..Default::default() }))
        }
        "Delete" => code(
            world.wire.task::<DeleteResponse>(method, &DeleteRequest { id, exec_id, ..Default::default() }),
        ),
        "Checkpoint" => {
            let path = "/images".into();
            code(world.wire.task::<Empty>(method, &CheckpointTaskRequest { id, path, ..Default::default() }))
        }
        "Shutdown" => code(world.wire.task::<Empty>(method, &ShutdownRequest { id, ..Default::default() })),
        // A Wait for a live process must not answer: the request's own time limit ends it.
        "Wait" => {
            let request = WaitRequest { id, exec_id, ..Default::default() };
            world.wire.ask(TASK_V3, method, &request, Duration::from_millis(50));
            code(decode::<WaitResponse>(world.wire.next().unwrap().1))
        }
        _ => unreachable!("{method}"),
    }
}

#[test]
fn each_method_in_each_state_of_a_container() {
    // One column per state of STATES.
    let table = [
        ("Create", [OK, AE, AE, AE, AE, OK]),
        ("Start", [NF, OK, FP, FP, FP, NF]),
        ("State", [NF, OK, OK, OK, OK, NF]),
        ("Pids", [NF, OK, OK, OK, OK, NF]),
        ("Exec", [NF, FP, OK, FP, FP, NF]),
        ("ResizePty", [NF, OK, OK, OK, FP, NF]),
        ("CloseIO", [NF, OK, OK, OK, OK, NF]),
        ("Kill", [NF, OK, OK, OK, NF, NF]),
        ("Kill all", [NF, OK, OK, OK, NF, NF]),
        ("Kill all, 65", [NF, IA, IA, IA, NF, NF]),
        ("Pause", [NF, FP, OK, FP, FP, NF]),
        ("Resume", [NF, FP, FP, OK, FP, NF]),
        ("Update", [NF, OK, OK, OK, FP, NF]),
        ("Wait", [NF, DE, DE, DE, OK, NF]),
        ("Stats", [NF, OK, OK, OK, OK, NF]),
        ("Connect", [OK, OK, OK, OK, OK, OK]),
        ("Delete", [NF, OK, FP, FP, OK, NF]),
        ("Checkpoint", [NF, UN, UN, UN, UN, NF]),
        ("Shutdown", [OK, OK, OK, OK, OK, OK]),
    ];
    for (method, codes) in table {
        for (state, expected) in STATES.iter().zip(codes) {
            let mut world = World::new();
            container_in(&mut world, state);
            let before = world.events(0).len();
            assert_eq!(call(&mut world, method, ""), expected, "{method} when {state}");
            let heard = match (method, expected) {
                ("Create", OK) => vec!["create c1"],
                ("Start", OK) => vec!["start c1"],
                ("Exec", OK) => vec!["exec-added c1 e1"],
                ("Pause", OK) => vec!["paused c1"],
                ("Resume", OK) => vec!["resumed c1"],
                ("Delete", OK) if *state == "created" => vec!["exit c1 c1 137", "delete c1 137"],
                ("Delete", OK) => vec!["delete c1 137"],
                _ => vec![],
            };
            let events = world.events(before + heard.len());
            assert_eq!(events[before..], heard, "events of {method} when {state}");
        }
    }
}

#[test]
fn each_method_in_each_state_of_an_exec() {
    // One column per state of EXEC_STATES.
    let table = [
        ("Start", [NF, OK, FP, FP, NF]),
        ("State", [NF, OK, OK, OK, NF]),
        ("Exec", [OK, AE, AE, AE, OK]),
        ("ResizePty", [NF, OK, OK, FP, NF]),
        ("CloseIO", [NF, OK, OK, OK, NF]),
        ("Kill", [NF, FP, OK, NF, NF]),
        ("Wait", [NF, DE, DE, OK, NF]),
        ("Delete", [NF, OK, FP, OK, NF]),
    ];
    for (method, codes) in table {
        for (state, expected) in EXEC_STATES.iter().zip(codes) {
            let mut world = World::new();
            exec_in(&mut world, state);
            let before = world.events(0).len();
            assert_eq!(call(&mut world, method, "e1"), expected, "{method} when {state}");
            let heard = match (method, expected) {
                ("Start", OK) => vec!["exec-started c1 e1"],
                ("Exec", OK) => vec!["exec-added c1 e1"],
                _ => vec![],
            };
            let events = world.events(before + heard.len());
            assert_eq!(events[before..], heard, "events of {method} when {state}");
        }
    }
}
