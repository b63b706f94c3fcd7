//! What is wanted of CRIU, as its messages.

use super::protos::rpc;
use crate::spec::annotation;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

/// How much CRIU tells its log: as runc has it.
const LOG_LEVEL: i32 = 4;
/// An operator's settings, which overrule what is said here: as with runc.
const CONFIG: &str = "/etc/criu/runc.conf";

/// What both have.
pub struct Place<'a> {
    /// The folder of the files. Both are this process's own: CRIU opens them by its /proc/PID/fd.
    pub images: BorrowedFd<'a>,
    /// The folder of the log.
    pub work: BorrowedFd<'a>,
    pub log: &'a str,
    /// The container's annotations.
    pub config: Option<&'a str>,
    /// Of the root file system.
    pub root: &'a str,
}

/// What is to be done about the cgroups below the container's own: criu's modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cgroups {
    #[default]
    Soft,
    Full,
    Strict,
}

impl Cgroups {
    fn mode(self) -> rpc::CgroupMode {
        match self {
            Cgroups::Soft => rpc::CgroupMode::SOFT,
            Cgroups::Full => rpc::CgroupMode::FULL,
            Cgroups::Strict => rpc::CgroupMode::STRICT,
        }
    }
}

/// A container whose processes are to be written down.
pub struct Dump<'a> {
    pub place: Place<'a>,
    /// Its first process.
    pub pid: u32,
    pub leave_running: bool,
    pub open_tcp: bool,
    pub external_unix_sockets: bool,
    pub terminal: bool,
    pub file_locks: bool,
    pub cgroups: Cgroups,
    /// What is not the container's, and will be given again: `KIND[NAME]` or `KIND[NAME]:KEY`.
    pub external: Vec<String>,
    /// Where something of the host's is mounted, and by which name it will be given again.
    pub mounts: Vec<(String, String)>,
    /// Of its freezer, or of its cgroup of v2.
    pub freezer: Option<String>,
}

/// A container whose processes are to be made again, as children of this process.
pub struct Restore<'a> {
    pub place: Place<'a>,
    /// By the names of the dump.
    pub mounts: Vec<(String, String)>,
    /// Descriptors of CRIU's own, by the names of the dump.
    pub descriptors: Vec<(String, i32)>,
    /// Kinds of namespaces that are there, and the files of them.
    pub namespaces: Vec<(&'static str, PathBuf)>,
    /// The container's cgroup by the names of a hierarchy's controllers.
    pub cgroups: Vec<(String, String)>,
}

/// For [`Place::config`].
pub fn config(annotations: &std::collections::BTreeMap<String, String>) -> Option<&str> {
    match annotations.get(annotation::CRIU_CONFIG) {
        Some(named) => Some(named.as_str()).filter(|named| !named.is_empty()),
        None => Some(CONFIG),
    }
}

impl Place<'_> {
    fn opts(&self) -> rpc::Opts {
        rpc::Opts {
            images_dir_fd: Some(self.images.as_raw_fd()),
            work_dir_fd: Some(self.work.as_raw_fd()),
            log_file: Some(self.log.to_owned()),
            log_level: Some(LOG_LEVEL),
            config_file: self.config.map(str::to_owned),
            root: Some(self.root.to_owned()),
            notify_scripts: Some(true),
            orphan_pts_master: Some(true),
            manage_cgroups: Some(true),
            manage_cgroups_mode: Some(rpc::CgroupMode::SOFT.into()),
            // Devices and addresses are nobody's of the container: who has made a network fills it.
            empty_ns: Some(libc::CLONE_NEWNET as u32),
            ..Default::default()
        }
    }
}

fn mounts(mounts: &[(String, String)]) -> Vec<rpc::ExtMountMap> {
    let map = |(key, val): &(String, String)| rpc::ExtMountMap {
        key: Some(key.clone()),
        val: Some(val.clone()),
        ..Default::default()
    };
    mounts.iter().map(map).collect()
}

fn request(kind: rpc::Type, opts: rpc::Opts) -> rpc::Req {
    rpc::Req { type_: Some(kind.into()), opts: Some(opts).into(), ..Default::default() }
}

impl Dump<'_> {
    pub(super) fn request(&self) -> rpc::Req {
        let opts = rpc::Opts {
            pid: Some(self.pid as i32),
            leave_running: Some(self.leave_running),
            tcp_established: Some(self.open_tcp),
            // Only established connections need it, and without open_tcp those fail the dump. A lock stays if CRIU is
            // killed.
            network_lock: (!self.open_tcp).then(|| rpc::NetworkLock::SKIP.into()),
            ext_unix_sk: Some(self.external_unix_sockets),
            shell_job: Some(self.terminal),
            file_locks: Some(self.file_locks),
            ext_mnt: mounts(&self.mounts),
            external: self.external.clone(),
            freeze_cgroup: self.freezer.clone(),
            manage_cgroups_mode: Some(self.cgroups.mode().into()),
            ..self.place.opts()
        };
        request(rpc::Type::DUMP, opts)
    }
}

impl Restore<'_> {
    pub(super) fn request(&self) -> rpc::Req {
        let inherit = |(key, fd): &(String, i32)| rpc::InheritFd {
            key: Some(key.clone()),
            fd: Some(*fd),
            ..Default::default()
        };
        let join = |(ns, file): &(&str, PathBuf)| rpc::JoinNamespace {
            ns: Some((*ns).to_owned()),
            ns_file: Some(file.to_string_lossy().into_owned()),
            ..Default::default()
        };
        let cgroup = |(ctrl, path): &(String, String)| rpc::CgroupRoot {
            ctrl: Some(ctrl.clone()),
            path: Some(path.clone()),
            ..Default::default()
        };
        let opts = rpc::Opts {
            rst_sibling: Some(true),
            evasive_devices: Some(true),
            // What is in the files was meant to be there: whoever wrote them has said so.
            tcp_established: Some(true),
            ext_unix_sk: Some(true),
            file_locks: Some(true),
            ext_mnt: mounts(&self.mounts),
            inherit_fd: self.descriptors.iter().map(inherit).collect(),
            join_ns: self.namespaces.iter().map(join).collect(),
            cg_root: self.cgroups.iter().map(cgroup).collect(),
            ..self.place.opts()
        };
        request(rpc::Type::RESTORE, opts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn each_option_reaches_criu() {
        let null = crate::sys::pipe::null().unwrap();
        let plain = || {
            let (images, work) = (null.as_fd(), null.as_fd());
            let place = Place { images, work, log: "dump.log", config: None, root: "/" };
            Dump {
                place,
                pid: 7,
                leave_running: false,
                open_tcp: false,
                external_unix_sockets: false,
                terminal: false,
                file_locks: false,
                cgroups: Cgroups::Soft,
                external: Vec::new(),
                mounts: Vec::new(),
                freezer: None,
            }
        };
        let flags = |dump: Dump<'_>| {
            let opts = dump.request().opts.unwrap();
            let booleans = [
                opts.leave_running(),
                opts.tcp_established(),
                opts.ext_unix_sk(),
                opts.shell_job(),
                opts.file_locks(),
                opts.network_lock() == rpc::NetworkLock::SKIP,
            ];
            (booleans.map(u8::from), opts.manage_cgroups_mode())
        };
        let soft = rpc::CgroupMode::SOFT;
        assert_eq!(flags(plain()), ([0, 0, 0, 0, 0, 1], soft));
        assert_eq!(flags(Dump { leave_running: true, ..plain() }), ([1, 0, 0, 0, 0, 1], soft));
        assert_eq!(flags(Dump { open_tcp: true, ..plain() }), ([0, 1, 0, 0, 0, 0], soft));
        assert_eq!(flags(Dump { external_unix_sockets: true, ..plain() }), ([0, 0, 1, 0, 0, 1], soft));
        assert_eq!(flags(Dump { terminal: true, ..plain() }), ([0, 0, 0, 1, 0, 1], soft));
        assert_eq!(flags(Dump { file_locks: true, ..plain() }), ([0, 0, 0, 0, 1, 1], soft));
        let strict = Dump { cgroups: Cgroups::Strict, ..plain() };
        assert_eq!(flags(strict), ([0, 0, 0, 0, 0, 1], rpc::CgroupMode::STRICT));
    }
}
