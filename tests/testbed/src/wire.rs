//! A ttrpc client for the tests: it can send what a well-behaved client would not.

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use protobuf::Message;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use ttrpc::proto::{Code, Request, Response};

pub const TASK_V2: &str = "containerd.task.v2.Task";
pub const TASK_V3: &str = "containerd.task.v3.Task";
pub const SANDBOX: &str = "containerd.runtime.sandbox.v1.Sandbox";
pub const CONTROLLER: &str = "containerd.services.sandbox.v1.Controller";
pub const STORE: &str = "containerd.services.sandbox.v1.Store";

pub const OK: Code = Code::OK;
pub const NF: Code = Code::NOT_FOUND;
pub const FP: Code = Code::FAILED_PRECONDITION;
pub const AE: Code = Code::ALREADY_EXISTS;
pub const UN: Code = Code::UNIMPLEMENTED;
pub const DE: Code = Code::DEADLINE_EXCEEDED;
pub const IA: Code = Code::INVALID_ARGUMENT;
pub const UNAVAILABLE: Code = Code::UNAVAILABLE;

/// An answer that takes longer than this counts as missing.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Wire {
    socket: UnixStream,
    last: u32,
}

/// A status's code and message.
pub type Refusal = (Code, String);

impl Wire {
    pub fn connect(path: &Path) -> Self {
        let socket = UnixStream::connect(path).unwrap_or_else(|e| panic!("connect {path:?}: {e}"));
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Wire { socket, last: 0 }
    }

    pub fn raw(&mut self, stream: u32, kind: u8, flags: u8, payload: &[u8]) {
        self.header(payload.len() as u32, stream, kind, flags);
        self.socket.write_all(payload).unwrap();
    }

    pub fn header(&mut self, length: u32, stream: u32, kind: u8, flags: u8) {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(&[kind, flags]);
        self.socket.write_all(&bytes).unwrap();
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// Sends a request, and returns its stream.
    pub fn ask(&mut self, service: &str, method: &str, message: &impl Message, timeout: Duration) -> u32 {
        self.send(&Request {
            service: service.into(),
            method: method.into(),
            payload: message.write_to_bytes().unwrap(),
            timeout_nano: timeout.as_nanos() as i64,
            ..Default::default()
        })
    }

    /// Sends a request as it is, and returns its stream.
    pub fn send(&mut self, request: &Request) -> u32 {
        self.last = if self.last == 0 { 1 } else { self.last + 2 };
        self.raw(self.last, 1, 0, &request.write_to_bytes().unwrap());
        self.last
    }

    /// Returns the next response with its stream; `None` if the server closed the connection.
    #[expect(clippy::should_implement_trait, reason = "to wait too long fails the test")]
    pub fn next(&mut self) -> Option<(u32, Response)> {
        let mut header = [0; 10];
        match self.socket.read_exact(&mut header) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("no response in {PATIENCE:?}"),
            Err(_) => return None,
        }
        let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        assert_eq!((header[8], header[9]), (2, 0), "type and flags of a response");
        let mut payload = vec![0; number(0) as usize];
        self.socket.read_exact(&mut payload).unwrap();
        Some((number(4), Response::parse_from_bytes(&payload).unwrap()))
    }

    /// Returns whether something arrives within this time, without reading it.
    pub fn ready(&self, time: Duration) -> bool {
        let mut wanted = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut wanted, PollTimeout::try_from(time).unwrap()).unwrap() > 0
    }

    /// Returns whether nothing arrives within this time.
    pub fn silent(&mut self, time: Duration) -> bool {
        self.socket.set_read_timeout(Some(time)).unwrap();
        let mut byte = [0];
        let silent =
            matches!(self.socket.read(&mut byte), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock);
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        silent
    }

    pub fn call<R: Message>(
        &mut self,
        service: &str,
        method: &str,
        message: &impl Message,
    ) -> Result<R, Refusal> {
        let stream = self.ask(service, method, message, Duration::ZERO);
        let (answered, response) = self.next().unwrap_or_else(|| panic!("{method}: the server hung up"));
        assert_eq!(answered, stream, "{method}: the answer to another request");
        decode(response)
    }

    pub fn task<R: Message>(&mut self, method: &str, message: &impl Message) -> Result<R, Refusal> {
        self.call(TASK_V3, method, message)
    }
}

pub fn decode<R: Message>(response: Response) -> Result<R, Refusal> {
    match response.status.into_option() {
        Some(status) if status.code() != Code::OK => Err((status.code(), status.message)),
        _ => Ok(R::parse_from_bytes(&response.payload).unwrap()),
    }
}

pub fn code<T>(answer: Result<T, Refusal>) -> Code {
    answer.err().map_or(Code::OK, |(code, message)| {
        assert!(message.len() > 5, "an error without a sentence: {message:?}");
        code
    })
}
