//! The directory a lab lives in, and the proof that its owner is alive.
//!
//! Owns `/var/lib/longshore-lab/<id>`, the cgroups `/longshore-lab/<id>` and every process in them,
//! and the network namespaces `longshore-lab-<id>-*`. The owner holds a lock on `<id>/owner`, which
//! the kernel drops with the process: a directory whose lock is free belonged to a dead run, and is
//! swept by the next [`Home::new`]. Must never touch anything without the id in its name.

use super::{cni, net, process};
use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Where all labs of this machine are. On disk rather than on a tmpfs: images and writable layers
/// are here.
const LABS: &str = "/var/lib/longshore-lab";
/// The file whose lock is held while labs are counted.
const CENSUS: &str = "census";
/// The file in a lab's directory whose lock says that its owner lives.
const OWNER: &str = "owner";
/// The cgroup above all labs, in every hierarchy.
const CGROUP: &str = "longshore-lab";

/// One lab's directory; dropping it removes all that carries its name.
pub struct Home {
    id: String,
    base: PathBuf,
    /// Held for life; never read.
    _owner: Flock<File>,
}

impl Home {
    /// Makes a new directory, after removing what dead runs left.
    pub fn new() -> Result<Home> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        sweep()?;
        let id = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Home::named(&id)
    }

    /// Makes (or takes over, when its owner is dead) the lab with a fixed name, as `make run` does.
    pub fn named(id: &str) -> Result<Home> {
        let base = Path::new(LABS).join(id);
        // Between making the directory and locking it, a sweep would take it for a dead run's.
        let census = census()?;
        fs::create_dir_all(&base).with_context(|| format!("cannot make {}", base.display()))?;
        let owner = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(base.join(OWNER));
        let owner = lock(owner.with_context(|| format!("cannot own {}", base.display()))?)?;
        let owner = owner.with_context(|| format!("lab {id} is in use by another process"))?;
        drop(census);
        let home = Home { id: id.to_owned(), base, _owner: owner };
        // The daemon's volumes and the runtime's mounts must see each other, so mounts made beneath
        // have to propagate: a kubelet's root directory is shared on a real node too.
        process::shared_mount(&home.base)?;
        Ok(home)
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// The lab's directory, a mount point with shared propagation.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// A directory of the lab, made when absent.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.base.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// Ends the daemon and the runtime of an earlier owner; shims and containers run on, for a new
    /// runtime to find.
    pub fn end_daemons(&self) -> Result<()> {
        process::end_programs(&self.base, &["longshore", "containerd"], Duration::from_secs(20))
    }

    /// The lab's cgroup, as a path from the root of each hierarchy: `/longshore-lab/<id>`.
    pub fn cgroup(&self) -> String {
        format!("/{CGROUP}/{}", self.id)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(error) = demolish(&self.id) {
            eprintln!("lab {}: left-overs remain: {error:#}", self.id);
        }
    }
}

/// Whether there is a lab of that name, in use or left behind.
pub fn exists(id: &str) -> bool {
    Path::new(LABS).join(id).exists()
}

/// Removes what runs left behind that died before they could clean up. Labs in use stay.
pub fn sweep() -> Result<()> {
    let _census = census()?;
    for entry in fs::read_dir(LABS).context("cannot list the labs")?.flatten() {
        let base = entry.path();
        match File::open(base.join(OWNER)) {
            Ok(owner) => {
                if let Some(_owner) = lock(owner)? {
                    demolish(&entry.file_name().to_string_lossy())?;
                }
            }
            // The owner file goes last: without one there is only an empty directory.
            Err(_) if base.is_dir() => drop(fs::remove_dir(&base)),
            Err(_) => {}
        }
    }
    Ok(())
}

/// Removes the places where labs are, when there is none.
pub fn vacate() -> Result<()> {
    let _census = census()?;
    let labs = || fs::read_dir(LABS).into_iter().flatten().flatten();
    if labs().all(|entry| entry.file_name() == CENSUS) {
        process::remove_cgroups(&format!("/{CGROUP}"));
        fs::remove_file(Path::new(LABS).join(CENSUS)).and_then(|()| fs::remove_dir(LABS)).context("cannot vacate the labs")?;
    }
    Ok(())
}

/// Taken while directories of labs are made or swept.
fn census() -> Result<Flock<File>> {
    fs::create_dir_all(LABS).with_context(|| format!("cannot make {LABS}"))?;
    let path = Path::new(LABS).join(CENSUS);
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error).with_context(|| format!("cannot lock {}", path.display()))
}

/// The lock on an owner file; `None` where a living process holds it.
fn lock(owner: File) -> Result<Option<Flock<File>>> {
    match Flock::lock(owner, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error).context("cannot lock the owner file"),
    }
}

/// Ends the processes of a lab and removes its mounts, cgroups, namespaces and files.
fn demolish(id: &str) -> Result<()> {
    let base = Path::new(LABS).join(id);
    let cgroup = format!("/{CGROUP}/{id}");
    process::end_all(&base, &cgroup, Duration::from_secs(20))?;
    process::remove_shim_sockets(&base);
    process::unmount_below(&base)?;
    process::remove_cgroups(&cgroup);
    net::remove_namespaces(id)?;
    cni::forget_results(id);
    remove_directory(&base).with_context(|| format!("cannot remove {}", base.display()))
}

/// Removes a lab's directory, the owner file last: until then the lock keeps sweeps away.
fn remove_directory(base: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(base)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else if entry.file_name() != OWNER {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_file(base.join(OWNER))?;
    fs::remove_dir(base)
}
