//! Logging programs: shells whose arguments tell them what to do.

use super::*;
use crate::stdio::{logger, uri};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

const ODD: &[char] = &['%', '&', '+', '#', '?', ' ', ';', '"', '\n', '<', '>'];

/// `sh -c SCRIPT NAME` as a URI.
fn shell(scheme: &str, script: &str) -> String {
    let encoded: String = script
        .chars()
        .map(|c| if ODD.contains(&c) { format!("%{:02x}", c as u32) } else { c.to_string() })
        .collect();
    format!("{scheme}:///bin/sh?-c={encoded}")
}

fn request(scheme: &str, script: &str) -> Stdio {
    Stdio { stdout: shell(scheme, script), ..Stdio::default() }
}

fn wait_for_file(path: &Path) -> String {
    let path = path.to_owned();
    within(LONG, move || loop {
        match std::fs::read_to_string(&path) {
            Ok(text) if text.ends_with('\n') => return text,
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    })
}

#[test]
fn a_program_gets_both_streams_and_two_words_about_the_container() {
    let bench = Bench::new();
    let (out, err, env) = (bench.text("out"), bench.text("err"), bench.text("env"));
    let count = "for n in $(seq 0 63); do [ -e /proc/$$/fd/$n ] && open=\"$open $n\"; done";
    let script = format!(
        "/usr/bin/env >{env}; exec 5>&-; {count}; cat <&3 >{out}; cat <&4 >{err}; echo $open >>{err}"
    );
    let (ends, io) = bench.open_ends(&request("binary", &script));
    File::from(ends.stdout).write_all(b"to stdout").unwrap();
    File::from(ends.stderr).write_all(b"to stderr ").unwrap();
    io.ended();
    block_on(io.drain(LONG)).unwrap();
    let err = wait_for_file(Path::new(&err));
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "to stdout");
    // No other descriptor of the shim was inherited.
    assert_eq!(err, "to stderr 0 1 2 3 4\n");
    let env = std::fs::read_to_string(&env).unwrap();
    let mut env: Vec<_> =
        env.lines().filter(|line| !line.starts_with("PWD=") && !line.starts_with("_=")).collect();
    env.sort_unstable();
    assert_eq!(env, ["CONTAINER_ID=c1", "CONTAINER_NAMESPACE=tests"]);
}

#[test]
fn ready_is_a_byte_or_the_end_and_for_v2_a_byte() {
    let bench = Bench::new();
    let ready = "printf x >&5; exec 5>&-; cat <&3 >/dev/null";
    let silent = "exec 5>&-; cat <&3 >/dev/null";
    assert!(bench.open(&request("binary", ready)).is_ok());
    assert!(bench.open(&request("binary", silent)).is_ok());
    assert!(bench.open(&request("binary-v2", ready)).is_ok());
    let error = bench.open(&request("binary-v2", silent)).map(drop).unwrap_err();
    assert!(error.to_string().contains("/bin/sh"), "{error}");
    let error = bench.open(&request("binary-v2", "exit 3")).map(drop).unwrap_err();
    assert!(error.to_string().contains("without a byte"), "{error}");
}

#[test]
fn a_program_that_is_never_ready_is_killed_and_named() {
    let bench = Bench::new();
    let pid = bench.text("pid");
    let uri = shell("binary", &format!("echo $$ >{pid}; exec sleep 100"));
    let uri::Target::Binary(program) = uri::Target::parse(&uri).unwrap() else { unreachable!() };
    let started = Instant::now();
    let error =
        block_on(logger::start_within(&program, &LABELS, Duration::from_millis(300))).map(drop).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(error.kind(), crate::error::Kind::Deadline);
    assert!(error.to_string().contains("not ready"), "{error}");
    wait_until_gone(&wait_for_file(Path::new(&pid)));
}

#[test]
fn a_program_that_does_not_exist_is_an_error() {
    let bench = Bench::new();
    for (uri, part) in
        [("binary:///no/such/program", "no such file"), ("binary:///etc/passwd", "permission denied")]
    {
        let error = bench.open(&Stdio { stdout: uri.into(), ..Stdio::default() }).map(drop).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_program_that_dies_breaks_the_pipe() {
    let bench = Bench::new();
    let (ends, _io) = bench.open_ends(&request("binary", "exit 0"));
    let mut stdout = File::from(ends.stdout);
    let broken = within(LONG, move || loop {
        if let Err(error) = stdout.write(b"x") {
            return error.kind();
        }
    });
    assert_eq!(broken, std::io::ErrorKind::BrokenPipe);
}

#[test]
fn the_program_is_told_to_end_and_killed_when_it_does_not() {
    let bench = Bench::with(Limits { logger: Duration::from_millis(300), ..Limits::default() });
    let (polite, stubborn) = (bench.text("polite"), bench.text("stubborn"));
    let wait = "exec 5>&-; while :; do read x <&3 || sleep 0.05; done";
    let script = format!("trap 'echo told >{polite}; exit' TERM; {wait}");
    let first = bench.open(&request("binary", &script)).unwrap();
    let script = format!("trap 'echo told >>{stubborn}.told' TERM; echo $$ >{stubborn}; {wait}");
    let second = bench.open(&request("binary", &script)).unwrap();
    let pid = wait_for_file(Path::new(&stubborn));
    let started = Instant::now();
    drop((first, second));
    assert!(started.elapsed() < Duration::from_millis(200));
    assert_eq!(wait_for_file(Path::new(&polite)), "told\n");
    assert_eq!(wait_for_file(&bench.path("stubborn.told")), "told\n");
    wait_until_gone(&pid);
    assert!(started.elapsed() >= Duration::from_millis(300));
}

#[test]
fn the_shim_does_not_leave_before_its_loggers() {
    let bench = Bench::new();
    let pid = bench.text("pid");
    let script = format!("trap '' TERM; echo $$ >{pid}; exec 5>&-; while :; do sleep 0.05; done");
    drop(bench.open(&request("binary", &script)).unwrap());
    bench.board.finish(Duration::from_millis(100));
    wait_until_gone(&wait_for_file(Path::new(&pid)));
}

#[test]
fn a_terminal_may_be_logged_by_a_program() {
    let bench = Bench::new();
    let log = bench.text("log");
    let stdout = shell("binary-v2", &format!("printf . >&5; exec 5>&-; cat <&3 >{log}; echo >>{log}"));
    let (ends, io) = bench.open(&Stdio { stdout, terminal: true, ..Stdio::default() }).unwrap();
    assert!(ends.is_none());
    let pty = nix::pty::openpty(None, None).unwrap();
    io.attach_console(pty.master).unwrap();
    let mut container = File::from(pty.slave);
    container.write_all(b"on screen").unwrap();
    io.ended();
    block_on(io.drain(LONG)).unwrap();
    drop(container);
    drop(io);
    assert_eq!(wait_for_file(Path::new(&log)), "on screen\n");
}

/// Waits until the process is a zombie (nobody reaps here) or gone.
fn wait_until_gone(pid: &str) {
    let stat = PathBuf::from(format!("/proc/{}/stat", pid.trim()));
    within(LONG, move || {
        while let Ok(text) = std::fs::read_to_string(&stat) {
            match text.rsplit(')').next().and_then(|rest| rest.split_whitespace().next().map(str::to_owned)) {
                Some(state) if state != "Z" => std::thread::sleep(Duration::from_millis(5)),
                _ => break,
            }
        }
    });
}
