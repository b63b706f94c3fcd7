//! Parses /proc/self/mountinfo (proc_pid_mountinfo(5)) as bytes: a path may contain any byte but NUL.
//!
//! The procfs crate leaves paths escaped and rejects the whole file for a single path that is not UTF-8.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One line. Fields stay as the kernel wrote them, because most mounts are only checked for their type.
#[derive(Clone, Copy, Debug)]
pub struct Mount<'a> {
    id: &'a [u8],
    parent: &'a [u8],
    /// `major:minor`.
    pub device: &'a [u8],
    root: &'a [u8],
    point: &'a [u8],
    pub fstype: &'a [u8],
    options: &'a [u8],
}

/// The mounts in file order: a mount follows the one that it is mounted on. Skips truncated lines.
pub fn mounts(mountinfo: &[u8]) -> impl Iterator<Item = Mount<'_>> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(Mount::parse)
}

impl<'a> Mount<'a> {
    /// `id parent major:minor root point options [optional fields] - fstype source superoptions`
    fn parse(line: &'a [u8]) -> Option<Mount<'a>> {
        let mut fields = line.split(|byte| *byte == b' ');
        let id = fields.next()?;
        let (parent, device) = (fields.next()?, fields.next()?);
        let (root, point) = (fields.next()?, fields.next()?);
        let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
        let (fstype, _source, options) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Mount { id, parent, device, root, point, fstype, options })
    }

    /// Whether this is a cgroup hierarchy, v1 or v2.
    pub fn is_cgroup(&self) -> bool {
        [&b"cgroup"[..], b"cgroup2"].contains(&self.fstype)
    }

    /// Whether this is its number, as /proc/PID/fdinfo has it.
    pub fn has_id(&self, id: u64) -> bool {
        self.id == id.to_string().as_bytes()
    }

    pub fn is_on(&self, other: &Mount<'_>) -> bool {
        self.parent == other.id
    }

    /// Whether its mount point leads to it, and not to one of `all` that is mounted above it.
    pub fn is_seen(&self, all: &[Mount<'_>]) -> bool {
        let point = self.point();
        if all.iter().any(|other| other.is_on(self) && other.point() == point) {
            return false;
        }
        let mut below = *self;
        // At most as often as there are mounts: the parents of the kernel's list make no circle.
        for _ in all {
            let Some(parent) = all.iter().find(|parent| below.is_on(parent)) else { return true };
            let between = |other: &&Mount<'_>| other.is_on(parent) && other.id != below.id;
            if all.iter().filter(between).any(|other| point.starts_with(other.point())) {
                return false;
            }
            below = *parent;
        }
        false
    }

    /// The part of its filesystem that is mounted; `/` is all of it.
    pub fn root(&self) -> PathBuf {
        path(self.root)
    }

    pub fn point(&self) -> PathBuf {
        path(self.point)
    }

    /// Whether the superblock has `option`.
    pub fn has(&self, option: &str) -> bool {
        self.options.split(|byte| *byte == b',').any(|word| unescape(word) == option.as_bytes())
    }
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

/// Decodes octal escapes: space, tab, newline and backslash in every field, and a comma within an option.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        bytes.push(match (byte, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                rest = after;
                (a - b'0') << 6 | (b - b'0') << 3 | (c - b'0')
            }
            _ => byte,
        });
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    fn only(line: &[u8]) -> Mount<'_> {
        let mut all = mounts(line);
        let mount = all.next().expect("a mount");
        assert!(all.next().is_none());
        mount
    }

    #[test]
    fn what_is_escaped_is_read_back() {
        for (field, path) in [
            (r"/a\134b", "/a\\b"),
            (r"/a\040\011\012b", "/a \t\nb"),
            (r"/a\134040", r"/a\040"),
            (r"/a\", r"/a\"),
            (r"/a\04", r"/a\04"),
            (r"/\9", r"/\9"),
            (r"/\400", r"/\400"),
        ] {
            let line = format!("1 2 0:3 {field} {field} rw - tmpfs x rw");
            let mount = only(line.as_bytes());
            assert_eq!((mount.root(), mount.point()), (path.into(), path.into()));
        }
    }

    #[test]
    fn what_is_mounted_above_it_hides_a_mount() {
        const LINES: &str = "1 0 0:1 / / rw - overlay o rw\n2 1 0:2 / /proc rw - proc p rw\n\
            3 2 0:3 / /proc/keys ro - tmpfs t rw\n";
        let is_seen = |more: &str| {
            let lines = format!("{LINES}{more}");
            let all: Vec<_> = mounts(lines.as_bytes()).collect();
            all.iter().find(|mount| mount.has_id(3)).unwrap().is_seen(&all)
        };
        for more in ["", "4 2 0:4 / /proc/key rw - tmpfs t rw\n", "4 1 0:4 / /dev rw - tmpfs t rw\n"] {
            assert!(is_seen(more), "{more}");
        }
        for more in ["4 3 0:4 / /proc/keys", "4 2 0:4 / /proc", "4 1 0:4 / /proc", "4 1 0:4 / /"] {
            assert!(!is_seen(&format!("{more} rw - tmpfs t rw\n")), "{more}");
        }
    }

    #[test]
    fn optional_fields_are_passed_over() {
        for fields in ["", "shared:5 ", "shared:5 master:2 propagate_from:1 unbindable "] {
            let line = format!("1 2 0:3 / /a rw {fields}- cgroup none rw,cpu,name=a\\054b\n");
            let mount = only(line.as_bytes());
            assert_eq!((mount.fstype, mount.point()), (&b"cgroup"[..], "/a".into()));
            assert!(mount.has("cpu") && mount.has("name=a,b") && !mount.has("cp") && !mount.has("name=a"));
        }
    }

    #[test]
    fn a_source_may_be_empty_and_a_dash_a_path() {
        let mount = only(b"1 2 0:3 / - rw - proc  rw");
        assert_eq!((mount.fstype, mount.point()), (&b"proc"[..], "-".into()));
    }

    #[test]
    fn short_lines_are_left_out() {
        let whole = "1 2 0:3 / /a rw shared:1 - tmpfs x rw";
        let cuts = whole.match_indices(' ').map(|(end, _)| &whole[..end]);
        for cut in cuts.filter(|cut| cut.len() < whole.len()).chain(["", "\n\n"]) {
            assert_eq!(mounts(cut.as_bytes()).count(), 0, "{cut:?}");
            assert_eq!(mounts(format!("{cut}\n{whole}\n{cut}").as_bytes()).count(), 1, "{cut:?}");
        }
    }

    #[test]
    fn other_bytes_than_utf8_stay_what_they_are() {
        let mount = only(b"1 2 0:3 /\xff /\xc3\\040\x80 rw - fuse.\xfe x rw");
        assert_eq!(mount.root(), Path::new(OsStr::from_bytes(b"/\xff")));
        assert_eq!(mount.point(), Path::new(OsStr::from_bytes(b"/\xc3 \x80")));
        assert_eq!(mount.fstype, b"fuse.\xfe");
    }
}
