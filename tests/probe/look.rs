//! What a process learns of another one through its directory in /proc: from within the same container, and, with the
//! same words, from the host.

use serde_json::{json, Map, Value};
use std::fs::{metadata, read, read_dir, read_link, File, OpenOptions};
use std::io::{Error, IoSliceMut};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// The beginning of a test's secret, each byte one higher: the text itself is in no program, so wherever it is found
/// in memory, a secret is.
const SHIFTED: &[u8] = b"QMBOUFE.";

/// The maximum that is read of one process.
const MOST: usize = 256 << 20;

/// What a process that is not in its container could find on the host.
pub struct Planted<'a> {
    pub file: &'a str,
    pub socket: &'a str,
    pub port: u16,
}

/// State and start time of a process, which tell whether two looks are at the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    pub name: String,
    pub state: char,
    pub start: u64,
}

pub fn stat(pid: u32) -> Option<Stat> {
    let text = read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    let (head, tail) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = tail.split(' ').collect();
    Some(Stat {
        name: head.split_once('(')?.1.to_owned(),
        state: fields.first()?.chars().next()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

/// Examines one process. A refused answer is `{"error": ERRNO}`.
pub fn at(pid: u32, planted: &Planted<'_>) -> Value {
    let of = |file: &str| format!("/proc/{pid}/{file}");
    let before = stat(pid);
    let root_file = File::open(of("root") + planted.file);
    let (mapped, writable) = maps(pid);
    let mut look = json!({
        "pid": pid,
        "root": place(&of("root")),
        "host_file": told(root_file.map(|_| "opened".into())),
        "cwd": place(&of("cwd")),
        "exe": told(read_link(of("exe")).map(text)),
        "exe_for_writing": told(OpenOptions::new().write(true).open(of("exe")).map(|_| "opened".into())),
        "fd": links(&of("fd")),
        "ns": links(&of("ns")),
        "root_mount": told(read(of("mountinfo")).map(|all| root_mount(&all).into())),
        "host_socket": names(&of("net/unix"), planted.socket),
        "host_port": names(&of("net/tcp"), &format!(":{:04X} 00000000:0000 0A", planted.port)),
        "environ": strings(&of("environ")),
        "cmdline": strings(&of("cmdline")),
        "status": status(&of("status")),
        "cgroup": told(read(of("cgroup")).map(|all| String::from_utf8_lossy(&all).into())),
        "maps": mapped,
        "writable_kib": writable / 1024,
        "vm_readv": readv(pid),
    });
    let (bytes, secrets) = search(pid);
    look["mem"] = bytes;
    look["secrets"] = secrets;
    let after = stat(pid);
    // A running process may have become another program between two of these answers.
    let stopped = |stat: &Option<Stat>| stat.as_ref().is_some_and(|stat| matches!(stat.state, 'T' | 't'));
    look["stopped"] = (stopped(&before) && before == after).into();
    look["name"] = before.map(|stat| stat.name).into();
    look
}

fn told(answer: std::io::Result<Value>) -> Value {
    answer.unwrap_or_else(|e| json!({ "error": errno(&e) }))
}

fn errno(e: &Error) -> String {
    e.raw_os_error()
        .map_or_else(|| e.to_string(), |number| format!("{:?}", nix::errno::Errno::from_raw(number)))
}

fn text(path: impl AsRef<Path>) -> Value {
    path.as_ref().to_string_lossy().into()
}

/// Identifies a directory by its inode: the link's text depends on the reader.
pub fn place(link: &str) -> Value {
    told(metadata(link).map(|about| format!("{}:{}", about.dev(), about.ino()).into()))
}

fn links(folder: &str) -> Value {
    let each = |entry: std::fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        (name, told(read_link(entry.path()).map(text)))
    };
    told(read_dir(folder).map(|listing| Value::Object(listing.flatten().map(each).collect())))
}

/// Returns the device, root, type and source of the topmost mount on `/`.
pub fn root_mount(mountinfo: &[u8]) -> String {
    let all = String::from_utf8_lossy(mountinfo);
    let mut found = String::new();
    for line in all.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let dash = fields.iter().position(|field| *field == "-");
        if let (Some(&device), Some(&root), Some(&"/"), Some(dash)) =
            (fields.get(2), fields.get(3), fields.get(4), dash)
        {
            found = format!("{device} {root} {}", fields[dash + 1..].get(..2).unwrap_or_default().join(" "));
        }
    }
    found
}

/// Returns whether a file of /proc contains these words.
fn names(path: &str, words: &str) -> Value {
    told(read(path).map(|all| String::from_utf8_lossy(&all).contains(words).into()))
}

fn strings(path: &str) -> Value {
    let split = |all: Vec<u8>| {
        let words = all.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        words.map(|word| Value::from(String::from_utf8_lossy(word))).collect()
    };
    told(read(path).map(split))
}

fn status(path: &str) -> Value {
    const KEYS: &[&str] =
        &["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "Seccomp", "NoNewPrivs", "Uid", "Gid", "Groups"];
    let pick = |all: Vec<u8>| {
        let all = String::from_utf8_lossy(&all).into_owned();
        let pairs = all.lines().filter_map(|line| line.split_once(':')).filter(|(key, _)| KEYS.contains(key));
        let words = |value: &str| value.split_whitespace().collect::<Vec<_>>().join(" ");
        Value::Object(pairs.map(|(key, value)| (key.to_owned(), words(value).into())).collect::<Map<_, _>>())
    };
    told(read(path).map(pick))
}

struct Mapping {
    start: u64,
    end: u64,
    readable: bool,
    writable: bool,
    name: String,
}

fn mappings(pid: u32) -> std::io::Result<Vec<Mapping>> {
    let all = read(format!("/proc/{pid}/maps"))?;
    let parse = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        Some(Mapping {
            start: u64::from_str_radix(start, 16).ok()?,
            end: u64::from_str_radix(end, 16).ok()?,
            readable: rest.starts_with('r'),
            writable: rest.get(1..2) == Some("w"),
            name: rest.splitn(5, ' ').nth(4).unwrap_or("").trim().to_owned(),
        })
    };
    Ok(String::from_utf8_lossy(&all).lines().filter_map(parse).collect())
}

/// Returns the names of the mappings, and the size of the writable ones. Shared memory counts: the shim has it too.
fn maps(pid: u32) -> (Value, u64) {
    let mut writable = 0;
    let names = mappings(pid).map(|all| {
        writable = all.iter().filter(|mapping| mapping.writable).map(|m| m.end - m.start).sum();
        let show = |m: &Mapping| {
            format!("{:x}-{:x} {} {}", m.start, m.end, if m.writable { "rw" } else { "r" }, m.name)
        };
        all.iter().map(show).collect()
    });
    (told(names), writable)
}

/// Returns how much of the memory can be read, and the secrets in it.
fn search(pid: u32) -> (Value, Value) {
    let memory = File::open(format!("/proc/{pid}/mem"));
    let (memory, all) = match (memory, mappings(pid)) {
        (Ok(memory), Ok(all)) => (memory, all),
        (Err(e), _) | (_, Err(e)) => return (json!({ "error": errno(&e) }), json!([])),
    };
    let needle: Vec<u8> = SHIFTED.iter().map(|byte| byte - 1).collect();
    let mut secrets: Vec<String> = Vec::new();
    let mut total = 0;
    let mut buffer = vec![0; 1 << 20];
    for mapping in all.iter().filter(|mapping| mapping.readable && !mapping.name.starts_with("[v")) {
        let mut from = mapping.start;
        while from < mapping.end && total < MOST {
            let length = buffer.len().min((mapping.end - from) as usize);
            let Ok(got @ 1..) = memory.read_at(&mut buffer[..length], from) else { break };
            total += got;
            collect(&buffer[..got], &needle, &mut secrets);
            // A secret may straddle the end of what was read.
            from +=
                if got > 256 && from + (got as u64) < mapping.end { got as u64 - 128 } else { got as u64 };
        }
    }
    (total.into(), secrets.into())
}

fn collect(bytes: &[u8], needle: &[u8], to: &mut Vec<String>) {
    let mut rest = bytes;
    while let Some(found) = find(rest, needle) {
        let word = rest[found..].iter().take(64).take_while(|b| b.is_ascii_alphanumeric() || **b == b'-');
        let word: String = word.map(|byte| char::from(*byte)).collect();
        if word.len() > needle.len() && !to.contains(&word) {
            to.push(word);
        }
        rest = &rest[found + needle.len()..];
    }
}

/// Uses the C library: this is a debug build, and there are megabytes.
fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    // SAFETY: both pointers come from slices, each with its own length.
    let found =
        unsafe { libc::memmem(bytes.as_ptr().cast(), bytes.len(), needle.as_ptr().cast(), needle.len()) };
    (!found.is_null()).then(|| found as usize - bytes.as_ptr() as usize)
}

/// Returns what process_vm_readv(2) gives of the first readable page.
fn readv(pid: u32) -> Value {
    let first = match mappings(pid) {
        Ok(all) => all.iter().find(|mapping| mapping.readable).map_or(0x40_0000, |mapping| mapping.start),
        Err(_) => 0x40_0000,
    };
    let mut room = [0; 64];
    let to = &mut [IoSliceMut::new(&mut room)];
    let from = [nix::sys::uio::RemoteIoVec { base: first as usize, len: 64 }];
    let pid = nix::unistd::Pid::from_raw(pid as i32);
    told(nix::sys::uio::process_vm_readv(pid, to, &from).map(Value::from).map_err(Error::from))
}
