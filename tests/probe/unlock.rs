//! Takes flags of mounts away, one at a time.

use super::errno;
use serde_json::{Map, Value};
use shoal::sys::mount;
use std::ffi::CString;

const FLAGS: [(&str, u64); 4] = [
    ("ro", libc::MS_RDONLY),
    ("nosuid", libc::MS_NOSUID),
    ("nodev", libc::MS_NODEV),
    ("noexec", libc::MS_NOEXEC),
];

/// For each path the flags that its mount has, with what a remount without that one gives: `ok`, or an errno.
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
