//! The pod as an OCI runtime specification: read from the bundle's config.json (`ctr sandboxes run`), and written to
//! tell clients what a container has to join (containerd 2.3 and newer store it, NRI reads it).

use super::files::{Files, SHM};
use super::namespaces::Held;
use super::request::{PodConfig, PodPid};
use crate::error::{Error, Kind, Result};
use crate::paths::Paths;
use crate::spec::{self, Ns};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What config.json specifies for a pod and CRI does not.
#[derive(Clone, Debug, Default)]
pub(super) struct Extra {
    /// `linux.cgroupsPath`.
    pub cgroups_path: String,
    pub shm_size: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Document {
    hostname: Option<String>,
    domainname: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
    mounts: Option<Vec<Mount>>,
    linux: Option<Linux>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Linux {
    namespaces: Option<Vec<Namespace>>,
    sysctl: Option<BTreeMap<String, String>>,
    cgroups_path: Option<String>,
}

#[derive(Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: PathBuf,
}

#[derive(Deserialize)]
struct Mount {
    destination: String,
    #[serde(default)]
    options: Option<Vec<String>>,
}

pub(super) async fn read(paths: &Paths, bundle: &Path, deadline: Instant) -> Result<(PodConfig, Extra)> {
    let text = paths.read(&bundle.join(spec::CONFIG), spec::CONFIG_MAX, deadline).await;
    let text = text.map_err(|e| match e.errno() {
        Some(libc::ENOENT) => {
            let what = "the sandbox has neither options (a PodSandboxConfig) nor a config.json in its bundle";
            Error::new(Kind::Invalid, what)
        }
        _ => e,
    })?;
    parse(&text)
}

fn parse(text: &[u8]) -> Result<(PodConfig, Extra)> {
    let document: Document = spec::parse_json(text, spec::CONFIG)?;
    if document.domainname.is_some_and(|name| !name.is_empty()) {
        let what = "domainname: not supported for a sandbox, the sysctl kernel.domainname is";
        return Err(Error::new(Kind::Unsupported, what));
    }
    let linux = document.linux.unwrap_or_default();
    let mut config = PodConfig {
        hostname: document.hostname.unwrap_or_default(),
        sysctls: linux.sysctl.unwrap_or_default(),
        annotations: document.annotations.unwrap_or_default(),
        // Each container specifies its own pid namespace.
        pid: PodPid::Container,
        ..PodConfig::default()
    };
    for (i, namespace) in linux.namespaces.unwrap_or_default().into_iter().enumerate() {
        let place = match namespace.kind.as_str() {
            "network" => &mut config.net,
            "ipc" => &mut config.ipc,
            "uts" => &mut config.uts,
            "pid" | "mount" | "cgroup" => continue,
            kind => {
                let what = format!("linux.namespaces[{i}].type: {kind:?} is not supported for a sandbox");
                return Err(Error::new(Kind::Unsupported, what));
            }
        };
        *place = if namespace.path.as_os_str().is_empty() { Ns::New } else { Ns::Join(namespace.path) };
    }
    let shm = document.mounts.unwrap_or_default().into_iter().find(|m| m.destination == SHM);
    let extra = Extra {
        cgroups_path: linux.cgroups_path.unwrap_or_default(),
        shm_size: shm.and_then(|mount| size(&mount.options.unwrap_or_default())),
    };
    Ok((config, extra))
}

/// Parses `size=65536k` of tmpfs(5).
fn size(options: &[String]) -> Option<u64> {
    let text = options.iter().find_map(|option| option.strip_prefix("size="))?;
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let shift = match unit {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Writes the specification; `sysctls` are those in effect.
pub(super) fn write(
    config: &PodConfig,
    held: &Held,
    files: &Files,
    sysctls: &BTreeMap<String, String>,
    cgroup: &str,
) -> Vec<u8> {
    let kinds = [
        ("network", "net", &config.net),
        ("ipc", "ipc", &config.ipc),
        ("uts", "uts", &config.uts),
        ("pid", "pid", &Ns::New),
        ("user", "user", &Ns::New),
    ];
    let namespaces: Vec<_> = kinds
        .into_iter()
        .filter(|(_, file, _)| held.path(file).is_some())
        .filter(|(kind, ..)| *kind != "pid" || config.pid == PodPid::Pod)
        .map(|(kind, file, wanted)| {
            // Keep the client's path: CNI plugins know the pod's network by it, even when no process of the pod is left
            // to lead there.
            let path = match wanted {
                Ns::Join(path) => path.to_string_lossy().into_owned(),
                _ => format!("/proc/{}/ns/{file}", held.pid),
            };
            json!({ "type": kind, "path": path })
        })
        .collect();
    let mounts: Vec<_> = files
        .iter()
        .map(|(destination, source)| {
            json!({ "destination": destination, "type": "bind", "source": source, "options": ["rbind", "rprivate", "rw"] })
        })
        .collect();
    let document = json!({
        "ociVersion": "1.1.0",
        "hostname": config.hostname,
        "mounts": mounts,
        "annotations": config.annotations,
        "linux": { "namespaces": namespaces, "sysctl": sysctls, "cgroupsPath": cgroup },
    });
    document.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_of_ctr_is_what_its_config_says() {
        let text = br#"{"ociVersion":"1.1.0","hostname":"h","process":{"args":["/pause"]},
            "mounts":[{"destination":"/dev/shm","type":"tmpfs","options":["nosuid","size=1m"]}],
            "linux":{"namespaces":[{"type":"network","path":"/n"},{"type":"uts"},{"type":"pid"}],
            "sysctl":{"kernel.msgmax":"9"},"cgroupsPath":"/a/b"}}"#;
        let (config, extra) = parse(text).unwrap();
        assert_eq!((config.net, config.uts, config.ipc), (Ns::Join("/n".into()), Ns::New, Ns::Host));
        assert_eq!((config.hostname.as_str(), config.pid), ("h", PodPid::Container));
        assert_eq!((extra.shm_size, extra.cgroups_path.as_str()), (Some(1 << 20), "/a/b"));
    }

    #[test]
    fn what_is_wrong_in_it_is_named() {
        let error = parse(br#"{"linux":{"sysctl":[]}}"#).unwrap_err().to_string();
        assert!(error.contains("linux.sysctl"), "{error}");
        let error = parse(br#"{"domainname":"example.org"}"#).unwrap_err().to_string();
        assert!(error.starts_with("domainname: not supported"), "{error}");
        let error = parse(br#"{"linux":{"namespaces":[{"type":"time"}]}}"#).unwrap_err().to_string();
        assert!(error.starts_with("linux.namespaces[0].type"), "{error}");
    }

    #[test]
    fn a_size_has_a_unit_or_is_in_bytes() {
        for (text, bytes) in
            [("size=64k", Some(65536)), ("size=5", Some(5)), ("size=50%", None), ("mode=1", None)]
        {
            assert_eq!(size(&[text.to_owned()]), bytes, "{text}");
        }
    }
}
