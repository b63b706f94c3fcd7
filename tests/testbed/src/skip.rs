//! A test that does not run says why, past the capture of a test's output: who reads the result must see it.
use std::io::Write;

/// The machine is of another kind: another version of cgroups, no systemd.
pub fn other_machine(why: &str) {
    let test = std::thread::current().name().unwrap_or("test").to_owned();
    let _ = std::io::stderr().write_all(format!("{test}: skipped: {why}\n").as_bytes());
}

/// What every machine of CI has is not there (root, a program, a tree of cgroups): where `CI` is set, the test fails.
#[track_caller]
pub fn missing(what: &str) {
    other_machine(what);
    assert!(std::env::var_os("CI").is_none(), "this should have run in CI: {what}");
}
