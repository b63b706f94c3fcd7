//! Architectures: their names in the spec and in libseccomp, and the values that the kernel passes to a program.

use libseccomp::{ScmpAction, ScmpArch, ScmpFilterContext};
use oci_spec::runtime::Arch;

macro_rules! architectures {
    ($($spec:ident => $scmp:ident,)*) => {
        /// All that a profile can name, except the native one, which is always included.
        const ALL: &[Arch] = &[$(Arch::$spec),*];

        /// Returns libseccomp's name for it.
        pub fn of(arch: Arch) -> ScmpArch {
            match arch {
                Arch::ScmpArchNative => ScmpArch::native(),
                $(Arch::$spec => ScmpArch::$scmp,)*
            }
        }
    };
}

architectures! {
    ScmpArchX86 => X86,
    ScmpArchX86_64 => X8664,
    ScmpArchX32 => X32,
    ScmpArchArm => Arm,
    ScmpArchAarch64 => Aarch64,
    ScmpArchMips => Mips,
    ScmpArchMips64 => Mips64,
    ScmpArchMips64n32 => Mips64N32,
    ScmpArchMipsel => Mipsel,
    ScmpArchMipsel64 => Mipsel64,
    ScmpArchMipsel64n32 => Mipsel64N32,
    ScmpArchPpc => Ppc,
    ScmpArchPpc64 => Ppc64,
    ScmpArchPpc64le => Ppc64Le,
    ScmpArchS390 => S390,
    ScmpArchS390x => S390X,
    ScmpArchParisc => Parisc,
    ScmpArchParisc64 => Parisc64,
    ScmpArchRiscv64 => Riscv64,
    ScmpArchLoongarch64 => Loongarch64,
    ScmpArchM68k => M68k,
    ScmpArchSh => Sh,
    ScmpArchSheb => Sheb,
}

/// The architectures that a profile can name on this machine: libseccomp accepts none of the other byte order, nor any
/// newer than itself.
pub fn accepted() -> Vec<Arch> {
    let takes = |arch: &&Arch| {
        let context = ScmpFilterContext::new(ScmpAction::Allow);
        context.is_ok_and(|mut context| context.add_arch(of(**arch)).is_ok())
    };
    ALL.iter().filter(takes).copied().collect()
}

/// __X32_SYSCALL_BIT of asm/unistd.h.
pub const X32_BIT: u32 = 0x4000_0000;

/// AUDIT_ARCH_* of linux/audit.h. x32 is x86_64 with a bit in the number ([`X32_BIT`]).
pub fn audit(arch: ScmpArch) -> Option<u32> {
    Some(match arch {
        ScmpArch::X86 => 0x4000_0003,
        ScmpArch::X8664 | ScmpArch::X32 => 0xc000_003e,
        ScmpArch::Arm => 0x4000_0028,
        ScmpArch::Aarch64 => 0xc000_00b7,
        ScmpArch::Loongarch64 => 0xc000_0102,
        ScmpArch::M68k => 0x0000_0004,
        ScmpArch::Mips => 0x0000_0008,
        ScmpArch::Mips64 => 0x8000_0008,
        ScmpArch::Mips64N32 => 0xa000_0008,
        ScmpArch::Mipsel => 0x4000_0008,
        ScmpArch::Mipsel64 => 0xc000_0008,
        ScmpArch::Mipsel64N32 => 0xe000_0008,
        ScmpArch::Parisc => 0x0000_000f,
        ScmpArch::Parisc64 => 0x8000_000f,
        ScmpArch::Ppc => 0x0000_0014,
        ScmpArch::Ppc64 => 0x8000_0015,
        ScmpArch::Ppc64Le => 0xc000_0015,
        ScmpArch::Riscv64 => 0xc000_00f3,
        ScmpArch::S390 => 0x0000_0016,
        ScmpArch::S390X => 0x8000_0016,
        ScmpArch::Sh => 0x4000_002a,
        ScmpArch::Sheb => 0x0000_002a,
        // No table for architectures added later; libseccomp's own program decides.
        _ => return None,
    })
}
