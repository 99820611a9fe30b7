//! From a pod's readiness to its service's answer, with a real connection as the clock.

use super::journal::Journal;
use super::{line, median, ms};
use anyhow::{Context, Result, ensure};
use longshore_tests::lab::daemon::is_ready;
use longshore_tests::lab::wait::wait_for;
use longshore_tests::lab::{Daemon, Lab, image};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const SAMPLES: usize = 10;
/// How long one attempt to connect may take.
const PATIENCE: Duration = Duration::from_millis(20);
const SOON: Duration = Duration::from_secs(30);
const SERVICE: &str = "10.96.1.80:80";

fn manifests() -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: web }}
spec: {{ clusterIP: 10.96.1.80, selector: {{ app: web }}, ports: [{{ port: 80, targetPort: 8080 }}] }}
---
apiVersion: v1
kind: Pod
metadata: {{ name: web, labels: {{ app: web }} }}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: {}
    imagePullPolicy: IfNotPresent
    args: [serve-http]
    readinessProbe: {{ httpGet: {{ path: /healthz, port: 8080 }}, periodSeconds: 1, failureThreshold: 1 }}
",
        image::WORKLOAD
    )
}

pub fn measure(lab: &Lab, daemon: &Daemon) -> Result<()> {
    daemon.apply("web.yaml", &manifests())?;
    let pod = daemon.wait_until_ready(("default", "web"), SOON)?;
    let ip = pod["status"]["podIP"].as_str().context("no address")?;
    let (own, service): (SocketAddr, SocketAddr) = (format!("{ip}:8080").parse()?, SERVICE.parse()?);
    let client = &lab.network.outside[0].namespace;
    let answers = || client.enter(|| TcpStream::connect_timeout(&service, Duration::from_secs(1)).is_ok());
    let mut lags = Vec::new();
    for _ in 0..SAMPLES {
        let mut journal = Journal::tail(daemon)?;
        client.get(own, "/unhealthy", SOON)?;
        // One attempt that fails is no sign that the probe has failed.
        journal.wait("not Ready", |r| r["status"].is_object() && !is_ready(r))?;
        wait_for("the service refuses", SOON, || -> Result<_> { Ok((!answers()?).then_some(())) })?;
        client.get(own, "/healthy", SOON)?;
        let (ready, answered) = std::thread::scope(|scope| -> Result<(Instant, Instant)> {
            let connecting = scope.spawn(|| {
                client.enter(|| {
                    let began = Instant::now();
                    // Refusals are rationed by the kernel: a packet that was not refused would be sent again after a second.
                    while TcpStream::connect_timeout(&service, PATIENCE).is_err() && began.elapsed() < SOON {
                        std::thread::sleep(Duration::from_micros(500));
                    }
                    Instant::now()
                })
            });
            let ready = journal.wait("Ready", is_ready)?;
            let answered = connecting.join().ok().context("the client panicked")??;
            Ok((ready, answered))
        })?;
        ensure!(answered.saturating_duration_since(ready) < SOON, "the service does not answer");
        lags.push(answered.saturating_duration_since(ready));
    }
    lags.sort();
    line("readiness to answer of the service, median", ms(median(&lags)), "");
    line("readiness to answer of the service, longest", ms(*lags.last().context("some")?), "50 ms");
    daemon.remove("web.yaml")
}
