//! From bytes to serde types, and from JSON strings to strings that a system call can take.

use crate::error::{invalid, Error, Kind, Result};
use serde::de::DeserializeOwned;
use std::ffi::CString;

/// Reads one document, which has this name. An error begins with the JSON path of the field that is wrong, or with the
/// name where it is the document.
pub fn parse<T: DeserializeOwned>(json: &[u8], name: &str) -> Result<T> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|e| {
        let path = e.path().to_string();
        let at_all = path == ".";
        let error = e.into_inner();
        // serde_json has the category "syntax" for some of what is only not what was expected.
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

/// A string for the kernel. JSON can spell a NUL, system calls cannot.
pub(super) fn c_string(field: impl FnOnce() -> String, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| invalid(format!("{}: a NUL byte in {text:?}", field())))
}

/// An optional string; empty counts as missing, as in Go's types.
pub(super) fn text(field: &str, text: Option<String>) -> Result<Option<CString>> {
    match text {
        Some(text) if !text.is_empty() => c_string(|| field.into(), &text).map(Some),
        _ => Ok(None),
    }
}
