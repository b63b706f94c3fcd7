//! `/etc/shoal/config.toml`: the operator's settings for all pods and containers of the node.
//!
//! A file of its own, because an `options` table for the runtime in containerd's configuration breaks the start of
//! containers up to containerd 2.3.0, and CRI does not pass its own settings to a shim.

use crate::error::{invalid, Context, Result};
use crate::sandbox::PodSettings;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) const FILE: &str = "/etc/shoal/config.toml";

/// Reads the settings; the defaults if there is no file. Warns about unknown keys and rejects values of a wrong type.
pub(super) fn read(path: &Path) -> Result<PodSettings> {
    let text = match std::fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(PodSettings::default()),
        read => read.context(|| format!("read({path:?})"))?,
    };
    let table: toml::Table = toml::from_str(&text)
        .map_err(|e| invalid(format!("{path:?} is not TOML{}: {}", place(&text, &e), e.message())))?;
    let mut settings = PodSettings::default();
    for (key, value) in &table {
        let flag =
            || value.as_bool().ok_or_else(|| invalid(format!("{path:?}: {key} must be true or false")));
        let time = || {
            let seconds = value.as_integer().and_then(|seconds| u64::try_from(seconds).ok());
            let bad = || invalid(format!("{path:?}: {key} must be a number of seconds above 0"));
            seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs).ok_or_else(bad)
        };
        let program = || {
            let named = value.as_str().map(PathBuf::from).filter(|named| named.is_absolute());
            named.ok_or_else(|| invalid(format!("{path:?}: {key} must be an absolute path")))
        };
        match key.as_str() {
            "criu_path" => settings.criu_path = Some(program()?),
            "enable_unprivileged_ports" => settings.unprivileged_ports = flag()?,
            "launch_timeout" => settings.launch_timeout = time()?,
            "unstarted_timeout" => settings.unstarted_timeout = time()?,
            "ignore_binary_name" => settings.ignore_binary_name = flag()?,
            "enable_unprivileged_icmp" => settings.unprivileged_icmp = flag()?,
            _ => log::warn!("{path:?}: the key {key} is not known"),
        }
    }
    Ok(settings)
}

/// The line of the error: operators write the file by hand.
fn place(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    before.map_or_else(String::new, |before| format!(", line {}", before.matches('\n').count() + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_the_defaults_and_a_key_changes_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        assert_eq!(read(&path).unwrap(), PodSettings::default());
        std::fs::write(&path, "enable_unprivileged_icmp = false\nwhat = 1").unwrap();
        let settings = read(&path).unwrap();
        assert!(settings.unprivileged_ports && !settings.unprivileged_icmp);
        assert!(!settings.ignore_binary_name);
        std::fs::write(&path, "ignore_binary_name = true").unwrap();
        assert!(read(&path).unwrap().ignore_binary_name);
        std::fs::write(&path, "launch_timeout = 7").unwrap();
        assert_eq!(read(&path).unwrap().launch_timeout, Duration::from_secs(7));
        std::fs::write(&path, "unstarted_timeout = 8").unwrap();
        assert_eq!(read(&path).unwrap().unstarted_timeout, Duration::from_secs(8));
        std::fs::write(&path, "criu_path = '/opt/criu'").unwrap();
        assert_eq!(read(&path).unwrap().criu_path.as_deref(), Some(Path::new("/opt/criu")));
        std::fs::write(&path, "criu_path = 'criu'").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("criu_path"));
        for bad in ["0", "-1", "'1'"] {
            std::fs::write(&path, format!("launch_timeout = {bad}")).unwrap();
            assert!(read(&path).unwrap_err().to_string().contains("launch_timeout"), "{bad}");
        }
        std::fs::write(&path, "launch_timeout = 7\nwhat\n").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("is not TOML, line 2: ") && error.lines().count() == 1, "{error}");
        std::fs::write(&path, "enable_unprivileged_icmp = 'no'").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("enable_unprivileged_icmp"));
    }

    #[test]
    fn the_file_that_comes_with_shoal_is_the_defaults() {
        let shipped = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/runtime-config/shoal.toml"));
        assert_eq!(read(shipped).unwrap(), PodSettings::default());
    }
}
