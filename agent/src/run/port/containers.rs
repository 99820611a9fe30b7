//! What is done in containers: logs, commands, streams, checkpoints.

use super::Port;
use crate::api::{Failure, Query};
use crate::log::Wish;
use crate::port::route::Found;
use crate::port::streams;
use crate::run::api::{Answer, json};
use crate::run::clock;
use crate::run::server::PodRef;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use longshore_cri::error::Kind;
use std::os::unix::fs::DirBuilderExt as _;
use std::rc::Rc;

/// No checkpoint is begun while less than this part of the disk is free: memory of containers goes there.
const FREE_PART: u64 = 10;

fn pod(found: &Found) -> PodRef {
    PodRef { namespace: found.namespace.clone(), name: found.pod.clone(), uid: found.uid.clone() }
}

impl Port {
    pub(super) async fn container_logs(self: Rc<Self>, found: Found, query: &Query) -> Answer {
        let wish = Wish::parse(query, clock::now().wall)?;
        self.exists(&found).await?;
        // A kubelet's stream ends with the container, whatever comes after it.
        self.server.clone().log_of(pod(&found), found.container, wish, false).await
    }

    /// Which of the two names is wrong, as a kubelet tells it.
    async fn exists(&self, found: &Found) -> Result<(), Failure> {
        let (at, container) = (pod(found), found.container.clone());
        let there = self.server.ask(move |n, _| at.find(n).map(|e| e.desired.pod.container(&container).is_some())).await?;
        let told = |message: String| Failure::new(404, "NotFound", message);
        match there {
            Err(_) => Err(told(format!("pod {:?} does not exist", found.pod))),
            Ok(false) => Err(told(format!("container {:?} not found in pod {:?}", found.container, found.pod))),
            Ok(true) => Ok(()),
        }
    }

    async fn has_pod(&self, found: &Found) -> Result<(), Failure> {
        let at = pod(found);
        let there = self.server.ask(move |n, _| at.find(n).is_ok()).await?;
        if there { Ok(()) } else { Err(Failure::new(404, "NotFound", "pod does not exist")) }
    }

    pub(super) async fn exec(self: Rc<Self>, found: Found, query: &Query, request: Request<Incoming>) -> Answer {
        self.has_pod(&found).await?;
        let (at, command) = (pod(&found), query.all("command"));
        self.server.clone().exec_in(at, found.container, command, Ok(streams::streams(query)), request).await
    }

    pub(super) async fn attach(self: Rc<Self>, found: Found, query: &Query, request: Request<Incoming>) -> Answer {
        self.has_pod(&found).await?;
        let at = pod(&found);
        self.server.clone().attach_to(at, found.container, Ok(streams::streams(query)), request).await
    }

    pub(super) async fn port_forward(self: Rc<Self>, found: Found, query: &Query, request: Request<Incoming>) -> Answer {
        self.has_pod(&found).await?;
        self.server.clone().forward_to(pod(&found), query, request).await
    }

    /// Runs a command to its end, for as long as the client waits.
    pub(super) async fn run(self: Rc<Self>, found: Found, query: &Query) -> Answer {
        let command = streams::command(query);
        if command.is_empty() {
            return Err(Failure::bad_request("you must specify a command to run: cmd=..."));
        }
        self.has_pod(&found).await?;
        let id = self.server.running(pod(&found), found.container).await?;
        let done = self.server.client.exec_sync(&id, &command, None).await;
        let done = done.map_err(|e| Failure::internal(format!("the runtime does not run the command: {e}")))?;
        let mut said = done.stdout;
        said.extend_from_slice(&done.stderr);
        match done.exit_code {
            0 => Ok(super::text(StatusCode::OK, said)),
            code => {
                let (command, said) = (command.join(" "), String::from_utf8_lossy(&said));
                Err(Failure::internal(format!("command '{command}' exited with {code}: {said}")))
            }
        }
    }

    /// Writes a container's memory to disk: one at a time, never onto a disk that is nearly full.
    pub(super) async fn checkpoint(self: Rc<Self>, found: Found, query: &Query) -> Answer {
        let timeout = query.number("timeout")?.unwrap_or(0);
        self.exists(&found).await?;
        let id = self.server.running(pod(&found), found.container.clone()).await?;
        let busy = |_| Failure::new(429, "TooManyRequests", "another checkpoint is under way");
        let _turn = self.checkpoint.try_acquire().map_err(busy)?;
        let directory = self.root_dir.join("checkpoints");
        let broken = |e: &dyn std::fmt::Display| Failure::internal(format!("checkpoints in {}: {e}", directory.display()));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(|e| broken(&e))?;
        let disk = rustix::fs::statvfs(&directory).map_err(|e| broken(&e))?;
        if disk.f_bavail < disk.f_blocks / FREE_PART {
            return Err(Failure::new(
                507,
                "InsufficientStorage",
                format!("less than {FREE_PART} % of the disk is free: no checkpoint is made"),
            ));
        }
        // Names of the API hold no slash.
        let time = clock::now().wall.rfc3339();
        let archive = directory.join(format!("checkpoint-{}_{}-{}-{time}.tar", found.pod, found.namespace, found.container));
        let made = self.server.client.checkpoint(&id, &archive, i64::try_from(timeout).unwrap_or(i64::MAX)).await;
        match made {
            Ok(()) => Ok(json(&serde_json::json!({"items": [archive]}))),
            Err(e) if e.kind == Kind::Unimplemented => Err(Failure::new(404, "NotFound", format!("the runtime makes no checkpoints: {e}"))),
            Err(e) => {
                let (pod, namespace, container) = (&found.pod, &found.namespace, &found.container);
                Err(Failure::internal(format!("checkpointing of {namespace}/{pod}/{container} failed ({e})")))
            }
        }
    }
}
