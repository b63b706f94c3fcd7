//! `make bench`: shoal beside the Go shim with runc and with crun, and beside a floor, in one run.
//!
//!   peers [--rounds N] [--peers shoal,runc,…] [--out DIR] [GROUP…]
//!
//! Peers take turns (A B A B), so that a busy moment of the machine affects all; the first turn of each is not counted.

mod account;
mod binary;
mod burst;
mod ctr;
mod floor;
mod footprint;
mod growth;
mod host;
mod idle;
mod peer;
mod plot;
mod pods;
mod probes;
mod report;
mod samples;
mod seccomp;
mod shim;
mod stats;
mod stdout;
mod task;

use std::path::PathBuf;

use peer::Peer;
use samples::Rows;

/// The requested run.
pub struct Run {
    pub peers: Vec<Peer>,
    /// The number of turns of each peer that count, for work that takes milliseconds; slower work uses fewer.
    pub rounds: usize,
    out: PathBuf,
    groups: Vec<String>,
}

impl Run {
    /// The peers that are shims.
    pub fn shims(&self) -> impl Iterator<Item = Peer> + '_ {
        self.peers.iter().copied().filter(|peer| *peer != Peer::Floor)
    }
}

type Work = fn(&mut Rows, &Run);

/// Each kind of work: its name on the command line, and the function that does it.
const GROUPS: &[(&str, Work)] = &[
    ("task", task::run),
    ("probes", probes::run),
    ("ctr", ctr::run),
    ("pods", pods::run),
    ("growth", growth::run),
    ("burst", burst::run),
    ("stdout", stdout::run),
    ("stats", stats::run),
    ("idle", idle::run),
    ("binary", binary::run),
    ("seccomp", seccomp::run),
];

fn main() {
    let run = arguments();
    private_mounts();
    let mut rows = Rows::default();
    for (name, work) in GROUPS {
        if run.groups.is_empty() || run.groups.iter().any(|group| group == name) {
            eprintln!("bench: {name} ...");
            work(&mut rows, &run);
        }
    }
    report::write(&rows, &run.peers, &run.out);
}

fn arguments() -> Run {
    let mut run = Run {
        peers: vec![Peer::Shoal, Peer::Runc, Peer::Floor],
        rounds: 30,
        out: testbed::source("target/bench"),
        groups: Vec::new(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "--bench" => {} // cargo's
            "--rounds" => run.rounds = value().parse().expect("a number of rounds"),
            "--out" => run.out = value().into(),
            "--peers" => {
                let by_name = |name: &str| Peer::by_name(name).unwrap_or_else(|| panic!("no peer {name}"));
                run.peers = value().split(',').map(by_name).collect();
            }
            group if GROUPS.iter().any(|(name, _)| *name == group) => run.groups.push(word),
            _ => panic!("{word}: not among {:?}", GROUPS.iter().map(|(name, _)| *name).collect::<Vec<_>>()),
        }
    }
    run
}

/// Keeps what shims mount and leave below /run/containerd in a mount namespace of this process.
fn private_mounts() {
    use nix::mount::{mount, MsFlags};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
        .expect("a mount namespace: the benchmark needs root");
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).expect("make the mounts private");
    std::fs::create_dir_all("/run/containerd").expect("make /run/containerd");
    mount(Some("run"), "/run/containerd", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .expect("mount a tmpfs");
}
