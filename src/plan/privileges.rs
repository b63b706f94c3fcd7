//! Drops ids and capabilities, in runc's order.

use super::builder::Builder;
use super::host::Host;
use super::Step;
use crate::spec::{CapabilitySets, Process};
use crate::sys::seccomp::Filter;

/// `in_user`: in a user namespace, which may forbid setgroups(2); the groups have been dropped before it.
pub(super) fn all(b: &mut Builder, process: &Process, host: &Host, filter: Option<&Filter>, in_user: bool) {
    let user = &process.user;
    let sets = available(b, process.capabilities.unwrap_or_default(), host);
    if process.no_new_privileges {
        b.step("process.noNewPrivileges", Step::NoNewPrivs);
    }
    let workdir = |retry| Step::Workdir { path: process.cwd.clone(), retry };
    // Root may enter directories that the user may not; the user, some that root may not (NFS with root_squash).
    let retry = user.uid != 0;
    b.step("process.cwd", workdir(retry));
    b.step("process.capabilities.bounding", Step::BoundingSet { keep: sets.bounding, last: host.last_cap });
    if !(in_user && user.additional_gids.is_empty()) {
        b.step("process.user.additionalGids", Step::SetGroups(user.additional_gids.clone()));
    }
    b.step("process.user", Step::SetIds { uid: user.uid, gid: user.gid });
    if retry {
        b.step("process.cwd", workdir(false));
    }
    if let Some(filter) = filter.filter(|_| !process.no_new_privileges) {
        // Without no_new_privs a filter needs CAP_SYS_ADMIN, which is about to be dropped. As much as possible happens
        // before it: a profile allows what the program needs, and what runc does under it.
        if user.uid != 0 {
            b.step("linux.seccomp", Step::Regain);
        }
        b.step("linux.seccomp", Step::SeccompEarly(filter.clone()));
    }
    b.step("process.capabilities", Step::Capabilities(sets));
}

/// Restricts the sets to the capabilities that this kernel knows, and the ambient set to those that it would raise; the
/// rest is ignored with a warning, like unknown names. Other sets that the kernel rejects fail in runc as well.
fn available(b: &mut Builder, sets: CapabilitySets, host: &Host) -> CapabilitySets {
    let has = host.capabilities();
    let wanted = sets.bounding | sets.effective | sets.permitted | sets.inheritable | sets.ambient;
    for name in CapabilitySets::names(wanted & !has) {
        b.warn(format!("process.capabilities: this kernel has no {name}, ignored"));
    }
    let mut sets = CapabilitySets {
        bounding: sets.bounding & has,
        effective: sets.effective & has,
        permitted: sets.permitted & has,
        inheritable: sets.inheritable & has,
        ambient: sets.ambient & has,
    };
    let raised = sets.ambient & sets.permitted & sets.inheritable;
    for name in CapabilitySets::names(sets.ambient & !raised) {
        b.warn(format!(
            "process.capabilities.ambient: {name} is not both permitted and inheritable, ignored"
        ));
    }
    sets.ambient = raised;
    sets
}
