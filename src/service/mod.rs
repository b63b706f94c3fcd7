//! RPC in, events out: the only module that knows protobuf and ttrpc.
//!
//! Requests: `server` (frames) → a worker → `router` (service and method) → `task`, `sandbox` or `controller` (decode,
//! call the domain, encode), or `store` (→ `grpc` → containerd). Events: `events` (a queue) → containerd.

pub mod about;
pub(crate) mod answer;
mod call;
mod checkpoint;
mod connection;
mod controller;
pub(crate) mod convert;
pub mod events;
mod frame;
mod grpc;
pub(crate) mod metrics;
pub(crate) mod options;
mod pod;
pub mod protos;
mod publish;
#[cfg(test)]
mod reference;
pub mod reply;
pub mod router;
mod sandbox;
pub mod server;
mod store;
mod task;

use crate::error::{Error, Kind};
use ttrpc::proto::Code;

/// The message for the client. Go clients recognize some codes only by errdefs' phrases at the end of the text.
fn sentence(error: &Error) -> String {
    // Drop our own wording if it says the same.
    let (ours, words) = match error.kind() {
        Kind::NotFound => (" does not exist", "not found"),
        Kind::Exists => (" exists", "already exists"),
        _ => return error.to_string(),
    };
    let text = error.to_string();
    format!("{}: {words}", text.strip_suffix(ours).unwrap_or(&text))
}

/// The only place that maps an error to a status code.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_that_go_clients_look_for_are_said_once() {
        let text = |kind, text: &'static str| sentence(&Error::new(kind, text));
        assert_eq!(text(Kind::NotFound, "sandbox p1 does not exist"), "sandbox p1: not found");
        assert_eq!(text(Kind::Exists, "container c1 exists"), "container c1: already exists");
        assert_eq!(text(Kind::NotFound, "container c1 not created"), "container c1 not created: not found");
        assert_eq!(text(Kind::State, "what exists"), "what exists");
    }
}
