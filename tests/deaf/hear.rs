//! Whether a shim responds: the latency of requests that wait for nothing.

use crate::ask::Line;
use crate::slow;
use crate::world::World;
use containerd_shim_protos::api::*;
use std::time::{Duration, Instant};
use testbed::wire::{Wire, TASK_V3};

/// The limit for such a request.
const SOON: Duration = Duration::from_millis(100);
/// When an answer counts as missing.
const NEVER: Duration = Duration::from_secs(2);
/// By then idle workers have ended.
const CALM: Duration = Duration::from_secs(3);
/// The time limit of a Wait for a process that does not end.
const WAIT: Duration = Duration::from_millis(20);
/// Rounds of which the median counts: the machine has other work too.
const ROUNDS: usize = 5;

const METHODS: [&str; 6] = ["State", "Kill", "Connect", "Stats", "Pids", "Wait"];

/// Holds a connection that was opened before everything else.
pub struct Ears {
    old: Wire,
}

impl Ears {
    pub fn new(line: Line) -> Ears {
        Ears { old: line.containerd.connect(line.shim) }
    }

    /// Makes every request about each container, on an old and on a new connection. Returns the ones that were too
    /// slow.
    pub fn hear(&mut self, line: Line, ids: &[&str]) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut worst = (Duration::ZERO, String::new());
        let all = ids.iter().flat_map(|id| METHODS.map(|method| (*id, method)));
        for (id, method, new) in all.flat_map(|(id, method)| [(id, method, false), (id, method, true)]) {
            let what = format!("{method} of {id} on {} connection", if new { "a new" } else { "an old" });
            let Some(middle) = self.middle(line, method, id, new) else {
                complaints.push(format!("{what}: no answer"));
                self.old = line.containerd.connect(line.shim);
                // The other requests would each take as long.
                return complaints;
            };
            if middle > slow(SOON) {
                complaints.push(format!("{what}: {middle:.1?}"));
            }
            if middle > worst.0 {
                worst = (middle, what);
            }
        }
        println!("  the slowest answer of those that wait for nothing: {:.2?}, {}", worst.0, worst.1);
        complaints
    }

    fn middle(&mut self, line: Line, method: &str, id: &str, new: bool) -> Option<Duration> {
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let wire = if new { &mut line.containerd.connect(line.shim) } else { &mut self.old };
            times.push(time(wire, method, id)?);
        }
        times.sort();
        Some(times[ROUNDS / 2])
    }
}

fn time(wire: &mut Wire, method: &str, id: &str) -> Option<Duration> {
    let id = id.to_owned();
    let begun = Instant::now();
    let mut ask = |request: &dyn protobuf::MessageDyn, limit: Duration| {
        let request = ttrpc::proto::Request {
            service: TASK_V3.into(),
            method: method.into(),
            payload: request.write_to_bytes_dyn().unwrap(),
            timeout_nano: limit.as_nanos() as i64,
            ..Default::default()
        };
        wire.send(&request);
    };
    let none = Duration::ZERO;
    match method {
        "State" => ask(&StateRequest { id, ..Default::default() }, none),
        // A harmless signal: it continues stopped processes, and a first process is not stopped.
        "Kill" => ask(&KillRequest { id, signal: libc::SIGCONT as u32, ..Default::default() }, none),
        "Connect" => ask(&ConnectRequest { id, ..Default::default() }, none),
        "Stats" => ask(&StatsRequest { id, ..Default::default() }, none),
        "Pids" => ask(&PidsRequest { id, ..Default::default() }, none),
        _ => ask(&WaitRequest { id, ..Default::default() }, WAIT),
    }
    if !wire.ready(slow(NEVER)) {
        return None;
    }
    let time = begun.elapsed();
    let (_, answer) = wire.next().expect("the shim lives");
    let waits = method == "Wait";
    let expected = if waits { testbed::wire::DE } else { testbed::wire::OK };
    assert!(answer.status.code() == expected, "{method}: {:?}", answer.status);
    Some(if waits { time.saturating_sub(WAIT) } else { time })
}

pub fn threads(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

/// Checks that whatever waits in a shim has no thread: there are as many as before, plus the parked thread and
/// workers that have just answered other requests.
pub fn calm(world: &mut World, before: usize) {
    const MORE: usize = 4;
    let begun = Instant::now();
    while threads(world.server) > before + MORE && begun.elapsed() < slow(CALM) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let now = threads(world.server);
    println!("  {now} threads after {:.1?}, {before} before", begun.elapsed());
    if now > before + MORE {
        world.complain(format!("{now} threads, {before} before"));
    }
}

/// Returns the share of one processor that a process uses, measured over a second.
pub fn load(pid: u32) -> f64 {
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let (before, begun) = (ticks(), Instant::now());
    std::thread::sleep(Duration::from_secs(1));
    // There are 100 ticks per second on every architecture of Linux (USER_HZ).
    (ticks() - before) as f64 / 100.0 / begun.elapsed().as_secs_f64()
}
