//! A pod whose network namespace is a file that does not answer.

use crate::ask::{answers, Asked, Line};
use crate::fuse::{Fuse, Waits};
use crate::hear::threads;
use crate::left::Before;
use crate::{apart, slow};
use containerd_shim_protos::api::*;
use containerd_shim_protos::sandbox_api::CreateSandboxRequest;
use protobuf::MessageField;
use shoal::service::protos::pod::{IDMapping, NamespaceMode, UserNamespace};
use std::time::Duration;
use testbed::fake::pod;
use testbed::fake::{ended, eventually, Containerd, Version};
use testbed::wire::{DE, FP, SANDBOX};

const LIMIT: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_secs(1);

/// Creates pods whose process waits for a network namespace that does not answer, with the user namespace that owns
/// it, or without one.
fn create(users: bool) {
    apart("launch_timeout = 100", || {
        let mut containerd = Containerd::new(Version::V2_3);
        containerd.program = testbed::shim();
        let before = Before::now();
        let fuse = Fuse::mount(&containerd.dir.path().join("hang"), Waits::UntilKilled);
        let shim = pod::launch(&containerd);
        let line = Line { containerd: &containerd, shim: &shim };
        let connect = ConnectRequest { id: "s1".into(), ..Default::default() };
        let server = line.call::<ConnectResponse>("Connect", &connect).unwrap().shim_pid;
        let range = IDMapping { host_id: 300_000, container_id: 0, length: 65536, ..Default::default() };
        let user = UserNamespace {
            mode: NamespaceMode::POD.into(),
            uids: vec![range.clone()],
            gids: vec![range],
            ..Default::default()
        };
        let request = pod::request(&containerd, |namespaces| {
            namespaces.userns_options = MessageField(users.then(|| Box::new(user)));
        });
        let create = |number: usize, limit: Duration| -> Asked {
            let netns_path = format!("{}/dir-net{number}/hang", fuse.path.display());
            let request = CreateSandboxRequest { netns_path, ..request.clone() };
            line.ask("CreateSandbox", SANDBOX, "CreateSandbox", &request, limit)
        };

        // The first create ends when its time is over.
        let rest = threads(server);
        let late = create(0, LIMIT);
        std::thread::sleep(slow(Duration::from_secs(1)));
        let busy = threads(server);
        let asked = line.task("Connect", "Connect", &connect, Duration::ZERO);
        let heard = answers(vec![asked], slow(SOON)).remove(0);
        let late = answers(vec![late], LIMIT + slow(SOON)).remove(0);
        println!("  {late}; {heard}; {busy} threads, {rest} before");
        let (code, words) = late.refusal().expect("it is refused");
        assert!(
            *code == DE && words.contains("netns_path") && words.contains(&fuse.path.display().to_string())
        );
        // The extra thread is the parked one.
        assert!(heard.good() && busy <= rest + 1, "{heard}, {busy} threads, {rest} before");

        // The second one ends when the pod is shut down.
        let killed = create(1, Duration::ZERO);
        std::thread::sleep(slow(Duration::from_millis(300)));
        let shutdown = line.ask("ShutdownSandbox", SANDBOX, "ShutdownSandbox", &pod::about(), Duration::ZERO);
        let [killed, shutdown] = [killed, shutdown].map(|asked| answers(vec![asked], slow(SOON)).remove(0));
        println!("  {killed}; {shutdown}");
        assert!(killed.refusal().is_some_and(|(code, _)| *code == FP), "{killed}");
        assert!(shutdown.good(), "{shutdown}");
        assert!(eventually(|| ended(server)) && !shim.path.exists());
        let left = || before.processes(&containerd);
        assert!(eventually(|| left().is_empty()), "{:?}", left());
        pod::forget(&containerd);
        drop(fuse);
    });
}

#[test]
fn a_network_namespace_that_does_not_answer_holds_up_its_pod_alone() {
    create(false);
}

#[test]
fn a_network_namespace_whose_owner_is_not_to_be_had_holds_up_its_pod_alone() {
    create(true);
}
