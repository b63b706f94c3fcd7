//! Options for mount(2), which takes them as one string of up to a page; fsconfig(2) takes at most 255 bytes of each,
//! and has no `iversion`.

use crate::error::{invalid, Result};
use crate::plan::step::Whole;
use crate::spec::mount::FsOption;
use std::ffi::{CStr, CString};

/// The limit of strndup_user() in fsconfig(2).
const LIMIT: usize = 255;

/// Returns None if fsconfig(2) can take every option.
pub(super) fn whole(
    field: &str,
    source: &CStr,
    options: &[FsOption],
    page_size: usize,
) -> Result<Option<Whole>> {
    let long = |text: &CStr| text.to_bytes().len() > LIMIT;
    let too_long = |option: &FsOption| match option {
        FsOption::Flag(key) => long(key),
        FsOption::Value(key, value) => long(key) || long(value),
    };
    if !long(source) && !options.iter().any(|option| too_long(option) || is_iversion(option)) {
        return Ok(None);
    }
    let mut flags = 0;
    let mut words: Vec<Vec<u8>> = Vec::new();
    for option in options {
        match option {
            FsOption::Flag(key) => match superblock(key.to_bytes()) {
                Some(flag) => flags |= flag,
                None => words.push(key.to_bytes().to_vec()),
            },
            FsOption::Value(key, value) => words.push([key.to_bytes(), b"=", &quoted(key, value)].concat()),
        }
    }
    let data = words.join(&b","[..]);
    if data.len() >= page_size {
        return Err(invalid(format!("{field}.options: longer than a page, the kernel takes no more")));
    }
    let data = CString::new(data).map_err(|_| invalid(format!("{field}.options: a NUL byte")))?;
    Ok(Some(Whole { flags, data }))
}

pub(super) fn is_iversion(option: &FsOption) -> bool {
    matches!(option, FsOption::Flag(key) if key.as_c_str() == c"iversion")
}

/// The options that fsconfig(2) accepts for every filesystem are flags of mount(2).
fn superblock(word: &[u8]) -> Option<u64> {
    Some(match word {
        b"ro" => libc::MS_RDONLY,
        b"sync" => libc::MS_SYNCHRONOUS,
        b"dirsync" => libc::MS_DIRSYNC,
        b"lazytime" => libc::MS_LAZYTIME,
        b"mand" => libc::MS_MANDLOCK,
        b"iversion" => libc::MS_I_VERSION,
        _ => return None,
    })
}

/// Quotes an SELinux label that contains commas.
fn quoted(key: &CStr, value: &CStr) -> Vec<u8> {
    let value = value.to_bytes();
    if key.to_bytes().ends_with(b"context") && value.contains(&b',') {
        [b"\"", value, b"\""].concat()
    } else {
        value.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(key: &str, value: &str) -> FsOption {
        FsOption::Value(CString::new(key).unwrap(), CString::new(value).unwrap())
    }

    #[test]
    fn only_what_is_too_long_for_fsconfig_goes_whole() {
        let (short, long) = ("x".repeat(255), "x".repeat(256));
        let of = |source: &str, value: &str| {
            let options = [FsOption::Flag(c"ro".into()), option("a", value), option("context", "c1,c2")];
            whole("mounts[0]", &CString::new(source).unwrap(), &options, 4096)
        };
        assert_eq!(of(&short, &short).unwrap(), None);
        let data = CString::new(format!("a={long},context=\"c1,c2\"")).unwrap();
        assert_eq!(of("s", &long).unwrap(), Some(Whole { flags: libc::MS_RDONLY, data }));
        assert!(of(&long, "v").unwrap().is_some());
        let version = [FsOption::Flag(c"iversion".into())];
        let flags = libc::MS_I_VERSION;
        assert_eq!(
            whole("mounts[0]", c"s", &version, 4096).unwrap(),
            Some(Whole { flags, data: c"".into() })
        );
        let error = of("s", &"x".repeat(4096)).unwrap_err().to_string();
        assert_eq!(error, "mounts[0].options: longer than a page, the kernel takes no more");
    }
}
