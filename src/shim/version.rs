//! `-v`: name, version, revision.

use super::NAME;
use crate::error::Result;

/// Set by the release build.
pub const REVISION: &str = match option_env!("SHOAL_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

pub fn print() -> Result<()> {
    println!("{NAME}:\n  Version:  {}\n  Revision: {REVISION}", env!("CARGO_PKG_VERSION"));
    Ok(())
}
