//! Time limits: the request's, or the operator's if the request has none.

use crate::ask::{self, answers, Answered, Asked};
use crate::fuse::Waits;
use crate::world::{World, NEIGHBOUR};
use crate::{apart, slow};
use containerd_shim_protos::api::*;
use serde_json::{json, Value};
use std::time::Duration;
use testbed::fake::pod;
use testbed::fake::{ended, eventually, Containerd, Version};
use testbed::wire::{DE, TASK_V3};

/// How late an answer may be.
const GRACE: Duration = Duration::from_secs(1);

/// Returns what holds an exec up, and what the answer must mention.
fn execs() -> Vec<(&'static str, Value, [&'static str; 2])> {
    let with = |key: &str, value: Value| {
        let mut process = ask::process(&["/probe", "sleep"]);
        process[key] = value;
        process
    };
    vec![
        ("cwd", with("cwd", json!("/f/dir-cwd/hang")), ["process.cwd", "/f/dir-cwd/hang"]),
        ("path", with("args", json!(["/f/dir-path/hang"])), ["process.args[0]", "/f/dir-path/hang"]),
        ("program", with("args", json!(["/f/slow"])), ["/f/slow", "execve"]),
    ]
}

/// Checks that each request ran into its time limit and says so.
fn judge(world: &mut World, all: Vec<Answered>, parts: &[(&str, [&str; 2])], limit: Duration) {
    for answer in all {
        println!("  {answer}");
        let (_, parts) = parts.iter().find(|(what, _)| *what == answer.what).unwrap();
        let Some((time, Err((code, words)))) = &answer.answer else {
            world.complain(format!("{answer}"));
            continue;
        };
        if *code != DE || *time < limit || *time > limit + slow(GRACE) {
            world.complain(format!("{answer}"));
        }
        if !parts.iter().all(|part| words.contains(part)) {
            world.complain(format!("{}: it does not speak of {parts:?}: {words}", answer.what));
        }
    }
}

fn held_execs(limit: Duration, asked: Duration, settings: &str) {
    apart(settings, || {
        let mut world = World::new(Waits::UntilKilled);
        let neighbour = world.strangers(&[]);
        let mut all = Vec::new();
        for (name, process, _) in execs() {
            world.exec(NEIGHBOUR, name, &process);
            all.push(world.line().task(name, "Start", &ask::start_request(NEIGHBOUR, name), asked));
        }
        world.hear(&[NEIGHBOUR]);
        let all = answers(all, limit + slow(Duration::from_secs(4)));
        let parts: Vec<_> = execs().into_iter().map(|(name, _, parts)| (name, parts)).collect();
        judge(&mut world, all, &parts, limit);
        if !world.strangers(&neighbour).is_empty() {
            world.complain("a process is left after its start was given up");
        }
        world.end("starts of execs");
    });
}

#[test]
fn a_start_that_hangs_is_over_when_the_time_of_its_request_is() {
    held_execs(Duration::from_secs(1), Duration::from_secs(1), "");
}

#[test]
fn a_start_without_a_limit_has_the_operators() {
    held_execs(Duration::from_secs(2), Duration::ZERO, "launch_timeout = 2");
}

fn held_creates(limit: Duration, asked: Duration, settings: &str) {
    apart(settings, || {
        let mut world = World::new(Waits::UntilKilled);
        let neighbour = world.strangers(&[]);
        for (name, process, _) in execs() {
            world.prepare(name, &["/probe"], |config| config["process"] = process);
        }
        world.prepare("mount", &["/probe"], |config| {
            let mount = json!({ "destination": "/f/dir-mount/hang/t", "type": "tmpfs", "source": "tmpfs" });
            config["mounts"].as_array_mut().unwrap().push(mount);
        });
        let mut parts: Vec<_> = execs().into_iter().map(|(name, _, parts)| (name, parts)).collect();
        parts.push(("mount", ["mounts[2]", "/f/dir-mount/hang/t"]));
        // Only a start reads the program.
        let line = world.line();
        let created = line.task("program", "Create", &world.create_request("program"), asked);
        assert!(answers(vec![created], slow(GRACE) * 3)[0].good());
        let mut all: Vec<Asked> =
            vec![line.task("program", "Start", &ask::start_request("program", ""), asked)];
        for (name, _) in parts.iter().filter(|(name, _)| *name != "program") {
            all.push(line.task(name, "Create", &world.create_request(name), asked));
        }
        world.hear(&[NEIGHBOUR]);
        let all = answers(all, limit + slow(Duration::from_secs(4)));
        judge(&mut world, all, &parts, limit);
        if !world.strangers(&neighbour).is_empty() {
            world.complain("a process is left after its launch was given up");
        }
        let deleted =
            world.line().task("Delete", "Delete", &ask::delete_request("program", ""), Duration::ZERO);
        let deleted = answers(vec![deleted], slow(GRACE) * 3).remove(0);
        if !deleted.good() {
            world.complain(format!("after a start that failed: {deleted}"));
        }
        world.end("creates");
    });
}

#[test]
fn a_create_that_hangs_is_over_when_the_time_of_its_request_is() {
    held_creates(Duration::from_secs(1), Duration::from_secs(1), "");
}

#[test]
fn a_create_without_a_limit_has_the_operators() {
    held_creates(Duration::from_secs(2), Duration::ZERO, "launch_timeout = 2");
}

/// The client has died between the two requests; the connection stays, as that of a client that hangs.
#[test]
fn a_pod_that_nobody_starts_ends() {
    apart("unstarted_timeout = 2", || {
        let mut containerd = Containerd::new(Version::V2_3);
        containerd.program = testbed::shim();
        let shim = pod::launch(&containerd);
        let mut wire = containerd.connect(&shim);
        pod::create(&containerd, &mut wire);
        let connect = ConnectRequest { id: "s1".into(), ..Default::default() };
        let server = wire.call::<ConnectResponse>(TASK_V3, "Connect", &connect).unwrap().shim_pid;
        std::thread::sleep(Duration::from_millis(1500));
        assert!(!ended(server));
        assert!(wire.next().is_none(), "it hangs up");
        drop(wire);
        assert!(eventually(|| ended(server)) && !shim.path.exists());
        pod::forget(&containerd);

        // A pod that was started stays.
        let shim = pod::launch(&containerd);
        let mut wire = containerd.connect(&shim);
        pod::run(&containerd, &mut wire);
        std::thread::sleep(Duration::from_secs(4));
        pod::shut_down(&mut wire);
        assert!(wire.next().is_none());
        pod::forget(&containerd);
    });
}
