//! The plans of hooks, by where they run.

use super::case::{filter, read, Hosts};
use shoal::plan::{self, HookPlace};
use shoal::spec::{Hook, Namespaces, Ns, Spec};
use std::collections::BTreeMap;
use std::path::Path;

/// Each place by its file.
pub fn all() -> BTreeMap<String, String> {
    let hook = Hook {
        path: "/usr/bin/hook".into(),
        args: ["name", "--now"].map(String::from).into(),
        env: vec!["ONLY=this".into()],
        timeout: None,
    };
    let silent = Hook { args: Vec::new(), env: Vec::new(), ..hook.clone() };
    let bundle = Path::new("/bundle");
    let own = Namespaces { pid: Ns::New, ..Namespaces::default() };
    let within = |namespaces| plan::hook(&hook, HookPlace::Namespaces { bundle, namespaces });
    let mut all = vec![
        ("host".to_owned(), plan::hook(&hook, HookPlace::Host { bundle })),
        ("host-silent".into(), plan::hook(&silent, HookPlace::Host { bundle })),
        ("namespaces".into(), within(&own)),
        ("namespaces-shared-pid".into(), within(&Namespaces::default())),
        ("namespaces-time".into(), within(&Namespaces { time: Ns::New, ..own.clone() })),
    ];
    for (name, hook, of) in [
        ("container", &hook, "ctr-2.1-default"),
        ("container-silent", &silent, "ctr-2.1-default"),
        ("container-in-cri-pod", &hook, "cri-default"),
        ("container-in-user-namespace", &hook, "cri-userns"),
        ("container-in-process-everything", &hook, "process-everything"),
    ] {
        let text = read(of);
        let spec = Spec::parse(text.as_bytes()).expect("it is a spec");
        let filter = text.contains("\"seccomp\"").then(|| filter(false));
        let place = HookPlace::Container { spec: &spec, host: &Hosts::v2(), id: "c1", filter };
        all.push((name.into(), plan::hook(hook, place)));
    }
    all.into_iter()
        .map(|(name, plan)| (format!("{name}.txt"), plan.expect("it is a plan").to_string()))
        .collect()
}
