//! A freezer that does not finish: a process of the container waits in the kernel for a filesystem.

use crate::ask::{self, answers, Asked};
use crate::fuse::Waits;
use crate::hear::{calm, threads};
use crate::pods;
use crate::world::{World, NEIGHBOUR, POD};
use crate::{apart, slow};
use containerd_shim_protos::api::*;
use shoal::service::protos::sandbox::{ControllerPauseRequest, ControllerResumeRequest};
use std::time::Duration;
use testbed::fake::eventually;
use testbed::wire::CONTROLLER;

/// How many pauses wait, and how many kills in a pod that is being paused.
const PAUSES: usize = 12;
const KILLS: usize = 80;
const SOON: Duration = Duration::from_secs(3);
/// How long the shim waits for a freezer.
const LIMIT: Duration = Duration::from_secs(10);

/// Starts an exec whose program cannot be read: it cannot be frozen, and its Start waits.
fn hold(world: &World, id: &str) -> Asked {
    world.exec(id, "held", &ask::process(&[&format!("/f/slow-{id}")]));
    world.line().task(id, "Start", &ask::start_request(id, "held"), Duration::ZERO)
}

#[test]
fn pauses_that_wait_for_the_freezer_have_no_thread() {
    apart("launch_timeout = 100", || {
        let mut world = World::new(Waits::UntilKilled);
        let ids: Vec<String> = (0..PAUSES).map(|number| format!("c{number}")).collect();
        for id in &ids {
            world.prepare(id, &["/probe", "sleep"], |_| ());
            world.run(id);
        }
        let held: Vec<Asked> = ids.iter().map(|id| hold(&world, id)).collect();
        std::thread::sleep(slow(Duration::from_millis(700)));
        let before = threads(world.server);
        let line = world.line();
        let pause = |id: &String| {
            let request = PauseRequest { id: id.clone(), ..Default::default() };
            line.task(id, "Pause", &request, Duration::ZERO)
        };
        let mut pauses: Vec<Asked> = ids.iter().map(pause).collect();
        std::thread::sleep(slow(Duration::from_millis(300)));
        let waiting = pauses.iter().filter(|asked| !asked.wire.ready(Duration::ZERO)).count();
        if waiting != PAUSES {
            world.complain(format!("{waiting} pauses wait"));
        }
        calm(&mut world, before);
        world.hear(&[NEIGHBOUR]);
        // A kill ends the container and its pause.
        let first = pauses.remove(0);
        world.end_container(&ids[0]);
        let first = answers(vec![first], slow(SOON)).remove(0);
        if first.answer.is_none() || first.good() {
            world.complain(format!("{first}, although it was killed"));
        }
        for answer in answers(pauses, LIMIT + slow(SOON)) {
            println!("  {answer}");
            if !answer.refusal().is_some_and(|(_, words)| words.contains("pause")) {
                world.complain(format!("{answer}"));
            }
        }
        // The failed pauses have thawed the others.
        ids[1..].iter().for_each(|id| world.end_container(id));
        drop(held);
        world.end("pauses");
    });
}

#[test]
fn a_kill_in_a_pod_that_is_being_paused_has_no_thread() {
    apart("launch_timeout = 100", || {
        let mut world = World::of(Waits::UntilKilled, true);
        world.prepare("c1", &["/probe", "sleep"], |_| ());
        world.run("c1");
        let held = hold(&world, "c1");
        std::thread::sleep(slow(Duration::from_millis(700)));
        let before = threads(world.server);
        let about = ControllerPauseRequest { sandbox_id: POD.into(), ..Default::default() };
        let pause = world.line().ask("Pause", CONTROLLER, "Pause", &about, Duration::ZERO);
        std::thread::sleep(slow(Duration::from_millis(300)));
        if pause.wire.ready(Duration::ZERO) {
            world.complain("the pause of the pod is answered already");
        }
        let line = world.line();
        let kill = |_| line.task("Kill", "Kill", &ask::kill_request(NEIGHBOUR, ""), Duration::ZERO);
        let kills: Vec<Asked> = (0..KILLS).map(kill).collect();
        std::thread::sleep(slow(Duration::from_millis(300)));
        let waiting = kills.iter().filter(|asked| !asked.wire.ready(Duration::ZERO)).count();
        if waiting == 0 {
            world.complain("no kill waits");
        }
        calm(&mut world, before);
        world.hear(&["c1"]);
        // The pause gives up, since c1 cannot be frozen, and everything that was killed dies.
        for answer in answers(vec![pause], LIMIT + slow(SOON)).into_iter() {
            println!("  {answer}");
            if answer.answer.is_none() {
                world.complain(format!("{answer}"));
            } else if answer.good() {
                let about = ControllerResumeRequest { sandbox_id: POD.into(), ..Default::default() };
                let resume = world.line().ask("Resume", CONTROLLER, "Resume", &about, Duration::ZERO);
                world.complain(format!("{answer}; {}", answers(vec![resume], slow(SOON)).remove(0)));
            }
        }
        for answer in answers(kills, slow(SOON)) {
            // The later kills found it dead.
            if answer.answer.is_none() {
                world.complain(format!("{answer}"));
            }
        }
        let wait = world.line().task("Wait", "Wait", &ask::wait_request(NEIGHBOUR, ""), Duration::ZERO);
        let wait = answers(vec![wait], slow(SOON)).remove(0);
        if !wait.good() {
            world.complain(format!("{wait}, although it was killed"));
        }
        drop(held);
        pods::call(&mut world, "StopSandbox");
        pods::call(&mut world, "ShutdownSandbox");
        pods::after(world, "kills in a pod that is being paused");
    });
}

/// Freezes a container, as its administrator may, while an exec is on its way into it.
fn freeze(world: &World, id: &str) {
    let below = format!("{}/{id}", world.containerd.namespace);
    let v1 = std::path::Path::new("/sys/fs/cgroup/freezer").join(&below).join("freezer.state");
    if v1.exists() {
        std::fs::write(v1, "FROZEN")
    } else {
        std::fs::write(format!("/sys/fs/cgroup/{below}/cgroup.freeze"), "1")
    }
    .unwrap();
}

fn exec_in_a_frozen_container(limit: Duration) {
    apart("launch_timeout = 100", || {
        let mut world = World::new(Waits::UntilKilled);
        world.prepare("c1", &["/probe", "sleep"], |_| ());
        world.run("c1");
        let known = world.strangers(&[]);
        world.exec("c1", "held", &ask::process(&["/f/slow"]));
        let start = world.line().task("Start", "Start", &ask::start_request("c1", "held"), limit);
        std::thread::sleep(slow(Duration::from_millis(300)));
        freeze(&world, "c1");
        if limit.is_zero() {
            let kill = world.line().task("Kill", "Kill", &ask::kill_request("c1", "held"), Duration::ZERO);
            let kill = answers(vec![kill], slow(SOON)).remove(0);
            if !kill.good() {
                world.complain(format!("{kill}"));
            }
        }
        let start = answers(vec![start], limit + slow(SOON)).remove(0);
        println!("  {start}");
        if start.answer.is_none() || start.good() {
            world.complain(format!("{start}"));
        }
        if !eventually(|| world.strangers(&known).is_empty()) {
            world.complain("the exec is left");
        }
        let state = StateRequest { id: "c1".into(), ..Default::default() };
        let state = world.line().call::<StateResponse>("State", &state).unwrap().status;
        if state.value() != PAUSED {
            world.complain(format!("the container is {state:?}"));
        }
        world.end_container("c1");
        world.end("an exec in a container that others have frozen");
    });
}

/// containerd's code for PAUSED.
const PAUSED: i32 = 4;

#[test]
fn an_exec_dies_of_a_kill_in_a_container_that_was_frozen_meanwhile() {
    exec_in_a_frozen_container(Duration::ZERO);
}

#[test]
fn an_exec_dies_at_its_time_in_a_container_that_was_frozen_meanwhile() {
    exec_in_a_frozen_container(Duration::from_secs(2));
}
