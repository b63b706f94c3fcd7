//! OOM kills, also if the cgroup is gone before its notification is read (systemd removes a scope with its last
//! process).

use super::states::container_in;
use super::world::{kill_request, World};
use containerd_shim_protos::api::Empty;
use shoal::cgroup::{self, oom};
use std::time::Duration;

/// Makes a v2 cgroup of plain files with a count of OOM kills, and a watch of it.
fn counted_cgroup() -> (tempfile::TempDir, oom::Watch) {
    let folder = tempfile::tempdir().unwrap();
    for (file, text) in [("cgroup.procs", ""), ("memory.events", "oom_kill 0\n")] {
        std::fs::write(folder.path().join(file), text).unwrap();
    }
    let mount = folder.path().parent().unwrap().to_owned();
    let below = folder.path().file_name().unwrap().into();
    let record = cgroup::Record {
        v2: true,
        members: vec![cgroup::Member { mount, below, names: vec![] }],
        unit: None,
        made: vec![],
    };
    let opened = cgroup::open(&cgroup::Host::default(), &record).unwrap().expect("it is there");
    let watch = opened.watch_oom().unwrap().expect("it counts");
    (folder, watch)
}

#[test]
fn an_oom_kill_is_told_though_the_cgroup_went_with_the_count() {
    // The watch learns of it before the exit, or after it.
    for early in [true, false] {
        // Whether SIGKILL ended the process, and whether the OOM killer changed the count.
        for (killed, changed) in [(true, true), (false, true), (true, false)] {
            let mut world = World::new();
            let (folder, watch) = counted_cgroup();
            *world.stage.oom.lock().unwrap() = Some(watch);
            container_in(&mut world, "running");
            let goes = || {
                let events = folder.path().join("memory.events");
                let gone = folder.path().join("gone");
                if changed {
                    std::fs::hard_link(&events, &gone).unwrap();
                    std::fs::remove_file(&events).unwrap();
                    std::fs::write(&gone, "oom_kill 1\n").unwrap();
                } else {
                    std::fs::remove_file(&events).unwrap();
                }
                std::thread::sleep(Duration::from_millis(50));
            };
            let signal = if killed { libc::SIGKILL } else { libc::SIGTERM };
            if early {
                goes();
            }
            world.wire.task::<Empty>("Kill", &kill_request("c1", "", signal, false)).unwrap();
            world.wait("c1", "");
            if !early {
                goes();
            }
            let expected = killed && changed;
            let events = world.events(3 + usize::from(expected));
            assert_eq!(events.contains(&"oom c1".into()), expected, "{early} {killed} {changed}: {events:?}");
        }
    }
}
