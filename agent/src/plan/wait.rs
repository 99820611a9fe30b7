//! Why something is not done yet, as data. Rendered by `longshore why` and by container statuses.

use crate::time::{Mono, Now, go_duration};
use std::fmt::Write as _;
use std::time::Duration;

/// One thing that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The container that waits; empty: the whole pod.
    pub container: Box<str>,
    pub reason: WaitReason,
    /// When to look again; None: when something changes.
    pub until: Option<Mono>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// Crashed and backing off.
    BackOff {
        exit_code: i32,
        streak: u32,
        delay: Duration,
    },
    ImageCheck {
        image: Box<str>,
    },
    ImagePull {
        image: Box<str>,
    },
    /// A pull failed a moment ago.
    PullFailed {
        reason: Box<str>,
        message: Box<str>,
    },
    ImageBackOff {
        image: Box<str>,
        message: Box<str>,
    },
    NeverPull {
        image: Box<str>,
    },
    InvalidImage {
        message: Box<str>,
    },
    /// Its configuration cannot be made.
    Config {
        message: Box<str>,
    },
    StartFailed {
        reason: Box<str>,
        message: Box<str>,
    },
    /// Init containers are not done.
    Initializing {
        on: Box<str>,
    },
    /// A sidecar must have started before the next container may.
    SidecarNotStarted {
        sidecar: Box<str>,
    },
    Network {
        message: Box<str>,
    },
    Host {
        message: Box<str>,
    },
    /// Containers of an ending pod are still stopping.
    Stopping,
    /// Must never run again: policy and exit code.
    Done,
}

impl Wait {
    pub fn pod(reason: WaitReason, until: Option<Mono>) -> Wait {
        Wait { container: "".into(), reason, until }
    }

    pub fn container(name: &str, reason: WaitReason, until: Option<Mono>) -> Wait {
        Wait { container: name.into(), reason, until }
    }

    /// Waiting reason and message of the container's status, where the API shows one for this wait.
    pub fn api_reason(&self, pod_full_name: &str) -> Option<(String, String)> {
        let name = &self.container;
        Some(match &self.reason {
            WaitReason::BackOff { delay, .. } => (
                "CrashLoopBackOff".into(),
                format!("back-off {} restarting failed container={name} pod={pod_full_name}", go_duration(*delay)),
            ),
            WaitReason::PullFailed { reason, message } => (reason.to_string(), message.to_string()),
            WaitReason::ImageBackOff { image, message } => {
                let detail = if message.is_empty() { String::new() } else { format!(": ErrImagePull: {message}") };
                ("ImagePullBackOff".into(), format!("Back-off pulling image {image:?}{detail}"))
            }
            WaitReason::NeverPull { image } => {
                ("ErrImageNeverPull".into(), format!("Container image {image:?} is not present with pull policy of Never"))
            }
            WaitReason::InvalidImage { message } => ("InvalidImageName".into(), message.to_string()),
            WaitReason::Config { message } => ("CreateContainerConfigError".into(), message.to_string()),
            WaitReason::StartFailed { reason, message } => (reason.to_string(), message.to_string()),
            _ => return None,
        })
    }

    /// The sentence that `longshore why` prints.
    pub fn sentence(&self, now: Now) -> String {
        let mut out = if self.container.is_empty() { String::from("pod: ") } else { format!("container {}: ", self.container) };
        let rest = self.until.map(|u| Duration::from_secs((u - now.mono).as_secs_f64().ceil() as u64));
        let after = |out: &mut String, verb: &str| {
            if let Some(d) = rest {
                let _ = write!(out, "{verb} in {}: ", go_duration(d));
            }
        };
        match &self.reason {
            WaitReason::BackOff { exit_code, streak, delay } => {
                after(&mut out, "restarting");
                let _ =
                    write!(out, "exited {exit_code} for the {} time, back-off {}", ordinal(streak.saturating_add(1)), go_duration(*delay));
            }
            WaitReason::ImageCheck { image } => out.push_str(&format!("looking for image {image}")),
            WaitReason::ImagePull { image } => out.push_str(&format!("waiting for image {image}")),
            WaitReason::PullFailed { reason, message } => out.push_str(&format!("{reason}: {message}")),
            WaitReason::ImageBackOff { image, message } => {
                after(&mut out, "pulling again");
                out.push_str(&format!("image {image}: {message}"));
            }
            WaitReason::NeverPull { image } => out.push_str(&format!("image {image} is not on this node and its pull policy is Never")),
            WaitReason::InvalidImage { message } | WaitReason::Config { message } => out.push_str(message),
            WaitReason::StartFailed { reason, message } => {
                after(&mut out, "trying again");
                out.push_str(&format!("{reason}: {message}"));
            }
            WaitReason::Initializing { on } => out.push_str(&format!("waiting for init container {on}")),
            WaitReason::SidecarNotStarted { sidecar } => out.push_str(&format!("waiting for sidecar {sidecar} to have started")),
            WaitReason::Network { message } => out.push_str(&format!("the runtime's network is not ready: {message}")),
            WaitReason::Host { message } => {
                after(&mut out, "trying again");
                out.push_str(message);
            }
            WaitReason::Stopping => out.push_str("stopping its containers"),
            WaitReason::Done => out.push_str("ended and does not run again"),
        }
        out
    }
}

fn ordinal(n: u32) -> String {
    let suffix = match (n % 10, n % 100) {
        (1, x) if x != 11 => "st",
        (2, x) if x != 12 => "nd",
        (3, x) if x != 13 => "rd",
        _ => "th",
    };
    format!("{n}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Mono, Wall};

    #[test]
    fn a_wait_reads_as_a_sentence() {
        let now = Now { mono: Mono(Duration::from_secs(100)), wall: Wall::default() };
        let back_off = WaitReason::BackOff { exit_code: 1, streak: 2, delay: Duration::from_secs(40) };
        let w = Wait::container("web", back_off, Some(Mono(Duration::from_millis(136_500))));
        assert_eq!(w.sentence(now), "container web: restarting in 37s: exited 1 for the 3rd time, back-off 40s");
        let (reason, message) = w.api_reason("web_default(1-2-3)").unwrap();
        assert_eq!(
            (reason.as_str(), message.as_str()),
            ("CrashLoopBackOff", "back-off 40s restarting failed container=web pod=web_default(1-2-3)")
        );
    }

    #[test]
    fn ordinals_are_english() {
        assert_eq!([1, 2, 3, 4, 11, 12, 13, 21, 112].map(ordinal), ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "112th"]);
    }
}
