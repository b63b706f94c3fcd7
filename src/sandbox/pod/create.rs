//! CreateSandbox: from a request to namespaces, files and a cgroup. A failed create leaves nothing behind.

use super::document::{self, Extra};
use super::files::{self, SHM_SIZE};
use super::life::Life;
use super::namespaces::{self, Held, Wanted};
use super::request::{PodConfig, PodCreate, PodPid};
use super::{path_of, Pod, State};
use crate::cgroup::{Cgroup, Entry};
use crate::error::{invalid, Context, Result};
use crate::launch::{ExitStatus, Leash, OnExit};
use crate::sandbox::record::{self, Record};
use crate::sandbox::Exit;
use crate::sandbox::{CgroupOrder, Options, PodPlace, PodSettings, Sandbox, World};
use crate::spec::{self, Namespaces, Ns};
use crate::sync::{Mutex, MutexGuard};
use crate::sys::identity::HOSTNAME_MAX;
use crate::tasks;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

impl Sandbox {
    /// Creates the pod: namespaces, files, sysctls. Fails with `Exists` if there is a pod already or a container has
    /// its id; a failure removes whatever was created.
    pub async fn create_pod(&self, request: PodCreate) -> Result<()> {
        let id = request.id.clone();
        let leash = self.world.leash(request.deadline);
        let taken = self.take_pod(&id, &leash)?;
        let pod = create(&self.world, request, &leash).await.context(|| format!("create sandbox {id}"))?;
        log::info!(sandbox = id.as_str(), pid = pod.pid(); "created the sandbox");
        taken.fill(pod);
        Ok(())
    }
}

async fn create(world: &World, request: PodCreate, leash: &Leash) -> Result<Arc<Pod>> {
    leash.unless_killed(world.paths.check_bundle(&request.bundle, leash.deadline)).await?;
    let (mut config, extra, settings) = match request.config {
        Some(config) => (config, Extra::default(), world.settings()?),
        None => {
            let reading = document::read(&world.paths, &request.bundle, leash.deadline);
            let (config, extra) = leash.unless_killed(reading).await?;
            (
                config,
                extra,
                PodSettings { unprivileged_ports: false, unprivileged_icmp: false, ..Default::default() },
            )
        }
    };
    config.annotations.extend(request.annotations);
    let by_netns_path = request.netns.is_some();
    let namespaces = place(&mut config, request.netns)?;
    let hostname = hostname(&config)?;
    let sysctls = sysctls(&config, &settings);
    let checked = spec::sysctls(sysctls.clone(), &namespaces)?;
    let (cgroup, members_below) = cgroup(world, &request.id, &config, &extra)?;

    let made = cgroup.record();
    let bundle = request.bundle;
    let make = Make {
        world,
        id: &request.id,
        bundle: &bundle,
        config: &config,
        sysctls: &sysctls,
        leash,
        left: AtomicBool::new(false),
    };
    let shm_size = extra.shm_size.unwrap_or(SHM_SIZE);
    let mappings = config.user.clone().unwrap_or_default();
    let wanted = Wanted { namespaces, by_netns_path, mappings, hostname, sysctls: checked, root: None };
    let pod = make.all(wanted, shm_size, cgroup, members_below).await;
    if pod.is_err() {
        made.unmake();
        if let Err(e) = files::remove(&bundle) {
            make.left.store(true, Ordering::SeqCst);
            log::warn!(sandbox = request.id.as_str(); "could not remove the files of a failed create: {e}");
        }
        // Keep the record if anything is left: `delete` finds it by the record.
        if !make.left.load(Ordering::SeqCst) {
            record::remove(&bundle);
        }
    }
    pod
}

/// Context shared by the steps of a create.
struct Make<'a> {
    world: &'a World,
    id: &'a str,
    bundle: &'a Path,
    config: &'a PodConfig,
    sysctls: &'a BTreeMap<String, String>,
    leash: &'a Leash,
    /// Set if a failed create could not remove everything it had created.
    left: AtomicBool,
}

impl Make<'_> {
    async fn all(
        &self,
        mut wanted: Wanted,
        shm_size: u64,
        cgroup: Box<dyn Cgroup>,
        members_below: Option<PathBuf>,
    ) -> Result<Arc<Pod>> {
        let (parent, pod_cgroup) = (Some(cgroup.record()), Some(cgroup.pod_record()));
        let mut record = Record { parent, pod_cgroup, ..Record::new(self.id, None) };
        record::write(self.bundle, &record)?;
        let files = files::make(self.bundle, self.config, shm_size)?;
        let mut init_cgroup = None;
        if wanted.namespaces.pid == Ns::New {
            let root = self.bundle.join("rootfs");
            std::fs::create_dir_all(&root).context(|| format!("mkdir({root:?})"))?;
            wanted.root = Some(root);
            init_cgroup = Some(self.init_cgroup(&members_below).await?);
        }
        let news = Arc::new(InitExit::default());
        // Written before the cgroup is populated: the shim may be killed at any moment.
        record.cgroup = init_cgroup.as_ref().map(|cgroup| cgroup.record());
        let made = async {
            record::write(self.bundle, &record)?;
            let held = self.namespaces(&wanted, init_cgroup.as_deref(), &news).await?;
            if init_cgroup.is_some() {
                record.pid = held.pid;
                record.start_time = record::start_time(held.pid).unwrap_or(0);
                // A failure drops `held`, which ends the process.
                record::write(self.bundle, &record)?;
            }
            Ok(held)
        };
        let made = made.await;
        let held = match (made, &init_cgroup) {
            (Err(error), Some(init_cgroup)) => {
                let removed = match init_cgroup.remove().await {
                    Ok(()) => cgroup.remove().await,
                    removed => removed,
                };
                if let Err(e) = removed {
                    self.left.store(true, Ordering::SeqCst);
                    log::warn!(sandbox = self.id; "could not remove the cgroup of a failed create: {e}");
                }
                return Err(error);
            }
            (made, _) => made?,
        };
        let spec = document::write(self.config, &held, &files, self.sysctls, &path_of(&*cgroup));
        let pod = Arc::new(Pod {
            id: self.id.to_owned(),
            bundle: self.bundle.to_owned(),
            config: self.config.clone(),
            created_at: SystemTime::now(),
            files,
            cgroup,
            init_cgroup,
            members_below,
            spec,
            exit: Exit::default(),
            init_exit: Exit::default(),
            state: Mutex::new(State {
                life: Life::created(Arc::new(held)),
                changed: tasks::News::default(),
                stopped: tasks::News::default(),
                shutdown: None,
            }),
        });
        // Without a first process, the exit is that of the process that created the namespaces: the pod ignores it.
        if pod.init_cgroup.is_some() {
            news.belongs_to(&pod);
        }
        Ok(pod)
    }

    async fn namespaces(
        &self,
        wanted: &Wanted,
        own: Option<&dyn Cgroup>,
        news: &Arc<InitExit>,
    ) -> Result<Held> {
        let (told, queue) = (Arc::clone(news), Arc::clone(self.world.watch.queue()));
        let on_exit: OnExit = Box::new(move |status| queue.push(move || told.ended(status)));
        let entry = own.map_or_else(|| Ok(Entry::default()), |own| own.entry(None))?;
        let held =
            namespaces::make(&*self.world.launcher, &self.world.host, wanted, entry, self.leash, on_exit)
                .await?;
        if wanted.root.is_some() {
            protect(held.pid);
        }
        Ok(held)
    }

    /// Creates the cgroup of the first process beside the containers' cgroups, as that of a pause container would be.
    async fn init_cgroup(&self, members_below: &Option<PathBuf>) -> Result<Box<dyn Cgroup>> {
        let parent = &self.config.cgroup_parent;
        let path = match members_below {
            Some(below) => format!("/{}/{}", below.display(), self.id),
            None => in_parent(parent, self.id),
        };
        let resources = br#"{"cpu":{"shares":2}}"#;
        let resources = spec::resources::Resources::from_json(resources, "linux.resources")?;
        let options = Options::default();
        let (id, annotations, asked) = (self.id, BTreeMap::new(), AtomicBool::new(false));
        let order = CgroupOrder {
            path: Some(&path),
            limits: &resources,
            annotations: &annotations,
            options: &options,
            id,
            asked: &asked,
        };
        self.leash.bounds("its cgroup", &asked, (self.world.cgroups)(order)).await
    }
}

/// The exit of the pod's first process, which may arrive before the pod exists.
#[derive(Default)]
struct InitExit(Mutex<News>);

#[derive(Default)]
struct News {
    status: Option<ExitStatus>,
    pod: Option<Weak<Pod>>,
}

impl InitExit {
    fn lock(&self) -> MutexGuard<'_, News> {
        self.0.lock()
    }

    pub fn ended(&self, status: ExitStatus) {
        let pod = {
            let mut news = self.lock();
            news.status = Some(status);
            news.pod.clone()
        };
        if let Some(pod) = pod.and_then(|pod| pod.upgrade()) {
            pod.init_ended(status);
        }
    }

    fn belongs_to(&self, pod: &Arc<Pod>) {
        let early = {
            let mut news = self.lock();
            news.pod = Some(Arc::downgrade(pod));
            news.status
        };
        if let Some(status) = early {
            pod.init_ended(status);
        }
    }
}

/// The cgroup path in the form that CRI uses. A kubelet passes the full path of a slice; a scope takes only its name.
fn in_parent(parent: &str, id: &str) -> String {
    let name = parent.rsplit('/').next().unwrap_or_default();
    if name.ends_with(".slice") {
        format!("{name}:cri-containerd:{id}")
    } else {
        format!("{parent}/{id}")
    }
}

/// Protects the first process from the OOM killer like CRI's pause containers: the kernel picks every other process of
/// the pod first. Without CAP_SYS_RESOURCE the value stays unchanged.
fn protect(pid: u32) {
    let path = format!("/proc/{pid}/oom_score_adj");
    if let Err(e) = std::fs::write(&path, "-998").context(|| format!("write({path:?})")) {
        log::warn!(pid; "could not protect the pod's first process from the OOM killer: {e}");
    }
}

/// The namespaces of the pod. `netns` was set up by CNI; a pod with a user namespace joins the one that owns `netns`,
/// because CRI creates the network namespace inside it.
fn place(config: &mut PodConfig, netns: Option<PathBuf>) -> Result<Namespaces> {
    if let Some(path) = netns {
        if config.net == Ns::Host {
            return Err(invalid(format!(
                "netns_path: {path:?} is given, and the sandbox has the host's network"
            )));
        }
        config.net = Ns::Join(path);
    }
    let user = match (&config.user, &config.net) {
        (Some(_), Ns::Join(path)) => Ns::Join(path.clone()),
        (Some(_), _) => Ns::New,
        (None, _) => Ns::Host,
    };
    Ok(Namespaces {
        net: config.net.clone(),
        ipc: config.ipc.clone(),
        uts: config.uts.clone(),
        // A process holds the user namespace open, and containers must not see it.
        pid: if config.pid == PodPid::Pod || user != Ns::Host { Ns::New } else { Ns::Host },
        user,
        ..Namespaces::default()
    })
}

/// The hostname to set, if the pod has a uts namespace of its own.
fn hostname(config: &PodConfig) -> Result<Option<CString>> {
    let name = &config.hostname;
    if name.len() > HOSTNAME_MAX {
        return Err(invalid(format!("hostname: {name:?} is longer than {HOSTNAME_MAX} bytes")));
    }
    if name.is_empty() {
        return Ok(None);
    }
    // A kubelet passes none for a pod with the host's network; setting one has no effect, so reject it.
    if config.uts == Ns::Host {
        let why = "the pod has the host's uts namespace, as every pod with the host's network";
        return Err(invalid(format!("hostname: {name:?} cannot be set: {why}")));
    }
    let text = CString::new(name.as_str()).map_err(|_| invalid("hostname: a NUL byte in it"))?;
    Ok(Some(text))
}

/// The pod's sysctls, plus CRI's defaults if the pod has a network namespace and does not set them itself.
fn sysctls(config: &PodConfig, settings: &PodSettings) -> BTreeMap<String, String> {
    let mut all = config.sysctls.clone();
    if config.net == Ns::Host {
        return all;
    }
    let mut default = |on: bool, key: &str, value: &str| {
        if on && !all.contains_key(key) && !all.contains_key(&key.replace('.', "/")) {
            all.insert(key.to_owned(), value.to_owned());
        }
    };
    default(settings.unprivileged_ports, "net.ipv4.ip_unprivileged_port_start", "0");
    let icmp = settings.unprivileged_icmp && config.user.is_none();
    default(icmp, "net.ipv4.ping_group_range", "0 2147483647");
    all
}

/// The pod's cgroup, and the parent for members' cgroups that were given no path.
fn cgroup(
    world: &World,
    id: &str,
    config: &PodConfig,
    extra: &Extra,
) -> Result<(Box<dyn Cgroup>, Option<PathBuf>)> {
    let make = &world.pod_cgroup;
    if !config.cgroup_parent.is_empty() {
        return Ok((make(PodPlace::Client(&config.cgroup_parent))?, None));
    }
    // `slice:prefix:name` is a scope, below which we have no cgroups: use its slice instead.
    if let Some((slice, _)) =
        extra.cgroups_path.split_once(':').filter(|(slice, _)| slice.ends_with(".slice"))
    {
        return Ok((make(PodPlace::Client(slice))?, None));
    }
    let below = match extra.cgroups_path.trim_matches('/') {
        "" => format!("{}/{id}", world.namespace),
        path => path.to_owned(),
    };
    if Path::new(&below).components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
        return Err(invalid(format!("linux.cgroupsPath: {below:?} is not the path of a cgroup")));
    }
    let below = PathBuf::from(below);
    Ok((make(PodPlace::Own(&below))?, Some(below)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_slice_is_known_by_its_name_wherever_it_is() {
        for parent in ["a-b.slice", "/a.slice/a-b.slice"] {
            assert_eq!(super::in_parent(parent, "p1"), "a-b.slice:cri-containerd:p1");
        }
        assert_eq!(super::in_parent("/kubepods/pod1", "p1"), "/kubepods/pod1/p1");
    }
}
