//! A filesystem that does not answer: a server on /dev/fuse (include/uapi/linux/fuse.h) that behaves like a network
//! filesystem whose server is gone.
//!
//! The beginning of a name says what the file does:
//! * `hang`: its lookup is not answered;
//! * `passwd`: a file whose open is not answered;
//! * `slow`: a program whose read is not answered;
//! * `fifo`: one whose change of owner is not answered;
//! * `flush`: a file whose close is not answered, unless a process's first thread closes it;
//! * `dir`: a directory like the root;
//! * `dir-mkdir`: one in which mkdir(2) is not answered.
//!
//! A process that waits for a directory's lock, for a page, or for the lookup of a name that another process already
//! waits for cannot be killed, whatever this server does. So tests give each process a directory and a name of its
//! own.

use nix::mount::{mount, umount2, MntFlags, MsFlags};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;

/// What happens to a process that waits for the filesystem and is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// It ends.
    UntilKilled,
    /// It stays as long as the server does: a request that was read from the kernel must be answered.
    ForEver,
}

pub struct Fuse {
    pub path: PathBuf,
    stop: Arc<AtomicBool>,
    held: Arc<AtomicUsize>,
    server: Option<JoinHandle<()>>,
}

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const MKDIR: u32 = 9;
const OPEN: u32 = 14;
const READ: u32 = 15;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const RELEASEDIR: u32 = 29;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

const IN_HEADER: usize = 40;

/// The root's inode number; other inodes have numbers derived from their names.
const ROOT: u64 = 1;

struct Request {
    operation: u32,
    unique: u64,
    node: u64,
    pid: u32,
    body: Vec<u8>,
}

impl Fuse {
    /// Mounts a filesystem at a new directory, in the mount namespace of this thread.
    pub fn mount(path: &Path, waits: Waits) -> Fuse {
        std::fs::create_dir_all(path).unwrap();
        let mut device = OpenOptions::new();
        // Non-blocking: a request that was ready to be read is gone if its process has ended meanwhile.
        let device = device.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        mount(Some("hang"), path, Some("fuse.hang"), MsFlags::empty(), Some(options.as_str()))
            .unwrap_or_else(|e| panic!("mount fuse: {e}"));
        let (stop, held) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stops, holds) = (stop.clone(), held.clone());
        let server = std::thread::spawn(move || serve(device, waits, &stops, &holds));
        Fuse { path: path.to_owned(), stop, held, server: Some(server) }
    }

    /// Returns how many requests wait.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }

    /// Stops the server: whoever waits gets an error.
    pub fn kill(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(server) = self.server.take() {
            server.join().expect("the server of the filesystem");
            umount2(&self.path, MntFlags::MNT_DETACH).unwrap();
        }
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        self.kill();
    }
}

fn serve(mut device: File, waits: Waits, stop: &AtomicBool, held: &AtomicUsize) {
    let mut waiting: Vec<Request> = Vec::new();
    let mut nodes = Nodes::default();
    let mut buffer = vec![0; 256 << 10];
    while !stop.load(Ordering::SeqCst) {
        let mut wanted = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut wanted, PollTimeout::from(20u8)).unwrap_or(0) > 0;
        if waits == Waits::UntilKilled {
            waiting.retain(|request| {
                let goes = is_killed(request.pid);
                if goes {
                    answer(&mut device, request.unique, Err(libc::EINTR));
                }
                !goes
            });
        }
        if ready {
            let Ok(length) = device.read(&mut buffer) else { continue };
            let request = parse(&buffer[..length]);
            waiting.extend(request.and_then(|request| nodes.handle(&mut device, request)));
        }
        held.store(waiting.len(), Ordering::SeqCst);
    }
}

/// Returns whether a SIGKILL is pending for the thread.
fn is_killed(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = |line: &str| {
        let mask = line.strip_prefix("SigPnd:").or(line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    };
    status.lines().filter_map(mask).any(|mask| mask & (1 << (libc::SIGKILL - 1)) != 0)
}

fn is_first_thread(tid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    status.lines().any(|line| line == format!("Tgid:\t{tid}"))
}

fn parse(bytes: &[u8]) -> Option<Request> {
    let u32_at = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    Some(Request {
        operation: u32_at(4)?,
        unique: u64_at(8)?,
        node: u64_at(16)?,
        pid: u32_at(32)?,
        body: bytes.get(IN_HEADER..)?.to_vec(),
    })
}

#[derive(Default)]
struct Nodes(Vec<Vec<u8>>);

impl Nodes {
    fn number(&mut self, name: &[u8]) -> u64 {
        let known = self.0.iter().position(|known| known == name).unwrap_or_else(|| {
            self.0.push(name.to_vec());
            self.0.len() - 1
        });
        known as u64 + ROOT + 1
    }

    fn begins(&self, node: u64, with: &[u8]) -> bool {
        let at = node.checked_sub(ROOT + 1).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.0.get(at)).is_some_and(|name| name.starts_with(with))
    }

    /// Answers the request, or returns it if it is one that is never answered.
    fn handle(&mut self, device: &mut File, request: Request) -> Option<Request> {
        let result = match request.operation {
            INIT => Ok(started()),
            LOOKUP => match request.body.split(|byte| *byte == 0).next().unwrap_or_default() {
                name if name.starts_with(b"hang") => return Some(request),
                name if [&b"dir"[..], b"slow", b"passwd", b"fifo", b"flush"]
                    .iter()
                    .any(|known| name.starts_with(known)) =>
                {
                    let node = self.number(name);
                    Ok([node.to_ne_bytes().to_vec(), vec![0; 32], self.attributes(node)].concat())
                }
                _ => Err(libc::ENOENT),
            },
            OPEN if self.begins(request.node, b"passwd") => return Some(request),
            MKDIR if self.begins(request.node, b"dir-mkdir") => return Some(request),
            SETATTR if self.begins(request.node, b"fifo") => return Some(request),
            FLUSH if self.begins(request.node, b"flush") && !is_first_thread(request.pid) => {
                return Some(request)
            }
            READ => return Some(request),
            GETATTR => Ok([vec![0; 16], self.attributes(request.node)].concat()),
            OPEN | OPENDIR => Ok(vec![0; 16]),
            READDIR | FLUSH | RELEASE | RELEASEDIR => Ok(Vec::new()),
            STATFS => Ok(vec![0; 80]),
            FORGET | BATCH_FORGET | INTERRUPT => return None,
            _ => Err(libc::ENOSYS),
        };
        answer(device, request.unique, result);
        None
    }

    /// Encodes a `fuse_attr`.
    fn attributes(&self, node: u64) -> Vec<u8> {
        let kinds: [(&[u8], u32); 4] = [
            (b"slow", libc::S_IFREG),
            (b"passwd", libc::S_IFREG),
            (b"flush", libc::S_IFREG),
            (b"fifo", libc::S_IFIFO),
        ];
        let kind = kinds.iter().find(|(name, _)| self.begins(node, name)).map(|(_, kind)| *kind);
        let mode = 0o755 | kind.unwrap_or(libc::S_IFDIR);
        let mut body = node.to_ne_bytes().to_vec();
        body.extend_from_slice(&4096u64.to_ne_bytes());
        body.resize(60, 0);
        for number in [mode, 2] {
            body.extend_from_slice(&number.to_ne_bytes());
        }
        body.resize(88, 0);
        body
    }
}

fn answer(device: &mut File, unique: u64, result: Result<Vec<u8>, i32>) {
    let (error, body) = result.map_or_else(|errno| (-errno, Vec::new()), |body| (0, body));
    let mut bytes = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&error.to_ne_bytes());
    bytes.extend_from_slice(&unique.to_ne_bytes());
    bytes.extend_from_slice(&body);
    let _ = device.write_all(&bytes); // whoever asked may be gone
}

/// Encodes a `fuse_init_out` of protocol 7.31. With FUSE_PARALLEL_DIROPS, a lookup that hangs does not block its
/// whole directory.
fn started() -> Vec<u8> {
    let mut body = Vec::new();
    for number in [7u32, 31, 0, 1 << 18, 0, 128 << 10, 1, 0] {
        body.extend_from_slice(&number.to_ne_bytes());
    }
    body.resize(64, 0);
    body
}
