//! The containers' program: it needs no system call to run, and its exit tells which ones it could make.

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What it writes.
pub const WORD: &str = "ran\n";
/// Its exit code if exit_group(2) or exit(2) is allowed.
pub const CODE: u32 = 7;
/// If neither is, it ends by an instruction that no processor has: SIGILL.
pub const NO_EXIT: u32 = 128 + libc::SIGILL as u32;

/// For x86_64, without a C library, whose start makes calls and may exit without them.
#[rustfmt::skip]
const CODE_BYTES: &[u8] = &[
    0x48, 0x83, 0x3c, 0x24, 0x01,             // cmp qword [rsp], 1    one argument?
    0x75, 45,                                 // jne sleep
    0xb8, 1, 0, 0, 0,                         // mov eax, SYS_write
    0xbf, 1, 0, 0, 0,                         // mov edi, 1
    0x48, 0x8d, 0x35, 37, 0, 0, 0,            // lea rsi, [word]
    0xba, 4, 0, 0, 0,                         // mov edx, 4
    0x0f, 0x05,                               // syscall
    0xb8, 231, 0, 0, 0,                       // mov eax, SYS_exit_group
    0xbf, CODE as u8, 0, 0, 0,                // mov edi, CODE
    0x0f, 0x05,                               // syscall
    0xb8, 60, 0, 0, 0,                        // mov eax, SYS_exit
    0x0f, 0x05,                               // syscall
    0x0f, 0x0b,                               // ud2
    0xb8, 34, 0, 0, 0,                        // sleep: mov eax, SYS_pause
    0x0f, 0x05,                               // syscall
    0xeb, 0xf7,                               // jmp sleep
    b'r', b'a', b'n', b'\n',                  // word
];

/// Builds an ELF file with one segment that is the whole file.
fn elf() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let size = HEADERS + CODE_BYTES.len() as u64;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    file.resize(16, 0);
    // ET_EXEC, EM_X86_64
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [BASE + HEADERS, 64, 0] {
        file.extend(u64::to_le_bytes(word));
    }
    file.extend([0; 4]);
    for half in [64u16, 56, 1, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // PT_LOAD, PF_R and PF_X
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0, BASE, BASE, size, size, 0x1000] {
        file.extend(u64::to_le_bytes(word));
    }
    file.extend(CODE_BYTES);
    file
}

/// A rootfs with only this program, and a watch that notices its execution.
pub struct Program {
    reads: Inotify,
}

impl Program {
    pub fn install(root: &Path) -> Self {
        for name in ["proc", "dev", "sys"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        let path = root.join("program");
        std::fs::write(&path, elf()).unwrap();
        for path in [root, &path] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let reads = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).unwrap();
        reads.add_watch(&path, AddWatchFlags::IN_ACCESS).unwrap();
        Program { reads }
    }

    /// Returns whether it was executed since the last call. Only the kernel reads the file, in execve(2).
    pub fn was_executed(&self) -> bool {
        self.reads.read_events().is_ok_and(|events| !events.is_empty())
    }
}
