//! Images from a real registry: with and without credentials, and what is told when they cannot be had.

use anyhow::{Context, Result, ensure};
use longshore_tests::lab::daemon::{Options, is_ready};
use longshore_tests::lab::image::{Archive, Config, tar::Tar};
use longshore_tests::lab::registry::Login;
use longshore_tests::lab::wait::wait_for;
use longshore_tests::lab::{Daemon, Lab, Registry, containerd, image};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::time::Duration;

/// Bytes of an image that takes a while.
const LARGE: u32 = 12 << 20;
const SOON: Duration = Duration::from_secs(60);

fn pod(name: &str, image: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{ name: {name} }}\nspec:\n  terminationGracePeriodSeconds: 1\n{more}  containers: [{{ name: main, image: '{image}', args: [sleep] }}]\n"
    )
}

/// An image pull secret as `kubectl create secret docker-registry` makes it.
fn secret(name: &str, host: &str, user: &str, password: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{ name: {name} }}\ntype: kubernetes.io/dockerconfigjson\nstringData:\n  .dockerconfigjson: '{{\"auths\": {{\"{host}\": {{\"username\": \"{user}\", \"password\": \"{password}\"}}}}}}'\n"
    )
}

fn waiting(pod: &Value) -> (&str, &str) {
    let wait = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    (wait["reason"].as_str().unwrap_or_default(), wait["message"].as_str().unwrap_or_default())
}

fn events(daemon: &Daemon, name: &str) -> Result<Vec<(String, String)>> {
    let list = daemon.get("events")?;
    let of_pod = list["items"].as_array().into_iter().flatten().filter(|e| e["involvedObject"]["name"] == name);
    let text = |e: &Value, field: &str| e[field].as_str().unwrap_or_default().to_owned();
    Ok(of_pod.map(|e| (text(e, "reason"), text(e, "message"))).collect())
}

#[test]
fn images_are_pulled_with_the_credentials_they_need() -> Result<()> {
    for binary in &containerd::Binary::every()? {
        let lab = Lab::with(binary, 2)?;
        let (open, closed) = (&lab.network.outside[0], &lab.network.outside[1]);
        let public = Registry::start(&lab.home, open, None)?;
        let login = Login { user: "me".into(), password: "s3cret".into() };
        let private = Registry::start(&lab.home, closed, Some(login))?;
        public.introduce(&lab.containerd)?;
        private.introduce(&lab.containerd)?;
        let free = public.push(open, &image::workload(), "team/free", "1")?;
        let guarded = private.push(closed, &image::workload(), "team/guarded", "1")?;
        let daemon = lab.daemon(Options::default())?;
        let outcome = pulls(&daemon, &free, &guarded, &private.host());
        outcome.with_context(|| format!("on containerd {:?}; the daemon logged:\n{}", binary.version(), daemon.log()))?;
    }
    Ok(())
}

fn pulls(daemon: &Daemon, free: &str, guarded: &str, host: &str) -> Result<()> {
    daemon.apply("free.yaml", &pod("free", free, ""))?;
    daemon.apply("denied.yaml", &pod("denied", guarded, ""))?;
    daemon.wait_until_ready(("default", "free"), SOON)?;
    let told = events(daemon, "free")?;
    assert!(told.contains(&("Pulling".into(), format!("Pulling image \"{free}\""))), "{told:?}");
    let pulled = |(reason, message): &(String, String)| {
        reason == "Pulled" && message.starts_with(&format!("Successfully pulled image \"{free}\" in "))
    };
    assert!(told.iter().any(pulled), "{told:?}");
    let denied = daemon.wait_for_pod(("default", "denied"), "backing off", SOON, |p| waiting(p).0 == "ImagePullBackOff")?;
    assert!(waiting(&denied).1.starts_with(&format!("Back-off pulling image \"{guarded}\"")), "{denied:#}");
    // The wrong password is no better than none; the right one is.
    daemon.apply("wrong.yaml", &secret("wrong", host, "me", "guess"))?;
    daemon.apply("guessed.yaml", &pod("guessed", guarded, "  imagePullSecrets: [{ name: wrong }]\n"))?;
    daemon.wait_for_pod(("default", "guessed"), "refused", SOON, |p| matches!(waiting(p).0, "ErrImagePull" | "ImagePullBackOff"))?;
    daemon.apply("right.yaml", &secret("right", host, "me", "s3cret"))?;
    daemon.apply("granted.yaml", &pod("granted", guarded, "  imagePullSecrets: [{ name: right }]\n"))?;
    let granted = daemon.wait_for_pod(("default", "granted"), "ready", SOON, is_ready)?;
    assert_eq!(granted["status"]["containerStatuses"][0]["restartCount"], 0);
    Ok(())
}

#[test]
fn why_tells_how_far_a_pull_is() -> Result<()> {
    for binary in &containerd::Binary::every()? {
        let lab = Lab::with(binary, 1)?;
        let host = &lab.network.outside[0];
        let registry = Registry::start(&lab.home, host, None)?;
        registry.introduce(&lab.containerd)?;
        let mut root = Tar::default();
        // Bytes that do not compress, from a generator rather than from the machine.
        let noise: Vec<u8> = (0..LARGE / 32).flat_map(|n: u32| <[u8; 32]>::from(Sha256::digest(n.to_be_bytes()))).collect();
        root.file("noise", 0o644, &noise);
        let large = Archive::new("large", root.finish(), &Config::default());
        let name = registry.push(host, &large, "team/large", "1")?;
        // Three megabytes a second.
        host.namespace.run(&["tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "24mbit", "burst", "64kb", "latency", "100ms"])?;
        let daemon = lab.daemon(Options::default())?;
        daemon.apply("large.yaml", &pod("large", &name, ""))?;
        let said = wait_for("the pull's progress is told", SOON, || -> Result<_> {
            let said = daemon.cli(&["why", "pod/large"])?;
            ensure!(said.contains(&format!("container main: waiting for image {name}: pull ")) && said.contains(" MiB of "), "{said}");
            Ok(Some(said))
        });
        let said = said.with_context(|| format!("on containerd {:?}; the daemon logged:\n{}", binary.version(), daemon.log()))?;
        let words: Vec<&str> = said.split(' ').collect();
        let before_mib = words.windows(2).filter(|w| w[1].starts_with("MiB")).filter_map(|w| w[0].parse().ok());
        let numbers: Vec<u32> = before_mib.collect();
        assert!(numbers.len() == 2 && numbers[0] < numbers[1] && numbers[1] == LARGE / (1 << 20) + 1, "{said}");
    }
    Ok(())
}
