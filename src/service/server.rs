//! The ttrpc server: one thread reads from all connections, workers respond.
//!
//! ttrpc's own server uses at least six threads per connection, and containerd opens one connection per container. Here
//! the serving thread waits on one epoll set, reads complete requests without blocking and hands them to a worker; it
//! runs no handler, so its stack stays small. Responses are written without blocking too, from any thread. A call that
//! waits for a process occupies no thread at all (see `tasks` and `reply`).

use super::answer::Rest;
use super::connection::{Call, Common, Connection, Received};
use super::frame::Header;
use super::reply::{self, Reply};
use crate::error::{Context, Result};
use crate::sync::Mutex;
use crate::sys::epoll::{Epoll, Interest, Ready};
use crate::sys::event::Event;
use crate::sys::peer;
use crate::tasks::{self, Workers};
use protobuf::Message;
use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};
use ttrpc::proto::{Code, Request, FLAG_REMOTE_OPEN, MESSAGE_TYPE_DATA, MESSAGE_TYPE_REQUEST};

const LISTENER: u64 = 0;
const STOP: u64 = 1;
const SIGNAL: u64 = 2;
const CLOCK: u64 = 3;
const FIRST_CONNECTION: u64 = 16;

/// Calls that never block in the kernel: they are answered even if every long-running worker is busy.
const QUICK: [&str; 15] = [
    "Task.State",
    "Task.Pids",
    "Task.Exec",
    "Task.ResizePty",
    "Task.CloseIO",
    "Task.Kill",
    "Task.Stats",
    "Task.Connect",
    "Task.Wait",
    "Sandbox.Platform",
    "Sandbox.PingSandbox",
    "Sandbox.SandboxStatus",
    "Sandbox.WaitSandbox",
    "Controller.Ping",
    "Shim.About",
];

/// The grace period before a request is answered without its worker, whose own error would be more precise.
const OVERDUE: Duration = Duration::from_millis(400);
/// The time within which a request that was read has been decoded.
const DECODED: Duration = Duration::from_millis(100);
/// How long the server waits at its end for peers to read their responses, such as that to a shutdown.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long peers may take to hang up before the server ends.
const FAREWELL: Duration = Duration::from_millis(500);

/// Responds to a request, parks the reply, or returns the asynchronous rest of the call.
pub(crate) type Handler = Box<dyn Fn(Request, Reply) -> Option<Rest> + Send + Sync>;

/// The action for a caught signal.
type OnSignal = Box<dyn Fn() + Send + Sync>;

/// Decides who may connect.
#[derive(Clone, Copy, Debug)]
pub struct Admission {
    pub uid: u32,
}

impl Admission {
    /// Admits peers with our uid (like the Go shim) in our user namespace.
    pub fn ours() -> Self {
        Admission { uid: peer::effective_uid() }
    }

    fn refusal(self, stream: &UnixStream) -> Option<String> {
        let peer = match peer::peer(stream) {
            Ok(peer) => peer,
            Err(e) => return Some(format!("getsockopt(SO_PEERCRED): {e}")),
        };
        if peer.uid != self.uid {
            return Some(format!("its uid is {}, not {}", peer.uid, self.uid));
        }
        // Root in a container with a user namespace of its own has another uid here, but a process in a container
        // without one that got hold of our socket's path could still unshare(2). Pid 0 means that the peer is not in
        // our pid namespace or one below it, so it is not in a container of ours.
        if peer.pid != 0 {
            let namespace =
                |of: &str| std::fs::metadata(format!("/proc/{of}/ns/user")).map(|m| (m.dev(), m.ino()));
            match (namespace(&peer.pid.to_string()), namespace("self")) {
                (Ok(theirs), Ok(ours)) if theirs != ours => {
                    return Some("it is in another user namespace".to_owned());
                }
                // It has exited (then nobody reads our response), or the kernel has no user namespaces.
                _ => {}
            }
        }
        None
    }
}

/// Stops a server from any thread.
#[derive(Clone)]
pub struct Stopper(Arc<Stop>);

struct Stop {
    wake: Event,
    stopped: AtomicBool,
    /// Let peers hang up first.
    politely: AtomicBool,
}

impl Stopper {
    pub fn new() -> Result<Self> {
        let event = Event::new().context(|| "eventfd to stop the server")?;
        Ok(Stopper(Arc::new(Stop {
            wake: event,
            stopped: AtomicBool::new(false),
            politely: AtomicBool::new(false),
        })))
    }

    /// Makes [`Server::serve`] return.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        self.0.wake.raise();
    }

    /// Stops the server after the response to a shutdown, letting the peer read it and hang up first. (A Go client that
    /// reads EOF right after a response may take it for the end of the call.)
    pub fn stop_after_peers(&self) {
        self.0.politely.store(true, Ordering::SeqCst);
        self.stop();
    }

    pub(crate) fn stopped(&self) -> bool {
        self.0.stopped.load(Ordering::SeqCst)
    }
}

pub struct Server {
    listener: UnixListener,
    common: Arc<Common>,
    stopper: Stopper,
    connections: Mutex<Connections>,
    workers: Workers,
    admission: Admission,
    handler: Handler,
    signals: Option<(&'static Event, OnSignal)>,
    looks: Option<OnLook>,
}

/// What else the server has to do: call again at a certain time, and run the rest on a worker.
#[derive(Default)]
pub(crate) struct Look {
    pub again: Option<Instant>,
    pub rest: Option<Rest>,
}

/// The argument tells whether any peer is connected.
type OnLook = Box<dyn Fn(bool) -> Look + Send + Sync>;

#[derive(Default)]
struct Connections {
    next: u64,
    open: HashMap<u64, Arc<Connection>>,
}

impl Server {
    pub fn new(
        listener: UnixListener,
        admission: Admission,
        stopper: Stopper,
        handler: Handler,
    ) -> Result<Self> {
        let what = || "set up the server's epoll";
        listener.set_nonblocking(true).context(what)?;
        let epoll = Epoll::new().context(what)?;
        epoll.add(listener.as_fd(), LISTENER, Interest::READ).context(what)?;
        epoll.add(stopper.0.wake.as_fd(), STOP, Interest::READ).context(what)?;
        let clock = Event::new().context(what)?;
        epoll.add(clock.as_fd(), CLOCK, Interest::READ).context(what)?;
        Ok(Server {
            listener,
            common: Arc::new(Common { epoll, clock, deadlines: AtomicBool::new(false) }),
            stopper,
            connections: Mutex::default(),
            workers: Workers::default(),
            admission,
            handler,
            signals: None,
            looks: None,
        })
    }

    /// Calls `act` on a server thread when `event` is raised (by a signal handler).
    pub(crate) fn on_signal(
        &mut self,
        event: &'static Event,
        act: impl Fn() + Send + Sync + 'static,
    ) -> Result<()> {
        self.common
            .epoll
            .add(event.as_fd(), SIGNAL, Interest::READ)
            .context(|| "set up the server's signals")?;
        self.signals = Some((event, Box::new(act)));
        Ok(())
    }

    /// Calls `look` shortly after each request, and at the time that it returns.
    pub(crate) fn on_look(&mut self, look: impl Fn(bool) -> Look + Send + Sync + 'static) {
        self.looks = Some(Box::new(look));
    }

    fn look(&self) -> Option<Instant> {
        let peers = !self.connections.lock().open.is_empty();
        let Look { again, rest } = self.looks.as_ref()?(peers);
        if let Some(rest) = rest {
            let workers = self.workers.clone();
            self.workers.give_long(Box::new(move || tasks::run(&workers, rest)));
        }
        again
    }

    /// Serves on the calling thread until its [`Stopper`] stops it.
    pub fn serve(self: &Arc<Self>) {
        // A request that was just read may have a time limit; by this time it has been decoded.
        let mut decoded: Option<Instant> = None;
        while !self.stopper.stopped() {
            let now = Instant::now();
            decoded = decoded.filter(|at| *at > now);
            let due = self.expire(now).into_iter().chain(self.look()).chain(decoded).min();
            let due = due.map(|at| at.saturating_duration_since(now));
            match self.common.epoll.wait(due) {
                Ok(Some(ready)) => {
                    if ready.token >= FIRST_CONNECTION {
                        decoded = Some(Instant::now() + DECODED);
                    }
                    self.take(ready);
                }
                Ok(None) => {}
                Err(e) => {
                    log::error!("epoll_wait(): {e}");
                    break;
                }
            }
        }
        let end = Instant::now() + LAST_WORDS;
        if self.stopper.0.politely.load(Ordering::SeqCst) {
            self.wait_for_peers(Instant::now() + FAREWELL);
        }
        for (_, connection) in self.connections.lock().open.drain() {
            connection.finish(end);
            connection.close();
        }
    }

    /// Waits until all peers have hung up, or `end` is reached.
    fn wait_for_peers(self: &Arc<Self>, end: Instant) {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.connections.lock().open.is_empty() {
                return;
            }
            match self.common.epoll.wait(Some(left)) {
                // A new client is meant for a successor and finds out that this server is gone.
                Ok(Some(ready)) if ready.token == LISTENER => {}
                Ok(Some(ready)) => self.take(ready),
                Ok(None) => {}
                Err(e) => return log::error!("epoll_wait(): {e}"),
            }
        }
    }

    fn take(self: &Arc<Self>, ready: Ready) {
        match ready.token {
            LISTENER => {
                self.accept();
                let _ = self.common.epoll.arm(self.listener.as_fd(), LISTENER, Interest::READ);
            }
            STOP => {}
            SIGNAL => {
                if let Some((event, act)) = &self.signals {
                    event.clear();
                    act();
                    let _ = self.common.epoll.arm(event.as_fd(), SIGNAL, Interest::READ);
                }
            }
            CLOCK => {
                self.common.clock.clear();
                let _ = self.common.epoll.arm(self.common.clock.as_fd(), CLOCK, Interest::READ);
            }
            token => {
                let connection = self.connections.lock().open.get(&token).cloned();
                let Some(connection) = connection else { return };
                if let Some((header, payload)) = self.read(&connection, ready) {
                    let (server, read) = (self.clone(), Instant::now());
                    self.workers.give(Box::new(move || server.dispatch(&connection, header, &payload, read)));
                }
            }
        }
    }

    fn accept(&self) {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            Err(e) => {
                // ECONNABORTED is the peer's fault; EMFILE would spin, so give other connections a moment to close.
                log::warn!("could not accept a connection: {e}");
                std::thread::sleep(Duration::from_millis(10));
                return;
            }
        };
        if let Some(why) = self.admission.refusal(&stream) {
            log::warn!("refused a connection: {why}");
            return;
        }
        if let Err(e) = stream.set_nonblocking(true) {
            log::warn!("could not make a connection non-blocking: {e}");
            return;
        }
        let mut connections = self.connections.lock();
        let token = FIRST_CONNECTION + connections.next;
        connections.next += 1;
        match Connection::new(stream, token, self.common.clone()) {
            Ok(connection) => {
                connections.open.insert(token, connection.clone());
                drop(connections);
                connection.end_reading();
            }
            Err(e) => log::warn!("could not register a connection with epoll: {e}"),
        }
    }

    fn read(&self, connection: &Arc<Connection>, ready: Ready) -> Option<(Header, Vec<u8>)> {
        connection.begin_reading();
        if ready.write {
            connection.flush();
        }
        if !ready.read {
            connection.end_reading();
            return None;
        }
        match connection.receive() {
            Received::Nothing => connection.end_reading(),
            Received::Closed => {
                self.connections.lock().open.remove(&connection.token);
                if connection.close() > 0 {
                    // A worker returns free memory to the kernel when it ends.
                    self.workers.give(Box::new(|| {}));
                }
            }
            Received::Oversized(header) => {
                let text = format!("a message of {} bytes is larger than the protocol allows", header.length);
                self.reply(connection, header, "?", 0).refuse(Code::RESOURCE_EXHAUSTED, text);
                connection.end_reading();
            }
            Received::Frame(header, payload) => {
                connection.end_reading();
                return Some((header, payload));
            }
        }
        None
    }

    fn reply(&self, connection: &Arc<Connection>, header: Header, name: &str, timeout_nano: i64) -> Reply {
        let call = Call::new(name.to_owned(), timeout_nano);
        Reply::new(connection.clone(), header.stream, call)
    }

    fn dispatch(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        header: Header,
        payload: &[u8],
        read: Instant,
    ) {
        let refuse = |code, text: &str| self.reply(connection, header, "?", 0).refuse(code, text);
        match header.kind {
            MESSAGE_TYPE_REQUEST => {}
            MESSAGE_TYPE_DATA => return refuse(Code::UNIMPLEMENTED, "streams are not implemented"),
            // Not a request, so there is nothing to respond to.
            _ => return log::warn!("ignored a frame of type {}", header.kind),
        }
        if header.flags & FLAG_REMOTE_OPEN != 0 {
            return refuse(Code::UNIMPLEMENTED, "streams are not implemented");
        }
        if header.stream.is_multiple_of(2) {
            return refuse(Code::INVALID_ARGUMENT, "the stream id of a request must be odd");
        }
        let request = match Request::parse_from_bytes(payload) {
            Ok(request) => request,
            Err(e) => return refuse(Code::INVALID_ARGUMENT, &format!("decode the request: {e}")),
        };
        let service = request.service.rsplit('.').next().unwrap_or_default();
        let name = format!("{service}.{}", request.method);
        let reply = self.reply(connection, header, &name, request.timeout_nano);
        if QUICK.contains(&name.as_str()) {
            return self.handle(request, reply);
        }
        if let Some(deadline) = reply.deadline() {
            connection.begin(header.stream, &name, deadline + OVERDUE);
            // All workers were busy, and the serving thread may have checked already.
            if read.elapsed() > DECODED / 2 {
                self.common.clock.raise();
            }
        }
        let server = self.clone();
        self.workers.long(Box::new(move || server.handle(request, reply)));
    }

    fn handle(&self, request: Request, reply: Reply) {
        // Unwinding drops the reply, which responds; the panic hook has logged the location.
        let rest = catch_unwind(AssertUnwindSafe(|| (self.handler)(request, reply)));
        if let Ok(Some(rest)) = rest {
            tasks::run(&self.workers, rest);
        }
    }

    /// Answers the calls that have exceeded their time limit; returns when the next one will.
    fn expire(&self, now: Instant) -> Option<Instant> {
        if !self.common.deadlines.load(Ordering::SeqCst) {
            return None;
        }
        self.common.deadlines.store(false, Ordering::SeqCst);
        let open: Vec<_> = self.connections.lock().open.values().cloned().collect();
        let next = open.iter().filter_map(|connection| reply::expire(connection, now)).min();
        if next.is_some() {
            self.common.deadlines.store(true, Ordering::SeqCst);
        }
        next
    }
}
