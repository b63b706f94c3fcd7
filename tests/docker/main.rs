//! shoal under dockerd, driven by `docker`; each case also runs with runc.

/// Declares cases: each becomes four tests, named so that both dockerds are busy at the same time.
macro_rules! cases {
    ($ids:ident: $($name:ident),* $(,)?) => { $( mod $name {
        use testbed::{docker_case, Ids, Runtime::*, Suite::*};
        #[test]
        fn runc_on_docker_26() { docker_case(Trixie, Ids::$ids, Runc, stringify!($name), super::$name) }
        #[test]
        fn runc_on_docker_28() { docker_case(Forky, Ids::$ids, Runc, stringify!($name), super::$name) }
        #[test]
        fn shoal_on_docker_26() { docker_case(Trixie, Ids::$ids, Shoal, stringify!($name), super::$name) }
        #[test]
        fn shoal_on_docker_28() { docker_case(Forky, Ids::$ids, Shoal, stringify!($name), super::$name) }
    } )* };
}

mod checkpoint;
mod flags;
mod life;
mod users;
