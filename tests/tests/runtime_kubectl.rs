//! kubectl against a machine without a control plane: one session, as a person would have it, with every answer checked.

use anyhow::{Context, Result, ensure};
use longshore_tests::lab::daemon::Options;
use longshore_tests::lab::kubectl::{API_ADDRESS, Kubectl, Said};
use longshore_tests::lab::wait::{wait_for, wait_until};
use longshore_tests::lab::{Daemon, Lab, image};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn options() -> Options {
    Options { arguments: vec!["--api-bind-address".into(), API_ADDRESS.into()], ..Options::default() }
}

fn pod(name: &str, script: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: {name}, labels: {{ app: {name} }} }}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: {}
    imagePullPolicy: IfNotPresent
    command: [ sh, -c, {script:?} ]
",
        image::BUSYBOX
    )
}

const LOOP: &str = "trap 'exit 0' TERM; while :; do sleep 1; done";
const CONFIG: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: settings }\ndata: { colour: red, size: '1' }\n";

/// A request for `CN=eve, O=ops` with a key that nobody kept.
const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIV01INENBUUF3SERFTU1Bb0dBMVVFQ2d3RGIzQnpNUXd3Q2dZRFZRUUREQU5sZG1Vd1dUQVRCZ2NxaGtqTwpQUUlCQmdncWhrak9QUU1CQndOQ0FBUnMxNjc2b3VIdysvVk9lZWoraTZkdG9SWW9WUXR4T2h2Z1lzMEw3dVVlCkFGcXlIcmxPTVg4Q3FVNVMxYW5QSlExZERHbjcrdE16ckZmSisxV2lXWEx0b0FBd0NnWUlLb1pJemowRUF3SUQKU0FBd1JRSWdZdkZpWE00NUNzVTBRSGpZWTVzd0hlNDJEZmZkTE10USt5Yy9wT0NYcHpNQ0lRQzhXVjkxbXJKUgp3OEgzZ0xEdnp1dlRCVWdyUE5pSG8yVDJEcmNLamRHck5nPT0KLS0tLS1FTkQgQ0VSVElGSUNBVEUgUkVRVUVTVC0tLS0tCg==";

fn request(name: &str) -> String {
    format!(
        "apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {{ name: {name} }}
spec:
  signerName: kubernetes.io/kube-apiserver-client
  usages: [ client auth ]
  request: {REQUEST}
"
    )
}

#[track_caller]
fn has(text: &str, part: &str) -> Result<()> {
    ensure!(text.contains(part), "no {part:?} in:\n{text}");
    Ok(())
}

fn session(test: impl FnOnce(&mut Lab, &mut Daemon) -> Result<()>) -> Result<()> {
    let mut lab = Lab::up()?;
    let mut daemon = lab.daemon(options())?;
    test(&mut lab, &mut daemon).map_err(|e| e.context(format!("the daemon logged:\n{}", daemon.log())))
}

fn looking_around(k: &Kubectl) -> Result<()> {
    has(&k.ok(&["version"])?, "Server Version: v1.36.2")?;
    has(&k.ok(&["api-versions"])?, "discovery.k8s.io/v1")?;
    let resources = k.ok(&["api-resources"])?;
    has(&resources, "persistentvolumeclaims")?;
    has(&resources, "deployments")?;
    has(&k.ok(&["get", "namespaces"])?, "kube-system       Active")?;
    k.ok(&["wait", "--for=condition=Ready", "node/lab", "--timeout=60s"])?;
    has(&k.ok(&["get", "nodes", "-o", "wide"])?, "Ready")?;
    let node = k.ok(&["describe", "node", "lab"])?;
    has(&node, "KubeletReady")?;
    has(&node, "HolderIdentity:  lab")?;
    has(&k.ok(&["cluster-info"])?, "is running at")?;
    has(&k.ok(&["get", "--raw", "/livez"])?, "ok")?;
    has(&k.ok(&["explain", "pod.spec.containers"])?, "terminationMessagePath")?;
    has(&k.ok(&["auth", "whoami"])?, "kubernetes-admin")?;
    has(&k.ok(&["auth", "can-i", "delete", "pods"])?, "yes")?;
    has(&k.ok(&["auth", "can-i", "--list"])?, "*.*")
}

fn objects(k: &Kubectl, daemon: &Daemon) -> Result<()> {
    has(&k.fed(&["apply", "-f", "-"], CONFIG)?, "configmap/settings created")?;
    has(&k.fed(&["apply", "-f", "-"], CONFIG)?, "configmap/settings unchanged")?;
    has(&k.fed(&["apply", "-f", "-"], &CONFIG.replace("red", "blue"))?, "configmap/settings configured")?;
    ensure!(k.fed(&["diff", "-f", "-"], &CONFIG.replace("red", "blue"))?.is_empty());
    let diff = k.say(&["diff", "-f", "-"], CONFIG)?;
    ensure!(diff.code == Some(1) && diff.out.contains("-  colour: blue") && diff.out.contains("+  colour: red"), "{diff:#?}");
    has(&k.ok(&["get", "cm", "settings", "-o", "jsonpath={.data.colour}"])?, "blue")?;
    has(&k.fed(&["replace", "-f", "-"], CONFIG)?, "configmap/settings replaced")?;
    let file = std::fs::read_to_string(daemon.manifests().join("configmaps.default.settings.yaml"))?;
    has(&file, "colour: red")?;
    ensure!(!file.contains("uid") && !file.contains("managedFields"), "{file}");

    // Server-side apply, and its conflicts.
    let own = "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: shared }\ndata: { a: '1' }\n";
    has(&k.fed(&["apply", "--server-side", "-f", "-"], own)?, "configmap/shared serverside-applied")?;
    has(&k.fed(&["apply", "--server-side", "-f", "-"], own)?, "configmap/shared serverside-applied")?;
    let other = own.replace("'1'", "'2'");
    let conflict = k.refused(&["apply", "--server-side", "--field-manager", "somebody", "-f", "-"], &other)?;
    has(&conflict, "conflict with \"kubectl\": .data.a")?;
    k.fed(&["apply", "--server-side", "--force-conflicts", "--field-manager", "somebody", "-f", "-"], &other)?;
    let managers = k.ok(&["get", "cm", "shared", "-o", "jsonpath={.metadata.managedFields[*].manager}"])?;
    has(&managers, "somebody")?;

    // Patches of every kind, labels, annotations.
    k.ok(&["patch", "cm", "shared", "-p", r#"{"data":{"b":"3"}}"#])?;
    k.ok(&["patch", "cm", "shared", "--type", "merge", "-p", r#"{"data":{"a":null}}"#])?;
    k.ok(&[
        "patch",
        "cm",
        "shared",
        "--type",
        "json",
        "-p",
        r#"[{"op":"test","path":"/data/b","value":"3"},{"op":"add","path":"/data/c","value":"4"}]"#,
    ])?;
    has(&k.ok(&["get", "cm", "shared", "-o", "jsonpath={.data}"])?, r#"{"b":"3","c":"4"}"#)?;
    k.ok(&["label", "cm", "shared", "team=a"])?;
    k.ok(&["annotate", "cm", "shared", "why=because"])?;
    has(&k.ok(&["get", "cm", "-l", "team=a", "-o", "name"])?, "configmap/shared")?;
    has(&k.ok(&["get", "cm", "-l", "team notin (a)", "-o", "name"])?, "configmap/settings")?;
    has(&k.ok(&["get", "cm", "--field-selector", "metadata.name=shared", "-o", "name"])?, "configmap/shared")?;
    has(&k.ok(&["get", "cm", "--chunk-size", "1", "-o", "name"])?, "configmap/settings\nconfigmap/shared")?;

    // Typed creations, namespaces, secrets, accounts and their tokens.
    k.ok(&["create", "configmap", "typed", "--from-literal", "x=y"])?;
    k.ok(&["create", "secret", "generic", "password", "--from-literal", "pw=secret"])?;
    has(&k.ok(&["get", "secret", "password", "-o", "jsonpath={.data.pw}"])?, "c2VjcmV0")?;
    k.ok(&["create", "serviceaccount", "robot"])?;
    ensure!(k.ok(&["create", "token", "robot"])?.trim().split('.').count() == 3, "no token");
    k.ok(&["create", "namespace", "team"])?;
    k.ok(&["-n", "team", "create", "configmap", "inside", "--from-literal", "x=y"])?;
    has(&k.ok(&["get", "cm", "-A"])?, "inside")?;
    has(&k.ok(&["delete", "namespace", "team"])?, "namespace \"team\" deleted")?;
    ensure!(!k.ok(&["get", "cm", "-A"])?.contains("inside"), "the namespace's objects are still there");
    has(&k.refused(&["-n", "nowhere", "create", "configmap", "x"], "")?, "namespaces \"nowhere\" not found")?;

    // What is wrong is told.
    has(&k.refused(&["get", "pod", "nobody"], "")?, "pods \"nobody\" not found")?;
    has(&k.refused(&["create", "-f", "-"], CONFIG)?, "configmaps \"settings\" already exists")?;
    has(
        &k.refused(&["create", "deployment", "web", "--image", "x"], "")?,
        "this node has no controllers: take the Pod out of spec.template",
    )?;
    has(&k.refused(&["apply", "-f", "-"], &pod("bad", LOOP).replace("command", "comand"))?, "unknown field \"spec.containers[0].comand\"")?;
    has(
        &k.refused(&["apply", "-f", "-"], "apiVersion: v1\nkind: Pod\nmetadata: { name: bad }\nspec: { containers: [ { name: a } ] }\n")?,
        "spec.containers[0].image: Required value",
    )?;
    let dry = k.fed(&["apply", "--dry-run=server", "-f", "-"], &CONFIG.replace("settings", "dry"))?;
    has(&dry, "configmap/dry created (server dry run)")?;
    has(&k.refused(&["get", "cm", "dry"], "")?, "not found")?;
    k.ok(&["delete", "cm", "settings", "shared", "typed"])?;
    ensure!(!daemon.manifests().join("configmaps.default.settings.yaml").exists(), "the file is still there");
    Ok(())
}

/// Through an editor, which is a script here.
fn edited(k: &Kubectl, scripts: &Path, script: &str, arguments: &[&str]) -> Result<Said> {
    let editor = scripts.join("editor");
    std::fs::write(&editor, format!("#!/bin/sh\n{script}\n"))?;
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755))?;
    let output = k.command(&[&["edit"], arguments].concat()).env("EDITOR", &editor).env("TMPDIR", scripts).stdin(Stdio::null()).output()?;
    let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
    Ok(Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) })
}

fn editing(k: &Kubectl, daemon: &Daemon, scripts: &Path) -> Result<()> {
    daemon.apply("edited.yaml", &format!("# by hand\n{CONFIG}---\n{}", pod("edited", LOOP)))?;
    wait_until("both are there", SOON, || k.ok(&["get", "cm/settings", "pod/edited"]).is_ok())?;
    let said = edited(k, scripts, "sed -i 's/colour: red/colour: green/' \"$1\"", &["cm", "settings"])?;
    ensure!(said.code == Some(0) && said.out.contains("configmap/settings edited"), "{said:#?}");
    has(&k.ok(&["get", "cm", "settings", "-o", "jsonpath={.data.colour}"])?, "green")?;
    let file = std::fs::read_to_string(daemon.manifests().join("edited.yaml"))?;
    ensure!(file.contains("colour: green") && file.contains("name: edited") && !file.contains("uid"), "{file}");
    let said = edited(k, scripts, "true", &["cm", "settings"])?;
    ensure!(said.code == Some(0) && said.err.contains("Edit cancelled, no changes made"), "{said:#?}");
    let said = edited(k, scripts, "sed -i 's/app: edited/app: again/' \"$1\"", &["pod", "edited"])?;
    ensure!(said.code == Some(0) && said.out.contains("pod/edited edited"), "{said:#?}");
    has(&k.ok(&["get", "pod", "edited", "-o", "jsonpath={.metadata.labels.app}"])?, "again")?;
    // What may not be is told in the text that the editor gets once more; one that gives up changes nothing.
    let told = scripts.join("told");
    let once = format!(
        "grep 'is invalid\\|was not valid\\|may not change fields' \"$1\" >{} || sed -i 's/^spec:$/spec:\\n  hostNetwork: true/' \"$1\"",
        told.display()
    );
    let said = edited(k, scripts, &once, &["pod", "edited"])?;
    ensure!(said.code != Some(0) && said.err.contains("pods \"edited\" is invalid"), "{said:#?}");
    has(&std::fs::read_to_string(told)?, "pod updates may not change fields other than")?;
    k.ok(&["delete", "cm/settings", "pod/edited"])?;
    ensure!(!daemon.manifests().join("edited.yaml").exists(), "the file is still there");
    Ok(())
}

fn certificates(k: &Kubectl) -> Result<()> {
    k.fed(&["apply", "-f", "-"], &request("good"))?;
    k.fed(&["apply", "-f", "-"], &request("bad"))?;
    has(&k.ok(&["get", "csr", "good"])?, "Pending")?;
    has(&k.ok(&["certificate", "approve", "good"])?, "certificatesigningrequest.certificates.k8s.io/good approved")?;
    has(&k.ok(&["certificate", "deny", "bad"])?, "denied")?;
    wait_until("it is issued", SOON, || k.ok(&["get", "csr", "good"]).is_ok_and(|said| said.contains("Approved,Issued")))?;
    let bad = k.ok(&["get", "csr", "bad"])?;
    ensure!(bad.contains("Denied") && !bad.contains("Issued"), "{bad}");
    has(&k.refused(&["certificate", "approve", "bad"], "")?, "is already Denied")?;
    k.ok(&["delete", "csr", "good", "bad"])?;
    Ok(())
}

fn pods(k: &Kubectl) -> Result<()> {
    k.fed(&["apply", "-f", "-"], &pod("web", &format!("echo started; {LOOP}")))?;
    k.ok(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"])?;
    has(&k.ok(&["get", "pod", "web"])?, "1/1     Running")?;
    has(&k.ok(&["get", "pods", "--field-selector", "status.phase=Running", "-o", "name"])?, "pod/web")?;
    has(&k.ok(&["logs", "web"])?, "started")?;
    has(&k.ok(&["exec", "web", "--", "cat", "/etc/hostname"])?, "web")?;
    has(&k.fed(&["exec", "-i", "web", "--", "sh"], "echo from stdin\n")?, "from stdin")?;
    let failed = k.say(&["exec", "web", "--", "sh", "-c", "exit 7"], "")?;
    ensure!(failed.code == Some(7), "{failed:#?}");
    k.ok(&["label", "pod", "web", "stage=two"])?;
    let set = k.ok(&["get", "pod", "web", "-o", "jsonpath={.metadata.labels.stage} {.status.containerStatuses[0].restartCount}"])?;
    has(&set, "two 0")?;
    has(
        &k.refused(&["patch", "pod", "web", "-p", r#"{"spec":{"containers":[{"name":"main","command":["true"]}]}}"#], "")?,
        "pod updates may not change fields other than",
    )?;

    // A service in front of it, and the way to it through the API.
    k.ok(&["create", "service", "clusterip", "front", "--tcp=80:8080"])?;
    k.ok(&["set", "selector", "service", "front", "app=web"])?;
    let service: Value = serde_json::from_str(&k.ok(&["get", "svc", "front", "-o", "json"])?)?;
    ensure!(service["spec"]["clusterIP"].as_str().is_some_and(|ip| ip.starts_with("10.96.")), "{service:#}");
    let endpoint = || -> Result<_> {
        let said = k.ok(&["get", "endpointslices", "-l", "kubernetes.io/service-name=front"])?;
        Ok(said.contains("10.244.").then_some(()))
    };
    wait_for("the service has its endpoint", SOON, endpoint)?;
    has(&k.ok(&["describe", "service", "front"])?, "Endpoints:")?;

    // A pod that fails, described with its events.
    k.fed(&["apply", "-f", "-"], &pod("broken", "exit 3"))?;
    let told = || -> Result<_> {
        let said = k.ok(&["describe", "pod", "broken"])?;
        Ok((said.contains("BackOff") && said.contains("Exit Code:    3")).then_some(()))
    };
    wait_for("the failing pod is described with its events", SOON, told)?;
    has(&k.ok(&["get", "events", "--field-selector", "involvedObject.name=broken"])?, "Started")?;
    has(&k.ok(&["events", "--for", "pod/broken"])?, "Started")?;
    k.ok(&["delete", "pod", "broken", "--force", "--grace-period=0"])?;
    k.ok(&["wait", "--for=delete", "pod/broken", "--timeout=60s"])?;

    // Once, with its log; then an ending with another grace than its own.
    k.ok(&["run", "once", "--image", image::BUSYBOX, "--image-pull-policy=IfNotPresent", "--restart=Never", "--", "echo", "done"])?;
    k.ok(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/once", "--timeout=60s"])?;
    has(&k.ok(&["logs", "once"])?, "done")?;
    k.ok(&["delete", "pod", "once"])?;
    has(&k.ok(&["delete", "pod", "web", "--grace-period=5"])?, "pod \"web\" deleted")?;
    has(&k.refused(&["get", "pod", "web"], "")?, "not found")?;
    k.ok(&["delete", "service", "front"])?;
    Ok(())
}

#[test]
fn a_session_of_many_commands_reads_as_with_a_cluster() -> Result<()> {
    session(|lab, daemon| {
        let k = Kubectl::new(daemon, &lab.network.node, &lab.home.directory("kubectl")?, &[])?;
        looking_around(&k)?;
        objects(&k, daemon)?;
        editing(&k, daemon, &lab.home.directory("kubectl")?)?;
        certificates(&k)?;
        pods(&k)?;
        ensure!(k.count() >= 60, "only {} commands", k.count());
        Ok(())
    })
}

#[test]
fn watches_and_logs_go_on_while_things_happen() -> Result<()> {
    session(|lab, daemon| {
        let k = Kubectl::new(daemon, &lab.network.node, &lab.home.directory("kubectl")?, &[])?;
        let mut watch = k.command(&["get", "pods", "-w"]).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(watch.stdout.take().context("no output")?).lines();
        k.fed(&["apply", "-f", "-"], &pod("web", &format!("echo run; {LOOP}")))?;
        let running = lines.map_while(Result::ok).find(|l| l.contains("1/1     Running"));
        ensure!(running.is_some(), "the watch ended");
        watch.kill()?;
        watch.wait()?;

        // Over a restart of the container.
        let mut logs = k.command(&["logs", "-f", "web"]).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(logs.stdout.take().context("no output")?).lines();
        ensure!(lines.next().context("no line")?? == "run");
        k.ok(&["exec", "web", "--", "kill", "1"])?;
        let restarted = || -> Result<_> {
            let said = k.ok(&["get", "pod", "web", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"])?;
            Ok((said == "1").then_some(()))
        };
        wait_for("the container runs again", SOON, restarted)?;
        k.ok(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"])?;
        has(&k.ok(&["logs", "web", "--previous"])?, "run")?;
        ensure!(lines.next().context("no line after the restart")?? == "run");
        k.ok(&["exec", "web", "--", "sh", "-c", "echo more >/proc/1/fd/1"])?;
        ensure!(lines.next().context("no line")?? == "more");
        // Who is attached sees what is said from now on.
        k.fed(&["apply", "-f", "-"], &pod("talker", "trap 'exit 0' TERM; while :; do echo tick; sleep 0.2; done"))?;
        k.ok(&["wait", "--for=condition=Ready", "pod/talker", "--timeout=60s"])?;
        let mut attached = k.command(&["attach", "talker"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut heard = BufReader::new(attached.stdout.take().context("no output")?).lines();
        ensure!(heard.next().context("no line")?? == "tick" && heard.next().context("no second line")?? == "tick");
        attached.kill()?;
        attached.wait()?;
        // Who attaches first is all that a container hears whose input is opened once.
        let listener = "{ apiVersion: v1, kind: Pod, metadata: { name: listener }, spec: { restartPolicy: Never, containers: [ { \
            name: main, image: IMAGE, imagePullPolicy: IfNotPresent, stdin: true, stdinOnce: true, command: [cat] } ] } }";
        k.fed(&["apply", "-f", "-"], &listener.replace("IMAGE", image::BUSYBOX))?;
        k.ok(&["wait", "--for=condition=Ready", "pod/listener", "--timeout=60s"])?;
        k.fed(&["attach", "-i", "listener"], "hello\n")?;
        k.ok(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/listener", "--timeout=60s"])?;
        ensure!(k.ok(&["logs", "listener"])? == "hello\n");
        logs.kill()?;
        logs.wait()?;
        Ok(())
    })
}

#[test]
fn a_terminal_and_forwarded_ports_carry_bytes_both_ways() -> Result<()> {
    session(|lab, daemon| {
        let k = Kubectl::new(daemon, &lab.network.node, &lab.home.directory("kubectl")?, &[])?;
        k.fed(
            &["apply", "-f", "-"],
            &pod("web", "mkdir -p /www; head -c 1000000 /dev/zero | tr '\\\\0' x > /www/big; exec httpd -f -p 8080 -h /www"),
        )?;
        k.ok(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"])?;
        let said = k.on_terminal(&["exec", "-it", "web", "--", "sh", "-c", "test -t 0 && echo on a terminal"])?;
        has(&said, "on a terminal")?;

        // Through the API to what the pod serves.
        let fetched = k.ok(&["get", "--raw", "/api/v1/namespaces/default/pods/web:8080/proxy/big"])?;
        ensure!(fetched.len() == 1_000_000, "{} bytes", fetched.len());

        let mut forward = k.command(&["port-forward", "pod/web", "18080:8080"]).stdout(Stdio::piped()).spawn()?;
        let mut out = BufReader::new(forward.stdout.take().context("no output")?);
        let mut line = String::new();
        out.read_line(&mut line)?;
        has(&line, "Forwarding from")?;
        // Several at once, each whole.
        let fetched: Vec<Result<usize>> = std::thread::scope(|s| {
            let each = |_| s.spawn(|| lab.network.node.enter(fetch)?);
            let all: Vec<_> = (0..8).map(each).collect();
            all.into_iter().map(|t| t.join().expect("no panic")).collect()
        });
        for length in fetched {
            ensure!(length? >= 1_000_000);
        }
        forward.kill()?;
        forward.wait()?;
        Ok(())
    })
}

fn fetch() -> Result<usize> {
    let mut stream = std::net::TcpStream::connect("127.0.0.1:18080")?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(b"GET /big HTTP/1.0\r\n\r\n")?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    Ok(all.len())
}

#[test]
fn a_file_changed_by_hand_and_a_write_never_lose_each_other() -> Result<()> {
    session(|lab, daemon| {
        let k = Kubectl::new(daemon, &lab.network.node, &lab.home.directory("kubectl")?, &[])?;
        let two = format!("# by hand\n{CONFIG}---\n# the other\n{}", CONFIG.replace("settings", "other"));
        daemon.apply("two.yaml", &two)?;
        wait_until("both are there", SOON, || k.ok(&["get", "cm", "other", "settings"]).is_ok())?;
        k.ok(&["patch", "cm", "other", "-p", r#"{"data":{"colour":"green"}}"#])?;
        let file = std::fs::read_to_string(daemon.manifests().join("two.yaml"))?;
        ensure!(file.starts_with("# by hand\n") && file.contains("green"), "{file}");
        // The writer sees what somebody else wrote before it writes: either the patch comes on top, or it conflicts.
        daemon.apply("two.yaml", &file.replace("size: '1'", "size: '2'").replace("green", "grey"))?;
        let said = k.say(&["patch", "cm", "other", "-p", r#"{"data":{"shape":"round"}}"#], "")?;
        let file = std::fs::read_to_string(daemon.manifests().join("two.yaml"))?;
        ensure!(file.contains("grey"), "the edit is lost: {file}\n{said:#?}");
        ensure!(said.code == Some(0) || said.err.contains("two.yaml was changed by somebody else"), "{said:#?}");
        has(&k.ok(&["delete", "cm", "other"])?, "deleted")?;
        let file = std::fs::read_to_string(daemon.manifests().join("two.yaml"))?;
        ensure!(file.starts_with("# by hand\n") && !file.contains("other"), "{file}");
        Ok(())
    })
}

#[test]
fn identities_and_managers_outlive_the_daemon() -> Result<()> {
    session(|lab, daemon| {
        let k = Kubectl::new(daemon, &lab.network.node, &lab.home.directory("kubectl")?, &[])?;
        k.fed(&["apply", "--server-side", "-f", "-"], CONFIG)?;
        k.fed(&["apply", "-f", "-"], &pod("web", LOOP))?;
        k.ok(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"])?;
        let identity = || -> Result<String> {
            let one = k.ok(&["get", "cm", "settings", "-o", "jsonpath={.metadata.uid} {.metadata.managedFields[*].manager}"])?;
            Ok(one + &k.ok(&["get", "pod", "web", "-o", "jsonpath={.metadata.uid} {.status.containerStatuses[0].containerID}"])?)
        };
        let before = identity()?;
        daemon.kill_nine();
        daemon.launch()?;
        wait_until("the pod shows again", SOON, || identity().is_ok_and(|now| now == before))?;
        has(&k.ok(&["get", "events", "--field-selector", "involvedObject.name=web"])?, "Started")?;
        Ok(())
    })
}

#[test]
fn roles_bound_what_others_may_do() -> Result<()> {
    let lab = Lab::up()?;
    let roles = lab.home.directory("kubectl")?.join("roles.yaml");
    std::fs::write(&roles, "viewer: ['group:ops']\n")?;
    let mut options = options();
    options.arguments.extend(["--api-role-file".into(), roles.display().to_string()]);
    let daemon = lab.daemon(options)?;
    daemon.apply("settings.yaml", CONFIG)?;
    let k = Kubectl::new(&daemon, &lab.network.node, &lab.home.directory("kubectl")?, &["--user", "eve", "--group", "ops"])?;
    wait_until("a viewer reads", SOON, || k.ok(&["get", "cm", "settings"]).is_ok())?;
    has(
        &k.refused(&["get", "secrets"], "")?,
        "User \"eve\" cannot list resource \"secrets\" in API group \"\" in the namespace \"default\"",
    )?;
    has(&k.refused(&["delete", "cm", "settings"], "")?, "is forbidden")?;
    let said = k.say(&["auth", "can-i", "create", "pods"], "")?;
    ensure!(said.out.trim() == "no", "{said:#?}");
    Ok(())
}
