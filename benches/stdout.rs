//! A container's standard output, read from the FIFO as containerd's client does.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::resource::UsageWho;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::json;

use crate::account::{cpu, Running};
use crate::peer::Peer;
use crate::samples::{Rows, Target, Unit};
use crate::shim::World;
use crate::Run;

const GROUP: &str = "Standard output";
const GIB: u64 = 1 << 30;

struct Load {
    name: &'static str,
    writers: u64,
    /// Bytes per write.
    block: u64,
    /// Writes per writer.
    count: u64,
}

const LOADS: [Load; 3] = [
    Load { name: "1 writer", writers: 1, block: 64 << 10, count: 16384 },
    Load { name: "20 writers", writers: 20, block: 64 << 10, count: 819 },
    Load { name: "1 writer of 128-byte lines", writers: 1, block: 128, count: 1 << 19 },
];

impl Load {
    fn bytes(&self) -> u64 {
        self.block * self.count
    }
}

pub fn run(rows: &mut Rows, run: &Run) {
    let worlds: Vec<(Peer, World)> = run.shims().map(|peer| (peer, World::new())).collect();
    let mut all: Vec<Running> = Vec::new();
    for (peer, world) in &worlds {
        let shared = world.dir.path().join("shared");
        std::fs::create_dir(&shared).expect("make a folder");
        fifo(&shared.join("go"));
        fifo(&shared.join("stderr"));
        let mount = json!({
            "destination": "/shared", "type": "bind", "source": shared, "options": ["rbind", "rw"],
        });
        all.push(Running::begin(world, *peer, |spec| {
            spec["mounts"].as_array_mut().expect("mounts").push(mount);
        }));
    }
    for turn in 0..=run.rounds.div_ceil(6) {
        for load in &LOADS {
            for running in &mut all {
                let mut warm_up = Rows::default();
                let rows = if turn == 0 { &mut warm_up } else { &mut *rows };
                write(running, rows, load);
            }
        }
    }
    all.into_iter().for_each(Running::end);
    // No target for lines: each of them wakes the reader, which takes longer than anything a shim does to it.
    for load in LOADS.iter().filter(|load| load.block > 4096) {
        rows.target(GROUP, load.name, &[Target::Better(2.0)]);
    }
    rows.target(GROUP, "CPU of the shim per GiB: 1 writer", &[Target::AtMost(1.0)]);
}

/// Runs execs that write what `load` says, all starting at the same moment.
fn write(running: &mut Running, rows: &mut Rows, load: &Load) {
    let shared = running.world.dir.path().join("shared");
    let execs: Vec<String> = (0..load.writers).map(|n| format!("writer-{n}")).collect();
    // dd's final report goes there; nobody reads it.
    let stderr = shared.join("stderr");
    let _kept = File::options().read(true).write(true).open(&stderr).expect("open the fifo");
    let mut readers = Vec::new();
    for exec in &execs {
        let stdout = shared.join(exec);
        fifo(&stdout);
        readers.push(reader(stdout.clone(), load.bytes()));
        // The read ends at end of file, when the FIFO is opened and closed below.
        let script =
            format!("read x </shared/go; exec dd if=/dev/zero bs={} count={}", load.block, load.count);
        running.shim.exec_to(
            &running.id,
            exec,
            &["sh", "-c", &script],
            [&stdout, &stderr].map(|path| path.to_str().expect("text")),
        );
        running.shim.start(&running.id, exec);
    }
    // Gives all of them time to reach the read.
    std::thread::sleep(Duration::from_millis(50));
    let (all, shim) = (running.account.all(), running.account.shim());
    let client = cpu(UsageWho::RUSAGE_SELF);
    let began = Instant::now();
    drop(File::create(shared.join("go")).expect("open the fifo"));
    let ends = readers.into_iter().map(|reader| reader.join().expect("a reader")).max();
    let took = ends.expect("a reader") - began;
    let client = cpu(UsageWho::RUSAGE_SELF) - client;
    let mut left = execs.clone();
    while !left.is_empty() {
        let exit = running.world.next_exit();
        assert_eq!(exit.exit_status, 0, "{}", exit.id);
        left.retain(|exec| *exec != exit.id);
    }
    let (all, shim) = (running.account.all() - all, running.account.shim() - shim);
    for exec in &execs {
        running.shim.delete(&running.id, exec);
        std::fs::remove_file(shared.join(exec)).expect("remove the fifo");
    }
    let (bytes, peer) = ((load.bytes() * load.writers) as f64, running.peer);
    let rate = bytes / (1 << 20) as f64 / took.as_secs_f64();
    rows.add(GROUP, load.name, Unit::MiBPerSecond, peer, rate);
    let mut share = |of: &str, took: Duration| {
        let name = format!("CPU of {of} per GiB: {}", load.name);
        rows.time(GROUP, &name, peer, took.mul_f64(GIB as f64 / bytes));
    };
    share("the shim", shim);
    share("all, writers and reader too,", all + client);
}

fn fifo(path: &Path) {
    mkfifo(path, Mode::from_bits_truncate(0o600)).expect("mkfifo");
}

/// Reads and discards, with a buffer as large as that of containerd's client; returns when it got the last byte.
fn reader(fifo: PathBuf, expected: u64) -> JoinHandle<Instant> {
    std::thread::spawn(move || {
        let mut fifo = File::open(&fifo).expect("open the fifo");
        let mut buffer = vec![0; 32 << 10];
        let mut got = 0;
        let mut last = None;
        loop {
            match fifo.read(&mut buffer).expect("read the fifo") {
                0 => break,
                n => got += n as u64,
            }
            if got == expected {
                last = Some(Instant::now());
            }
        }
        assert_eq!(got, expected, "bytes");
        last.expect("the last byte")
    })
}
