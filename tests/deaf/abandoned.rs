//! Clients that ask and disconnect, that allow no time or unlimited time, and that reuse a stream.

use crate::ask;
use crate::fuse::Waits;
use crate::hear::{load, threads};
use crate::world::{World, NEIGHBOUR};
use crate::{apart, slow};
use protobuf::Message;
use std::time::Duration;
use testbed::fake::eventually;
use ttrpc::proto::Request;

/// How many starts hang.
const COUNT: usize = 120;

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Returns the shim's private memory, in KiB.
fn memory(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with("Private_Dirty:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn request(method: &str, message: &impl Message, timeout_nano: i64) -> Request {
    Request {
        service: testbed::wire::TASK_V3.into(),
        method: method.into(),
        payload: message.write_to_bytes().unwrap(),
        timeout_nano,
        ..Default::default()
    }
}

/// Does everything once; nothing that hangs is left at the end.
fn round(world: &mut World, number: usize) {
    let id = format!("c{number}");
    world.prepare(&id, &["/probe", "sleep"], |_| ());
    world.run(&id);
    for count in 0..COUNT {
        let exec = format!("e{count}");
        let mut process = ask::process(&["/probe", "sleep"]);
        process["cwd"] = format!("/f/dir-{number}-{count}/hang").into();
        world.exec(&id, &exec, &process);
        let time = [1, i64::MAX, i64::MIN, -1, 0, 300_000_000][count % 6];
        let start = request("Start", &ask::start_request(&id, &exec), time);
        let wait = request("Wait", &ask::wait_request(&id, &exec), time);
        let mut wire = world.wire();
        wire.send(&start);
        wire.send(&wait);
        // Reuses the stream while it is busy.
        wire.raw(1, 1, 0, &start.write_to_bytes().unwrap());
        wire.raw(3, 1, 0, &wait.write_to_bytes().unwrap());
        // Sends half a frame.
        wire.header(1 << 20, 5, 1, 0);
        wire.bytes(&[0; 100]);
        if count % 2 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    std::thread::sleep(Duration::from_secs(1));
    world.hear(&[&id, NEIGHBOUR]);
    let load = load(world.server);
    println!(
        "  {} threads, {} descriptors, {} KiB, {:.1} % of a processor",
        threads(world.server),
        descriptors(world.server),
        memory(world.server),
        load * 100.0
    );
    if load > 0.05 {
        world.complain(format!("it takes {:.1} % of a processor", load * 100.0));
    }
    world.end_container(&id);
}

#[test]
fn clients_that_ask_and_go_leave_nothing() {
    apart("launch_timeout = 100", || {
        let mut world = World::new(Waits::UntilKilled);
        // The first round allocates what is allocated once.
        round(&mut world, 1);
        let quiet = |world: &World| {
            eventually(|| threads(world.server) <= 3);
            let server = world.server;
            [threads(server) as u64, descriptors(server) as u64, memory(server)]
        };
        let before = quiet(&world);
        round(&mut world, 2);
        round(&mut world, 3);
        let after = quiet(&world);
        println!("  threads, descriptors, KiB: {before:?} before, {after:?} after");
        if after[0] > before[0] || after[1] > before[1] || after[2] > before[2] + 512 {
            world.complain(format!("threads, descriptors, KiB: {before:?} before, {after:?} after"));
        }
        let strangers = world.strangers(&[]).len();
        if strangers > 1 {
            world.complain(format!("{strangers} processes"));
        }
        std::thread::sleep(slow(Duration::from_millis(10)));
        world.end("clients that go");
    });
}
