//! The answer to one request: given exactly once, now or later, whatever happens in between.

use super::code;
use super::connection::{Call, Connection, Late};
use crate::error::{Error, Kind, Result};
use protobuf::Message;
use std::any::Any;
use std::sync::{Arc, Weak};
use std::time::Instant;
use ttrpc::proto::{Code, Response, Status};

/// Must be answered; one that is dropped answers by itself, since a caller that hears nothing waits for ever.
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

    /// A status that is about the protocol, not about the domain.
    pub(super) fn refuse(mut self, code: Code, message: impl Into<String>) {
        self.finish(code, message.into(), Vec::new());
    }

    fn expired(self) {
        let text = "the process has not ended within the time limit of the request";
        self.send(Err(Error::new(Kind::Deadline, text)));
    }

    /// Keeps the call on its connection, to be answered through [`Later`].
    pub fn later(mut self) -> Option<Later> {
        let later = Later { connection: Arc::downgrade(&self.connection), stream: self.stream };
        let call = self.call.take()?;
        // Past its time it was answered without its worker.
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
        log::debug!(rpc = call.name, object = call.object, code = format!("{code:?}"), micros; "answered {message}");
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

/// A call that waits. Dropping it does not answer: the connection still has the call.
pub struct Later {
    connection: Weak<Connection>,
    stream: u32,
}

impl Later {
    /// Drops this once the call is answered, past its time, or its peer is gone.
    pub(crate) fn keep(&self, what: impl Any + Send) {
        if let Some(connection) = self.connection.upgrade() {
            connection.keep_with(self.stream, Box::new(what));
        }
    }

    pub fn send(&self, answer: Result<Vec<u8>>) {
        let Some(connection) = self.connection.upgrade() else { return };
        // Else it was answered.
        if let Some(call) = connection.unpark(self.stream) {
            Reply::new(connection, self.stream, call).send(answer);
        }
    }
}

/// Answers each call of a connection that is past its time, and says when the next one is.
pub(super) fn expire(connection: &Arc<Connection>, now: Instant) -> Option<Instant> {
    let Late { waiting, at_work, next } = connection.late(now);
    for (stream, name) in at_work {
        log::warn!(rpc = name; "a request is past its time, and still at work");
        overdue(connection, stream, &name);
    }
    for (stream, call) in waiting {
        Reply::new(Arc::clone(connection), stream, call).expired();
    }
    next
}

/// For a call whose worker hangs, e.g. in a filesystem that does not answer.
fn overdue(connection: &Connection, stream: u32, name: &str) {
    let text =
        format!("{name} was not done within the time limit of the request, and is given up once it can be");
    connection.send(stream, &encode(Code::DEADLINE_EXCEEDED, text, Vec::new()));
}

/// A `Response` as bytes.
fn encode(code: Code, message: String, payload: Vec<u8>) -> Vec<u8> {
    let mut response = Response::new();
    response.payload = payload;
    // The Go server leaves the status out of a good response; clients take both.
    if code != Code::OK {
        let mut status = Status::new();
        status.code = code.into();
        status.message = message;
        response.status = Some(status).into();
    }
    // Only an uninitialized proto2 message fails to encode; this is proto3.
    response.write_to_bytes().unwrap_or_default()
}
