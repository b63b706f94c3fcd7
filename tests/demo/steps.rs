//! The steps of the demo, each with what it must achieve.

use std::time::Instant;

use super::table::Times;
use testbed::{run, until, Containerd, Events, Output, Pty, Runtime};

struct Demo<'a> {
    containerd: &'a Containerd,
    runtime: Runtime,
    show: bool,
    times: &'a mut Times,
}

/// Runs every step once; `show` prints what it did.
pub fn all(containerd: &Containerd, runtime: Runtime, show: bool, times: &mut Times) {
    let mut demo = Demo { containerd, runtime, show, times };
    demo.run();
    demo.tty();
    demo.life();
    demo.oom();
}

impl Demo<'_> {
    fn step<T>(&mut self, name: &'static str, work: impl FnOnce(&Containerd) -> (T, String)) -> T {
        let began = Instant::now();
        let (value, words) = work(self.containerd);
        self.times.add(name, self.runtime, began.elapsed());
        if self.show {
            println!("  {name:<10} {words}");
        }
        value
    }

    fn ctr_run(&self, flags: &[&str], id: &str, command: &[&str]) -> std::process::Command {
        let mut args = vec!["run", "--runtime", self.runtime.name()];
        args.extend(flags);
        args.extend([self.containerd.image(), id]);
        args.extend(command);
        self.containerd.ctr_command(args)
    }

    fn run(&mut self) {
        let mut command = self.ctr_run(&["--rm"], "hello", &["sh", "-c", "echo hello from pid $$"]);
        self.step("run", |_| {
            let out = run(&mut command);
            assert!(out.ok().starts_with("hello from"), "{out}");
            ((), format!("ctr run --rm: {:?}", out.stdout.trim_end()))
        });
    }

    fn tty(&mut self) {
        let command = self.ctr_run(&["--rm", "-t"], "console", &["sh", "-c", "tty; exit 3"]);
        self.step("tty", |_| {
            let mut pty = Pty::spawn(&command, 24, 80);
            let code = pty.wait();
            pty.expect("/dev/pts/0");
            assert_eq!(code, 3, "exit code of the terminal session");
            ((), "ctr run -t: the shell is on /dev/pts/0, exit code 3 came back".to_owned())
        });
    }

    fn life(&mut self) {
        // Mostly asleep: on a busy machine, runc fails to freeze a container that is always on the CPU (cgroup v1).
        let script = "while :; do n=0; while [ $n -lt 1000 ]; do n=$((n+1)); done; sleep 0.02; done";
        let mut command = self.ctr_run(&["-d", "--memory-limit", "67108864"], "busy", &["sh", "-c", script]);
        self.step("run -d", |_| {
            run(&mut command).ok();
            ((), "a container in the background that counts and sleeps".to_owned())
        });
        self.step("exec", |containerd| {
            let out = containerd.ctr([
                "tasks",
                "exec",
                "--exec-id",
                "e",
                "busy",
                "sh",
                "-c",
                "echo $((6*7)); exit 9",
            ]);
            assert_eq!((out.code, out.stdout.as_str()), (9, "42\n"), "{out}");
            ((), "a second process: printed 42, exit code 9".to_owned())
        });
        let tries = if self.runtime == Runtime::Runc { 5 } else { 1 };
        self.step("pause", |containerd| {
            let pause = || containerd.ctr(["tasks", "pause", "busy"]);
            let out = (1..tries).map(|_| pause()).find(|out| out.code == 0).unwrap_or_else(pause);
            out.ok();
            ((), "frozen".to_owned())
        });
        assert!(containerd_says(self.containerd, "PAUSED"), "busy is not paused");
        let (frozen, _) = metrics(self.containerd);
        assert_eq!(metrics(self.containerd).0, frozen, "a paused container uses no CPU");
        self.step("resume", |containerd| {
            containerd.ctr(["tasks", "resume", "busy"]).ok();
            ((), "thawed; it used no CPU in between".to_owned())
        });
        let (first, _) = metrics(self.containerd);
        self.step("metrics", |containerd| {
            let (cpu, memory) = metrics(containerd);
            ((), format!("CPU time {} ms and counting, memory {} KiB", cpu / 1_000_000, memory / 1024))
        });
        until("the CPU time to grow", 10, || (metrics(self.containerd).0 > first).then_some(()));
        self.step("kill", |containerd| {
            containerd.ctr(["tasks", "kill", "-s", "KILL", "busy"]).ok();
            until("busy to be stopped", 20, || containerd_says(containerd, "STOPPED").then_some(()));
            ((), "SIGKILL; the task is STOPPED".to_owned())
        });
        self.step("delete", |containerd| {
            let out: Output = containerd.ctr(["tasks", "delete", "busy"]);
            assert!(out.stderr.contains("137"), "the exit code is reported: {out}");
            containerd.ctr(["containers", "delete", "busy"]).ok();
            ((), "task and container removed, exit code was 137".to_owned())
        });
    }

    fn oom(&mut self) {
        let events = Events::listen(self.containerd);
        let script = "sleep 0.2; exec dd if=/dev/zero of=/dev/null bs=200M count=1";
        let mut command =
            self.ctr_run(&["--rm", "--memory-limit", "16777216"], "greedy", &["sh", "-c", script]);
        self.step("OOM kill", |_| {
            let out = run(&mut command);
            assert_eq!(out.code, 137, "{out}");
            events.until("greedy", "/tasks/oom");
            ((), "16 MiB limit, asked for 200: killed with 137, and the /tasks/oom event came".to_owned())
        });
    }
}

fn containerd_says(containerd: &Containerd, state: &str) -> bool {
    containerd.ctr(["tasks", "ls"]).ok().lines().any(|line| line.starts_with("busy") && line.contains(state))
}

/// Returns CPU time in nanoseconds and memory in bytes, from the message of cgroup v1 or v2.
fn metrics(containerd: &Containerd) -> (u64, u64) {
    let out = containerd.ctr(["tasks", "metrics", "--format", "json", "busy"]);
    let json: serde_json::Value = serde_json::from_str(out.ok()).expect("ctr prints JSON");
    let at = |path: &str| json.pointer(path).and_then(serde_json::Value::as_u64);
    let cpu = at("/cpu/usage/total").or_else(|| at("/cpu/usage_usec").map(|us| us * 1000));
    let memory = at("/memory/usage/usage").or_else(|| at("/memory/usage"));
    (cpu.expect("CPU time is measured"), memory.expect("memory is measured"))
}
