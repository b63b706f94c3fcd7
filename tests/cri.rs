//! shoal as a runtime of Kubernetes: containerd 1.7 and 2.x are asked over the CRI for what a kubelet asks for. Each
//! case runs with runc and a pause container (the control), with shoal and a pause container, and with shoal alone.

// The demo has the rest.
#[allow(dead_code, unused_imports)]
#[path = "testbed/cri/mod.rs"]
mod kubelet;
mod testbed;
mod wire;

/// Declares cases: each becomes one test per mode and version.
macro_rules! cases {
    ($($name:ident),* $(,)?) => { $( mod $name {
        use crate::{kubelet::{case, Mode::*}, testbed::Suite::*};
        #[test]
        fn runc_podsandbox_on_1_7() { case(Trixie, Runc, stringify!($name), super::$name) }
        #[test]
        fn runc_podsandbox_on_2_1() { case(Forky, Runc, stringify!($name), super::$name) }
        #[test]
        fn shoal_podsandbox_on_1_7() { case(Trixie, Shoal, stringify!($name), super::$name) }
        #[test]
        fn shoal_podsandbox_on_2_1() { case(Forky, Shoal, stringify!($name), super::$name) }
        #[test]
        fn shoal_shim_on_1_7() { case(Trixie, Shim, stringify!($name), super::$name) }
        #[test]
        fn shoal_shim_on_2_1() { case(Forky, Shim, stringify!($name), super::$name) }
    } )* };
}

#[path = "cri/basics.rs"]
mod basics;
#[path = "cri/crash.rs"]
mod crash;
#[path = "cri/exec.rs"]
mod exec;
#[path = "cri/files.rs"]
mod files;
#[path = "cri/lifecycle.rs"]
mod lifecycle;
#[path = "cri/logs.rs"]
mod logs;
#[path = "cri/mounts.rs"]
mod mounts;
#[path = "cri/pause.rs"]
mod pause;
#[path = "cri/resources.rs"]
mod resources;
#[path = "cri/security.rs"]
mod security;
#[path = "cri/sharing.rs"]
mod sharing;
#[path = "cri/users.rs"]
mod users;
