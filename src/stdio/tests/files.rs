//! Output to files: `file://`, and paths that are not fifos.

use super::*;
use crate::sys::pipe;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_file_uri_takes_both_streams_in_their_order() {
    let bench = Bench::new();
    let path = bench.path("deep/er/log");
    let uri = format!("file://{}", path.display());
    let (ends, io) = bench.open_ends(&Stdio { stdout: uri, ..Stdio::default() });
    // A pipe: with the file itself a container could truncate it or make it executable.
    assert_eq!(pipe::kind(&ends.stdout).unwrap(), pipe::Kind::Fifo);
    assert!(blocks(&ends.stdout));
    let (mut stdout, mut stderr) = (File::from(ends.stdout), File::from(ends.stderr));
    for _ in 0..3 {
        stdout.write_all(b"out ").unwrap();
        stderr.write_all(b"err ").unwrap();
    }
    drop((stdout, stderr, ends.stdin));
    io.ended();
    block_on(io.drain(LONG)).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "out err out err out err ");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777 & !0o022, 0o644 & !0o022);
}

#[test]
fn a_log_is_appended_to() {
    let bench = Bench::new();
    std::fs::write(bench.path("log"), "old ").unwrap();
    let (ends, io) = bench.open_ends(&Stdio { stdout: bench.text("log"), ..Stdio::default() });
    assert_eq!(pipe::kind(&ends.stderr).unwrap(), pipe::Kind::Null);
    File::from(ends.stdout).write_all(b"new").unwrap();
    io.ended();
    block_on(io.drain(LONG)).unwrap();
    assert_eq!(std::fs::read_to_string(bench.path("log")).unwrap(), "old new");
}

#[test]
fn a_path_that_both_streams_name_is_one_file() {
    let bench = Bench::new();
    std::fs::write(bench.path("log"), "").unwrap();
    let request = Stdio { stdout: bench.text("log"), stderr: bench.text("log"), ..Stdio::default() };
    let (ends, io) = bench.open_ends(&request);
    let (mut stdout, mut stderr) = (File::from(ends.stdout), File::from(ends.stderr));
    stdout.write_all(b"1").unwrap();
    stderr.write_all(b"2").unwrap();
    stdout.write_all(b"3").unwrap();
    drop((stdout, stderr));
    io.ended();
    block_on(io.drain(LONG)).unwrap();
    assert_eq!(std::fs::read_to_string(bench.path("log")).unwrap(), "123");
}

#[test]
fn a_big_log_is_complete() {
    let bench = Bench::new();
    let uri = format!("file://{}", bench.text("log"));
    let (ends, io) = bench.open_ends(&Stdio { stdout: uri, ..Stdio::default() });
    drop(ends.stderr);
    let mut stdout = File::from(ends.stdout);
    let block: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    for _ in 0..8 {
        stdout.write_all(&block).unwrap();
    }
    drop(stdout);
    block_on(io.drain(LONG)).unwrap();
    let log = std::fs::read(bench.path("log")).unwrap();
    assert!(log.len() == 8 << 20 && log.chunks(1 << 20).all(|chunk| chunk == block));
}

#[test]
fn the_null_device_may_be_named() {
    let bench = Bench::new();
    let null = || "/dev/null".to_owned();
    let request = Stdio { stdin: null(), stdout: null(), stderr: null(), terminal: false };
    let (ends, _io) = bench.open_ends(&request);
    for end in [&ends.stdin, &ends.stdout, &ends.stderr] {
        assert_eq!(pipe::kind(end).unwrap(), pipe::Kind::Null);
    }
}

#[test]
fn input_from_a_file_reaches_its_end() {
    let bench = Bench::new();
    std::fs::write(bench.path("input"), "x".repeat(100_000)).unwrap();
    let (ends, io) = bench.open_ends(&Stdio { stdin: bench.text("input"), ..Stdio::default() });
    assert_eq!(pipe::kind(&ends.stdin).unwrap(), pipe::Kind::Fifo);
    assert_eq!(read_all(File::from(ends.stdin)).len(), 100_000);
    io.ended();
    block_on(io.drain(LONG)).unwrap();
}

#[test]
fn a_log_is_not_done_while_somebody_may_write() {
    let bench = Bench::new();
    let uri = format!("file://{}", bench.text("log"));
    let (ends, io) = bench.open_ends(&Stdio { stdout: uri, ..Stdio::default() });
    io.ended();
    block_on(io.drain(Duration::from_millis(30))).unwrap_err();
    assert!(pipe::has_reader(ends.stdout.as_fd()).unwrap());
    drop(io);
    // Delete does not leave the pipe open: the writer would block forever once it is full.
    let stdout = ends.stdout;
    within(LONG, move || {
        while pipe::has_reader(stdout.as_fd()).unwrap() {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}
