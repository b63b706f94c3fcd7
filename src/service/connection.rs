//! One connection from containerd: frames in, responses out, and the calls that are parked.
//!
//! Nothing here blocks: the socket is non-blocking, and output that it does not accept is kept and written when epoll
//! reports it writable. So any thread may respond, including the one that publishes exits.

use super::frame::{self, Header, HEADER};
use crate::sync::Mutex;
use crate::sys::epoll::{Epoll, Interest};
use crate::sys::event::Event;
use crate::sys::poll;
use std::any::Any;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The limit of unsent output for a peer that does not read; beyond it the connection is closed.
const UNSENT_MAX: usize = 16 << 20;

/// State shared by the connections of a server.
pub(super) struct Common {
    pub(super) epoll: Epoll,
    /// Raised when a parked call gets a deadline, which may be earlier than the serving thread's next wake-up.
    pub(super) clock: Event,
    /// Set if any call has a deadline.
    pub(super) deadlines: AtomicBool,
}

/// A call in progress, with what the log line needs.
pub(super) struct Call {
    /// `Task.Create`.
    pub(super) name: String,
    /// The container, or `container/exec`.
    pub(super) object: String,
    pub(super) begun: Instant,
    /// When the caller stops waiting.
    pub(super) deadline: Option<Instant>,
    /// For a parked call: dropped with it, such as the registration of a waiter.
    pub(super) keeps: Option<Box<dyn Any + Send>>,
}

impl Call {
    pub(super) fn new(name: String, timeout_nano: i64) -> Self {
        let begun = Instant::now();
        let limit = u64::try_from(timeout_nano).ok().filter(|&nanos| nanos > 0).map(Duration::from_nanos);
        Call {
            name,
            object: String::new(),
            begun,
            deadline: limit.and_then(|limit| begun.checked_add(limit)),
            keeps: None,
        }
    }
}

/// Calls that have exceeded their time limit, by stream.
pub(super) struct Late {
    pub(super) waiting: Vec<(u32, Call)>,
    /// Only the names: a worker has the calls.
    pub(super) at_work: Vec<(u32, String)>,
    /// When the next one will exceed its limit.
    pub(super) next: Option<Instant>,
}

pub(super) struct Connection {
    pub(super) token: u64,
    stream: UnixStream,
    common: Arc<Common>,
    incoming: Mutex<Incoming>,
    outgoing: Mutex<Outgoing>,
    /// Parked calls, which are answered later, by stream.
    waiting: Mutex<BTreeMap<u32, Call>>,
    /// Calls with a time limit that a worker is running, by stream.
    at_work: Mutex<BTreeMap<u32, AtWork>>,
}

/// A call with a time limit, run by a worker.
struct AtWork {
    name: String,
    /// When it is answered without its worker.
    by: Instant,
    /// It has been answered without its worker.
    answered: bool,
}

/// The frame being read.
enum Incoming {
    Header([u8; HEADER], usize),
    Payload(Header, Vec<u8>, usize),
    /// The rest of an oversized payload.
    Discard(Header, usize),
}

struct Outgoing {
    unsent: Vec<u8>,
    /// A thread has the reading side; it re-arms epoll when it is done.
    reading: bool,
    closed: bool,
}

/// The outcome of a read.
pub(super) enum Received {
    Frame(Header, Vec<u8>),
    Oversized(Header),
    /// No complete frame yet.
    Nothing,
    Closed,
}

impl Connection {
    /// Takes a non-blocking stream and registers it.
    pub(super) fn new(stream: UnixStream, token: u64, common: Arc<Common>) -> io::Result<Arc<Self>> {
        common.epoll.add(stream.as_fd(), token, Interest::default())?;
        Ok(Arc::new(Connection {
            token,
            stream,
            common,
            incoming: Mutex::new(Incoming::Header([0; HEADER], 0)),
            outgoing: Mutex::new(Outgoing { unsent: Vec::new(), reading: true, closed: false }),
            waiting: Mutex::default(),
            at_work: Mutex::default(),
        }))
    }

    /// Reads until a frame is complete or the socket is empty.
    pub(super) fn receive(&self) -> Received {
        let mut incoming = self.incoming.lock();
        loop {
            let mut scratch = [0; 4096];
            let buffer = match &mut *incoming {
                Incoming::Header(bytes, have) => &mut bytes[*have..],
                Incoming::Payload(_, bytes, have) => &mut bytes[*have..],
                Incoming::Discard(_, left) => {
                    let some = (*left).min(scratch.len());
                    &mut scratch[..some]
                }
            };
            // An empty payload needs no read; a zero-length read would look like EOF.
            let got = if buffer.is_empty() {
                0
            } else {
                match (&self.stream).read(buffer) {
                    Ok(0) => return Received::Closed,
                    Ok(got) => got,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Received::Nothing,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(_) => return Received::Closed,
                }
            };
            match &mut *incoming {
                Incoming::Header(bytes, have) => {
                    *have += got;
                    if *have == HEADER {
                        let header = Header::parse(*bytes);
                        *incoming = if header.oversized() {
                            Incoming::Discard(header, header.length as usize)
                        } else {
                            Incoming::Payload(header, vec![0; header.length as usize], 0)
                        };
                    }
                }
                Incoming::Payload(header, bytes, have) => {
                    *have += got;
                    if *have == bytes.len() {
                        let received = Received::Frame(*header, std::mem::take(bytes));
                        *incoming = Incoming::Header([0; HEADER], 0);
                        return received;
                    }
                }
                Incoming::Discard(header, left) => {
                    *left -= got;
                    if *left == 0 {
                        let received = Received::Oversized(*header);
                        *incoming = Incoming::Header([0; HEADER], 0);
                        return received;
                    }
                }
            }
        }
    }

    /// Claims the reading side for the thread that received the epoll event.
    pub(super) fn begin_reading(&self) {
        self.outgoing.lock().reading = true;
    }

    /// Releases the reading side: any thread may read the next frame.
    pub(super) fn end_reading(&self) {
        let mut outgoing = self.outgoing.lock();
        outgoing.reading = false;
        self.arm(&outgoing);
    }

    /// Writes the kept output.
    pub(super) fn flush(&self) {
        let mut outgoing = self.outgoing.lock();
        let unsent = std::mem::take(&mut outgoing.unsent);
        self.write(&mut outgoing, &unsent);
    }

    /// Writes the kept output until all is sent, the peer is gone, or `end` is reached.
    pub(super) fn finish(&self, end: Instant) {
        loop {
            self.flush();
            let outgoing = self.outgoing.lock();
            if outgoing.unsent.is_empty() || outgoing.closed {
                return;
            }
            drop(outgoing);
            let interest = Interest { read: false, write: true };
            if !matches!(poll::ready(self.stream.as_fd(), interest, end), Ok(true)) {
                return;
            }
        }
    }

    /// Sends the payload of a response; false if it is too large for the protocol.
    pub(super) fn send(&self, stream: u32, payload: &[u8]) -> bool {
        let Some(bytes) = frame::response(stream, payload) else { return false };
        let mut outgoing = self.outgoing.lock();
        if outgoing.unsent.is_empty() {
            self.write(&mut outgoing, &bytes);
        } else {
            self.keep(&mut outgoing, &bytes);
        }
        true
    }

    fn write(&self, outgoing: &mut Outgoing, mut bytes: &[u8]) {
        while !bytes.is_empty() && !outgoing.closed {
            match (&self.stream).write(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                // The peer is gone; the reading side notices too and cleans up.
                Err(_) => outgoing.closed = true,
            }
        }
        self.keep(outgoing, bytes);
    }

    fn keep(&self, outgoing: &mut Outgoing, bytes: &[u8]) {
        if bytes.is_empty() || outgoing.closed {
            return;
        }
        outgoing.unsent.extend_from_slice(bytes);
        if outgoing.unsent.len() > UNSENT_MAX {
            log::warn!("closed a connection: its peer does not read the responses");
            outgoing.closed = true;
            outgoing.unsent = Vec::new();
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        self.arm(outgoing);
    }

    fn arm(&self, outgoing: &Outgoing) {
        let interest =
            Interest { read: !outgoing.reading, write: !outgoing.unsent.is_empty() && !outgoing.closed };
        // Fails only for a connection that was closed meanwhile.
        let _ = self.common.epoll.arm(self.stream.as_fd(), self.token, interest);
    }

    /// Closes the connection and drops its calls; returns how many waited.
    pub(super) fn close(&self) -> usize {
        let mut outgoing = self.outgoing.lock();
        outgoing.closed = true;
        outgoing.unsent = Vec::new();
        let _ = self.common.epoll.remove(self.stream.as_fd());
        let _ = self.stream.shutdown(Shutdown::Both);
        drop(outgoing);
        self.at_work.lock().clear();
        let calls = std::mem::take(&mut *self.waiting.lock());
        // Dropped outside the lock: the kept values have locks of their own.
        calls.len()
    }

    /// Parks a call to be answered later; returns it if its stream is already in use.
    pub(super) fn park(&self, stream: u32, call: Call) -> Result<(), Call> {
        let mut waiting = self.waiting.lock();
        if waiting.contains_key(&stream) {
            return Err(call);
        }
        let deadline = call.deadline.is_some();
        waiting.insert(stream, call);
        drop(waiting);
        if deadline {
            self.common.deadlines.store(true, Ordering::SeqCst);
            self.common.clock.raise();
        }
        Ok(())
    }

    /// Ties a value to a parked call; drops it now if the call is no longer parked.
    pub(super) fn keep_with(&self, stream: u32, what: Box<dyn Any + Send>) {
        let mut what = Some(what);
        if let Some(call) = self.waiting.lock().get_mut(&stream) {
            call.keeps = what.take();
        }
        drop(what);
    }

    /// Takes a parked call to answer it; None if it has been answered.
    pub(super) fn unpark(&self, stream: u32) -> Option<Call> {
        self.waiting.lock().remove(&stream)
    }

    /// From now on the call is answered at `by` even if its worker hangs.
    pub(super) fn begin(&self, stream: u32, name: &str, by: Instant) {
        let at_work = AtWork { name: name.to_owned(), by, answered: false };
        self.at_work.lock().insert(stream, at_work);
        // The serving thread checks shortly after each frame.
        self.common.deadlines.store(true, Ordering::SeqCst);
    }

    /// The worker is done; false if the call has already been answered.
    pub(super) fn done(&self, stream: u32) -> bool {
        self.at_work.lock().remove(&stream).is_none_or(|at_work| !at_work.answered)
    }

    /// Takes the calls that have exceeded their time limit.
    pub(super) fn late(&self, now: Instant) -> Late {
        let mut waiting = self.waiting.lock();
        let late: Vec<u32> = waiting
            .iter()
            .filter(|(_, call)| call.deadline.is_some_and(|at| at <= now))
            .map(|(&stream, _)| stream)
            .collect();
        let late = late.into_iter().filter_map(|stream| Some((stream, waiting.remove(&stream)?))).collect();
        let mut at_work = Vec::new();
        let mut next = waiting.values().filter_map(|call| call.deadline).min();
        drop(waiting);
        for (stream, call) in self.at_work.lock().iter_mut().filter(|(_, call)| !call.answered) {
            if call.by <= now {
                call.answered = true;
                at_work.push((*stream, call.name.clone()));
            } else {
                next = Some(next.map_or(call.by, |next| next.min(call.by)));
            }
        }
        Late { waiting: late, at_work, next }
    }
}
