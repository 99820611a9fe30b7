//! What a user may call a kind of object.

use crate::api::resource::{EVENTS, Id, PODS, SERVICES, SLICES};

/// A kind on the command line. Endpoints are read from slices and shown by service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Pods,
    Services,
    Endpoints,
    EndpointSlices,
    Events,
}

impl Resource {
    pub fn parse(text: &str) -> Result<Resource, String> {
        Ok(match text.to_lowercase().as_str() {
            "pods" | "pod" | "po" => Resource::Pods,
            "services" | "service" | "svc" => Resource::Services,
            "endpoints" | "endpoint" | "ep" => Resource::Endpoints,
            "endpointslices" | "endpointslice" | "eps" => Resource::EndpointSlices,
            "events" | "event" | "ev" => Resource::Events,
            other => {
                let known = "pods (po), services (svc), endpoints (ep), endpointslices, events (ev)";
                return Err(format!("the server doesn't have a resource type {other:?}; there are: {known}"));
            }
        })
    }

    /// Where its objects are.
    pub fn id(self) -> Id {
        match self {
            Resource::Pods => PODS,
            Resource::Services => SERVICES,
            Resource::Endpoints | Resource::EndpointSlices => SLICES,
            Resource::Events => EVENTS,
        }
    }

    /// As `-o name` prints it.
    pub fn prefix(self) -> &'static str {
        match self {
            Resource::Pods => "pod",
            Resource::Services => "service",
            Resource::Endpoints | Resource::EndpointSlices => "endpointslice.discovery.k8s.io",
            Resource::Events => "event",
        }
    }
}

/// Reads `pods`, `pods web`, `pod/web` into a kind and names.
pub fn target(words: &[String]) -> Result<(Resource, Vec<String>), String> {
    let (first, rest) = words.split_first().ok_or("name what to get, for example pods")?;
    let Some((kind, name)) = first.split_once('/') else {
        return Ok((Resource::parse(first)?, rest.to_vec()));
    };
    let resource = Resource::parse(kind)?;
    let mut names = vec![name.to_owned()];
    for w in rest {
        match w.split_once('/') {
            Some((k, n)) if Resource::parse(k)? == resource => names.push(n.to_owned()),
            _ => return Err(format!("{w:?}: name several objects of one kind as {kind}/NAME each")),
        }
    }
    if names.iter().any(String::is_empty) {
        return Err(format!("{first:?}: a name is missing after the slash"));
    }
    Ok((resource, names))
}

/// The name of a pod, given as `NAME` or `pod/NAME`.
pub fn pod_name(text: &str) -> Result<String, String> {
    let Some((kind, name)) = text.split_once('/') else { return Ok(text.to_owned()) };
    match Resource::parse(kind)? {
        Resource::Pods if !name.is_empty() => Ok(name.to_owned()),
        _ => Err(format!("{text:?} is not a pod: say NAME or pod/NAME")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn kinds_have_many_names() {
        for text in ["po", "pod", "pods", "Pods"] {
            assert_eq!(Resource::parse(text), Ok(Resource::Pods));
        }
        assert_eq!(Resource::parse("svc"), Ok(Resource::Services));
        assert!(Resource::parse("deployments").unwrap_err().contains("pods (po)"));
    }

    #[test]
    fn objects_are_named_with_a_slash_or_a_space() {
        assert_eq!(target(&words("pods")), Ok((Resource::Pods, vec![])));
        assert_eq!(target(&words("po a b")), Ok((Resource::Pods, words("a b"))));
        assert_eq!(target(&words("pod/a po/b")), Ok((Resource::Pods, words("a b"))));
        assert!(target(&words("pod/a svc/b")).is_err());
        assert!(target(&words("pod/")).is_err());
        assert_eq!(pod_name("po/web"), Ok("web".into()));
        assert!(pod_name("svc/web").is_err());
    }
}
