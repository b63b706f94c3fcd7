//! The messages of `protos/criu`, generated.

#![allow(clippy::all, missing_docs)]

include!(concat!(env!("OUT_DIR"), "/criu/mod.rs"));
