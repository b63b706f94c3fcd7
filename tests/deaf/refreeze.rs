//! A container that freezes itself again and again while it is being killed.

use crate::ask::{self, answers};
use crate::fuse::Waits;
use crate::world::{World, NEIGHBOUR};
use crate::{apart, slow};
use containerd_shim_protos::api::*;
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(3);

fn killed(all: bool) {
    apart("", || {
        if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            return testbed::skip::missing("a freezer of cgroup v1");
        }
        let mut world = World::new(Waits::UntilKilled);
        world.prepare("c1", &["/probe", "refreeze", "/cg/freezer"], |config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.push(
                json!({ "destination": "/cg", "type": "cgroup", "source": "cgroup", "options": ["rw"] }),
            );
        });
        world.run("c1");
        std::thread::sleep(Duration::from_secs(1));
        world.hear(&["c1", NEIGHBOUR]);
        let line = world.line();
        let mut kill = ask::kill_request("c1", "");
        kill.all = all;
        let wait = line.task("Wait", "Wait", &ask::wait_request("c1", ""), Duration::ZERO);
        let kill = answers(vec![line.task("Kill", "Kill", &kill, Duration::ZERO)], slow(SOON)).remove(0);
        let wait = answers(vec![wait], slow(SOON)).remove(0);
        println!("  {kill}; {wait}");
        if !kill.good() || !wait.good() {
            world.complain(format!("{kill}; {wait}"));
        }
        world.hear(&[NEIGHBOUR]);
        // If the container has only given up by itself by now, the kill did not succeed.
        let deleted = world.line().task("Delete", "Delete", &ask::delete_request("c1", ""), Duration::ZERO);
        let deleted = answers(vec![deleted], slow(SOON)).remove(0);
        if !deleted.good() {
            world.complain(format!("{deleted}"));
            std::thread::sleep(Duration::from_secs(20));
            let line = world.line();
            let _ = line.call::<Empty>("Kill", &ask::kill_request("c1", "")); // it may have ended
            let _ = line.call::<DeleteResponse>("Delete", &ask::delete_request("c1", ""));
            // the complaint stands
        }
        world.end("a container that freezes itself again");
    });
}

#[test]
fn a_kill_of_its_first_process_ends_a_container_that_freezes_itself_again() {
    killed(false);
}

#[test]
fn a_kill_of_all_ends_a_container_that_freezes_itself_again() {
    killed(true);
}
