use super::*;
use cgroups_rs::fs::cpuset::CpuSetController;
use std::fs;
use std::time::{Duration, SystemTime};

/// Four hierarchies of v1, as plain directories: the kernel's files appear as they are written.
fn v1(root: &Path) -> CgroupFs {
    let at = |name: &str| {
        fs::create_dir_all(root.join(name)).unwrap();
        (root.join(name), PathBuf::new())
    };
    let ((cpu, b), (memory, m), (pids, p), (cpuset, c)) = (at("cpu"), at("memory"), at("pids"), at("cpuset"));
    let subsystems = vec![
        Subsystem::Cpu(CpuController::new(cpu, b, false)),
        Subsystem::Mem(MemController::new(memory, m, false)),
        Subsystem::Pid(PidController::new(pids, p, false)),
        Subsystem::CpuSet(CpuSetController::new(cpuset, c, false)),
    ];
    let mounted = Mounted { subsystems, root: root.to_owned(), v2: false };
    CgroupFs {
        layout: Layout::new(Driver::Cgroupfs, "/lab"),
        version: Version::V1,
        mounted,
        beside: Some(root.join("unified")),
        systemd: None,
        seen: Mutex::default(),
    }
}

const VALUES: CgroupValues =
    CgroupValues { cpu_shares: Some(204), cpu_quota: Some(20_000), memory_max: Some((1 << 20) + 1), pids_max: Some(100) };

/// Stands in for the kernel, which has the cpuset's files in every group.
fn with_cpusets(root: &Path, parts: &[&str]) {
    let mut dir = root.join("cpuset");
    for part in [""].iter().chain(parts) {
        dir.push(part);
        fs::create_dir_all(&dir).unwrap();
        for file in ["cpuset.cpus", "cpuset.mems"] {
            fs::write(dir.join(file), if part.is_empty() { "0-1" } else { "" }).unwrap();
        }
    }
}

fn text(root: &Path, file: &str) -> String {
    fs::read_to_string(root.join(file)).unwrap()
}

#[test]
fn a_group_is_made_in_all_hierarchies_with_its_values() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let groups = v1(root);
    with_cpusets(root, &["lab", "kubepods", "burstable"]);
    groups.apply(&groups.layout.qos(QosClass::Burstable), &VALUES).unwrap();
    let at = |file: &str| {
        let (controller, file) = file.split_once('/').unwrap();
        text(root, &format!("{controller}/lab/kubepods/burstable/{file}"))
    };
    assert_eq!([at("cpu/cpu.shares"), at("cpu/cpu.cfs_quota_us"), at("cpu/cpu.cfs_period_us")], ["204", "20000", "100000"]);
    assert_eq!([at("memory/memory.limit_in_bytes"), at("pids/pids.max"), at("cpuset/cpuset.cpus")], ["1048577", "100", "0-1"]);
}

#[test]
fn a_pods_group_is_made_where_something_binds_it_and_left_to_the_runtime_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let groups = v1(root);
    let with = |values| {
        let path = groups.layout.pod(QosClass::Guaranteed, &PodUid::new("1-2"));
        groups.apply(&path, &values).unwrap();
        let path = groups.layout.fs_path(&path);
        ["cpu", "memory", "pids", "cpuset"].map(|c| root.join(c).join(&path).exists())
    };
    let shares = CgroupValues { cpu_shares: Some(2), ..CgroupValues::default() };
    assert_eq!(with(shares), [true, false, false, false]);
    assert_eq!(with(CgroupValues { memory_max: Some(1 << 20), ..shares }), [true, true, false, false]);
    assert_eq!(with(VALUES), [true, true, true, false]);
}

#[test]
fn values_that_stand_are_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let groups = v1(root);
    with_cpusets(root, &["lab", "kubepods", "burstable"]);
    let path = groups.layout.qos(QosClass::Burstable);
    groups.apply(&path, &VALUES).unwrap();
    // As the kernel shows it: whole pages.
    fs::write(root.join("memory/lab/kubepods/burstable/memory.limit_in_bytes"), "1048576\n").unwrap();
    let files = ["cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us"].map(|f| root.join("cpu/lab/kubepods/burstable").join(f));
    let files: Vec<PathBuf> = files.into_iter().chain([root.join("memory/lab/kubepods/burstable/memory.limit_in_bytes")]).collect();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    files.iter().for_each(|f| fs::File::options().write(true).open(f).unwrap().set_modified(old).unwrap());
    groups.apply(&path, &VALUES).unwrap();
    let touched = |f: &&PathBuf| fs::metadata(f).unwrap().modified().unwrap() != old;
    assert_eq!(files.iter().filter(touched).count(), 0);
    groups.apply(&path, &CgroupValues { cpu_shares: Some(205), ..VALUES }).unwrap();
    assert_eq!(files.iter().filter(touched).collect::<Vec<_>>(), [&files[0]]);
}

#[test]
fn a_class_whose_group_was_taken_away_has_one_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let groups = v1(root);
    with_cpusets(root, &["lab", "kubepods", "burstable"]);
    let class = groups.layout.qos(QosClass::Burstable);
    groups.apply(&class, &VALUES).unwrap();
    for controller in ["cpu", "memory"] {
        fs::remove_dir_all(root.join(controller).join("lab/kubepods/burstable")).unwrap();
    }
    groups.apply(&class, &VALUES).unwrap();
    assert_eq!(text(root, "cpu/lab/kubepods/burstable/cpu.shares"), "204");
    assert_eq!(text(root, "memory/lab/kubepods/burstable/memory.limit_in_bytes"), "1048577");
}

#[test]
fn a_cpuset_that_stays_empty_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let groups = v1(dir.path());
    with_cpusets(dir.path(), &["lab", "kubepods"]);
    fs::write(dir.path().join("cpuset/cpuset.mems"), "").unwrap();
    let error = groups.apply(&groups.layout.kubepods(), &VALUES).unwrap_err().to_string();
    assert!(error.contains("cpuset.mems is empty"), "{error}");
}

#[test]
fn a_pods_groups_are_found_and_removed_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let groups = v1(root);
    let uid = PodUid::new("1-2");
    let path = groups.layout.fs_path(&groups.layout.pod(QosClass::BestEffort, &uid));
    // Left by a runtime in one hierarchy, with a container's group in it.
    fs::create_dir_all(root.join("memory").join(&path).join("container")).unwrap();
    fs::create_dir_all(root.join("cpu").join(&path)).unwrap();
    fs::create_dir_all(root.join("unified").join(&path)).unwrap();
    assert_eq!(groups.pods().into_iter().collect::<Vec<_>>(), [(QosClass::BestEffort, uid.clone())]);
    groups.remove(&groups.layout.pod(QosClass::BestEffort, &uid)).unwrap();
    assert!(groups.pods().is_empty() && !root.join("unified").join(&path).exists());
    groups.remove(&groups.layout.pod(QosClass::BestEffort, &uid)).unwrap();
}
