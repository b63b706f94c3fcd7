//! Which program it is.

use crate::error::{invalid, Error, Kind, Result};
use crate::paths::{Paths, Purpose};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

const NAME: &str = "criu";

/// The program, found.
#[derive(Debug)]
pub struct Criu(pub(super) CString);

impl Criu {
    /// The operator's, else the one in the shim's PATH.
    pub async fn find(paths: &Paths, named: Option<&Path>, deadline: Instant) -> Result<Self> {
        let places: Vec<PathBuf> = match named {
            Some(path) => vec![path.to_owned()],
            None => std::env::var_os("PATH")
                .iter()
                .flat_map(std::env::split_paths)
                .map(|folder| folder.join(NAME))
                .collect(),
        };
        for place in &places {
            match paths.open(place, Purpose::Look, deadline).await {
                Ok(opened) if opened.mode & 0o111 != 0 && opened.kind == crate::sys::pipe::Kind::Other => {
                    let path = CString::new(place.as_os_str().as_bytes());
                    return path.map(Criu).map_err(|e| invalid(format!("{place:?}: {e}")));
                }
                Err(e) if e.kind() == Kind::Deadline => return Err(e),
                _ => {}
            }
        }
        let place = named.map_or_else(|| "$PATH".into(), |path| format!("{path:?}"));
        Err(Error::new(
            Kind::Unsupported,
            format!("checkpoint and restore need the program criu: not found in {place}"),
        ))
    }
}
