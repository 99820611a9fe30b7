//! The paths of this node's own that lead to no object.

use super::query::decode;

/// What a path asks for that is no object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    Version,
    Why { namespace: String, name: String },
}

/// Reads a path (without its query). None: nothing is there.
pub fn route(path: &str) -> Option<Route> {
    let parts: Vec<String> = path.split('/').skip(1).map(|p| decode(p, false)).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["longshore", "v1", "version"] => Some(Route::Version),
        ["longshore", "v1", "why", "namespaces", namespace, "pods", name] => {
            Some(Route::Why { namespace: filled(namespace)?, name: filled(name)? })
        }
        _ => None,
    }
}

fn filled(part: &str) -> Option<String> {
    (!part.is_empty()).then(|| part.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_paths_are_beside_those_of_the_kubernetes_api() {
        let s = String::from;
        let cases = [
            ("/longshore/v1/version", Some(Route::Version)),
            ("/longshore/v1/why/namespaces/a/pods/web", Some(Route::Why { namespace: s("a"), name: s("web") })),
            ("/longshore/v1/why/namespaces//pods/web", None),
            ("/api/v1/pods", None),
            ("/", None),
        ];
        for (path, want) in cases {
            assert_eq!(route(path), want, "{path}");
        }
    }
}
