//! `linux.netDevices`: network devices that move from the host into the container.

use super::raw;
use crate::error::{invalid, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;

/// IFNAMSIZ, without the zero at the end.
const LONGEST: usize = 15;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetDevice {
    /// On the host.
    pub from: CString,
    /// In the container.
    pub to: CString,
}

pub(super) fn check(raw: BTreeMap<String, raw::NetDevice>) -> Result<Vec<NetDevice>> {
    let device = |(from, raw): (String, raw::NetDevice)| {
        let field = format!("linux.netDevices.{from}");
        let to = raw.name.filter(|name| !name.is_empty()).unwrap_or_else(|| from.clone());
        Ok(NetDevice { from: name(&field, &from)?, to: name(&format!("{field}.name"), &to)? })
    };
    let devices = raw.into_iter().map(device).collect::<Result<Vec<_>>>()?;
    let mut names = BTreeSet::new();
    match devices.iter().find(|device| !names.insert(&device.to)) {
        None => Ok(devices),
        Some(NetDevice { from, to }) => {
            let from = from.to_string_lossy();
            Err(invalid(format!("linux.netDevices.{from}.name: another device becomes {to:?} too")))
        }
    }
}

/// A name that the kernel accepts (`dev_valid_name`), and no pattern such as `eth%d`, whose result nobody would know.
/// Each namespace has its own `lo`, which cannot be moved.
fn name(field: &str, name: &str) -> Result<CString> {
    let wrong = matches!(name, "" | "." | ".." | "lo")
        || name.len() > LONGEST
        || name.contains(|c: char| {
            matches!(c, '/' | ':' | '%' | '\0') || c.is_ascii_whitespace() || c == '\x0b'
        });
    match CString::new(name) {
        Ok(name) if !wrong => Ok(name),
        _ => Err(invalid(format!("{field}: {name:?} is not the name of a network device that can be moved"))),
    }
}
