//! The parts of the shim's memory that a child keeps: the program itself, and what the kernel maps for every process.

use std::io::{Error, ErrorKind, Result};

/// Address ranges, each from its first byte to the one after its last, sorted and not adjacent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    kept: Vec<(usize, usize)>,
    /// Nothing is mapped from here on.
    end: usize,
}

impl Layout {
    /// The layout of this process. It does not change, as the program is static.
    pub fn probe() -> Result<Layout> {
        Self::parse(&std::fs::read_to_string("/proc/self/maps")?)
    }

    /// Parses proc_pid_maps(5). A file's mapping without write access is the program: its text, constants and relocated
    /// tables.
    fn parse(maps: &str) -> Result<Layout> {
        let mut layout = Layout { kept: Vec::new(), end: 0 };
        for line in maps.lines() {
            let bad = || Error::new(ErrorKind::InvalidData, format!("/proc/self/maps has {line:?}"));
            let mut fields = line.split_ascii_whitespace();
            let (range, access) = (fields.next().ok_or_else(bad)?, fields.next().ok_or_else(bad)?);
            let inode = fields.nth(2).ok_or_else(bad)?;
            let name = fields.next().unwrap_or_default();
            let (first, end) = range.split_once('-').ok_or_else(bad)?;
            let number = |text| usize::from_str_radix(text, 16).map_err(|_| bad());
            // Outside the addresses that a process can unmap.
            if name == "[vsyscall]" {
                continue;
            }
            let range = (number(first)?, number(end)?);
            layout.end = layout.end.max(range.1);
            let program = inode != "0" && !access.contains('w');
            if program || name.starts_with("[v") {
                layout.kept.push(range);
            }
        }
        Ok(layout)
    }

    /// The gaps between the kept ranges and `more`: what has to be unmapped.
    pub fn gaps(&self, more: &[(usize, usize)]) -> Vec<(usize, usize)> {
        let mut kept: Vec<_> = self.kept.iter().chain(more).copied().collect();
        kept.sort_unstable();
        kept.push((self.end, self.end));
        let mut gaps = Vec::new();
        let mut from = 0;
        for (first, end) in kept {
            if first > from {
                gaps.push((from, first));
            }
            from = from.max(end);
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
00200000-002d8000 r--p 00000000 00:31 3 /containerd-shim-shoal-v2
002d8000-0063f000 r-xp 000d7000 00:31 3 /containerd-shim-shoal-v2
00640000-00645000 r--p 0043e000 00:31 3 /containerd-shim-shoal-v2
00645000-0064e000 rw-p 00442000 00:31 3 /containerd-shim-shoal-v2
01ff0000-02011000 rw-p 00000000 00:00 0 [heap]
7f0000000000-7f0000021000 rw-p 00000000 00:00 0
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0 [stack]
7ffd00100000-7ffd00104000 r--p 00000000 00:00 0 [vvar]
7ffd00104000-7ffd00106000 r-xp 00000000 00:00 0 [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
";

    #[test]
    fn everything_but_the_program_and_the_kernels_own_is_a_gap() {
        let layout = Layout::parse(MAPS).unwrap();
        assert_eq!(
            layout.gaps(&[(0x7f00_0000_1000, 0x7f00_0000_3000)]),
            [
                (0, 0x20_0000),
                (0x63_f000, 0x64_0000),
                (0x64_5000, 0x7f00_0000_1000),
                (0x7f00_0000_3000, 0x7ffd_0010_0000),
            ]
        );
    }

    #[test]
    fn the_own_text_is_kept() {
        let layout = Layout::probe().unwrap();
        let text = Layout::parse as *const () as usize;
        let heap = std::ptr::from_ref(&*Box::new(1u8)) as usize;
        let within = |at: usize| layout.gaps(&[]).iter().any(|(first, end)| (*first..*end).contains(&at));
        assert!(!within(text));
        assert!(within(heap));
        assert!(within(std::ptr::from_ref(&heap) as usize));
    }
}
