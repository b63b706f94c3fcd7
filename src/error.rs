//! The error type of the crate: a kind, the context added on the way up, and a source.
//!
//! The kind determines the RPC code and is set when the error is created; callers add context, outermost last. An error
//! names the call, the object and the errno; if a field of the spec is at fault, the field.

use std::borrow::Cow;
use std::fmt;

/// The kind of a failure. Each kind maps to one RPC code (see `service`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request or the spec is wrong: INVALID_ARGUMENT.
    Invalid,
    /// No such container, process or cgroup: NOT_FOUND.
    NotFound,
    /// The id is taken: ALREADY_EXISTS.
    Exists,
    /// Not allowed in the current state: FAILED_PRECONDITION.
    State,
    /// Not implemented: UNIMPLEMENTED.
    Unsupported,
    /// A peer (containerd, systemd) is unavailable: UNAVAILABLE.
    Unavailable,
    /// A time limit has passed: DEADLINE_EXCEEDED.
    Deadline,
    /// The caller may not do this: PERMISSION_DENIED.
    Denied,
    /// A system call failed: UNKNOWN, with the call as made and its errno.
    System,
    /// A broken invariant of ours: INTERNAL.
    Bug,
}

type Source = Box<dyn std::error::Error + Send + Sync>;

/// An error with its kind; `Display` prints the contexts, outermost first, then the source.
pub struct Error {
    kind: Kind,
    /// Innermost first.
    context: Vec<Cow<'static, str>>,
    source: Option<Source>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(kind: Kind, what: impl Into<Cow<'static, str>>) -> Self {
        Error { kind, context: vec![what.into()], source: None }
    }

    /// A failed system call: `what` is the call as made, e.g. `open("/dev/null", O_PATH)`.
    pub(crate) fn system(what: impl Into<Cow<'static, str>>, errno: i32) -> Self {
        Error { kind: Kind::System, context: vec![what.into()], source: Some(Box::new(Errno(errno))) }
    }

    pub(crate) fn caused_by(
        kind: Kind,
        what: impl Into<Cow<'static, str>>,
        source: impl Into<Source>,
    ) -> Self {
        Error { kind, context: vec![what.into()], source: Some(source.into()) }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn with_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// The underlying errno, if a system call failed.
    pub fn errno(&self) -> Option<i32> {
        let source = self.source.as_ref()?;
        if let Some(errno) = source.downcast_ref::<Errno>() {
            return Some(errno.0);
        }
        source.downcast_ref::<std::io::Error>().and_then(|e| e.raw_os_error())
    }

    /// Adds what was being done, e.g. `create c1`.
    pub(crate) fn context(mut self, what: impl Into<Cow<'static, str>>) -> Self {
        self.context.push(what.into());
        self
    }
}

pub fn invalid(what: impl Into<Cow<'static, str>>) -> Error {
    Error::new(Kind::Invalid, what)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, context) in self.context.iter().rev().enumerate() {
            if i > 0 {
                f.write_str(": ")?;
            }
            f.write_str(context)?;
        }
        match &self.source {
            Some(source) => write!(f, ": {}", words(&**source)),
            None => Ok(()),
        }
    }
}

/// The text of a source for users. An errno always reads like [`Errno`], wherever it comes from. The position at which
/// serde_json stopped is dropped: containerd writes config.json as a single line, so it means nothing to a user.
pub(crate) fn words(source: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    let errno = match source.downcast_ref::<std::io::Error>() {
        Some(error) => error.raw_os_error(),
        None => source.downcast_ref::<nix::errno::Errno>().map(|errno| *errno as i32),
    };
    match errno {
        Some(errno) => Errno(errno).to_string(),
        None if source.is::<serde_json::Error>() => without_place(&source.to_string()).to_owned(),
        None => source.to_string(),
    }
}

/// Strips ` at line 1 column 9`, which serde_json appends.
fn without_place(text: &str) -> &str {
    text.rsplit_once(" at line ").map_or(text, |(words, _)| words)
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl std::error::Error for Error {}

/// An errno as users know it from runc and the shell: the text of strerror(3) in lower case, then its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The text of strerror(3), to which std appends the number.
        let text = std::io::Error::from_raw_os_error(self.0).to_string();
        let text = text.rsplit_once(" (os error ").map_or(&*text, |(words, _)| words);
        let mut chars = text.chars();
        let first = chars.next().map(|c| c.to_ascii_lowercase());
        // docker and others match "no such file or directory" in lower case ("RFS specific error" keeps its case).
        match (first, chars.clone().next()) {
            (Some(c), Some(second)) if !second.is_uppercase() => write!(f, "{c}{}", chars.as_str())?,
            _ => f.write_str(text)?,
        }
        match nix::errno::Errno::from_raw(self.0) {
            // The text already contains the number.
            nix::errno::Errno::UnknownErrno => Ok(()),
            name => write!(f, " ({name:?})"),
        }
    }
}

impl std::error::Error for Errno {}

/// Adds context to the error of a result.
pub(crate) trait Context<T> {
    fn context<C: Into<Cow<'static, str>>>(self, what: impl FnOnce() -> C) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context<C: Into<Cow<'static, str>>>(self, what: impl FnOnce() -> C) -> Result<T> {
        self.map_err(|e| e.context(what()))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    /// `what` is the call as made, e.g. `write("/sys/fs/cgroup/c1/memory.max", "1024")`.
    fn context<C: Into<Cow<'static, str>>>(self, what: impl FnOnce() -> C) -> Result<T> {
        self.map_err(|e| match e.raw_os_error() {
            Some(errno) => Error::system(what(), errno),
            None => Error::caused_by(Kind::System, what(), e),
        })
    }
}

impl<T> Context<T> for nix::Result<T> {
    fn context<C: Into<Cow<'static, str>>>(self, what: impl FnOnce() -> C) -> Result<T> {
        self.map_err(|e| Error::system(what(), e as i32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_from_the_outside_in() {
        let e = Error::system("open(\"/x\")", libc::ENOENT).context("step 3/9").context("create c1");
        assert_eq!(e.to_string(), "create c1: step 3/9: open(\"/x\"): no such file or directory (ENOENT)");
        assert_eq!(e.errno(), Some(libc::ENOENT));
        assert_eq!(e.kind(), Kind::System);
    }

    /// The texts are those of strerror(3), like runc's; other tables differ.
    #[test]
    fn an_errno_has_the_kernels_words() {
        for (errno, words) in [
            (libc::ENOENT, "no such file or directory (ENOENT)"),
            (libc::ERANGE, "numerical result out of range (ERANGE)"),
            (libc::ELOOP, "too many levels of symbolic links (ELOOP)"),
            (libc::EOPNOTSUPP, "operation not supported (EOPNOTSUPP)"),
            (libc::EAGAIN, "resource temporarily unavailable (EAGAIN)"),
            (libc::EIO, "input/output error (EIO)"),
            (libc::ENOMEM, "cannot allocate memory (ENOMEM)"),
            (libc::EBUSY, "device or resource busy (EBUSY)"),
            // Internal to the kernel, which leaks it in a few places: ENOTSUPP.
            (524, "unknown error 524"),
        ] {
            assert_eq!(Errno(errno).to_string(), words);
        }
        assert_eq!(Errno(libc::ERFKILL).to_string(), "operation not possible due to RF-kill (ERFKILL)");
    }

    #[test]
    fn an_errno_has_the_same_words_wherever_it_comes_from() {
        let text = "x: no such file or directory (ENOENT)";
        let io = std::io::Error::from_raw_os_error(libc::ENOENT);
        assert_eq!(Error::caused_by(Kind::System, "x", io).to_string(), text);
        assert_eq!(Error::caused_by(Kind::System, "x", nix::errno::Errno::ENOENT).to_string(), text);
        assert_eq!(Error::system("x", libc::ENOENT).to_string(), text);
    }

    #[test]
    fn where_serde_stopped_reading_is_not_told() {
        for json in ["", "{", "[1, x]"] {
            let error = serde_json::from_str::<Vec<u8>>(json).unwrap_err();
            let text = Error::caused_by(Kind::Invalid, "field", error).to_string();
            assert!(
                text.starts_with("field: ") && !text.contains("line") && !text.contains("column"),
                "{text}"
            );
        }
    }
}
