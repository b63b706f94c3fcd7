//! A socket that another server has.

use crate::{connect, shut_down};
use serde_json::json;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use testbed::fake::{Containerd, Version};
use testbed::wire::TASK_V3;

/// Returns where a shim of this group listens, as a launched one reports; that shim is gone when this returns.
fn socket_of(containerd: &Containerd, id: &str) -> PathBuf {
    let shim = containerd.start(id);
    let wire = containerd.connect(&shim);
    shut_down(wire, id);
    shim.path
}

/// Serves the socket with `answer` while `test` runs. The shim must neither remove nor replace it.
fn beside(path: &Path, answer: fn(&mut dyn Write), test: impl FnOnce()) {
    let listener = UnixListener::bind(path).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                if done.load(Ordering::SeqCst) {
                    return;
                }
                let mut request = [0; 1024];
                assert!(stream.read(&mut request).unwrap() > 10, "a request");
                answer(&mut stream);
            }
        });
        test();
        done.store(true, Ordering::SeqCst);
        drop(std::os::unix::net::UnixStream::connect(path).unwrap());
    });
    assert!(path.exists(), "it is not ours to remove");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_server_that_is_not_shoal_s_is_not_joined_and_not_disturbed() {
    let containerd = Containerd::new(Version::V2_3);
    let bundle = containerd.prepare("c1", &["/probe", "sleep"], json!({}));
    let path = socket_of(&containerd, "c1");
    let address = bundle.join("address");
    std::fs::remove_file(&address).unwrap();
    // A status in a response on stream 1: 12 is Unimplemented, as ttrpc's Go server answers, 3 is the answer of
    // Rust's.
    let unimplemented =
        |out: &mut dyn Write| out.write_all(&[0, 0, 0, 4, 0, 0, 0, 1, 2, 0, 10, 2, 8, 12]).unwrap();
    let invalid = |out: &mut dyn Write| out.write_all(&[0, 0, 0, 4, 0, 0, 0, 1, 2, 0, 10, 2, 8, 3]).unwrap();
    let empty = |out: &mut dyn Write| out.write_all(&[0, 0, 0, 0, 0, 0, 0, 1, 2, 0]).unwrap();
    let hang_up = |_: &mut dyn Write| {};
    let http = |out: &mut dyn Write| out.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    for (answer, why) in [
        (unimplemented as fn(&mut dyn Write), "UNIMPLEMENTED"),
        (invalid, "INVALID_ARGUMENT"),
        (empty, "none of shoal's"),
        (hang_up, "hangs up"),
        (http, "larger than the protocol allows"),
    ] {
        beside(&path, answer, || {
            let error = containerd.try_start("c1", &bundle, None).unwrap_err();
            let text = format!("the server at {path:?} is not shoal's shim of it: ");
            assert!(error.contains(&text) && error.contains(why), "{why}: {error}");
            assert!(!address.exists(), "containerd 1.7 would take it for the shim's");
        });
    }
    // Without that server, a shim is launched.
    shut_down(containerd.connect(&containerd.start("c1")), "c1");
    containerd.delete("c1");
    containerd.remove_bundle("c1");
}

/// An annotation whose text leads into another group's name when it is used as part of a path.
#[test]
fn a_group_s_name_does_not_lead_to_the_shim_of_another_one() {
    let containerd = Containerd::new(Version::V2_3);
    containerd.prepare("c1", &["/probe", "sleep"], json!({}));
    let first = containerd.start("c1");
    let mut wire = containerd.connect(&first);
    let server = connect(&mut wire, TASK_V3, "c1").shim_pid;
    let group = format!("../{}/c1", containerd.namespace);
    let bundle =
        containerd.prepare("c2", &["/probe", "sleep"], json!({ "io.containerd.runc.v2.group": group }));
    let error = containerd.try_start("c2", &bundle, None).unwrap_err();
    assert!(error.contains("it is that of \"c1\"") && error.contains(&group), "{error}");
    // A group that is named in the usual way is joined.
    let bundle =
        containerd.prepare("c3", &["/probe", "sleep"], json!({ "io.containerd.runc.v2.group": "c1" }));
    let joined = containerd.try_start("c3", &bundle, None).unwrap();
    assert_eq!(joined.path, first.path);
    let mut again = containerd.connect(&joined);
    assert_eq!(connect(&mut again, TASK_V3, "c3").shim_pid, server);
    drop(again);
    shut_down(wire, "c1");
    for id in ["c1", "c2", "c3"] {
        containerd.delete(id);
        containerd.remove_bundle(id);
    }
}
