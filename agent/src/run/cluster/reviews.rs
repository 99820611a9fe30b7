//! Asks the API server whose token this is, and what somebody may do (specification of the kubelet, 11.2 and 11.3).
//!
//! What is remembered of answers, and for how long, is the port's. These questions do not wait behind what the node
//! reports: somebody is at the door.

use crate::api::access::{Attributes, User};
use crate::run::client::{Ask, Client, ClientError, JSON};
use crate::run::port::{AccessAnswer, ReviewError, Reviews, TokenAnswer};
use futures_util::future::LocalBoxFuture;
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const TOKENS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCESS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
const WITHIN: Duration = Duration::from_secs(10);

pub struct Asked(pub Client);

impl Reviews for Asked {
    fn token(&self, token: String, audiences: Vec<String>) -> LocalBoxFuture<'static, Result<TokenAnswer, ReviewError>> {
        let client = self.0.clone();
        Box::pin(async move {
            let review = token_review(&token, &audiences);
            let answer = client.ask(Ask::send(Method::POST, TOKENS, JSON, &review).urgent(WITHIN)).await;
            token_answer(&answer.map_err(failed)?["status"])
        })
    }

    fn access(&self, user: User, attributes: Attributes) -> LocalBoxFuture<'static, Result<AccessAnswer, ReviewError>> {
        let client = self.0.clone();
        Box::pin(async move {
            let review = access_review(&user, &attributes);
            let answer = client.ask(Ask::send(Method::POST, ACCESS, JSON, &review).urgent(WITHIN)).await;
            Ok(access_answer(&answer.map_err(failed)?["status"]))
        })
    }
}

fn failed(e: ClientError) -> ReviewError {
    ReviewError(e.to_string())
}

fn token_review(token: &str, audiences: &[String]) -> Value {
    let mut spec = json!({"token": token});
    if !audiences.is_empty() {
        spec["audiences"] = audiences.into();
    }
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": spec})
}

/// `status` of a `TokenReview`. One that could not be made says nothing of the token.
fn token_answer(status: &Value) -> Result<TokenAnswer, ReviewError> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Told {
        username: String,
        uid: String,
        groups: Vec<String>,
        extra: BTreeMap<String, Vec<String>>,
    }
    if status["authenticated"] != true {
        return match status["error"].as_str().filter(|e| !e.is_empty()) {
            // The token is wrong, or the server cannot tell: either way it vouches for nobody.
            Some(error) if !error.contains("invalid") && !error.contains("expired") => Err(ReviewError(error.to_owned())),
            _ => Ok(TokenAnswer::default()),
        };
    }
    let wrong = |e: &dyn std::fmt::Display| ReviewError(format!("the answer to a TokenReview cannot be read: {e}"));
    let told: Told = crate::typed::read(&status["user"]).map_err(|e| wrong(&e))?;
    let audiences = crate::typed::read(&status["audiences"]).unwrap_or_default();
    let user = User { name: told.username, uid: told.uid, groups: told.groups, extra: told.extra };
    Ok(TokenAnswer { user: Some(user), audiences })
}

fn access_review(user: &User, a: &Attributes) -> Value {
    let mut spec = json!({"user": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        spec["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        spec["extra"] = json!(user.extra);
    }
    if a.path.is_empty() {
        let all = [
            ("namespace", &a.namespace),
            ("verb", &a.verb),
            ("group", &a.group),
            ("resource", &a.resource),
            ("subresource", &a.sub),
            ("name", &a.name),
        ];
        let mut given: BTreeMap<&str, &str> = all.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k, v.as_str())).collect();
        given.insert("version", "v1");
        spec["resourceAttributes"] = json!(given);
    } else {
        spec["nonResourceAttributes"] = json!({"path": a.path, "verb": a.verb});
    }
    json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}, "spec": spec})
}

/// `status` of a `SubjectAccessReview`.
fn access_answer(status: &Value) -> AccessAnswer {
    AccessAnswer {
        allowed: status["allowed"] == true && status["denied"] != true,
        denied: status["denied"] == true,
        reason: status["reason"].as_str().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_about_access_names_the_node_as_a_kubelet_does() {
        let user = User::new("alice", &["ops"]);
        let a =
            Attributes { verb: "get".into(), resource: "nodes".into(), sub: "metrics".into(), name: "n1".into(), ..Attributes::default() };
        let spec = &access_review(&user, &a)["spec"];
        assert_eq!(spec["user"], "alice");
        assert_eq!(spec["groups"], json!(["ops", "system:authenticated"]));
        let want = json!({"verb": "get", "version": "v1", "resource": "nodes", "subresource": "metrics", "name": "n1"});
        assert_eq!(spec["resourceAttributes"], want);
        let path = access_review(&user, &Attributes::path("get", "/x"));
        assert_eq!(path["spec"]["nonResourceAttributes"], json!({"path": "/x", "verb": "get"}));
    }

    #[test]
    fn an_answer_that_says_both_is_a_no() {
        assert!(access_answer(&json!({"allowed": true})).allowed);
        let both = access_answer(&json!({"allowed": true, "denied": true, "reason": "r"}));
        assert_eq!((both.allowed, both.denied, both.reason.as_str()), (false, true, "r"));
        assert!(!access_answer(&Value::Null).allowed);
    }

    #[test]
    fn a_token_is_somebodys_nobodys_or_not_looked_at() {
        let known =
            json!({"authenticated": true, "user": {"username": "robot", "groups": ["g"], "extra": {"k": ["v"]}}, "audiences": ["a"]});
        let answer = token_answer(&known).unwrap();
        let user = answer.user.unwrap();
        assert_eq!((user.name.as_str(), user.groups.len(), user.extra["k"][0].as_str()), ("robot", 1, "v"));
        assert_eq!(answer.audiences, ["a"]);
        assert_eq!(token_answer(&json!({"error": "[invalid bearer token, token lookup failed]"})).unwrap(), TokenAnswer::default());
        assert_eq!(token_answer(&Value::Null).unwrap(), TokenAnswer::default());
        assert!(token_answer(&json!({"error": "the webhook does not answer"})).is_err());
    }
}
