//! `linux.seccomp` of the spec: a profile of which every part can be compiled.
//!
//! Accepts what runc accepts (its profiles are in use everywhere), and refuses unsupported parts by name.

use crate::error::{invalid, Result};
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSyscall};
use serde::Serialize;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

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
    /// Set if a rule notifies, and only then. The program is the same for every agent.
    #[serde(skip)]
    pub listener: Option<Listener>,
    /// Only with a listener.
    pub wait_killable: bool,
    /// Parts that were understood but have no effect.
    pub warnings: Vec<String>,
}

/// The agent that decides the calls of [`Action::Notify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where its unix stream socket is: see [`Listener::at`].
    path: PathBuf,
    pub metadata: Option<String>,
}

impl Listener {
    /// An abstract name, or a path. A relative one is below the bundle, which is runc's working directory.
    pub(crate) fn at(&self, bundle: &Path) -> PathBuf {
        if self.path.as_os_str().as_bytes().starts_with(b"@") {
            self.path.clone()
        } else {
            bundle.join(&self.path)
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Action {
    KillThread,
    KillProcess,
    Trap,
    Errno(u16),
    Trace(u16),
    /// In rules only.
    Notify,
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
            "linux.seccomp.defaultErrnoRet",
            &mut warnings,
        )?;
        let mut architectures = Vec::new();
        for arch in profile.architectures().iter().flatten() {
            if *arch != Arch::ScmpArchNative && !architectures.contains(arch) {
                architectures.push(*arch);
            }
        }
        if default == Action::Notify {
            return Err(invalid(format!("linux.seccomp.defaultAction: {NOTIFY} is for rules only")));
        }
        let syscalls = profile.syscalls().iter().flatten().enumerate();
        let rules =
            syscalls.map(|(i, syscall)| rule(i, syscall, &mut warnings)).collect::<Result<Vec<_>>>()?;
        let listener = listener(profile, &rules, &mut warnings)?;
        let Flags { log, spec_allow, wait_killable } = flags(profile.flags().as_deref(), listener.is_some())?;
        Ok(Seccomp { default, architectures, log, spec_allow, rules, listener, wait_killable, warnings })
    }
}

const NOTIFY: LinuxSeccompAction = LinuxSeccompAction::ScmpActNotify;

fn listener(profile: &LinuxSeccomp, rules: &[Rule], warnings: &mut Vec<String>) -> Result<Option<Listener>> {
    let path = profile.listener_path().clone().filter(|path| !path.as_os_str().is_empty());
    let metadata = profile.listener_metadata().clone().filter(|metadata| !metadata.is_empty());
    let notifies = |rule: &Rule| rule.action == Action::Notify && !rule.names.is_empty();
    match (rules.iter().position(notifies), path) {
        (Some(_), Some(path)) => Ok(Some(Listener { path, metadata })),
        (Some(i), None) => Err(invalid(format!(
            "linux.seccomp.listenerPath is not set, and linux.seccomp.syscalls[{i}].action is {NOTIFY}"
        ))),
        (None, path) => {
            for (field, there) in [("listenerPath", path.is_some()), ("listenerMetadata", metadata.is_some())]
            {
                if there {
                    warnings.push(format!("linux.seccomp.{field} has no effect: no rule notifies"));
                }
            }
            Ok(None)
        }
    }
}

struct Flags {
    log: bool,
    spec_allow: bool,
    wait_killable: bool,
}

fn flags(flags: Option<&[LinuxSeccompFilterFlag]>, listens: bool) -> Result<Flags> {
    // Without a list (an empty one is a list) the Speculative Store Bypass mitigation is off, as in runc, and as is the
    // kernel's own default since 5.16.
    let mut found = Flags { log: false, spec_allow: flags.is_none(), wait_killable: false };
    for (i, flag) in flags.unwrap_or_default().iter().enumerate() {
        match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => found.log = true,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => found.spec_allow = true,
            // The thread that loads the filter is the only one.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => {}
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if listens => {
                found.wait_killable = true;
            }
            // As in the kernel.
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                return Err(invalid(format!("linux.seccomp.flags[{i}]: {flag} is for a rule with {NOTIFY}")));
            }
        }
    }
    Ok(found)
}

fn action(
    action: LinuxSeccompAction,
    errno: Option<u32>,
    errno_field: &str,
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
        A::ScmpActNotify => Action::Notify,
    })
}

fn rule(i: usize, syscall: &LinuxSyscall, warnings: &mut Vec<String>) -> Result<Rule> {
    let at = format!("linux.seccomp.syscalls[{i}]");
    if let Some(n) = syscall.names().iter().position(String::is_empty) {
        return Err(invalid(format!("{at}.names[{n}]: an empty name")));
    }
    let action = action(syscall.action(), syscall.errno_ret(), &format!("{at}.errnoRet"), warnings)?;
    // As in runc, whose process reports its listener with this call: a profile should work with both.
    if action == Action::Notify && syscall.names().iter().any(|name| name == "write") {
        return Err(invalid(format!("{at}.action: {NOTIFY} is not for write")));
    }
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
    use crate::error::Kind;

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
    fn who_listens_is_there_where_a_rule_notifies() {
        let profile = |action: &str| {
            format!(
                r#"{{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent", "listenerMetadata": "a=b",
                    "syscalls": [{{"names": ["mkdir"], "action": "{action}"}}]}}"#
            )
        };
        let seccomp = check(&profile("SCMP_ACT_NOTIFY")).unwrap();
        let listener = Listener { path: "/agent".into(), metadata: Some("a=b".into()) };
        assert_eq!((seccomp.listener, seccomp.warnings.len()), (Some(listener), 0));
        let seccomp = check(&profile("SCMP_ACT_LOG")).unwrap();
        assert_eq!(seccomp.listener, None);
        let unheard = ["listenerPath", "listenerMetadata"]
            .map(|field| format!("linux.seccomp.{field} has no effect: no rule notifies"));
        assert_eq!(seccomp.warnings, unheard);
    }

    #[test]
    fn a_relative_path_is_below_the_bundle_and_an_abstract_name_is_none() {
        for (path, expected) in [("/a", "/a"), ("a/b", "/bundle/a/b"), ("@a", "@a"), ("./@a", "/bundle/./@a")]
        {
            let listener = Listener { path: path.into(), metadata: None };
            assert_eq!(listener.at(Path::new("/bundle")), Path::new(expected));
        }
    }

    #[test]
    fn the_field_at_fault_is_named() {
        let rule = |rule: &str| {
            let allow = r#"{"names": ["read"], "action": "SCMP_ACT_ALLOW"}"#;
            format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{allow}, {rule}]}}"#)
        };
        for (json, message) in [
            (
                rule(r#"{"names": ["x"], "action": "SCMP_ACT_NOTIFY"}"#),
                "linux.seccomp.listenerPath is not set, and linux.seccomp.syscalls[1].action is SCMP_ACT_NOTIFY",
            ),
            (
                rule(r#"{"names": ["x", "write"], "action": "SCMP_ACT_NOTIFY"}"#),
                "linux.seccomp.syscalls[1].action: SCMP_ACT_NOTIFY is not for write",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/agent"}"#.into(),
                "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}"#.into(),
                "linux.seccomp.defaultErrnoRet: 4096",
            ),
            (
                rule(r#"{"names": ["x", ""], "action": "SCMP_ACT_ALLOW"}"#),
                "linux.seccomp.syscalls[1].names[1]: an empty name",
            ),
            (
                rule(
                    r#"{"names": ["x"], "action": "SCMP_ACT_ALLOW",
                        "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}"#,
                ),
                "linux.seccomp.syscalls[1].args[0].index: 6",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW",
                    "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}"#
                    .into(),
                "linux.seccomp.flags[0]: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
            ),
        ] {
            let error = check(&json).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{error}");
            assert!(error.to_string().starts_with(message), "{error}");
        }
    }
}
