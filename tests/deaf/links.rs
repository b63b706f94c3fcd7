//! A volume with links in it that a neighbour has made: what is bound by them is nothing of the runtime's.

use crate::apart;
use crate::ask;
use crate::fuse::Waits;
use crate::world::World;
use containerd_shim_protos::api::*;
use serde_json::json;

#[test]
#[ignore = "not mended: Linux 6.15 and newer copy detached mounts, as that of the shim's program is"]
fn a_link_in_a_volume_leads_to_nothing_of_the_shims() {
    apart("", || {
        let mut world = World::new(Waits::UntilKilled);
        let volume = world.containerd.dir.path().join("volume");
        std::fs::create_dir(&volume).unwrap();
        let mut targets = vec!["/proc/self/exe".to_owned(), "/proc/thread-self/exe".to_owned()];
        targets.extend((0..40).map(|number| format!("/proc/self/fd/{number}")));
        for (number, target) in targets.iter().enumerate() {
            let (link, id) = (volume.join(number.to_string()), format!("l{number}"));
            std::os::unix::fs::symlink(target, &link).unwrap();
            world.prepare(&id, &["/probe", "sleep"], |config| {
                let mount = |destination: &str, source: &std::path::Path| {
                    json!({ "destination": destination, "type": "bind", "source": source, "options": ["bind"] })
                };
                let mounts = config["mounts"].as_array_mut().unwrap();
                mounts.push(mount("/volume", &volume));
                mounts.push(mount("/seen", &link));
            });
            let created: Result<CreateTaskResponse, _> =
                world.line().call("Create", &world.create_request(&id));
            if let Ok(created) = created {
                let seen = format!("/proc/{}/mountinfo", created.pid);
                let seen = std::fs::read_to_string(seen).unwrap();
                let seen = seen.lines().find(|line| line.contains(" /seen ")).unwrap_or_default().to_owned();
                world.complain(format!("{target} is bound: {seen}"));
                world.end_container(&id);
            } else if number < 3 {
                println!("  {target}: {created:?}");
            }
        }
        world.line().call::<Empty>("Kill", &ask::kill_request("l0", "")).expect_err("there is none");
        world.end("links in a volume");
    });
}
