//! What containerd writes to the standard input of `start`, and the response it reads.
//!
//! containerd 2.3 and newer write `BootstrapParams`, older versions an Any with the runtime options, or nothing. Either
//! message decodes as the other (two strings in fields 1 and 2), so only the ids tell them apart.

use crate::error::{Context, Error, Kind, Result};
use crate::service::options::{self, Options, Reading};
use crate::tasks::block_on;
use containerd_shim_protos::bootstrap_api::BootstrapParams;
use protobuf::well_known_types::any::Any;
use protobuf::Message;
use std::io::Read;
use std::path::{Path, PathBuf};

const INPUT_MAX: u64 = 10 << 20;

/// The directory in which containerd 2.x keeps sandbox bundles.
const SANDBOX_BUNDLES: &str = "/io.containerd.sandbox.controller.v1.shim/";

/// The parameters of a launch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bootstrap {
    /// Decoded from BootstrapParams.
    pub modern: bool,
    pub options: Options,
    pub ttrpc_address: String,
    pub grpc_address: String,
    pub socket_dir: Option<PathBuf>,
    /// None if containerd did not specify it.
    pub level: Option<log::LevelFilter>,
}

pub fn read(input: impl Read, id: &str, namespace: &str) -> Result<Bootstrap> {
    let mut bytes = Vec::new();
    input.take(INPUT_MAX).read_to_end(&mut bytes).context(|| "read the standard input")?;
    decode(&bytes, id, namespace)
}

fn decode(bytes: &[u8], id: &str, namespace: &str) -> Result<Bootstrap> {
    if bytes.is_empty() {
        return Ok(Bootstrap::default());
    }
    if let Ok(params) = BootstrapParams::parse_from_bytes(bytes)
        && params.instance_id == id
        && params.namespace == namespace
    {
        return modern(params);
    }
    let any = Any::parse_from_bytes(bytes).map_err(|e| {
        let text = "the standard input is neither BootstrapParams of this id nor an Any";
        Error::caused_by(Kind::Invalid, text, e)
    })?;
    Ok(Bootstrap {
        options: block_on(options::from_any(Reading::default(), Some(&any)))?,
        ..Bootstrap::default()
    })
}

fn modern(params: BootstrapParams) -> Result<Bootstrap> {
    // Extensions of other kinds (CRI's, NRI's) are not for us.
    let any = params.extensions.iter().filter_map(|e| e.value.as_ref()).find(|any| options::known(any));
    Ok(Bootstrap {
        modern: true,
        options: block_on(options::from_any(Reading::default(), any))?,
        ttrpc_address: params.containerd_ttrpc_address,
        grpc_address: params.containerd_grpc_address,
        socket_dir: params.socket_dir.filter(|dir| !dir.is_empty()).map(PathBuf::from),
        level: Some(level(params.log_level.value())),
    })
}

/// Maps a log level. The enumeration is open, in steps of 4: a value in between maps to the nearest level, and to the
/// less verbose of two equally near ones, as in containerd's own crate.
fn level(value: i32) -> log::LevelFilter {
    match value {
        i32::MIN..=-7 => log::LevelFilter::Trace,
        -6..=-3 => log::LevelFilter::Debug,
        -2..=1 => log::LevelFilter::Info,
        2..=5 => log::LevelFilter::Warn,
        6.. => log::LevelFilter::Error,
    }
}

/// The protocol version to respond with. 1.7 rejects 3; 2.x needs 3 if the shim is to serve a sandbox's containers on
/// its own socket. Arguments and environment do not tell them apart, but the launch does.
pub fn version(bootstrap: &Bootstrap, bundle: &Path) -> u32 {
    if bootstrap.modern || is_sandbox(bundle) {
        3
    } else {
        2
    }
}

/// Whether containerd 2.x is launching a shim for a sandbox. (1.7 does so in a container's directory.)
pub fn is_sandbox(bundle: &Path) -> bool {
    format!("{}/", bundle.display()).contains(SANDBOX_BUNDLES)
}

/// The response of `start`. Every version reads JSON; no trailing newline, since nothing else may be in the output.
pub fn answer(version: u32, address: &str) -> String {
    serde_json::json!({ "version": version, "address": address, "protocol": "ttrpc" }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim_protos::bootstrap_api::Extension;
    use containerd_shim_protos::shim::oci;

    fn runc_options() -> Any {
        let options = oci::Options { systemd_cgroup: true, ..Default::default() };
        Any {
            type_url: "containerd.runc.v1.Options".into(),
            value: options.write_to_bytes().unwrap(),
            ..Default::default()
        }
    }

    #[test]
    fn no_input_is_no_options() {
        assert_eq!(decode(b"", "c1", "default").unwrap(), Bootstrap::default());
    }

    #[test]
    fn an_any_is_options() {
        let decoded = decode(&runc_options().write_to_bytes().unwrap(), "c1", "default").unwrap();
        assert!(decoded.options.container.systemd_cgroup && !decoded.modern);
    }

    #[test]
    fn params_of_this_launch_are_told_from_an_any() {
        let params = BootstrapParams {
            instance_id: "c1".into(),
            namespace: "default".into(),
            log_level: protobuf::EnumOrUnknown::from_i32(-4),
            containerd_ttrpc_address: "/x.ttrpc".into(),
            containerd_grpc_address: "/x.grpc".into(),
            extensions: vec![
                Extension {
                    value: Some(Any { type_url: "other.Type".into(), ..Default::default() }).into(),
                    ..Default::default()
                },
                Extension { value: Some(runc_options()).into(), ..Default::default() },
            ],
            socket_dir: Some("/run/s".into()),
            ..Default::default()
        };
        let bytes = params.write_to_bytes().unwrap();
        let decoded = decode(&bytes, "c1", "default").unwrap();
        assert!(decoded.modern && decoded.options.container.systemd_cgroup);
        assert_eq!(decoded.level, Some(log::LevelFilter::Debug));
        assert_eq!(decoded.socket_dir, Some("/run/s".into()));
        assert_eq!((decoded.ttrpc_address.as_str(), decoded.grpc_address.as_str()), ("/x.ttrpc", "/x.grpc"));
        // For another launch, the same bytes are an Any of an unknown type.
        assert!(decode(&bytes, "c2", "default").is_err());
    }

    #[test]
    fn the_version_follows_the_launch() {
        let old = Bootstrap::default();
        let new = Bootstrap { modern: true, ..Bootstrap::default() };
        let task = Path::new("/run/containerd/io.containerd.runtime.v2.task/k8s.io/a");
        let sandbox = Path::new("/run/containerd/io.containerd.sandbox.controller.v1.shim/k8s.io/a");
        assert_eq!([version(&old, task), version(&old, sandbox), version(&new, task)], [2, 3, 3]);
    }

    #[test]
    fn the_answer_is_json_and_nothing_else() {
        let text = answer(2, "unix:///run/containerd/s/x");
        assert_eq!(text, r#"{"address":"unix:///run/containerd/s/x","protocol":"ttrpc","version":2}"#);
    }
}
