//! shoal: a containerd shim that is the container runtime. ARCHITECTURE.md is the overview.
//!
//! Ranks, lowest first; a module imports only from lower ranks (`tests/layering` enforces it):
//! `error, mountinfo, sync` → `sys` → `spec, tasks` → `paths` →
//! `plan, seccomp, cgroup, resctrl, stdio` → `init` → `launch` → `criu` → `sandbox` → `service` → `shim`.
#![deny(unsafe_code)]

pub mod error;
mod mountinfo;
mod sync;
#[allow(unsafe_code)]
pub mod sys;

pub mod spec;
pub mod tasks;

pub mod cgroup;
pub mod paths;
pub mod plan;
mod resctrl;
pub mod seccomp;
pub mod stdio;

mod init;

pub mod launch;

pub mod criu;

pub mod sandbox;

pub mod service;

pub mod shim;
