//! Limits that hinder a process before its program runs, and unlimited files of the image.

use crate::bench::rooted;
use crate::container::{launch, Bundle};
use serde_json::{json, Value};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

fn limited(make: fn(&[&str]) -> Bundle, descriptors: u64, args: &[&str]) -> Bundle {
    let mut bundle = make(args);
    let limit = json!({ "type": "RLIMIT_NOFILE", "hard": descriptors, "soft": descriptors });
    bundle.spec["process"]["rlimits"] = json!([limit]);
    bundle
}

/// runc needs some descriptors for itself, and fails.
#[test]
fn a_program_that_may_open_nothing_runs() {
    if !rooted("a_program_that_may_open_nothing_runs") {
        return;
    }
    for make in [Bundle::new, crate::users::bundle] {
        for descriptors in 0..=6 {
            for terminal in [false, true] {
                let mut bundle = limited(make, descriptors, &["probe", "exit", "0"]);
                bundle.spec["process"]["terminal"] = terminal.into();
                assert_eq!(bundle.create().unwrap().finish(), "");
            }
            let container = make(&["/probe", "sleep"]);
            let init = container.create().unwrap();
            let pidfd = init.waiting.start().unwrap();
            let bundle = limited(make, descriptors, &["probe", "exit", "0"]);
            let plan = bundle.exec_plan(&bundle.spec["process"]).unwrap();
            assert_eq!(launch(&plan, Some(pidfd.as_fd())).unwrap().finish(), "");
            shoal::sys::wait::signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
            init.exit.recv_timeout(Duration::from_secs(5)).unwrap();
        }
    }
    for descriptors in 0..=3 {
        let error = |name: &str| {
            limited(Bundle::new, descriptors, &[name]).create().err().expect("refused").to_string()
        };
        assert_eq!(error("nope"), "exec: \"nope\": executable file not found in $PATH");
        assert_eq!(error("/nope"), "exec: \"/nope\": stat /nope: no such file or directory (ENOENT)");
        assert_eq!(error("/etc"), "exec: \"/etc\": is a directory (EISDIR)");
    }
}

fn home(bundle: &Bundle) -> Value {
    let begun = Instant::now();
    let report = bundle.report();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let variables = report["environment"].as_array().unwrap();
    variables.iter().find(|variable| variable.as_str().unwrap().starts_with("HOME=")).unwrap().clone()
}

/// The name of an odd file, how it is made from a line, and the resulting HOME.
type Odd = (&'static str, fn(&Path, &str), &'static str);

/// Covers whatever the image may have as its passwd(5).
#[test]
fn a_home_is_looked_up_in_a_bounded_part_of_a_file() {
    if !rooted("a_home_is_looked_up_in_a_bounded_part_of_a_file") {
        return;
    }
    let line = "root:x:0:0::/found:/x\n";
    let cases: [Odd; 9] = [
        (
            "a line behind half a megabyte",
            |file, line| {
                std::fs::write(file, "a:x:7:7::/:\n".repeat(1 << 15) + line).unwrap();
            },
            "HOME=/found",
        ),
        (
            "a line behind more than one",
            |file, line| {
                std::fs::write(file, "a:x:7:7::/:\n".repeat(1 << 17) + line).unwrap();
            },
            "HOME=/",
        ),
        (
            "no end of a line",
            |file, line| {
                std::fs::write(file, "x".repeat(1 << 22) + line).unwrap();
            },
            "HOME=/",
        ),
        (
            "a terabyte",
            |file, line| {
                std::fs::write(file, "a:x:7:7::/:\n").unwrap();
                std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(1 << 40).unwrap();
                let _ = line;
            },
            "HOME=/",
        ),
        (
            "a fifo",
            |file, _| {
                nix::unistd::mkfifo(file, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
            },
            "HOME=/",
        ),
        ("a folder", |file, _| std::fs::create_dir(file).unwrap(), "HOME=/"),
        ("a device without an end", |file, _| symlink("/dev/zero", file).unwrap(), "HOME=/"),
        ("a link to itself", |file, _| symlink("passwd", file).unwrap(), "HOME=/"),
        // The link is resolved in the container's root, even if it leads to the host's file.
        (
            "a link",
            |file, line| {
                std::fs::write(file.with_file_name("other"), line).unwrap();
                symlink("../../../../../etc/other", file).unwrap();
            },
            "HOME=/found",
        ),
    ];
    for (what, make, expected) in cases {
        let bundle = Bundle::new(&["/probe", "report"]);
        let file = bundle.root().join("etc/passwd");
        std::fs::remove_file(&file).unwrap();
        make(&file, line);
        assert_eq!(home(&bundle), expected, "{what}");
    }
}
