//! The directory through which a test and the attacker in a container communicate.

use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use testbed::fake::eventually;

pub struct Trap(pub PathBuf);

impl Trap {
    /// Makes the directory, writable for any attacker.
    pub fn set(folder: &Path) -> Trap {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o777)).unwrap();
        std::fs::write(folder.join("mode"), "wait").unwrap();
        std::fs::write(folder.join("caught"), "").unwrap();
        std::fs::set_permissions(folder.join("caught"), PermissionsExt::from_mode(0o666)).unwrap();
        Trap(folder.to_owned())
    }

    /// Tells the attacker what to do, and waits until it does it.
    #[track_caller]
    pub fn mode(&self, mode: &str) {
        self.tell(mode);
        let same = || self.alive()["mode"].as_str().is_some_and(|now| now.eq_ignore_ascii_case(mode));
        assert!(eventually(same), "the attacker does not {mode}: {}", self.alive());
    }

    pub fn tell(&self, mode: &str) {
        let new = self.0.join("mode.new");
        std::fs::write(&new, mode).unwrap();
        std::fs::rename(&new, self.0.join("mode")).unwrap();
    }

    pub fn alive(&self) -> Value {
        let text = std::fs::read(self.0.join("alive")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or(Value::Null)
    }

    pub fn seen(&self) -> u64 {
        self.alive()["seen"].as_u64().unwrap_or(0)
    }

    pub fn looks(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.0.join("caught")).unwrap();
        // The last line may be incomplete.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}
