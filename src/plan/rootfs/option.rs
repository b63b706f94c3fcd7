//! The options of a rootfs mount, parsed as by containerd's Go package `mount` (core/mount/mount_linux.go), for which
//! snapshotters write them.

use crate::error::{invalid, Result};
use crate::plan::RootfsMount;
use crate::spec::mapping::{self, IdRange};
use crate::spec::Mappings;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct MountOptions {
    /// MS_*, with propagation bits.
    pub flags: u64,
    pub data: String,
    /// The directory to which the layers in `data` are relative.
    pub chdir: Option<String>,
    /// `uidmap=` and `gidmap=`.
    pub idmap: Option<Mappings>,
    /// `loop`: the source is a file.
    pub loop_device: Option<LoopDevice>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct LoopDevice {
    /// `direct-io`: bypass the page cache.
    pub direct: bool,
}

/// The prefix of options for containerd's own mount manager.
pub(crate) const OF_MANAGER: &str = "X-containerd.";

/// The part of a page that the Go code reserves for an overlay's other options.
const RESERVE: usize = 512;

impl MountOptions {
    /// `i` is the index of the mount in the request.
    pub fn parse(mount: &RootfsMount, i: usize, page_size: usize) -> Result<Self> {
        let at = |j: usize| format!("rootfs[{i}].options[{j}]");
        let mut flags = 0;
        let mut data: Vec<String> = Vec::new();
        let mut looped = false;
        let mut idmap = Mappings::default();
        for (j, word) in mount.options.iter().enumerate() {
            match flag(word) {
                Some((set, bits)) if set => flags |= bits,
                Some((_, bits)) => flags &= !bits,
                None if word == "loop" => looped = true,
                None if word.starts_with("uidmap=") => idmap.uids = ranges(word, || at(j))?,
                None if word.starts_with("gidmap=") => idmap.gids = ranges(word, || at(j))?,
                None if word.starts_with(OF_MANAGER) => {}
                None => data.push(word.clone()),
            }
        }
        let loop_device = looped.then(|| {
            let all = data.len();
            data.retain(|word| word != "direct-io");
            LoopDevice { direct: data.len() < all }
        });
        let size: usize = data.iter().map(String::len).sum();
        let mut chdir = None;
        if mount.fstype == "overlay" && size >= page_size.saturating_sub(RESERVE) {
            chdir = shorten(&mut data);
        }
        let data = data.join(",");
        if data.len() >= page_size {
            return Err(invalid(format!(
                "rootfs[{i}].options: longer than a page, the kernel takes no more"
            )));
        }
        if idmap.uids.is_empty() != idmap.gids.is_empty() {
            return Err(invalid(format!("rootfs[{i}].options: uidmap and gidmap need each other")));
        }
        let idmap = Some(idmap).filter(|idmap| !idmap.is_empty());
        Ok(MountOptions { flags, data, chdir, idmap, loop_device })
    }
}

/// The full paths of an overlay's lower layers.
pub(super) fn lower(mount: &RootfsMount) -> impl Iterator<Item = &str> {
    let lists = mount.options.iter().filter_map(|word| word.strip_prefix("lowerdir="));
    lists.flat_map(|list| list.split(':')).filter(|layer| !layer.is_empty())
}

/// Parses `uidmap=0:100000:65536,65536:1000:1`: container id, host id, count.
fn ranges(word: &str, at: impl Fn() -> String) -> Result<Vec<IdRange>> {
    let range = |text: &str| {
        let mut numbers = text.split(':').map(|number| number.parse().ok());
        let range = IdRange { inside: numbers.next()??, outside: numbers.next()??, count: numbers.next()?? };
        numbers.next().is_none().then_some(range)
    };
    let list = word.split_once('=').map(|(_, list)| list).unwrap_or_default();
    let all: Option<Vec<IdRange>> = list.split(',').map(range).collect();
    let all = all.ok_or_else(|| invalid(format!("{}: {word:?} is not a map", at())))?;
    mapping::check_ranges(&all, |_, _| format!("{}: {word:?}", at()))?;
    Ok(all)
}

/// Returns (whether to set them, bits); other words are options of the filesystem.
fn flag(word: &str) -> Option<(bool, u64)> {
    if let Some(propagation) = crate::spec::mount::Propagation::parse(word) {
        let recursive = if propagation.recursive { libc::MS_REC } else { 0 };
        return Some((true, propagation.flag | recursive));
    }
    Some(match word {
        "async" => (false, libc::MS_SYNCHRONOUS),
        "atime" => (false, libc::MS_NOATIME),
        "bind" => (true, libc::MS_BIND),
        "defaults" => (true, 0),
        "dev" => (false, libc::MS_NODEV),
        "diratime" => (false, libc::MS_NODIRATIME),
        "dirsync" => (true, libc::MS_DIRSYNC),
        "exec" => (false, libc::MS_NOEXEC),
        "mand" => (true, libc::MS_MANDLOCK),
        "noatime" => (true, libc::MS_NOATIME),
        "nodev" => (true, libc::MS_NODEV),
        "nodiratime" => (true, libc::MS_NODIRATIME),
        "noexec" => (true, libc::MS_NOEXEC),
        "nomand" => (false, libc::MS_MANDLOCK),
        "norelatime" => (false, libc::MS_RELATIME),
        "nostrictatime" => (false, libc::MS_STRICTATIME),
        "nosuid" => (true, libc::MS_NOSUID),
        "rbind" => (true, libc::MS_BIND | libc::MS_REC),
        "relatime" => (true, libc::MS_RELATIME),
        "remount" => (true, libc::MS_REMOUNT),
        "ro" => (true, libc::MS_RDONLY),
        "rw" => (false, libc::MS_RDONLY),
        "strictatime" => (true, libc::MS_STRICTATIME),
        "suid" => (false, libc::MS_NOSUID),
        "sync" => (true, libc::MS_SYNCHRONOUS),
        _ => return None,
    })
}

/// Makes the lower layers relative to their common directory, and returns that directory.
fn shorten(data: &mut [String]) -> Option<String> {
    let lower = data.iter_mut().find(|word| word.starts_with("lowerdir="))?;
    let layers: Vec<&str> = lower["lowerdir=".len()..].split(':').collect();
    let common = layers.iter().copied().reduce(common_prefix)?;
    // Cut back to a whole path component: 10 and 11 have `…/snapshots/1` in common.
    let dir = &common[..common.rfind('/')?];
    if dir.is_empty() || layers.len() < 2 {
        return None;
    }
    let relative: Option<Vec<&str>> = layers.iter().map(|layer| layer.get(dir.len() + 1..)).collect();
    let relative = relative?;
    if relative.iter().any(|layer| layer.is_empty()) {
        return None;
    }
    let dir = dir.to_owned();
    *lower = format!("lowerdir={}", relative.join(":"));
    Some(dir)
}

fn common_prefix<'a>(a: &'a str, b: &'a str) -> &'a str {
    let end = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    // A layer's path may contain multi-byte characters.
    let end = (0..=end).rev().find(|end| a.is_char_boundary(*end)).unwrap_or(0);
    &a[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(options: Vec<String>) -> RootfsMount {
        RootfsMount { fstype: "overlay".into(), source: "overlay".into(), target: String::new(), options }
    }

    #[test]
    fn words_of_the_filesystem_keep_their_order() {
        let words = ["index=off", "workdir=/w", "upperdir=/u", "ro", "lowerdir=/a:/b", "X-containerd.x=1"];
        let options = MountOptions::parse(&overlay(words.map(String::from).to_vec()), 0, 4096).unwrap();
        assert_eq!(options.flags, libc::MS_RDONLY);
        assert_eq!(options.data, "index=off,workdir=/w,upperdir=/u,lowerdir=/a:/b");
        assert_eq!(options.chdir, None);
    }

    #[test]
    fn many_layers_are_made_relative() {
        let layers: Vec<String> =
            (100..300).map(|n| format!("/var/lib/containerd/snapshots/{n}/fs")).collect();
        let words = vec![format!("lowerdir={}", layers.join(":")), "upperdir=/u".into()];
        let options = MountOptions::parse(&overlay(words), 0, 4096).unwrap();
        assert_eq!(options.chdir.as_deref(), Some("/var/lib/containerd/snapshots"));
        assert!(options.data.starts_with("lowerdir=100/fs:101/fs:"), "{}", options.data);
        assert!(options.data.ends_with(":299/fs,upperdir=/u"));
    }

    #[test]
    fn what_does_not_fit_a_page_is_refused() {
        let layers: Vec<String> = (0..600).map(|n| format!("/{n}/a/long/name/of/a/layer")).collect();
        let e = MountOptions::parse(&overlay(vec![format!("lowerdir={}", layers.join(":"))]), 3, 4096)
            .unwrap_err();
        assert!(e.to_string().starts_with("rootfs[3].options: longer than a page"), "{e}");
    }

    #[test]
    fn a_loop_device_is_asked_for() {
        let options = ["ro", "loop", "direct-io", "noload"].map(String::from).to_vec();
        let mount = RootfsMount { fstype: "ext4".into(), options, ..Default::default() };
        let options = MountOptions::parse(&mount, 0, 4096).unwrap();
        assert_eq!(options.loop_device, Some(LoopDevice { direct: true }));
        assert_eq!((options.flags, options.data.as_str()), (libc::MS_RDONLY, "noload"));
    }
}
