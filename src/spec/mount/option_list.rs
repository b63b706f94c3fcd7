//! Splits one string of `mounts[].options` that holds several options: runc joins all strings with commas, and the
//! filesystem splits them, by rules of its own if a value can contain a comma.

/// The labels that SELinux reads; a value with commas is quoted (selinux_sb_eat_lsm_opts).
const LABELS: [&str; 4] = ["context=", "fscontext=", "defcontext=", "rootcontext="];

/// Splits `words` into options, none of them empty.
pub(super) fn split<'a>(fstype: &str, words: &'a str) -> Vec<&'a str> {
    let mut options = Vec::new();
    let mut rest = words;
    while !rest.is_empty() {
        let end = end(fstype, rest);
        let (option, behind) = rest.split_at(end);
        if !option.is_empty() {
            options.push(option);
        }
        rest = behind.strip_prefix(',').unwrap_or(behind);
    }
    options
}

/// The end of the first option.
fn end(fstype: &str, words: &str) -> usize {
    let bytes = words.as_bytes();
    let label = LABELS.iter().any(|label| words.starts_with(label));
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'"' if label => quoted = !quoted,
            // ovl_next_opt
            b'\\' if fstype == "overlay" && !escaped => {
                escaped = true;
                continue;
            }
            // shmem_next_opt: a comma within the node list of `mpol=`.
            b',' if fstype == "tmpfs" && bytes.get(at + 1).is_some_and(u8::is_ascii_digit) => {}
            b',' if !quoted && !escaped => return at,
            _ => {}
        }
        escaped = false;
    }
    words.len()
}

/// The value without its quotes.
pub(super) fn value<'a>(key: &str, value: &'a str) -> &'a str {
    let label = LABELS.iter().any(|label| label.strip_suffix('=') == Some(key));
    let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    bare.filter(|_| label).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_filesystem_takes_its_options_apart() {
        assert_eq!(split("ext4", "a=1,b,,c=2,"), ["a=1", "b", "c=2"]);
        assert_eq!(split("tmpfs", "mpol=bind:0,2-3,size=1m"), ["mpol=bind:0,2-3", "size=1m"]);
        assert_eq!(split("ext4", "a,1"), ["a", "1"]);
        assert_eq!(split("overlay", r"lowerdir=/a\,b:/c,x\\,y"), [r"lowerdir=/a\,b:/c", r"x\\", "y"]);
        assert_eq!(split("ext4", r"a\,b"), [r"a\", "b"]);
        assert!(split("tmpfs", ",,").is_empty());
        assert_eq!(
            split("tmpfs", "context=\"u:r:t:s0:c1,c2\",size=1"),
            ["context=\"u:r:t:s0:c1,c2\"", "size=1"]
        );
        assert_eq!(value("context", "\"u:r:t:s0:c1,c2\""), "u:r:t:s0:c1,c2");
        assert_eq!(value("x", "\"y\""), "\"y\"");
    }
}
