//! Logging programs (`binary://`) that are never ready, or that never end.

use crate::ask::{self, answers};
use crate::fuse::Waits;
use crate::left;
use crate::world::{World, NEIGHBOUR};
use crate::{apart, slow};
use containerd_shim_protos::api::*;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(1);

/// Writes a script, and returns its URI.
fn logger(world: &World, name: &str, script: &str) -> String {
    let path = world.containerd.dir.path().join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    format!("binary://{}", path.display())
}

#[test]
fn a_logging_program_that_is_never_ready_does_not_outlast_its_request() {
    apart("launch_timeout = 2", || {
        let mut world = World::new(Waits::UntilKilled);
        let neighbour = world.strangers(&[]);
        let stdout = logger(&world, "never", "exec sleep 1000");
        world.prepare("c1", &["/probe", "sleep"], |_| ());
        let request = CreateTaskRequest { stdout: stdout.clone(), ..world.create_request("c1") };
        let create = world.line().task("Create", "Create", &request, LIMIT);
        let exec = ask::exec_request(NEIGHBOUR, "e", &ask::process(&["/probe", "sleep"]));
        world.line().call::<Empty>("Exec", &ExecProcessRequest { stdout, ..exec }).unwrap();
        let start = world.line().task("Start", "Start", &ask::start_request(NEIGHBOUR, "e"), LIMIT);
        world.hear(&[NEIGHBOUR]);
        for answer in answers(vec![create, start], slow(Duration::from_secs(13))) {
            println!("  {answer}");
            let in_time = answer.answer.as_ref().is_some_and(|(time, _)| *time < LIMIT + slow(GRACE));
            if answer.good() || !in_time {
                world.complain(format!("{answer}"));
            }
        }
        for pid in world.strangers(&neighbour) {
            world.complain(format!("left: {}", left::name(pid)));
        }
        world.end("loggers that are never ready");
    });
}

#[test]
fn a_logging_program_that_never_ends_does_not_hold_up_the_others() {
    apart("", || {
        let mut world = World::new(Waits::UntilKilled);
        let neighbour = world.strangers(&[]);
        // SIGTERM does not end it; it has closed the descriptor that signals that it is ready.
        let stdout = logger(&world, "deaf", "exec 5>&-; trap '' TERM; exec sleep 1000");
        world.prepare("c1", &["/probe", "sleep"], |_| ());
        let request = CreateTaskRequest { stdout, ..world.create_request("c1") };
        world.line().call::<CreateTaskResponse>("Create", &request).unwrap();
        world.line().call::<StartResponse>("Start", &ask::start_request("c1", "")).unwrap();
        world.line().call::<Empty>("Kill", &ask::kill_request("c1", "")).unwrap();
        world.line().call::<WaitResponse>("Wait", &ask::wait_request("c1", "")).unwrap();
        let begun = Instant::now();
        let delete = world.line().task("Delete", "Delete", &ask::delete_request("c1", ""), Duration::ZERO);
        std::thread::sleep(Duration::from_millis(200));
        world.hear(&[NEIGHBOUR]);
        // containerd's contract: it is killed twelve seconds after its SIGTERM.
        let limit = slow(Duration::from_secs(14));
        let deleted = answers(vec![delete], limit).remove(0);
        println!("  {deleted}");
        if !deleted.good() {
            world.complain(format!("{deleted}"));
        }
        while begun.elapsed() < limit && !world.strangers(&neighbour).is_empty() {
            std::thread::sleep(Duration::from_millis(50));
        }
        println!("  the program ends after {:.2?}", begun.elapsed());
        for pid in world.strangers(&neighbour) {
            world.complain(format!("left: {}", left::name(pid)));
        }
        world.end("loggers that never end");
    });
}
