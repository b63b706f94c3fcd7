//! Containers and their hooks that are made in a pid namespace whose processes attack them.

use crate::attacker::Attacker;
use crate::calls::LIMIT;
use crate::judge::OWN;
use crate::world::{Kind, World, PATIENCE};
use containerd_shim_protos::api::*;
use containerd_shim_protos::sandbox_api::*;
use serde_json::json;
use std::time::Duration;
use testbed::wire::{decode, Refusal, DE, SANDBOX, TASK_V3};

const TRACE: &str = "CAP_SYS_PTRACE";

const ATTACKS: &[(&str, u32)] = &[("stop", 8), ("step", 3), ("trace", 4), ("kill", 3)];

/// Longer than a container takes, and short enough to wait for.
const SHORT: Duration = Duration::from_millis(1500);

macro_rules! attackers {
    ($($name:ident: $kind:ident, $hook:expr, $attacker:expr;)*) => { $(
        #[test]
        fn $name() {
            attack(stringify!($name), Kind::$kind, $hook, $attacker);
        }
    )* };
}

attackers! {
    a_member_of_a_pod_shows_nothing_to_another_one: Pod, false, Attacker::default_and(&[]);
    a_member_of_a_pod_shows_nothing_to_one_that_traces: Pod, false, Attacker::default_and(&[TRACE]);
    a_member_of_a_pod_shows_nothing_to_one_that_is_not_root: Pod, false, Attacker { uid: 1000, ..Attacker::with(&[]) };
    a_hook_in_a_pod_shows_nothing_to_a_member: Pod, true, Attacker::default_and(&[]);
    a_hook_in_a_pod_shows_nothing_to_a_member_that_traces: Pod, true, Attacker::default_and(&[TRACE]);
    one_that_joins_by_path_shows_nothing: Joined, false, Attacker::default_and(&[]);
    one_that_joins_by_path_shows_nothing_to_one_that_traces: Joined, false, Attacker::default_and(&[TRACE]);
    one_that_joins_by_path_shows_nothing_in_a_user_namespace:
        Joined, false, Attacker { mapped: true, ..Attacker::default_and(&[TRACE]) };
    a_hook_of_one_that_joins_by_path_shows_nothing_in_a_user_namespace:
        Joined, true, Attacker { mapped: true, ..Attacker::default_and(&[TRACE]) };
    a_hook_of_one_that_joins_by_path_shows_nothing: Joined, true, Attacker::default_and(&[TRACE, "CAP_SYS_ADMIN"]);
}

/// Prepares a container whose life is attacked; it has the same rights as the attacker.
fn prepare(world: &mut World, id: &str, hook: bool) {
    let attacker = world.attacker.clone();
    world.member(id, &attacker, &["/probe", "sleep"], &[&format!("OWN={OWN}")]);
    if hook {
        world.containerd.configure(id, |config| {
            let run =
                json!({ "path": "/probe", "args": ["/probe", "linger", "3"], "env": [format!("OWN={OWN}")] });
            config["hooks"] = json!({ "startContainer": [run] });
        });
    }
}

fn attack(name: &str, kind: Kind, hook: bool, attacker: Attacker) {
    if !crate::root(name) {
        return;
    }
    let mut world = World::of(kind, attacker);
    // One that is not attacked yet.
    prepare(&mut world, "v", hook);
    let pid = world.run("v");
    world.ambush.learn(pid);
    world.kill("v", "");
    assert!(world.wait("v", "").is_some());
    world.delete("v", "").expect("Delete is answered").unwrap();
    world.forget("v");
    let mut answers = true;
    let mut number = 0;
    for (mode, count) in ATTACKS.iter().chain(&[("hold", 3)]) {
        world.ambush.trap.mode(mode);
        // A thread of the attacker may still be doing what it was told before: killing.
        if *mode == "hold" {
            std::thread::sleep(Duration::from_millis(200));
        }
        let before = world.ambush.trap.seen();
        for _ in 0..*count {
            number += 1;
            answers = answers && live(&mut world, &format!("v{number}"), hook, *mode == "hold");
        }
        if *mode == "stop" && answers {
            let seen = world.ambush.trap.seen() - before;
            assert!(
                seen >= u64::from(count / 3),
                "the attacker has seen {seen} of {count}: it does not work"
            );
        }
    }
    world.ambush.trap.mode("wait");
    let inside = world.ambush.judge();
    println!("{name}: {inside} caught from inside, of {}", world.ambush.trap.seen());
    world.end(name);
}

/// Takes a container from Create to Delete; returns whether the shim still answers.
fn live(world: &mut World, id: &str, hook: bool, held: bool) -> bool {
    prepare(world, id, hook);
    let limit = if held { SHORT } else { LIMIT };
    let mut wire = world.wire();
    wire.ask(TASK_V3, "Create", &world.create_request(id), limit);
    if held {
        std::thread::sleep(Duration::from_millis(400));
        world.ambush.look_from_outside();
    }
    if !wire.ready(limit + PATIENCE) {
        world.ambush.verdict.add("Create in attacked processes is not answered");
        return false;
    }
    let created = decode::<CreateTaskResponse>(wire.next().expect("the shim lives").1);
    if !fine(world, "Create", held, created.map(drop)) {
        // Nothing is left of it.
        world.forget(id);
        return true;
    }
    world.ids.push(id.to_owned());
    wire.ask(TASK_V3, "Start", &StartRequest { id: id.into(), ..Default::default() }, limit);
    if held {
        std::thread::sleep(Duration::from_millis(400));
        world.ambush.look_from_outside();
    }
    if !wire.ready(limit + PATIENCE) {
        world.ambush.verdict.add("Start in attacked processes is not answered");
        return false;
    }
    let started = decode::<StartResponse>(wire.next().expect("the shim lives").1);
    fine(world, "Start", held, started.map(drop));
    world.kill(id, "");
    if world.wait(id, "").is_none() {
        world.ambush.verdict.add("an attacked container does not end");
        return false;
    }
    if world.delete(id, "").is_none() {
        world.ambush.verdict.add("Delete of an attacked container is not answered");
        return false;
    }
    world.forget(id);
    true
}

/// A held request must end by its time limit; a killed one may fail in any way.
fn fine(world: &mut World, what: &str, held: bool, answer: Result<(), Refusal>) -> bool {
    match answer {
        Ok(()) => true,
        Err((code, _)) if !held || code == DE => false,
        Err((code, words)) => {
            world.ambush.verdict.add(format!("{what} of one that is held: {code:?}: {words}"));
            false
        }
    }
}

#[test]
fn a_pod_is_stopped_and_shut_down_while_a_member_is_held() {
    let name = "a_pod_is_stopped_and_shut_down_while_a_member_is_held";
    if !crate::root(name) {
        return;
    }
    for method in ["StopSandbox", "ShutdownSandbox"] {
        let mut world = World::of(Kind::Pod, Attacker::default_and(&[]));
        world.ambush.trap.mode("hold");
        let mut creating = Vec::new();
        for number in 0..4 {
            let id = format!("v{number}");
            prepare(&mut world, &id, false);
            let mut wire = world.wire();
            wire.ask(TASK_V3, "Create", &world.create_request(&id), Duration::from_secs(60));
            creating.push((id, wire));
        }
        std::thread::sleep(Duration::from_millis(500));
        let mut wire = world.wire();
        wire.ask(SANDBOX, method, &testbed::fake::pod::about(), Duration::ZERO);
        assert!(wire.ready(PATIENCE), "{method} waits for what is held");
        let answer = decode::<StopSandboxResponse>(wire.next().expect("it answers first").1);
        answer.unwrap_or_else(|e| panic!("{method}: {e:?}"));
        for (id, wire) in creating {
            assert!(wire.ready(PATIENCE), "{id} is waited for although its pod has ended");
        }
        if method == "StopSandbox" {
            for id in world.ids.clone() {
                world.delete(&id, "").expect("Delete is answered").ok(); // it may have gone with the pod
            }
        }
        world.ids.extend((0..4).map(|number| format!("v{number}")));
        match method {
            "StopSandbox" => world.end_of_shim(name),
            _ => world.after(wire, name),
        }
    }
}
