//! Requests passed on to a pod or a service: `/api/v1/namespaces/default/pods/web:80/proxy/path`.
//!
//! Only to addresses of pods and services of this node, never to one that a client names.

use super::{Answer, Reply, Server};
use crate::api::resource::{PODS, SERVICES};
use crate::api::{Failure, request};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use longshore_dataplane::wire::{EndpointSlice, Service};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Headers of one hop, which the next must not see, and credentials, which are for this server alone.
const NOT_ON: &[HeaderName] = &[CONNECTION, TRANSFER_ENCODING, UPGRADE, hyper::header::AUTHORIZATION];

/// `name`, `name:port`, `scheme:name:port`
fn parts(text: &str) -> (&str, &str, &str) {
    match text.split(':').collect::<Vec<_>>()[..] {
        [scheme, name, port] => (scheme, name, port),
        [name, port] => ("", name, port),
        _ => ("", text, ""),
    }
}

impl Server {
    pub(super) async fn proxy(self: Rc<Self>, to: request::Request, request: Request<Incoming>) -> Answer {
        let (scheme, name, port) = parts(&to.name);
        if scheme == "https" {
            return Err(Failure::bad_request("https: this node has no authorities of its pods; ask for http"));
        }
        let at = if to.resource == PODS { self.pod(&to.namespace, name, port).await? } else { self.service(&to.namespace, name, port)? };
        pass(at, &to.rest, request).await
    }

    async fn pod(&self, namespace: &str, name: &str, port: &str) -> Result<SocketAddr, Failure> {
        let (of, pod) = (namespace.to_owned(), name.to_owned());
        let found = self.ask(move |n, _| n.by_name(&of, &pod).map(|e| (e.desired.pod.clone(), e.status.clone()))).await?;
        let (pod, status) = found.ok_or_else(|| Failure::missing(PODS.subject(name)))?;
        let ports = || pod.containers().flat_map(|(_, c)| &c.ports);
        let number = match port {
            "" => ports().next().map_or(80, |p| p.container_port),
            text => match text.parse() {
                Ok(n) => n,
                Err(_) => {
                    let named = ports().find(|p| p.name == text).map(|p| p.container_port);
                    named.ok_or_else(|| Failure::bad_request(format!("pod {name:?} has no port {text:?}")))?
                }
            },
        };
        let ip: Option<IpAddr> = status.and_then(|s| s.pod_ip.parse().ok());
        let ip = ip.ok_or_else(|| Failure::new(503, "ServiceUnavailable", format!("pod {name:?} has no address yet")))?;
        Ok(SocketAddr::new(ip, number))
    }

    fn service(&self, namespace: &str, name: &str, port: &str) -> Result<SocketAddr, Failure> {
        let service = self.services.services().into_iter().find(|s| s.metadata.namespace == namespace && s.metadata.name == name);
        let service = service.ok_or_else(|| Failure::missing(SERVICES.subject(name)))?;
        let port = port_name(&service, port).ok_or_else(|| Failure::bad_request(format!("service {name:?} has no port {port:?}")))?;
        let slices = self.services.slices();
        let own = slices.iter().filter(|s| s.metadata.namespace == namespace);
        let of = |s: &&std::sync::Arc<EndpointSlice>| s.metadata.labels.get("kubernetes.io/service-name").is_some_and(|n| n == name);
        let at = own.filter(of).find_map(|s| ready(s, &port));
        at.ok_or_else(|| Failure::new(503, "ServiceUnavailable", format!("no endpoints available for service {name:?}")))
    }
}

fn port_name(service: &Service, wanted: &str) -> Option<String> {
    let all = &service.spec.ports;
    let port = match wanted {
        "" => all.first(),
        text => all.iter().find(|p| p.name == text || p.port.to_string() == text),
    };
    port.map(|p| p.name.clone())
}

fn ready(slice: &EndpointSlice, port: &str) -> Option<SocketAddr> {
    let port = slice.ports.iter().find(|p| p.name.as_deref().unwrap_or_default() == port)?.port?;
    let endpoint = slice.endpoints.iter().find(|e| e.conditions.ready != Some(false))?;
    let ip: IpAddr = endpoint.addresses.first()?.parse().ok()?;
    Some(SocketAddr::new(ip, u16::try_from(port).ok()?))
}

async fn pass(at: SocketAddr, rest: &str, mut request: Request<Incoming>) -> Answer {
    let broken = |e: &dyn std::fmt::Display| Failure::new(503, "ServiceUnavailable", format!("error trying to reach service: {at}: {e}"));
    let connected = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(at)).await;
    let stream = connected.map_err(|e| broken(&e))?.map_err(|e| broken(&e))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a proxied connection broke");
        }
    });
    let query = request.uri().query().map(|q| format!("?{q}")).unwrap_or_default();
    let path = if rest.is_empty() { "/" } else { rest };
    *request.uri_mut() = format!("{path}{query}").parse().map_err(|e| broken(&e))?;
    *request.version_mut() = hyper::Version::HTTP_11;
    for name in NOT_ON {
        request.headers_mut().remove(name);
    }
    request.headers_mut().insert(HOST, HeaderValue::from_str(&at.to_string()).map_err(|e| broken(&e))?);
    let answer = sender.send_request(request).await.map_err(|e| broken(&e))?;
    let (mut head, body) = answer.into_parts();
    for name in [CONNECTION, TRANSFER_ENCODING] {
        head.headers.remove(name);
    }
    Ok(Response::from_parts(head, Reply::Relayed(body)))
}
