//! RPC in, events out: the only module that knows protobuf and ttrpc.
//!
//! A request goes `server` (frames) → `workers` (threads) → `router` (service and method) → `task` (decode, call the
//! sandbox, encode). Events go `events` (a queue) → containerd.

mod connection;
pub(crate) mod convert;
pub mod events;
mod frame;
pub mod metrics;
pub mod options;
mod publish;
pub mod reply;
pub mod router;
pub mod server;
pub mod task;
mod workers;

use crate::error::{Error, Kind};
use ttrpc::proto::Code;

/// What the client reads. Go clients know some codes by the words of containerd's errdefs at the end.
fn sentence(error: &Error) -> String {
    let words = match error.kind() {
        Kind::NotFound => "not found",
        Kind::Exists => "already exists",
        _ => return error.to_string(),
    };
    format!("{error}: {words}")
}

/// The one place where an error becomes a status.
fn code(kind: Kind) -> Code {
    match kind {
        Kind::Invalid => Code::INVALID_ARGUMENT,
        Kind::NotFound => Code::NOT_FOUND,
        Kind::Exists => Code::ALREADY_EXISTS,
        Kind::State => Code::FAILED_PRECONDITION,
        Kind::Unsupported => Code::UNIMPLEMENTED,
        Kind::Unavailable => Code::UNAVAILABLE,
        Kind::Deadline => Code::DEADLINE_EXCEEDED,
        Kind::Denied => Code::PERMISSION_DENIED,
        Kind::System => Code::UNKNOWN,
        Kind::Bug => Code::INTERNAL,
    }
}
