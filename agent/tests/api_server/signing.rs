//! Requests for certificates: from a key to a name that the port knows.

use super::server::{Server, parts};
use super::tls::{Port, with_port};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use longshore::api::access::{MASTERS, NODE_GROUP, User};
use longshore::run::api::auth::Credentials;
use longshore::run::api::pki::Identity;
use longshore::run::api::signing::Approval;
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING: &str = "kubernetes.io/kubelet-serving";

fn request(name: &str, signer: &str, user: &str, group: &str, names: &[&str], usage: &str) -> (Value, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut p = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
    p.distinguished_name.push(DnType::CommonName, user);
    p.distinguished_name.push(DnType::OrganizationName, group);
    let pem = p.serialize_request(&key).unwrap().pem().unwrap();
    let spec = json!({"signerName": signer, "usages": ["digital signature", usage], "request": BASE64_STANDARD.encode(pem)});
    (json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name}, "spec": spec}), key)
}

/// As `kubectl certificate approve` does it.
async fn decide(server: &Server, name: &str, kind: &str) -> Value {
    let mut object = server.get(&format!("{REQUESTS}/{name}")).await.ok();
    object["status"]["conditions"] = json!([{"type": kind, "status": "True", "reason": "KubectlApprove", "message": "by hand"}]);
    server.put(&format!("{REQUESTS}/{name}/approval"), &object).await.ok()
}

/// Once it says so.
async fn until(server: &Server, name: &str, is: impl Fn(&Value) -> bool) -> Value {
    let mut watch = server.watch(&format!("{REQUESTS}?watch=1&fieldSelector=metadata.name%3D{name}")).await;
    loop {
        let event = watch.next().await.unwrap();
        if is(&event.object) {
            return event.object;
        }
    }
}

fn is_issued(object: &Value) -> bool {
    object["status"]["certificate"].is_string()
}

fn identity(object: &Value, key: &KeyPair) -> Identity {
    let certificate = BASE64_STANDARD.decode(object["status"]["certificate"].as_str().unwrap()).unwrap();
    Identity { certificate: String::from_utf8(certificate).unwrap(), key: key.serialize_pem() }
}

#[test]
fn an_approved_request_becomes_a_certificate_that_opens_the_door() {
    with_port(parts(), async |port: &Port| {
        let server = &port.server;
        server.api.sign_requests(port.pki.clone(), Approval::ByHand);
        // A kubelet's names are no names of hosts.
        for (name, signer, user, group) in [("alice", CLIENT, "alice", "ops"), ("node-csr-A_b-", KUBELET, "system:node:n1", NODE_GROUP)] {
            let (object, key) = request(name, signer, user, group, &[], "client auth");
            let made = server.post(REQUESTS, &object).await.ok();
            assert_eq!((&made["spec"]["username"], &made["spec"]["groups"][0]), (&json!("root"), &json!(MASTERS)));
            let approved = decide(server, name, "Approved").await;
            assert!(approved["status"]["conditions"][0]["lastTransitionTime"].is_string() && !is_issued(&approved), "{approved}");
            let issued = until(server, name, is_issued).await;
            let known = port.name(Some(&identity(&issued, &key))).await.unwrap().ok();
            assert_eq!(
                (&known["status"]["userInfo"]["username"], &known["status"]["userInfo"]["groups"][0]),
                (&json!(user), &json!(group))
            );
            let mut other = issued.clone();
            other["status"]["certificate"] = "eA==".into();
            let told = server.put(&format!("{REQUESTS}/{name}/status"), &other).await.refused(422, "Invalid");
            assert!(told.contains("may not set certificate content to different values"), "{told}");
        }
    });
}

#[test]
fn a_certificate_for_serving_names_the_hosts_and_opens_no_door() {
    with_port(parts(), async |port: &Port| {
        let server = &port.server;
        server.api.sign_requests(port.pki.clone(), Approval::OfNodes);
        let (object, key) = request("serving", SERVING, "system:node:n1", NODE_GROUP, &["n1.example", "10.0.0.1"], "server auth");
        server.post(REQUESTS, &object).await.ok();
        decide(server, "serving", "Approved").await;
        let own = identity(&until(server, "serving", is_issued).await, &key);
        let der = CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap();
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
        let names: Vec<String> =
            certificate.subject_alternative_name().unwrap().unwrap().value.general_names.iter().map(|n| n.to_string()).collect();
        assert!(names.len() == 2 && names[0].contains("n1.example"), "{names:?}");
        assert!(certificate.extended_key_usage().unwrap().unwrap().value.server_auth);
        assert!(port.name(Some(&own)).await.is_err(), "it is no client's");
        // The port itself could serve with it.
        longshore::run::api::pki::tls(&own, port.pki.certificate(), std::path::Path::new("x")).unwrap();
    });
}

#[test]
fn what_is_denied_wrong_or_for_another_signer_gets_none() {
    with_port(parts(), async |port: &Port| {
        let server = &port.server;
        server.api.sign_requests(port.pki.clone(), Approval::ByHand);
        let post = async |name: &str, signer: &str, user: &str, group: &str| {
            let (object, _) = request(name, signer, user, group, &[], "client auth");
            server.post(REQUESTS, &object).await
        };
        for (name, signer) in [("denied", CLIENT), ("elsewhere", "example.com/own"), ("waiting", CLIENT)] {
            post(name, signer, "alice", "ops").await.ok();
        }
        post("stranger", KUBELET, "alice", NODE_GROUP).await.ok();
        decide(server, "denied", "Denied").await;
        decide(server, "elsewhere", "Approved").await;
        decide(server, "stranger", "Approved").await;
        let failed = until(server, "stranger", |o| o["status"]["conditions"][1]["type"] == "Failed").await;
        let condition = &failed["status"]["conditions"][1];
        assert_eq!(condition["reason"], "SignerValidationFailure");
        assert!(condition["message"].as_str().unwrap().contains("does not begin with system:node:"), "{condition}");
        // It was looked at last, so the others have been.
        for object in server.get(REQUESTS).await.ok()["items"].as_array().unwrap() {
            assert!(!is_issued(object), "{object}");
        }
        let told = post("master", CLIENT, "eve", MASTERS).await.refused(403, "Forbidden");
        assert!(told.contains("with system:masters group is not allowed"), "{told}");
        let mut undone = server.get(&format!("{REQUESTS}/denied")).await.ok();
        undone["status"]["conditions"] = json!([]);
        let told = server.put(&format!("{REQUESTS}/denied/approval"), &undone).await.refused(422, "Invalid");
        assert!(told.contains("may not remove a condition of type \"Denied\""), "{told}");
        let mut quiet = server.get(&format!("{REQUESTS}/waiting")).await.ok();
        quiet["status"]["conditions"] = json!([{"type": "Approved", "status": "True"}]);
        let told = server.put(&format!("{REQUESTS}/waiting/status"), &quiet).await.refused(422, "Invalid");
        assert!(told.contains("may not add a condition of type \"Approved\""), "{told}");
        quiet["spec"]["username"] = "system:admin".into();
        assert_eq!(server.put(&format!("{REQUESTS}/waiting"), &quiet).await.ok()["spec"]["username"], "root");
        server.post(REQUESTS, &json!({"metadata": {"name": "empty"}, "spec": {}})).await.refused(422, "Invalid");
    });
}

#[test]
fn a_node_that_joins_gets_its_certificate_by_itself_and_renews_it() {
    let mut parts = parts();
    let people = [("t-join", User::new("system:bootstrap:abcdef", &["system:bootstrappers"]))];
    parts.credentials = Credentials::with_tokens(people.map(|(token, user)| (token.to_owned(), user)));
    with_port(parts, async |port: &Port| {
        let server = &port.server;
        server.api.sign_requests(port.pki.clone(), Approval::OfNodes);
        let (object, key) = request("join", KUBELET, "system:node:n1", NODE_GROUP, &[], "client auth");
        port.post("t-join", REQUESTS, &object).await.ok();
        let issued = until(server, "join", is_issued).await;
        assert_eq!(issued["status"]["conditions"][0]["reason"], "AutoApproved");
        let own = identity(&issued, &key);
        let (object, key) = request("renew", KUBELET, "system:node:n1", NODE_GROUP, &[], "client auth");
        port.write(&own, "POST", REQUESTS, &object).await.ok();
        let renewed = identity(&until(server, "renew", is_issued).await, &key);
        port.name(Some(&renewed)).await.unwrap().ok();
        // It may neither approve nor ask for another's.
        let (object, _) = request("other", KUBELET, "system:node:n2", NODE_GROUP, &[], "client auth");
        let mut other = port.write(&own, "POST", REQUESTS, &object).await.ok();
        other["status"] = json!({"conditions": [{"type": "Approved", "status": "True"}]});
        port.write(&own, "PUT", &format!("{REQUESTS}/other/approval"), &other).await.refused(403, "Forbidden");
        let (object, _) = request("last", KUBELET, "system:node:n1", NODE_GROUP, &[], "client auth");
        port.write(&own, "POST", REQUESTS, &object).await.ok();
        until(server, "last", is_issued).await;
        assert!(!is_issued(&server.get(&format!("{REQUESTS}/other")).await.ok()));
    });
}
