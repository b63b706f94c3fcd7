//! `-info`: describes this runtime and its features.

use super::version::REVISION;
use crate::error::{Context, Error, Kind, Result};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use protobuf::well_known_types::any::Any;
use protobuf::Message;
use std::io::Write;

const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

pub fn print() -> Result<()> {
    let info = info().write_to_bytes().map_err(|e| Error::caused_by(Kind::Bug, "encode RuntimeInfo", e))?;
    std::io::stdout().write_all(&info).context(|| "write the answer")
}

fn info() -> RuntimeInfo {
    let version = RuntimeVersion {
        version: env!("CARGO_PKG_VERSION").into(),
        revision: REVISION.into(),
        ..Default::default()
    };
    let features = Any {
        type_url: FEATURES.into(),
        value: super::features::features().to_string().into(),
        ..Default::default()
    };
    RuntimeInfo {
        name: "io.containerd.shoal.v2".into(),
        version: Some(version).into(),
        features: Some(features).into(),
        ..Default::default()
    }
}
