//! The cases over ttrpc: all containers belong to one pod, whose shim would suffer from what one of them leaves.

use crate::case::{config, process, Case, Kind, Outcome};
use crate::program::Program;
use containerd_shim_protos::api::*;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use protobuf::well_known_types::any::Any;
use protobuf::Message;
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use testbed::fake::{ended, eventually, Containerd, Version};
use testbed::wire::{decode, Refusal, Wire, TASK_V3};

/// The limit for each answer.
const LIMIT: Duration = Duration::from_secs(2);
/// The processor time for a case with its two or three processes.
const CPU_LIMIT: Duration = Duration::from_millis(500);

/// `None` if there is no answer in time.
type Answer<R> = Option<Result<R, Refusal>>;

pub struct Shoal {
    containerd: Containerd,
    wire: Wire,
    shim: u32,
    /// The process of the pod's first container.
    first: u32,
    root: PathBuf,
    program: Program,
    output: File,
    count: u32,
    /// An answer is late, so the shim is still busy with a request.
    stuck: bool,
}

impl Shoal {
    pub fn new() -> Self {
        let mut containerd = Containerd::new(Version::V2_3);
        containerd.program = testbed::shim();
        containerd.debug = false;
        containerd.socket_dir = Some(containerd.dir.path().join("s"));
        containerd.prepare("first", &["/probe", "sleep"], json!({ "io.kubernetes.cri.sandbox-id": "first" }));
        let shim = containerd.start("first");
        let mut wire = containerd.connect(&shim);
        let request = create_request(&containerd, "first");
        let first = wire.task::<CreateTaskResponse>("Create", &request).unwrap().pid;
        wire.task::<StartResponse>("Start", &StartRequest { id: "first".into(), ..Default::default() })
            .unwrap();
        let request = ConnectRequest { id: "first".into(), ..Default::default() };
        let shim = wire.task::<ConnectResponse>("Connect", &request).unwrap().shim_pid;
        let root = containerd.dir.path().join("root");
        let program = Program::install(&root);
        let output = containerd.dir.path().join("out");
        nix::unistd::mkfifo(&output, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let mut options = OpenOptions::new();
        let output = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(output).unwrap();
        Shoal { containerd, wire, shim, first, root, program, output, count: 0, stuck: false }
    }

    /// Runs a case; returns its outcome, and what is wrong besides.
    pub fn run(&mut self, case: &Case, kind: Kind) -> (Outcome, Vec<String>) {
        if self.stuck {
            *self = Shoal::new();
        }
        let before = self.cpu_time();
        self.count += 1;
        let id = format!("c{}", self.count);
        self.rest();
        let outcome = match kind {
            Kind::Container => self.container(case, &id),
            Kind::Exec { terminal } => self.exec(case, &id, terminal),
        };
        let mut faults = Vec::new();
        if let Outcome::Hung(_) = outcome {
            self.give_up();
        } else {
            faults.extend(self.left(&id));
        }
        let spent = self.cpu_time().saturating_sub(before);
        if spent > CPU_LIMIT {
            faults.push(format!("{spent:?} of a processor"));
        }
        let _ = std::fs::remove_dir_all(self.containerd.bundle(&id));
        (outcome, faults)
    }

    fn ask<R: Message>(&mut self, method: &str, request: &impl Message) -> Answer<R> {
        self.wire.ask(TASK_V3, method, request, Duration::ZERO);
        self.wire.ready(LIMIT).then(|| decode(self.wire.next().expect("the shim has gone").1))
    }

    fn container(&mut self, case: &Case, id: &str) -> Outcome {
        match self.create(case, id, &["/program"]) {
            None => return Outcome::Hung("Create"),
            Some(Err((_, why))) => return self.refused(why),
            Some(Ok(_)) => {}
        }
        let outcome = self.start_and_wait(case, id, "");
        match self.delete(id, "") {
            _ if matches!(outcome, Outcome::Hung(_)) => outcome,
            None => Outcome::Hung("Delete"),
            Some(answer) => {
                answer.unwrap();
                outcome
            }
        }
    }

    fn exec(&mut self, case: &Case, id: &str, terminal: bool) -> Outcome {
        match self.create(case, id, &["/program", "sleep"]) {
            None => return Outcome::Hung("Create"),
            Some(Err(_)) => return Outcome::NoContainer,
            Some(Ok(_)) => {}
        }
        let outcome = match self.start(id, "") {
            None => return Outcome::Hung("Start of the container"),
            Some(Err(_)) => Outcome::NoContainer,
            Some(Ok(_)) => self.exec_in(case, id, terminal),
        };
        if let Outcome::Hung(_) = outcome {
            return outcome;
        }
        let signal = libc::SIGKILL as u32;
        let request = KillRequest { id: id.into(), signal, all: true, ..Default::default() };
        if self.ask::<Empty>("Kill", &request).is_none() {
            return Outcome::Hung("Kill");
        }
        match self.wait(id, "").and_then(|_| self.delete(id, "")) {
            Some(answer) => {
                answer.unwrap();
                outcome
            }
            None => Outcome::Hung("Wait and Delete of the container"),
        }
    }

    fn exec_in(&mut self, case: &Case, id: &str, terminal: bool) -> Outcome {
        self.rest();
        let spec = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
            value: process(case, &["/program"], terminal).to_string().into_bytes(),
            ..Default::default()
        };
        let request = ExecProcessRequest {
            id: id.into(),
            exec_id: "e".into(),
            spec: Some(spec).into(),
            terminal,
            stdout: self.output_path(),
            ..Default::default()
        };
        match self.ask::<Empty>("Exec", &request) {
            None => return Outcome::Hung("Exec"),
            Some(Err((_, why))) => return self.refused(why),
            Some(Ok(_)) => {}
        }
        let outcome = self.start_and_wait(case, id, "e");
        if !matches!(outcome, Outcome::Hung(_)) && self.delete(id, "e").is_none() {
            return Outcome::Hung("Delete of the exec");
        }
        outcome
    }

    fn start_and_wait(&mut self, case: &Case, id: &str, exec: &str) -> Outcome {
        match self.start(id, exec) {
            None => return Outcome::Hung("Start"),
            Some(Err((_, why))) => return self.refused(why),
            Some(Ok(_)) => {}
        }
        let Some(answer) = self.wait(id, exec) else { return Outcome::Hung("Wait") };
        let status = answer.unwrap().exit_status;
        if self.program.was_executed() {
            Outcome::Ran(status, self.written(case))
        } else {
            Outcome::Pretended(status)
        }
    }

    /// Judges an error, which must be true.
    fn refused(&self, why: String) -> Outcome {
        if self.program.was_executed() {
            Outcome::Ran(u32::MAX, why)
        } else {
            Outcome::Refused(why)
        }
    }

    fn create(&mut self, case: &Case, id: &str, words: &[&str]) -> Answer<CreateTaskResponse> {
        let bundle = self.containerd.bundle(id);
        std::fs::create_dir_all(&bundle).unwrap();
        let config = config(case, self.root.to_str().unwrap(), words);
        std::fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        let mut request = create_request(&self.containerd, id);
        request.stdout = self.output_path();
        self.ask("Create", &request)
    }

    fn start(&mut self, id: &str, exec: &str) -> Answer<StartResponse> {
        self.ask("Start", &StartRequest { id: id.into(), exec_id: exec.into(), ..Default::default() })
    }

    fn wait(&mut self, id: &str, exec: &str) -> Answer<WaitResponse> {
        self.ask("Wait", &WaitRequest { id: id.into(), exec_id: exec.into(), ..Default::default() })
    }

    fn delete(&mut self, id: &str, exec: &str) -> Answer<DeleteResponse> {
        self.ask("Delete", &DeleteRequest { id: id.into(), exec_id: exec.into(), ..Default::default() })
    }

    fn output_path(&self) -> String {
        self.containerd.dir.path().join("out").to_str().unwrap().into()
    }

    /// Forgets what was executed and written so far.
    fn rest(&mut self) {
        self.program.was_executed();
        let _ = self.output.read(&mut [0; 4096]);
    }

    /// Returns the output. A terminal's is copied, and may come a moment after the exit.
    fn written(&mut self, case: &Case) -> String {
        let until = Instant::now() + Duration::from_secs(1);
        let mut bytes = [0; 4096];
        loop {
            match self.output.read(&mut bytes) {
                Ok(got) => return String::from_utf8_lossy(&bytes[..got]).into_owned(),
                Err(_) if case.writes() && Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(_) => return String::new(),
            }
        }
    }

    /// Returns the shim's children, except the pod's first container.
    fn children(&self) -> Vec<u32> {
        let stat = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = |pid: &u32| stat(pid).rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| *pid != self.first && parent(pid) == Some(self.shim)).collect()
    }

    /// Returns the processor time of the shim and of all its children that have ended.
    fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.shim)).unwrap();
        let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(4);
        let ticks: u64 = fields.map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Returns what a case has left behind; it may take a moment to go.
    fn left(&self, id: &str) -> Vec<String> {
        let until = Instant::now() + Duration::from_secs(1);
        loop {
            let mut left: Vec<String> =
                self.children().iter().map(|pid| format!("process {pid} is left")).collect();
            let cgroups = self.containerd.cgroups();
            let cgroups = cgroups.iter().filter(|path| path.ends_with(id));
            left.extend(cgroups.map(|path| format!("{} is left", path.display())));
            if left.is_empty() || Instant::now() > until {
                return left;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends what an unanswered request may wait for. The next case has a shim of its own.
    fn give_up(&mut self) {
        self.stuck = true;
        for pid in self.children() {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
        // So that its time is counted.
        self.wire.ready(LIMIT);
    }
}

fn create_request(containerd: &Containerd, id: &str) -> CreateTaskRequest {
    let bundle = containerd.bundle(id).to_str().unwrap().to_owned();
    CreateTaskRequest { id: id.into(), bundle, ..Default::default() }
}

impl Drop for Shoal {
    fn drop(&mut self) {
        let processes: Vec<u32> = self.children().into_iter().chain([self.first, self.shim]).collect();
        for pid in &processes {
            let _ = kill(Pid::from_raw(*pid as i32), Signal::SIGKILL);
        }
        // A cgroup is busy until the last process in it has ended.
        let removed = |path: PathBuf| std::fs::remove_dir(path).is_ok();
        eventually(|| {
            processes.iter().all(|pid| ended(*pid)) && self.containerd.cgroups().into_iter().all(removed)
        });
    }
}
