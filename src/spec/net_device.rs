//! `linux.netDevices`: network devices of the host that the container gets.

use super::raw;
use crate::error::{invalid, Result};
use std::collections::BTreeMap;
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
    raw.into_iter().map(device).collect()
}

/// What the kernel takes (`dev_valid_name`), but for a pattern such as `eth%d`: nobody would know which name it has become.
fn name(field: &str, name: &str) -> Result<CString> {
    let wrong = matches!(name, "" | "." | "..")
        || name.len() > LONGEST
        || name.contains(|c: char| {
            matches!(c, '/' | ':' | '%' | '\0') || c.is_ascii_whitespace() || c == '\x0b'
        });
    match CString::new(name) {
        Ok(name) if !wrong => Ok(name),
        _ => Err(invalid(format!("{field}: {name:?} is not the name of a network device"))),
    }
}
