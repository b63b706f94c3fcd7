//! `linux.seccomp` of the spec: a profile of which every part can be compiled.
//!
//! Accepts what runc accepts (its profiles are in use everywhere), and refuses unsupported parts by name.

use crate::error::{invalid, Error, Kind, Result};
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSyscall};
use serde::Serialize;

pub(crate) use oci_spec::runtime::LinuxSeccompOperator as Operator;

/// MAX_ERRNO of linux/err.h.
const MAX_ERRNO: u32 = 4095;
/// A system call has at most six arguments.
const ARGUMENTS: usize = 6;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seccomp {
    /// For calls that no rule covers.
    pub default: Action,
    /// In addition to the native one; without duplicates.
    pub architectures: Vec<Arch>,
    pub log: bool,
    pub spec_allow: bool,
    pub rules: Vec<Rule>,
    /// Parts that were understood but have no effect.
    pub warnings: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Action {
    KillThread,
    KillProcess,
    Trap,
    Errno(u16),
    Trace(u16),
    Log,
    Allow,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    pub names: Vec<String>,
    pub action: Action,
    /// All must hold.
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// 0 to 5.
    pub argument: u8,
    pub operator: Operator,
    pub value: u64,
    /// For `SCMP_CMP_MASKED_EQ`: the value that the argument must have, masked by `value`.
    pub second: u64,
}

impl Seccomp {
    pub(crate) fn check(profile: &LinuxSeccomp) -> Result<Self> {
        let mut warnings = Vec::new();
        let default = action(
            profile.default_action(),
            profile.default_errno_ret(),
            ["linux.seccomp.defaultAction", "linux.seccomp.defaultErrnoRet"],
            &mut warnings,
        )?;
        let mut architectures = Vec::new();
        for arch in profile.architectures().iter().flatten() {
            if *arch != Arch::ScmpArchNative && !architectures.contains(arch) {
                architectures.push(*arch);
            }
        }
        let (log, spec_allow) = flags(profile.flags().as_deref())?;
        if profile.listener_path().is_some() {
            warnings.push("linux.seccomp.listenerPath has no effect: no rule notifies".into());
        }
        let syscalls = profile.syscalls().iter().flatten().enumerate();
        let rules =
            syscalls.map(|(i, syscall)| rule(i, syscall, &mut warnings)).collect::<Result<Vec<_>>>()?;
        Ok(Seccomp { default, architectures, log, spec_allow, rules, warnings })
    }
}

fn flags(flags: Option<&[LinuxSeccompFilterFlag]>) -> Result<(bool, bool)> {
    // Without a list (an empty one is a list) the Speculative Store Bypass mitigation is off, as in runc, and as is the
    // kernel's own default since 5.16.
    let Some(flags) = flags else { return Ok((false, true)) };
    let (mut log, mut spec_allow) = (false, false);
    for (i, flag) in flags.iter().enumerate() {
        match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => log = true,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => spec_allow = true,
            // The thread that loads the filter is the only one.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => {}
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                return Err(unsupported(format!("linux.seccomp.flags[{i}]"), flag))
            }
        }
    }
    Ok((log, spec_allow))
}

fn unsupported(field: String, what: impl std::fmt::Display) -> Error {
    Error::new(Kind::Unsupported, format!("{field}: {what} is not implemented: no listener is passed on"))
}

fn action(
    action: LinuxSeccompAction,
    errno: Option<u32>,
    [field, errno_field]: [&str; 2],
    warnings: &mut Vec<String>,
) -> Result<Action> {
    use LinuxSeccompAction as A;
    if let (A::ScmpActErrno | A::ScmpActTrace, Some(errno)) = (action, errno) {
        let max = if action == A::ScmpActErrno { MAX_ERRNO } else { u16::MAX.into() };
        if errno > max {
            return Err(invalid(format!("{errno_field}: {errno} is more than {max}")));
        }
    } else if errno.is_some() {
        warnings.push(format!("{errno_field} has no effect with {action}"));
    }
    // EPERM if the profile sets none; the range was checked above.
    let value = errno.map_or(libc::EPERM as u16, |errno| errno as u16);
    Ok(match action {
        A::ScmpActKill | A::ScmpActKillThread => Action::KillThread,
        A::ScmpActKillProcess => Action::KillProcess,
        A::ScmpActTrap => Action::Trap,
        A::ScmpActErrno => Action::Errno(value),
        A::ScmpActTrace => Action::Trace(value),
        A::ScmpActLog => Action::Log,
        A::ScmpActAllow => Action::Allow,
        A::ScmpActNotify => return Err(unsupported(field.to_owned(), action)),
    })
}

fn rule(i: usize, syscall: &LinuxSyscall, warnings: &mut Vec<String>) -> Result<Rule> {
    let at = format!("linux.seccomp.syscalls[{i}]");
    if let Some(n) = syscall.names().iter().position(String::is_empty) {
        return Err(invalid(format!("{at}.names[{n}]: an empty name")));
    }
    let fields = [format!("{at}.action"), format!("{at}.errnoRet")];
    let action = action(syscall.action(), syscall.errno_ret(), [&fields[0], &fields[1]], warnings)?;
    let conditions = syscall.args().iter().flatten().enumerate().map(|(n, arg)| {
        if arg.index() >= ARGUMENTS {
            let index = arg.index();
            return Err(invalid(format!("{at}.args[{n}].index: {index} (a call has {ARGUMENTS} arguments)")));
        }
        Ok(Condition {
            argument: arg.index() as u8,
            operator: arg.op(),
            value: arg.value(),
            second: arg.value_two().unwrap_or(0),
        })
    });
    Ok(Rule { names: syscall.names().clone(), action, conditions: conditions.collect::<Result<Vec<_>>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<Seccomp> {
        Seccomp::check(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn defaults_are_those_of_runc() {
        let seccomp = check(r#"{"defaultAction": "SCMP_ACT_ERRNO"}"#).unwrap();
        assert_eq!(seccomp.default, Action::Errno(1));
        assert!(seccomp.spec_allow && !seccomp.log);
        let seccomp = check(r#"{"defaultAction": "SCMP_ACT_KILL", "flags": []}"#).unwrap();
        assert_eq!(seccomp.default, Action::KillThread);
        assert!(!seccomp.spec_allow);
    }

    #[test]
    fn all_parts_arrive() {
        let seccomp = check(
            r#"{"defaultAction": "SCMP_ACT_TRACE", "defaultErrnoRet": 7,
                "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_NATIVE", "SCMP_ARCH_X86"],
                "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"],
                "syscalls": [{"names": ["read", "write"], "action": "SCMP_ACT_LOG", "errnoRet": 3, "args": [
                    {"index": 5, "value": 6, "valueTwo": 7, "op": "SCMP_CMP_MASKED_EQ"}]}]}"#,
        )
        .unwrap();
        assert_eq!(seccomp.default, Action::Trace(7));
        assert_eq!(seccomp.architectures, [Arch::ScmpArchX86]);
        assert!(seccomp.log && !seccomp.spec_allow);
        let [rule] = &seccomp.rules[..] else { panic!("{seccomp:?}") };
        assert_eq!(rule.names, ["read", "write"]);
        assert_eq!(rule.action, Action::Log);
        let condition = Condition { argument: 5, operator: Operator::ScmpCmpMaskedEq, value: 6, second: 7 };
        assert_eq!(rule.conditions, [condition]);
        assert_eq!(seccomp.warnings, ["linux.seccomp.syscalls[0].errnoRet has no effect with SCMP_ACT_LOG"]);
    }

    #[test]
    fn the_field_at_fault_is_named() {
        let rule = |rule: &str| {
            let allow = r#"{"names": ["read"], "action": "SCMP_ACT_ALLOW"}"#;
            format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{allow}, {rule}]}}"#)
        };
        for (json, kind, message) in [
            (
                rule(r#"{"names": ["x"], "action": "SCMP_ACT_NOTIFY"}"#),
                Kind::Unsupported,
                "linux.seccomp.syscalls[1].action: SCMP_ACT_NOTIFY",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#.into(),
                Kind::Unsupported,
                "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}"#.into(),
                Kind::Invalid,
                "linux.seccomp.defaultErrnoRet: 4096",
            ),
            (
                rule(r#"{"names": ["x", ""], "action": "SCMP_ACT_ALLOW"}"#),
                Kind::Invalid,
                "linux.seccomp.syscalls[1].names[1]: an empty name",
            ),
            (
                rule(
                    r#"{"names": ["x"], "action": "SCMP_ACT_ALLOW",
                        "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}"#,
                ),
                Kind::Invalid,
                "linux.seccomp.syscalls[1].args[0].index: 6",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW",
                    "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}"#
                    .into(),
                Kind::Unsupported,
                "linux.seccomp.flags[0]",
            ),
        ] {
            let error = check(&json).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().starts_with(message), "{error}");
        }
    }
}
