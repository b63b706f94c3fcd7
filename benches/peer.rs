//! The peers that are measured.

use std::path::{Path, PathBuf};

use protobuf::well_known_types::any::Any;

use testbed::{self, Suite};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    Shoal,
    /// containerd's Go shim with runc.
    Runc,
    /// containerd's Go shim with crun, which refuses hosts with cgroup v1.
    Crun,
    /// `floor.c`: the same system calls with nothing around them.
    Floor,
}

impl Peer {
    pub const ALL: [Peer; 4] = [Peer::Shoal, Peer::Runc, Peer::Crun, Peer::Floor];

    /// The title in the tables.
    pub fn title(self) -> &'static str {
        match self {
            Peer::Shoal => "shoal",
            Peer::Runc => "Go shim + runc",
            Peer::Crun => "Go shim + crun",
            Peer::Floor => "floor",
        }
    }

    /// The name on the command line and in the JSON.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Shoal => "shoal",
            Peer::Runc => "runc",
            Peer::Crun => "crun",
            Peer::Floor => "floor",
        }
    }

    pub fn by_name(name: &str) -> Option<Peer> {
        Peer::ALL.into_iter().find(|peer| peer.name() == name)
    }

    pub fn runtime(self) -> &'static str {
        match self {
            Peer::Shoal => "io.containerd.shoal.v2",
            _ => "io.containerd.runc.v2",
        }
    }

    pub fn shim(self) -> PathBuf {
        match self {
            Peer::Shoal => testbed::shim(),
            _ => Suite::Forky.program("containerd-shim-runc-v2"),
        }
    }

    /// The options of CreateTaskRequest: which program the Go shim calls, if it is not runc.
    pub fn options(self) -> Option<Any> {
        let binary = match self {
            Peer::Crun => Suite::Forky.program("crun"),
            _ => return None,
        };
        let mut any = Any::new();
        any.type_url = "containerd.runc.v1.Options".to_owned();
        any.value = runc_options(&binary);
        Some(any)
    }
}

/// `containerd.runc.v1.Options` with `binary_name`, its field 6: nothing else of that message is needed here.
fn runc_options(binary: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut stream = protobuf::CodedOutputStream::vec(&mut bytes);
    stream.write_string(6, &binary.to_string_lossy()).expect("a Vec takes all");
    stream.flush().expect("a Vec takes all");
    drop(stream);
    bytes
}
