//! shoal as a Kubernetes runtime: containerd 1.7 and 2.x get the CRI requests that a kubelet makes. Each case runs
//! with runc and a pause container (the control), with shoal and a pause container, and with shoal alone.

/// Declares cases: each becomes one test per mode and version.
macro_rules! cases {
    ($($name:ident),* $(,)?) => { $( mod $name {
        use testbed::{cri::{case, Mode::*}, Suite::*};
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

mod basics;
mod checkpoint;
mod crash;
mod exec;
mod files;
mod lifecycle;
mod logs;
mod mounts;
mod pause;
mod resources;
mod security;
mod sharing;
mod users;
