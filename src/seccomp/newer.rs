//! System calls that may be newer than a statically linked libseccomp.
//!
//! A shared libseccomp learns new calls with the host's updates, ours does not, and a profile that allows a call we
//! cannot name would deny it. Since Linux 5.1 a new call has the same number on almost all architectures
//! (scripts/syscall.tbl of the kernel). Calls that libseccomp knows are not looked up here.

use super::arch::X32_BIT;
use libseccomp::ScmpArch;

/// Calls of Linux 6.5 to 6.19.
const COMMON: [(&str, u32); 20] = [
    ("cachestat", 451),
    ("fchmodat2", 452),
    ("map_shadow_stack", 453),
    ("futex_wake", 454),
    ("futex_wait", 455),
    ("futex_requeue", 456),
    ("statmount", 457),
    ("listmount", 458),
    ("lsm_get_self_attr", 459),
    ("lsm_set_self_attr", 460),
    ("lsm_list_modules", 461),
    ("mseal", 462),
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
    ("open_tree_attr", 467),
    ("file_getattr", 468),
    ("file_setattr", 469),
    ("listns", 470),
];

pub fn is_known(name: &str) -> bool {
    COMMON.iter().any(|(known, _)| *known == name)
}

pub fn number(name: &str, arch: ScmpArch) -> Option<u32> {
    let (_, number) = COMMON.iter().find(|(known, _)| *known == name)?;
    match arch {
        ScmpArch::X32 => Some(X32_BIT | number),
        ScmpArch::X86
        | ScmpArch::X8664
        | ScmpArch::Arm
        | ScmpArch::Aarch64
        | ScmpArch::Loongarch64
        | ScmpArch::Ppc
        | ScmpArch::Ppc64
        | ScmpArch::Ppc64Le
        | ScmpArch::Riscv64
        | ScmpArch::S390
        | ScmpArch::S390X => Some(*number),
        // MIPS counts from 4000, 5000 or 6000; the others are not native anywhere that shoal runs.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libseccomp::ScmpSyscall;

    #[test]
    fn libseccomp_agrees_where_it_knows_a_call() {
        let mut known = 0;
        for (name, _) in COMMON {
            for arch in [ScmpArch::X8664, ScmpArch::X86, ScmpArch::X32, ScmpArch::Aarch64, ScmpArch::S390X] {
                let Ok(call) = ScmpSyscall::from_name_by_arch(name, arch) else { continue };
                // Negative: libseccomp's own number for a call that this architecture did not have yet.
                if let Ok(theirs) = u32::try_from(call.as_raw_syscall()) {
                    assert_eq!(number(name, arch), Some(theirs), "{name} on {arch:?}");
                    known += 1;
                }
            }
        }
        assert!(known > 0, "this libseccomp knows none of them: nothing was compared");
    }
}
