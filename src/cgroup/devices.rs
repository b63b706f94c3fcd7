//! Which devices a container may use: the spec's rules and those that every container gets, for the v1 controller and
//! for the eBPF program of v2.

pub(super) mod filter;

use crate::error::{Error, Kind, Result};
use crate::spec::resources::{Access, DeviceKind, DeviceRule};

/// The devices of the OCI runtime spec ("Default Devices"), mknod of any device, and terminals. As in runc, `tun` is
/// among them: VPN software in containers expects it.
const DEFAULTS: [(DeviceKind, Option<u32>, Option<u32>, Access); 11] = [
    (DeviceKind::Char, None, None, Access::MKNOD),
    (DeviceKind::Block, None, None, Access::MKNOD),
    (DeviceKind::Char, Some(1), Some(3), Access::ALL), // null
    (DeviceKind::Char, Some(1), Some(5), Access::ALL), // zero
    (DeviceKind::Char, Some(1), Some(7), Access::ALL), // full
    (DeviceKind::Char, Some(1), Some(8), Access::ALL), // random
    (DeviceKind::Char, Some(1), Some(9), Access::ALL), // urandom
    (DeviceKind::Char, Some(5), Some(0), Access::ALL), // tty
    (DeviceKind::Char, Some(5), Some(2), Access::ALL), // ptmx
    (DeviceKind::Char, Some(136), None, Access::ALL),  // pts, and the console's bind
    (DeviceKind::Char, Some(10), Some(200), Access::ALL), // tun
];

/// The last matching rule decides, for each kind of access separately; if none matches, `default_allow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) default_allow: bool,
    /// None of them covers all devices.
    pub(super) rules: Vec<DeviceRule>,
}

impl Policy {
    /// Compiles the rules. If none covers all devices, the default is to deny.
    pub(super) fn compile(spec: &[DeviceRule]) -> Policy {
        let defaults = DEFAULTS.iter().map(|&(kind, major, minor, access)| DeviceRule {
            allow: true,
            kind,
            major,
            minor,
            access,
        });
        let mut policy = Policy { default_allow: false, rules: Vec::new() };
        for rule in spec.iter().copied().chain(defaults) {
            match rule.kind {
                // It decides for every device, and overrides all earlier rules.
                DeviceKind::All => policy = Policy { default_allow: rule.allow, rules: Vec::new() },
                _ => policy.rules.push(rule),
            }
        }
        if policy.default_allow && policy.rules.iter().all(|rule| rule.allow) {
            policy.rules.clear();
        }
        policy
    }

    /// Whether no device is refused.
    pub(super) fn allows_all(&self) -> bool {
        self.default_allow && self.rules.is_empty()
    }

    /// The exceptions from the default as the v1 controller keeps them: a set in which each entry adds access. It
    /// cannot exclude part of a wider entry, so rules that require that are refused.
    pub(super) fn exceptions(&self) -> Result<Vec<DeviceRule>> {
        let mut exceptions: Vec<DeviceRule> = Vec::new();
        for rule in &self.rules {
            let same = |e: &DeviceRule| (e.kind, e.major, e.minor) == (rule.kind, rule.major, rule.minor);
            if rule.allow != self.default_allow {
                match exceptions.iter_mut().find(|e| same(e)) {
                    Some(e) => e.access = Access(e.access.0 | rule.access.0),
                    None => exceptions.push(*rule),
                }
                continue;
            }
            let meets = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
            let covers = |e: &DeviceRule| {
                e.kind == rule.kind
                    && meets(e.major, rule.major)
                    && meets(e.minor, rule.minor)
                    && e.access.0 & rule.access.0 != 0
            };
            let inside = |e: &DeviceRule| {
                e.kind == rule.kind
                    && (rule.major.is_none() || e.major == rule.major)
                    && (rule.minor.is_none() || e.minor == rule.minor)
            };
            if exceptions.iter().any(|e| covers(e) && !inside(e)) {
                let verb = if rule.allow { "allow" } else { "deny" };
                return Err(Error::new(
                    Kind::Invalid,
                    format!("linux.resources.devices: {verb} {rule}: a wider rule before it covers the device, and cgroup v1 cannot take a part out of a rule"),
                ));
            }
            for e in exceptions.iter_mut().filter(|e| inside(e)) {
                e.access = Access(e.access.0 & !rule.access.0);
            }
            exceptions.retain(|e| e.access.0 != 0);
        }
        Ok(exceptions)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cgroup) fn rule(text: &str) -> DeviceRule {
        let fields: Vec<&str> = text.split(' ').collect();
        let kind = match fields[1] {
            "a" => DeviceKind::All,
            "c" => DeviceKind::Char,
            _ => DeviceKind::Block,
        };
        let numbers: Vec<Option<u32>> =
            fields.get(2).unwrap_or(&"*:*").split(':').map(|n| n.parse().ok()).collect();
        let access = Access::parse(fields.get(3).unwrap_or(&"rwm")).unwrap();
        DeviceRule { allow: fields[0] == "allow", kind, major: numbers[0], minor: numbers[1], access }
    }

    fn exceptions(rules: &[&str]) -> Vec<String> {
        let rules: Vec<DeviceRule> = rules.iter().map(|r| rule(r)).collect();
        Policy::compile(&rules).exceptions().unwrap().iter().map(|e| e.to_string()).collect()
    }

    #[test]
    fn every_container_gets_the_default_devices() {
        let mine = exceptions(&["deny a", "allow b 8:0 r"]);
        assert_eq!(mine[0], "b 8:0 r");
        assert!(mine.contains(&"c 1:3 rwm".to_owned()) && mine.contains(&"c 136:* rwm".to_owned()));
        assert_eq!(mine.len(), 12);
    }

    #[test]
    fn a_privileged_container_needs_no_rule() {
        assert!(Policy::compile(&[rule("deny a"), rule("allow a")]).allows_all());
        assert!(!Policy::compile(&[]).allows_all());
        let but_one = Policy::compile(&[rule("allow a"), rule("deny b 8:0 w")]);
        assert_eq!(but_one.exceptions().unwrap(), [rule("deny b 8:0 w")]);
    }

    #[test]
    fn what_is_taken_back_is_gone() {
        let mine = exceptions(&["allow c 10:1 rwm", "allow c 10:2 rwm", "deny c 10:* w", "deny c 10:2 rm"]);
        assert_eq!(mine[0], "c 10:1 rm");
        assert!(!mine.iter().any(|e| e.starts_with("c 10:2 ")));
    }

    #[test]
    fn a_hole_in_a_wider_rule_is_refused_on_v1() {
        let error =
            Policy::compile(&[rule("allow c 10:* rwm"), rule("deny c 10:2 w")]).exceptions().unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains("deny c 10:2 w"), "{error}");
    }
}
