//! The command line, in the syntax of Go's `flag` package, which containerd writes.
//!
//! `-flag value` or `-flag=value`, with one or two dashes; `--` and the first plain word end the flags.

use std::ffi::OsString;
use std::path::PathBuf;

pub const USAGE: &str = "\
containerd-shim-shoal-v2 is started by containerd, for containers and pods with the runtime io.containerd.shoal.v2.

  containerd-shim-shoal-v2 -namespace NS -address SOCKET -id ID [-debug] start
  containerd-shim-shoal-v2 -namespace NS -address SOCKET -id ID -bundle DIR [-debug] delete
  containerd-shim-shoal-v2 features
  containerd-shim-shoal-v2 -info | -v | -version | -h

`features` prints the OCI features document, as JSON. The server runs itself with `open-path` for a path that may block.

  -address string          containerd's gRPC socket: in the name of the shim's own, and for the Store (else $GRPC_ADDRESS)
  -bundle string           the bundle directory (delete; else the working directory)
  -debug                   log in detail
  -debug-socket string     accepted and not used: it is where the Go shim serves its profiler
  -id string               the container or the pod
  -info                    print what this runtime is and can do, as a protobuf containerd.types.RuntimeInfo
  -log-level string        trace, debug, info, warn or error (given to the server by start)
  -namespace string        containerd's namespace
  -publish-binary string   accepted and not used: events go to containerd's socket
  -socket string           the socket of the server (given to the server by start)
  -v, -version             print the version";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verb {
    Start,
    Delete,
    Features,
    #[default]
    Serve,
    Info,
    Version,
    Help,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    pub verb: Verb,
    pub namespace: String,
    pub id: String,
    pub address: String,
    /// Empty means the working directory.
    pub bundle: PathBuf,
    pub socket: PathBuf,
    pub debug: bool,
    /// The server's log level; defaults to Info.
    pub level: Option<log::LevelFilter>,
}

impl Arguments {
    /// Parses the command line; the error is a text for the user.
    pub fn parse(words: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut words = words.peekable();
        let mut parsed = Arguments::default();
        let mut asked = None;
        while let Some(word) = words.next() {
            let word = word.into_string().map_err(|word| format!("{word:?} is not UTF-8"))?;
            let flag = match word.strip_prefix('-') {
                // "-" alone is a plain word, "--" ends the flags.
                Some("") | None => {
                    parsed.verb = verb(&word)?;
                    break;
                }
                Some("-") => {
                    if let Some(word) = words.next() {
                        parsed.verb = verb(&word.to_string_lossy())?;
                    }
                    break;
                }
                Some(flag) => flag.strip_prefix('-').unwrap_or(flag),
            };
            let (name, inline) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let mut value = || match inline.clone() {
                Some(value) => Ok(value),
                None => match words.next().map(OsString::into_string) {
                    Some(Ok(value)) => Ok(value),
                    Some(Err(value)) => Err(format!("-{name}: {value:?} is not UTF-8")),
                    None => Err(format!("flag needs an argument: -{name}")),
                },
            };
            match name {
                "namespace" => parsed.namespace = value()?,
                "id" => parsed.id = value()?,
                "address" => parsed.address = value()?,
                "bundle" => parsed.bundle = value()?.into(),
                "socket" => parsed.socket = value()?.into(),
                // Flags of the Go shim: its debug socket serves a profiler, its publish binary publishes events.
                "publish-binary" | "debug-socket" => drop(value()?),
                "log-level" => {
                    let word = value()?;
                    parsed.level =
                        Some(word.parse().map_err(|_| format!("-log-level {word:?} is not a level"))?);
                }
                "debug" => parsed.debug = switch(name, inline)?,
                "info" if switch(name, inline.clone())? => asked = Some(Verb::Info),
                "v" | "version" if switch(name, inline.clone())? => asked = Some(Verb::Version),
                "h" | "help" => asked = Some(Verb::Help),
                "info" | "v" | "version" => {}
                _ => return Err(format!("flag provided but not defined: -{name}")),
            }
        }
        if let Some(asked) = asked {
            parsed.verb = asked;
        }
        parsed.check()
    }

    fn check(self) -> Result<Self, String> {
        let needs_id = matches!(self.verb, Verb::Start | Verb::Delete | Verb::Serve);
        for (flag, value) in [("namespace", &self.namespace), ("id", &self.id)] {
            if needs_id && value.is_empty() {
                return Err(format!("-{flag} is missing"));
            }
            // They become parts of paths, except for the server's id: it may be that of a group, which is the text of
            // an annotation.
            let part = flag == "namespace" || self.verb != Verb::Serve;
            if !part {
                continue;
            }
            if value == "." || value == ".." || value.contains(['/', '\0']) {
                return Err(format!("-{flag} {value:?} cannot be a part of a path"));
            }
        }
        Ok(self)
    }
}

fn verb(word: &str) -> Result<Verb, String> {
    match word {
        "start" => Ok(Verb::Start),
        "delete" => Ok(Verb::Delete),
        "features" => Ok(Verb::Features),
        _ => Err(format!("unknown command: {word}")),
    }
}

fn switch(name: &str, inline: Option<String>) -> Result<bool, String> {
    match inline.as_deref() {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(value) => Err(format!("invalid boolean value {value:?} for -{name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn what_containerd_writes_is_understood() {
        let line =
            "-namespace k8s.io -address /run/c.sock -publish-binary /bin/c -id a -bundle /b -debug delete";
        let parsed = parse(line).unwrap();
        assert_eq!(parsed.verb, Verb::Delete);
        assert_eq!((parsed.namespace.as_str(), parsed.id.as_str()), ("k8s.io", "a"));
        assert_eq!(parsed.bundle, PathBuf::from("/b"));
        assert!(parsed.debug);
    }

    /// A group id is whatever an annotation says; a container id is a part of paths.
    #[test]
    fn only_the_servers_id_may_have_a_slash() {
        let mut line = vec!["-id", "team/app", "-namespace", "n"];
        assert_eq!(parse(&line.join(" ")).unwrap().verb, Verb::Serve);
        line.push("start");
        assert!(parse(&line.join(" ")).unwrap_err().contains("team/app"));
    }

    #[test]
    fn every_form_of_a_flag_is_the_same() {
        for line in ["-id=a --namespace=n start", "--id a -namespace n start", "-id a -namespace n -- start"]
        {
            assert_eq!(
                parse(line).unwrap(),
                parse("-debug=false -id a -namespace n start").unwrap(),
                "{line}"
            );
        }
        assert_eq!(parse("-id a -namespace n").unwrap().verb, Verb::Serve);
        assert_eq!(parse("-v").unwrap().verb, Verb::Version);
        assert_eq!(parse("--version").unwrap().verb, Verb::Version);
        assert_eq!(parse("-info").unwrap().verb, Verb::Info);
        assert_eq!(parse("features").unwrap().verb, Verb::Features);
        assert_eq!(parse("--help").unwrap().verb, Verb::Help);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, part) in [
            ("-what start", "-what"),
            ("-id", "-id"),
            ("-id a start", "-namespace"),
            ("-namespace n start", "-id"),
            ("-id a -namespace n stop", "stop"),
            ("-id ../a -namespace n start", "../a"),
            ("-debug=maybe", "maybe"),
        ] {
            assert!(parse(line).unwrap_err().contains(part), "{line}");
        }
    }
}
