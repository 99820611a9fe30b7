//! Errors as `Status` objects of meta/v1.

use super::Kind;
use serde::{Deserialize, Serialize};

/// A request that could not be served. `message` names the object and, where there is one, the remedy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failure {
    /// `Failure`, or `Success` where a command ended well.
    pub status: String,
    pub message: String,
    /// `NotFound`, `BadRequest`, ...: what a client can match on.
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<Details>>,
    /// The HTTP status.
    pub code: u16,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    api_version: &'a str,
    kind: &'a str,
    metadata: serde_json::Map<String, serde_json::Value>,
    #[serde(flatten)]
    failure: &'a Failure,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cause {
    /// `ExitCode` for commands that ended with another code than 0; then `message` is the code.
    pub reason: String,
    pub message: String,
}

impl Failure {
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Failure {
        Failure { status: "Failure".into(), message: message.into(), reason: reason.into(), code, details: None }
    }

    pub fn not_found(kind: Kind, name: &str) -> Failure {
        let resource = kind.resource();
        let details = Details { name: name.into(), kind: kind.plural().into(), ..Details::default() };
        Failure { details: Some(Box::new(details)), ..Failure::new(404, "NotFound", format!("{resource} {name:?} not found")) }
    }

    pub fn no_such_path(path: &str) -> Failure {
        Failure::new(404, "NotFound", format!("the server could not find the requested resource: {path}"))
    }

    pub fn bad_request(message: impl Into<String>) -> Failure {
        Failure::new(400, "BadRequest", message)
    }

    pub fn method_not_allowed(method: &str, path: &str) -> Failure {
        Failure::new(405, "MethodNotAllowed", format!("{method} is not allowed on {path}: this socket only tells; change the manifests"))
    }

    pub fn internal(message: impl Into<String>) -> Failure {
        Failure::new(500, "InternalError", message)
    }

    pub fn body(&self) -> Vec<u8> {
        let wire = Wire { api_version: "v1", kind: "Status", metadata: serde_json::Map::new(), failure: self };
        serde_json::to_vec(&wire).expect("plain data serialises")
    }

    /// The exit code that the `Status` at the end of a command's stream tells.
    pub fn exit_code(&self) -> Option<i32> {
        if self.status == "Success" {
            return Some(0);
        }
        let causes = &self.details.as_ref()?.causes;
        causes.iter().find(|c| c.reason == "ExitCode").and_then(|c| c.message.parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_pod_reads_as_an_api_server_says_it() {
        let v: serde_json::Value = serde_json::from_slice(&Failure::not_found(Kind::Pod, "web").body()).unwrap();
        let want = serde_json::json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
            "message": "pods \"web\" not found", "reason": "NotFound", "details": {"name": "web", "kind": "pods"}, "code": 404});
        assert_eq!(v, want);
        assert_eq!(Failure::not_found(Kind::EndpointSlice, "web-1").message, "endpointslices.discovery.k8s.io \"web-1\" not found");
    }

    #[test]
    fn the_end_of_a_command_tells_its_exit_code() {
        let read = |s: &str| serde_json::from_str::<Failure>(s).unwrap().exit_code();
        assert_eq!(read(r#"{"metadata":{},"status":"Success"}"#), Some(0));
        let failed = r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code",
            "reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;
        assert_eq!(read(failed), Some(7));
        assert_eq!(read(r#"{"metadata":{},"status":"Failure","message":"no such file","reason":"InternalError","code":500}"#), None);
    }
}
