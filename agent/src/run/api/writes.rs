//! Requests that change something: their bodies and options, on their way to the writer.

use super::writer::{Done, Job};
use super::{Answer, Api, serve};
use crate::api::access::{Attributes, User};
use crate::api::failure::Subject;
use crate::api::patch::{self, PatchKind};
use crate::api::print::Form;
use crate::api::request::Request;
use crate::api::resource::{EVENTS, NAMESPACES};
use crate::api::store::Name;
use crate::api::write::{self, Caller, DeleteOptions, Op, Validation};
use crate::api::{Failure, Query, protobuf};
use crate::manifest::problem::{Fault, FaultKind, Faults, Path};
use crate::run::clock;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header;
use serde_json::{Value, json};
use std::rc::Rc;
use tokio::sync::oneshot;

/// Reads a body that is neither too large nor too slow.
pub async fn body(api: &Api, http: hyper::Request<Incoming>) -> Result<Bytes, Failure> {
    let most = api.limits.body;
    let too_large = || Failure::too_large(&format!("limit is {most}"));
    let body = http.into_body();
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(api.limits.sending, Limited::new(body, most).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(e)) => Err(Failure::bad_request(format!("the body broke off: {e}"))),
        Err(_) => Err(Failure::new(408, "Timeout", "the body did not come in time")),
    }
}

/// One object, in JSON, YAML or protobuf.
pub fn object(kind: &str, bytes: &[u8]) -> Result<Value, Failure> {
    let media = kind.split(';').next().unwrap_or_default().trim();
    match media {
        "" | "application/json" => {
            serde_json::from_slice(bytes).map_err(|e| Failure::bad_request(format!("the object provided is unrecognized: {e}")))
        }
        "application/yaml" => {
            let text = std::str::from_utf8(bytes).map_err(|e| Failure::bad_request(format!("the object provided is unrecognized: {e}")))?;
            crate::manifest::text::one(text).map_err(|m| Failure::bad_request(format!("the object provided is unrecognized: {m}")))
        }
        protobuf::MEDIA_TYPE => protobuf::decode(bytes),
        other => {
            let accepted = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
            let message =
                format!("the body of the request was in an unknown format - accepted media types include: {accepted} (sent: {other})");
            Err(Failure::new(415, "UnsupportedMediaType", message))
        }
    }
}

pub async fn write(api: &Rc<Api>, r: Request, query: Query, user: &User, http: hyper::Request<Incoming>, form: Form) -> Answer {
    let kind = serve::header_text(&http, &header::CONTENT_TYPE).to_owned();
    let agent = serve::header_text(&http, &header::USER_AGENT).to_owned();
    let dry_run = dry_run(&query.all("dryRun"))?;
    let mut caller = Caller {
        user: user.clone(),
        manager: patch::manager_of(query.get("fieldManager"), &agent),
        now: clock::now().wall,
        seed: api.next_seed(),
        dry_run,
        validation: Validation::parse(query.get("fieldValidation").unwrap_or_default())?,
        force: query.flag("force")?,
    };
    let bytes = body(api, http).await?;
    let (op, r) = match r.verb {
        "create" => (Op::Create(created(&r, &kind, &bytes)?), r),
        "update" => (Op::Update(created(&r, &kind, &bytes)?), r),
        "patch" => {
            let patch = PatchKind::from_content_type(&kind, write::shape_of(r.resource).is_some())?;
            if patch == PatchKind::Apply && query.get("fieldManager").is_none() {
                return Err(options_invalid("PatchOptions", "meta.k8s.io", |f| {
                    f.required(&Path::root("fieldManager"), "is required for apply patch")
                }));
            }
            (Op::Patch(patch, bytes.to_vec()), r)
        }
        "delete" | "deletecollection" => {
            let options = options(&kind, &bytes, &query)?;
            caller.dry_run |= self::dry_run(&options.dry_run)?;
            if r.verb == "deletecollection" {
                return collection(api, &r, &query, options, &caller, form).await;
            }
            if r.resource == NAMESPACES && !caller.dry_run {
                return super::namespaces::delete(api, &r, options, caller).await;
            }
            (Op::Delete(options), r)
        }
        _ => return Err(Failure::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")),
    };
    if r.verb == "create" && r.sub.is_empty() {
        api.in_namespace(&r)?;
    }
    let asked = r.clone();
    let done = api.submit(op, r, caller).await?;
    Ok(shown(&asked, done, &query, form))
}

/// The object of a creation or an update, with the face under which it is kept.
fn created(r: &Request, kind: &str, bytes: &[u8]) -> Result<Value, Failure> {
    let mut object = object(kind, bytes)?;
    if r.resource != r.resource.kept() {
        crate::api::events::to_core(&mut object);
    }
    Ok(object)
}

/// Options of a request that cannot be.
pub fn options_invalid(kind: &str, group: &str, tell: impl FnOnce(&mut Faults)) -> Failure {
    let mut faults = Faults::default();
    tell(&mut faults);
    Failure::invalid(Subject { group, kind, name: "" }, faults.0.iter().map(Into::into).collect())
}

fn dry_run(values: &[String]) -> Result<bool, Failure> {
    match values.iter().find(|v| *v != "All") {
        // An API server shows all of them.
        Some(_) => Err(options_invalid("UpdateOptions", "meta.k8s.io", |f| {
            let message = format!("Unsupported value: {values:?}: supported values: \"All\"");
            f.0.push(Fault::new(FaultKind::NotSupported, &Path::root("dryRun"), message));
        })),
        None => Ok(!values.is_empty()),
    }
}

/// From the body, and from the query where the body says nothing.
fn options(kind: &str, bytes: &[u8], query: &Query) -> Result<DeleteOptions, Failure> {
    let mut options = DeleteOptions::default();
    if !bytes.is_empty() {
        let value = object(kind, bytes)?;
        if !value.is_object() {
            return Err(Failure::bad_request("DeleteOptions: the body is no object"));
        }
        options = crate::typed::read(&value).map_err(|e| Failure::bad_request(format!("DeleteOptions: {e}")))?;
    }
    if options.grace_period_seconds.is_none() {
        options.grace_period_seconds = query.number("gracePeriodSeconds")?.and_then(|n| i64::try_from(n).ok());
    }
    options.propagation_policy = options.propagation_policy.or_else(|| query.get("propagationPolicy").map(str::to_owned));
    Ok(options)
}

/// Deletes all that is selected, one after the other, and answers with the list of it.
async fn collection(api: &Rc<Api>, r: &Request, query: &Query, options: DeleteOptions, caller: &Caller, _: Form) -> Answer {
    let selection = super::lists::selection(r, query)?;
    let namespace = (!r.namespace.is_empty()).then_some(r.namespace.as_str());
    let names: Vec<Name> = {
        let store = api.store();
        store.list(r.resource.kept(), namespace, None).filter(|(_, e)| selection.takes(&e.bytes)).map(|(n, _)| n.clone()).collect()
    };
    let mut items = Vec::new();
    for name in names {
        let one = Request { verb: "delete", namespace: name.namespace.to_string(), name: name.name.to_string(), ..r.clone() };
        let before = api.store().get(r.resource.kept(), &one.namespace, &one.name).map(|e| e.object());
        match api.submit(Op::Delete(options.clone()), one, caller.clone()).await {
            Ok(_) => items.extend(before),
            Err(f) if f.code == 404 => {}
            Err(f) => return Err(f),
        }
    }
    let row = r.resource.row();
    let list = json!({"kind": format!("{}List", row.kind), "apiVersion": row.api_version(), "metadata": {"resourceVersion": api.store().revision().to_string()}, "items": items});
    Ok(super::json(&list))
}

fn shown(r: &Request, done: Done, query: &Query, form: Form) -> hyper::Response<super::Reply> {
    let status = done.object["kind"] == "Status" && done.object["apiVersion"] == "v1";
    let mut answer = if status { super::json(&done.object) } else { serve::shown(r, done.object, query, form) };
    *answer.status_mut() = hyper::StatusCode::from_u16(done.code).unwrap_or_default();
    for warning in &done.warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = header::HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            answer.headers_mut().append(header::WARNING, value);
        }
    }
    answer
}

impl Api {
    /// Hands a write to the writer and waits until it is durable and shown.
    pub async fn submit(&self, op: Op, request: Request, caller: Caller) -> Result<Done, Failure> {
        let (reply, done) = oneshot::channel();
        self.writer.send(Job { op, request, caller, reply }).await.map_err(|_| Failure::stopping())?;
        done.await.map_err(|_| Failure::stopping())?
    }

    /// Objects come to be in namespaces that are there and stay.
    fn in_namespace(&self, r: &Request) -> Result<(), Failure> {
        if r.namespace.is_empty() || r.resource == EVENTS {
            return Ok(());
        }
        let namespace = self.store().get(NAMESPACES, "", &r.namespace).map(|e| e.object());
        match namespace {
            None => Err(Failure::missing(NAMESPACES.subject(&r.namespace))),
            Some(n) if write::meta::is_ending(&n) => {
                let attributes = Attributes::of(r);
                let why = format!("unable to create new content in namespace {} because it is being terminated", r.namespace);
                Err(attributes.refused(&why))
            }
            Some(_) => Ok(()),
        }
    }
}
