//! A private testbed of real servers: Debian's containerd 1.7 and 2.x and dockerd, started by a test on
//! sockets and folders of its own, in a mount namespace of its own, and ended whatever happens to the test.
//!
//! The programs come from `tests/testbed/fetch`, which is run when they are missing.
#![allow(dead_code, unused_imports)] // each test file uses its own part of this

mod case;
mod containerd;
mod docker;
mod events;
mod image;
mod leak;
mod machine;
pub mod program;
mod pty;
mod run;
pub mod skip;
mod suite;

pub use case::{case, cgroup_file, cgroup_path, systemd, Case, Runtime};
pub use containerd::{Containerd, Setting};
pub use docker::{docker_case, Docker, DockerCase, Ids};
pub use events::Events;
pub use image::{image, pause_image, IMAGE, PAUSE};
pub use leak::Snapshot;
pub use machine::Machine;
pub use pty::Pty;
pub use run::{end, patience, run, until, Output};
pub use suite::{shim, source, Suite};
