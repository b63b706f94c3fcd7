//! CRIU, which writes a container's processes into files and makes them again: checkpoint and restore.
//!
//! It is a program of the host, asked by its RPC: `criu swrk 3`, one process for one request, a message a packet. What it
//! tells on its way comes through [`Talk::next`]; it waits for the next call before it goes on. The messages end here.

mod image;
mod log;
mod message;
mod program;
mod protos;
mod talk;

pub use image::{all_begin_with, FILTERS, FILTERS_MAX};
pub use message::{config, Cgroups, Dump, Place, Restore};
pub use program::Criu;
pub use talk::{explain, Heard, Talk};
