//! Questions that are answered and forgotten: who is this, may they, a token please.

use super::{Answer, Api, json, serve, writes};
use crate::api::Failure;
use crate::api::access::{Attributes, MASTERS, User};
use crate::api::request::Request;
use crate::api::resource::{ACCOUNTS, Id, PODS, SECRETS};
use crate::api::write::meta;
use crate::manifest::problem::Path;
use crate::run::clock;
use hyper::body::Incoming;
use hyper::{StatusCode, header};
use serde_json::{Map, Value, json};
use std::rc::Rc;

/// Seconds that a token is good for: without a wish, at least, at most.
const TOKEN_LIFE: i64 = 3600;
const TOKEN_LEAST: i64 = 600;
const TOKEN_MOST: i64 = 1 << 32;

pub async fn answer(api: &Rc<Api>, r: Request, user: &User, http: hyper::Request<Incoming>) -> Answer {
    let kind = serve::header_text(&http, &header::CONTENT_TYPE).to_owned();
    let bytes = writes::body(api, http).await?;
    let mut object = writes::object(&kind, &bytes)?;
    if !object.is_object() {
        return Err(Failure::bad_request("the body is no object"));
    }
    let row = r.resource.row();
    let (version, kind) = match row.sub(&r.sub).and_then(|s| s.kind) {
        Some((group, version, kind)) => (format!("{group}/{version}"), kind),
        None => (row.api_version(), row.kind),
    };
    // Who somebody is has no parameters.
    let fields = if kind == "SelfSubjectReview" { &["metadata"][..] } else { &["metadata", "spec"] };
    for field in fields.iter().copied() {
        match &object[field] {
            Value::Object(_) => {}
            Value::Null => object[field] = json!({}),
            _ => {
                return Err(Failure::bad_request(format!(
                    "{kind} in version {version:?} cannot be handled as a {kind}: {field} is no object"
                )));
            }
        }
    }
    object["apiVersion"] = version.into();
    object["kind"] = kind.into();
    object["status"] = match kind {
        "TokenReview" => review(api, &object["spec"])?,
        "SelfSubjectReview" => json!({"userInfo": info(user)}),
        "SelfSubjectAccessReview" => access(api, user, &object["spec"])?,
        "SubjectAccessReview" | "LocalSubjectAccessReview" => access(api, &subject(&object["spec"])?, &object["spec"])?,
        "SelfSubjectRulesReview" => rules(api, user, object["spec"]["namespace"].as_str().unwrap_or_default()),
        _ => token(api, &r, &mut object["spec"])?,
    };
    let mut answer = json(&object);
    *answer.status_mut() = StatusCode::CREATED;
    Ok(answer)
}

impl Api {
    /// Whose token this is, and for whom it is meant.
    pub fn token_review(&self, token: &str, audiences: &[String]) -> Option<(User, Vec<String>)> {
        let found = self.credentials().by_token(token, audiences, clock::now().wall);
        found.filter(|(user, _)| self.is_there(user))
    }

    /// By which role somebody may.
    pub fn access_review(&self, user: &User, a: &Attributes) -> Option<&'static str> {
        self.roles.borrow().allow(user, a)
    }
}

fn info(user: &User) -> Value {
    let mut out = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        out["uid"] = user.uid.clone().into();
    }
    if !user.extra.is_empty() {
        out["extra"] = json!(user.extra);
    }
    out
}

fn texts(v: &Value) -> Vec<String> {
    v.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn review(api: &Api, spec: &Value) -> Result<Value, Failure> {
    let token = spec["token"].as_str().filter(|t| !t.is_empty());
    let token = token.ok_or_else(|| Failure::bad_request("token is required for TokenReview in authentication"))?;
    Ok(match api.token_review(token, &texts(&spec["audiences"])) {
        Some((user, audiences)) => json!({"authenticated": true, "user": info(&user), "audiences": audiences}),
        None => json!({"user": {}, "error": "invalid bearer token"}),
    })
}

fn subject(spec: &Value) -> Result<User, Failure> {
    let (name, groups) = (spec["user"].as_str().unwrap_or_default(), texts(&spec["groups"]));
    if name.is_empty() && groups.is_empty() {
        return Err(Failure::bad_request("spec.user: Invalid value: \"\": at least one of user or group must be specified"));
    }
    let mut user = User { name: name.into(), groups, ..User::default() };
    user.uid = spec["uid"].as_str().unwrap_or_default().into();
    Ok(user)
}

fn attributes(spec: &Value) -> Result<Attributes, Failure> {
    let text = |v: &Value, field: &str| v[field].as_str().unwrap_or_default().to_owned();
    match (spec["resourceAttributes"].is_object(), spec["nonResourceAttributes"].is_object()) {
        (true, false) => {
            let a = &spec["resourceAttributes"];
            Ok(Attributes {
                verb: text(a, "verb"),
                group: text(a, "group"),
                resource: text(a, "resource"),
                sub: text(a, "subresource"),
                namespace: text(a, "namespace"),
                name: text(a, "name"),
                path: String::new(),
            })
        }
        (false, true) => {
            let a = &spec["nonResourceAttributes"];
            Ok(Attributes::path(&text(a, "verb"), &text(a, "path")))
        }
        _ => Err(Failure::bad_request("spec: Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified")),
    }
}

fn access(api: &Api, user: &User, spec: &Value) -> Result<Value, Failure> {
    Ok(match api.access_review(user, &attributes(spec)?) {
        Some(role) => json!({"allowed": true, "reason": format!("role {role}")}),
        None => json!({"allowed": false}),
    })
}

/// What somebody may do, resource by resource.
fn rules(api: &Api, user: &User, namespace: &str) -> Value {
    let roles = api.roles.borrow();
    let all = Attributes { verb: "*".into(), group: "*".into(), resource: "*".into(), ..Attributes::default() };
    if user.is_in(MASTERS) || roles.allow(user, &all) == Some("admin") {
        return json!({"resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}], "incomplete": false});
    }
    let mut found = Vec::new();
    for row in Id::all().map(Id::row) {
        let whole = std::iter::once((row.plural.to_owned(), "", row.verbs));
        let subs = row.subs.iter().map(|s| (format!("{}/{}", row.plural, s.name), s.name, s.verbs));
        for (shown, sub, verbs) in whole.chain(subs) {
            let may = |verb: &&&str| {
                let a = Attributes {
                    verb: (**verb).into(),
                    group: row.group.into(),
                    resource: row.plural.into(),
                    sub: sub.into(),
                    namespace: namespace.into(),
                    ..Attributes::default()
                };
                roles.allow(user, &a).is_some()
            };
            let verbs: Vec<&&str> = verbs.iter().filter(may).collect();
            if !verbs.is_empty() {
                found.push(json!({"verbs": verbs, "apiGroups": [row.group], "resources": [shown]}));
            }
        }
    }
    let open = ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version"];
    json!({"resourceRules": found, "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": open}], "incomplete": false})
}

/// A token for a service account, bound to a pod or a secret where that is asked for.
fn token(api: &Api, r: &Request, spec: &mut Value) -> Result<Value, Failure> {
    let account = api.store().get(ACCOUNTS, &r.namespace, &r.name).map(|e| e.object());
    let account = account.ok_or_else(|| Failure::missing(ACCOUNTS.subject(&r.name)))?;
    let signer = api.credentials().signer.clone();
    let signer = signer.ok_or_else(|| Failure::new(503, "ServiceUnavailable", "this server signs no tokens"))?;
    let mut audiences = texts(&spec["audiences"]);
    if audiences.is_empty() {
        audiences.push(signer.issuer().to_owned());
    }
    let seconds = spec["expirationSeconds"].as_i64().unwrap_or(TOKEN_LIFE);
    if !(TOKEN_LEAST..=TOKEN_MOST).contains(&seconds) {
        let why = if seconds < TOKEN_LEAST {
            "may not specify a duration less than 10 minutes"
        } else {
            "may not specify a duration larger than 2^32 seconds"
        };
        let path = Path::root("spec").child("expirationSeconds");
        return Err(writes::options_invalid("TokenRequest", "authentication.k8s.io", |f| f.invalid_number(&path, seconds, why)));
    }
    let mut own = json!({"namespace": r.namespace, "serviceaccount": {"name": r.name, "uid": meta::text(&account, "uid")}});
    bind(api, r, &spec["boundObjectRef"], &mut own)?;
    let now = clock::now().wall.seconds();
    let until = now + seconds;
    let id = meta::uid(api.next_seed());
    let claims = json!({"aud": audiences, "exp": until, "iat": now, "iss": signer.issuer(), "jti": id, "kubernetes.io": own, "nbf": now,
        "sub": format!("system:serviceaccount:{}:{}", r.namespace, r.name)});
    spec["audiences"] = json!(audiences);
    spec["expirationSeconds"] = seconds.into();
    Ok(json!({"token": signer.sign(&claims), "expirationTimestamp": crate::time::Wall::from_seconds(until).rfc3339()}))
}

fn bind(api: &Api, r: &Request, to: &Value, own: &mut Value) -> Result<(), Failure> {
    let Some(kind) = to["kind"].as_str() else { return Ok(()) };
    let (id, field) = match kind {
        "Pod" => (PODS, "pod"),
        "Secret" => (SECRETS, "secret"),
        other => return Err(Failure::bad_request(format!("cannot bind token to object of type {other}"))),
    };
    let name = to["name"].as_str().unwrap_or_default();
    let object = api.store().get(id, &r.namespace, name).map(|e| e.object()).ok_or_else(|| Failure::missing(id.subject(name)))?;
    let uid = meta::text(&object, "uid");
    if to["uid"].as_str().is_some_and(|wanted| !wanted.is_empty() && wanted != uid) {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            to["uid"].as_str().unwrap_or_default()
        );
        return Err(Failure::new(409, "Conflict", why));
    }
    if id == PODS && object["spec"]["serviceAccountName"].as_str().unwrap_or("default") != r.name {
        return Err(Failure::bad_request(format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            r.name
        )));
    }
    let mut bound = Map::new();
    bound.insert("name".into(), name.into());
    bound.insert("uid".into(), uid.into());
    own[field] = Value::Object(bound);
    if id == PODS
        && let Some(node) = object["spec"]["nodeName"].as_str().filter(|n| !n.is_empty())
    {
        own["node"] = json!({"name": node});
    }
    Ok(())
}
