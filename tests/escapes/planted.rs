//! What is on the host, and in the shim, for an attacker to find.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// In the shim's own environment.
pub const VARIABLE: (&str, &str) = ("SHOAL_PLANTED", "PLANTED-of-the-shim");

/// In the environment of another container of the same shim, and of an exec in it.
pub const NEIGHBOUR: &str = "NEIGHBOUR=PLANTED-of-a-neighbour";
pub const NEIGHBOUR_EXEC: &str = "NEIGHBOUR=PLANTED-of-a-neighbours-exec";

pub struct Host {
    pub file: PathBuf,
    pub socket: PathBuf,
    _socket: UnixListener,
    port: TcpListener,
}

impl Host {
    /// Plants in the network of process `pid`, which need not be the test's own.
    pub fn plant_in(dir: &Path, pid: u32) -> Host {
        let network = std::fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
        let dir = dir.to_owned();
        // In a thread of its own, which stays in that namespace.
        let thread = std::thread::spawn(move || {
            nix::sched::setns(network, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            Host::plant(&dir)
        });
        thread.join().unwrap()
    }

    pub fn plant(dir: &Path) -> Host {
        let (file, socket) = (dir.join("of-the-host"), dir.join("s-of-the-host"));
        std::fs::write(&file, "the host's").unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        Host { file, socket, _socket: listener, port: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    pub fn port(&self) -> u16 {
        self.port.local_addr().unwrap().port()
    }

    /// Returns the arguments of an attacker that can write to `folder`.
    pub fn attack(&self, folder: &str) -> Vec<String> {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        vec![
            "/probe".into(),
            "catch".into(),
            folder.into(),
            text(&self.file),
            text(&self.socket),
            self.port().to_string(),
        ]
    }

    pub fn look(&self, pid: u32) -> serde_json::Value {
        let (file, socket) = (self.file.to_str().unwrap(), self.socket.to_str().unwrap());
        crate::look::at(pid, &crate::look::Planted { file, socket, port: self.port() })
    }
}
