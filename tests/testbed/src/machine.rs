//! A private mount namespace with its own `/run/containerd`, a network namespace, a directory, and a mark that
//! identifies all of it. The script `machine` holds it and cleans up when this process ends, however it ends.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::run::{end, patience};
use super::suite::source;

pub struct Machine {
    /// Found in the environment, the cgroup path or the containerd namespace of everything that runs here.
    pub mark: String,
    /// A short path, since socket paths go below it.
    pub dir: PathBuf,
    keeper: Child,
    holder: u32,
}

impl Machine {
    #[expect(clippy::new_without_default, reason = "it starts a process")]
    pub fn new() -> Machine {
        Machine::below(Path::new("/tmp"))
    }

    /// Makes a machine whose directory is below `parent`, which has a short path.
    pub fn below(parent: &Path) -> Machine {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("sb-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = parent.join(&mark);
        std::fs::create_dir(&dir).unwrap_or_else(|e| panic!("create {}: {e}", dir.display()));
        let mut keeper = Command::new(source("tests/testbed/machine"))
            .arg(&dir)
            .arg(&mark)
            .process_group(0) // Ctrl-C ends the test; the keeper then cleans up
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("run tests/testbed/machine");
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().expect("it is piped"))
            .read_line(&mut line)
            .expect("read its pid");
        let holder = line.trim().parse().expect("tests/testbed/machine prints a pid (are we root?)");
        Machine { mark, dir, keeper, holder }
    }

    /// Builds a command that runs inside, with the mark in its environment.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        let holder = self.holder;
        command.args([format!("--mount=/proc/{holder}/ns/mnt"), format!("--net=/proc/{holder}/ns/net")]);
        command.arg("--").arg(program);
        command.env("SHOAL_MARK", &self.mark);
        command
    }

    /// Builds a command like `command`, for servers: it inherits no descriptor of the caller's above 2, since a
    /// non-CLOEXEC one (of make, of an editor) would end up in every shim and keep pipes open. It has the soft limit of
    /// descriptors that systemd gives to services.
    pub fn server(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.command("bash");
        command.arg("-c").arg(
            "ulimit -Sn 1024; for fd in /proc/self/fd/*; do fd=${fd##*/}; ((fd < 3)) || eval \"exec $fd>&-\"; done
            exec \"$@\"",
        );
        command.arg("server").arg(program);
        command
    }

    /// Returns a namespace of the machine, as readlink(1) shows it: `net:[4026532000]`.
    pub fn namespace(&self, kind: &str) -> String {
        let link = std::fs::read_link(format!("/proc/{}/ns/{kind}", self.holder)).expect("the holder lives");
        link.to_string_lossy().into_owned()
    }

    /// Connects to `address` (HOST:PORT) inside.
    pub fn connect(&self, address: &str) -> std::io::Result<std::net::TcpStream> {
        let network = std::fs::File::open(format!("/proc/{}/ns/net", self.holder))?;
        let address = address.to_owned();
        // In a thread of its own, which stays in that namespace.
        let thread = std::thread::spawn(move || {
            nix::sched::setns(network, nix::sched::CloneFlags::CLONE_NEWNET)?;
            std::net::TcpStream::connect(address)
        });
        thread.join().expect("connecting does not panic")
    }

    /// Returns a path inside, as this process can open it.
    pub fn inside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.holder))
    }

    /// Returns containerd's state, as this process can open it: it is mounted only inside.
    pub fn state(&self) -> PathBuf {
        self.inside(&self.dir.join("state").to_string_lossy())
    }

    pub fn mountinfo(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/mountinfo", self.holder))
            .expect("read the holder's mountinfo")
    }

    /// Returns all processes that belong here, by mark, mount namespace or cgroup, except the keeper's.
    pub fn processes(&self) -> Vec<Process> {
        let namespace = std::fs::read_link(format!("/proc/{}/ns/mnt", self.holder)).ok();
        let marked = format!("SHOAL_MARK={}", self.mark);
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("read /proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            if pid == self.holder || pid == self.keeper.id() {
                continue;
            }
            let proc = entry.path();
            // A process may end meanwhile; then it is no longer ours.
            let ours = std::fs::read_link(proc.join("ns/mnt")).ok().is_some_and(|ns| Some(ns) == namespace)
                || std::fs::read(proc.join("environ"))
                    .is_ok_and(|all| all.split(|b| *b == 0).any(|word| word == marked.as_bytes()))
                || std::fs::read_to_string(proc.join("cgroup")).is_ok_and(|all| self.names(&all));
            if ours {
                let words = std::fs::read(proc.join("cmdline")).unwrap_or_default();
                let words = String::from_utf8_lossy(&words).replace('\0', " ").trim_end().to_owned();
                let status = std::fs::read_to_string(proc.join("status")).unwrap_or_default();
                let field = |name: &str| {
                    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or("");
                    line.split_whitespace().nth(1).unwrap_or("?").to_owned()
                };
                if field("State:") == "?" {
                    continue;
                }
                let words = if words.is_empty() { format!("[{}]", field("Name:")) } else { words };
                found.push(Process { pid, state: field("State:"), words });
            }
        }
        found
    }

    /// Returns whether `text` (a cgroup path) names this machine.
    pub fn names(&self, text: &str) -> bool {
        text.match_indices(&self.mark).any(|(at, mark)| {
            text[at + mark.len()..].chars().next().is_none_or(|next| !next.is_ascii_digit())
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take()); // tells the keeper to clean up
        if end(&mut self.keeper, patience(20)).is_none() {
            eprintln!("{}: the keeper did not end", self.mark);
        }
    }
}

/// A process as the leak report shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    pub pid: u32,
    pub state: String,
    pub words: String,
}
