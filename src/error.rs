//! The one error of the crate: a kind, the context it gathered on its way up, and its source.
//!
//! The kind is the RPC code and is given at birth; context is added by the callers, outermost last.
//! An error names the call, the object and the errno; where a field of the spec is at fault, the field.

use std::borrow::Cow;
use std::fmt;

/// What kind of failure this is. Each kind is one RPC code (see `service`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request or the spec is wrong: INVALID_ARGUMENT.
    Invalid,
    /// No such container, process or cgroup: NOT_FOUND.
    NotFound,
    /// The id is taken: ALREADY_EXISTS.
    Exists,
    /// Not in this state: FAILED_PRECONDITION.
    State,
    /// Not implemented: UNIMPLEMENTED.
    Unsupported,
    /// A peer (containerd, systemd) is away: UNAVAILABLE.
    Unavailable,
    /// A time limit passed: DEADLINE_EXCEEDED.
    Deadline,
    /// The caller may not do this: PERMISSION_DENIED.
    Denied,
    /// The kernel refused: UNKNOWN, with the frozen call and its errno.
    System,
    /// A broken invariant of ours: INTERNAL.
    Bug,
}

type Source = Box<dyn std::error::Error + Send + Sync>;

/// An error with its kind; `Display` prints the contexts outermost first, then the source.
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

    /// A refused system call: `what` is the frozen call, e.g. `open("/dev/null", O_PATH)`.
    pub fn system(what: impl Into<Cow<'static, str>>, errno: i32) -> Self {
        Error { kind: Kind::System, context: vec![what.into()], source: Some(Box::new(Errno(errno))) }
    }

    pub fn caused_by(kind: Kind, what: impl Into<Cow<'static, str>>, source: impl Into<Source>) -> Self {
        Error { kind, context: vec![what.into()], source: Some(source.into()) }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// The errno at the bottom, where the kernel refused a call.
    pub fn errno(&self) -> Option<i32> {
        let source = self.source.as_ref()?;
        if let Some(errno) = source.downcast_ref::<Errno>() {
            return Some(errno.0);
        }
        source.downcast_ref::<std::io::Error>().and_then(|e| e.raw_os_error())
    }

    /// Adds what was being done, e.g. `create c1`.
    pub fn context(mut self, what: impl Into<Cow<'static, str>>) -> Self {
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
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl std::error::Error for Error {}

/// An errno as users know it from runc and the shell: the text of strerror(3) in lower case, then its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = nix::errno::Errno::from_raw(self.0);
        let text = errno.desc();
        let mut chars = text.chars();
        let first = chars.next().map(|c| c.to_ascii_lowercase());
        // "No such file or directory" is matched in lower case by docker and others ("I/O error" stays).
        match (first, chars.clone().next()) {
            (Some(c), Some(second)) if !second.is_uppercase() && second != '/' => {
                write!(f, "{c}{}", chars.as_str())?
            }
            _ => f.write_str(text)?,
        }
        write!(f, " ({errno:?})")
    }
}

impl std::error::Error for Errno {}

/// Adds context to the error of a result.
pub trait Context<T> {
    fn context<C: Into<Cow<'static, str>>>(self, what: impl FnOnce() -> C) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context<C: Into<Cow<'static, str>>>(self, what: impl FnOnce() -> C) -> Result<T> {
        self.map_err(|e| e.context(what()))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    /// The frozen call, e.g. `write("/sys/fs/cgroup/c1/memory.max", "1024")`.
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

    #[test]
    fn abbreviations_keep_their_case() {
        assert_eq!(Errno(libc::EIO).to_string(), "I/O error (EIO)");
    }
}
