//! shoal under real containerd 1.7 and 2.x, driven by their own `ctr`; each case runs with runc too.

mod testbed;

/// Declares cases: each becomes four tests, named so that the two containerds are busy side by side.
macro_rules! cases {
    ($($name:ident),* $(,)?) => { $( mod $name {
        use crate::testbed::{case, Runtime::*, Suite::*};
        #[test]
        fn runc_on_1_7() { case(Trixie, Runc, stringify!($name), super::$name) }
        #[test]
        fn runc_on_2_1() { case(Forky, Runc, stringify!($name), super::$name) }
        #[test]
        fn shoal_on_1_7() { case(Trixie, Shoal, stringify!($name), super::$name) }
        #[test]
        fn shoal_on_2_1() { case(Forky, Shoal, stringify!($name), super::$name) }
    } )* };
}

#[path = "containerd/basics.rs"]
mod basics;
#[path = "containerd/errors.rs"]
mod errors;
#[path = "containerd/exec.rs"]
mod exec;
#[path = "containerd/flags.rs"]
mod flags;
#[path = "containerd/hooks.rs"]
mod hooks;
#[path = "containerd/logging.rs"]
mod logging;
#[path = "containerd/many.rs"]
mod many;
#[path = "containerd/neighbours.rs"]
mod neighbours;
#[path = "containerd/restart.rs"]
mod restart;
#[path = "containerd/signals.rs"]
mod signals;
#[path = "containerd/terminal.rs"]
mod terminal;
