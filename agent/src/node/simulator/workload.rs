//! Random pods and how their processes behave.

use super::Random;
use crate::pod::{Container, ContainerRestartPolicy, ImagePullPolicy, Pod, RestartPolicy};
use longshore_cri::fake::{Behaviour, Subject};

/// What a container's process does, as far as the laws care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Does {
    Runs,
    Succeeds,
    Fails,
}

pub(super) struct Planned {
    pub pod: Pod,
    /// In the order of `Pod::containers`.
    pub does: Vec<Does>,
    pub scripts: Vec<(Subject, Behaviour)>,
}

/// The `n`-th pod of a world.
pub(super) fn pod(r: &mut Random, n: u64) -> Planned {
    let mut pod = Pod::default();
    pod.metadata.name = format!("pod-{n}");
    pod.metadata.namespace = "default".into();
    pod.metadata.uid = format!("00000000-0000-0000-0000-{n:012}");
    pod.spec.restart_policy = [RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::Never][r.below(3) as usize];
    pod.spec.termination_grace_period_seconds = [0, 1, 5, 30][r.below(4) as usize];
    pod.spec.host_network = r.chance(10);
    let mut planned = Planned { pod, does: Vec::new(), scripts: Vec::new() };
    for i in 0..r.below(3) {
        let sidecar = r.chance(35);
        let does = if sidecar { Does::Runs } else { [Does::Succeeds, Does::Succeeds, Does::Succeeds, Does::Fails][r.below(4) as usize] };
        let mut c = container(r, &format!("init-{n}-{i}"), does, &mut planned);
        c.restart_policy = sidecar.then_some(ContainerRestartPolicy::Always);
        planned.pod.spec.init_containers.push(c);
    }
    for i in 0..1 + r.below(3) {
        let does = [Does::Runs, Does::Runs, Does::Succeeds, Does::Fails][r.below(4) as usize];
        let c = container(r, &format!("main-{n}-{i}"), does, &mut planned);
        planned.pod.spec.containers.push(c);
    }
    planned
}

fn container(r: &mut Random, name: &str, does: Does, planned: &mut Planned) -> Container {
    let after = 1 + r.below(3000) as i64;
    let behaviour = match does {
        Does::Runs if r.chance(25) => Behaviour::ignores_term(),
        Does::Runs if r.chance(25) => Behaviour::ends_on_term(r.below(8000) as i64, 0),
        Does::Runs => Behaviour::default(),
        Does::Succeeds => Behaviour::exits(after, 0),
        Does::Fails if r.chance(20) => Behaviour::out_of_memory(after),
        Does::Fails => Behaviour::exits(after, 1 + r.below(3) as i32),
    };
    planned.scripts.push((Subject::Container { pod: planned.pod.metadata.name.clone(), container: name.to_owned() }, behaviour));
    planned.does.push(does);
    let policy = [ImagePullPolicy::Always, ImagePullPolicy::IfNotPresent, ImagePullPolicy::Never][r.below(3) as usize];
    Container {
        name: name.into(),
        image: format!("localhost/image-{}:1", r.below(3)),
        image_pull_policy: Some(policy),
        ..Container::default()
    }
}
