//! What Task.Checkpoint asks for: the folder of the request, and `containerd.runc.v1.CheckpointOptions`, if there are any.
//! CRI gives none to runtimes that are not called runc: the container goes on then.

use super::convert::{absolute, type_name};
use crate::criu::Cgroups;
use crate::error::{invalid, Error, Kind, Result};
use crate::sandbox::Checkpoint;
use containerd_shim_protos::shim::oci::CheckpointOptions;
use protobuf::well_known_types::any::Any;
use protobuf::Message;

const RUNC: &str = "containerd.runc.v1.CheckpointOptions";
/// Of containerd 2.4: the former image that this one is to build on.
const PARENT_PATH: u32 = 10;

pub(super) fn checkpoint(path: &str, options: Option<&Any>) -> Result<Checkpoint> {
    let path = absolute("path", path)?;
    let options = match options {
        None => CheckpointOptions::default(),
        Some(any) if any.value.is_empty() && type_name(any).is_empty() => CheckpointOptions::default(),
        Some(any) if type_name(any) == RUNC => CheckpointOptions::parse_from_bytes(&any.value)
            .map_err(|e| Error::caused_by(Kind::Invalid, format!("options: decode {}", any.type_url), e))?,
        Some(any) => return Err(invalid(format!("options: the type {:?} is not known", any.type_url))),
    };
    if options.special_fields.unknown_fields().get(PARENT_PATH).is_some() {
        let what = "options: parent_path: images that build on others";
        return Err(Error::new(Kind::Unsupported, what));
    }
    // That of the network is empty in any case.
    if let Some(other) = options.empty_namespaces.iter().find(|name| *name != "network") {
        let what = format!("options: empty_namespaces: {other:?}: only the network's can be left empty");
        return Err(Error::new(Kind::Unsupported, what));
    }
    let cgroups = match options.cgroups_mode.as_str() {
        "" | "soft" => Cgroups::Soft,
        "full" => Cgroups::Full,
        "strict" => Cgroups::Strict,
        "ignore" => {
            let what = "options: cgroups_mode \"ignore\": a restore could not find the cgroups";
            return Err(Error::new(Kind::Unsupported, what));
        }
        other => {
            let what = format!("options: cgroups_mode {other:?} is none of soft, full, strict");
            return Err(invalid(what));
        }
    };
    let work = (!options.work_path.is_empty()).then(|| absolute("options: work_path", &options.work_path));
    Ok(Checkpoint {
        path,
        work: work.transpose()?,
        exit: options.exit,
        open_tcp: options.open_tcp,
        external_unix_sockets: options.external_unix_sockets,
        terminal: options.terminal,
        file_locks: options.file_locks,
        cgroups,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::convert::any;
    use std::path::Path;

    fn read(options: CheckpointOptions) -> Result<Checkpoint> {
        checkpoint("/images", Some(&any(RUNC, options.write_to_bytes().unwrap())))
    }

    #[test]
    fn no_options_leave_the_container_running() {
        for none in [None, Some(Any::default())] {
            let asked = checkpoint("/images", none.as_ref()).unwrap();
            assert_eq!(asked, Checkpoint { path: "/images".into(), ..Default::default() });
        }
        assert_eq!(checkpoint("images", None).unwrap_err().kind(), Kind::Invalid);
    }

    #[test]
    fn options_are_read_and_what_they_cannot_be_is_named() {
        let asked = read(CheckpointOptions {
            exit: true,
            file_locks: true,
            work_path: "/work".into(),
            cgroups_mode: "full".into(),
            empty_namespaces: vec!["network".into()],
            ..Default::default()
        });
        let asked = asked.unwrap();
        assert!(asked.exit && asked.file_locks && !asked.open_tcp && asked.cgroups == Cgroups::Full);
        assert_eq!(asked.work.as_deref(), Some(Path::new("/work")));
        for (options, kind, word) in [
            (CheckpointOptions { work_path: "w".into(), ..Default::default() }, Kind::Invalid, "work_path"),
            (
                CheckpointOptions { cgroups_mode: "x".into(), ..Default::default() },
                Kind::Invalid,
                "cgroups_mode",
            ),
            (
                CheckpointOptions { cgroups_mode: "ignore".into(), ..Default::default() },
                Kind::Unsupported,
                "cgroups_mode",
            ),
            (
                CheckpointOptions { empty_namespaces: vec!["ipc".into()], ..Default::default() },
                Kind::Unsupported,
                "empty_namespaces",
            ),
        ] {
            let error = read(options).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(word), "{error}");
        }
        let parent = checkpoint("/images", Some(&any(RUNC, vec![82, 1, b'p']))).unwrap_err();
        assert_eq!(parent.kind(), Kind::Unsupported);
        assert_eq!(checkpoint("/images", Some(&any("x.Y", vec![]))).unwrap_err().kind(), Kind::Invalid);
    }
}
