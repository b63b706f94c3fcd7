//! `process.capabilities` as bit masks. Names are those of capabilities(7).

use super::raw;

/// Bit n is the name of capability n; the last dates from Linux 5.9.
pub(crate) const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The five sets as bit masks (bit n is capability n of capabilities(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySets {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

impl CapabilitySets {
    /// Ignores an unknown name with a warning, as runc does: the spec may be written for a newer kernel.
    pub(super) fn check(raw: &raw::Capabilities, field: &str, warnings: &mut Vec<String>) -> Self {
        let mut mask = |name: &str, list: &Option<Vec<String>>| {
            let mut mask = 0;
            for (i, word) in list.iter().flatten().enumerate() {
                match NAMES.iter().position(|known| known == word) {
                    Some(bit) => mask |= 1 << bit,
                    None => {
                        warnings.push(format!("{field}.{name}[{i}]: unknown capability {word:?} is ignored"))
                    }
                }
            }
            mask
        };
        CapabilitySets {
            bounding: mask("bounding", &raw.bounding),
            effective: mask("effective", &raw.effective),
            permitted: mask("permitted", &raw.permitted),
            inheritable: mask("inheritable", &raw.inheritable),
            ambient: mask("ambient", &raw.ambient),
        }
    }

    /// The names of the bits in a set, lowest first; a bit without a name is its number.
    pub(crate) fn names(mask: u64) -> impl Iterator<Item = String> {
        (0..64)
            .filter(move |bit| mask & (1 << bit) != 0)
            .map(|bit| NAMES.get(bit).map_or_else(|| bit.to_string(), |name| (*name).into()))
    }
}
