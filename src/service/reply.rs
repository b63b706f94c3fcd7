//! The response to one request: sent exactly once, now or later, whatever happens in between.

use super::code;
use super::connection::{Call, Connection, Late};
use crate::error::{Error, Kind, Result};
use protobuf::Message;
use std::any::Any;
use std::sync::{Arc, Weak};
use std::time::Instant;
use ttrpc::proto::{Code, Response, Status};

/// A pending response. Dropping it sends an error, because a caller without a response waits forever.
pub struct Reply {
    connection: Arc<Connection>,
    stream: u32,
    call: Option<Call>,
}

impl Reply {
    pub(super) fn new(connection: Arc<Connection>, stream: u32, call: Call) -> Self {
        Reply { connection, stream, call: Some(call) }
    }

    /// Names the container (and exec) that the call is about.
    pub(crate) fn about(&mut self, container: &str, exec: &str) {
        if let Some(call) = &mut self.call {
            call.object = match exec {
                "" => container.to_owned(),
                exec => format!("{container}/{exec}"),
            };
        }
    }

    /// When the caller stops waiting.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.call.as_ref().and_then(|call| call.deadline)
    }

    pub fn send(mut self, answer: Result<Vec<u8>>) {
        match answer {
            Ok(payload) => self.finish(Code::OK, String::new(), payload),
            Err(error) => self.finish(code(error.kind()), super::sentence(&error), Vec::new()),
        }
    }

    /// Responds with a status about the protocol rather than the domain.
    pub(super) fn refuse(mut self, code: Code, message: impl Into<String>) {
        self.finish(code, message.into(), Vec::new());
    }

    fn expired(self) {
        let text = "the process has not ended within the time limit of the request";
        self.send(Err(Error::new(Kind::Deadline, text)));
    }

    /// Parks the call on its connection, to be answered through [`Later`].
    pub fn later(mut self) -> Option<Later> {
        let later = Later { connection: Arc::downgrade(&self.connection), stream: self.stream };
        let call = self.call.take()?;
        // It exceeded its time limit and was answered without its worker.
        if !self.connection.done(self.stream) {
            return None;
        }
        match self.connection.park(self.stream, call) {
            Ok(()) => Some(later),
            Err(call) => {
                self.call = Some(call);
                self.refuse(Code::INVALID_ARGUMENT, "the stream id is that of a call that still waits");
                None
            }
        }
    }

    fn finish(&mut self, code: Code, message: String, payload: Vec<u8>) {
        let Some(call) = self.call.take() else { return };
        let in_time = self.connection.done(self.stream);
        let micros = call.begun.elapsed().as_micros() as u64;
        log::debug!(rpc = call.name, object = call.object, code = format!("{code:?}"), micros; "response: {message}");
        if in_time && !self.connection.send(self.stream, &encode(code, message, payload)) {
            let text = format!("the response to {} is larger than the protocol allows", call.name);
            self.connection.send(self.stream, &encode(Code::RESOURCE_EXHAUSTED, text, Vec::new()));
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(call) = &self.call {
            let text = format!("{} ended without an answer: a defect of the shim, see its log", call.name);
            self.finish(Code::INTERNAL, text, Vec::new());
        }
    }
}

/// A parked call. Dropping this does not respond: the connection still has the call.
pub struct Later {
    connection: Weak<Connection>,
    stream: u32,
}

impl Later {
    /// Ties a value to the call: it is dropped once the call is answered or expires, or the peer is gone.
    pub(crate) fn keep(&self, what: impl Any + Send) {
        if let Some(connection) = self.connection.upgrade() {
            connection.keep_with(self.stream, Box::new(what));
        }
    }

    pub fn send(&self, answer: Result<Vec<u8>>) {
        let Some(connection) = self.connection.upgrade() else { return };
        // Otherwise it has already been answered.
        if let Some(call) = connection.unpark(self.stream) {
            Reply::new(connection, self.stream, call).send(answer);
        }
    }
}

/// Answers every call of a connection that has exceeded its time limit; returns when the next one will.
pub(super) fn expire(connection: &Arc<Connection>, now: Instant) -> Option<Instant> {
    let Late { waiting, at_work, next } = connection.late(now);
    for (stream, name) in at_work {
        log::warn!(rpc = name; "a request exceeded its time limit and is still running");
        overdue(connection, stream, &name);
    }
    for (stream, call) in waiting {
        Reply::new(Arc::clone(connection), stream, call).expired();
    }
    next
}

/// Responds for a worker that hangs, e.g. in a filesystem that does not respond.
fn overdue(connection: &Connection, stream: u32, name: &str) {
    let text =
        format!("{name} was not done within the time limit of the request, and is given up once it can be");
    connection.send(stream, &encode(Code::DEADLINE_EXCEEDED, text, Vec::new()));
}

/// Encodes a `Response`.
fn encode(code: Code, message: String, payload: Vec<u8>) -> Vec<u8> {
    let mut response = Response::new();
    response.payload = payload;
    // The Go server omits the status of a successful response; clients accept both.
    if code != Code::OK {
        let mut status = Status::new();
        status.code = code.into();
        status.message = message;
        response.status = Some(status).into();
    }
    // Only an uninitialized proto2 message fails to encode; this is proto3.
    response.write_to_bytes().unwrap_or_default()
}
