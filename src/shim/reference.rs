//! Compares the exchange with containerd to `containerd-shim`, the containerd project's crate for shims in Rust. It is
//! linked into tests only (see ARCHITECTURE.md).

use super::arguments::{Arguments, Verb};
use super::{bootstrap, socket};
use containerd_shim::bootstrap::{nearest_log_level, BootstrapParams, LogLevel};
use containerd_shim::protos::protobuf::{EnumOrUnknown, Message};
use containerd_shim::StartOpts;
use std::ffi::OsString;
use std::path::Path;

fn ours(words: &[&str]) -> Result<Arguments, String> {
    Arguments::parse(words.iter().map(OsString::from))
}

#[test]
fn flags_are_read_as_the_crate_reads_them() {
    let all =
        ["-namespace", "ns", "-address", "/c.sock", "-publish-binary", "/usr/bin/containerd", "-id", "c1"];
    let ends: [&[&str]; 14] = [
        &["start"],
        &["-debug", "start"],
        &["--debug", "start"],
        &["-debug=true", "start"],
        &["-debug=false", "start"],
        &["-debug=0", "-bundle", "/b", "delete"],
        &["-bundle=/b=c", "delete"],
        &["--bundle", "/b", "--", "delete"],
        &["-id=c2", "start", "-id", "c3"],
        &["-namespace", "-x", "start"],
        &["-socket", "/s"],
        &["-bundle", "", "delete"],
        &["-version"],
        &["-info"],
    ];
    for end in ends {
        let words = [&all, end].concat();
        let theirs = containerd_shim::parse(&words).unwrap();
        let ours = ours(&words).unwrap_or_else(|e| panic!("{end:?}: {e}"));
        assert_eq!((&ours.namespace, &ours.id), (&theirs.namespace, &theirs.id), "{end:?}");
        assert_eq!((&ours.address, ours.debug), (&theirs.address, theirs.debug), "{end:?}");
        assert_eq!((&*ours.bundle, &*ours.socket), (Path::new(&theirs.bundle), Path::new(&theirs.socket)));
        let verb = match (theirs.version, theirs.info, theirs.action.as_str()) {
            (true, ..) => Verb::Version,
            (_, true, _) => Verb::Info,
            (.., "start") => Verb::Start,
            (.., "delete") => Verb::Delete,
            _ => Verb::Serve,
        };
        assert_eq!(ours.verb, verb, "{end:?}");
    }
    for end in [&["-what"][..], &["-id"], &["-debug=perhaps", "start"]] {
        let words = [&all, end].concat();
        assert!(containerd_shim::parse(&words).is_err() && ours(&words).is_err(), "{end:?}");
    }
}

fn params() -> BootstrapParams {
    BootstrapParams {
        instance_id: "c1".into(),
        namespace: "ns".into(),
        containerd_grpc_address: "/run/containerd/containerd.sock".into(),
        containerd_ttrpc_address: "/run/containerd/containerd.sock.ttrpc".into(),
        ..Default::default()
    }
}

fn read(params: &BootstrapParams) -> bootstrap::Bootstrap {
    let bytes = params.write_to_bytes().unwrap();
    bootstrap::read(&*bytes, &params.instance_id, &params.namespace).unwrap()
}

#[test]
fn bootstrap_parameters_are_read_as_the_crate_reads_them() {
    for socket_dir in [None, Some(String::new()), Some("/run/s".to_owned()), Some("/run/s/".to_owned())] {
        let params = BootstrapParams { socket_dir, ..params() };
        let (ours, theirs) = (read(&params), StartOpts::from(params));
        assert_eq!((&ours.ttrpc_address, &ours.grpc_address), (&theirs.ttrpc_address, &theirs.address));
        assert_eq!(ours.socket_dir.as_deref(), theirs.socket_dir.as_deref().map(Path::new));
        for group in ["c1", "a/group", "with space"] {
            let path = socket::path(ours.socket_dir.as_deref(), &ours.grpc_address, "ns", group).unwrap();
            assert_eq!(socket::address(&path), theirs.socket_address(group));
        }
    }
}

#[test]
fn a_level_between_two_is_the_one_that_the_crate_takes() {
    for value in (-20..20).chain([i32::MIN, i32::MAX]) {
        let params = BootstrapParams { log_level: EnumOrUnknown::from_i32(value), ..params() };
        let theirs = match nearest_log_level(value) {
            LogLevel::LOG_LEVEL_TRACE => log::LevelFilter::Trace,
            LogLevel::LOG_LEVEL_DEBUG => log::LevelFilter::Debug,
            LogLevel::LOG_LEVEL_INFO => log::LevelFilter::Info,
            LogLevel::LOG_LEVEL_WARN => log::LevelFilter::Warn,
            // LOG_LEVEL_ERROR and the more severe levels, which our log does not distinguish.
            _ => log::LevelFilter::Error,
        };
        assert_eq!(read(&params).level, Some(theirs), "{value}");
    }
}

#[test]
fn the_socket_has_the_name_that_the_crate_gives_it() {
    for (address, namespace, id) in [
        ("/run/containerd/containerd.sock", "default", "c1"),
        ("/run/containerd/containerd.sock", "k8s.io", "0123456789abcdef"),
        ("/tmp/a b/c.sock", "moby", "x_y.z"),
        ("", "default", "c1"),
    ] {
        let path = socket::path(None, address, namespace, id).unwrap();
        assert_eq!(socket::address(&path), containerd_shim::socket_address(address, namespace, id));
    }
}

#[test]
fn the_answer_of_a_start_says_what_that_of_the_crate_says() {
    use containerd_shim::protos::bootstrap_api::BootstrapResult;
    let address = "unix:///run/containerd/s/x";
    let text: serde_json::Value = serde_json::from_str(&bootstrap::answer(3, address)).unwrap();
    // The crate answers with this message for containerd 2.3 and newer, and with JSON of the same field names before.
    let theirs = BootstrapResult {
        version: containerd_shim::protos::TASK_API_VERSION,
        address: address.into(),
        protocol: "ttrpc".into(),
        ..Default::default()
    };
    assert_eq!(text["version"], theirs.version);
    assert_eq!((&text["address"], &text["protocol"]), (&theirs.address.into(), &theirs.protocol.into()));
    assert_eq!(text.as_object().unwrap().len(), 3);
}
