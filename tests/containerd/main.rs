//! shoal under real containerd 1.7 and 2.x, driven by their own `ctr`; each case also runs with runc.

/// Declares cases: each becomes four tests, named so that both containerds are busy at the same time.
macro_rules! cases {
    ($($name:ident),* $(,)?) => { $( mod $name {
        use testbed::{case, Runtime::*, Suite::*};
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

mod agents;
mod basics;
mod checkpoint;
mod errors;
mod exec;
mod flags;
mod hooks;
mod logging;
mod many;
mod mounts;
mod neighbours;
mod restart;
mod rootless;
mod signals;
mod terminal;
