//! From a request to its answer: who asks, for what, whether it may be, and in which form.

use super::{Answer, Api, Peer, auth, json, lists, questions, reply, watches, with_status, writes};
use crate::api::access::{Attributes, UNAUTHENTICATED, User};
use crate::api::print::{self, Form, Include};
use crate::api::request::{Discovery, Request, Target, target};
use crate::api::resource::{CONTROLLED, Home};
use crate::api::{Failure, Query, discovery, openapi};
use crate::run::clock;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Response, StatusCode, header};
use reply::Reply;
use serde_json::Value;
use std::io::Write as _;
use std::rc::Rc;

/// Answers larger than this are compressed for those who want that, in bytes.
const COMPRESS: usize = 128 << 10;

impl Api {
    /// Who asks is told by the connection, or by a token in the request.
    pub(super) async fn serve(self: Rc<Self>, peer: &Peer, http: hyper::Request<Incoming>) -> Answer {
        let zipped = header_text(&http, &header::ACCEPT_ENCODING).split(',').any(|e| e.trim().starts_with("gzip"));
        let head = http.method() == hyper::Method::HEAD;
        let now = clock::now().wall;
        let by_peer = || peer.user.clone().or_else(|| peer.certificates.first().and_then(|c| auth::by_certificate(c, now)));
        let user = self.credentials().user(by_peer(), &http, now)?;
        if !self.is_there(&user) {
            return Err(auth::unauthorized());
        }
        if !user.is_in(UNAUTHENTICATED) {
            peer.welcome();
        }
        let query = Query::parse(http.uri().query().unwrap_or_default());
        let path = http.uri().path().to_owned();
        let answer = match target(http.method().as_str(), &path, &query) {
            Some(Target::Resource(r)) => {
                self.allow(&user, &Attributes::of(&r))?;
                self.clone().resource(r, query, &user, http).await?
            }
            other => {
                self.allow(&user, &Attributes::path(&http.method().as_str().to_lowercase(), &path))?;
                match other {
                    Some(Target::Discovery(d)) => self.discover(&d, &http)?,
                    Some(Target::Controlled(row)) => return Err(controlled(row)),
                    _ if path == "/longshore/v1/kubeconfig" => self.kubeconfig(&query)?,
                    _ => {
                        let node = self.node.borrow().clone();
                        match node.and_then(|n| n.other(&path, &http)) {
                            Some(answer) => answer.await?,
                            None => plain(&path)?,
                        }
                    }
                }
            }
        };
        let answer = if zipped { compressed(answer) } else { answer };
        Ok(if head { answer.map(|_| Reply::empty()) } else { answer })
    }

    async fn resource(self: Rc<Self>, r: Request, query: Query, user: &User, http: hyper::Request<Incoming>) -> Answer {
        if !r.is_allowed() {
            let message = "the server does not allow this method on the requested resource";
            return Err(Failure::new(405, "MethodNotAllowed", message));
        }
        let connects = matches!(r.sub.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy");
        if connects {
            let node = self.node.borrow().clone();
            return match node {
                Some(node) => node.connect(r, http).await,
                None => Err(Failure::new(503, "ServiceUnavailable", "no node here answers this")),
            };
        }
        if r.resource.row().home == Home::Question || (r.sub == "token" && r.verb == "create") {
            return questions::answer(&self, r, user, http).await;
        }
        let accept = header_text(&http, &header::ACCEPT).to_owned();
        let form = Form::of(&accept).ok_or_else(|| not_acceptable(&accept))?;
        match r.verb {
            "list" => lists::list(&self, &r, &query, form),
            "watch" => watches::watch(self, r, &query, form, http.extensions().get().cloned()),
            "get" => self.get(&r, &query, form),
            _ => writes::write(&self, r, query, user, http, form).await,
        }
    }

    fn kubeconfig(&self, query: &Query) -> Answer {
        let issuer = self.issuer.borrow();
        let missing =
            || Failure::new(503, "ServiceUnavailable", "the API has no port: start longshore run with --api-bind-address 127.0.0.1:6443");
        let text = issuer.as_ref().ok_or_else(missing)?.kubeconfig(query)?;
        Ok(with_status(StatusCode::OK, "application/yaml", text))
    }

    fn get(&self, r: &Request, query: &Query, form: Form) -> Answer {
        let store = self.store();
        let entry = store.get(r.resource.kept(), &r.namespace, &r.name).ok_or_else(|| Failure::missing(r.resource.subject(&r.name)))?;
        Ok(match form {
            Form::Whole | Form::Aggregated if r.resource == r.resource.kept() => reply::bytes(entry.bytes.clone()),
            _ => shown(r, entry.object(), query, form),
        })
    }

    fn discover(&self, d: &Discovery, http: &hyper::Request<Incoming>) -> Answer {
        let accept = header_text(http, &header::ACCEPT);
        let form = Form::of(accept).unwrap_or_default();
        let missing = || Failure::no_such_path(http.uri().path());
        let value = match d {
            Discovery::Core | Discovery::Groups if form == Form::Aggregated => {
                let text = serde_json::to_vec(&discovery::aggregated(*d == Discovery::Core)).expect("plain data serialises");
                let kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
                return Ok(with_status(StatusCode::OK, kind, text));
            }
            Discovery::Core => discovery::core(),
            Discovery::Groups => discovery::all(),
            Discovery::Group(group) => discovery::one(group).ok_or_else(missing)?,
            Discovery::Version(group, version) => discovery::version(group, version).ok_or_else(missing)?,
            Discovery::OpenApi => openapi::index(),
            Discovery::OpenApiVersion(group, version) => openapi::document(group, version).ok_or_else(missing)?,
            Discovery::Swagger => return Err(Failure::no_such_path("/openapi/v2; this server describes itself under /openapi/v3")),
        };
        Ok(json(&value))
    }
}

/// One object in the form that is asked for.
pub fn shown(r: &Request, mut object: Value, query: &Query, form: Form) -> Response<Reply> {
    face(r, &mut object);
    json(&match form {
        Form::Table => {
            let revision = object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
            let include = Include::parse(query.get("includeObject"));
            print::table(r.resource, vec![object], &revision, include, true, clock::now().wall)
        }
        Form::Metadata => print::metadata(&object),
        Form::Whole | Form::Aggregated => object,
    })
}

/// An event shows the face of the group that it is asked of.
pub fn face(r: &Request, object: &mut Value) {
    if r.resource != r.resource.kept() {
        crate::api::events::to_events_group(object);
    }
}

fn not_acceptable(accept: &str) -> Failure {
    Failure::new(406, "NotAcceptable", format!("only the following media types are accepted: application/json (asked for: {accept})"))
}

/// What a kind that needs a controller is told, with the way out.
fn controlled(row: usize) -> Failure {
    let (_, _, kind) = CONTROLLED[row];
    Failure::new(405, "MethodNotAllowed", crate::manifest::refusal(kind))
}

fn plain(path: &str) -> Answer {
    let text = |t: &'static str| Ok(with_status(StatusCode::OK, "text/plain; charset=utf-8", t));
    match path {
        "/version" => Ok(json(&version())),
        _ if ["/healthz", "/livez", "/readyz"].iter().any(|p| path == *p || path.starts_with(&format!("{p}/"))) => text("ok"),
        _ => Err(Failure::no_such_path(path)),
    }
}

/// As an API server of the release tells it.
pub fn version() -> Value {
    serde_json::json!({
        "major": "1", "minor": "36", "gitVersion": crate::KUBERNETES_VERSION, "gitCommit": "", "gitTreeState": "clean", "buildDate": "",
        "goVersion": "", "compiler": "rustc", "platform": format!("linux/{}", crate::run::assemble::architecture()),
    })
}

pub fn header_text<'a>(http: &'a hyper::Request<Incoming>, name: &header::HeaderName) -> &'a str {
    http.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

fn compressed(answer: Response<Reply>) -> Response<Reply> {
    let (mut head, body) = answer.into_parts();
    let body = match body {
        Reply::Whole(Some(text)) if text.len() > COMPRESS => {
            let mut zip = flate2::write::GzEncoder::new(Vec::with_capacity(text.len() / 8), flate2::Compression::fast());
            let done = zip.write_all(&text).and_then(|()| zip.finish());
            let zipped: Bytes = done.expect("a vector takes all").into();
            head.headers.insert(header::CONTENT_ENCODING, header::HeaderValue::from_static("gzip"));
            head.headers.insert(header::VARY, header::HeaderValue::from_static("Accept-Encoding"));
            Reply::whole(zipped)
        }
        other => other,
    };
    Response::from_parts(head, body)
}
