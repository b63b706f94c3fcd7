//! The floor: `floor.c`, which does what the kernel has to do and nothing else.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::shim::{Streams, World};
use testbed::source;

pub struct Floor {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Floor {
    pub fn start(world: &World) -> Floor {
        let program = world.dir.path().join("floor");
        let status = Command::new("cc")
            .args(["-O2", "-static", "-o"])
            .arg(&program)
            .arg(source("benches/floor.c"))
            .status()
            .expect("run cc");
        assert!(status.success(), "compile benches/floor.c");
        let mut child = Command::new(program)
            .arg(world.cgroup.trim_start_matches('/'))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("run the floor program");
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Floor { child, input, output }
    }

    fn order(&mut self, line: &str) -> Duration {
        let began = Instant::now();
        writeln!(self.input, "{line}").expect("the floor program listens");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("the floor program answers");
        assert_eq!(answer, "ok\n", "{line}");
        began.elapsed()
    }

    /// Runs one container's life; `time` receives each step.
    pub fn life(&mut self, world: &World, execs: usize, mut time: impl FnMut(&str, Duration)) {
        world.prepare("floor", |_| {});
        let bundle = world.bundle("floor");
        let streams = Streams::open(&bundle);
        let created = self.order(&format!("create {} {}", bundle.display(), world.lower.display()));
        time("Create", created);
        let started = self.order("start");
        time("Start", started);
        time("Create + Start", created + started);
        for _ in 0..execs {
            time("exec of true, Start to exit", self.order("exec"));
        }
        time("SIGKILL to exit event", self.order("kill"));
        time("Delete", self.order("delete"));
        drop(streams);
        std::fs::remove_dir_all(bundle).expect("remove the bundle");
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended by itself
        let _ = self.child.wait();
    }
}
