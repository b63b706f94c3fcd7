//! Options of Task.Create that the operator decides on.

use super::world::World;
use containerd_shim_protos::api::CreateTaskResponse;
use containerd_shim_protos::shim::oci;
use protobuf::well_known_types::any::Any;
use protobuf::Message;
use std::sync::atomic::Ordering;
use ttrpc::proto::Code;

#[test]
fn another_runtime_is_ignored_only_where_the_operator_says_so() {
    let mut world = World::new();
    let create = |world: &mut World, name: &str| {
        let mut request = world.create_request("c1");
        let options = oci::Options { binary_name: name.into(), ..Default::default() };
        let value = options.write_to_bytes().unwrap();
        let any = Any { type_url: "containerd.runc.v1.Options".into(), value, ..Default::default() };
        request.options = Some(any).into();
        world.wire.task::<CreateTaskResponse>("Create", &request)
    };
    let (code, message) = create(&mut world, "sh").unwrap_err();
    assert_eq!(code, Code::INVALID_ARGUMENT);
    assert!(
        message.starts_with("options: BinaryName \"sh\": ") && message.contains("ignore_binary_name"),
        "{message}"
    );
    world.stage.ignore_binary_name.store(true, Ordering::SeqCst);
    let (code, message) = create(&mut world, "no-such-runc").unwrap_err();
    assert_eq!(code, Code::INVALID_ARGUMENT);
    assert!(message.contains("\"no-such-runc\": executable file not found"), "{message}");
    create(&mut world, "sh").unwrap();
}
