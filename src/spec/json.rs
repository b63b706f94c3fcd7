//! From bytes to serde types, and from JSON strings to strings that a system call can take.

use crate::error::{invalid, Error, Kind, Result};
use serde::de::DeserializeOwned;
use std::ffi::CString;

/// Parses one document, called `name`. An error begins with the JSON path of the offending field, or with the name if
/// it is about the document itself.
pub fn parse<T: DeserializeOwned>(json: &[u8], name: &str) -> Result<T> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|e| {
        let path = e.path().to_string();
        let at_all = path == ".";
        let error = e.into_inner();
        // serde_json uses the category "syntax" for some errors that are only unexpected values.
        let what = match serde_json::from_slice::<serde::de::IgnoredAny>(json).is_ok() {
            true if at_all => name.to_owned(),
            true => path,
            false if at_all => format!("{name}: not JSON"),
            false => format!("{name}: not JSON, in {path}"),
        };
        Error::caused_by(Kind::Invalid, what, error)
    })?;
    reader.end().map_err(|e| Error::caused_by(Kind::Invalid, format!("{name}: not JSON"), e))?;
    Ok(value)
}

/// Converts a string for the kernel. JSON can spell a NUL, system calls cannot.
pub(super) fn c_string(field: impl FnOnce() -> String, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| invalid(format!("{}: a NUL byte in {text:?}", field())))
}

/// Converts an optional string; an empty one counts as missing, as in Go's types.
pub(super) fn text(field: &str, text: Option<String>) -> Result<Option<CString>> {
    match text {
        Some(text) if !text.is_empty() => c_string(|| field.into(), &text).map(Some),
        _ => Ok(None),
    }
}
