//! containerd from a shim's point of view, without a containerd: the calls of each version, and the services that a
//! shim calls.

mod containerd;
mod events;
pub mod pod;
mod store;

pub use containerd::{ended, eventually, open_log, Containerd, Done, Shim, Version};
pub use events::{Act, EventService};
pub use store::{Answer, FakeStore, Seen};
