//! Caches compiled programs, keyed by what they were compiled from.
//!
//! An exec has its container's profile, and the containers of a pod usually share one. The key is a digest of the
//! checked profile and of the compiler's version, so that a cache on a tmpfs, shared by the shims of a node, could use
//! the same keys.

use super::{compile, Compiled};
use crate::error::{Context, Error, Kind, Result};
use crate::spec::seccomp::Seccomp;
use crate::sync::{Mutex, MutexGuard};
use sha2::{Digest, Sha256};

/// A pod rarely has more than one profile; a program is about ten kilobytes.
const CAPACITY: usize = 4;

type Key = [u8; 32];

/// A bounded cache that evicts the least recently used program.
#[derive(Debug, Default)]
pub struct Cache(Mutex<Vec<(Key, Compiled)>>);

impl Cache {
    pub fn compile(&self, seccomp: &Seccomp) -> Result<Compiled> {
        let key = key(seccomp)?;
        if let Some(compiled) = self.take(&key) {
            self.put(key, &compiled);
            return Ok(compiled);
        }
        // Compiled without the lock: two simultaneous requests do the work twice, but neither waits for the other.
        let compiled = compile(seccomp)?;
        self.put(key, &compiled);
        Ok(compiled)
    }

    fn entries(&self) -> MutexGuard<'_, Vec<(Key, Compiled)>> {
        self.0.lock()
    }

    fn take(&self, key: &Key) -> Option<Compiled> {
        let mut entries = self.entries();
        let found = entries.iter().position(|(known, _)| known == key)?;
        Some(entries.remove(found).1)
    }

    fn put(&self, key: Key, compiled: &Compiled) {
        let mut entries = self.entries();
        entries.retain(|(known, _)| *known != key);
        if entries.len() == CAPACITY {
            entries.remove(0);
        }
        entries.push((key, compiled.clone()));
    }
}

fn key(seccomp: &Seccomp) -> Result<Key> {
    let bug = |what: &'static str| Error::new(Kind::Bug, what);
    let version = libseccomp::ScmpVersion::current().map_err(|_| bug("libseccomp has no version"))?;
    let version = format!("{}.{}.{}", version.major, version.minor, version.micro);
    let profile = serde_json::to_vec(seccomp)
        .map_err(|e| Error::caused_by(Kind::Bug, "a checked profile as JSON", e))
        .context(|| "linux.seccomp")?;
    let digest =
        Sha256::new().chain_update(env!("CARGO_PKG_VERSION")).chain_update(version).chain_update(profile);
    Ok(digest.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn profile(errno: u32) -> Seccomp {
        let json = serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": errno});
        Seccomp::check(&serde_json::from_value(json).unwrap()).unwrap()
    }

    #[test]
    fn the_same_profile_is_compiled_once() {
        let cache = Cache::default();
        let one = cache.compile(&profile(1)).unwrap();
        let two = cache.compile(&profile(1)).unwrap();
        assert!(Arc::ptr_eq(&one.filter.program, &two.filter.program));
        let other = cache.compile(&profile(2)).unwrap();
        assert_ne!(one.filter.program, other.filter.program);
    }

    #[test]
    fn only_so_many_are_kept_and_those_in_use_stay() {
        let cache = Cache::default();
        let first = cache.compile(&profile(1)).unwrap();
        for errno in 2..=10 {
            cache.compile(&profile(errno)).unwrap();
            let again = cache.compile(&profile(1)).unwrap();
            assert!(Arc::ptr_eq(&first.filter.program, &again.filter.program));
        }
        assert_eq!(cache.entries().len(), CAPACITY);
    }
}
