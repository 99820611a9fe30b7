//! `longshore logs`.

use super::client::{Client, ClientError, Socket};
use super::{Fault, Scope, resource};
use crate::api::resource::PODS;
use crate::api::{PodObject, Query, query};
use clap::Args;
use http_body_util::BodyExt as _;
use std::io::Write as _;
use std::time::Duration;

/// The annotation that names the container which commands mean when none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Show what a container has written
#[derive(Args)]
#[command(after_help = "Examples:
  longshore logs web                          all there is of the current run
  longshore logs -f --tail 20 web -c main     the last lines, and what comes, over restarts
  longshore logs -p web                       of the run before a restart
  longshore logs --since 5m --timestamps web  of the last five minutes")]
pub struct Logs {
    /// POD or pod/POD
    #[arg(value_name = "POD")]
    pod: String,
    #[command(flatten)]
    scope: Scope,
    /// Container of the pod; the first unless named
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Go on with what comes, until the container is done for good
    #[arg(short, long)]
    follow: bool,
    /// The run before the last restart
    #[arg(short, long)]
    previous: bool,
    /// Only the last lines; -1: all
    #[arg(long, value_name = "LINES", allow_hyphen_values = true)]
    tail: Option<i64>,
    /// Only lines younger than this: 30s, 5m, 2h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
    /// Only lines from this time on (RFC 3339)
    #[arg(long, value_name = "TIME", conflicts_with = "since")]
    since_time: Option<String>,
    /// Each line with its time in front
    #[arg(long)]
    timestamps: bool,
    /// Bytes at most
    #[arg(long, value_name = "N")]
    limit_bytes: Option<u64>,
    #[command(flatten)]
    socket: Socket,
}

impl Logs {
    pub async fn main(self) -> Result<(), Fault> {
        let client = Client::new(&self.socket);
        let pod = resource::pod_name(&self.pod)?;
        let namespace = &self.scope.namespace;
        let container = match self.container {
            Some(c) => c,
            None => default_container(&client, namespace, &pod, false).await?,
        };
        let mut q = Query::default();
        q.push("container", container);
        for (name, on) in [("follow", self.follow), ("previous", self.previous), ("timestamps", self.timestamps)] {
            if on {
                q.push(name, on);
            }
        }
        if let Some(n) = self.tail.filter(|n| *n >= 0) {
            q.push("tailLines", n);
        }
        if let Some(d) = self.since {
            q.push("sinceSeconds", d.as_secs_f64().ceil());
        }
        if let Some(t) = self.since_time {
            q.push("sinceTime", t);
        }
        if let Some(n) = self.limit_bytes {
            q.push("limitBytes", n);
        }
        let path = format!("{}/{}/log", PODS.path(Some(namespace)), query::encode(&pod));
        let mut body = client.open(&path, &q).await?.into_body();
        let mut out = std::io::stdout().lock();
        while let Some(frame) = body.frame().await {
            let bytes = frame.map_err(ClientError::from)?.into_data().unwrap_or_default();
            match out.write_all(&bytes).and_then(|()| out.flush()) {
                Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => return Err(Fault::quiet(0)),
                Err(e) => return Err(format!("cannot write: {e}").into()),
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

/// The container that is meant when none is named: by annotation, or the first. Tells which where there are several.
pub(super) async fn default_container(client: &Client, namespace: &str, pod: &str, quiet: bool) -> Result<String, Fault> {
    let path = format!("{}/{}", PODS.path(Some(namespace)), query::encode(pod));
    let p: PodObject = client.read(&path).await?;
    let all: Vec<&str> = p.spec.containers.iter().chain(&p.spec.init_containers).map(|c| c.name.as_str()).collect();
    let named = p.metadata.annotations.get(DEFAULT_CONTAINER).filter(|n| all.contains(&n.as_str()));
    if let Some(n) = named {
        return Ok(n.clone());
    }
    let first = all.first().ok_or_else(|| Fault::from(format!("pod {pod} has no containers")))?;
    if all.len() > 1 && !quiet {
        let init = p.spec.init_containers.iter().map(|c| format!("{} (init)", c.name));
        let names: Vec<String> = p.spec.containers.iter().map(|c| c.name.clone()).chain(init).collect();
        eprintln!("Defaulted container {first:?} out of: {}", names.join(", "));
    }
    Ok((*first).to_owned())
}

/// `90`, `30s`, `1h30m`, `250ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no span of time such as 30s, 5m or 1h30m");
    if let Ok(n) = text.parse::<u32>() {
        return Ok(Duration::from_secs(n.into()));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|n| *n > 0).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let seconds = match &tail[..unit] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        let n: f64 = number.parse().map_err(|_| wrong())?;
        total += Duration::try_from_secs_f64(n * seconds).map_err(|_| wrong())?;
        rest = &tail[unit..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_are_read_as_go_reads_them() {
        let s = |n| Ok(Duration::from_millis(n));
        assert_eq!(
            [duration("90"), duration("30s"), duration("1h30m"), duration("1.5m"), duration("250ms")],
            [s(90_000), s(30_000), s(5_400_000), s(90_000), s(250)]
        );
        for wrong in ["", "5x", "s", "-5s", "5m3"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
