//! The messages generated from `protos/`.

#![allow(clippy::all, missing_docs)]

include!(concat!(env!("OUT_DIR"), "/protos/mod.rs"));

/// What the generated code calls `super::mount`.
mod mount {
    pub use containerd_shim_protos::types::mount::*;
}
