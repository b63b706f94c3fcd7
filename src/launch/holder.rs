//! A parked thread of the shim in a pod's namespaces: `/proc/<its id>/ns/*` lead to them, so that whatever looks for
//! the pod's network by the sandbox's pid (CRI, NRI, nsenter) finds it, without a process that represents the pod.

use crate::error::{Context, Error, Kind, Result};
use crate::sys::fd::{self, AsFd, OwnedFd};
use crate::sys::{identity, namespace};
use std::ffi::CStr;
use std::sync::mpsc::{channel, Sender};
use std::thread::JoinHandle;

/// The thread's stack: it joins, reports, and sleeps.
const STACK: usize = 64 << 10;

/// A parked thread. Once dropped, it has left its namespaces, and its id is no longer valid.
#[derive(Debug)]
pub struct Holder {
    /// The thread's id: /proc has an entry for a thread as for a pid.
    pub id: u32,
    /// Wakes the thread when dropped.
    leave: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Holder {
    /// Joins `namespaces`: CLONE_NEW* flags with the files to join. A thread can join net, ipc and uts.
    pub fn park(namespaces: Vec<(u64, OwnedFd)>) -> Result<Holder> {
        let (tell, told) = channel();
        let (leave, left) = channel();
        let park = move || {
            let joined = namespaces.iter().try_for_each(|(kind, file)| join(*kind, file));
            drop(namespaces);
            let ready = joined.is_ok();
            let sent = tell.send(joined.map(|()| identity::thread_id()));
            if ready && sent.is_ok() {
                // Nothing is ever sent: this returns when the sender is dropped.
                let _ = left.recv();
            }
        };
        let thread = std::thread::Builder::new().name("pod".into()).stack_size(STACK).spawn(park);
        let thread = thread.context(|| "start the thread that holds the pod's namespaces")?;
        let id = told.recv().map_err(|e| Error::caused_by(Kind::Bug, "the pod's thread ended", e))??;
        Ok(Holder { id, leave: Some(leave), thread: Some(thread) })
    }
}

/// Joins a namespace. The shim's own is skipped, which takes no privilege and changes nothing.
fn join(kind: u64, file: &OwnedFd) -> Result<()> {
    let own: &CStr = match kind as i32 {
        libc::CLONE_NEWNET => c"/proc/self/ns/net",
        libc::CLONE_NEWIPC => c"/proc/self/ns/ipc",
        _ => c"/proc/self/ns/uts",
    };
    let inode = |file: &OwnedFd| fd::stat(file.as_fd()).map(|stat| stat.inode);
    let own =
        fd::open(own, libc::O_RDONLY, 0).and_then(|own| inode(&own)).context(|| format!("open({own:?})"))?;
    if inode(file).context(|| "fstat(namespace)")? == own {
        return Ok(());
    }
    namespace::join(file.as_fd(), kind).context(|| format!("setns({kind:#x})"))
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.leave = None;
        // CRI removes the network next.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_is_in_proc_while_it_is_held() {
        let holder = Holder::park(Vec::new()).unwrap();
        let path = format!("/proc/{}/ns/net", holder.id);
        assert_eq!(std::fs::read_link(&path).unwrap(), std::fs::read_link("/proc/self/ns/net").unwrap());
        drop(holder);
        // The kernel wakes the thread's joiner a little before the thread is gone.
        let gone = || !std::path::Path::new(&path).exists();
        let pause = std::time::Duration::from_millis(1);
        let waited = (0..1000).take_while(|_| !gone()).map(|_| std::thread::sleep(pause)).count();
        assert!(waited < 1000);
    }
}
