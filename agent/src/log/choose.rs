//! Which run of a container a client means.

use crate::api::Failure;
use crate::pod::Pod;
use crate::pod::status::{ContainerStatus, PodStatus};

/// The id of the wanted container, without the runtime's name in front. With `previous` the last run that ended.
/// An empty name is fine where the pod has one container.
pub fn choose(pod: &Pod, status: &PodStatus, container: &str, previous: bool) -> Result<(String, String), Failure> {
    let name = named(pod, container)?;
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).chain(&status.ephemeral_container_statuses);
    let found = all.into_iter().find(|c| c.name == name);
    let pod_name = &pod.metadata.name;
    let Some(c) = found else {
        return Err(Failure::bad_request(format!("container {name:?} in pod {pod_name:?} is waiting to start - no logs yet")));
    };
    let id = if previous { previous_run(c, pod_name) } else { last_run(c, pod_name) }?;
    Ok((name, id.rsplit_once("://").map_or(id, |(_, id)| id).to_owned()))
}

/// The container of that name, or the only one.
pub fn named(pod: &Pod, container: &str) -> Result<String, Failure> {
    let pod_name = &pod.metadata.name;
    if !container.is_empty() {
        return match pod.container(container) {
            Some((_, c)) => Ok(c.name.clone()),
            None => {
                let names: Vec<&str> = pod.containers().map(|(_, c)| c.name.as_str()).collect();
                let message = format!("container {container} is not valid for pod {pod_name}; it has: {}", names.join(", "));
                Err(Failure::bad_request(message))
            }
        };
    }
    match pod.spec.containers.as_slice() {
        [one] => Ok(one.name.clone()),
        many => {
            let names: Vec<&str> = many.iter().map(|c| c.name.as_str()).collect();
            let message = format!("a container name must be specified for pod {pod_name}, choose one of: [{}]", names.join(" "));
            Err(Failure::bad_request(message))
        }
    }
}

fn previous_run<'a>(c: &'a ContainerStatus, pod: &str) -> Result<&'a str, Failure> {
    match &c.last_state.terminated {
        Some(t) if !t.container_id.is_empty() => Ok(&t.container_id),
        _ => Err(Failure::bad_request(format!("previous terminated container {:?} in pod {pod:?} not found", c.name))),
    }
}

fn last_run<'a>(c: &'a ContainerStatus, pod: &str) -> Result<&'a str, Failure> {
    let name = &c.name;
    let waits = |why: &str| Failure::bad_request(format!("container {name:?} in pod {pod:?} is waiting to start: {why}"));
    let last = c.last_state.terminated.as_ref().map(|t| t.container_id.as_str()).filter(|id| !id.is_empty());
    if c.state.running.is_some() {
        return Ok(&c.container_id);
    }
    if let Some(t) = &c.state.terminated {
        let own = Some(t.container_id.as_str()).filter(|id| !id.is_empty());
        let gone = || Failure::bad_request(format!("container {name:?} in pod {pod:?} is terminated"));
        return own.or(last).ok_or_else(gone);
    }
    if let Some(id) = last {
        return Ok(id);
    }
    Err(match c.state.waiting.as_ref().map(|w| w.reason.as_str()) {
        Some("ErrImagePull") => waits("image can't be pulled"),
        Some("ImagePullBackOff") => waits("trying and failing to pull image"),
        Some(reason) if !reason.is_empty() => waits(reason),
        _ => Failure::bad_request(format!("container {name:?} in pod {pod:?} is waiting to start - no logs yet")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::Container;
    use serde_json::json;

    fn pod(names: &[&str]) -> Pod {
        let mut p = Pod::default();
        p.metadata.name = "web".into();
        p.spec.containers = names.iter().map(|n| Container { name: (*n).into(), ..Container::default() }).collect();
        p
    }

    fn ask(state: serde_json::Value, last: serde_json::Value, previous: bool) -> Result<String, String> {
        let status = json!({"containerStatuses": [{"name": "a", "containerID": "containerd://2", "state": state, "lastState": last}]});
        let status = serde_json::from_value(status).unwrap();
        choose(&pod(&["a"]), &status, "", previous).map(|(_, id)| id).map_err(|f| f.message)
    }

    #[test]
    fn the_run_that_is_meant_is_found() {
        let ended = json!({"terminated": {"containerID": "containerd://1", "exitCode": 1}});
        let back_off = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        assert_eq!(ask(json!({"running": {}}), json!({}), false), Ok("2".into()));
        assert_eq!(ask(json!({"running": {}}), ended.clone(), true), Ok("1".into()));
        assert_eq!(ask(back_off, ended.clone(), false), Ok("1".into()));
        assert_eq!(ask(ended, json!({}), false), Ok("1".into()));
    }

    #[test]
    fn who_has_no_log_yet_says_why() {
        let waits = |reason: &str| ask(json!({"waiting": {"reason": reason}}), json!({}), false).unwrap_err();
        assert_eq!(waits("ContainerCreating"), "container \"a\" in pod \"web\" is waiting to start: ContainerCreating");
        assert_eq!(waits("ImagePullBackOff"), "container \"a\" in pod \"web\" is waiting to start: trying and failing to pull image");
        assert_eq!(waits("ErrImagePull"), "container \"a\" in pod \"web\" is waiting to start: image can't be pulled");
        let none = ask(json!({"running": {}}), json!({}), true).unwrap_err();
        assert_eq!(none, "previous terminated container \"a\" in pod \"web\" not found");
    }

    #[test]
    fn a_container_is_named_where_there_are_several() {
        let f = named(&pod(&["a", "b"]), "").unwrap_err();
        assert_eq!((f.code, f.message.as_str()), (400, "a container name must be specified for pod web, choose one of: [a b]"));
        assert_eq!(named(&pod(&["a", "b"]), "c").unwrap_err().message, "container c is not valid for pod web; it has: a, b");
        assert_eq!(named(&pod(&["a", "b"]), "b"), Ok("b".into()));
    }
}
