//! What can be wrong with user namespaces and mapped owners.

use super::error::{bind, host, mount, namespace, Bad};
use serde_json::{json, Value};

pub(super) const USERS: &[Bad] = &[
    (|s| users(s, json!([]), map(0, 1000, 9)), "linux.uidMappings: missing, a new user namespace needs it"),
    (|s| users(s, map(0, 1000, 9), Value::Null), "linux.gidMappings: missing, a new user namespace needs it"),
    (|s| users(s, map(1, 1000, 9), map(0, 1, 1)), "linux.uidMappings: id 0 of the container is not mapped"),
    (|s| users(s, map(0, 1000, 0), map(0, 1, 1)), "linux.uidMappings[0].size: must not be 0"),
    (
        |s| users(s, map(0, 4_294_967_295, 1), map(0, 1, 1)),
        "linux.uidMappings[0].hostID: 4294967295 and 1 more are too many",
    ),
    (
        |s| users(s, map(0, 1000, 9), json!([map(0, 1, 9)[0], map(8, 100, 1)[0]])),
        "linux.gidMappings[1].containerID: overlaps with range 0",
    ),
    (
        |s| users(s, json!([map(0, 1000, 9)[0], map(10, 1008, 5)[0]]), map(0, 1, 1)),
        "linux.uidMappings[1].hostID: overlaps with range 0",
    ),
    (
        |s| {
            let many: Vec<Value> = (0..341).map(|n| map(n, n, 1)[0].clone()).collect();
            users(s, many.into(), map(0, 1, 1));
        },
        "linux.uidMappings[340]: more than 340 ranges",
    ),
    (
        |s| users(s, json!([{"containerID": -1, "hostID": 1, "size": 1}]), map(0, 1, 1)),
        "linux.uidMappings[0].containerID: invalid value: integer `-1`, expected u32",
    ),
    (
        |s| s["linux"]["gidMappings"] = map(0, 1, 1),
        "linux.gidMappings: there is no user namespace to map ids for",
    ),
    (
        |s| {
            users(s, map(0, 1, 1), map(0, 1, 1));
            namespace(s, json!({"type": "user", "path": "/proc/1/ns/user"}));
        },
        "linux.namespaces[6]: a second user namespace",
    ),
    (
        |s| {
            users(s, map(0, 1, 1), map(0, 1, 1));
            host(s, "network");
        },
        "mounts[5]: a sysfs shows the host's network, and is not for a user namespace; bind /sys instead",
    ),
    (
        |s| s["linux"]["sysctl"] = json!({"user.max_user_namespaces": "1"}),
        "linux.sysctl[\"user.max_user_namespaces\"]: not allowed in the host's user namespace",
    ),
    (
        |s| mount(s, bind(json!(["bind", "idmap"]))),
        "mounts[1].options[1]: no mappings, and no user namespace that has some",
    ),
    (
        |s| {
            let mut idmapped = bind(json!(["bind"]));
            idmapped["uidMappings"] = map(0, 1, 1);
            mount(s, idmapped);
        },
        "mounts[1].gidMappings: missing beside uidMappings",
    ),
    (
        |s| {
            let mut idmapped = bind(json!(["bind"]));
            idmapped["gidMappings"] = map(0, 1, 1);
            mount(s, idmapped);
        },
        "mounts[1].uidMappings: missing beside gidMappings",
    ),
    (
        |s| {
            let mut idmapped = bind(json!(["bind"]));
            idmapped["uidMappings"] = map(0, 1, 1);
            idmapped["gidMappings"] = json!([map(0, 1, 1)[0], map(5, 9, 0)[0]]);
            mount(s, idmapped);
        },
        "mounts[1].gidMappings[1].size: must not be 0",
    ),
    (
        |s| {
            let idmapped = json!({"destination": "/m", "type": "tmpfs", "options": ["ridmap"]});
            mount(s, idmapped);
        },
        "mounts[1].options[0]: only the ids of a bind mount can be mapped",
    ),
];

fn map(inside: u32, outside: u32, count: u32) -> Value {
    json!([{"containerID": inside, "hostID": outside, "size": count}])
}

fn users(s: &mut Value, uids: Value, gids: Value) {
    namespace(s, json!({"type": "user"}));
    s["linux"]["uidMappings"] = uids;
    s["linux"]["gidMappings"] = gids;
}
