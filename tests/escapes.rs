//! What a hostile container can get out of the processes that join it: an exec, a hook, another container of its pod.
//!
//! The attacker (`tests/probe/catch.rs`) stops each one before it has become a program of the container, and looks at it
//! while it cannot go on. Nothing of the host, of the shim or of a neighbour may be found; and a process that is held for
//! ever holds nobody else up.

#[path = "escapes/ambush.rs"]
mod ambush;
#[path = "escapes/attacker.rs"]
mod attacker;
#[path = "escapes/calls.rs"]
mod calls;
#[allow(dead_code)]
#[path = "fake_containerd/containerd.rs"]
mod containerd;
#[path = "escapes/execs.rs"]
mod execs;
#[path = "fake_containerd/events.rs"]
#[allow(dead_code)]
mod fake;
#[path = "escapes/held.rs"]
mod held;
#[path = "escapes/judge.rs"]
mod judge;
#[allow(dead_code, unused_imports)]
#[path = "testbed/cri/mod.rs"]
mod kubelet;
#[path = "probe/look.rs"]
mod look;
#[path = "escapes/planted.rs"]
mod planted;
#[path = "escapes/pod.rs"]
mod pod;
#[path = "escapes/pods.rs"]
mod pods;
#[path = "escapes/real.rs"]
mod real;
mod testbed;
#[path = "escapes/trap.rs"]
mod trap;
#[path = "escapes/victims.rs"]
mod victims;
mod wire;
#[path = "escapes/world.rs"]
mod world;

/// Whether this is root; if not, the test says so.
fn root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        testbed::skip::missing(&format!("{test} needs root"));
    }
    root
}
