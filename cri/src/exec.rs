//! Commands in containers: to the end, or as the address of a stream.
//!
//! Owns the calls. Must never relay a stream itself: the runtime's streaming server does the
//! talking. Tests: `tests/client.rs`.

use std::time::Duration;

use crate::client::{Client, call};
use crate::error::{Error, Verb};
use crate::v1;

/// What a finished command left behind. A non-zero exit code is a result, not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit_code: i32,
}

/// Which of a command's streams are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    /// Must be false with `tty`, where the two outputs are one.
    pub stderr: bool,
    pub tty: bool,
}

impl Client {
    /// Runs a command to its end. Without `timeout` there is no deadline at all, as for lifecycle
    /// hooks; a command that overruns it fails as `Timeout`.
    pub async fn exec_sync(&self, container_id: &str, command: &[String], timeout: Option<Duration>) -> Result<Output, Error> {
        // The interface counts whole seconds and reads 0 as "none".
        let seconds = timeout.map_or(0, |t| t.as_secs_f64().ceil().max(1.0) as i64);
        let message = v1::ExecSyncRequest { container_id: container_id.into(), cmd: command.to_vec(), timeout: seconds };
        let deadline = timeout.map(|t| t.saturating_add(self.request_timeout));
        let verb = Verb::ExecSync;
        let answer = call!(self.runtime, exec_sync, verb, container_id, deadline, message)?;
        Ok(Output { stdout: answer.stdout, stderr: answer.stderr, exit_code: answer.exit_code })
    }

    /// Address of a stream that runs `command`.
    pub async fn exec_url(&self, container_id: &str, command: &[String], streams: Streams) -> Result<String, Error> {
        let message = v1::ExecRequest {
            container_id: container_id.into(),
            cmd: command.to_vec(),
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
        };
        let (verb, id) = (Verb::Exec, container_id);
        let answer = call!(self.runtime, exec, verb, id, self.usual(), message)?;
        address(verb, id, answer.url)
    }

    /// Address of a stream to the container's own process.
    pub async fn attach_url(&self, container_id: &str, streams: Streams) -> Result<String, Error> {
        let message = v1::AttachRequest {
            container_id: container_id.into(),
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
        };
        let (verb, id) = (Verb::Attach, container_id);
        let answer = call!(self.runtime, attach, verb, id, self.usual(), message)?;
        address(verb, id, answer.url)
    }

    /// Address of a stream to ports of the sandbox.
    pub async fn port_forward_url(&self, sandbox_id: &str, ports: &[u16]) -> Result<String, Error> {
        let message = v1::PortForwardRequest { pod_sandbox_id: sandbox_id.into(), port: ports.iter().map(|p| i32::from(*p)).collect() };
        let (verb, id) = (Verb::PortForward, sandbox_id);
        let answer = call!(self.runtime, port_forward, verb, id, self.usual(), message)?;
        address(verb, id, answer.url)
    }
}

fn address(verb: Verb, object: &str, url: String) -> Result<String, Error> {
    if url.is_empty() {
        return Err(Error::malformed(verb, object, "URL is not set"));
    }
    Ok(url)
}
