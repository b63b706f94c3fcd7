//! A systemd that accepts connections and never answers.

use crate::ask::{self, answers};
use crate::fuse::Waits;
use crate::hear::{calm, threads};
use crate::world::{World, NEIGHBOUR};
use crate::{apart, slow};
use containerd_shim_protos::api::*;
use containerd_shim_protos::shim::oci;
use nix::mount::{mount, MsFlags};
use protobuf::well_known_types::any::Any;
use protobuf::Message;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};
use testbed::wire::{decode, Wire, DE, TASK_V3};

/// More than the maximum number of threads for requests that take long.
const CREATES: usize = 600;
const SOON: Duration = Duration::from_secs(2);

/// Listens in place of this machine's systemd, if it has one.
fn deaf() -> UnixListener {
    mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    std::fs::create_dir("/run/systemd").unwrap();
    UnixListener::bind("/run/systemd/private").unwrap()
}

fn create_request(world: &World, number: usize) -> CreateTaskRequest {
    let options = oci::Options { systemd_cgroup: true, ..Default::default() };
    let options = Any {
        type_url: "containerd.runc.v1.Options".into(),
        value: options.write_to_bytes().unwrap(),
        ..Default::default()
    };
    let request = world.create_request("c");
    CreateTaskRequest { id: format!("c{number}"), options: Some(options).into(), ..request }
}

#[test]
fn creates_that_wait_for_systemd_have_no_thread() {
    apart("launch_timeout = 100", || {
        let _systemd = deaf();
        let mut world = World::new(Waits::UntilKilled);
        // One bundle suffices: none of the creates gets as far as writing to it.
        world.prepare("c", &["/probe", "sleep"], |config| {
            config["linux"]["cgroupsPath"] = "shoal-test.slice:t:c".into();
        });
        world.prepare("by-files", &["/probe", "sleep"], |_| ());
        let before = threads(world.server);
        let mut wire = world.wire();
        let create = |number| wire.ask(TASK_V3, "Create", &create_request(&world, number), Duration::ZERO);
        let streams: Vec<u32> = (0..CREATES).map(create).collect();
        let line = world.line();
        let limited =
            line.task("limited", "Create", &create_request(&world, CREATES), Duration::from_secs(1));
        std::thread::sleep(slow(Duration::from_secs(1)));
        world.hear(&[NEIGHBOUR]);
        calm(&mut world, before);
        world.run("by-files");
        world.end_container("by-files");

        let limited = answers(vec![limited], slow(SOON)).remove(0);
        println!("  {limited}");
        match limited.refusal() {
            Some((code, words)) if *code == DE && words.contains("its cgroup: not done within") => {}
            _ => world.complain(format!("{limited}")),
        }
        end_one(&mut world, &mut wire, streams[0], "Kill", &ask::kill_request("c0", ""));
        end_one(&mut world, &mut wire, streams[1], "Delete", &ask::delete_request("c1", ""));
        let line = world.line();
        for number in 2..CREATES {
            line.call::<Empty>("Kill", &ask::kill_request(&format!("c{number}"), "")).unwrap();
        }
        for _ in 2..CREATES {
            let (stream, answer) = wire.next().expect("the shim lives");
            if decode::<CreateTaskResponse>(answer).is_ok() {
                world.complain(format!("the create on stream {stream} is a success"));
            }
        }
        world.end("creates that wait for systemd");
    });
}

/// Makes a request that ends a create, and checks that both are answered at once.
fn end_one(world: &mut World, wire: &mut Wire, stream: u32, method: &str, request: &impl Message) {
    let begun = Instant::now();
    let end = world.line().task(method, method, request, Duration::ZERO);
    let end = answers(vec![end], slow(SOON)).remove(0);
    if !end.good() {
        world.complain(format!("{end}"));
    }
    if !wire.ready(slow(SOON)) {
        return world.complain(format!("the create goes on after {method}"));
    }
    let (answered, answer) = wire.next().expect("the shim lives");
    let refusal = decode::<CreateTaskResponse>(answer).err();
    println!("  {method}: {:.2?}; the create: {refusal:?}", begun.elapsed());
    if answered != stream || refusal.is_none_or(|(_, words)| !words.contains("killed")) {
        world.complain(format!("after {method} stream {answered} has an answer, of {stream}"));
    }
}
