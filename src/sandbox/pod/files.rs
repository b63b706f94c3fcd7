//! The pod's /etc/hostname, /etc/hosts, /etc/resolv.conf and /dev/shm, which its containers share. All of them live in
//! the pod's bundle: containerd's CRI removes unknown files from its own directories.

use super::request::{Dns, PodConfig};
use crate::error::{Context, Result};
use crate::spec::Ns;
use crate::sys::mount;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// CRI's default size.
pub(super) const SHM_SIZE: u64 = 64 << 20;

/// The source of each file, by its path in the containers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files(Vec<(&'static str, PathBuf)>);

impl Files {
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        self.0.iter().map(|(at, source)| (*at, source.as_path()))
    }
}

pub(crate) const SHM: &str = "/dev/shm";

/// Writes the files and mounts the pod's /dev/shm.
pub(super) fn make(bundle: &Path, config: &PodConfig, shm_size: u64) -> Result<Files> {
    let hostname = if config.hostname.is_empty() {
        read_host("/proc/sys/kernel/hostname")?
    } else {
        format!("{}\n", config.hostname)
    };
    let resolv = match &config.dns {
        Some(dns) => resolv_conf(dns),
        None => read_host("/etc/resolv.conf")?,
    };
    let mut files = Vec::new();
    for (at, name, text) in [
        ("/etc/hostname", "hostname", hostname),
        ("/etc/hosts", "hosts", read_host("/etc/hosts")?),
        ("/etc/resolv.conf", "resolv.conf", resolv),
    ] {
        let path = bundle.join(name);
        write(&path, &text)?;
        files.push((at, path));
    }
    let shm = match config.ipc {
        Ns::Host => PathBuf::from(SHM),
        _ => mount_shm(&bundle.join("shm"), shm_size)?,
    };
    files.push((SHM, shm));
    Ok(Files(files))
}

/// Reads a file of the host; empty if it does not exist.
fn read_host(path: &str) -> Result<String> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(e).context(|| format!("read({path:?})")),
    }
}

/// Formats resolv.conf(5) as CRI does.
fn resolv_conf(dns: &Dns) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

fn write(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    let what = || format!("write({path:?})");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o644).custom_flags(libc::O_NOFOLLOW);
    let opened = options.open(path);
    let mut file = opened.context(what)?;
    // Independent of the umask: every user of a container reads them.
    file.set_permissions(std::fs::Permissions::from_mode(0o644)).context(what)?;
    file.write_all(text.as_bytes()).context(what)
}

fn mount_shm(at: &Path, size: u64) -> Result<PathBuf> {
    std::fs::create_dir_all(at).context(|| format!("mkdir({at:?})"))?;
    let target = c_path(at)?;
    let data = CString::new(format!("mode=1777,size={size}")).unwrap_or_default();
    let flags = libc::MS_NOEXEC | libc::MS_NOSUID | libc::MS_NODEV;
    mount::mount(Some(c"shm"), &target, Some(c"tmpfs"), flags, Some(&data))
        .context(|| format!("mount(\"shm\", {at:?}, \"tmpfs\")"))?;
    Ok(at.to_owned())
}

/// The directory with the records of the pod's containers, each in a subdirectory of its own.
pub fn records(bundle: &Path) -> PathBuf {
    bundle.join("members")
}

/// Removes what [`make`] created, as far as it exists.
pub(super) fn remove(bundle: &Path) -> Result<()> {
    let shm = bundle.join("shm");
    // Unmount repeatedly: a killed create may have left another mount below.
    loop {
        match mount::unmount(&c_path(&shm)?, libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Not mounted, or missing.
            Err(crate::sys::Errno::EINVAL | crate::sys::Errno::ENOENT) => break,
            Err(errno) => return Err(errno).context(|| format!("umount2({shm:?}, MNT_DETACH)")),
        }
    }
    for folder in [shm, records(bundle)] {
        let _ = std::fs::remove_dir(folder);
    }
    for name in ["hostname", "hosts", "resolv.conf"] {
        let _ = std::fs::remove_file(bundle.join(name));
    }
    Ok(())
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| crate::error::invalid(format!("bundle: a NUL byte in {path:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_as_cri_writes_it() {
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
        let dns = Dns {
            servers: words(&["10.0.0.10", "1.1.1.1"]),
            searches: words(&["a.svc", "svc"]),
            options: words(&["ndots:5"]),
        };
        assert_eq!(
            resolv_conf(&dns),
            "search a.svc svc\nnameserver 10.0.0.10\nnameserver 1.1.1.1\noptions ndots:5\n"
        );
        assert_eq!(resolv_conf(&Dns::default()), "");
    }
}
