//! The port: who is let in by which certificate.

use super::server::{Answer, MAPS, Server, alone, handshake, parts, request, send};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use longshore::api::access::MASTERS;
use longshore::run::api::pki::{Identity, Pki};
use longshore::run::api::{Door, Parts, serve};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

pub struct Port {
    pub pki: Rc<Pki>,
    address: SocketAddr,
    dir: TempDir,
    pub server: Server,
}

/// A server behind a port, and a test for it.
pub fn with_port(mut parts: Parts, test: impl AsyncFnOnce(&Port)) {
    alone(async {
        let dir = tempfile::tempdir().unwrap();
        let pki = Rc::new(Pki::open(dir.path()).unwrap());
        parts.credentials.signer = Some(Rc::new(pki.signer("https://here").unwrap()));
        let own = pki.server(&["localhost".to_owned()], &["127.0.0.1".parse().unwrap()]).unwrap();
        let tls = pki.tls(&own).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::start(parts);
        tokio::task::spawn_local(serve(server.api.clone(), Door::Tls(listener, Arc::new(move || Some(tls.clone())))));
        test(&Port { pki, address, dir, server }).await;
    });
}

impl Port {
    /// `authority` is whom the client takes the server's certificate from.
    async fn connect(&self, authority: &str, own: Option<&Identity>, protocol: &str) -> std::io::Result<TlsStream<TcpStream>> {
        super::tls_client::connect(self.address, authority, own, protocol).await
    }

    async fn send(&self, own: Option<&Identity>, request: hyper::Request<Full<Bytes>>) -> Result<Answer, String> {
        let stream = self.connect(self.pki.certificate(), own, "http/1.1").await.map_err(|e| e.to_string())?;
        let (sender, _connection) = handshake(stream).await;
        send(sender, request).await.map_err(|e| e.to_string())
    }

    pub async fn ask(&self, token: Option<&str>, method: &str, path: &str, kind: &str, body: &str) -> Answer {
        let mut r = request(method, path, kind, body.to_owned());
        if let Some(token) = token {
            r.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        self.send(None, r).await.unwrap()
    }

    pub async fn get(&self, token: &str, path: &str) -> Answer {
        self.ask(Some(token), "GET", path, "", "").await
    }

    pub async fn post(&self, token: &str, path: &str, body: &Value) -> Answer {
        self.ask(Some(token), "POST", path, "application/json", &body.to_string()).await
    }

    pub async fn delete(&self, token: &str, path: &str) -> Answer {
        self.ask(Some(token), "DELETE", path, "", "").await
    }

    /// As the owner of a certificate.
    pub async fn write(&self, own: &Identity, method: &str, path: &str, body: &Value) -> Answer {
        self.send(Some(own), request(method, path, "application/json", body.to_string())).await.unwrap()
    }

    /// Who the server takes the owner of a certificate for.
    pub async fn name(&self, own: Option<&Identity>) -> Result<Answer, String> {
        self.send(own, request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", "application/json", "{}")).await
    }
}

const HOUR: Duration = Duration::from_secs(3600);

/// A certificate of the authority in that directory that is good no longer, or not yet, or not for clients.
fn odd(dir: &Path, shape: impl FnOnce(&mut CertificateParams)) -> Identity {
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let authority = Issuer::from_ca_cert_pem(&read("ca.crt"), KeyPair::from_pem(&read("ca.key")).unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "alice");
    params.distinguished_name.push(DnType::OrganizationName, MASTERS);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    shape(&mut params);
    Identity { certificate: params.signed_by(&key, &authority).unwrap().pem(), key: key.serialize_pem() }
}

#[test]
fn a_certificate_of_the_authority_is_its_name_and_groups() {
    with_port(parts(), async |port: &Port| {
        let alice = port.pki.client("alice", &["ops", "dev"], HOUR).unwrap();
        let known = port.name(Some(&alice)).await.unwrap().ok()["status"]["userInfo"].clone();
        assert_eq!((&known["username"], &known["groups"]), (&json!("alice"), &json!(["ops", "dev", "system:authenticated"])));
        let get = || request("GET", MAPS, "", "");
        port.send(Some(&alice), get()).await.unwrap().refused(403, "Forbidden");
        let admin = port.pki.client("kubernetes-admin", &[MASTERS], HOUR).unwrap();
        port.send(Some(&admin), get()).await.unwrap().ok();
        port.name(None).await.unwrap().refused(401, "Unauthorized");
        let usual = odd(port.dir.path(), |_| {});
        port.send(Some(&usual), get()).await.unwrap().ok();
    });
}

#[test]
fn a_certificate_carries_any_number_of_groups() {
    with_port(parts(), async |port: &Port| {
        for count in [0, 1, 3, 200] {
            let groups: Vec<String> = (0..count).map(|n| format!("team:{n} ß")).collect();
            let own = port.pki.client("alice", &groups.iter().map(String::as_str).collect::<Vec<_>>(), HOUR).unwrap();
            let known = port.name(Some(&own)).await.unwrap().ok()["status"]["userInfo"]["groups"].clone();
            let wanted: Vec<String> = groups.into_iter().chain(["system:authenticated".to_owned()]).collect();
            assert_eq!(known, json!(wanted));
        }
    });
}

#[test]
fn other_certificates_do_not_get_through_the_handshake() {
    with_port(parts(), async |port: &Port| {
        let elsewhere = tempfile::tempdir().unwrap();
        let other = Pki::open(elsewhere.path()).unwrap();
        let own = port.dir.path();
        let year = |y| rcgen::date_time_ymd(y, 1, 1);
        for (what, identity) in [
            ("another authority's", other.client("alice", &[MASTERS], HOUR).unwrap()),
            ("expired", odd(own, |p| p.not_after = year(2020))),
            ("not yet good", odd(own, |p| p.not_before = year(2100))),
            ("a server's", odd(own, |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])),
        ] {
            assert!(port.name(Some(&identity)).await.is_err(), "{what}");
        }
        assert!(port.connect(other.certificate(), None, "http/1.1").await.is_err(), "the client sees that it is another server");
        port.name(Some(&odd(own, |_| {}))).await.unwrap().ok();
    });
}

#[test]
fn http_2_carries_many_requests_on_one_connection() {
    with_port(parts(), async |port: &Port| {
        let admin = port.pki.client("kubernetes-admin", &[MASTERS], HOUR).unwrap();
        let stream = port.connect(port.pki.certificate(), Some(&admin), "h2").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::task::spawn_local(connection);
        let one = async |n: usize| {
            let name = format!("n{n}");
            let mut r = request("POST", "/api/v1/namespaces", "application/json", json!({"metadata": {"name": name}}).to_string());
            r.headers_mut().remove("host");
            *r.uri_mut() = format!("https://localhost{}", r.uri().path()).parse().unwrap();
            let response = sender.clone().send_request(r).await.unwrap();
            let status = response.status();
            let body: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
            assert_eq!((status.as_u16(), body["metadata"]["name"].as_str()), (201, Some(name.as_str())));
        };
        futures_util::future::join_all((0..50).map(one)).await;
    });
}

#[test]
fn whoever_comes_in_and_says_nothing_is_sent_away() {
    let mut parts = parts();
    parts.limits.greeting = Duration::from_millis(100);
    with_port(parts, async |port: &Port| {
        use tokio::io::AsyncReadExt as _;
        let mut told = Vec::new();
        for protocol in ["http/1.1", "h2"] {
            let mut quiet = port.connect(port.pki.certificate(), None, protocol).await.unwrap();
            let _ = quiet.read_to_end(&mut told).await;
        }
        let mut stranger = TcpStream::connect(port.address).await.unwrap();
        assert_eq!(stranger.read(&mut [0; 16]).await.unwrap_or(0), 0, "not even a handshake");
    });
}
