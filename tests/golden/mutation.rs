//! Every value of a spec is replaced by every other kind of value: what comes of it is a plan, or an error that
//! names a field, and never a panic.

use super::case::{directories, input, read, Hosts};
use super::property;
use serde_json::{json, Value};
use shoal::error::{Kind, Result};
use shoal::plan::{self, Plan};
use shoal::spec::Spec;

/// JSON pointers to everything in it.
fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
    let mut below = |name: String, value: &Value| {
        let pointer = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        all.push(pointer.clone());
        pointers(value, &pointer, all);
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| below(name.clone(), value)),
        // The rest of a list of names is no different.
        Value::Array(list) => {
            let few = if list.iter().all(Value::is_string) { 2 } else { list.len() };
            list.iter().take(few).enumerate().for_each(|(i, value)| below(i.to_string(), value));
        }
        _ => {}
    }
}

fn compile(spec: &Value) -> Result<Plan> {
    let spec = Spec::parse(spec.to_string().as_bytes())?;
    let host = Hosts::v1();
    plan::create(&input(&spec, &host, &directories(&host)))
}

const FIELDS: [&str; 9] =
    ["ociVersion", "root", "mounts", "process", "hostname", "domainname", "hooks", "annotations", "linux"];

#[test]
fn no_value_makes_it_panic() {
    let others = [
        Value::Null,
        json!(true),
        json!(-1),
        json!(i64::MAX),
        json!(1.5),
        json!(""),
        json!("a\u{0}b"),
        json!("/../x/./\u{fffd}"),
        json!([]),
        json!([null]),
        json!({}),
        json!({"x": [{}]}),
    ];
    let (mut plans, mut errors) = (0, 0);
    for name in ["process-everything", "mount-options", "docker-26-default"] {
        let spec: Value = serde_json::from_str(&read(name)).expect("JSON");
        let mut all = Vec::new();
        pointers(&spec, "", &mut all);
        assert!(all.len() > 50, "{name}");
        for pointer in &all {
            for other in &others {
                let mut spec = spec.clone();
                *spec.pointer_mut(pointer).expect("it is there") = other.clone();
                match compile(&spec) {
                    Ok(plan) => {
                        plans += 1;
                        property::check(&plan, pointer);
                        assert!(!plan.to_string().contains('\0'), "{pointer} = {other}");
                    }
                    Err(e) => {
                        errors += 1;
                        let text = e.to_string();
                        let named = FIELDS.iter().any(|field| text.starts_with(field));
                        assert!(named, "{pointer} = {other}: {text}");
                        assert!(matches!(e.kind(), Kind::Invalid | Kind::Unsupported), "{pointer}: {e:?}");
                    }
                }
            }
        }
    }
    assert!(plans > 500 && errors > 1000, "{plans} plans, {errors} errors");
}
