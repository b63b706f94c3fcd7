//! A container whose processes keep the pipes of their streams locked: whoever reads, writes or closes such a pipe
//! waits.

use crate::ask;
use crate::fuse::Waits;
use crate::left;
use crate::world::{World, NEIGHBOUR};
use crate::{apart, slow};
use containerd_shim_protos::api::*;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use testbed::fake::eventually;

/// The limit for another container's exec, from its start to its exit and its last output.
const SOON: Duration = Duration::from_secs(1);

fn fifo(world: &World, name: &str) -> (PathBuf, File) {
    let path = world.containerd.dir.path().join(name);
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let both = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
    (path, both)
}

/// Starts an exec that holds its streams, and waits until it does. The client's end of its input stays open.
fn hold(world: &mut World, args: &[&str], client: &mut Option<File>) {
    world.prepare("c1", &["/probe", "sleep"], |_| ());
    world.run("c1");
    let (input, types) = fifo(world, "held-in");
    let types = client.insert(types);
    let (output, _) = fifo(world, "held-out");
    let mut request = ask::exec_request("c1", "held", &ask::process(args));
    request.stdin = input.to_str().unwrap().into();
    request.stdout = output.to_str().unwrap().into();
    world.line().call::<Empty>("Exec", &request).unwrap();
    types.write_all(b"0123456789abcdef").unwrap();
    world.line().call::<StartResponse>("Start", &ask::start_request("c1", "held")).unwrap();
    assert!(eventually(|| world.fuse.held() > 0), "it waits for its page");
}

/// Checks that an exec of the neighbour runs, and that its output, exit and Delete come in time.
fn neighbour_is_served(world: &mut World, name: &str) {
    let (output, mut client) = fifo(world, name);
    let mut request = ask::exec_request(NEIGHBOUR, name, &ask::process(&["/probe", "stat", "/"]));
    request.stdout = output.to_str().unwrap().into();
    let line = world.line();
    line.call::<Empty>("Exec", &request).unwrap();
    let begun = Instant::now();
    line.call::<StartResponse>("Start", &ask::start_request(NEIGHBOUR, name)).unwrap();
    let mut asked = vec![line.task("Wait", "Wait", &ask::wait_request(NEIGHBOUR, name), Duration::ZERO)];
    let exit = ask::answers(std::mem::take(&mut asked), slow(SOON)).remove(0);
    let mut said = vec![0; 4096];
    let heard = eventually_within(slow(SOON), || client.read(&mut said).is_ok_and(|count| count > 0));
    println!(
        "  {exit}; its output {} after {:.2?}",
        if heard { "is there" } else { "is not" },
        begun.elapsed()
    );
    let deleted = line.task("Delete", "Delete", &ask::delete_request(NEIGHBOUR, name), Duration::ZERO);
    let deleted = ask::answers(vec![deleted], slow(SOON)).remove(0);
    println!("  {deleted}");
    if !exit.good() {
        world.complain(format!("the neighbour's exec: {exit}"));
    }
    if !heard {
        world.complain("the neighbour's exec is not heard");
    }
    if !deleted.good() {
        world.complain(format!("the neighbour's exec: {deleted}"));
    }
}

fn eventually_within(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if is_so() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    false
}

fn held(args: &[&str], what: &str) {
    apart("launch_timeout = 100", || {
        // Dropped last: a close waits as well, and the filesystem ends with the world.
        let mut client = None;
        let mut world = World::new(Waits::UntilKilled);
        hold(&mut world, args, &mut client);
        std::thread::sleep(Duration::from_millis(700));
        neighbour_is_served(&mut world, "heard1");
        neighbour_is_served(&mut world, "heard2");
        world.hear(&["c1", NEIGHBOUR]);
        println!("  {} processes", left::children(world.server).len());
        world.end_container("c1");
        world.end(what);
    });
}

#[test]
fn an_exec_that_holds_its_output_holds_nobody_elses() {
    held(&["/probe", "hold", "/f/slow1"], "an output that is held");
}

#[test]
fn an_exec_that_has_ended_and_whose_input_is_held_keeps_no_exit_back() {
    held(&["/probe", "hold", "in", "/f/slow2"], "an input that is held");
}

#[test]
fn an_exec_that_has_ended_and_whose_output_is_held_keeps_no_exit_back() {
    held(&["/probe", "hold", "out", "/f/slow3"], "an output that is held by who was left");
}

/// Whether a reader never reads or reads everything, the shim neither delays others nor uses up a processor.
#[test]
fn an_exec_that_writes_small_pieces_without_end_is_nobody_elses_matter() {
    apart("launch_timeout = 100", || {
        let mut world = World::new(Waits::UntilKilled);
        world.prepare("c1", &["/probe", "sleep"], |_| ());
        world.run("c1");
        let (output, client) = fifo(&world, "flooded");
        let mut request = ask::exec_request("c1", "flood", &ask::process(&["/probe", "flood", "200"]));
        request.stdout = output.to_str().unwrap().into();
        world.line().call::<Empty>("Exec", &request).unwrap();
        world.line().call::<StartResponse>("Start", &ask::start_request("c1", "flood")).unwrap();
        std::thread::sleep(Duration::from_secs(2));
        // Once of three times: the machine's other work makes the kernel's samples of one second uneven.
        let few = (0..3).any(|_| {
            let load = crate::hear::load(world.server);
            println!("  nobody reads: {:.1} % of a processor", load * 100.0);
            load <= 0.05
        });
        if !few {
            world.complain("nobody reads: more than 5 % of a processor".to_owned());
        }
        neighbour_is_served(&mut world, "unread");
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (stops, mut reader) = (stop.clone(), client);
        let reads = std::thread::spawn(move || {
            let mut room = vec![0; 65536];
            while !stops.load(std::sync::atomic::Ordering::SeqCst) {
                let _ = reader.read(&mut room); // there may be nothing yet
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        std::thread::sleep(Duration::from_millis(500));
        neighbour_is_served(&mut world, "read");
        world.hear(&["c1", NEIGHBOUR]);
        let begun = Instant::now();
        world.end_container("c1");
        println!("  the container ends after {:.2?}", begun.elapsed());
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        reads.join().unwrap();
        world.end("small pieces");
    });
}

/// In a pod that shares its pid namespace, a container's first process ends before the process that it leaves; that
/// one has the client's FIFO itself, and cannot be killed while its filesystem does not answer.
#[test]
fn a_container_that_has_ended_and_whose_output_is_held_keeps_no_exit_back() {
    apart("launch_timeout = 100", || {
        let mut client = None;
        let mut world = World::of(Waits::ForEver, true);
        world.prepare("c1", &["/probe", "hold", "out", "/f/slow4"], |_| ());
        let (output, reader) = fifo(&world, "held-out");
        let _ = client.insert(reader);
        let request =
            CreateTaskRequest { stdout: output.to_str().unwrap().into(), ..world.create_request("c1") };
        world.line().call::<CreateTaskResponse>("Create", &request).unwrap();
        world.line().call::<StartResponse>("Start", &ask::start_request("c1", "")).unwrap();
        assert!(eventually(|| world.fuse.held() > 0), "it waits for its page");
        std::thread::sleep(Duration::from_millis(700));
        neighbour_is_served(&mut world, "heard1");
        world.fuse.kill();
        let line = world.line();
        line.call::<WaitResponse>("Wait", &ask::wait_request("c1", "")).unwrap();
        line.call::<DeleteResponse>("Delete", &ask::delete_request("c1", "")).unwrap();
        world.end_container(NEIGHBOUR);
        crate::pods::call(&mut world, "StopSandbox");
        crate::pods::call(&mut world, "ShutdownSandbox");
        crate::pods::after(world, "a fifo that is held");
    });
}
