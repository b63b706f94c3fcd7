//! A container's mounts are gone when it is deleted.

use crate::{connect, create_request, delete, kill, shut_down, start, wait};
use containerd_shim_protos::api::CreateTaskResponse;
use containerd_shim_protos::types::mount::Mount;
use nix::errno::Errno;
use nix::mount::{mount, umount2, MntFlags, MsFlags};
use serde_json::json;
use std::path::Path;
use testbed::fake::{Containerd, Version};
use testbed::wire::TASK_V3;

const MANY: usize = 400;

/// Mounts the overlay again, and unmounts it. With `index=on`, an overlayfs has its upper directory exclusively, so
/// this fails while the first mount exists.
fn again(options: &str, at: &Path) -> Result<(), Errno> {
    mount(Some("overlay"), at, Some("overlay"), MsFlags::empty(), Some(options))?;
    umount2(at, MntFlags::empty())
}

/// A directory on a tmpfs: that of the bundles may be an overlayfs itself, which does not support index.
struct Memory(tempfile::TempDir);

impl Memory {
    fn mount() -> Memory {
        let dir = tempfile::tempdir().unwrap();
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        Memory(dir)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // Also if the test has failed.
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_snapshot_is_free_once_its_container_is_deleted() {
    for _ in 0..5 {
        let containerd = Containerd::new(Version::V2_3);
        let bundle = containerd.prepare("c1", &["/probe", "sleep"], json!({}));
        // Enough to keep the kernel unmounting for a while.
        containerd.configure("c1", |config| {
            let many = (0..MANY)
                .map(|n| json!({ "destination": format!("/dev/{n}"), "type": "tmpfs", "source": "tmpfs" }));
            config["mounts"].as_array_mut().unwrap().extend(many);
        });
        let (layers, lower) = (Memory::mount(), bundle.join("rootfs"));
        let at = |name: &str| layers.0.path().join(name);
        for name in ["lower", "upper", "work", "again"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        let copied =
            std::process::Command::new("cp").arg("-a").arg(lower.join(".")).arg(at("lower")).status();
        assert!(copied.unwrap().success());
        let options =
            ["lower", "upper", "work"].map(|name| format!("{name}dir={}", at(name).display())).join(",")
                + ",index=on";

        let shim = containerd.start("c1");
        let mut wire = containerd.connect(&shim);
        connect(&mut wire, TASK_V3, "c1");
        let mut request = create_request(&containerd, "c1");
        request.rootfs.push(Mount {
            type_: "overlay".into(),
            source: "overlay".into(),
            options: options.split(',').map(str::to_owned).collect(),
            ..Default::default()
        });
        wire.call::<CreateTaskResponse>(TASK_V3, "Create", &request).unwrap();
        start(&mut wire, TASK_V3, "c1");
        assert_eq!(again(&options, &at("again")), Err(Errno::EBUSY), "the container has it");
        kill(&mut wire, TASK_V3, "c1");
        assert_eq!(wait(&mut wire, TASK_V3, "c1"), 137);
        delete(&mut wire, TASK_V3, "c1");
        assert_eq!(again(&options, &at("again")), Ok(()), "the container has let go of it");
        shut_down(wire, "c1");
        containerd.delete("c1");
        containerd.remove_bundle("c1");
    }
}
