//! The image decides what /etc/passwd is; an exec that sets no HOME looks it up there.

use crate::ask::{self, answers};
use crate::fuse::Waits;
use crate::world::{World, NEIGHBOUR};
use crate::{apart, slow};
use serde_json::json;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

/// The limit for a start that reads it.
const SOON: Duration = Duration::from_secs(2);

const FILES: [&str; 6] = ["sparse", "one-line", "long-lines", "fifo", "endless", "loop"];

fn make(kind: &str, path: &Path) {
    match kind {
        // Four terabytes of zeros.
        "sparse" => std::fs::File::create(path).unwrap().set_len(4 << 40).unwrap(),
        "one-line" => std::fs::write(path, vec![b'x'; 64 << 20]).unwrap(),
        "long-lines" => {
            let line = [vec![b':'; (1 << 20) - 1], vec![b'\n']].concat();
            std::fs::write(path, line.repeat(64)).unwrap();
        }
        "fifo" => nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap(),
        "endless" => symlink("/dev/zero", path).unwrap(),
        _ => symlink("passwd", path).unwrap(),
    }
}

#[test]
fn whatever_an_image_has_as_its_passwd_an_exec_without_a_home_starts_at_once() {
    apart("launch_timeout = 20", || {
        let mut world = World::new(Waits::UntilKilled);
        for kind in FILES {
            world.prepare(kind, &["/probe", "sleep"], |config| {
                config["process"]["env"] = json!(["HOME=/"]);
                let zero = json!({ "path": "/dev/zero", "type": "c", "major": 1, "minor": 5 });
                config["linux"]["devices"] = json!([zero]);
            });
            let etc = world.containerd.bundle(kind).join("rootfs/etc");
            std::fs::create_dir(&etc).unwrap();
            make(kind, &etc.join("passwd"));
            world.run(kind);
            let mut process = ask::process(&["/probe", "sleep"]);
            process["env"] = json!([]);
            process["user"] = json!({ "uid": 77, "gid": 77 });
            world.exec(kind, "e", &process);
        }
        let start =
            |kind: &&str| world.line().task(kind, "Start", &ask::start_request(kind, "e"), Duration::ZERO);
        let asked = FILES.iter().map(start).collect();
        world.hear(&[NEIGHBOUR]);
        for answer in answers(asked, slow(SOON)) {
            println!("  {answer}");
            if !answer.good() {
                world.complain(format!("{answer}"));
            }
        }
        for kind in FILES {
            world.end_container(kind);
        }
        world.end("/etc/passwd");
    });
}
