//! Manifests as people write them, rebuilt with local images: each row is a manifest and what its pod
//! must come to. One node runs them all side by side.

use anyhow::{Context, Result, bail, ensure};
use longshore_tests::lab::daemon::{Options, is_ready};
use longshore_tests::lab::wait::wait_for;
use longshore_tests::lab::{Daemon, Lab, image};
use serde_json::Value;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(75);

/// What is looked at: the pod's object, and its log where the row asks for one.
type Check = fn(&Value, &dyn Fn() -> Result<String>) -> Result<bool>;

struct Row {
    /// `namespace/name` of the pod that the check looks at.
    pod: &'static str,
    manifest: &'static str,
    check: Check,
}

fn phase(pod: &Value) -> &str {
    pod["status"]["phase"].as_str().unwrap_or_default()
}

fn first(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

fn waiting(pod: &Value) -> &str {
    first(pod)["state"]["waiting"]["reason"].as_str().unwrap_or_default()
}

const ROWS: &[Row] = &[
    Row {
        pod: "default/hue-learner",
        manifest: "
apiVersion: v1
kind: Pod
metadata: { name: hue-learner, labels: { app: hue } }
spec:
  containers:
  - name: hue-learn
    image: BUSYBOX
    command: [sh, -c, 'echo Started with $LIGHT...; while true; do sleep 1; done']
    env: [{ name: LIGHT, value: blue }]
    resources: { requests: { cpu: 200m, memory: 256Mi } }
",
        check: |pod, log| {
            ensure!(pod["spec"]["restartPolicy"] == "Always" || pod["spec"]["restartPolicy"].is_null());
            Ok(is_ready(pod) && pod["status"]["qosClass"] == "Burstable" && log()?.contains("Started with blue..."))
        },
    },
    Row {
        pod: "default/factorial5",
        manifest: "
apiVersion: v1
kind: Pod
metadata: { name: factorial5 }
spec:
  restartPolicy: Never
  containers: [{ name: factorial, image: WORKLOAD, args: [factorial, '5'] }]
",
        check: |pod, log| {
            let end = &first(pod)["state"]["terminated"];
            Ok(phase(pod) == "Succeeded" && end["exitCode"] == 0 && end["reason"] == "Completed" && log()?.trim() == "120")
        },
    },
    Row {
        pod: "default/args-only",
        manifest: "
apiVersion: v1
kind: Pod
metadata: { name: args-only }
spec:
  restartPolicy: OnFailure
  containers: [{ name: cron, image: WORKLOAD, args: [exit, '0', '1'] }]
",
        check: |pod, _| Ok(phase(pod) == "Succeeded" && first(pod)["restartCount"] == 0),
    },
    Row {
        pod: "default/fails-for-good",
        manifest: "
apiVersion: v1
kind: Pod
metadata: { name: fails-for-good }
spec:
  restartPolicy: Never
  containers: [{ name: main, image: WORKLOAD, args: [write-termination-message, 'out of coffee', /dev/termination-log, '7'] }]
",
        check: |pod, _| {
            let end = &first(pod)["state"]["terminated"];
            Ok(phase(pod) == "Failed" && end["exitCode"] == 7 && end["message"] == "out of coffee")
        },
    },
    Row {
        pod: "default/crashes",
        manifest: "
apiVersion: v1
kind: Pod
metadata: { name: crashes }
spec:
  containers: [{ name: main, image: WORKLOAD, args: [exit, '3'] }]
",
        check: |pod, _| {
            let last = &first(pod)["lastState"]["terminated"];
            // The second restart waits ten seconds, the third twenty.
            Ok(waiting(pod) == "CrashLoopBackOff" && last["exitCode"] == 3 && first(pod)["restartCount"].as_i64() >= Some(2))
        },
    },
    Row {
        pod: "default/waits-longer-each-time",
        manifest: "
apiVersion: v1
kind: Pod
metadata: { name: waits-longer-each-time }
spec:
  containers:
  - name: main
    image: BUSYBOX
    command: [sh, -c, 'cut -d\" \" -f1 /proc/uptime >> /times/starts; cat /times/starts; exit 1']
    volumeMounts: [{ name: times, mountPath: /times }]
  volumes: [{ name: times, emptyDir: {} }]
",
        check: |_, log| {
            // Seconds at which its runs began: the first restart is at once, the next ones wait ten and twenty.
            let starts: Vec<f64> = log()?.lines().filter_map(|l| l.parse().ok()).collect();
            let [first, second, third, fourth] = starts[..] else { return Ok(false) };
            ensure!(second - first < 10.0, "{starts:?}");
            ensure!((10.0..20.0).contains(&(third - second)) && (20.0..40.0).contains(&(fourth - third)), "{starts:?}");
            Ok(true)
        },
    },
    Row {
        pod: "default/gated",
        manifest: "
apiVersion: v1
kind: Pod
metadata: { name: gated }
spec:
  readinessGates: [{ conditionType: example.com/balanced }]
  containers: [{ name: main, image: BUSYBOX, command: [sleep, '1000'] }]
",
        check: |pod, _| {
            let condition = |kind: &str| pod["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == kind).cloned();
            let (containers, whole) = (condition("ContainersReady").unwrap_or_default(), condition("Ready").unwrap_or_default());
            let gate = whole["reason"] == "ReadinessGatesNotReady" && whole["message"].to_string().contains("example.com/balanced");
            Ok(containers["status"] == "True" && whole["status"] == "False" && gate)
        },
    },
    Row {
        pod: "default/shell-without-a-script",
        manifest: "
apiVersion: v1
kind: Pod
metadata: { name: shell-without-a-script }
spec:
  initContainers: [{ name: shell, image: BUSYBOX, command: [sh] }]
  containers: [{ name: main, image: BUSYBOX, command: [sleep, '1000'] }]
",
        // Nobody types, so the shell's input is at its end.
        check: |pod, _| Ok(is_ready(pod) && pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 0),
    },
    Row {
        pod: "default/hue-fitness",
        manifest: "
apiVersion: v1
kind: Pod
metadata: { name: hue-fitness }
spec:
  initContainers:
  - { name: one, image: BUSYBOX, command: [sh, -c, 'echo one > /work/order'], volumeMounts: [{ name: work, mountPath: /work }] }
  - { name: two, image: BUSYBOX, command: [sh, -c, 'echo two >> /work/order'], volumeMounts: [{ name: work, mountPath: /work }] }
  containers:
  - { name: main, image: BUSYBOX, command: [sh, -c, 'cat /work/order; sleep 1000'], volumeMounts: [{ name: work, mountPath: /work }] }
  volumes: [{ name: work, emptyDir: {} }]
",
        check: |pod, log| {
            let done = pod["status"]["initContainerStatuses"].as_array().into_iter().flatten().all(|c| c["state"]["terminated"]["exitCode"] == 0);
            Ok(is_ready(pod) && done && log()? == "one\ntwo\n")
        },
    },
    Row {
        pod: "default/bogus-image",
        manifest: "
apiVersion: v1
kind: Pod
metadata: { name: bogus-image }
spec:
  containers: [{ name: nginx, image: 'localhost/longshore/nginx:1.91' }]
",
        check: |pod, _| {
            ensure!(!is_ready(pod), "a pod without an image is ready");
            Ok(phase(pod) == "Pending" && waiting(pod) == "ImagePullBackOff")
        },
    },
    Row {
        pod: "default/never-pulled",
        manifest: "
apiVersion: v1
kind: Pod
metadata: { name: never-pulled }
spec:
  containers: [{ name: main, image: 'localhost/longshore/none:1', imagePullPolicy: Never }]
",
        check: |pod, _| Ok(waiting(pod) == "ErrImageNeverPull"),
    },
    Row {
        pod: "default/myweb",
        manifest: "
apiVersion: v1
kind: Service
metadata: { name: mysql }
spec: { ports: [{ port: 3306 }], selector: { app: mysql } }
---
apiVersion: v1
kind: Pod
metadata: { name: myweb }
spec:
  containers:
  - name: myweb
    image: BUSYBOX
    command: [sh, -c, 'echo $MYSQL_SERVICE_HOST $MYSQL_SERVICE_PORT $MYSQL_PORT_3306_TCP_PROTO; sleep 1000']
    env: [{ name: MYSQL_SERVICE_PORT, value: 'overlaid' }]
",
        check: |pod, log| {
            let log = log()?;
            let words: Vec<&str> = log.split_whitespace().collect();
            Ok(is_ready(pod) && words.len() == 3 && words[0].starts_with("10.96.") && words[1..] == ["overlaid", "tcp"])
        },
    },
    Row {
        pod: "development/busybox",
        manifest: "
apiVersion: v1
kind: Namespace
metadata: { name: development }
---
apiVersion: v1
kind: Pod
metadata: { name: busybox, namespace: development }
spec:
  containers: [{ name: busybox, image: BUSYBOX, command: [sh, -c, 'echo development; sleep 3600'] }]
---
apiVersion: v1
kind: Pod
metadata: { name: busybox }
spec:
  containers: [{ name: busybox, image: BUSYBOX, command: [sh, -c, 'echo default; sleep 3600'] }]
",
        check: |pod, log| Ok(is_ready(pod) && log()? == "development\n"),
    },
    Row {
        pod: "default/host-namespaces",
        manifest: "
apiVersion: v1
kind: Pod
metadata: { name: host-namespaces }
spec:
  hostNetwork: true
  hostPID: true
  hostIPC: true
  containers: [{ name: main, image: BUSYBOX, command: [sh, -c, 'test $$ -gt 1 && hostname -i; ip -o -4 addr show eth0; sleep 1000'] }]
",
        check: |pod, log| Ok(is_ready(pod) && pod["status"]["podIP"] == pod["status"]["hostIP"] && log()?.contains("192.0.2.10")),
    },
    Row {
        pod: "default/shared-processes",
        manifest: "
apiVersion: v1
kind: Pod
metadata: { name: shared-processes }
spec:
  shareProcessNamespace: true
  containers:
  - { name: a, image: BUSYBOX, command: [sh, -c, 'sleep 2; ps | grep -v grep | grep -c \"sleep 4242\"; sleep 1000'] }
  - { name: b, image: BUSYBOX, command: [sleep, '4242'] }
",
        check: |pod, log| Ok(is_ready(pod) && log()?.trim() == "1"),
    },
    Row {
        pod: "default/downward",
        manifest: "
apiVersion: v1
kind: Pod
metadata: { name: downward, labels: { tier: front } }
spec:
  containers:
  - name: main
    image: BUSYBOX
    command: [sh, -c, 'echo $(NAME) $(NS) $(TIER) $(CPU) $(IP); cat /info/labels; echo; sleep 1000']
    resources: { limits: { cpu: 1500m, memory: 64Mi } }
    env:
    - { name: NAME, valueFrom: { fieldRef: { fieldPath: metadata.name } } }
    - { name: NS, valueFrom: { fieldRef: { fieldPath: metadata.namespace } } }
    - { name: TIER, valueFrom: { fieldRef: { fieldPath: \"metadata.labels['tier']\" } } }
    - { name: CPU, valueFrom: { resourceFieldRef: { resource: limits.cpu, divisor: 1m } } }
    - { name: IP, valueFrom: { fieldRef: { fieldPath: status.podIP } } }
    volumeMounts: [{ name: info, mountPath: /info }]
  volumes: [{ name: info, downwardAPI: { items: [{ path: labels, fieldRef: { fieldPath: metadata.labels } }] } }]
",
        check: |pod, log| {
            let want = format!("downward default front 1500 {}\ntier=\"front\"", pod["status"]["podIP"].as_str().unwrap_or_default());
            let qos = pod["status"]["qosClass"] == "Guaranteed";
            Ok(is_ready(pod) && qos && log()?.trim() == want)
        },
    },
    Row {
        pod: "default/waits-for-config",
        manifest: "
apiVersion: v1
kind: Pod
metadata: { name: waits-for-config }
spec:
  containers:
  - name: main
    image: BUSYBOX
    command: [sh, -c, 'echo $COLOUR; sleep 1000']
    env: [{ name: COLOUR, valueFrom: { configMapKeyRef: { name: colours, key: favourite } } }]
",
        check: |pod, _| {
            let wait = &first(pod)["state"]["waiting"];
            Ok(wait["reason"] == "CreateContainerConfigError" && wait["message"] == "configmap \"colours\" not found")
        },
    },
    Row {
        pod: "default/names",
        manifest: "
apiVersion: v1
kind: Pod
metadata: { name: names }
spec:
  hostname: db-0
  subdomain: db
  hostAliases: [{ ip: 192.0.2.77, hostnames: [far.example] }]
  containers: [{ name: main, image: BUSYBOX, command: [sh, -c, 'hostname; cat /etc/hosts /etc/resolv.conf; sleep 1000'] }]
",
        check: |pod, log| {
            let log = log()?;
            let ip = pod["status"]["podIP"].as_str().unwrap_or_default();
            let all = ["db-0\n", "192.0.2.77\tfar.example", "search default.svc.cluster.local svc.cluster.local cluster.local", "ndots:5"];
            Ok(is_ready(pod) && all.iter().all(|text| log.contains(text)) && log.contains(&format!("{ip}\tdb-0.db.default.svc.cluster.local\tdb-0")))
        },
    },
    Row {
        pod: "default/locked-down",
        manifest: "
apiVersion: v1
kind: Pod
metadata: { name: locked-down }
spec:
  securityContext: { runAsUser: 1000, runAsGroup: 3000, fsGroup: 2000, runAsNonRoot: true, seccompProfile: { type: RuntimeDefault } }
  containers:
  - name: main
    image: BUSYBOX
    workingDir: /tmp
    command: [sh, -c, 'id -u; id -g; id -G; pwd; touch /x 2>/dev/null || echo read-only; grep NoNewPrivs /proc/self/status; sleep 1000']
    securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: [ALL] } }
",
        check: |pod, log| {
            let log = log()?;
            let lines: Vec<&str> = log.lines().collect();
            let whole = lines.len() >= 6 && lines[0] == "1000" && lines[1] == "3000" && lines[2].contains("2000") && lines[3] == "/tmp";
            Ok(is_ready(pod) && whole && lines[4] == "read-only" && lines[5].ends_with('1'))
        },
    },
    Row {
        pod: "default/root-refused",
        manifest: "
apiVersion: v1
kind: Pod
metadata: { name: root-refused }
spec:
  securityContext: { runAsNonRoot: true }
  containers: [{ name: main, image: BUSYBOX, command: [sleep, '1000'] }]
",
        check: |pod, _| {
            let wait = &first(pod)["state"]["waiting"];
            let message = wait["message"].as_str().unwrap_or_default();
            Ok(wait["reason"] == "CreateContainerConfigError" && message.starts_with("container has runAsNonRoot and image will run as root"))
        },
    },
    Row {
        pod: "default/deadline",
        manifest: "
apiVersion: v1
kind: Pod
metadata: { name: deadline }
spec:
  activeDeadlineSeconds: 3
  terminationGracePeriodSeconds: 1
  containers: [{ name: main, image: WORKLOAD, args: [sleep] }]
",
        check: |pod, _| Ok(phase(pod) == "Failed" && pod["status"]["reason"] == "DeadlineExceeded"),
    },
    Row {
        pod: "default/out-of-memory",
        manifest: "
apiVersion: v1
kind: Pod
metadata: { name: out-of-memory }
spec:
  restartPolicy: Never
  containers: [{ name: main, image: WORKLOAD, args: [eat-memory, '64'], resources: { limits: { memory: 16Mi } } }]
",
        check: |pod, _| {
            let end = &first(pod)["state"]["terminated"];
            // containerd drops its own notice of the kill when the container's group is gone before it is read. That the
            // reason is shown where the runtime knows it, runtime_resources asks of a container that starts anew.
            Ok(phase(pod) == "Failed" && (end["reason"] == "OOMKilled" || end["reason"] == "Error") && end["exitCode"] == 137)
        },
    },
    Row {
        pod: "default/wrong-node",
        manifest: "
apiVersion: v1
kind: Pod
metadata: { name: wrong-node }
spec:
  nodeSelector: { kubernetes.io/os: plan9 }
  containers: [{ name: main, image: BUSYBOX, command: [sleep, '1000'] }]
",
        check: |pod, _| Ok(phase(pod) == "Failed" && pod["status"]["reason"] == "NodeAffinity"),
    },
    Row {
        pod: "default/right-node",
        manifest: "
apiVersion: v1
kind: Pod
metadata: { name: right-node }
spec:
  nodeSelector: { kubernetes.io/os: linux, kubernetes.io/hostname: lab }
  tolerations: [{ key: control-plane, operator: Exists, effect: NoExecute }]
  affinity: { podAntiAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [] } }
  topologySpreadConstraints: [{ maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway, labelSelector: { matchLabels: { a: b } } }]
  containers: [{ name: main, image: BUSYBOX, command: [sh, -c], args: ['while true; do sleep 1; done'] }]
",
        check: |pod, _| Ok(is_ready(pod)),
    },
    Row {
        pod: "default/host-port-second",
        manifest: "
apiVersion: v1
kind: Pod
metadata: { name: host-port-first }
spec:
  containers: [{ name: main, image: WORKLOAD, args: [serve-http], ports: [{ containerPort: 8080, hostPort: 8088 }] }]
---
apiVersion: v1
kind: Pod
metadata: { name: host-port-second }
spec:
  containers: [{ name: main, image: WORKLOAD, args: [serve-http], ports: [{ containerPort: 8080, hostPort: 8088 }] }]
",
        check: |pod, _| Ok(phase(pod) == "Failed" && pod["status"]["reason"] == "NodePorts"),
    },
];

fn filled(manifest: &str) -> String {
    manifest.replace("BUSYBOX", image::BUSYBOX).replace("WORKLOAD", image::WORKLOAD)
}

/// All rows share one patience: they run side by side.
fn check(daemon: &Daemon, row: &Row, began: Instant) -> Result<()> {
    let (namespace, name) = row.pod.split_once('/').context("namespace/name")?;
    let left = SOON.saturating_sub(began.elapsed()).max(Duration::from_secs(1));
    wait_for(&format!("{} comes to what it should", row.pod), left, || -> Result<Option<()>> {
        let pod = daemon.find("pods", namespace, name)?.context("there is no such pod")?;
        let log = || daemon.cli(&["logs", "-n", namespace, name]);
        match (row.check)(&pod, &log) {
            Ok(true) => Ok(Some(())),
            Ok(false) => bail!("{:#}\nlog: {:?}", pod["status"], log()),
            Err(error) => bail!("{error:#}: {:#}", pod["status"]),
        }
    })
}

#[test]
fn manifests_as_people_write_them_come_to_what_they_should() -> Result<()> {
    let lab = Lab::up()?;
    let daemon = lab.daemon(Options::default())?;
    for (i, row) in ROWS.iter().enumerate() {
        daemon.apply(&format!("{i:02}.yaml"), &filled(row.manifest))?;
    }
    let began = Instant::now();
    let failures: Vec<String> = ROWS.iter().filter_map(|row| check(&daemon, row, began).err()).map(|e| format!("{e:#}")).collect();
    ensure!(failures.is_empty(), "{}\nthe daemon logged:\n{}", failures.join("\n\n"), daemon.log());
    what_waited_goes_on_when_it_comes(&daemon)?;
    an_image_changes_in_place(&daemon)?;
    host_ports_answer(&lab)
}

fn what_waited_goes_on_when_it_comes(daemon: &Daemon) -> Result<()> {
    daemon.apply("colours.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: colours }\ndata: { favourite: green }\n")?;
    daemon.wait_until_ready(("default", "waits-for-config"), SOON)?;
    wait_for("the log shows the value", SOON, || -> Result<Option<()>> {
        Ok((daemon.cli(&["logs", "waits-for-config"])? == "green\n").then_some(()))
    })
}

fn an_image_changes_in_place(daemon: &Daemon) -> Result<()> {
    let pod = |image: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{ name: update }}\nspec:\n  terminationGracePeriodSeconds: 2\n  containers: [{{ name: main, image: {image}, args: [sleep, '1000'], imagePullPolicy: IfNotPresent }}]\n"
        )
    };
    daemon.apply("update.yaml", &pod(image::WORKLOAD))?;
    let before = daemon.wait_until_ready(("default", "update"), SOON)?;
    daemon.apply("update.yaml", &pod(image::DEMO))?;
    let after = daemon.wait_for_pod(("default", "update"), "restarted with the new image", SOON, |p| {
        is_ready(p) && first(p)["restartCount"] == 1 && first(p)["image"] == image::DEMO
    })?;
    ensure!(before["metadata"]["uid"] == after["metadata"]["uid"], "the pod was replaced");
    ensure!(before["status"]["podIP"] == after["status"]["podIP"], "the sandbox was replaced");
    Ok(())
}

fn host_ports_answer(lab: &Lab) -> Result<()> {
    let node = (longshore_tests::lab::net::NODE_V4, 8088).into();
    let outside = lab.network.outside.first().context("an outside host")?;
    let answer = outside.namespace.get(node, "/hostname", Duration::from_secs(5))?;
    ensure!(answer.trim() == "host-port-first", "{answer:?} answers on the host port");
    Ok(())
}
