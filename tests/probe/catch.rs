//! An attacker: a container's program that lies in wait for processes joining its pid namespace, stops them before
//! they have become the container's program, and examines each one while it cannot go on.
//!
//! `catch FOLDER FILE SOCKET PORT`: the folder has `mode`, the current instruction, written by the test at any time;
//! `caught`, a line of JSON for each process that was examined; and `alive`, the progress. FILE, SOCKET and PORT are
//! what the test has planted on the host.
//!
//! All of it is threads of one process: kill(-1) spares the caller's own, so the attack does not stop itself, even if
//! the process is not the first one of its namespace.

use super::kernel;
use super::look::{self, Planted, Stat};
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;
use serde_json::{json, Value};
use std::collections::HashMap;
use std::fs::{read_dir, read_to_string, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// Longer than any test takes.
const LONGEST: Duration = Duration::from_secs(300);

/// The maximum number of processes that are examined in detail.
const MOST: usize = 2000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Examine only what has become a program.
    Wait,
    /// Stop everything continuously; kill what was examined.
    Stop,
    /// Stop everything continuously, and leave it stopped.
    Hold,
    /// Stop, examine, continue for some microseconds, and so on, to the end.
    Step,
    /// Kill everything continuously.
    Kill,
    /// Stop with ptrace(2); kill what was examined.
    Trace,
    /// The same, but what was killed stays a zombie: its parent cannot reap it before its tracer does.
    Keep,
    /// As `Hold`, but only what is in this very cgroup: for a container in the host's pid namespace.
    Mine,
    End,
}

const MODES: &[(&str, Mode)] = &[
    ("wait", Mode::Wait),
    ("stop", Mode::Stop),
    ("hold", Mode::Hold),
    ("step", Mode::Step),
    ("kill", Mode::Kill),
    ("trace", Mode::Trace),
    ("keep", Mode::Keep),
    ("mine", Mode::Mine),
    ("end", Mode::End),
];

static MODE: AtomicU8 = AtomicU8::new(0);
/// The mode that [`strike`] acts by. It lags behind, with a signal of the mode before.
static STRIKES: AtomicU8 = AtomicU8::new(0);

fn mode() -> Mode {
    MODES[MODE.load(Ordering::SeqCst) as usize].1
}

/// Returns whether this is not the host's own pid namespace, where kill(-1) would stop the machine: there, the second
/// process is the kernel's.
fn alone() -> bool {
    !read_to_string("/proc/2/comm").is_ok_and(|name| name.trim() == "kthreadd")
}

fn everybody(signal: Signal) {
    if mode() != Mode::Mine {
        let _ = kill(Pid::from_raw(-1), signal); // there may be nobody
    }
}

/// The last pid allocated in this namespace: the next ones are the next victims.
struct Last(File);

impl Last {
    fn open() -> Option<Last> {
        File::open("/proc/loadavg").ok().map(Last)
    }

    fn read(&self) -> Option<i32> {
        let mut text = [0; 64];
        let got = self.0.read_at(&mut text, 0).ok()?;
        std::str::from_utf8(&text[..got]).ok()?.split_whitespace().nth(4)?.parse().ok()
    }

    fn next(&self) -> impl Iterator<Item = Pid> {
        let last = self.read().unwrap_or(1).max(1);
        (last..last + 4).filter(|pid| *pid > 1).map(Pid::from_raw)
    }
}

/// Spins, so that a signal meets a new process at its first instruction.
fn strike() {
    let last = Last::open();
    let own = std::process::id() as i32;
    let ours = read_to_string("/proc/self/cgroup").unwrap_or_default();
    loop {
        let now = MODE.load(Ordering::SeqCst);
        STRIKES.store(now, Ordering::SeqCst);
        let signal = match MODES[now as usize].1 {
            Mode::Stop | Mode::Hold => Signal::SIGSTOP,
            Mode::Kill => Signal::SIGKILL,
            Mode::Mine => {
                // Here the next process may be anybody's.
                for pid in last.iter().flat_map(Last::next).filter(|pid| pid.as_raw() != own) {
                    if read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|cgroup| cgroup == ours) {
                        let _ = kill(pid, Signal::SIGSTOP); // it may have ended
                    }
                }
                continue;
            }
            Mode::End => return,
            _ => {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
        };
        everybody(signal);
        for _ in 0..50 {
            for pid in last.iter().flat_map(Last::next).filter(|pid| pid.as_raw() != own) {
                let _ = kill(pid, signal); // as a rule there is none yet
            }
        }
    }
}

struct Catcher<'a> {
    planted: Planted<'a>,
    out: File,
    folder: &'a Path,
    own: u32,
    name: String,
    alone: bool,
    cgroup: String,
    /// The examined processes, by pid.
    known: HashMap<u32, Stat>,
    rounds: u64,
    seen: u64,
    caught: usize,
    told: Instant,
}

pub fn forever(folder: &str, file: &str, socket: &str, port: &str) -> i32 {
    let folder = Path::new(folder);
    let Ok(port) = port.parse() else { return 125 };
    let planted = Planted { file, socket, port };
    let own = std::process::id();
    let out = OpenOptions::new().append(true).create(true).open(folder.join("caught")).expect("a file");
    let mut catcher = Catcher {
        planted,
        out,
        folder,
        own,
        name: look::stat(own).expect("our own").name,
        alone: alone(),
        cgroup: read_to_string("/proc/self/cgroup").unwrap_or_default(),
        known: HashMap::new(),
        rounds: 0,
        seen: 0,
        caught: 0,
        told: Instant::now(),
    };
    let alone = catcher.alone;
    let begun = Instant::now();
    let follow = move |folder: &Path| {
        let text = read_to_string(folder.join("mode")).unwrap_or_default();
        let wanted = MODES.iter().position(|(name, _)| *name == text.trim()).unwrap_or(0);
        let mode = MODES[wanted].1;
        let refused = !alone && !matches!(mode, Mode::Wait | Mode::Mine | Mode::End);
        let late = begun.elapsed() > LONGEST;
        let wanted = if late {
            MODES.len() - 1
        } else if refused {
            0
        } else {
            wanted
        };
        MODE.store(wanted as u8, Ordering::SeqCst);
    };
    follow(folder);
    std::thread::scope(|scope| {
        scope.spawn(strike);
        scope.spawn(|| {
            while mode() != Mode::End {
                follow(folder);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        while mode() != Mode::End {
            catcher.round();
        }
    });
    0
}

impl Catcher<'_> {
    fn round(&mut self) {
        let mode = mode();
        self.rounds += 1;
        match mode {
            Mode::Trace | Mode::Keep => self.seize(mode),
            Mode::Step => everybody(Signal::SIGSTOP),
            _ => {}
        }
        for pid in self.strangers() {
            self.examine(pid, mode);
        }
        match mode {
            Mode::Step => {
                everybody(Signal::SIGCONT);
                // A different part of the way each time.
                let pause = Duration::from_micros(self.rounds * 37 % 400);
                let begun = Instant::now();
                while begun.elapsed() < pause {
                    std::hint::spin_loop();
                }
            }
            Mode::Wait => std::thread::sleep(Duration::from_millis(1)),
            _ => {}
        }
        // Not before both threads have changed over: the test goes on with this.
        let changed = MODES[STRIKES.load(Ordering::SeqCst) as usize].1 == mode;
        if changed && self.told.elapsed() > Duration::from_millis(20) {
            self.tell(mode);
        }
    }

    /// Returns every process that is not of this program, which has no children.
    fn strangers(&self) -> Vec<u32> {
        let listing = read_dir("/proc").into_iter().flatten().flatten();
        let pids = listing.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        // Pid 1 is this program, or the pod's own process.
        pids.filter(|pid| *pid != self.own && *pid != 1).collect()
    }

    fn examine(&mut self, pid: u32, mode: Mode) {
        let Some(stat) = look::stat(pid) else { return };
        if stat.state == 'Z' || (!self.alone && !self.is_mine(pid)) {
            return;
        }
        let program = stat.name == self.name;
        let before = self.known.get(&pid).cloned();
        let same = before.as_ref().is_some_and(|known| known.start == stat.start);
        if !same {
            self.seen += 1;
        }
        self.known.insert(pid, stat.clone());
        let became = before.is_none_or(|known| known.name != stat.name);
        let wanted = match mode {
            Mode::Wait | Mode::Kill => !same || became,
            Mode::Step => !program || !same || became,
            _ => !same || became,
        };
        let force = !matches!(mode, Mode::Wait | Mode::Kill | Mode::Trace | Mode::Keep | Mode::End);
        if force && !matches!(stat.state, 'T' | 't') {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGSTOP); // it may not be ours to stop
            until_stopped(pid);
        }
        if wanted {
            self.write(pid, mode, program, Value::Null);
        }
        if mode == Mode::Stop {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL); // the same
        }
    }

    fn is_mine(&self, pid: u32) -> bool {
        read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|cgroup| cgroup == self.cgroup)
    }

    /// Lies in wait for the next pid, and holds the process with ptrace(2).
    fn seize(&mut self, mode: Mode) {
        let Some(last) = Last::open() else { return };
        for _ in 0..2000 {
            for pid in last.next() {
                let answer = kernel::seize(pid.as_raw());
                let (number, name) =
                    (pid.as_raw() as u32, look::stat(pid.as_raw() as u32).map(|stat| stat.name));
                match answer {
                    Err(nix::errno::Errno::ESRCH) => {}
                    _ if number == self.own => {}
                    Err(errno) => {
                        // It cannot be traced, but it can be seen.
                        let program = name.as_ref() == Some(&self.name);
                        if !program {
                            self.write(number, mode, false, format!("{errno:?}").into());
                            return;
                        }
                    }
                    Ok(()) => {
                        let _ = kernel::interrupt(pid.as_raw()); // it may have ended
                        until_traced(pid);
                        let program = look::stat(number).is_some_and(|stat| stat.name == self.name);
                        self.seen += 1;
                        self.write(number, mode, program, "ok".into());
                        let _ = kill(pid, Signal::SIGKILL); // the same
                        if mode == Mode::Trace {
                            until_reaped(pid);
                        }
                        return;
                    }
                }
            }
        }
    }

    fn write(&mut self, pid: u32, mode: Mode, program: bool, seized: Value) {
        if self.caught >= MOST {
            return;
        }
        let mut look = look::at(pid, &self.planted);
        look["mode"] = format!("{mode:?}").into();
        look["program"] = program.into();
        look["seized"] = seized;
        if !program {
            self.caught += 1;
        }
        let _ = self.out.write_all(format!("{look}\n").as_bytes()); // a full disk is not this test's
    }

    fn tell(&mut self, mode: Mode) {
        let alive = json!({
            "rounds": self.rounds, "seen": self.seen, "caught": self.caught, "mode": format!("{mode:?}"),
        });
        let new = self.folder.join("alive.new");
        let _ = std::fs::write(&new, alive.to_string()); // the same
        let _ = std::fs::rename(&new, self.folder.join("alive"));
        self.told = Instant::now();
    }
}

fn until_stopped(pid: u32) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(5) {
        match look::stat(pid).map(|stat| stat.state) {
            None | Some('T' | 't' | 'Z') => return,
            _ => std::thread::yield_now(),
        }
    }
}

/// Reaps a traced process: its tracer is notified of its end first.
fn until_reaped(pid: Pid) {
    let begun = Instant::now();
    let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
    while begun.elapsed() < Duration::from_secs(1) {
        match waitpid(pid, Some(flags)) {
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(_) => return,
            Ok(_) => std::thread::yield_now(),
        }
    }
}

fn until_traced(pid: Pid) {
    let begun = Instant::now();
    let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
    while begun.elapsed() < Duration::from_millis(200) {
        match waitpid(pid, Some(flags)) {
            Ok(WaitStatus::StillAlive) => std::thread::yield_now(),
            _ => return,
        }
    }
}
