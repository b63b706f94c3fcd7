//! The basis of the tests: a private testbed of real servers, and stand-ins for them.
//!
//! The servers are Debian's containerd 1.7 and 2.x and dockerd. A test starts them on sockets and directories of its
//! own, in a mount namespace of its own, and they end whatever happens to the test.
//!
//! `tests/testbed/fetch` provides the programs; it is run if they are missing.
pub mod agent;
mod case;
mod containerd;
pub mod cri;
mod docker;
mod events;
pub mod fake;
mod image;
mod leak;
mod machine;
pub mod program;
mod pty;
mod run;
pub mod skip;
mod suite;
pub mod wire;

pub use case::{case, cgroup_file, cgroup_path, rootless_case, systemd, Case, Runtime};
pub use containerd::{Containerd, Setting};
pub use docker::{docker_case, Docker, DockerCase, Ids};
pub use events::Events;
pub use image::{image, pause_image, IMAGE, PAUSE};
pub use leak::Snapshot;
pub use machine::Machine;
pub use pty::Pty;
pub use run::{end, patience, run, until, Output};
pub use suite::{built, criu, shim, source, Suite};
