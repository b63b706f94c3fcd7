//! `linux.devices`: the nodes that the container gets besides the default ones.

use crate::error::{invalid, Result};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub path: String,
    /// The type (S_IFCHR, S_IFBLK, S_IFIFO) and the permissions.
    pub mode: u32,
    pub major: u32,
    pub minor: u32,
    pub uid: u32,
    pub gid: u32,
}

pub(super) fn check(list: Vec<LinuxDevice>) -> Result<Vec<Device>> {
    list.iter()
        .enumerate()
        .map(|(i, device)| {
            let field = |name: &str| format!("linux.devices[{i}].{name}");
            let path = device.path().to_str().unwrap_or_default().to_owned();
            if !path.starts_with('/') || path.contains('\0') {
                return Err(invalid(format!(
                    "{}: {:?} is not an absolute path",
                    field("path"),
                    device.path()
                )));
            }
            let kind = match device.typ() {
                LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
                LinuxDeviceType::B => libc::S_IFBLK,
                LinuxDeviceType::P => libc::S_IFIFO,
                LinuxDeviceType::A => return Err(invalid(format!("{}: \"a\" is not a node", field("type")))),
            };
            // The kernel's own widths: 12 bits for the major number, 20 for the minor (MKDEV in linux/kdev_t.h).
            let number = |name, value: i64, bits: u32| match u32::try_from(value) {
                Ok(number) if number < 1 << bits => Ok(number),
                _ => Err(invalid(format!("{}: {value} is not a device number", field(name)))),
            };
            let fifo = kind == libc::S_IFIFO;
            Ok(Device {
                path,
                mode: kind | device.file_mode().unwrap_or(0o666) & 0o7777,
                major: if fifo { 0 } else { number("major", device.major(), 12)? },
                minor: if fifo { 0 } else { number("minor", device.minor(), 20)? },
                uid: device.uid().unwrap_or(0),
                gid: device.gid().unwrap_or(0),
            })
        })
        .collect()
}
