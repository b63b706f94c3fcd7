//! A spec, with what else goes into its plan.

use serde_json::{json, Value};
use shoal::error::Result;
use shoal::plan::{self, AppArmor, CgroupMounts, Hierarchy, Host, Plan, RootfsMount};
use shoal::spec::{Process, Spec};
use shoal::sys::seccomp::{Filter, SockFilter};
use std::path::{Path, PathBuf};

pub struct Hosts;

impl Hosts {
    pub fn both() -> [(&'static str, Host); 2] {
        [("v1", Self::v1()), ("v2", Self::v2())]
    }

    /// Debian 10 in its habits: co-mounted controllers, an older kernel.
    pub fn v1() -> Host {
        let hierarchy = |name: &str, controllers: &[&str]| Hierarchy {
            mountpoint: Path::new("/sys/fs/cgroup").join(name),
            controllers: controllers.iter().map(|c| (*c).into()).collect(),
        };
        Host {
            cgroups: CgroupMounts::V1(vec![
                hierarchy("systemd", &["name=systemd"]),
                hierarchy("cpu,cpuacct", &["cpu", "cpuacct"]),
                hierarchy("memory", &["memory"]),
                hierarchy("pids", &["pids"]),
            ]),
            last_cap: 39,
            page_size: 4096,
            apparmor: AppArmor::Shared,
            selinux: false,
            kcore: false,
            resctrl: Some("/sys/fs/resctrl".into()),
        }
    }

    pub fn v2() -> Host {
        Host {
            cgroups: CgroupMounts::V2,
            last_cap: 40,
            page_size: 4096,
            apparmor: AppArmor::Own,
            selinux: false,
            kcore: true,
            resctrl: Some("/sys/fs/resctrl".into()),
        }
    }
}

#[derive(Default)]
pub struct Case {
    pub name: String,
    spec: String,
    /// The `Process` of an exec.
    exec: Option<String>,
    /// Fields of `linux` beside those in the file.
    linux: Vec<(&'static str, Value)>,
    rootfs: Vec<RootfsMount>,
    no_pivot_root: bool,
    no_new_keyring: bool,
}

impl Case {
    pub fn all() -> Vec<Case> {
        let mut names: Vec<String> = std::fs::read_dir(super::folder("specs"))
            .expect("readable")
            .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
            .filter_map(|name| name.strip_suffix(".json").map(String::from))
            .collect();
        names.sort();
        names.into_iter().map(Self::of_file).chain(Self::special()).collect()
    }

    /// A file alone: a create, or an exec in ctr's default container.
    fn of_file(name: String) -> Case {
        if name.starts_with("exec-") {
            return Case {
                spec: "ctr-2.1-default".into(),
                exec: Some(name.clone()),
                name,
                ..Case::default()
            };
        }
        let spec = name.clone();
        // docker mounts the root itself.
        let rootfs = if read(&spec).contains("\"path\": \"rootfs\"") { vec![overlay(2)] } else { Vec::new() };
        Case { name, spec, rootfs, ..Case::default() }
    }

    fn special() -> Vec<Case> {
        let native = RootfsMount {
            fstype: "bind".into(),
            source: "/var/lib/containerd/native/7".into(),
            options: ["rbind", "ro", "rslave"].map(String::from).to_vec(),
            ..RootfsMount::default()
        };
        let image = RootfsMount {
            fstype: "ext4".into(),
            source: "/var/lib/containerd/blockfile/7".into(),
            options: ["ro", "loop", "direct-io", "noload"].map(String::from).to_vec(),
            ..RootfsMount::default()
        };
        let exec = |name: &str, spec: &str| Case {
            name: name.into(),
            spec: spec.into(),
            exec: Some("exec-tty".into()),
            ..Case::default()
        };
        // As snapshotters ask for it that can remap labels.
        let idmapped = |name: &str, mut mount: RootfsMount| {
            mount.options.extend(["uidmap=0:100000:65536".into(), "gidmap=0:100000:65536".into()]);
            Case { name: name.into(), spec: "ctr-userns".into(), rootfs: vec![mount], ..Case::default() }
        };
        let lent = |name: &str, spec: &str| Case {
            name: name.into(),
            spec: spec.into(),
            linux: vec![
                ("netDevices", json!({ "eth1": {}, "eth2": { "name": "net0" } })),
                ("intelRdt", json!({ "closID": "gold", "enableMonitoring": true })),
            ],
            rootfs: vec![overlay(2)],
            ..Case::default()
        };
        vec![
            Case {
                name: "no-pivot".into(),
                spec: "ctr-2.1-default".into(),
                rootfs: vec![native.clone()],
                no_pivot_root: true,
                no_new_keyring: true,
                ..Case::default()
            },
            Case {
                name: "many-layers".into(),
                spec: "ctr-1.7-default".into(),
                rootfs: vec![overlay(120)],
                ..Case::default()
            },
            Case {
                name: "loop-device".into(),
                spec: "ctr-2.1-default".into(),
                rootfs: vec![image],
                ..Case::default()
            },
            idmapped("idmapped-layers", overlay(2)),
            idmapped("idmapped-native", native.clone()),
            Case {
                name: "below-the-root".into(),
                spec: "ctr-2.1-default".into(),
                rootfs: vec![
                    RootfsMount { fstype: "fuse3.fuse-overlayfs".into(), ..overlay(1) },
                    RootfsMount { target: "/usr/../srv".into(), ..native },
                ],
                ..Case::default()
            },
            lent("lent-by-the-host", "ctr-2.1-default"),
            lent("lent-by-the-host-userns", "ctr-userns"),
            exec("exec-in-cri-pod", "cri-default"),
            exec("exec-in-user-namespace", "cri-userns"),
            exec("exec-in-host-namespaces", "docker-host"),
            exec("exec-seccomp", "ctr-seccomp"),
            exec("exec-seccomp-notify", "ctr-seccomp-notify"),
            exec("exec-in-process-everything", "process-everything"),
        ]
    }

    pub fn compile(&self, host: &Host) -> Result<Plan> {
        let mut spec: Value = serde_json::from_str(&read(&self.spec)).expect("JSON");
        for (name, value) in &self.linux {
            spec["linux"][*name] = value.clone();
        }
        let spec = Spec::parse(spec.to_string().as_bytes())?;
        let filter = spec.seccomp.as_ref().map(|profile| filter(profile.listener.is_some()));
        if let Some(exec) = &self.exec {
            let process = &Process::parse(read(exec).as_bytes())?;
            return plan::exec(&plan::ExecInput {
                spec: &spec,
                process,
                host,
                id: "c1",
                filter,
                no_new_keyring: self.no_new_keyring,
            });
        }
        let revealing = ["/proc", "/sys"].map(PathBuf::from);
        plan::create(&plan::Input {
            spec: &spec,
            host,
            id: "c1",
            bundle: Path::new("/run/containerd/io.containerd.runtime.v2.task/default/c1"),
            rootfs: &self.rootfs,
            filter,
            cgroup_dirs: &directories(host),
            no_pivot_root: self.no_pivot_root.then_some(&revealing),
            no_new_keyring: self.no_new_keyring,
        })
    }
}

/// What else a create has, where that does not matter.
pub fn input<'a>(spec: &'a Spec, host: &'a Host, cgroup_dirs: &'a [(PathBuf, PathBuf)]) -> plan::Input<'a> {
    plan::Input {
        spec,
        host,
        id: "c1",
        bundle: Path::new("/b"),
        rootfs: &[],
        filter: None,
        cgroup_dirs,
        no_pivot_root: None,
        no_new_keyring: false,
    }
}

pub fn read(spec: &str) -> String {
    let path = super::folder("specs").join(format!("{spec}.json"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"))
}

pub fn directories(host: &Host) -> Vec<(PathBuf, PathBuf)> {
    let path = PathBuf::from("/default/c1");
    match &host.cgroups {
        CgroupMounts::V1(all) => all.iter().map(|h| (h.mountpoint.clone(), path.clone())).collect(),
        CgroupMounts::V2 => vec![("/sys/fs/cgroup".into(), path)],
    }
}

pub fn overlay(layers: usize) -> RootfsMount {
    let dir = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots";
    let lower: Vec<String> = (1..=layers).rev().map(|n| format!("{dir}/{n}/fs")).collect();
    RootfsMount {
        fstype: "overlay".into(),
        source: "overlay".into(),
        target: String::new(),
        options: vec![
            "index=off".into(),
            format!("workdir={dir}/999/work"),
            format!("upperdir={dir}/999/fs"),
            format!("lowerdir={}", lower.join(":")),
        ],
    }
}

/// `listens`: with SECCOMP_FILTER_FLAG_NEW_LISTENER.
pub fn filter(listens: bool) -> Filter {
    let flags = u64::from(listens) << 3;
    Filter { program: [SockFilter { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 }].into(), flags }
}
