//! A command on a terminal of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use nix::pty::{openpty, Winsize};

use super::run::{end, patience, until};

pub struct Pty {
    child: Child,
    master: File,
    name: PathBuf,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Pty {
    /// Starts `command` with a new terminal of `rows` × `columns` as its controlling terminal.
    pub fn spawn(command: &Command, rows: u16, columns: u16) -> Pty {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let ends = openpty(Some(&size), None).expect("open a terminal");
        // setsid(1) makes it the controlling terminal: window changes and ^C reach the command.
        let mut session = Command::new("setsid");
        session.arg("--ctty").arg("--wait").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                session.env(name, value);
            }
        }
        // By its name: opening the master's link again would make another terminal.
        let name =
            std::fs::read_link(format!("/proc/self/fd/{}", ends.slave.as_raw_fd())).expect("it has a name");
        let slave = || ends.slave.try_clone().expect("clone a descriptor");
        let child = session.stdin(slave()).stdout(slave()).stderr(slave()).spawn().expect("run setsid");
        let master = File::from(ends.master);
        let mut from = master.try_clone().expect("clone a descriptor");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let to = seen.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO: no process has the terminal open any more.
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                to.lock().expect("no holder panics").extend_from_slice(&buffer[..n]);
            }
        });
        Pty { child, master, name, seen }
    }

    pub fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("write to the terminal");
    }

    /// Returns all output so far.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().expect("no holder panics")).into_owned()
    }

    #[track_caller]
    pub fn expect(&self, text: &str) {
        let deadline = std::time::Instant::now() + patience(20);
        while !self.screen().contains(text) {
            assert!(std::time::Instant::now() < deadline, "{text:?} did not come: {:?}", self.screen());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Waits for the command, and returns its exit code.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        end(&mut self.child, patience(20)).unwrap_or_else(|| panic!("still running: {:?}", self.screen()))
    }

    /// Returns the command's pid: setsid(1) is no process group leader here, so it executes the command without a
    /// fork.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Changes the window's size, of which the kernel notifies the foreground process group.
    pub fn resize(&self, rows: u16, columns: u16) {
        let status = Command::new("stty")
            .arg("-F")
            .arg(&self.name)
            .args(["rows", &rows.to_string(), "cols", &columns.to_string()])
            .status()
            .expect("run stty");
        assert!(status.success(), "stty failed");
    }

    pub fn wait_for_screen<T>(&self, what: &str, probe: impl Fn(&str) -> Option<T>) -> T {
        until(what, 20, || probe(&self.screen()))
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill(); // ended already in a test that went well
        let _ = self.child.wait();
    }
}
