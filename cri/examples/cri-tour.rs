//! A tour of a container runtime: what it is, what it runs, and, given an image with a shell, the
//! life of one pod from sandbox to removal.
//!
//! ```text
//! cargo run -p longshore-cri --example cri-tour -- /run/containerd/containerd.sock
//! cargo run -p longshore-cri --example cri-tour -- /run/containerd/containerd.sock busybox:latest
//! ```
//!
//! The pod uses the host's network and is removed again, whatever happens.

use std::time::{Duration, Instant};

use longshore_cri::client::Config;
use longshore_cri::container_config::{ContainerSpec, Image};
use longshore_cri::events::ContainerEvent;
use longshore_cri::exit_watch::ExitWatch;
use longshore_cri::labels::{PodIdentity, container_hash};
use longshore_cri::resources::Resources;
use longshore_cri::sandbox_config::SandboxSpec;
use longshore_cri::{Client, ContainerState, Error, ObservedPod};
use tokio::sync::mpsc;

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: cri-tour SOCKET [IMAGE [CGROUP-PARENT]]";
    let socket = arguments.next().ok_or(usage)?;
    let image = arguments.next();
    let cgroup_parent = arguments.next().unwrap_or_default();

    let client = Client::new(&Config::new(&socket))?;
    introduce(&client).await?;
    list(&client).await?;
    let Some(image) = image else { return Ok(()) };

    let mut pod = SandboxSpec::new(PodIdentity::new("cri-tour", "default", "cri-tour"));
    pod.namespaces.host_network = true;
    pod.cgroup_parent = cgroup_parent;
    let logs = std::env::temp_dir().join(format!("cri-tour-{}", std::process::id()));
    // Fails if somebody else made it first.
    std::fs::create_dir(&logs)?;
    std::fs::create_dir(logs.join("shell"))?;
    pod.log_directory = logs.to_string_lossy().into_owned();

    let outcome = live(&client, &pod, &image).await;
    clean_up(&client).await?;
    std::fs::remove_dir_all(&logs)?;
    println!("removed     {}", client.observe("cri-tour", None).await?.is_none());
    outcome
}

async fn introduce(client: &Client) -> Outcome {
    let v = client.version().await?;
    println!("runtime     {} {} ({})", v.runtime_name, v.runtime_version, v.runtime_api_version);
    let status = client.status().await?;
    for c in status.status.unwrap_or_default().conditions {
        println!("condition   {}={} {} {}", c.r#type, c.status, c.reason, c.message);
    }
    println!("features    {:?}", status.features);
    match client.runtime_config().await {
        Ok(driver) => println!("cgroups     {driver:?}"),
        Err(e) if e.is_unimplemented() => println!("cgroups     the runtime does not say"),
        Err(e) => return Err(e.into()),
    }
    for f in client.image_fs_info().await?.image_filesystems {
        let at = f.fs_id.map(|id| id.mountpoint).unwrap_or_default();
        println!("images in   {at}, {} bytes", f.used_bytes.map_or(0, |b| b.value));
    }
    for image in client.list_images().await? {
        println!("image       {:?} {} bytes", image.repo_tags, image.size);
    }
    Ok(())
}

async fn list(client: &Client) -> Outcome {
    let begin = Instant::now();
    let relist = client.list_all(&[]).await?;
    println!("pods        {} in {:?}", relist.pods.len(), begin.elapsed());
    let begin = Instant::now();
    client.list_all(&relist.pods).await?;
    println!("idle relist {:?}", begin.elapsed());
    for pod in &relist.pods {
        let running = pod.running().count();
        println!("pod         {}/{} {running} running", pod.namespace, pod.name);
    }
    Ok(())
}

async fn live(client: &Client, pod: &SandboxSpec, image: &str) -> Outcome {
    let wanted = Image::named(image);
    let id = match client.image_status(&wanted).await? {
        Some(present) => present.id,
        None => client.pull(&wanted, None, Some(pod)).await?,
    };
    let events = follow_events(client);

    let sandbox = timed("sandbox", client.run_sandbox(pod)).await?;
    let mut spec = ContainerSpec::new(pod.pod.clone(), "shell", Image { image_ref: id, user_specified: image.into(), ..Image::default() });
    // Ends by itself once the tour asks it to.
    spec.command = ["/bin/sh", "-c", "echo hello; until [ -e /done ]; do sleep 0.1; done; exit 3"].map(str::to_owned).into();
    spec.facts.hash = Some(container_hash("shell", image));
    spec.facts.crash_streak = Some(0);
    spec.namespaces = pod.namespaces.clone();
    spec.resources = Resources { oom_score_adj: 1000, ..Resources::default().cpu(Some(10), None, 100_000) };
    let container = timed("create", client.create(&sandbox, &spec, pod)).await?;
    timed("start", client.start(&container)).await?;

    let seen = timed("observe", client.observe("cri-tour", None)).await?.ok_or("no pod")?;
    describe(&seen);
    let shell = seen.container("shell").ok_or("no container")?;
    let (exited, mut exits) = mpsc::channel(1);
    let mut watch = ExitWatch::new(exited);
    if let (Some(pid), ContainerState::Running { started_at }) = (shell.pid, &shell.state) {
        println!("watch       {:?}", watch.watch(&container, pid, *started_at)?);
    }

    let id = ["/bin/sh", "-c", "id -u; exit 7"].map(str::to_owned);
    let output = timed("exec", client.exec_sync(&container, &id, Some(Duration::from_secs(5)))).await?;
    println!("            {:?}", output);
    let slow = ["/bin/sh", "-c", "sleep 20"].map(str::to_owned);
    match timed("slow exec", client.exec_sync(&container, &slow, Some(Duration::from_secs(1)))).await {
        Err(e) => println!("            {:?}: {e}", e.kind),
        Ok(o) => println!("            {o:?}, although it should have timed out"),
    }
    match client.create(&sandbox, &spec, pod).await {
        Err(e) => println!("twice       {:?}: {e}", e.kind),
        Ok(id) => println!("twice       {id}, although the name is taken"),
    }

    let done = ["/bin/sh", "-c", "touch /done"].map(str::to_owned);
    client.exec_sync(&container, &done, None).await?;
    let exit = tokio::time::timeout(Duration::from_secs(10), exits.recv()).await?;
    let begin = Instant::now();
    let known = client.await_exit(&container, Duration::from_secs(10)).await?;
    println!("exit        seen for {exit:?}; known to the runtime: {known} {:?} later", begin.elapsed());
    describe(&client.observe("cri-tour", Some(&seen)).await?.ok_or("no pod")?);
    println!("log         {:?}", std::fs::read_to_string(&*shell.log_path)?);
    events.abort();
    Ok(())
}

fn follow_events(client: &Client) -> tokio::task::JoinHandle<()> {
    let (to, mut events) = mpsc::channel::<ContainerEvent>(16);
    let client = client.clone();
    tokio::spawn(async move {
        let print = async {
            while let Some(e) = events.recv().await {
                println!("event       {:?} {:.12} of {:?}", e.kind, e.container_id, e.pod_uid);
            }
        };
        let (ended, ()) = tokio::join!(client.forward_events(to), print);
        if let Err(e) = ended {
            println!("events      {:?}: {e}", e.kind);
        }
    })
}

async fn timed<T>(what: &str, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let begin = Instant::now();
    let result = call.await;
    println!("{what:<11} {:?}", begin.elapsed());
    result
}

fn describe(pod: &ObservedPod) {
    for s in &pod.sandboxes {
        println!("sandbox     {:.12} ready={} ips={:?}", s.id, s.ready, s.ips);
        println!("            host network={} cgroup={:?}", s.host_network, s.cgroup_parent);
    }
    for c in &pod.containers {
        println!("container   {:.12} {} {:?} pid={:?}", c.id, c.name, c.state, c.pid);
        println!("            image={} ref={} id={}", c.image, c.image_ref, c.image_id);
        println!("            user={:?} resources={:?}", c.user, c.resources);
        println!("            {:?}", c.facts);
    }
}

async fn clean_up(client: &Client) -> Outcome {
    let Some(pod) = client.observe("cri-tour", None).await? else { return Ok(()) };
    for s in &pod.sandboxes {
        timed("stop", client.stop_sandbox(&s.id)).await?;
        timed("remove", client.remove_sandbox(&s.id)).await?;
    }
    Ok(())
}
