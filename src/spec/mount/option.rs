//! The option words of `mounts[].options`.

use super::{Attributes, Propagation, PROPAGATIONS};
use libc::{
    MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_RELATIME, MOUNT_ATTR_STRICTATIME,
    MOUNT_ATTR__ATIME,
};

/// The options of one mount, sorted by kind.
#[derive(Default)]
pub(super) struct Options<'a> {
    /// Some(recursive) for a bind.
    pub bind: Option<bool>,
    pub remount: bool,
    pub idmap: Option<IdmapWord>,
    /// The index of `tmpcopyup`.
    pub copy_up: Option<usize>,
    pub attributes: Attributes,
    pub propagation: Option<Propagation>,
    /// Superblock options that fsconfig(2) accepts for every filesystem (vfs_parse_sb_flag in fs/fs_context.c), and
    /// `iversion`, which only mount(2) accepts.
    pub superblock: Vec<&'static str>,
    /// The rest, each with its index: options for the filesystem.
    pub data: Vec<(usize, &'a str)>,
}

/// `idmap` or `ridmap`.
pub(super) struct IdmapWord {
    pub index: usize,
    pub recursive: bool,
}

/// One set of attribute changes: the mount's own, or the recursive one.
#[derive(Default)]
struct Changes {
    set: u64,
    clear: u64,
    /// The atime modes are an enumeration, not bits.
    atime: Option<u64>,
}

/// The effect of an option on [`Changes`].
#[derive(Clone, Copy)]
enum Change {
    Set(u64),
    Clear(u64),
    Atime(u64),
    /// `atime`, `norelatime`, `nostrictatime`: revokes that mode, which leaves the kernel's default.
    NotAtime(u64),
}

impl Changes {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Set(bits) => {
                self.set |= bits;
                self.clear &= !bits;
            }
            Change::Clear(bits) => {
                self.clear |= bits;
                self.set &= !bits;
            }
            Change::Atime(choice) => self.atime = Some(choice),
            Change::NotAtime(choice) if choice == MOUNT_ATTR_NOATIME || self.atime == Some(choice) => {
                self.atime = Some(MOUNT_ATTR_RELATIME);
            }
            Change::NotAtime(_) => {}
        }
    }

    /// Returns (set, clear) as mount_setattr(2) requires: the whole atime field is cleared before it is set.
    fn finish(&self) -> (u64, u64) {
        match self.atime {
            Some(choice) => (self.set | choice, self.clear | MOUNT_ATTR__ATIME),
            None => (self.set, self.clear),
        }
    }
}

/// What a word of the tables below does.
#[derive(Clone, Copy)]
enum Effect {
    Bind { recursive: bool },
    Remount,
    CopyUp,
    Idmap { recursive: bool },
    Superblock(&'static str, bool),
    Nothing,
}

/// Each has a recursive form, with an `r` before it: `rro`.
const ATTRIBUTES: [(&str, Change); 18] = {
    use Change::{Atime, Clear, NotAtime, Set};
    [
        ("ro", Set(MOUNT_ATTR_RDONLY)),
        ("rw", Clear(MOUNT_ATTR_RDONLY)),
        ("nosuid", Set(MOUNT_ATTR_NOSUID)),
        ("suid", Clear(MOUNT_ATTR_NOSUID)),
        ("nodev", Set(MOUNT_ATTR_NODEV)),
        ("dev", Clear(MOUNT_ATTR_NODEV)),
        ("noexec", Set(MOUNT_ATTR_NOEXEC)),
        ("exec", Clear(MOUNT_ATTR_NOEXEC)),
        ("nodiratime", Set(MOUNT_ATTR_NODIRATIME)),
        ("diratime", Clear(MOUNT_ATTR_NODIRATIME)),
        ("nosymfollow", Set(MOUNT_ATTR_NOSYMFOLLOW)),
        ("symfollow", Clear(MOUNT_ATTR_NOSYMFOLLOW)),
        ("noatime", Atime(MOUNT_ATTR_NOATIME)),
        ("atime", NotAtime(MOUNT_ATTR_NOATIME)),
        ("relatime", Atime(MOUNT_ATTR_RELATIME)),
        ("norelatime", NotAtime(MOUNT_ATTR_RELATIME)),
        ("strictatime", Atime(MOUNT_ATTR_STRICTATIME)),
        ("nostrictatime", NotAtime(MOUNT_ATTR_STRICTATIME)),
    ]
};

const OTHERS: [(&str, Effect); 18] = {
    use Effect::{Bind, CopyUp, Idmap, Nothing, Remount, Superblock};
    [
        ("bind", Bind { recursive: false }),
        ("rbind", Bind { recursive: true }),
        ("remount", Remount),
        ("tmpcopyup", CopyUp),
        ("sync", Superblock("sync", true)),
        ("async", Superblock("sync", false)),
        ("dirsync", Superblock("dirsync", true)),
        ("lazytime", Superblock("lazytime", true)),
        ("nolazytime", Superblock("lazytime", false)),
        ("mand", Superblock("mand", true)),
        ("nomand", Superblock("mand", false)),
        ("iversion", Superblock("iversion", true)),
        ("noiversion", Superblock("iversion", false)),
        ("defaults", Nothing),
        // They are about a line in the kernel's log that fsopen(2) never writes.
        ("silent", Nothing),
        ("loud", Nothing),
        ("idmap", Idmap { recursive: false }),
        ("ridmap", Idmap { recursive: true }),
    ]
};

/// Every word that is not left to the filesystem.
pub(crate) fn words() -> impl Iterator<Item = String> {
    let both = |word: &str| [word.to_owned(), format!("r{word}")];
    let twice = PROPAGATIONS.map(|(word, _)| word).into_iter().chain(ATTRIBUTES.map(|(word, _)| word));
    twice.flat_map(both).chain(OTHERS.map(|(word, _)| word.to_owned()))
}

fn look_up<T: Copy>(table: &[(&str, T)], word: &str) -> Option<T> {
    table.iter().find(|(known, _)| *known == word).map(|(_, effect)| *effect)
}

fn change(word: &str) -> Option<Change> {
    look_up(&ATTRIBUTES, word)
}

impl<'a> Options<'a> {
    pub fn parse(words: &'a [String]) -> Self {
        let mut all = Options::default();
        let (mut own, mut recursive) = (Changes::default(), Changes::default());
        for (i, word) in words.iter().enumerate() {
            if let Some(propagation) = Propagation::parse(word) {
                all.propagation = Some(propagation);
                continue;
            }
            if let Some(change) = change(word) {
                own.apply(change);
                continue;
            }
            if let Some(change) = word.strip_prefix('r').and_then(change) {
                recursive.apply(change);
                continue;
            }
            match look_up(&OTHERS, word) {
                Some(Effect::Bind { recursive: true }) => all.bind = Some(true),
                Some(Effect::Bind { recursive: false }) => all.bind = all.bind.or(Some(false)),
                Some(Effect::Remount) => all.remount = true,
                Some(Effect::CopyUp) => all.copy_up = Some(i),
                Some(Effect::Idmap { recursive }) => all.idmap = Some(IdmapWord { index: i, recursive }),
                Some(Effect::Superblock(flag, on)) => all.superblock(flag, on),
                Some(Effect::Nothing) => {}
                None if word.is_empty() => {}
                None => all.data.push((i, word)),
            }
        }
        let (set, clear) = own.finish();
        let (recursive_set, recursive_clear) = recursive.finish();
        all.attributes = Attributes { set, clear, recursive_set, recursive_clear };
        all
    }

    fn superblock(&mut self, flag: &'static str, on: bool) {
        self.superblock.retain(|known| *known != flag);
        if on {
            self.superblock.push(flag);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Attributes {
        let words: Vec<String> = words.iter().map(|w| (*w).into()).collect();
        Options::parse(&words).attributes
    }

    #[test]
    fn the_last_word_counts() {
        let both = parse(&["ro", "rw"]);
        assert_eq!((both.set, both.clear), (0, MOUNT_ATTR_RDONLY));
        let both = parse(&["rw", "ro"]);
        assert_eq!((both.set, both.clear), (MOUNT_ATTR_RDONLY, 0));
    }

    #[test]
    fn times_are_one_choice() {
        let noatime = parse(&["strictatime", "noatime"]);
        assert_eq!((noatime.set, noatime.clear), (MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME));
        let back = parse(&["strictatime", "nostrictatime"]);
        assert_eq!((back.set, back.clear), (MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME));
        assert_eq!(parse(&["norelatime"]), Attributes::default());
    }

    #[test]
    fn recursive_words_have_their_own_set() {
        let rro = parse(&["rro", "nosuid"]);
        assert_eq!((rro.set, rro.recursive_set), (MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY));
        assert_eq!(parse(&["rrelatime"]).recursive_clear, MOUNT_ATTR__ATIME);
    }
}
