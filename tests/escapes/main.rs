//! What a hostile container can get out of the processes that join it: an exec, a hook, another container of its pod.
//!
//! The attacker (`tests/probe/catch.rs`) stops each one before it becomes a program of the container, and examines it
//! while it cannot go on. It must find nothing of the host, of the shim or of a neighbour; and a process that is held
//! forever must not hold up anything else.

mod ambush;
mod attacker;
mod calls;
mod execs;
mod held;
mod judge;
#[path = "../probe/look.rs"]
mod look;
mod planted;
mod pods;
mod real;
mod trap;
mod victims;
mod world;

/// Returns whether the test runs as root, and reports it if not.
fn root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        testbed::skip::missing(&format!("{test} needs root"));
    }
    root
}
