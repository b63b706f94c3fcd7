//! What a hostile container can get out of the processes that join it: an exec, a hook, another container of its pod.
//!
//! The attacker (`tests/probe/catch.rs`) stops each one before it has become a program of the container, and looks at it
//! while it cannot go on. Nothing of the host, of the shim or of a neighbour may be found; and a process that is held for
//! ever holds nobody else up.

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

/// Whether this is root; if not, the test says so.
fn root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        testbed::skip::missing(&format!("{test} needs root"));
    }
    root
}
