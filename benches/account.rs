//! CPU time of a shim and everything it starts, counted by the kernel to the nanosecond: ticks are too coarse.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::resource::{getrusage, UsageWho};
use nix::sys::time::TimeVal;
use serde_json::{json, Value};

use crate::peer::Peer;
use crate::shim::{launch_in, Shim, Streams, World};

/// Two sibling cgroups, of the shim and of its container, below one that has the sum of both, exited processes
/// included. With cgroup v1 the shim is moved only in the hierarchy that counts CPU.
pub struct Account {
    parent: PathBuf,
    cgroup: String,
}

impl Account {
    pub fn open(world: &World, id: &str) -> Account {
        let cgroup = format!("{}/{id}", world.cgroup);
        let parent = hierarchy().join(cgroup.trim_start_matches('/'));
        std::fs::create_dir_all(parent.join("shim")).unwrap_or_else(|e| panic!("create {parent:?}: {e}"));
        Account { parent, cgroup }
    }

    /// The file in which a process writes "0" to become part of the shim.
    pub fn procs(&self) -> PathBuf {
        self.parent.join("shim/cgroup.procs")
    }

    /// The time of the shim, the container, and everything that runs for them.
    pub fn all(&self) -> Duration {
        usage(&self.parent)
    }

    /// Without the container's cgroup, which a runtime's own process counts towards once it has moved there.
    pub fn shim(&self) -> Duration {
        usage(&self.parent.join("shim"))
    }

    /// Waits until the shim is gone.
    fn close(self) {
        let began = Instant::now();
        while std::fs::remove_dir(self.parent.join("shim")).is_err() {
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "a shim that does not end: {:?}",
                self.procs()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn hierarchy() -> PathBuf {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return root.to_owned();
    }
    let found = ["cpuacct", "cpu,cpuacct"].iter().map(|name| root.join(name)).find(|path| path.exists());
    found.expect("the cgroups that count CPU")
}

fn usage(cgroup: &Path) -> Duration {
    let read = |name: &str| std::fs::read_to_string(cgroup.join(name));
    if let Ok(text) = read("cpuacct.usage") {
        return Duration::from_nanos(text.trim().parse().expect("nanoseconds"));
    }
    let text = read("cpu.stat").unwrap_or_else(|e| panic!("read cpu.stat of {cgroup:?}: {e}"));
    let line = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).expect("usage_usec");
    Duration::from_micros(line.parse().expect("microseconds"))
}

/// The time of this process, or of the children that it has waited for.
pub fn cpu(who: UsageWho) -> Duration {
    let usage = getrusage(who).expect("getrusage");
    let micros = |time: TimeVal| (time.tv_sec() * 1_000_000 + time.tv_usec()) as u64;
    Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time()))
}

/// A shim with its account, and one container that sleeps.
pub struct Running<'a> {
    pub peer: Peer,
    pub world: &'a World,
    pub shim: Shim<'a>,
    pub id: String,
    pub account: Account,
    _streams: Streams,
}

impl<'a> Running<'a> {
    pub fn begin(world: &'a World, peer: Peer, change: impl FnOnce(&mut Value)) -> Running<'a> {
        let id = format!("{}-running", peer.name());
        let account = Account::open(world, &id);
        let request = world.prepare(&id, |spec| {
            spec["linux"]["cgroupsPath"] = json!(format!("{}/container", account.cgroup));
            change(spec);
        });
        let streams = Streams::open(&world.bundle(&id));
        let answer = launch_in(world, peer, &id, Some(&account));
        let mut shim = Shim::connect(world, peer, &id, &answer);
        shim.create(&request);
        shim.start(&id, "");
        Running { peer, world, shim, id, account, _streams: streams }
    }

    pub fn end(mut self) {
        self.shim.kill(&self.id);
        assert_eq!(self.world.exit(&self.id).exit_status, 137);
        self.shim.delete(&self.id, "");
        self.shim.end();
        self.account.close();
    }
}
