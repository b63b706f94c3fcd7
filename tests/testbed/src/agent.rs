//! An agent for `linux.seccomp.listenerPath`: it receives listeners, and answers the calls that they deliver.

use nix::cmsg_space;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{recvmsg, ControlMessageOwned, MsgFlags};
use serde_json::Value;
use std::fs::File;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

// linux/seccomp.h
const NOTIF_RECV: u64 = 0xc050_2100;
const NOTIF_SEND: u64 = 0xc018_2101;
const FLAG_CONTINUE: u32 = 1;

/// A call that waits for its answer.
#[derive(Clone, Debug)]
pub struct Call {
    /// In the agent's pid namespace.
    pub pid: u32,
    pub number: i64,
    arguments: [u64; 6],
}

impl Call {
    /// The string that an argument points to in the caller's memory.
    pub fn text(&self, argument: usize) -> String {
        let mut bytes = vec![0; 256];
        let memory = File::open(format!("/proc/{}/mem", self.pid)).expect("open its memory");
        let length = memory.read_at(&mut bytes, self.arguments[argument]).expect("read its memory");
        let end = bytes[..length].iter().position(|byte| *byte == 0).expect("a string");
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    }

    /// The host's path for one of the caller's paths.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.pid))
    }

    /// The path of a mkdir(2) or a mkdirat(2).
    pub fn directory(&self) -> Option<String> {
        match self.number {
            libc::SYS_mkdir => Some(self.text(0)),
            libc::SYS_mkdirat => Some(self.text(1)),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Answer {
    Value(i64),
    Errno(i32),
    /// The kernel makes the call.
    Continue,
}

/// Makes the directory for the caller; a name that ends in `refused` gets an errno that mkdir(2) never returns.
pub fn emulate(call: &Call) -> Answer {
    match call.directory() {
        Some(path) if path.ends_with("refused") => Answer::Errno(libc::ENOMEDIUM),
        Some(path) => match std::fs::create_dir(call.path(&path)) {
            Ok(()) => Answer::Value(0),
            Err(e) => Answer::Errno(e.raw_os_error().unwrap_or(libc::EIO)),
        },
        None => Answer::Continue,
    }
}

type Decide = Arc<dyn Fn(&Call) -> Answer + Send + Sync>;

/// Answers the calls of one listener until it is dropped, or no process has the filter any more.
pub struct Served {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// The numbers of the calls, in order.
    pub calls: Arc<Mutex<Vec<i64>>>,
}

impl Served {
    pub fn new(listener: OwnedFd, decide: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Self {
        Self::by(listener, Arc::new(decide))
    }

    fn by(listener: OwnedFd, decide: Decide) -> Self {
        let (over, calls) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (ends, told) = (Arc::clone(&over), Arc::clone(&calls));
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::SeqCst) && serve_one(&listener, &*decide, &told) {}
        });
        Served { over, thread: Some(thread), calls }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Returns false at the end.
fn serve_one(listener: &OwnedFd, decide: &dyn Fn(&Call) -> Answer, told: &Mutex<Vec<i64>>) -> bool {
    let mut polled = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::from(20u8)).expect("poll");
    let found = polled[0].revents().unwrap_or(PollFlags::empty());
    if !found.contains(PollFlags::POLLIN) {
        return !found.contains(PollFlags::POLLHUP);
    }
    // SAFETY: integers, for which all-zero bytes are valid; the kernel asks for zeros.
    let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one seccomp_notif into `call`.
    if unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_RECV as libc::Ioctl, &mut call) } < 0 {
        // The caller is gone.
        return true;
    }
    let asked = Call { pid: call.pid, number: call.data.nr.into(), arguments: call.data.args };
    told.lock().expect("no panic").push(asked.number);
    let (val, error, flags) = match decide(&asked) {
        Answer::Value(value) => (value, 0, 0),
        Answer::Errno(errno) => (0, -errno, 0),
        Answer::Continue => (0, 0, FLAG_CONTINUE),
    };
    let answer = libc::seccomp_notif_resp { id: call.id, val, error, flags };
    // SAFETY: the kernel reads one seccomp_notif_resp. The caller may be gone.
    unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SEND as libc::Ioctl, &answer) };
    true
}

/// A server at a path, which is removed with it. `@name` is an abstract socket.
pub struct Agent {
    path: PathBuf,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    states: Receiver<Value>,
}

impl Agent {
    pub fn listen(path: &Path, decide: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Self {
        let decide: Decide = Arc::new(decide);
        Self::take(path, move |stream| {
            let (state, listener) = receive(&stream);
            Some((state, Served::by(listener, Arc::clone(&decide))))
        })
    }

    /// Accepts connections, writes to them, and closes them with all that they carry.
    pub fn garbage(path: &Path) -> Self {
        Self::take(path, |mut stream| {
            let _ = std::io::Write::write_all(&mut stream, b"}{ garbage");
            None
        })
    }

    fn take(
        path: &Path,
        taken: impl Fn(UnixStream) -> Option<(Value, Served)> + Send + Sync + 'static,
    ) -> Self {
        let socket = match path.to_str().and_then(|path| path.strip_prefix('@')) {
            Some(name) => SocketAddr::from_abstract_name(name).and_then(|at| UnixListener::bind_addr(&at)),
            None => UnixListener::bind(path),
        };
        let socket = socket.expect("bind the agent's socket");
        socket.set_nonblocking(true).expect("O_NONBLOCK");
        let over = Arc::new(AtomicBool::new(false));
        let (ends, (tell, states)) = (Arc::clone(&over), channel());
        let thread = std::thread::spawn(move || accept(&socket, &ends, &tell, taken));
        Agent { path: path.into(), over, thread: Some(thread), states }
    }

    /// The next container process state; waits for it.
    #[track_caller]
    pub fn state(&self) -> Value {
        self.states.recv_timeout(crate::patience(10)).expect("a state for the agent")
    }

    /// The next one if it has come.
    pub fn next(&self) -> Option<Value> {
        self.states.try_recv().ok()
    }
}

fn accept(
    socket: &UnixListener,
    over: &AtomicBool,
    tell: &Sender<Value>,
    taken: impl Fn(UnixStream) -> Option<(Value, Served)>,
) {
    let mut served = Vec::new();
    while !over.load(Ordering::SeqCst) {
        let Ok((stream, _)) = socket.accept() else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        stream.set_nonblocking(false).expect("a stream that waits");
        if let Some((state, one)) = taken(stream) {
            served.push(one);
            let _ = tell.send(state);
        }
    }
}

/// Everything until the end of file, and the one descriptor, which comes with the first bytes.
fn receive(stream: &UnixStream) -> (Value, OwnedFd) {
    let (mut text, mut listener) = (Vec::new(), None);
    loop {
        let (mut bytes, mut control) = ([0; 4096], cmsg_space!([RawFd; 4]));
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message =
            recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut control), flags).expect("recvmsg");
        let length = message.bytes;
        for one in message.cmsgs().expect("no truncated message") {
            let ControlMessageOwned::ScmRights(fds) = one else { panic!("{one:?}") };
            assert!(fds.len() == 1 && text.is_empty(), "{fds:?} behind {} bytes", text.len());
            // SAFETY: the kernel has just made it, for us alone.
            listener = Some(unsafe { OwnedFd::from_raw_fd(fds[0]) });
        }
        if length == 0 {
            break;
        }
        text.extend_from_slice(&bytes[..length]);
    }
    (serde_json::from_slice(&text).expect("JSON"), listener.expect("a listener"))
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}
