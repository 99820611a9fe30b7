//! Volumes as containers see them, on a real runtime.

use anyhow::{Context, Result};
use longshore_tests::lab::daemon::Options;
use longshore_tests::lab::wait::wait_for;
use longshore_tests::lab::{Daemon, Lab, image};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(40);

struct Bench {
    /// Dropped first.
    daemon: Daemon,
    lab: Lab,
}

impl Bench {
    fn up() -> Result<Bench> {
        let lab = Lab::up()?;
        let endpoint = lab.containerd.endpoint();
        let mut daemon = Daemon::prepare(&lab.home, Some(&lab.network.node), &endpoint, Options::default())?;
        daemon.spawn()?;
        Ok(Bench { daemon, lab })
    }

    fn apply(&self, name: &str, manifest: &str) -> Result<()> {
        self.daemon.apply(&format!("{name}.yaml"), &manifest.replace("BUSYBOX", image::BUSYBOX))
    }

    fn ready(&self, pod: &str) -> Result<String> {
        let seen =
            self.daemon.wait_until_ready(("default", pod), SOON).with_context(|| format!("the daemon logged:\n{}", self.daemon.log()))?;
        Ok(seen["metadata"]["uid"].as_str().context("no uid")?.to_owned())
    }

    /// What a shell in a container prints.
    fn sh(&self, pod: &str, container: &str, script: &str) -> Result<String> {
        let text = self.daemon.cli(&[
            "exec",
            pod,
            "-c",
            container,
            "-q",
            "--socket",
            &self.daemon.socket().to_string_lossy(),
            "--",
            "sh",
            "-c",
            script,
        ])?;
        Ok(text.trim().to_owned())
    }

    fn events(&self, pod: &str) -> Result<Vec<(String, String)>> {
        let list = self.daemon.get("events")?;
        let about = |e: &&serde_json::Value| e["involvedObject"]["name"] == pod;
        let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
        Ok(list["items"].as_array().into_iter().flatten().filter(about).map(|e| (text(&e["reason"]), text(&e["message"]))).collect())
    }

    /// A directory of the host for a test's host paths.
    fn host(&self) -> Result<PathBuf> {
        self.lab.home.directory("host")
    }

    fn gone(&self, uid: &str) -> Result<()> {
        let left = [self.daemon.root_directory().join("pods").join(uid)];
        longshore_tests::lab::wait_until("the pod's directory is gone", SOON, || left.iter().all(|p| !p.exists()))
            .with_context(|| format!("the daemon logged:\n{}", self.daemon.log()))
    }
}

#[test]
fn containers_share_a_directory_and_memory_has_its_limit() -> Result<()> {
    let bench = Bench::up()?;
    bench.apply(
        "share",
        "apiVersion: v1
kind: Pod
metadata: { name: share }
spec:
  terminationGracePeriodSeconds: 0
  securityContext: { fsGroup: 4321 }
  volumes:
  - { name: data, emptyDir: {} }
  - { name: cache, emptyDir: { medium: Memory, sizeLimit: 4Mi } }
  - { name: unused, hostPath: { path: /nonexistent, type: Directory } }
  containers:
  - { name: one, image: BUSYBOX, command: [sleep, '1000'], securityContext: { runAsUser: 1000 },
      volumeMounts: [{ name: data, mountPath: /data }, { name: cache, mountPath: /cache }] }
  - { name: two, image: BUSYBOX, command: [sleep, '1000'],
      volumeMounts: [{ name: data, mountPath: /seen, readOnly: true }] }
",
    )?;
    let uid = bench.ready("share")?;
    assert_eq!(bench.sh("share", "one", "echo hello > /data/file; stat -c '%a %g' /data /data/file")?, "2777 4321\n644 4321");
    assert_eq!(bench.sh("share", "two", "cat /seen/file; touch /seen/no 2>&1 || true")?, "hello\ntouch: /seen/no: Read-only file system");
    let size = bench.sh("share", "one", "df -k /cache | tail -1 | awk '{print $2}'; grep ' /cache ' /proc/mounts")?;
    assert!(size.starts_with("4096\n") && size.contains("tmpfs"), "{size}");
    let full = bench.sh("share", "one", "dd if=/dev/zero of=/cache/big bs=1M count=5 2>&1 || true")?;
    assert!(full.contains("No space left"), "{full}");
    bench.daemon.remove("share.yaml")?;
    bench.gone(&uid)
}

#[test]
fn host_paths_are_checked_and_made() -> Result<()> {
    let bench = Bench::up()?;
    let host = bench.host()?;
    fs::write(host.join("file"), "from the host")?;
    let manifest = |name: &str, volume: &str| {
        format!(
            "apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  terminationGracePeriodSeconds: 0
  volumes:
  - {{ name: fixed, hostPath: {{ path: {0}/file, type: File }} }}
  - {{ name: made, hostPath: {{ path: {0}/made/deep, type: DirectoryOrCreate }} }}
  - {{ name: touched, hostPath: {{ path: {0}/touched, type: FileOrCreate }} }}
  - {{ name: device, hostPath: {{ path: /dev/null, type: CharDevice }} }}
  - {{ name: plain, hostPath: {volume} }}
  containers:
  - {{ name: main, image: BUSYBOX, command: [sleep, '1000'],
      volumeMounts: [{{ name: fixed, mountPath: /fixed, readOnly: true }}, {{ name: made, mountPath: /made }}, {{ name: touched, mountPath: /touched }},
        {{ name: device, mountPath: /other-null }}, {{ name: plain, mountPath: /plain }}] }}
",
            host.display()
        )
    };
    bench.apply("good", &manifest("good", &format!("{{ path: {} }}", host.display())))?;
    bench.apply("bad", &manifest("bad", &format!("{{ path: {}/later, type: Directory }}", host.display())))?;
    bench.ready("good")?;
    assert_eq!(
        bench.sh("good", "main", "cat /fixed; echo; echo x > /made/y; echo z > /touched; ls /plain")?,
        "from the host\nfile\nmade\ntouched"
    );
    assert_eq!(fs::read_to_string(host.join("made/deep/y"))? + &fs::read_to_string(host.join("touched"))?, "x\nz\n");
    let text =
        format!("MountVolume.SetUp failed for volume \"plain\" : hostPath type check failed: {}/later is not a directory", host.display());
    wait_for("the failure is told", SOON, || -> Result<_> {
        let events = bench.events("bad")?;
        anyhow::ensure!(events.contains(&("FailedMount".to_owned(), text.clone())), "{events:?}");
        Ok(Some(()))
    })?;
    // Once it is what it should be, the pod goes on by itself.
    fs::create_dir(host.join("later"))?;
    bench.ready("bad")?;
    bench.daemon.remove("good.yaml")?;
    wait_for("the host path stays when its pod goes", SOON, || -> Result<_> {
        Ok(bench.daemon.find("pods", "default", "good")?.is_none().then_some(()))
    })?;
    assert!(host.join("made/deep/y").exists());
    Ok(())
}

const CONFIGURED: &str = "apiVersion: v1
kind: Pod
metadata: { name: conf, labels: { tier: one }, annotations: { note: 'a \"b\"' } }
spec:
  terminationGracePeriodSeconds: 0
  securityContext: { fsGroup: 4321 }
  volumes:
  - { name: plain, configMap: { name: settings } }
  - { name: keys, secret: { secretName: keys, defaultMode: 0400, items: [{ key: a, path: deep/a }, { key: b, path: b, mode: 0444 }] } }
  - { name: about, downwardAPI: { items: [{ path: labels, fieldRef: { fieldPath: metadata.labels } }, { path: cpu, resourceFieldRef: { containerName: main, resource: limits.cpu, divisor: 1m } }] } }
  - { name: all, projected: { defaultMode: 0440, sources: [{ configMap: { name: settings, items: [{ key: color, path: color }] } }, { secret: { name: keys } }, { downwardAPI: { items: [{ path: name, fieldRef: { fieldPath: metadata.name } }] } }, { secret: { name: absent, optional: true } }] } }
  containers:
  - { name: main, image: BUSYBOX, command: [sleep, '1000'], resources: { limits: { cpu: 250m, memory: 64Mi } },
      volumeMounts: [{ name: plain, mountPath: /plain }, { name: keys, mountPath: /keys }, { name: about, mountPath: /about }, { name: all, mountPath: /all },
        { name: plain, mountPath: /one, subPath: color }] }
";

const ENVIRONMENT: &str = "apiVersion: v1
kind: Pod
metadata: { name: env }
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - { name: main, image: BUSYBOX, command: [sleep, '1000'], envFrom: [{ configMapRef: { name: settings } }] }
";

fn settings(color: &str, more: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: settings }}\ndata: {{ color: {color}{more} }}\n")
}

const KEYS: &str = "apiVersion: v1\nkind: Secret\nmetadata: { name: keys }\nstringData: { a: alpha, b: beta }\n";

#[test]
fn configuration_waits_for_its_objects_and_follows_them() -> Result<()> {
    let bench = Bench::up()?;
    bench.apply("keys", KEYS)?;
    bench.apply("conf", CONFIGURED)?;
    bench.apply("env", ENVIRONMENT)?;
    let refused = |pod: &serde_json::Value| {
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        waiting["reason"] == "CreateContainerConfigError" && waiting["message"] == "configmap \"settings\" not found"
    };
    bench.daemon.wait_for_pod(("default", "env"), "waiting for its environment", SOON, refused)?;
    let missing = ("FailedMount".to_owned(), "MountVolume.SetUp failed for volume \"plain\" : configmap \"settings\" not found".to_owned());
    wait_for("the missing object is told", SOON, || -> Result<_> { Ok(bench.events("conf")?.contains(&missing).then_some(())) })?;
    bench.apply("settings", &settings("red", ", gone: soon"))?;
    bench.ready("conf")?;
    bench.ready("env")?;
    assert_eq!(bench.sh("env", "main", "echo $color")?, "red");
    assert_eq!(bench.events("conf")?.iter().filter(|e| e.0 == "FailedMount").count(), 1);
    let script = "cat /plain/color /keys/deep/a /keys/b /about/labels /about/cpu /all/color /all/a /all/name /one | tr '\\n' ' '";
    assert_eq!(bench.sh("conf", "main", script)?, "redalphabetatier=\"one\"250redalphaconfred");
    let modes = bench.sh(
        "conf",
        "main",
        "stat -L -c %a /keys/deep/a /keys/b /all/a /plain/color; stat -L -c %g /keys/b; stat -f -c %T /keys /about /all | uniq",
    )?;
    assert_eq!(modes, "440\n444\n440\n644\n4321\ntmpfs");
    assert_eq!(bench.sh("conf", "main", "touch /plain/new 2>&1 || true")?, "touch: /plain/new: Read-only file system");
    let before = bench.sh("conf", "main", "readlink /plain/..data")?;
    let changed = Instant::now();
    bench.apply("settings", &settings("blue", ", extra: yes-there"))?;
    wait_for("the change is seen", SOON, || -> Result<_> { Ok((bench.sh("conf", "main", "cat /plain/color")? == "blue").then_some(())) })?;
    assert!(changed.elapsed() < Duration::from_secs(10), "{:?}", changed.elapsed());
    assert_eq!(bench.sh("conf", "main", "ls -A /plain | grep -v '^\\.\\.2' | tr '\\n' ' '; cat /one")?, "..data color extra red");
    assert_ne!(bench.sh("conf", "main", "readlink /plain/..data")?, before);
    bench.apply("conf", &CONFIGURED.replace("tier: one", "tier: two"))?;
    wait_for("the labels are seen", SOON, || -> Result<_> {
        Ok((bench.sh("conf", "main", "cat /about/labels")? == "tier=\"two\"").then_some(()))
    })?;
    Ok(())
}

const PATHS: &str = "apiVersion: v1
kind: Pod
metadata: { name: paths }
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{ name: data, emptyDir: {} }]
  initContainers:
  - { name: first, image: BUSYBOX, command: [sh, -c, 'echo content > /data/file; ln -s / /data/out; mkdir /data/in; ln -s in /data/inside'], volumeMounts: [{ name: data, mountPath: /data }] }
  containers:
  - { name: main, image: BUSYBOX, command: [sh, -c, 'trap \"exit 1\" TERM; while :; do sleep 1000 & wait; done'], env: [{ name: NAME, valueFrom: { fieldRef: { fieldPath: metadata.name } } }],
      volumeMounts: [{ name: data, mountPath: /dir, subPath: new/dir }, { name: data, mountPath: /file, subPath: file },
        { name: data, mountPath: /expr, subPathExpr: logs/$(NAME) }, { name: data, mountPath: /linked, subPath: inside }, { name: data, mountPath: /whole }] }
";

#[test]
fn parts_of_a_volume_are_mounted_and_links_do_not_lead_out() -> Result<()> {
    let bench = Bench::up()?;
    bench.apply("paths", PATHS)?;
    for (name, path) in [("escape", "subPath: out/etc"), ("unknown", "subPathExpr: $(NOBODY)")] {
        let manifest = PATHS.replace("name: paths", &format!("name: {name}")).replace("subPath: new/dir", path);
        bench.apply(name, &manifest)?;
    }
    let uid = bench.ready("paths")?;
    bench.sh("paths", "main", "touch /dir/a /expr/b /linked/c")?;
    assert_eq!(
        bench.sh("paths", "main", "cat /file; cd /whole; find . -type f | sort | tr '\\n' ' '")?,
        "content\n./file ./in/c ./logs/paths/b ./new/dir/a"
    );
    // A container that starts again gets its mounts again, also what was taken from the volume meanwhile.
    bench.sh("paths", "main", "rm -r /whole/new; kill 1").ok();
    let again = |pod: &serde_json::Value| {
        let container = &pod["status"]["containerStatuses"][0];
        container["restartCount"] == 1 && container["ready"] == true
    };
    bench.daemon.wait_for_pod(("default", "paths"), "up again", SOON, again)?;
    assert_eq!(
        bench.sh("paths", "main", "cat /file; ls /dir /linked; touch /dir/d; ls /whole/new/dir")?,
        "content\n/dir:\n\n/linked:\nc\nd"
    );
    for (name, text) in [
        ("escape", "failed to prepare subPath for volumeMount \"data\" of container \"main\""),
        ("unknown", "missing value for \"NOBODY\""),
    ] {
        let refused = |pod: &serde_json::Value| {
            let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
            waiting["reason"] == "CreateContainerConfigError" && waiting["message"] == text
        };
        bench.daemon.wait_for_pod(("default", name), "refused", SOON, refused)?;
    }
    bench.daemon.remove("paths.yaml")?;
    bench.gone(&uid)
}

#[test]
fn what_unknown_pods_left_is_removed_once_the_runtime_is_known() -> Result<()> {
    let mut bench = Bench::up()?;
    bench.apply("kept", &PATHS.replace("name: paths", "name: kept"))?;
    let uid = bench.ready("kept")?;
    bench.daemon.kill_nine();
    let stranger = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";
    let logs = bench.daemon.pod_logs().join(format!("default_old_{stranger}"));
    let dir = bench.daemon.root_directory().join("pods").join(stranger);
    let foreign = bench.daemon.root_directory().join("pods/lost+found");
    let group = format!("/sys/fs/cgroup/memory{}/kubepods/besteffort/pod{stranger}", bench.lab.home.cgroup());
    for d in [&logs.join("main"), &dir.join("volumes/kubernetes.io~empty-dir/data"), &foreign, &PathBuf::from(&group)] {
        fs::create_dir_all(d)?;
    }
    fs::write(logs.join("main/0.log"), "")?;
    let links = bench.daemon.pod_logs().with_file_name("container-logs");
    std::os::unix::fs::symlink(logs.join("main/0.log"), links.join("old_default_main-1.log"))?;
    bench.daemon.spawn()?;
    let all = [logs, dir, PathBuf::from(group)];
    longshore_tests::lab::wait_until("all of it is gone", SOON, || all.iter().all(|p| !p.exists()))?;
    longshore_tests::lab::wait_until("the link too", SOON, || links.join("old_default_main-1.log").symlink_metadata().is_err())?;
    assert!(foreign.exists());
    assert!(bench.daemon.root_directory().join("pods").join(&uid).exists());
    assert_eq!(fs::read_dir(&links)?.flatten().filter(|e| e.path().exists()).count(), 2, "links of the pod that is there");
    Ok(())
}

/// Gives the machine some huge pages for as long as it lives.
struct HugePages(String);

const HUGE_PAGES: &str = "/proc/sys/vm/nr_hugepages";

impl HugePages {
    fn reserve(count: u32) -> Result<HugePages> {
        let before = fs::read_to_string(HUGE_PAGES).context("this kernel has no huge pages")?;
        let reserved = HugePages(before.trim().to_owned());
        let wanted = reserved.0.parse::<u32>()? + count;
        fs::write(HUGE_PAGES, wanted.to_string())?;
        anyhow::ensure!(fs::read_to_string(HUGE_PAGES)?.trim() == wanted.to_string(), "no memory for {count} huge pages");
        Ok(reserved)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        // The pages are the machine's again, whether or not this works.
        let _ = fs::write(HUGE_PAGES, &self.0);
    }
}

#[test]
fn an_empty_dir_of_huge_pages_is_a_file_system_of_them() -> Result<()> {
    let _pages = HugePages::reserve(4)?;
    let bench = Bench::up()?;
    let manifest = "apiVersion: v1
kind: Pod
metadata: { name: huge }
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: BUSYBOX
    imagePullPolicy: IfNotPresent
    command: [sleep, '100000']
    resources: { limits: { hugepages-2Mi: 4Mi, memory: 32Mi, cpu: 100m } }
    volumeMounts: [{ name: huge, mountPath: /huge }]
  volumes: [{ name: huge, emptyDir: { medium: HugePages-2Mi } }]
";
    bench.apply("huge", manifest)?;
    bench.ready("huge")?;
    let mounted = bench.sh("huge", "main", "grep /huge /proc/mounts")?;
    assert!(mounted.contains("hugetlbfs") && mounted.contains("pagesize=2M"), "{mounted}");
    Ok(())
}
