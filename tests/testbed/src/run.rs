//! Runs a command to its end, with a time limit.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How a command ended, and what it wrote.
#[derive(Clone, Debug)]
pub struct Output {
    pub command: String,
    /// The exit code; 128 + n for a signal.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Output {
    /// Fails the test unless the command succeeded; returns its output.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert!(self.code == 0, "{self}");
        &self.stdout
    }

    /// Fails the test unless the command failed and its errors contain `what`.
    #[track_caller]
    pub fn fails_with(&self, what: &str) {
        assert!(self.code != 0, "should have failed with {what:?}: {self}");
        assert!(self.stderr.contains(what), "should have said {what:?}: {self}");
    }

    /// Fails the test unless the command failed with "not found". The words differ between the servers; what matters
    /// is the error's code, which ctr does not show.
    #[track_caller]
    pub fn fails_as_not_found(&self) {
        let words = ["not found", "does not exist", "already finished", "no such process"];
        assert!(self.code != 0 && words.iter().any(|word| self.stderr.contains(word)), "{self}");
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}\n  exit code {} after {:?}\n  stdout: {}\n  stderr: {}",
            self.command,
            self.code,
            self.took,
            self.stdout.trim_end(),
            self.stderr.trim_end()
        )
    }
}

/// Scales a time limit generously, since an unused one costs nothing: by `SHOAL_TEST_SLOW`, for emulated machines, or
/// by 3.
pub fn patience(seconds: u64) -> Duration {
    let factor = std::env::var("SHOAL_TEST_SLOW").ok().and_then(|v| v.parse().ok()).unwrap_or(3);
    Duration::from_secs(seconds) * factor
}

/// Runs `command` to its end. A command that takes longer than a minute is killed and fails the test.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let words = words.join(" ");
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{words}: {e}"));
    let stdout = reader(child.stdout.take());
    let stderr = reader(child.stderr.take());
    let ended = end(&mut child, patience(60));
    let took = began.elapsed();
    let text = |thread: std::thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&thread.join().expect("the reader does not panic")).into_owned()
    };
    let Some(code) = ended else {
        panic!("{words}: still running after {took:?}, killed");
    };
    Output { command: words, code, stdout: text(stdout), stderr: text(stderr), took }
}

/// Waits for the end of `child`; kills it and returns `None` if that takes longer than `limit`.
pub fn end(child: &mut Child, limit: Duration) -> Option<i32> {
    use std::os::unix::process::ExitStatusExt;
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(status) = child.try_wait().expect("wait for a child of ours") {
            return Some(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
        }
        if Instant::now() > deadline {
            let _ = child.kill(); // it may have ended just now
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

fn reader(from: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        if let Some(mut from) = from {
            let _ = from.read_to_end(&mut all); // a pipe of a killed child may end early
        }
        all
    })
}

/// Calls `probe` until it returns a value, or fails the test after `seconds`.
#[track_caller]
pub fn until<T>(what: &str, seconds: u64, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience(seconds);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {seconds} s in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
