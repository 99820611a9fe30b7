//! Errors as `Status` objects of meta/v1.

use crate::manifest::problem::{Fault, FaultKind};
use serde::{Deserialize, Serialize};

/// A request that could not be served. `message` names the object and, where there is one, the remedy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failure {
    /// `Failure`, or `Success` where a command ended well.
    pub status: String,
    pub message: String,
    /// `NotFound`, `BadRequest`, ...: what a client can match on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<Details>>,
    /// The HTTP status.
    pub code: u16,
    /// Where a list that cannot go on as it began can go on all the same.
    #[serde(skip)]
    pub resume: Option<Box<str>>,
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
#[serde(rename_all = "camelCase", default)]
pub struct Details {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// A client waits this long before it tries again; 0: it need not.
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cause {
    /// `FieldValueInvalid`, `FieldManagerConflict`, ...; `ExitCode` for commands that ended with another
    /// code than 0, and then `message` is the code.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

impl From<&Fault> for Cause {
    fn from(f: &Fault) -> Cause {
        let reason = match f.kind {
            FaultKind::Required => "FieldValueRequired",
            FaultKind::NotSupported => "FieldValueNotSupported",
            FaultKind::Duplicate => "FieldValueDuplicate",
            FaultKind::NotFound => "FieldValueNotFound",
            FaultKind::Forbidden => "FieldValueForbidden",
            FaultKind::TooLong => "FieldValueTooLong",
            FaultKind::TooMany => "FieldValueTooMany",
            FaultKind::Invalid | FaultKind::UnknownField | FaultKind::Shape | FaultKind::Encoding => "FieldValueInvalid",
        };
        Cause { reason: reason.into(), message: f.message.clone(), field: f.field.clone() }
    }
}

/// What a request was about: `pods`, or `endpointslices.discovery.k8s.io` with its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// Empty: core.
    pub group: &'a str,
    /// `pods` where a resource is spoken of, `Pod` where a kind is.
    pub kind: &'a str,
    pub name: &'a str,
}

impl Subject<'_> {
    fn qualified(self) -> String {
        if self.group.is_empty() { self.kind.to_owned() } else { format!("{}.{}", self.kind, self.group) }
    }

    fn details(self) -> Details {
        Details { name: self.name.into(), group: self.group.into(), kind: self.kind.into(), ..Details::default() }
    }
}

impl Failure {
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Failure {
        Failure { status: "Failure".into(), message: message.into(), reason: reason.into(), code, ..Failure::default() }
    }

    pub fn no_such_path(path: &str) -> Failure {
        Failure::new(404, "NotFound", format!("the server could not find the requested resource: {path}"))
    }

    pub fn bad_request(message: impl Into<String>) -> Failure {
        Failure::new(400, "BadRequest", message)
    }

    fn about(subject: Subject<'_>, code: u16, reason: &str, message: String) -> Failure {
        Failure { details: Some(Box::new(subject.details())), ..Failure::new(code, reason, message) }
    }

    /// 404 of a resource that is told by its group and plural.
    pub fn missing(subject: Subject<'_>) -> Failure {
        Failure::about(subject, 404, "NotFound", format!("{} {:?} not found", subject.qualified(), subject.name))
    }

    pub fn already_exists(subject: Subject<'_>) -> Failure {
        Failure::about(subject, 409, "AlreadyExists", format!("{} {:?} already exists", subject.qualified(), subject.name))
    }

    /// 409: `why` says what came between.
    pub fn conflict(subject: Subject<'_>, why: &str) -> Failure {
        let message = format!("Operation cannot be fulfilled on {} {:?}: {why}", subject.qualified(), subject.name);
        Failure::about(subject, 409, "Conflict", message)
    }

    /// 409 of server-side apply; `causes` name the managers and the fields.
    pub fn apply_conflict(message: String, causes: Vec<Cause>) -> Failure {
        let details = Details { causes, ..Details::default() };
        Failure { details: Some(Box::new(details)), ..Failure::new(409, "Conflict", message) }
    }

    /// 422: `subject` names a kind, and each cause a field with what is wrong with it.
    pub fn invalid(subject: Subject<'_>, causes: Vec<Cause>) -> Failure {
        let mut told: Vec<String> = Vec::new();
        for c in &causes {
            let one = if c.field.is_empty() { c.message.clone() } else { format!("{}: {}", c.field, c.message) };
            if !told.contains(&one) {
                told.push(one);
            }
        }
        let what = format!("{} {:?} is invalid", subject.qualified(), subject.name);
        let message = match told.as_slice() {
            [] => what,
            [one] => format!("{what}: {one}"),
            more => format!("{what}: [{}]", more.join(", ")),
        };
        let details = Details { causes, ..subject.details() };
        Failure { details: Some(Box::new(details)), ..Failure::new(422, "Invalid", message) }
    }

    /// 422 of a patch that could not be carried out. An API server keeps the detail to itself; here it is a cause.
    pub fn unprocessable(detail: impl Into<String>) -> Failure {
        let causes = vec![Cause { message: detail.into(), ..Cause::default() }];
        let message = "the server rejected our request due to an error in our request";
        let details = Details { causes, ..Details::default() };
        Failure { details: Some(Box::new(details)), ..Failure::new(422, "Invalid", message) }
    }

    pub fn forbidden(subject: Subject<'_>, why: &str) -> Failure {
        let name = if subject.name.is_empty() { String::new() } else { format!(" {:?}", subject.name) };
        Failure::about(subject, 403, "Forbidden", format!("{}{name} is forbidden: {why}", subject.qualified()))
    }

    pub fn unsupported_media_type(accepted: &[&str]) -> Failure {
        let message = format!("the body of the request was in an unknown format - accepted media types include: {}", accepted.join(", "));
        Failure::new(415, "UnsupportedMediaType", message)
    }

    pub fn too_large(message: &str) -> Failure {
        Failure::new(413, "RequestEntityTooLarge", format!("Request entity too large: {message}"))
    }

    /// 410: the versions that a client asks for are no longer kept.
    pub fn expired(message: impl Into<String>) -> Failure {
        Failure::new(410, "Expired", message)
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Failure {
        let details = Details { retry_after_seconds, ..Details::default() };
        Failure { details: Some(Box::new(details)), ..Failure::new(429, "TooManyRequests", message) }
    }

    /// 500 without a reason: what an API server answers when it cannot make sense of a patch.
    pub fn unknown(message: impl Into<String>) -> Failure {
        Failure::new(500, "", message)
    }

    /// 503 while the daemon ends.
    pub fn stopping() -> Failure {
        Failure::new(503, "ServiceUnavailable", "the daemon is stopping; try again when it is back")
    }

    pub fn internal(message: impl Into<String>) -> Failure {
        Failure::new(500, "InternalError", message)
    }

    pub fn body(&self) -> Vec<u8> {
        let metadata = self.resume.iter().map(|token| ("continue".to_owned(), (**token).into())).collect();
        let wire = Wire { api_version: "v1", kind: "Status", metadata, failure: self };
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
    use crate::api::resource::{PODS, SLICES};
    use crate::manifest::problem::{Faults, Path};

    #[test]
    fn a_missing_pod_reads_as_an_api_server_says_it() {
        let v: serde_json::Value = serde_json::from_slice(&Failure::missing(PODS.subject("web")).body()).unwrap();
        let want = serde_json::json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
            "message": "pods \"web\" not found", "reason": "NotFound", "details": {"name": "web", "kind": "pods"}, "code": 404});
        assert_eq!(v, want);
        assert_eq!(Failure::missing(SLICES.subject("web-1")).message, "endpointslices.discovery.k8s.io \"web-1\" not found");
    }

    #[test]
    fn an_invalid_object_is_told_with_each_field_once() {
        let pod = Subject { group: "", kind: "Pod", name: "web" };
        let mut faults = Faults::default();
        faults.required(&Path::root("spec").child("containers"), "");
        faults.forbidden(&Path::root("spec").child("x"), "no");
        let f = Failure::invalid(pod, faults.0.iter().map(Cause::from).collect());
        assert_eq!(f.message, "Pod \"web\" is invalid: [spec.containers: Required value, spec.x: Forbidden: no]");
        let v: serde_json::Value = serde_json::from_slice(&f.body()).unwrap();
        let want = serde_json::json!({"name": "web", "kind": "Pod", "causes": [
            {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.containers"},
            {"reason": "FieldValueForbidden", "message": "Forbidden: no", "field": "spec.x"}]});
        assert_eq!((&v["details"], &v["code"], &v["reason"]), (&want, &serde_json::json!(422), &serde_json::json!("Invalid")));
    }

    #[test]
    fn conflicts_and_waits_read_as_an_api_server_says_them() {
        let slice = Subject { group: "discovery.k8s.io", kind: "endpointslices", name: "web-1" };
        let f = Failure::conflict(slice, "the object has been modified; please apply your changes to the latest version and try again");
        assert_eq!(
            f.message,
            "Operation cannot be fulfilled on endpointslices.discovery.k8s.io \"web-1\": the object has been modified; please apply your changes to the latest version and try again"
        );
        assert_eq!(Failure::already_exists(slice).message, "endpointslices.discovery.k8s.io \"web-1\" already exists");
        let v: serde_json::Value = serde_json::from_slice(&Failure::too_many_requests("later", 3).body()).unwrap();
        assert_eq!(v["details"], serde_json::json!({"retryAfterSeconds": 3}));
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
