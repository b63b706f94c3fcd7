//! Ids and capabilities.

use crate::plan::step::CapabilitySets;
use crate::sys::child::{identity, Errno, Forked, Key, Result};
use ::core::prelude::rust_2021::*;

/// Drops everything not in `keep` from the bounding set. Capabilities unknown to this kernel cannot be dropped.
pub(super) fn bounding_set(forked: Forked, keep: u64, last: u8) -> Result<()> {
    for capability in identity::capability_numbers(!keep) {
        if capability > last {
            break;
        }
        match identity::drop_from_bounding_set(forked, capability) {
            Err(Errno::EINVAL) => {}
            // Without CAP_SETPCAP: fine if there is nothing to drop.
            Err(Errno::EPERM) if identity::in_bounding_set(capability) == Ok(false) => {}
            answer => answer?,
        }
    }
    Ok(())
}

/// Becomes root of the user namespace just entered.
pub(super) fn become_root(forked: Forked) -> Result<()> {
    identity::set_gid(forked, 0)?;
    identity::set_uid(forked, 0)?;
    identity::undumpable()
}

pub(super) fn set_ids(forked: Forked, uid: u32, gid: u32) -> Result<()> {
    identity::keep_capabilities(forked)?;
    identity::set_gid(forked, gid)?;
    identity::set_uid(forked, uid)?;
    // A change of ids sets this to fs.suid_dumpable, which an administrator may have set to 1.
    identity::undumpable()
}

/// Sets the capabilities. The inheritable set is the plan's, which is no more than the spec asks for (CVE-2022-29162).
pub(super) fn capabilities(forked: Forked, key: Key, sets: &CapabilitySets) -> Result<()> {
    identity::set_capabilities(forked, key, sets.effective, sets.permitted, sets.inheritable)?;
    identity::clear_ambient(forked, key)?;
    for capability in identity::capability_numbers(sets.ambient) {
        identity::raise_ambient(forked, key, capability)?;
    }
    Ok(())
}
