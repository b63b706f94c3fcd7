//! Two hundred execs that hang: a container stops whatever joins it, and some files do not answer.

use crate::ask::{self, answers, Asked};
use crate::fuse::Waits;
use crate::hear::{load, threads};
use crate::left;
use crate::world::{World, NEIGHBOUR};
use crate::{apart, slow};
use containerd_shim_protos::api::*;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use testbed::wire::{decode, Wire, TASK_V3};

/// What holds an exec up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// Only the container's SIGSTOP: before its program runs, so that Start is not answered, or soon afterwards.
    Signal,
    /// The path of its working directory.
    Cwd,
    /// The path of its program.
    Path,
    /// The program, which cannot be read, when the container can already see the exec.
    Program,
}

const EACH: [(Hold, usize); 4] = [(Hold::Signal, 80), (Hold::Cwd, 40), (Hold::Path, 40), (Hold::Program, 40)];

/// Threads that serve other requests, besides one for each request that hangs.
const THREADS: usize = 40;

/// The limit for a kill and for the answer that it causes.
const SOON: Duration = Duration::from_secs(3);

fn process(hold: Hold, number: usize) -> Value {
    let mut process = match hold {
        Hold::Path => ask::process(&[&format!("/f/dir-path{number}/hang")]),
        Hold::Program => ask::process(&[&format!("/f/slow{number}")]),
        _ => ask::process(&["/probe", "sleep"]),
    };
    if hold == Hold::Cwd {
        process["cwd"] = format!("/f/dir-cwd{number}/hang").into();
    }
    process
}

/// Starts a container that stops every process, and makes the FIFO that all its execs write to.
fn stopper(world: &mut World) -> PathBuf {
    world.prepare("c1", &["/probe", "stop", "3"], |_| ());
    let fifo = world.containerd.dir.path().join("out");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    world.run("c1");
    fifo
}

/// Adds all execs and requests their starts.
fn start_all(world: &World, fifo: &Path) -> Vec<(Hold, String, Asked)> {
    let mut all = Vec::new();
    for (hold, count) in EACH {
        for number in 0..count {
            let exec = format!("{hold:?}{number}");
            let mut request = ask::exec_request("c1", &exec, &process(hold, number));
            request.stdout = fifo.to_str().unwrap().into();
            world.line().call::<Empty>("Exec", &request).unwrap();
            all.push((hold, exec));
        }
    }
    let start = |(hold, exec): (Hold, String)| {
        let asked = world.line().task(&exec, "Start", &ask::start_request("c1", &exec), Duration::ZERO);
        (hold, exec, asked)
    };
    all.into_iter().map(start).collect()
}

#[test]
fn a_shim_with_two_hundred_execs_that_hang_serves_everybody() {
    apart("launch_timeout = 100", || {
        let mut world = World::new(Waits::UntilKilled);
        let fifo = stopper(&mut world);
        let before = threads(world.server);
        let all = start_all(&world, &fifo);
        std::thread::sleep(Duration::from_secs(1));

        world.hear(&["c1", NEIGHBOUR]);
        let hanging = all.iter().filter(|(.., asked)| !asked.wire.ready(Duration::ZERO)).count();
        let busy = threads(world.server);
        println!("  {hanging} starts hang; {busy} threads, {before} before");
        if hanging < 100 {
            world.complain(format!("only {hanging} starts hang"));
        }
        if busy > hanging + THREADS {
            world.complain(format!("{busy} threads"));
        }
        let load = load(world.server);
        println!("  the shim takes {:.1} % of a processor", load * 100.0);
        if load > 0.05 {
            world.complain(format!("the shim takes {:.1} % of a processor", load * 100.0));
        }
        // The neighbour can still start an exec.
        world.exec(NEIGHBOUR, "meanwhile", &ask::process(&["/probe", "exit", "3"]));
        let line = world.line();
        line.call::<StartResponse>("Start", &ask::start_request(NEIGHBOUR, "meanwhile")).unwrap();
        let exit: WaitResponse = line.call("Wait", &ask::wait_request(NEIGHBOUR, "meanwhile")).unwrap();
        assert_eq!(exit.exit_status, 3);
        line.call::<DeleteResponse>("Delete", &ask::delete_request(NEIGHBOUR, "meanwhile")).unwrap();

        let rest = kill_one_of_each(&mut world, all);
        kill_all(&mut world, rest, &fifo);
        world.end("execs that hang");
    });
}

/// Kills one exec of each kind, which must suffice however it hangs, and returns the others.
fn kill_one_of_each(world: &mut World, mut all: Vec<(Hold, String, Asked)>) -> Vec<(Hold, String, Asked)> {
    for (hold, _) in EACH {
        let at = all.iter().position(|(other, ..)| *other == hold).unwrap();
        let (_, exec, start) = all.remove(at);
        let mut waiting = world.wire();
        waiting.ask(TASK_V3, "Wait", &ask::wait_request("c1", &exec), Duration::ZERO);
        let killed = Instant::now();
        let kill = world.line().task("Kill", "Kill", &ask::kill_request("c1", &exec), Duration::ZERO);
        let kill = answers(vec![kill], slow(SOON)).remove(0);
        if !kill.good() {
            world.complain(format!("{exec}: {kill}"));
        }
        let start = answers(vec![start], slow(SOON)).remove(0);
        println!("  {:.2?} after its kill: {start}", killed.elapsed());
        if start.answer.is_none() {
            world.complain(format!("{start}, although it was killed"));
        }
        match exit_of(&mut waiting) {
            Some(exit) if exit == 137 || !start.good() => {}
            exit => world.complain(format!("{exec}: Wait: {exit:?}")),
        }
    }
    all
}

fn exit_of(waiting: &mut Wire) -> Option<u32> {
    waiting.ready(slow(SOON)).then(|| {
        let answer = waiting.next().expect("the shim lives").1;
        decode::<WaitResponse>(answer).map_or(0, |exit| exit.exit_status)
    })
}

fn kill_all(world: &mut World, all: Vec<(Hold, String, Asked)>, fifo: &Path) {
    let begun = Instant::now();
    world.end_container("c1");
    println!("  the container ends after {:.2?}", begun.elapsed());
    for answer in answers(all.into_iter().map(|(.., asked)| asked).collect(), slow(SOON)) {
        if answer.answer.is_none() {
            world.complain(format!("{answer}, although its container has ended"));
        }
    }
    if begun.elapsed() > slow(Duration::from_secs(10)) {
        world.complain(format!("the end takes {:.2?}", begun.elapsed()));
    }
    if left::has_writer(fifo) {
        world.complain("the fifo of the execs has a writer");
    }
}

#[test]
fn a_container_is_created_beside_two_hundred_execs_that_hang() {
    apart("launch_timeout = 100", || {
        let mut world = World::new(Waits::UntilKilled);
        let fifo = stopper(&mut world);
        world.prepare("c2", &["/probe", "exit", "5"], |_| ());
        let all = start_all(&world, &fifo);
        std::thread::sleep(Duration::from_millis(500));
        let limit = Duration::from_secs(5);
        let create = world.line().task("Create", "Create", &world.create_request("c2"), limit);
        let create = answers(vec![create], slow(SOON)).remove(0);
        if create.good() {
            let line = world.line();
            line.call::<StartResponse>("Start", &ask::start_request("c2", "")).unwrap();
            let exit = line.call::<WaitResponse>("Wait", &ask::wait_request("c2", "")).unwrap();
            assert_eq!(exit.exit_status, 5);
            line.call::<DeleteResponse>("Delete", &ask::delete_request("c2", "")).unwrap();
        } else {
            world.complain(format!("{create}"));
        }
        kill_all(&mut world, all, &fifo);
        world.end("a create beside them");
    });
}
