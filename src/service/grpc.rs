//! A single gRPC call to containerd: bytes in, bytes or a status out.
//!
//! The only user (the Store) is rarely called, so nothing outlives a call: each opens a connection of its own and waits
//! like every other request. No runtime, no thread, no stale connection after a restart of containerd. Source:
//! github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md.

use crate::error;
use crate::sys::epoll::Interest;
use crate::tasks;
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::Reason;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use protobuf::Enum;
use std::future::{poll_fn, Future};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::{pin, Pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use ttrpc::proto::Code;

/// containerd's limit for a message in either direction.
const MESSAGE_MAX: usize = 16 << 20;
/// The prefix of a message: the compression flag and the length.
const PREFIX: usize = 5;

/// An unsuccessful response.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) code: Code,
    pub(super) message: String,
}

fn status(code: Code, message: impl Into<String>) -> Status {
    Status { code, message: message.into() }
}

pub(super) struct Call<'a> {
    /// `/containerd.services.sandbox.v1.Store/Get`.
    pub(super) path: String,
    pub(super) namespace: &'a str,
    pub(super) payload: &'a [u8],
    pub(super) deadline: Instant,
}

/// The address where containerd listens.
pub(super) struct Peer {
    socket: PathBuf,
}

impl Peer {
    /// `address` is a path, with or without `unix://`; empty if it is not known.
    pub(super) fn new(address: &str) -> Self {
        Peer { socket: address.strip_prefix("unix://").unwrap_or(address).into() }
    }

    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Vec<u8>, Status> {
        if self.socket == Path::new("") {
            return Err(status(
                Code::UNAVAILABLE,
                "the shim was given no address of containerd's gRPC socket",
            ));
        }
        let begun = Instant::now();
        let late = || {
            let limit = call.deadline.saturating_duration_since(begun).as_secs_f32();
            status(Code::DEADLINE_EXCEEDED, format!("containerd has not answered within {limit:.1} s"))
        };
        let stream = tasks::connect(&self.socket, call.deadline).await.map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => late(),
            _ => status(
                Code::UNAVAILABLE,
                format!("containerd is away: connect({:?}): {}", self.socket, error::words(&e)),
            ),
        })?;
        let full = AtomicBool::new(false);
        let exchange = exchange(Socket { stream: &stream, full: &full }, call);
        drive(exchange, &stream, &full, call.deadline).await.unwrap_or_else(|| Err(late()))
    }
}

/// The stream as h2 expects it.
struct Socket<'a> {
    stream: &'a UnixStream,
    /// Set if the last write found no room.
    full: &'a AtomicBool,
}

fn ready<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

impl AsyncRead for Socket<'_> {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready(self.get_mut().stream.read(into.initialize_unfilled())).map_ok(|got| into.advance(got))
    }
}

impl AsyncWrite for Socket<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready(this.stream.write(bytes));
        this.full.store(written.is_pending(), Ordering::SeqCst);
        written
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Set if one part of the future has woken another.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Runs `future`, which waits for nothing but `stream`; None if the deadline has passed.
async fn drive<T>(
    future: impl Future<Output = T>,
    stream: &UnixStream,
    full: &AtomicBool,
    deadline: Instant,
) -> Option<T> {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut future = pin!(future);
    loop {
        woken.0.store(false, Ordering::SeqCst);
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(done);
        }
        let again = woken.0.load(Ordering::SeqCst) && Instant::now() < deadline;
        let interest = Interest { read: true, write: full.load(Ordering::SeqCst) };
        if !again && !matches!(tasks::ready(stream.as_fd(), interest, deadline).await, Ok(true)) {
            return None;
        }
    }
}

async fn exchange(socket: Socket<'_>, call: &Call<'_>) -> Result<Vec<u8>, Status> {
    let mut client = h2::client::Builder::new();
    let (sender, connection) = client.enable_push(false).handshake(socket).await.map_err(broken)?;
    let (mut answer, mut connection) = (pin!(unary(sender, call)), pin!(connection));
    poll_fn(|context| match connection.as_mut().poll(context) {
        Poll::Pending => answer.as_mut().poll(context),
        // Whatever the response waits for has arrived by now, or never will.
        Poll::Ready(ended) => match (answer.as_mut().poll(context), ended) {
            (Poll::Pending, Err(e)) => Poll::Ready(Err(broken(e))),
            (Poll::Pending, Ok(())) => Poll::Ready(Err(status(Code::UNAVAILABLE, "containerd hung up"))),
            (answer, _) => answer,
        },
    })
    .await
}

async fn unary(sender: SendRequest<Bytes>, call: &Call<'_>) -> Result<Vec<u8>, Status> {
    let mut sender = sender.ready().await.map_err(broken)?;
    let (response, mut body) = sender.send_request(request(call)?, false).map_err(broken)?;
    let mut frame = BytesMut::with_capacity(PREFIX + call.payload.len());
    frame.put_u8(0);
    frame.put_u32(call.payload.len() as u32);
    frame.put_slice(call.payload);
    body.send_data(frame.freeze(), true).map_err(broken)?;
    let (head, mut body) = response.await.map_err(broken)?.into_parts();
    let mut frame = Vec::new();
    while let Some(part) = body.data().await {
        let part = part.map_err(broken)?;
        body.flow_control().release_capacity(part.len()).map_err(broken)?;
        if frame.len() + part.len() > PREFIX + MESSAGE_MAX {
            let text = format!("containerd's answer is larger than {MESSAGE_MAX} bytes");
            return Err(status(Code::RESOURCE_EXHAUSTED, text));
        }
        frame.extend_from_slice(&part);
    }
    // A response without a message carries its status in the initial headers.
    let trailers = body.trailers().await.map_err(broken)?.unwrap_or_else(|| head.headers.clone());
    verdict(head.status, &trailers)?;
    message(frame)
}

fn request(call: &Call<'_>) -> Result<Request<()>, Status> {
    let namespace = HeaderValue::from_str(call.namespace).map_err(|_| {
        let text = format!("the namespace {:?} has a character that no header can have", call.namespace);
        status(Code::INVALID_ARGUMENT, text)
    })?;
    let left = call.deadline.saturating_duration_since(Instant::now());
    // The protocol allows at most eight digits.
    let timeout = format!("{}m", left.as_millis().clamp(1, 99_999_999));
    Request::post(format!("http://localhost{}", call.path))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", timeout)
        .header("user-agent", concat!("shoal/", env!("CARGO_PKG_VERSION")))
        .header("containerd-namespace", namespace)
        .body(())
        .map_err(|e| status(Code::INTERNAL, format!("a request to containerd: {e}")))
}

fn verdict(http: StatusCode, trailers: &HeaderMap) -> Result<(), Status> {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status").map(str::parse::<i32>) {
        Some(Ok(0)) => Ok(()),
        Some(Ok(number)) => {
            let code = Code::from_i32(number).unwrap_or(Code::UNKNOWN);
            Err(status(code, unescaped(text("grpc-message").unwrap_or_default())))
        }
        _ => Err(status(Code::UNKNOWN, format!("containerd answered {http} without a gRPC status"))),
    }
}

/// Decodes a status message, in which bytes not allowed in a header are written as `%XX`.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    while let [first, after @ ..] = rest {
        let escape = match (first, after) {
            (b'%', [high, low, after @ ..]) => digit(*high).zip(digit(*low)).zip(Some(after)),
            _ => None,
        };
        let byte;
        (byte, rest) = match escape {
            Some(((high, low), after)) => ((high << 4 | low) as u8, after),
            None => (*first, after),
        };
        bytes.push(byte);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The only message of a successful response.
fn message(mut frame: Vec<u8>) -> Result<Vec<u8>, Status> {
    let wrong = |what: &str| Err(status(Code::INTERNAL, format!("containerd's answer {what}")));
    match frame.get(..PREFIX) {
        None => wrong("has no message"),
        Some([0, length @ ..]) if length == ((frame.len() - PREFIX) as u32).to_be_bytes() => {
            frame.drain(..PREFIX);
            Ok(frame)
        }
        Some([0, ..]) => wrong("has another length than it says"),
        Some(_) => wrong("is compressed"),
    }
}

fn broken(e: h2::Error) -> Status {
    let code = match e.reason() {
        None | Some(Reason::REFUSED_STREAM) => Code::UNAVAILABLE,
        Some(_) if e.is_go_away() => Code::UNAVAILABLE,
        Some(Reason::CANCEL) => Code::CANCELLED,
        Some(Reason::ENHANCE_YOUR_CALM) => Code::RESOURCE_EXHAUSTED,
        Some(_) => Code::INTERNAL,
    };
    status(code, format!("the connection to containerd: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_s_text_has_its_bytes_back() {
        for (escaped, text) in [
            ("a%20b", "a b"),
            ("%C3%A9", "é"),
            ("100%", "100%"),
            ("%zz%2", "%zz%2"),
            ("%+1", "%+1"),
            ("", ""),
        ] {
            assert_eq!(unescaped(escaped), text);
        }
    }

    #[test]
    fn only_one_whole_message_is_an_answer() {
        assert_eq!(message(vec![0, 0, 0, 0, 2, 7, 8]).unwrap(), [7, 8]);
        assert_eq!(message(vec![0; 5]).unwrap(), [0; 0]);
        for bad in [&[][..], &[0, 0, 0, 0], &[0, 0, 0, 0, 3, 7], &[1, 0, 0, 0, 1, 7], &[0, 0, 0, 0, 0, 7]] {
            assert!(message(bad.to_vec()).is_err(), "{bad:?}");
        }
    }
}
