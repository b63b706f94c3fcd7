//! The table: the code of every method of the pod services in every state of a pod.

use crate::world::{World, POD};
use containerd_shim_protos::sandbox_api::*;
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};
use shoal::service::protos::pod::{
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata,
};
use shoal::service::protos::sandbox::*;
use std::time::Duration;
use testbed::wire::{code, decode, AE, CONTROLLER, DE, FP, IA, NF, OK, SANDBOX, TASK_V3, UN};
use ttrpc::proto::Code;

const STATES: [&str; 5] = ["none", "created", "ready", "paused", "stopped"];

/// Returns the configuration of a pod with the host's namespaces, which takes no rights to make.
pub fn config() -> PodSandboxConfig {
    let options = NamespaceOption {
        network: NamespaceMode::NODE.into(),
        ipc: NamespaceMode::NODE.into(),
        pid: NamespaceMode::CONTAINER.into(),
        ..Default::default()
    };
    let security_context =
        LinuxSandboxSecurityContext { namespace_options: MessageField::some(options), ..Default::default() };
    let linux = LinuxPodSandboxConfig {
        security_context: MessageField::some(security_context),
        cgroup_parent: "/fake".into(),
        ..Default::default()
    };
    let metadata = PodSandboxMetadata { name: "web".into(), attempt: 3, ..Default::default() };
    PodSandboxConfig {
        metadata: MessageField::some(metadata),
        linux: MessageField::some(linux),
        ..Default::default()
    }
}

pub fn options() -> MessageField<Any> {
    any(&config())
}

/// Returns the configuration of a pod with a first process.
pub fn sharing_pids() -> MessageField<Any> {
    let mut config = config();
    let context = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
    context.unwrap().namespace_options.as_mut().unwrap().pid = NamespaceMode::POD.into();
    any(&config)
}

fn any(config: &PodSandboxConfig) -> MessageField<Any> {
    let value = config.write_to_bytes().unwrap();
    MessageField::some(Any { type_url: "runtime.v1.PodSandboxConfig".into(), value, ..Default::default() })
}

pub fn create_request(world: &World, id: &str) -> CreateSandboxRequest {
    let bundle_path = world.pod_bundle().to_str().unwrap().to_owned();
    CreateSandboxRequest { sandbox_id: id.into(), bundle_path, options: options(), ..Default::default() }
}

pub fn pod_in(world: &mut World, state: &str) {
    let steps = STATES.iter().position(|name| *name == state).unwrap();
    if steps >= 1 {
        assert_eq!(sandbox(world, "CreateSandbox", POD), OK);
    }
    if steps >= 2 {
        assert_eq!(sandbox(world, "StartSandbox", POD), OK);
    }
    if steps == 3 {
        assert_eq!(controller(world, "Pause", POD), OK);
    }
    if steps == 4 {
        assert_eq!(sandbox(world, "StopSandbox", POD), OK);
    }
}

/// Returns a message with the id as field 1, as all these requests have it.
pub fn about(id: &str) -> PingRequest {
    PingRequest { sandbox_id: id.into(), ..Default::default() }
}

/// A Wait for a live pod must not answer: the request's own time limit ends it.
fn wait(world: &mut World, service: &str, method: &str, id: &str) -> Code {
    world.wire.ask(service, method, &about(id), Duration::from_millis(50));
    code(decode::<WaitSandboxResponse>(world.wire.next().unwrap().1))
}

pub fn sandbox(world: &mut World, method: &str, id: &str) -> Code {
    match method {
        "CreateSandbox" => {
            let request = create_request(world, id);
            code(world.wire.call::<CreateSandboxResponse>(SANDBOX, method, &request))
        }
        "WaitSandbox" => wait(world, SANDBOX, method, id),
        _ => code(world.wire.call::<PingResponse>(SANDBOX, method, &about(id))),
    }
}

pub fn controller(world: &mut World, method: &str, id: &str) -> Code {
    match method {
        "Start" => {
            world.pod_bundle();
            let request =
                ControllerStartRequest { sandbox_id: id.into(), options: options(), ..Default::default() };
            code(world.wire.call::<ControllerStartResponse>(CONTROLLER, method, &request))
        }
        "Wait" => wait(world, CONTROLLER, method, id),
        _ => code(world.wire.call::<PingResponse>(CONTROLLER, method, &about(id))),
    }
}

/// One column per state of STATES, and one for another id in any state.
type Table<const N: usize> = [(&'static str, [Code; 5], Code); N];

fn check<const N: usize>(table: Table<N>, call: fn(&mut World, &str, &str) -> Code) {
    for (method, codes, of_another) in table {
        for (state, expected) in STATES.iter().zip(codes) {
            let mut world = World::new();
            pod_in(&mut world, state);
            assert_eq!(call(&mut world, method, "another"), of_another, "{method} of another when {state}");
            assert_eq!(call(&mut world, method, POD), expected, "{method} when {state}");
            let ends = method.starts_with("Shutdown") && expected == OK;
            if ends {
                assert!(world.wire.next().is_none(), "the server hangs up");
            }
            assert_eq!(world.has_ended(), ends, "{method} when {state}");
        }
    }
}

#[test]
fn each_method_of_the_sandbox_service_in_each_state() {
    let table = [
        ("CreateSandbox", [OK, AE, AE, AE, AE], IA),
        ("StartSandbox", [NF, OK, FP, FP, FP], NF),
        ("Platform", [OK, OK, OK, OK, OK], NF),
        ("StopSandbox", [NF, OK, OK, OK, OK], NF),
        ("WaitSandbox", [NF, DE, DE, DE, OK], NF),
        ("SandboxStatus", [NF, OK, OK, OK, OK], NF),
        ("PingSandbox", [NF, OK, OK, OK, FP], NF),
        ("ShutdownSandbox", [OK, OK, OK, OK, OK], NF),
        ("SandboxMetrics", [NF, OK, OK, OK, OK], NF),
        ("UpdateSandbox", [UN, UN, UN, UN, UN], UN),
    ];
    check(table, sandbox);
}

#[test]
fn each_method_of_the_controller_in_each_state() {
    let table = [
        ("Start", [OK, AE, AE, AE, AE], IA),
        ("Shutdown", [OK, OK, OK, OK, OK], NF),
        ("Wait", [NF, DE, DE, DE, OK], NF),
        ("Pause", [NF, FP, OK, FP, FP], NF),
        ("Resume", [NF, FP, FP, OK, FP], NF),
        ("Ping", [NF, OK, OK, OK, FP], NF),
        ("Status", [NF, OK, OK, OK, OK], NF),
        ("Create", [UN, UN, UN, UN, UN], UN),
    ];
    check(table, controller);
}

/// Calls Task with an id: containerd asks each shim that it knows with the pod's own.
fn task(world: &mut World, method: &str, id: &str) -> Code {
    code(world.wire.call::<PingResponse>(TASK_V3, method, &about(id)))
}

#[test]
fn a_pod_is_no_container() {
    let table = [
        ("Start", [NF; 5], NF),
        ("State", [NF; 5], NF),
        ("Pids", [NF; 5], NF),
        ("Kill", [NF; 5], NF),
        ("Pause", [NF; 5], NF),
        ("Resume", [NF; 5], NF),
        ("Stats", [NF; 5], NF),
        ("Wait", [NF; 5], NF),
        ("Delete", [NF; 5], NF),
        ("Connect", [OK; 5], OK),
    ];
    check(table, task);
}
