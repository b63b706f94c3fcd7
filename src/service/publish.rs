//! A minimal ttrpc client for one call: `containerd.services.events.ttrpc.v1.Events/Forward`.

use super::call::call;
use crate::error::words;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;
use ttrpc::proto::{Code, Request, Response};

const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";
const METHOD: &str = "Forward";
/// The time limit of one attempt, as in the Go shim.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The outcome of forwarding an event.
pub(super) enum Forwarded {
    Acknowledged,
    /// containerd responded with an error.
    Refused(String),
    /// containerd is not running or does not respond.
    Away(String),
}

pub(super) struct Publisher {
    path: PathBuf,
    connection: Option<UnixStream>,
    /// The id of the last request.
    stream: u32,
}

impl Publisher {
    /// `address` is a path, with or without `unix://`.
    pub(super) fn new(address: &str) -> Self {
        let path = address.strip_prefix("unix://").unwrap_or(address);
        Publisher { path: path.into(), connection: None, stream: 0 }
    }

    pub(super) fn forward(&mut self, payload: &[u8]) -> Forwarded {
        // A connection from before a restart of containerd fails immediately: that attempt does not count.
        let kept = self.connection.is_some();
        let result = match self.attempt(payload) {
            Err(_) if kept => self.attempt(payload),
            result => result,
        };
        match result {
            Ok(response) => match response.status.as_ref() {
                Some(status) if status.code() != Code::OK => {
                    Forwarded::Refused(format!("{:?}: {}", status.code(), status.message))
                }
                _ => Forwarded::Acknowledged,
            },
            Err(e) => Forwarded::Away(format!("{}: {}", self.path.display(), words(&e))),
        }
    }

    fn attempt(&mut self, payload: &[u8]) -> io::Result<Response> {
        let result = self.exchange(payload);
        if result.is_err() {
            self.connection = None;
        }
        result
    }

    fn exchange(&mut self, payload: &[u8]) -> io::Result<Response> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let connection = UnixStream::connect(&self.path)?;
                connection.set_read_timeout(Some(TIMEOUT))?;
                connection.set_write_timeout(Some(TIMEOUT))?;
                self.stream = 0;
                connection
            }
        };
        // A client's stream ids are odd and increasing.
        self.stream = match self.stream {
            0 => 1,
            last => last + 2,
        };
        let request = Request {
            service: SERVICE.into(),
            method: METHOD.into(),
            payload: payload.to_vec(),
            timeout_nano: TIMEOUT.as_nanos() as i64,
            ..Default::default()
        };
        let response = call(&mut connection, self.stream, &request)?;
        self.connection = Some(connection);
        Ok(response)
    }
}
