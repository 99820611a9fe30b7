//! The port's certificate and its clients' authorities change while it runs.

use super::lab::{Port, Who, issue, talk, token, with_port};
use longshore::run::api::pki::{Identity, Pki};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::path::Path;
use std::time::Duration;

fn authority() -> (String, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut p = CertificateParams::default();
    p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = p.self_signed(&key).unwrap().pem();
    (pem, Issuer::new(p, key))
}

/// The port looks at its files now and then.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

#[test]
fn other_authorities_of_clients_need_no_restart() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("clients.crt");
    let ((first, old), (second, new)) = (authority(), authority());
    std::fs::write(&file, &first).unwrap();
    with_port(
        |c| c.authentication.x509.client_ca_file = file.to_str().unwrap().into(),
        async |port| {
            let who = |by| Who { certificate: Some(issue(by, |_| {})), ..Who::default() };
            let (before, after) = (who(&old), who(&new));
            assert_eq!((port.get(&before, "/pods").await.status, port.get(&after, "/pods").await.status), (200, 401));
            // Both, as an authority is replaced; then the new one alone.
            std::fs::write(&file, first.clone() + &second).unwrap();
            until("the new authority is believed", async || port.get(&after, "/pods").await.status == 200).await;
            assert_eq!(port.get(&before, "/pods").await.status, 200);
            std::fs::write(&file, &second).unwrap();
            until("the old one is not believed any more", async || port.get(&before, "/pods").await.status == 401).await;
            // What is torn changes nothing.
            std::fs::write(&file, "-----BEGIN CERTIFICATE-----\ntorn\n-----END CERTIFICATE-----\n").unwrap();
            tokio::time::sleep(Duration::from_millis(1200)).await;
            assert_eq!(port.get(&after, "/pods").await.status, 200);
        },
    );
}

#[test]
fn a_certificate_that_ends_in_the_middle_of_a_connection_ends_what_it_may_do() {
    with_port(
        |_| {},
        async |port| {
            let now = std::time::SystemTime::now();
            let who = port.forged(|p| {
                p.not_before = (now - Duration::from_secs(60)).into();
                p.not_after = (now + Duration::from_secs(4)).into();
            });
            let stream = port.connect(who.certificate.as_ref(), "http/1.1").await.unwrap();
            let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
            tokio::task::spawn_local(connection);
            let mut told = Vec::new();
            while told.last() != Some(&401) {
                sender.ready().await.unwrap();
                let answer = sender.send_request(who.request("GET", "/metrics/slis")).await.unwrap();
                told.push(answer.status().as_u16());
                http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert_eq!(told[0], 200);
        },
    );
}

fn serve(dir: &Path, pki: &Pki) -> Identity {
    let own = pki.server(&["localhost".to_owned()], &["127.0.0.1".parse().unwrap()]).unwrap();
    std::fs::write(dir.join("tls.key"), &own.key).unwrap();
    std::fs::write(dir.join("tls.crt"), &own.certificate).unwrap();
    own
}

#[test]
fn another_serving_certificate_needs_no_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Pki::open(&dir.path().join("a")).unwrap(), Pki::open(&dir.path().join("b")).unwrap());
    serve(dir.path(), &first);
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    with_port(
        |c| (c.tls_cert_file, c.tls_private_key_file) = (path("tls.crt"), path("tls.key")),
        async |port: &Port| {
            let kept = port.trusting(first.certificate(), None, "http/1.1").await.unwrap();
            assert!(port.trusting(second.certificate(), None, "http/1.1").await.is_err());
            serve(dir.path(), &second);
            until("the new certificate is shown", async || port.trusting(second.certificate(), None, "http/1.1").await.is_ok()).await;
            // Who is there stays.
            let answer = talk(kept, token("t-admin").request("GET", "/pods")).await.unwrap();
            assert_eq!(answer.status, 200);
            std::fs::write(path("tls.crt"), "torn").unwrap();
            tokio::time::sleep(Duration::from_millis(1200)).await;
            assert!(port.trusting(second.certificate(), None, "http/1.1").await.is_ok(), "what is torn changes nothing");
        },
    );
}
