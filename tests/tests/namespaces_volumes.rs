//! Volumes with real mounts, each test in a mount namespace of its own that ends with its thread.

use anyhow::{Context, Result};
use longshore::cgroup::{CgroupPath, CgroupValues, Driver, Layout};
use longshore::run::volumes::dir::is_mount_point;
use longshore::run::volumes::{VolumeError, bind_sub_path, mounts, refresh, set_up, tear_down};
use longshore::volume::{File, Medium, VolumeWork};
use longshore::work::{SetUp, SubPath, TearDown};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::statvfs;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

/// A pod's directories in a temporary directory, and mounts that nobody else sees.
struct Pod {
    /// Dropped last: by then nothing is mounted below it, or the removal fails and leaves it.
    base: tempfile::TempDir,
}

const NO_OPTIONS: Option<&str> = None;

impl Pod {
    fn new() -> Result<Pod> {
        unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace")?;
        mount(Some("none"), "/", Some("none"), MsFlags::MS_REC | MsFlags::MS_PRIVATE, NO_OPTIONS).context("private mounts")?;
        Ok(Pod { base: tempfile::tempdir()? })
    }

    fn at(&self, path: &str) -> PathBuf {
        self.base.path().join(path)
    }

    fn text(&self, path: &str) -> String {
        self.at(path).to_string_lossy().into_owned()
    }

    fn dir(&self, plugin: &str, volume: &str) -> String {
        self.text(&format!("pod/volumes/kubernetes.io~{plugin}/{volume}"))
    }

    fn empty_dir(&self, name: &str, medium: Medium, fs_group: Option<i64>) -> VolumeWork {
        VolumeWork::EmptyDir { name: name.to_owned(), path: self.dir("empty-dir", name), medium, fs_group }
    }

    fn set_up(&self, volumes: Vec<VolumeWork>) -> Result<(), VolumeError> {
        set_up(&SetUp {
            cgroup: group(),
            cgroup_values: CgroupValues::default(),
            qos: None,
            pod_dir: self.text("pod"),
            log_dir: self.text("logs/pod"),
            volumes,
        })
    }

    fn tear_down(&self) -> Result<(), VolumeError> {
        tear_down(&TearDown {
            cgroup: group(),
            qos: None,
            pod_dir: self.text("pod"),
            logs: Some(self.text("logs/pod")),
            log_links: (self.text("links"), "default_web_".to_owned()),
        })
    }

    fn sub_path(&self, root: &str, path: &str) -> SubPath {
        SubPath {
            volume: "data".to_owned(),
            root: root.to_owned(),
            path: path.to_owned(),
            target: self.text("pod/volume-subpaths/data/main/0"),
        }
    }
}

fn group() -> CgroupPath {
    Layout::new(Driver::Cgroupfs, "/").kubepods()
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).map_or(0, |m| m.permissions().mode() & 0o7777)
}

fn files(list: &[(&str, &str, u32)]) -> BTreeMap<String, File> {
    list.iter().map(|(name, text, mode)| ((*name).to_owned(), File { bytes: text.as_bytes().into(), mode: *mode })).collect()
}

#[test]
fn memory_is_bounded_kept_over_repeats_and_given_back() -> Result<()> {
    let pod = Pod::new()?;
    let volumes = || vec![pod.empty_dir("cache", Medium::Memory { size: Some(1 << 20) }, Some(4321))];
    pod.set_up(volumes())?;
    let dir = pod.dir("empty-dir", "cache");
    let stat = statvfs(dir.as_str())?;
    assert_eq!(stat.blocks() * stat.fragment_size(), 1 << 20);
    assert_eq!((mode(&dir), fs::metadata(&dir)?.gid()), (0o3777, 4321));
    let options = fs::read_to_string("/proc/thread-self/mounts")?;
    assert!(options.lines().any(|l| l.contains(&dir) && l.contains("noswap")), "{options}");
    fs::write(Path::new(&dir).join("kept"), "")?;
    chown(Path::new(&dir).join("kept"), Some(7), Some(7))?;
    pod.set_up(volumes())?;
    assert_eq!(fs::metadata(Path::new(&dir).join("kept"))?.gid(), 7, "a repeated set-up leaves the pod's files alone");
    assert_eq!(mounts::below(&pod.at("pod"))?.len(), 1);
    pod.tear_down()?;
    assert!(!pod.at("pod").exists() && !pod.at("logs/pod").exists());
    Ok(pod.tear_down()?)
}

#[test]
fn the_group_of_the_pod_owns_what_the_node_writes() -> Result<()> {
    let pod = Pod::new()?;
    let list = files(&[("key", "value", 0o400), ("deep/key", "value", 0o644)]);
    let secret = |files| VolumeWork::Files {
        name: "keys".to_owned(),
        path: pod.dir("secret", "keys"),
        medium: Medium::Memory { size: None },
        files,
        fs_group: Some(4321),
    };
    pod.set_up(vec![secret(list), pod.empty_dir("data", Medium::Disk, Some(4321)), pod.empty_dir("open", Medium::Disk, None)])?;
    let keys = PathBuf::from(pod.dir("secret", "keys"));
    assert!(is_mount_point(&keys)?);
    let seen =
        ["", "..data", "key", "deep", "deep/key"].map(|name| (mode(keys.join(name)), fs::metadata(keys.join(name)).map_or(0, |m| m.gid())));
    assert_eq!(seen, [(0o3777, 4321), (0o2755, 4321), (0o440, 4321), (0o2755, 4321), (0o644, 4321)]);
    assert_eq!((mode(pod.dir("empty-dir", "data")), fs::metadata(pod.dir("empty-dir", "data"))?.gid()), (0o2777, 4321));
    assert_eq!((mode(pod.dir("empty-dir", "open")), fs::metadata(pod.dir("empty-dir", "open"))?.gid()), (0o777, 0));
    refresh(&[secret(files(&[("key", "other", 0o400)]))]);
    assert_eq!(fs::read_to_string(keys.join("key"))?, "other");
    pod.tear_down()?;
    // A change that comes late makes nothing anew, on no medium.
    refresh(&[secret(files(&[("key", "late", 0o400)]))]);
    assert!(!pod.at("pod").exists());
    Ok(())
}

#[test]
fn removal_stops_at_what_others_mounted() -> Result<()> {
    let pod = Pod::new()?;
    pod.set_up(vec![pod.empty_dir("data", Medium::Disk, None), pod.empty_dir("cache", Medium::Memory { size: None }, None)])?;
    let precious = pod.at("precious");
    fs::create_dir(&precious)?;
    fs::write(precious.join("file"), "")?;
    let point = PathBuf::from(pod.dir("empty-dir", "data")).join("mounted");
    fs::create_dir(&point)?;
    // A bind mount of the same file system: its device number gives nothing away.
    mount(Some(&precious), &point, Some("none"), MsFlags::MS_BIND, NO_OPTIONS)?;
    let error = pod.tear_down().expect_err("a foreign mount").to_string();
    assert!(error.contains(&point.display().to_string()) && error.contains("unmount it"), "{error}");
    assert!(precious.join("file").exists());
    assert_eq!(mounts::below(&pod.at("pod"))?, std::slice::from_ref(&point), "what is ours went");
    nix::mount::umount(&point)?;
    pod.tear_down()?;
    assert!(!pod.at("pod").exists() && precious.join("file").exists());
    Ok(())
}

#[test]
fn sub_paths_are_made_like_their_volume_and_bound() -> Result<()> {
    let pod = Pod::new()?;
    pod.set_up(vec![pod.empty_dir("data", Medium::Disk, Some(4321))])?;
    let root = pod.dir("empty-dir", "data");
    let made = pod.sub_path(&root, "a/b");
    bind_sub_path("main", &made)?;
    assert_eq!((mode(format!("{root}/a/b")), fs::metadata(format!("{root}/a/b"))?.gid()), (0o2777, 4321));
    fs::write(format!("{root}/a/b/file"), "seen")?;
    assert_eq!(fs::read_to_string(format!("{}/file", made.target))?, "seen");
    bind_sub_path("main", &made)?;
    assert_eq!(mounts::below(&pod.at("pod"))?.len(), 1, "bound once");
    // The same mount of a later start, of a file this time.
    let file = pod.sub_path(&root, "a/b/file");
    bind_sub_path("main", &file)?;
    assert_eq!(fs::read_to_string(&file.target)?, "seen");
    fs::remove_dir_all(format!("{root}/a"))?;
    fs::create_dir(format!("{root}/a"))?;
    bind_sub_path("main", &pod.sub_path(&root, "a"))?;
    assert!(Path::new(&file.target).is_dir());
    pod.tear_down()?;
    assert!(!pod.at("pod").exists());
    Ok(())
}

#[test]
fn links_are_followed_inside_a_volume_and_never_out_of_it() -> Result<()> {
    let pod = Pod::new()?;
    let configuration = VolumeWork::Files {
        name: "conf".to_owned(),
        path: pod.dir("configmap", "conf"),
        medium: Medium::Disk,
        files: files(&[("app.ini", "inside", 0o644)]),
        fs_group: None,
    };
    pod.set_up(vec![configuration, pod.empty_dir("data", Medium::Disk, None)])?;
    // Through `..data`, as every file of such a volume is reached.
    let key = pod.sub_path(&pod.dir("configmap", "conf"), "app.ini");
    bind_sub_path("main", &key)?;
    assert_eq!(fs::read_to_string(&key.target)?, "inside");
    let root = pod.dir("empty-dir", "data");
    let outside = pod.at("outside");
    fs::create_dir(&outside)?;
    fs::write(outside.join("secret"), "outside")?;
    symlink(&outside, format!("{root}/absolute"))?;
    symlink("../../../../outside", format!("{root}/relative"))?;
    symlink("/proc/self/root", format!("{root}/magic"))?;
    symlink("nowhere", format!("{root}/dangling"))?;
    fs::create_dir(format!("{root}/real"))?;
    symlink("real", format!("{root}/link"))?;
    let refused = "failed to prepare subPath for volumeMount \"data\" of container \"main\"";
    for path in ["absolute", "absolute/secret", "relative", "relative/secret", "magic", "../../../../outside", "real/../../data"] {
        let error = bind_sub_path("main", &pod.sub_path(&root, path)).expect_err(path).to_string();
        assert_eq!(error, refused, "{path}");
    }
    for path in ["absolute/made", "relative/made", "dangling/made"] {
        bind_sub_path("main", &pod.sub_path(&root, path)).expect_err(path);
    }
    assert_eq!(fs::read_dir(&outside)?.count(), 1, "nothing was made outside");
    assert_eq!(fs::read_to_string(&key.target)?, "inside", "the old mount stands");
    bind_sub_path("main", &pod.sub_path(&root, "link/made"))?;
    assert!(Path::new(&format!("{root}/real/made")).is_dir());
    Ok(pod.tear_down()?)
}
