//! Runtime options, in every message that may carry them.
//!
//! `containerd.runc.v1.Options` (CRI without an options table, docker); `runtimeoptions.v1.Options` (CRI with a table,
//! `ctr --runtime-config-path`), a TOML file or body with the keys of the former; `google.protobuf.Empty`
//! (`ctr sandboxes run`); or nothing.

use super::convert::type_name;
use crate::error::{invalid, Context, Error, Kind, Result};
use crate::launch::after;
use crate::paths::{Paths, Purpose};
use crate::sandbox::{self, PodSettings, Sandbox};
use crate::sys::pipe;
use containerd_shim_protos::shim::oci;
use protobuf::well_known_types::any::Any;
use protobuf::{CodedInputStream, Message};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const RUNC: &str = "containerd.runc.v1.Options";
const RUNTIME: &str = "runtimeoptions.v1.Options";
/// What containerd 1.7 passes to runtimes not called runc.
const CREATE: &str = "containerd.linux.runc.CreateOptions";
const EMPTY: &str = "google.protobuf.Empty";
/// An options file has a few lines; anything larger is another kind of file.
const FILE_MAX: u64 = 1 << 20;

/// The options of the start (`shim_cgroup`) and of each container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub container: sandbox::Options,
    /// The cgroup that the shim itself joins; empty if it stays where it is.
    pub shim_cgroup: String,
    /// The program meant to run the containers; empty if none is named.
    pub binary_name: String,
    /// Warnings about options that have no effect.
    pub warnings: Vec<String>,
}

/// Whether [`from_any`] knows the type of this Any.
pub fn known(any: &Any) -> bool {
    matches!(type_name(any), RUNC | RUNTIME | CREATE | EMPTY)
}

/// How the files that options name are read.
#[derive(Clone)]
pub struct Reading {
    pub paths: Paths,
    pub deadline: Instant,
}

/// For a program that may block.
impl Default for Reading {
    fn default() -> Self {
        Reading { paths: Paths::default(), deadline: after(Duration::MAX) }
    }
}

pub async fn from_any(reading: Reading, any: Option<&Any>) -> Result<Options> {
    let Some(any) = any else { return Ok(Options::default()) };
    let wrong =
        |e: protobuf::Error| Error::caused_by(Kind::Invalid, format!("options: decode {}", any.type_url), e);
    match type_name(any) {
        RUNC => from_runc(oci::Options::parse_from_bytes(&any.value).map_err(wrong)?),
        RUNTIME => from_runtime(reading, &any.value, wrong).await,
        CREATE => from_create(&any.value).map_err(wrong),
        EMPTY => Ok(Options::default()),
        "" if any.value.is_empty() => Ok(Options::default()),
        _ => Err(invalid(format!("options: the type {:?} is not known", any.type_url))),
    }
}

/// The options of a container, rejecting what the shim cannot do, with `Root` completed to the container's directory.
pub(super) async fn of_container(
    any: Option<&Any>,
    id: &str,
    sandbox: &Sandbox,
    deadline: Instant,
) -> Result<Options> {
    let reading = Reading { paths: sandbox.paths().clone(), deadline };
    let mut options = from_any(reading.clone(), any).await?;
    let id = super::convert::id("id", id.to_owned())?;
    options.container.root = options.container.root.map(|root| root.join(sandbox.namespace()).join(id));
    options.judge_binary_name(reading, || sandbox.settings()).await?;
    Ok(options)
}

impl Options {
    /// Checks `BinaryName`. Whoever names a program relies on what it does beyond runc's work, none of which would
    /// happen: only the operator can allow that.
    pub async fn judge_binary_name(
        &mut self,
        reading: Reading,
        settings: impl FnOnce() -> Result<PodSettings>,
    ) -> Result<()> {
        let name = &self.binary_name;
        if name.is_empty() {
            return Ok(());
        }
        let field = format!("options: BinaryName {name:?}");
        let path = std::env::var_os("PATH");
        find(reading, name, path.as_deref()).await.map_err(|e| e.context(field.clone()))?;
        if !settings()?.ignore_binary_name {
            return Err(invalid(format!(
                "{field}: this shim is the runtime itself and would not run it, and what it does besides (as a wrapper \
                 for GPUs does) would be missing; with ignore_binary_name of /etc/shoal/config.toml it is ignored"
            )));
        }
        self.warnings.push(format!("{field} has no effect: this shim is the runtime"));
        Ok(())
    }
}

/// Finds a program like Go's exec.LookPath.
async fn find(Reading { paths, deadline }: Reading, name: &str, path: Option<&OsStr>) -> Result<()> {
    let executable = async |file: &Path| {
        let opened = paths.open(file, Purpose::Look, deadline).await?;
        match opened.kind {
            pipe::Kind::Directory => Err(Error::system("stat", libc::EISDIR)),
            _ if opened.mode & 0o111 == 0 => Err(Error::system("stat", libc::EACCES)),
            _ => Ok(()),
        }
    };
    if name.contains('/') {
        let found = executable(Path::new(name)).await;
        return found.map_err(|e| match e.errno() {
            Some(errno) => Error::system("stat", errno).with_kind(Kind::Invalid),
            None => e,
        });
    }
    for folder in path.into_iter().flat_map(std::env::split_paths) {
        match executable(&folder.join(name)).await {
            Ok(()) => return Ok(()),
            Err(e) if e.errno().is_none() => return Err(e),
            Err(_) => {}
        }
    }
    Err(invalid("executable file not found in $PATH"))
}

fn from_runc(o: oci::Options) -> Result<Options> {
    let mut warnings = Vec::new();
    for (key, value) in [("CriuImagePath", &o.criu_image_path), ("CriuWorkPath", &o.criu_work_path)] {
        if !value.is_empty() {
            warnings.push(no_effect(key));
        }
    }
    Ok(Options {
        container: sandbox::Options {
            no_pivot_root: o.no_pivot_root,
            no_new_keyring: o.no_new_keyring,
            systemd_cgroup: o.systemd_cgroup,
            io_uid: o.io_uid,
            io_gid: o.io_gid,
            root: root(&o.root)?,
        },
        shim_cgroup: o.shim_cgroup,
        binary_name: o.binary_name,
        warnings,
    })
}

/// None if the path is empty.
fn root(path: &str) -> Result<Option<PathBuf>> {
    match path {
        "" => Ok(None),
        path if path.starts_with('/') && !path.contains('\0') => Ok(Some(path.into())),
        path => Err(invalid(format!("options: Root {path:?} is not an absolute path"))),
    }
}

fn no_effect(key: &str) -> String {
    format!("options: {key} has no effect: this shim is the runtime")
}

/// `runtimeoptions.v1.Options { string type_url = 1; string config_path = 2; bytes config_body = 3; }`: the
/// body if there is one, otherwise the file.
async fn from_runtime(
    reading: Reading,
    bytes: &[u8],
    wrong: impl Fn(protobuf::Error) -> Error + Copy,
) -> Result<Options> {
    let (path, body) = fields(bytes).map_err(wrong)?;
    if !body.is_empty() {
        let text = String::from_utf8(body)
            .map_err(|e| Error::caused_by(Kind::Invalid, "options: ConfigBody is not text", e))?;
        return from_toml(&text, "ConfigBody");
    }
    if path.is_empty() {
        return Ok(Options::default());
    }
    from_toml(&read(reading, Path::new(&path)).await?, &path)
}

/// Decodes `config_path` and `config_body`.
fn fields(bytes: &[u8]) -> protobuf::Result<(String, Vec<u8>)> {
    let mut input = CodedInputStream::from_bytes(bytes);
    let (mut path, mut body) = (String::new(), Vec::new());
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        match tag {
            18 => path = input.read_string()?,
            26 => body = input.read_bytes()?,
            _ => protobuf::rt::skip_field_for_tag(tag, &mut input)?,
        }
    }
    Ok((path, body))
}

/// `containerd.linux.runc.CreateOptions { bool no_pivot_root = 1; bool no_new_keyring = 8; string shim_cgroup = 9;
/// uint32 io_uid = 10; uint32 io_gid = 11; }`: the owner of the streams, for a container with a user namespace.
fn from_create(bytes: &[u8]) -> protobuf::Result<Options> {
    let mut input = CodedInputStream::from_bytes(bytes);
    let mut options = Options::default();
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        match tag {
            8 => options.container.no_pivot_root = input.read_bool()?,
            64 => options.container.no_new_keyring = input.read_bool()?,
            74 => options.shim_cgroup = input.read_string()?,
            80 => options.container.io_uid = input.read_uint32()?,
            88 => options.container.io_gid = input.read_uint32()?,
            _ => protobuf::rt::skip_field_for_tag(tag, &mut input)?,
        }
    }
    Ok(options)
}

async fn read(Reading { paths, deadline }: Reading, path: &Path) -> Result<String> {
    if !path.is_absolute() {
        return Err(invalid(format!("options: ConfigPath {path:?} is not an absolute path")));
    }
    let wrong = |e: Error| match e.kind() {
        Kind::System => e.with_kind(Kind::Invalid),
        _ => e,
    };
    let contents =
        paths.read(path, FILE_MAX, deadline).await.context(|| "options: ConfigPath").map_err(wrong)?;
    String::from_utf8(contents)
        .map_err(|e| Error::caused_by(Kind::Invalid, format!("options: ConfigPath {path:?} is not text"), e))
}

fn from_toml(text: &str, place: &str) -> Result<Options> {
    let table: toml::Table = toml::from_str(text)
        .map_err(|e| invalid(format!("options: {place} is not TOML: {}", e.message())))?;
    let mut options = Options::default();
    for (key, value) in &table {
        let wrong =
            |wanted: &str| invalid(format!("options: {place}: {key} must be {wanted}, and is {value:?}"));
        let flag = || value.as_bool().ok_or_else(|| wrong("true or false"));
        let text = |wanted| value.as_str().ok_or_else(|| wrong(wanted));
        let number = || {
            let number = value.as_integer().and_then(|n| u32::try_from(n).ok());
            number.ok_or_else(|| wrong("a number from 0 to 4294967295"))
        };
        match key.as_str() {
            "SystemdCgroup" => options.container.systemd_cgroup = flag()?,
            "NoPivotRoot" => options.container.no_pivot_root = flag()?,
            "NoNewKeyring" => options.container.no_new_keyring = flag()?,
            "IoUid" => options.container.io_uid = number()?,
            "IoGid" => options.container.io_gid = number()?,
            "ShimCgroup" => options.shim_cgroup = text("a path")?.to_owned(),
            "BinaryName" => options.binary_name = text("the name of a program")?.to_owned(),
            "Root" => options.container.root = root(text("a path")?)?,
            // CRI copies the whole table from which it parsed these into the body.
            "TypeUrl" | "ConfigPath" | "ConfigBody" => {}
            "CriuPath" | "CriuImagePath" | "CriuWorkPath" => {
                options.warnings.push(no_effect(key));
            }
            _ => options.warnings.push(format!("options: {place}: the key {key} is not known")),
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::convert::any;
    use crate::tasks::block_on;

    fn read(any: Option<&Any>) -> Result<Options> {
        block_on(from_any(Reading::default(), any))
    }

    impl Options {
        fn judged(&mut self, settings: impl FnOnce() -> Result<PodSettings>) -> Result<()> {
            block_on(self.judge_binary_name(Reading::default(), settings))
        }
    }

    fn body(toml: &str) -> Any {
        let mut value = vec![26, toml.len() as u8];
        value.extend_from_slice(toml.as_bytes());
        any(RUNTIME, value)
    }

    #[test]
    fn a_body_of_toml_sets_what_runc_options_set() {
        let toml = "SystemdCgroup = true\nIoUid = 7\nShimCgroup = '/x'\nBinaryName = 'crun'\nRoot = '/r'\nCriuPath = '/c'\nWhat = 1";
        let toml = read(Some(&body(toml))).unwrap();
        let message = oci::Options {
            systemd_cgroup: true,
            io_uid: 7,
            shim_cgroup: "/x".into(),
            binary_name: "crun".into(),
            root: "/r".into(),
            criu_work_path: "/c".into(),
            ..Default::default()
        };
        let runc = read(Some(&any(RUNC, message.write_to_bytes().unwrap()))).unwrap();
        assert_eq!(toml.container, runc.container);
        assert_eq!(toml.shim_cgroup, runc.shim_cgroup);
        assert_eq!((&*toml.binary_name, &*runc.binary_name), ("crun", "crun"));
        assert_eq!(runc.container.root.as_deref(), Some(Path::new("/r")));
        assert_eq!(runc.warnings, vec![no_effect("CriuWorkPath")]);
        assert_eq!(toml.warnings.len(), 2, "{:?}", toml.warnings);
    }

    #[test]
    fn another_runtime_is_refused_and_one_that_is_missing_always() {
        let settings =
            |ignore_binary_name| move || Ok(PodSettings { ignore_binary_name, ..PodSettings::default() });
        let named = |name: &str| Options { binary_name: name.into(), ..Options::default() };
        for ignore in [false, true] {
            for (name, why) in [
                ("no-such-runc", "options: BinaryName \"no-such-runc\": executable file not found in $PATH"),
                ("/no/runc", "options: BinaryName \"/no/runc\": stat: no such file or directory (ENOENT)"),
                ("/etc", "options: BinaryName \"/etc\": stat: is a directory (EISDIR)"),
                ("/etc/passwd", "options: BinaryName \"/etc/passwd\": stat: permission denied (EACCES)"),
            ] {
                let error = named(name).judged(settings(ignore)).unwrap_err();
                assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Invalid, why));
            }
            Options::default().judged(|| panic!("nothing to ask about")).unwrap();
        }
        for name in ["sh", "/bin/sh"] {
            let error = named(name).judged(settings(false)).unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with(&format!("options: BinaryName {name:?}: this shim is")), "{text}");
            assert!(text.contains("ignore_binary_name"), "{text}");
            let mut ignored = named(name);
            ignored.judged(settings(true)).unwrap();
            assert_eq!(ignored.warnings.len(), 1);
        }
    }

    #[test]
    fn a_wrong_value_names_its_key() {
        for (text, key) in [
            ("IoGid = -1", "IoGid"),
            ("NoPivotRoot = 'yes'", "NoPivotRoot"),
            ("Root = 'run'", "Root"),
            ("BinaryName = 1", "BinaryName"),
            ("=", "ConfigBody"),
        ] {
            let error = read(Some(&body(text))).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(error.to_string().contains(key), "{error}");
        }
    }

    #[test]
    fn a_file_is_read_and_must_exist() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shoal.toml");
        std::fs::write(&path, "NoNewKeyring = true").unwrap();
        let path = path.to_str().unwrap();
        let with = |path: &str| {
            let mut value = vec![18, path.len() as u8];
            value.extend_from_slice(path.as_bytes());
            read(Some(&any(RUNTIME, value)))
        };
        assert!(with(path).unwrap().container.no_new_keyring);
        let missing = with(&format!("{path}x")).unwrap_err().to_string();
        assert!(missing.contains("no such file or directory"), "{missing}");
        assert!(with("shoal.toml").is_err());
    }

    #[test]
    fn options_of_containerd_1_7_tell_the_owner_of_the_streams() {
        let bytes = vec![8, 1, 32, 1, 80, 0xe0, 0xa7, 0x12, 88, 7];
        let options = read(Some(&any(CREATE, bytes))).unwrap().container;
        assert!(options.no_pivot_root && !options.no_new_keyring);
        assert_eq!((options.io_uid, options.io_gid), (300_000, 7));
        assert!(read(Some(&any(CREATE, vec![80]))).is_err());
    }

    #[test]
    fn no_options_are_the_default_ones_and_other_types_are_refused() {
        assert_eq!(read(None).unwrap(), Options::default());
        assert_eq!(read(Some(&any(EMPTY, Vec::new()))).unwrap(), Options::default());
        assert!(read(Some(&any("some.Type", Vec::new()))).is_err());
    }
}
