//! Limits what streams cost: no descriptor stays open, and a thread that has nothing to copy sleeps.
//!
//! One test in a program of its own: descriptors and threads are counted for the whole process.

use nix::pty::openpty;
use shoal::stdio::{Labels, Stdio, Streams, Whose};
use shoal::tasks::block_on;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

const LABELS: Labels<'static> = Labels { container: "c1", namespace: "tests" };

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Waits until the count is reached: the copying thread closes descriptors.
fn back_to(count: usize, what: &str) {
    let until = Instant::now() + Duration::from_secs(10);
    while descriptors() > count {
        assert!(Instant::now() < until, "{what}: {} descriptors, {count} before", descriptors());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Returns the processor time of the threads of this name, in nanoseconds.
fn busy(name: &str) -> u64 {
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        if std::fs::read_to_string(task.join("comm")).unwrap().trim() == name {
            let stat = std::fs::read_to_string(task.join("schedstat")).unwrap();
            sum += stat.split_whitespace().next().unwrap().parse::<u64>().unwrap();
        }
    }
    sum
}

fn fifo(dir: &Path, name: &str) -> String {
    let path = dir.join(name);
    if !path.exists() {
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o700)).unwrap();
    }
    path.to_str().unwrap().to_owned()
}

fn logger(script: &str) -> String {
    let script: String = script
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_string() } else { format!("%{:02x}", c as u32) })
        .collect();
    format!("binary-v2:///bin/sh?-c={script}")
}

fn masters() -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    links.filter_map(|fd| std::fs::read_link(fd.path()).ok()).filter(|link| link.ends_with("ptmx")).count()
}

#[test]
fn streams_leave_nothing_open_and_idle_ones_cost_nothing() {
    let dir = tempfile::TempDir::new().unwrap();
    let (stdin, stdout, stderr) = (fifo(dir.path(), "in"), fifo(dir.path(), "out"), fifo(dir.path(), "err"));
    let log = format!("file://{}/log", dir.path().display());
    let board = Streams::default();
    let soon = Instant::now() + Duration::from_secs(60);
    let open = |request: &Stdio| block_on(board.open(request, &LABELS, (0, 0), Whose::Container, soon));

    let fifos = Stdio { stdin, stdout, stderr, terminal: false };
    let terminal = Stdio { terminal: true, stderr: String::new(), ..fifos.clone() };
    let ready = "printf . >&5; exec 5>&-; cat <&3 >/dev/null; cat <&4 >/dev/null";
    let good = [
        Stdio::default(),
        fifos.clone(),
        Stdio { stdout: log.clone(), ..Stdio::default() },
        Stdio { stdout: logger(ready), ..fifos.clone() },
        terminal.clone(),
        Stdio { stdout: logger(ready), ..terminal.clone() },
    ];
    // The copying thread opens its own descriptors with the first copy, and keeps them.
    drop(open(&good[2]).unwrap());
    let before = descriptors();
    for request in &good {
        for _ in 0..20 {
            let (ends, io) = open(request).unwrap();
            if request.terminal {
                let pty = openpty(None, None).unwrap();
                io.attach_console(pty.master).unwrap();
                File::from(pty.slave).write_all(b"hello").unwrap();
            }
            drop(ends);
            io.ended();
        }
        back_to(before, &format!("{request:?}"));
        // A launch that fails: nothing is attached, nothing has ended.
        drop(open(request).unwrap());
        back_to(before, &format!("{request:?}, given up"));
    }
    let missing = || "/no/such/fifo".to_owned();
    for bad in [
        Stdio { stdin: missing(), ..fifos.clone() },
        Stdio { stderr: missing(), ..fifos.clone() },
        Stdio { stdin: missing(), ..terminal.clone() },
        Stdio { stdin: missing(), stdout: log.clone(), ..Stdio::default() },
        Stdio { stdin: missing(), stdout: logger(ready), ..Stdio::default() },
        Stdio { stdout: logger("exit 1"), ..fifos.clone() },
        Stdio { stdout: "binary:///no/such/program".into(), ..fifos.clone() },
        Stdio { stdout: log, ..terminal.clone() },
        Stdio { stdout: "npipe:////./pipe/x".into(), ..fifos.clone() },
    ] {
        assert!(open(&bad).is_err(), "{bad:?}");
        back_to(before, &format!("{bad:?}"));
    }

    // In each of these states, a level-triggered loop would spin.
    let measure = |what: &str| {
        std::thread::sleep(Duration::from_millis(50));
        let start = busy("stdio");
        assert!(start > 0, "the thread that copies has another name");
        std::thread::sleep(Duration::from_millis(500));
        let spent = Duration::from_nanos(busy("stdio") - start);
        println!("{what}: {spent:?} of 500 ms");
        assert!(spent < Duration::from_millis(5), "{what}: {spent:?}");
    };
    let (_, io) = open(&terminal).unwrap();
    let pty = openpty(None, None).unwrap();
    io.attach_console(pty.master).unwrap();
    assert_eq!(masters(), 1, "one descriptor of a terminal with its input");
    let mut container = File::from(pty.slave);
    measure("a terminal where nothing happens");
    let writer = std::thread::spawn(move || {
        // Fails when the terminal is closed.
        let _ = container.write_all(&[b'x'; 300_000]);
    });
    measure("a terminal whose output nobody reads");
    let mut reader = File::open(&terminal.stdout).unwrap();
    let mut left = 300_000;
    while left > 0 {
        left -= reader.read(&mut vec![0; left]).unwrap();
    }
    writer.join().unwrap();
    drop(reader);
    measure("a terminal that nobody has open");
    io.close_stdin();
    io.ended();
    measure("a terminal after its end, without a reader");
    drop(io);
    back_to(before, "terminal");

    let (ends, io) = open(&fifos).unwrap();
    drop(ends);
    io.ended();
    measure("a fifo after its end, without a reader");
    drop(io);
    back_to(before, "fifos");
    drop(board);
}
