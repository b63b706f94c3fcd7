//! A pod that is stopped or shut down while creates and execs of its members hang.

use crate::ask::{self, answers, Asked};
use crate::fuse::Waits;
use crate::world::{World, NEIGHBOUR};
use crate::{apart, slow};
use containerd_shim_protos::api::*;
use serde_json::json;
use std::time::Duration;
use testbed::fake::pod::about;
use testbed::fake::{ended, eventually};
use testbed::wire::SANDBOX;

/// The limit for a stop or a shutdown.
const SOON: Duration = Duration::from_secs(4);

/// Starts a create that hangs on its way, one that hangs in a hook, and an exec.
fn hang(world: &mut World) -> Vec<Asked> {
    world.prepare("cwd", &["/probe", "sleep"], |config| {
        config["process"]["cwd"] = "/f/dir-cwd/hang".into();
    });
    world.prepare("hook", &["/probe", "sleep"], |config| {
        let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", "exec sleep 1000"] });
        config["hooks"] = json!({ "createRuntime": [hook] });
    });
    world.exec(NEIGHBOUR, "e", &ask::process(&["/f/slow"]));
    let line = world.line();
    let create = |id: &str| line.task(id, "Create", &world.create_request(id), Duration::ZERO);
    let start = line.task("e", "Start", &ask::start_request(NEIGHBOUR, "e"), Duration::ZERO);
    let asked = vec![create("cwd"), create("hook"), start];
    std::thread::sleep(Duration::from_millis(300));
    world.hear(&[NEIGHBOUR]);
    asked
}

/// Stops or shuts down the pod by this method.
pub fn call(world: &mut World, method: &str) {
    let asked = world.line().ask(method, SANDBOX, method, &about(), Duration::ZERO);
    let answer = answers(vec![asked], slow(SOON)).remove(0);
    println!("  {answer}");
    if !answer.good() {
        world.complain(format!("{answer}"));
    }
}

fn all_fail(world: &mut World, asked: Vec<Asked>) {
    for answer in answers(asked, slow(SOON)) {
        println!("  {answer}");
        if answer.good() || answer.answer.is_none() {
            world.complain(format!("{answer}, although it has been ended"));
        }
    }
}

pub fn after(mut world: World, what: &str) {
    if !eventually(|| ended(world.server)) || world.shim.path.exists() {
        world.complain("the shim or its socket is left");
    }
    world.fuse.kill();
    world.after(what);
}

#[test]
fn a_pod_is_stopped_while_its_members_hang() {
    apart("launch_timeout = 100", || {
        let mut world = World::of(Waits::UntilKilled, true);
        let asked = hang(&mut world);
        call(&mut world, "StopSandbox");
        all_fail(&mut world, asked);
        call(&mut world, "ShutdownSandbox");
        after(world, "a pod that is stopped");
    });
}

#[test]
fn a_pod_is_shut_down_while_its_members_hang() {
    apart("launch_timeout = 100", || {
        let mut world = World::of(Waits::UntilKilled, true);
        let asked = hang(&mut world);
        call(&mut world, "ShutdownSandbox");
        // Waiting clients are answered, or see the shim close the connection.
        drop(asked);
        after(world, "a pod that is shut down");
    });
}

/// Each of the members ends alone, and the pod goes on.
#[test]
fn a_member_that_hangs_is_deleted_and_its_pod_goes_on() {
    apart("launch_timeout = 100", || {
        let mut world = World::of(Waits::UntilKilled, true);
        let asked = hang(&mut world);
        let line = world.line();
        let all = vec![
            line.task("kill e", "Kill", &ask::kill_request(NEIGHBOUR, "e"), Duration::ZERO),
            line.task("kill hook", "Kill", &ask::kill_request("hook", ""), Duration::ZERO),
            line.task("delete cwd", "Delete", &ask::delete_request("cwd", ""), Duration::ZERO),
        ];
        for answer in answers(all, slow(SOON)) {
            println!("  {answer}");
            if !answer.good() {
                world.complain(format!("{answer}"));
            }
        }
        all_fail(&mut world, asked);
        world.hear(&[NEIGHBOUR]);
        let exec = ask::delete_request(NEIGHBOUR, "e");
        world.line().call::<DeleteResponse>("Delete", &exec).unwrap();
        world.end_container(NEIGHBOUR);
        call(&mut world, "StopSandbox");
        call(&mut world, "ShutdownSandbox");
        after(world, "members that are deleted");
    });
}
