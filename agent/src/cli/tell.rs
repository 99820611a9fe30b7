//! `longshore describe`, `why`, `version` and `completion`.

use super::client::{Client, Socket};
use super::get::emit;
use super::resource::{self, Resource};
use super::{Cli, Fault, Scope};
use crate::api::resource::{EVENTS, PODS};
use crate::api::{EventObject, List, PodObject, query};
use crate::describe;
use crate::run::clock;
use crate::why::Why;
use clap::{Args, CommandFactory as _, ValueEnum};
use serde_json::Value;

/// Tell all about a pod: its containers, conditions, volumes and events
#[derive(Args)]
#[command(after_help = "Examples:
  longshore describe pod/web
  longshore describe pod web -n kube-system")]
pub struct Describe {
    /// pod/NAME..., or pod NAME...; without a name all pods of the namespace
    #[arg(required = true, value_name = "POD")]
    what: Vec<String>,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    socket: Socket,
}

impl Describe {
    pub async fn main(self) -> Result<(), Fault> {
        let client = Client::new(&self.socket);
        let (resource, mut names) = resource::target(&self.what)?;
        if resource != Resource::Pods {
            return Err("only pods can be described; try: longshore get KIND NAME -o yaml".into());
        }
        let path = PODS.path(Some(&self.scope.namespace));
        if names.is_empty() {
            let all: List<PodObject> = client.read(&path).await?;
            names = all.items.into_iter().map(|p| p.metadata.name).collect();
        }
        for (i, name) in names.iter().enumerate() {
            let pod: PodObject = client.read(&format!("{path}/{}", query::encode(name))).await?;
            let events: List<EventObject> = client.read(&EVENTS.path(Some(&self.scope.namespace))).await?;
            let about = |e: &EventObject| e.involved_object.name == *name && e.involved_object.uid == pod.metadata.uid;
            let events: Vec<EventObject> = events.items.into_iter().filter(about).collect();
            let gap = if i > 0 { "\n\n" } else { "" };
            emit(&format!("{gap}{}", describe::pod(&pod, &events, clock::now().wall)))?;
        }
        Ok(())
    }
}

/// Tell why a pod is as it is: what it waits for, what fails, what is being done about it
#[derive(Args)]
#[command(after_help = "Examples:
  longshore why pod/web
  longshore why web -n kube-system")]
pub struct WhyCommand {
    /// pod/NAME or NAME
    #[arg(value_name = "POD")]
    pod: String,
    #[command(flatten)]
    scope: Scope,
    /// Print JSON
    #[arg(short, long, value_parser = ["json"], value_name = "FORMAT")]
    output: Option<String>,
    #[command(flatten)]
    socket: Socket,
}

impl WhyCommand {
    pub async fn main(self) -> Result<(), Fault> {
        let client = Client::new(&self.socket);
        let pod = resource::pod_name(&self.pod)?;
        let (namespace, name) = (query::encode(&self.scope.namespace), query::encode(&pod));
        let path = format!("/longshore/v1/why/namespaces/{namespace}/pods/{name}");
        if self.output.is_some() {
            let v: Value = client.read(&path).await?;
            return emit(&format!("{v:#}\n"));
        }
        let why: Why = client.read(&path).await?;
        let mut out = format!("pod {}/{}: {}\n", why.namespace, why.name, why.summary);
        for r in &why.reasons {
            out.push_str(&format!("  {r}\n"));
        }
        if why.reasons.is_empty() {
            out.push_str("  nothing waits and nothing fails\n");
        }
        emit(&out)
    }
}

/// Tell the versions of this program and of the daemon
#[derive(Args)]
pub struct Version {
    #[command(flatten)]
    socket: Socket,
}

impl Version {
    pub async fn main(self) -> Result<(), Fault> {
        emit(&format!("Client: longshore {} (Kubernetes {})\n", env!("CARGO_PKG_VERSION"), crate::KUBERNETES_VERSION))?;
        let v: Value = Client::new(&self.socket).read::<Value>("/longshore/v1/version").await?;
        let text = |k: &str| v[k].as_str().unwrap_or("?").to_owned();
        let (version, kubernetes, node) = (text("version"), text("kubernetes"), text("node"));
        emit(&format!("Daemon: longshore {version} (Kubernetes {kubernetes}) on node {node}, process {}\n", v["pid"]))
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Print a script that completes commands in a shell
#[derive(Args)]
#[command(after_help = "Examples:
  longshore completion bash > /etc/bash_completion.d/longshore
  longshore completion zsh > \"${fpath[1]}/_longshore\"")]
pub struct Completion {
    shell: Shell,
}

impl Completion {
    pub fn main(&self) -> Result<(), Fault> {
        let shell = match self.shell {
            Shell::Bash => clap_complete::Shell::Bash,
            Shell::Zsh => clap_complete::Shell::Zsh,
            Shell::Fish => clap_complete::Shell::Fish,
        };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "longshore", &mut script);
        emit(&String::from_utf8_lossy(&script))
    }
}
