//! `runtime.v1.PodSandboxConfig`, validated as far as possible without looking at the host. Errors name the field.

use crate::error::{invalid, Error, Kind, Result};
use crate::sandbox::{Dns, PodConfig, PodPid};
use crate::service::convert::type_name;
use crate::service::protos::pod::{
    DNSConfig, IDMapping, LinuxPodSandboxConfig, NamespaceMode, NamespaceOption, PodSandboxConfig,
    UserNamespace,
};
use crate::spec::{IdRange, Mappings, Ns};
use crate::sys::identity::HOSTNAME_MAX;
use protobuf::well_known_types::any::Any;
use protobuf::{EnumOrUnknown, Message};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

const CRI: &str = "runtime.v1.PodSandboxConfig";
const EMPTY: &str = "google.protobuf.Empty";

/// None: the pod is specified by the config.json of its bundle.
pub(in crate::service) fn from_any(any: Option<&Any>) -> Result<Option<PodConfig>> {
    let Some(any) = any else { return Ok(None) };
    match type_name(any) {
        EMPTY => Ok(None),
        "" if any.value.is_empty() => Ok(None),
        CRI => {
            let config = PodSandboxConfig::parse_from_bytes(&any.value)
                .map_err(|e| Error::caused_by(Kind::Invalid, format!("options: decode {CRI}"), e))?;
            from_cri(config).map(Some).map_err(|e| e.context("options"))
        }
        _ => Err(invalid(format!("options: the type {:?} is not known, {CRI} is", any.type_url))),
    }
}

/// Checks that the request's fields do not contradict its configuration.
pub(in crate::service) fn agrees(config: &PodConfig, netns: Option<&Path>) -> Result<()> {
    match (&config.net, netns) {
        (Ns::Host, Some(path)) => {
            Err(invalid(format!("netns_path: {path:?}, and the network that options ask for is the host's")))
        }
        _ => Ok(()),
    }
}

fn from_cri(config: PodSandboxConfig) -> Result<PodConfig> {
    let metadata = config.metadata.unwrap_or_default();
    let linux = config.linux.unwrap_or_default();
    let wanted = linux.security_context.namespace_options.clone().unwrap_or_default();
    let net = shared("network", wanted.network)?;
    Ok(PodConfig {
        hostname: hostname(config.hostname)?,
        uts: net.clone(),
        net,
        ipc: shared("ipc", wanted.ipc)?,
        pid: pid(&wanted)?,
        user: wanted.userns_options.as_ref().map(user).transpose()?.flatten(),
        dns: config.dns_config.into_option().map(dns).transpose()?,
        cgroup_parent: cgroup_parent(&linux)?,
        sysctls: sysctls(linux.sysctls)?,
        labels: config.labels.into_iter().collect(),
        annotations: config.annotations.into_iter().collect(),
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        attempt: metadata.attempt,
    })
}

fn option(name: &str) -> String {
    format!("linux.security_context.namespace_options.{name}")
}

/// A number that is not a known mode is reported as is.
fn refused(field: &str, mode: EnumOrUnknown<NamespaceMode>, allowed: &str) -> Error {
    let word = mode.enum_value().map_or_else(|number| number.to_string(), |mode| format!("{mode:?}"));
    invalid(format!("{}: {word}, must be {allowed}", option(field)))
}

/// A namespace shared by the pod's containers: the pod's or the host's.
fn shared(field: &str, mode: EnumOrUnknown<NamespaceMode>) -> Result<Ns> {
    match mode.enum_value() {
        Ok(NamespaceMode::POD) => Ok(Ns::New),
        Ok(NamespaceMode::NODE) => Ok(Ns::Host),
        _ => Err(refused(field, mode, "POD or NODE")),
    }
}

fn pid(wanted: &NamespaceOption) -> Result<PodPid> {
    match wanted.pid.enum_value() {
        Ok(NamespaceMode::POD) => Ok(PodPid::Pod),
        Ok(NamespaceMode::CONTAINER) => Ok(PodPid::Container),
        Ok(NamespaceMode::NODE) => Ok(PodPid::Node),
        _ => Err(refused("pid", wanted.pid, "POD, CONTAINER or NODE")),
    }
}

fn user(wanted: &UserNamespace) -> Result<Option<Mappings>> {
    match wanted.mode.enum_value() {
        Ok(NamespaceMode::NODE) if wanted.uids.is_empty() && wanted.gids.is_empty() => Ok(None),
        Ok(NamespaceMode::NODE) => {
            Err(invalid(format!("{}: NODE has no mappings", option("userns_options"))))
        }
        Ok(NamespaceMode::POD) => Ok(Some(Mappings {
            uids: vec![mapping("userns_options.uids", &wanted.uids)?],
            gids: vec![mapping("userns_options.gids", &wanted.gids)?],
        })),
        _ => Err(refused("userns_options.mode", wanted.mode, "POD or NODE")),
    }
}

fn mapping(field: &str, list: &[IDMapping]) -> Result<IdRange> {
    let [one] = list else {
        return Err(invalid(format!("{}: {} mappings, must be one", option(field), list.len())));
    };
    let IDMapping { host_id: outside, container_id: inside, length: size, .. } = *one;
    let end = |first: u32| first.checked_add(size);
    match (size, end(inside), end(outside)) {
        (1.., Some(_), Some(_)) => Ok(IdRange { inside, outside, count: size }),
        _ => Err(invalid(format!(
            "{}[0]: {size} ids from {inside} and from {outside} on are not a range",
            option(field)
        ))),
    }
}

/// Validates a hostname. The kernel accepts any bytes, but the name becomes a line in files and a word in other lines.
fn hostname(name: String) -> Result<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let why = match name.as_str() {
        name if name.len() > HOSTNAME_MAX => "is longer than the 64 bytes of the kernel",
        name if !name.chars().all(good) => "has a character besides letters, digits, '-', '.' and '_'",
        name if name.starts_with(['-', '.']) => "begins with a mark",
        _ => return Ok(name),
    };
    Err(invalid(format!("hostname: {name:?} {why}")))
}

/// Kubernetes' limits for a pod (from its API validation). Longer lists are written all the same, as for CRI's own
/// pods: most resolvers stop at some number and decide themselves which entries they use.
const SERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
/// Including the separating spaces.
const SEARCH_LINE_MAX: usize = 2048;

/// Warnings about lists that exceed the limits.
fn beyond(wanted: &DNSConfig) -> Vec<String> {
    let line = wanted.searches.join(" ").len();
    [
        ("servers", wanted.servers.len(), SERVERS_MAX, "entries"),
        ("searches", wanted.searches.len(), SEARCHES_MAX, "entries"),
        ("searches", line, SEARCH_LINE_MAX, "characters"),
    ]
    .into_iter()
    .filter(|(_, count, most, _)| count > most)
    .map(|(field, count, most, unit)| {
        format!(
            "dns_config.{field}: {count} {unit}, Kubernetes allows {most}: a resolver may ignore the rest"
        )
    })
    .collect()
}

/// Converts the DNS configuration. Rejects what a resolver cannot parse: servers are addresses, the rest words.
fn dns(wanted: DNSConfig) -> Result<Dns> {
    for warning in beyond(&wanted) {
        log::warn!("options: {warning}");
    }
    for (i, server) in wanted.servers.iter().enumerate() {
        // A link-local address includes its interface: fe80::1%eth0.
        let address = server.split_once('%').map_or(server.as_str(), |(address, _)| address);
        if address.parse::<IpAddr>().is_err() {
            return Err(invalid(format!("dns_config.servers[{i}]: {server:?} is not an address")));
        }
        word("servers", i, server)?;
    }
    for (field, list) in [("searches", &wanted.searches), ("options", &wanted.options)] {
        list.iter().enumerate().try_for_each(|(i, text)| word(field, i, text))?;
    }
    Ok(Dns { servers: wanted.servers, searches: wanted.searches, options: wanted.options })
}

fn word(field: &str, i: usize, text: &str) -> Result<()> {
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        Err(invalid(format!("dns_config.{field}[{i}]: {text:?} is not one word")))
    } else {
        Ok(())
    }
}

fn cgroup_parent(linux: &LinuxPodSandboxConfig) -> Result<String> {
    let path = &linux.cgroup_parent;
    let bad =
        path.contains(['\0', '\n']) || Path::new(path).components().any(|part| part.as_os_str() == "..");
    if bad {
        Err(invalid(format!("linux.cgroup_parent: {path:?} is not a cgroup")))
    } else {
        Ok(path.clone())
    }
}

/// Checks only the syntax: which sysctls a pod may set depends on its namespaces, which the domain knows.
fn sysctls(wanted: impl IntoIterator<Item = (String, String)>) -> Result<BTreeMap<String, String>> {
    let sysctls: BTreeMap<_, _> = wanted.into_iter().collect();
    for (name, value) in &sysctls {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '-' | '_');
        if name.is_empty() || name.contains("..") || name.starts_with('/') || !name.chars().all(good) {
            return Err(invalid(format!("linux.sysctls[{name:?}]: not the name of a sysctl")));
        }
        if value.contains(['\0', '\n']) {
            return Err(invalid(format!("linux.sysctls[{name:?}]: {value:?} is more than one line")));
        }
    }
    Ok(sysctls)
}

#[cfg(test)]
mod tests;
