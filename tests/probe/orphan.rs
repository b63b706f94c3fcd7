//! A process whose parent has ended; and one that records the time.

use nix::sys::wait::waitpid;
use nix::unistd::{fork, getppid, ForkResult};
use serde_json::{json, Value};
use std::fs::{read_dir, read_to_string};
use std::io::Read;
use std::time::Duration;

/// Makes a grandchild, ends its parent, and returns its new parent, and the number of zombies once it has ended too.
pub fn child() -> Value {
    let (mut told, tell) = std::io::pipe().expect("a pipe");
    // SAFETY: this program has one thread.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Parent { child } => {
            drop(tell);
            waitpid(child, None).expect("the child ends");
            let mut parent = String::new();
            told.read_to_string(&mut parent).expect("the grandchild tells");
            let mut left = usize::MAX;
            for _ in 0..200 {
                left = zombies();
                if left == 0 {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            json!({ "parent": parent.trim().parse::<u32>().ok(), "zombies": left })
        }
        ForkResult::Child => {
            drop(told);
            // SAFETY: as above.
            if let ForkResult::Child = unsafe { fork() }.expect("a grandchild") {
                let own = std::process::id();
                while getppid().as_raw() as u32 != 1 && own != 1 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                use std::io::Write;
                let mut tell = tell;
                let _ = write!(tell, "{}", getppid());
            }
            std::process::exit(0);
        }
    }
}

fn zombies() -> usize {
    let stat = |entry: std::fs::DirEntry| read_to_string(entry.path().join("stat")).ok();
    read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(stat)
        .filter(|stat| stat.contains(") Z "))
        .count()
}

/// Writes the time to the file, ten thousand times a second.
pub fn tick(path: &str) -> ! {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create(path).expect("a file");
    loop {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        file.write_all_at(&(now.as_nanos() as u64).to_ne_bytes(), 0).expect("a tick");
        std::thread::sleep(Duration::from_micros(100));
    }
}
