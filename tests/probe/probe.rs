//! `probe`: reports what a container's program finds, from inside, as JSON. Static, so that an image is one file.
//!
//! No Rust runtime before `main`: it would ignore SIGPIPE, and open descriptors 0, 1 and 2 if they are closed.
#![no_main]

mod catch;
mod hold;
mod kernel;
mod look;
mod orphan;
mod procfs;
mod refreeze;
mod report;
mod stop;
mod unlock;
mod watch;

use serde_json::{json, Map, Value};
use std::fs::{File, OpenOptions};
use std::io::{Error, Read, Write};
use std::os::unix::net::UnixStream;

/// Called by the C library, whose constructors have made `std::env::args` work by then.
#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    let words: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.get(1..).unwrap_or_default() {
        ["report", ..] => println!("{}", report::all()),
        ["open", paths @ ..] => println!("{}", open(paths)),
        ["send", socket, file] => println!("{}", send(socket, file).unwrap_or(0)),
        ["call", numbers @ ..] => println!("{}", kernel::calls(numbers)),
        ["chmod", paths @ ..] => println!("{}", chmod(paths)),
        ["mkdir", paths @ ..] => println!("{}", mkdir(paths)),
        ["unlock", paths @ ..] => println!("{}", unlock::all(paths)),
        ["loosen", paths @ ..] => println!("{}", unlock::otherwise(paths)),
        ["stat", paths @ ..] => println!("{}", report::stat(paths)),
        ["watch", stop] => println!("{}", watch::until(stop)),
        ["cat", paths @ ..] => println!("{}", cat(paths)),
        ["drain"] => return i32::from(std::io::stdin().read_to_end(&mut Vec::new()).is_err()),
        ["orphan"] => println!("{}", orphan::child()),
        ["tick", path] => orphan::tick(path),
        ["save", path] => return i32::from(std::fs::write(path, report::all().to_string()).is_err()),
        // A moment later: a client may still be resizing.
        ["window"] => {
            std::thread::sleep(std::time::Duration::from_millis(300));
            println!("{}", kernel::window());
        }
        ["sleep"] => loop {
            std::thread::park();
        },
        ["procfs"] => println!("{}", procfs::unshared(&words)),
        ["procfs", "inside"] => println!("{}", procfs::mounted()),
        ["catch", folder, file, socket, port] => return catch::forever(folder, file, socket, port),
        ["linger", milliseconds] => {
            std::thread::sleep(std::time::Duration::from_millis(milliseconds.parse().unwrap_or(0)));
        }
        ["stop", workers] => return stop::everybody(workers),
        ["flood", children] => return hold::flood(children),
        ["hold", path] => return hold::output(path),
        ["hold", stream, path] => return hold::behind(stream, path),
        ["refreeze", freezer] => return refreeze::forever(freezer),
        ["exit", code] => return code.parse().unwrap_or(125),
        other => {
            eprintln!("probe: {other:?}: not a command");
            return 126;
        }
    }
    0
}

/// Writes the file to the socket; returns how many bytes come back at once, or zero if the peer hangs up.
fn send(socket: &str, file: &str) -> std::io::Result<usize> {
    let mut socket = UnixStream::connect(socket)?;
    socket.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    socket.write_all(&std::fs::read(file)?)?;
    socket.read(&mut [0; 4096])
}

fn errno(e: Error) -> String {
    match e.raw_os_error() {
        Some(number) => format!("{:?}", nix::errno::Errno::from_raw(number)),
        None => e.to_string(),
    }
}

/// Returns the text of each file, or an errno.
fn cat(paths: &[&str]) -> Value {
    let each = |path: &&str| {
        let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        ((*path).to_owned(), text.unwrap_or_else(errno).into())
    };
    Value::Object(paths.iter().map(each).collect())
}

/// Sets each path's mode to what it is already, and returns `ok` or an errno.
fn chmod(paths: &[&str]) -> Value {
    let each = |path: &&str| {
        let changed =
            std::fs::metadata(path).and_then(|about| std::fs::set_permissions(path, about.permissions()));
        ((*path).to_owned(), changed.map_or_else(errno, |()| "ok".to_owned()).into())
    };
    Value::Object(paths.iter().map(each).collect())
}

/// Makes each directory, and returns `ok` or an errno.
fn mkdir(paths: &[&str]) -> Value {
    let each = |path: &&str| {
        let made = std::fs::create_dir(path).map_or_else(errno, |()| "ok".to_owned());
        ((*path).to_owned(), made.into())
    };
    Value::Object(paths.iter().map(each).collect())
}

/// Reads and writes each path, and returns a number of bytes or an errno.
fn open(paths: &[&str]) -> Value {
    let each = |path: &&str| {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(64).read_to_end(&mut bytes)).map_err(errno);
        let write = OpenOptions::new().write(true).open(path).map(|_| "ok").map_err(errno);
        let read = read.map_or_else(Value::from, Value::from);
        ((*path).to_owned(), json!({ "read": read, "write": write.unwrap_or_else(|e| e.leak()) }))
    };
    Value::Object(paths.iter().map(each).collect::<Map<_, _>>())
}
