//! Reports a test that does not run, bypassing output capture: whoever reads the result must see it.
use std::io::Write;

/// Reports a machine of another kind: another cgroup version, no systemd.
pub fn other_machine(why: &str) {
    let test = std::thread::current().name().unwrap_or("test").to_owned();
    let _ = std::io::stderr().write_all(format!("{test}: skipped: {why}\n").as_bytes());
}

/// Reports a missing requirement that every CI machine meets (root, a program, a cgroup tree): if `CI` is set, the
/// test fails.
#[track_caller]
pub fn missing(what: &str) {
    other_machine(what);
    assert!(std::env::var_os("CI").is_none(), "this should have run in CI: {what}");
}
