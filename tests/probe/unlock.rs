//! Clears flags of mounts, one at a time.

use super::errno;
use serde_json::{Map, Value};
use shoal::sys::fd::{self, AsFd};
use shoal::sys::mount;
use std::ffi::CString;

const FLAGS: [(&str, u64); 4] = [
    ("ro", libc::MS_RDONLY),
    ("nosuid", libc::MS_NOSUID),
    ("nodev", libc::MS_NODEV),
    ("noexec", libc::MS_NOEXEC),
];

/// For each path, returns the flags of its mount, each with the result of a remount without it: `ok` or an errno.
pub fn all(paths: &[&str]) -> Value {
    paths.iter().map(|path| ((*path).to_owned(), flags_of(path))).collect::<Map<_, _>>().into()
}

fn flags_of(path: &str) -> Value {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let found = fields.rev().find(|fields| fields.get(4) == Some(&path)).unwrap_or_default();
    let words: Vec<&str> = found.get(5).map(|words| words.split(',').collect()).unwrap_or_default();
    let set: Vec<_> = FLAGS.iter().filter(|(name, _)| words.contains(name)).collect();
    let all = set.iter().fold(0, |all, (_, flag)| all | flag);
    let path = CString::new(path).unwrap_or_default();
    let change = |flags| mount::mount(None, &path, None, libc::MS_REMOUNT | libc::MS_BIND | flags, None);
    let each = |(name, flag): &&(&str, u64)| {
        let answer = change(all & !flag);
        let _ = change(all);
        let answer = answer.map_or_else(|e| errno(std::io::Error::from(e)), |()| "ok".to_owned());
        ((*name).to_owned(), answer.into())
    };
    set.iter().map(each).collect::<Map<_, _>>().into()
}

/// What `FLAGS` are to mount_setattr(2).
const ATTRIBUTES: u64 = mount::ATTR_RDONLY | mount::ATTR_NOSUID | mount::ATTR_NODEV | mount::ATTR_NOEXEC;

/// For each path, returns the results of ways other than a remount: `ok` or an errno.
pub fn otherwise(paths: &[&str]) -> Value {
    let each = |path: &&str| {
        let found = CString::new(*path).unwrap_or_default();
        let ways = Ways { path: &found, clear: mount::Change { clear: ATTRIBUTES, ..Default::default() } };
        ((*path).to_owned(), ways.all())
    };
    paths.iter().map(each).collect::<Map<_, _>>().into()
}

struct Ways<'a> {
    path: &'a CString,
    clear: mount::Change,
}

impl Ways<'_> {
    fn all(&self) -> Value {
        let open = || fd::open(self.path, libc::O_PATH, 0);
        let told = |answer: shoal::sys::Result<()>| {
            Value::from(answer.map_or_else(|e| errno(std::io::Error::from(e)), |()| "ok".to_owned()))
        };
        let in_place = open().and_then(|mount| mount::change(mount.as_fd(), self.clear, false));
        let copy = mount::clone_tree(self.path, true);
        let copied = copy.and_then(|copy| mount::change(copy.as_fd(), self.clear, false));
        let alone = mount::clone_tree(self.path, false);
        let alone = alone.and_then(|copy| mount::change(copy.as_fd(), self.clear, false));
        let attached = mount::clone_tree(self.path, true).and_then(|copy| {
            let target = fd::open(c"/dev", libc::O_PATH, 0)?;
            mount::attach(copy.as_fd(), target.as_fd())?;
            let flags = libc::MS_REMOUNT | libc::MS_BIND;
            let changed = mount::mount(None, c"/dev", None, flags, None);
            mount::unmount(c"/dev", libc::MNT_DETACH)?;
            changed
        });
        let below = CString::new([self.path.as_bytes(), b"/below"].concat()).unwrap_or_default();
        let uncovered = mount::unmount(&below, libc::MNT_DETACH);
        let superblock = mount::mount(None, self.path, None, libc::MS_REMOUNT, None);
        let nested = self.nested();
        serde_json::json!({
            "in place": told(in_place), "a copy": told(copied), "a copy of it alone": told(alone),
            "attached": told(attached), "uncovered": told(uncovered), "superblock": told(superblock),
            "nested": nested,
        })
    }

    /// Tries from a user namespace below this one.
    fn nested(&self) -> Value {
        // SAFETY: this program has one thread.
        match unsafe { libc::fork() } {
            0 => {
                let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS;
                let code = match shoal::sys::namespace::unshare(flags as u64) {
                    Err(e) => 100 + e as i32,
                    Ok(()) => {
                        let open = fd::open(self.path, libc::O_PATH, 0);
                        let changed = open.and_then(|mount| mount::change(mount.as_fd(), self.clear, false));
                        changed.map_or_else(|e| e as i32, |()| 0)
                    }
                };
                std::process::exit(code)
            }
            child => {
                let mut status = 0;
                // SAFETY: it is the child of this process.
                unsafe { libc::waitpid(child, &mut status, 0) };
                match libc::WEXITSTATUS(status) {
                    0 => "ok".into(),
                    code if code > 100 => "no namespace".into(),
                    code => errno(std::io::Error::from_raw_os_error(code)).into(),
                }
            }
        }
    }
}
