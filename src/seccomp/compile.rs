//! Compiles a profile with libseccomp, with runc's choices where libseccomp leaves one.

use super::{arch, newer, table, tree, Compiled};
use crate::error::{invalid, Context, Error, Kind, Result};
use crate::spec::seccomp::{Action, Condition, Operator, Rule, Seccomp};
use crate::sys::seccomp::{collect, Filter, SockFilter, FLAG_LOG, MAX_LENGTH};
use crate::sys::seccomp::{FLAG_NEW_LISTENER, FLAG_SPEC_ALLOW, FLAG_WAIT_KILLABLE_RECV};
use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use std::collections::BTreeSet;

/// The number of rules above which a binary search is shorter than a chain of comparisons; libseccomp up to 2.5.4
/// generates a wrong program for a search over no rules.
const SEARCH_FROM: usize = 32;
/// SCMP_FLTATR_CTL_OPTIMIZE of seccomp_attr_set(3): a binary tree.
const BINARY_TREE: u32 = 2;

pub fn compile(seccomp: &Seccomp) -> Result<Compiled> {
    let architectures = architectures(seccomp);
    let (tables, rest) = table::split(seccomp, &architectures);
    let mut program = tree::program(&tables);
    program.extend(by_libseccomp(seccomp, &architectures, |name| rest.contains(name))?);
    if program.len() > MAX_LENGTH {
        let length = program.len();
        return Err(invalid(format!(
            "linux.seccomp: the profile needs {length} instructions, and the kernel takes {MAX_LENGTH}"
        )));
    }

    let mut flags = 0;
    if seccomp.log {
        flags |= FLAG_LOG;
    }
    if seccomp.spec_allow {
        flags |= FLAG_SPEC_ALLOW;
    }
    if seccomp.listener.is_some() {
        flags |= FLAG_NEW_LISTENER;
    }
    if seccomp.wait_killable {
        flags |= FLAG_WAIT_KILLABLE_RECV;
    }
    let mut warnings = seccomp.warnings.clone();
    let names = seccomp.rules.iter().flat_map(|rule| &rule.names);
    let known = |name: &str| {
        // A rule about a newer call's arguments is beyond the table.
        ScmpSyscall::from_name(name).is_ok() || (newer::is_known(name) && !rest.contains(name))
    };
    let unknown: BTreeSet<&str> = names.map(String::as_str).filter(|name| !known(name)).collect();
    if !unknown.is_empty() {
        let names = unknown.into_iter().collect::<Vec<_>>().join(", ");
        warnings.push(format!("linux.seccomp.syscalls: unknown calls ignored: {names}"));
    }
    Ok(Compiled { filter: Filter { program: program.into(), flags }, warnings })
}

/// The profile's architectures without duplicates, the native one first.
pub(super) fn architectures(seccomp: &Seccomp) -> Vec<ScmpArch> {
    let mut architectures = vec![ScmpArch::native()];
    for arch in seccomp.architectures.iter().map(|arch| arch::of(*arch)) {
        if !architectures.contains(&arch) {
            architectures.push(arch);
        }
    }
    architectures
}

/// Compiles the rules about the `wanted` calls with libseccomp.
pub(super) fn by_libseccomp(
    seccomp: &Seccomp,
    architectures: &[ScmpArch],
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<SockFilter>> {
    let mut context = ScmpFilterContext::new(lower(seccomp.default))
        .map_err(|e| refused("linux.seccomp.defaultAction", e))?;
    for arch in architectures.iter().skip(1) {
        context
            .add_arch(*arch)
            .map_err(|e| refused(&format!("linux.seccomp.architectures ({arch:?})"), e))?;
    }
    let mut count = 0;
    for (i, rule) in seccomp.rules.iter().enumerate() {
        // libseccomp refuses a rule that equals the default action.
        if rule.action == seccomp.default {
            continue;
        }
        for name in rule.names.iter().filter(|name| wanted(name)) {
            // As in runc, a call unknown to this libseccomp is left out of the program.
            let Ok(call) = ScmpSyscall::from_name(name) else { continue };
            add(&mut context, rule, call)
                .map_err(|e| refused(&format!("linux.seccomp.syscalls[{i}] ({name})"), e))?;
            count += 1;
        }
    }
    if count > SEARCH_FROM {
        context.set_ctl_optimize(BINARY_TREE).map_err(|e| refused("linux.seccomp", e))?;
    }
    collect(|fd| context.export_bpf(fd))
        .context(|| "memfd_create(\"seccomp\")")?
        .map_err(|e| refused("linux.seccomp", e))
}

fn refused(field: &str, error: SeccompError) -> Error {
    Error::caused_by(Kind::Invalid, format!("{field}: libseccomp refuses it"), error)
}

fn add(
    context: &mut ScmpFilterContext,
    rule: &Rule,
    call: ScmpSyscall,
) -> std::result::Result<(), SeccompError> {
    let action = lower(rule.action);
    let conditions: Vec<ScmpArgCompare> = rule.conditions.iter().map(compare).collect();
    let arguments: BTreeSet<u8> = rule.conditions.iter().map(|condition| condition.argument).collect();
    if conditions.is_empty() {
        context.add_rule(action, call).map(drop)
    } else if arguments.len() == conditions.len() {
        context.add_rule_conditional(action, call, &conditions).map(drop)
    } else {
        // libseccomp takes only one condition per argument in a rule. As in runc, each condition then becomes a rule of
        // its own: any of them suffices, whereas otherwise all must hold.
        conditions.iter().try_for_each(|one| context.add_rule_conditional(action, call, &[*one]).map(drop))
    }
}

fn compare(condition: &Condition) -> ScmpArgCompare {
    let Condition { argument, operator, value, second } = *condition;
    let (operator, datum) = match operator {
        Operator::ScmpCmpNe => (ScmpCompareOp::NotEqual, value),
        Operator::ScmpCmpLt => (ScmpCompareOp::Less, value),
        Operator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, value),
        Operator::ScmpCmpEq => (ScmpCompareOp::Equal, value),
        Operator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, value),
        Operator::ScmpCmpGt => (ScmpCompareOp::Greater, value),
        Operator::ScmpCmpMaskedEq => (ScmpCompareOp::MaskedEqual(value), second),
    };
    ScmpArgCompare::new(argument.into(), operator, datum)
}

fn lower(action: Action) -> ScmpAction {
    match action {
        Action::KillThread => ScmpAction::KillThread,
        Action::KillProcess => ScmpAction::KillProcess,
        Action::Trap => ScmpAction::Trap,
        Action::Errno(errno) => ScmpAction::Errno(errno.into()),
        Action::Trace(value) => ScmpAction::Trace(value),
        Action::Notify => ScmpAction::Notify,
        Action::Log => ScmpAction::Log,
        Action::Allow => ScmpAction::Allow,
    }
}
