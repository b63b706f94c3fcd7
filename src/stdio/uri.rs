//! Parses `stdout`: a path, or a URI whose scheme tells who takes the output. The scheme of `stdout` applies to both
//! output streams, as in containerd's own shim.
//!
//! Percent-decoding and queries follow Go's net/url, with which containerd's clients write them.

use crate::error::{invalid, Result};

/// The destination of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The paths of the request: fifos or existing files.
    Paths,
    /// `file://`: both streams are appended to one file.
    File(String),
    /// `binary://` and `binary-v2://`: a program reads the streams.
    Binary(Program),
}

/// A logging program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub path: String,
    /// Every key of the query followed by its value (empty if it has none).
    pub args: Vec<String>,
    /// `binary-v2`: the program must write a byte when it is ready; merely closing the descriptor is a failure.
    pub strict: bool,
}

impl Target {
    pub fn parse(stdout: &str) -> Result<Self> {
        let Some((scheme, rest)) = split_scheme(stdout) else {
            return Ok(Target::Paths);
        };
        match scheme.to_ascii_lowercase().as_str() {
            "file" => Ok(Target::File(path(stdout, rest)?)),
            "binary" => Ok(Target::Binary(program(stdout, rest, false)?)),
            "binary-v2" => Ok(Target::Binary(program(stdout, rest, true)?)),
            other => Err(invalid(format!(
                "stdout: unknown scheme {other:?} of {stdout:?} (known: file, binary, binary-v2, or a path)"
            ))),
        }
    }
}

/// Splits off the scheme (RFC 3986, section 3.1): a letter, then letters, digits, `+`, `-` and `.`, up to a colon.
fn split_scheme(uri: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = uri.split_once(':')?;
    let starts = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    let all = scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    (starts && all).then_some((scheme, rest))
}

/// The decoded path, without authority, query and fragment.
fn path(uri: &str, rest: &str) -> Result<String> {
    let rest = rest.split('#').next().unwrap_or_default();
    let rest = rest.split('?').next().unwrap_or_default();
    let encoded = match rest.strip_prefix("//") {
        Some(authority) => {
            let slash = authority.find('/').unwrap_or(authority.len());
            let (host, path) = authority.split_at(slash);
            if !matches!(host, "" | "localhost") {
                return Err(invalid(format!(
                    "stdout: {uri:?} names the host {host:?}; an absolute path follows two slashes with a third"
                )));
            }
            path
        }
        None => rest,
    };
    let path = decode(uri, encoded, false)?;
    if !path.starts_with('/') {
        return Err(invalid(format!("stdout: {uri:?} has no absolute path")));
    }
    Ok(path)
}

fn program(uri: &str, rest: &str, strict: bool) -> Result<Program> {
    let path = path(uri, rest)?;
    let query = rest.split('#').next().unwrap_or_default().split_once('?').map_or("", |(_, query)| query);
    let mut pairs: Vec<(String, String)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = decode(uri, key, true)?;
        // The first value of a repeated key counts.
        if pairs.iter().all(|(known, _)| *known != key) {
            pairs.push((key, decode(uri, value, true)?));
        }
    }
    let args = pairs.into_iter().flat_map(|(key, value)| [key, value]).collect();
    Ok(Program { path, args, strict })
}

/// Percent-decodes; in a query, `+` is a space.
fn decode(uri: &str, text: &str, query: bool) -> Result<String> {
    let bad = |what: &str| invalid(format!("stdout: {what} in {uri:?}"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|b| (b as char).to_digit(16));
                match (digit(), digit()) {
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => return Err(bad("incomplete percent-encoding")),
                }
            }
            b'+' if query => b' ',
            byte => byte,
        });
    }
    if bytes.contains(&0) {
        return Err(bad("a NUL byte"));
    }
    String::from_utf8(bytes).map_err(|_| bad("text that is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program_of(uri: &str) -> Program {
        match Target::parse(uri).unwrap() {
            Target::Binary(program) => program,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_path_has_no_scheme() {
        for path in ["", "/run/fifo/1/c-stdout", "relative", "/with:colon", "1:2", "./a:b"] {
            assert_eq!(Target::parse(path).unwrap(), Target::Paths, "{path}");
        }
    }

    #[test]
    fn a_file_uri_is_decoded() {
        assert_eq!(
            Target::parse("file:///var/log/a%20b.log").unwrap(),
            Target::File("/var/log/a b.log".into())
        );
        assert_eq!(Target::parse("FILE://localhost/x?y#z").unwrap(), Target::File("/x".into()));
        // A plus sign is a space only in a query.
        assert_eq!(Target::parse("file:///a+b").unwrap(), Target::File("/a+b".into()));
    }

    #[test]
    fn a_query_becomes_arguments_in_its_order() {
        let program = program_of("binary:///usr/bin/log%20ger?k=v&b=a%26b+c&flag&k=second#no");
        assert_eq!(program.path, "/usr/bin/log ger");
        assert_eq!(program.args, ["k", "v", "b", "a&b c", "flag", ""]);
        assert!(!program.strict);
        let program = program_of("binary-v2:///x");
        assert!(program.strict && program.args.is_empty());
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        for (uri, part) in [
            ("npipe:////./pipe/x", "\"npipe\""),
            ("ttrpc+unix:///run/x?streaming_id=1", "\"ttrpc+unix\""),
            ("file://var/log/x", "\"var\""),
            ("binary://", "no absolute path"),
            ("file:x", "no absolute path"),
            ("file:///a%2", "percent-encoding"),
            ("binary:///x?a=%zz", "percent-encoding"),
            ("file:///a%00b", "NUL"),
            ("file:///a%ff", "UTF-8"),
        ] {
            let error = Target::parse(uri).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Invalid);
            assert!(error.to_string().contains(part), "{uri}: {error}");
        }
    }
}
