//! Hooks that hang, at each point of a container's life.

use crate::ask::{self, answers, Answered, Asked};
use crate::fuse::Waits;
use crate::left;
use crate::world::{World, NEIGHBOUR};
use crate::{apart, slow};
use containerd_shim_protos::api::*;
use serde_json::{json, Value};
use std::time::Duration;
use testbed::wire::FP;

/// The time limit of requests, and the operator's.
const LIMIT: Duration = Duration::from_secs(3);
/// The time limit of hooks that have one.
const OWN: u64 = 1;
/// How late an answer may be.
const GRACE: Duration = Duration::from_secs(1);

/// The kinds of hooks whose failure fails the Create, and those whose failure fails the Start.
const CREATE: [&str; 3] = ["prestart", "createRuntime", "createContainer"];
const START: [&str; 2] = ["startContainer", "poststart"];

fn hook(moment: &str, timeout: bool) -> Value {
    // A startContainer hook is a program of the image.
    let mut hook = match moment {
        "startContainer" => json!({ "path": "/probe", "args": ["probe", "sleep"] }),
        _ => json!({ "path": "/bin/sh", "args": ["sh", "-c", "exec sleep 1000"] }),
    };
    if timeout {
        hook["timeout"] = OWN.into();
    }
    hook
}

fn id(moment: &str, timeout: bool) -> String {
    format!("{moment}-{}", if timeout { "short" } else { "long" })
}

/// Checks that the answer comes when the time limit of the hook, or of the request, has passed.
fn judge(world: &mut World, all: Vec<Answered>, fails: bool) {
    for answer in all {
        println!("  {answer}");
        let limit = if answer.what.ends_with("short") { Duration::from_secs(OWN) } else { LIMIT };
        let soon = |(time, _): &(Duration, _)| *time >= limit && *time < limit + slow(GRACE);
        let moment = answer.what.split('-').next().unwrap();
        let named = answer.refusal().is_none_or(|(_, words)| words.contains(&format!("hooks.{moment}[0]")));
        if !answer.answer.as_ref().is_some_and(soon) || answer.good() == fails || !named {
            world.complain(format!("{answer}"));
        }
    }
}

fn all_of(world: &World, method: &str, moments: &[&str]) -> Vec<Asked> {
    let mut asked = Vec::new();
    for id in moments.iter().flat_map(|moment| [id(moment, true), id(moment, false)]) {
        asked.push(match method {
            "Create" => world.line().task(&id, method, &world.create_request(&id), LIMIT),
            "Start" => world.line().task(&id, method, &ask::start_request(&id, ""), LIMIT),
            _ => world.line().task(&id, method, &ask::delete_request(&id, ""), LIMIT),
        });
    }
    asked
}

/// Brings each container to the point at which its hook runs.
fn prepare(world: &mut World) {
    for moment in CREATE.iter().chain(&START).chain(&["poststop"]) {
        for timeout in [true, false] {
            world.prepare(&id(moment, timeout), &["/probe", "sleep"], |config| {
                config["hooks"] = json!({ *moment: [hook(moment, timeout)] });
            });
        }
    }
    let created = answers(all_of(world, "Create", &["startContainer", "poststart", "poststop"]), slow(LIMIT));
    assert!(created.iter().all(Answered::good), "{}", created[0]);
    let started = answers(all_of(world, "Start", &["poststop"]), slow(LIMIT));
    assert!(started.iter().all(Answered::good), "{}", started[0]);
    for id in [id("poststop", true), id("poststop", false)] {
        world.line().call::<Empty>("Kill", &ask::kill_request(&id, "")).unwrap();
        world.line().call::<WaitResponse>("Wait", &ask::wait_request(&id, "")).unwrap();
    }
}

#[test]
fn hooks_that_hang_hold_up_their_own_container_only_and_not_for_long() {
    apart("launch_timeout = 3", || {
        let mut world = World::new(Waits::UntilKilled);
        let neighbour = world.strangers(&[]);
        prepare(&mut world);
        let mut asked = all_of(&world, "Create", &CREATE);
        asked.extend(all_of(&world, "Start", &START));
        asked.extend(all_of(&world, "Delete", &["poststop"]));
        std::thread::sleep(Duration::from_millis(200));
        world.hear(&[NEIGHBOUR]);
        let all = answers(asked, LIMIT + slow(LIMIT));
        // A failed poststop hook only causes a warning.
        let (warned, failed) = all.into_iter().partition(|answer| answer.what.starts_with("poststop"));
        judge(&mut world, failed, true);
        judge(&mut world, warned, false);

        for deleted in answers(all_of(&world, "Delete", &START), slow(LIMIT)) {
            if !deleted.good() {
                world.complain(format!("after a failed start: {deleted}"));
            }
        }
        for pid in world.strangers(&neighbour) {
            world.complain(format!("left: {}", left::name(pid)));
        }
        world.end("hooks");
    });
}

/// Such a signal is meant for a process that does not exist yet, not for a program of the host.
#[test]
fn a_signal_for_a_container_that_is_being_made_is_not_for_its_hook() {
    apart("launch_timeout = 100", || {
        let mut world = World::new(Waits::UntilKilled);
        let got = world.containerd.dir.path().join("got");
        let script = format!("trap 'echo TERM > {}' TERM; while :; do sleep 0.05; done", got.display());
        world.prepare("c1", &["/probe", "sleep"], |config| {
            config["hooks"] =
                json!({ "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", script] }] });
        });
        let create = world.line().task("Create", "Create", &world.create_request("c1"), Duration::ZERO);
        std::thread::sleep(slow(Duration::from_millis(300)));
        let request = KillRequest { signal: libc::SIGTERM as u32, ..ask::kill_request("c1", "") };
        let refused = world.line().call::<Empty>("Kill", &request).unwrap_err();
        if refused.0 != FP || !refused.1.contains("process not created") {
            world.complain(format!("Kill: {refused:?}"));
        }
        std::thread::sleep(slow(Duration::from_millis(300)));
        if got.exists() || create.wire.ready(Duration::ZERO) {
            world.complain("the hook has got the signal");
        }
        world.line().call::<Empty>("Kill", &ask::kill_request("c1", "")).unwrap();
        let create = answers(vec![create], slow(GRACE)).remove(0);
        if create.answer.is_none() || create.good() {
            world.complain(format!("{create}, although it was killed"));
        }
        world.end("a signal during a hook");
    });
}
