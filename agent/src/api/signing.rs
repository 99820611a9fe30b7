//! Requests for certificates: which signer may sign what, in the rules of the signers that every cluster has.
//!
//! Must never sign nor look anything up: an approved request comes in, and what is to be certified goes out, or why it is
//! not. Tests: at the end of this file.

use super::access::NODE_GROUP;
use crate::manifest::problem::{Faults, Path};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::time::Duration;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub const KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub const SERVING: &str = "kubernetes.io/kubelet-serving";
const NODE_PREFIX: &str = "system:node:";
/// Nobody asks for less.
const LEAST_SECONDS: i64 = 600;
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// What a request asks to be certified, once its signature was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Name and SubjectPublicKeyInfo in DER.
    pub subject: Vec<u8>,
    pub key: Vec<u8>,
    pub user: String,
    pub groups: Vec<String>,
    /// GeneralNames in DER; empty: none.
    pub names: Vec<u8>,
    /// By what they are: DNS names and addresses; others.
    hosts: usize,
    others: usize,
}

/// What is to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certify {
    pub wanted: Wanted,
    pub encipherment: bool,
    pub server: bool,
    pub life: Duration,
}

/// Reads a request in PEM and checks that whoever made it has the key.
pub fn read(pem: &[u8]) -> Result<Wanted, String> {
    let text = std::str::from_utf8(pem).map_err(|_| "it is no PEM".to_owned())?;
    let (_, block) = x509_parser::pem::parse_x509_pem(text.as_bytes()).map_err(|_| "it is no PEM block".to_owned())?;
    if !matches!(block.label.as_str(), "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") {
        return Err("PEM block type must be CERTIFICATE REQUEST".into());
    }
    let (rest, csr) = X509CertificationRequest::from_der(&block.contents).map_err(|e| format!("x509: {e}"))?;
    if !rest.is_empty() {
        return Err("x509: something follows the request".into());
    }
    csr.verify_signature().map_err(|_| "x509: the signature is not that of the key in the request".to_owned())?;
    let info = &csr.certification_request_info;
    let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        a.as_str().map(str::to_owned).map_err(|_| "x509: a name that is no text".to_owned())
    };
    let mut wanted = Wanted {
        subject: info.subject.as_raw().to_vec(),
        key: info.subject_pki.raw.to_vec(),
        user: info.subject.iter_common_name().next().map(text).transpose()?.unwrap_or_default(),
        groups: info.subject.iter_organization().map(text).collect::<Result<_, _>>()?,
        ..Wanted::default()
    };
    for attribute in info.iter_attributes() {
        let ParsedCriAttribute::ExtensionRequest(request) = attribute.parsed_attribute() else { continue };
        for extension in &request.extensions {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => {
                    wanted.names = extension.value.to_vec();
                    let is_host = |n: &&GeneralName<'_>| matches!(n, GeneralName::DNSName(_) | GeneralName::IPAddress(_));
                    wanted.hosts += names.general_names.iter().filter(is_host).count();
                    wanted.others += names.general_names.iter().filter(|n| !is_host(n)).count();
                }
                ParsedExtension::BasicConstraints(c) if c.ca => return Err("a certificate for an authority is not signed here".into()),
                _ => {}
            }
        }
    }
    Ok(wanted)
}

fn texts(v: &Value) -> Vec<&str> {
    v.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn pem(object: &Value) -> Vec<u8> {
    STANDARD.decode(object["spec"]["request"].as_str().unwrap_or_default()).unwrap_or_default()
}

/// What an API server refuses of a new request.
pub fn check(object: &Value) -> Faults {
    let mut out = Faults::default();
    let spec = Path::root("spec");
    if let Err(why) = read(&pem(object)) {
        out.invalid(&spec.child("request"), object["spec"]["request"].as_str().unwrap_or_default(), &why);
    }
    let usages = texts(&object["spec"]["usages"]);
    if usages.is_empty() {
        out.required(&spec.child("usages"), "");
    }
    for (i, usage) in usages.iter().enumerate() {
        let path = spec.child("usages").index(i);
        match () {
            () if !USAGES.contains(usage) => out.unsupported(&path, usage, USAGES),
            () if usages[..i].contains(usage) => out.duplicate(&path, usage),
            () => {}
        }
    }
    let signer = object["spec"]["signerName"].as_str().unwrap_or_default();
    match signer.split_once('/') {
        _ if signer.is_empty() => out.required(&spec.child("signerName"), ""),
        Some((domain, name)) if domain.contains('.') && !name.is_empty() => {}
        _ => out.invalid(
            &spec.child("signerName"),
            signer,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ),
    }
    if let Some(seconds) = object["spec"]["expirationSeconds"].as_i64().filter(|s| *s < LEAST_SECONDS) {
        out.invalid_number(&spec.child("expirationSeconds"), seconds, "may not specify a duration less than 600 seconds (10 minutes)");
    }
    out
}

/// Whether nobody may ask for this: the group that may do everything is given by hand alone.
pub fn is_too_much(object: &Value) -> bool {
    object["spec"]["signerName"] == CLIENT && read(&pem(object)).is_ok_and(|w| w.groups.iter().any(|g| g == super::access::MASTERS))
}

pub fn has(object: &Value, condition: &str) -> bool {
    object["status"]["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == condition)
}

/// What to sign for a request. None: it is not approved, is done with, or for another signer. An error: why it is never
/// signed. `most` is how long certificates are good at most.
pub fn certify(object: &Value, most: Duration) -> Option<Result<Certify, String>> {
    let open = has(object, "Approved") && !has(object, "Denied") && !has(object, "Failed");
    let signer = object["spec"]["signerName"].as_str()?;
    if !open || object["status"]["certificate"].as_str().is_some_and(|c| !c.is_empty()) || ![CLIENT, KUBELET, SERVING].contains(&signer) {
        return None;
    }
    Some(allowed(signer, object).map(|(wanted, encipherment)| {
        let asked = object["spec"]["expirationSeconds"].as_u64().map(Duration::from_secs);
        Certify { wanted, encipherment, server: signer == SERVING, life: asked.map_or(most, |a| a.min(most)) }
    }))
}

fn allowed(signer: &str, object: &Value) -> Result<(Wanted, bool), String> {
    let wanted = read(&pem(object))?;
    let usages = texts(&object["spec"]["usages"]);
    let own = if signer == SERVING { "server auth" } else { "client auth" };
    let others = ["digital signature", "key encipherment"];
    if !usages.contains(&own) || usages.iter().any(|u| *u != own && !others.contains(u)) {
        return Err(format!("usages did not match {own:?} with none but {}", others.join(", ")));
    }
    if signer != CLIENT {
        if !usages.contains(&"digital signature") {
            return Err("usages did not match \"digital signature\"".into());
        }
        if wanted.groups != [NODE_GROUP] {
            return Err(format!("organization is not {NODE_GROUP}"));
        }
        if wanted.user.strip_prefix(NODE_PREFIX).is_none_or(str::is_empty) {
            return Err(format!("subject common name does not begin with {NODE_PREFIX}"));
        }
    }
    match signer {
        KUBELET if wanted.hosts + wanted.others > 0 => Err("subjectAltName is not allowed".into()),
        SERVING if wanted.others > 0 => Err("only DNS and IP subjectAltNames are allowed".into()),
        SERVING if wanted.hosts == 0 => Err("DNS or IP subjectAltName is required".into()),
        CLIENT if wanted.user.is_empty() => Err("subject common name is required".into()),
        _ => Ok((wanted, usages.contains(&"key encipherment"))),
    }
}

/// Whether a node that joins, or renews what it has, asks for a certificate of its own.
pub fn is_of_a_node(object: &Value) -> bool {
    let undecided = !has(object, "Approved") && !has(object, "Denied") && !has(object, "Failed");
    if !undecided || object["spec"]["signerName"] != KUBELET {
        return false;
    }
    let asks = object["spec"]["username"].as_str().unwrap_or_default();
    let joins = texts(&object["spec"]["groups"]).contains(&super::access::BOOTSTRAP);
    allowed(KUBELET, object).is_ok_and(|(wanted, _)| joins || wanted.user == asks)
}

/// The conditions of a request after somebody decided, from what he sent.
pub fn decided(object: &Value, old: &Value, now: &str) -> Result<Value, Faults> {
    let path = Path::root("status").child("conditions");
    let mut faults = Faults::default();
    let list = |o: &Value| o["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let (mut new, was) = (list(object), list(old));
    for kind in ["Approved", "Denied"] {
        if has(old, kind) && !has(object, kind) {
            faults.forbidden(&path, &format!("updates may not remove a condition of type {kind:?}"));
        }
    }
    if has(object, "Approved") && has(object, "Denied") {
        faults.invalid(&path, "Denied", "Approved and Denied conditions are mutually exclusive");
    }
    for (i, condition) in new.iter_mut().enumerate() {
        let kind = condition["type"].as_str().unwrap_or_default().to_owned();
        if matches!(kind.as_str(), "Approved" | "Denied" | "Failed") && condition["status"] != "True" {
            faults.unsupported(&path.index(i).child("status"), condition["status"].as_str().unwrap_or_default(), &["True"]);
        }
        let known = was.iter().find(|c| c["type"] == condition["type"]);
        for field in ["lastUpdateTime", "lastTransitionTime"] {
            if condition[field].is_null() {
                condition[field] = known.map(|c| c[field].clone()).filter(|t| !t.is_null()).unwrap_or_else(|| now.into());
            }
        }
    }
    if faults.0.is_empty() { Ok(new.into()) } else { Err(faults) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, SanType};
    use serde_json::json;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    fn pem_of(user: &str, group: &str, names: &[SanType], ca: bool) -> String {
        let mut p = CertificateParams::default();
        p.distinguished_name.push(DnType::CommonName, user);
        p.distinguished_name.push(DnType::OrganizationName, group);
        p.subject_alt_names = names.to_vec();
        if ca {
            p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        p.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    }

    fn request(signer: &str, usages: &[&str], pem: &str) -> Value {
        json!({"metadata": {"name": "r"}, "spec": {"signerName": signer, "usages": usages, "request": STANDARD.encode(pem)},
            "status": {"conditions": [{"type": "Approved", "status": "True"}]}})
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    #[test]
    fn each_signer_signs_what_is_its_own() {
        let (node, client, server) = ("system:node:n", ["digital signature", "client auth"], ["digital signature", "server auth"]);
        let mail = SanType::Rfc822Name("a@b.c".try_into().unwrap());
        let ip = SanType::IpAddress("10.0.0.1".parse().unwrap());
        let cases: &[(&str, &[&str], String, &str)] = &[
            (CLIENT, &client, pem_of("alice", "ops", &[], false), ""),
            (CLIENT, &["client auth"], pem_of("alice", "ops", &[dns("a.b")], false), ""),
            (CLIENT, &["client auth", "key encipherment"], pem_of("alice", "ops", &[], false), ""),
            (CLIENT, &["client auth", "server auth"], pem_of("alice", "ops", &[], false), "usages did not match"),
            (CLIENT, &["digital signature"], pem_of("alice", "ops", &[], false), "usages did not match"),
            (CLIENT, &client, pem_of("alice", "ops", &[], true), "a certificate for an authority"),
            (KUBELET, &client, pem_of(node, NODE_GROUP, &[], false), ""),
            (KUBELET, &["client auth"], pem_of(node, NODE_GROUP, &[], false), "digital signature"),
            (KUBELET, &server, pem_of(node, NODE_GROUP, &[], false), "usages did not match"),
            (KUBELET, &client, pem_of(node, "ops", &[], false), "organization is not system:nodes"),
            (KUBELET, &client, pem_of("alice", NODE_GROUP, &[], false), "does not begin with system:node:"),
            (KUBELET, &client, pem_of("system:node:", NODE_GROUP, &[], false), "does not begin with system:node:"),
            (KUBELET, &client, pem_of(node, NODE_GROUP, &[dns("a.b")], false), "subjectAltName is not allowed"),
            (SERVING, &server, pem_of(node, NODE_GROUP, &[dns("a.b"), ip.clone()], false), ""),
            (SERVING, &server, pem_of(node, NODE_GROUP, &[], false), "DNS or IP subjectAltName is required"),
            (SERVING, &server, pem_of(node, NODE_GROUP, &[ip, mail], false), "only DNS and IP"),
            (SERVING, &client, pem_of(node, NODE_GROUP, &[dns("a.b")], false), "usages did not match"),
        ];
        for (signer, usages, pem, want) in cases {
            let told = certify(&request(signer, usages, pem), YEAR).unwrap();
            match (want.is_empty(), told) {
                (true, Ok(c)) => assert_eq!((c.server, c.life), (*signer == SERVING, YEAR)),
                (false, Err(why)) => assert!(why.contains(want), "{signer} {usages:?}: {why}"),
                (_, other) => panic!("{signer} {usages:?} {want}: {other:?}"),
            }
        }
    }

    #[test]
    fn nothing_is_signed_that_is_not_approved_or_is_done_with_or_for_somebody_else() {
        let good = request(CLIENT, &["client auth"], &pem_of("alice", "ops", &[], false));
        let with = |pointer: &str, value: Value| {
            let mut o = good.clone();
            *o.pointer_mut(pointer).unwrap() = value;
            o
        };
        assert!(certify(&good, YEAR).is_some());
        assert_eq!(certify(&with("/status/conditions", json!([])), YEAR), None);
        for kind in ["Denied", "Failed"] {
            let both = json!([{"type": "Approved", "status": "True"}, {"type": kind, "status": "True"}]);
            assert_eq!(certify(&with("/status/conditions", both), YEAR), None);
        }
        assert_eq!(certify(&with("/spec/signerName", "example.com/own".into()), YEAR), None);
        let mut done = good.clone();
        done["status"]["certificate"] = "x".into();
        assert_eq!(certify(&done, YEAR), None);
        let mut short = good.clone();
        short["spec"]["expirationSeconds"] = 3600.into();
        assert_eq!(certify(&short, YEAR).unwrap().unwrap().life, Duration::from_secs(3600));
    }

    #[test]
    fn a_request_that_is_none_is_told() {
        let pem = pem_of("alice", "ops", &[], false);
        let mut forged = STANDARD.decode(pem.lines().filter(|l| !l.starts_with('-')).collect::<String>()).unwrap();
        // A letter of the name, which the signature covers.
        let at = forged.windows(5).position(|w| w == b"alice").unwrap();
        forged[at] = b'b';
        let forged = format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", STANDARD.encode(&forged));
        for (text, want) in [
            ("", "no PEM"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "PEM block type must be CERTIFICATE REQUEST"),
            ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "x509"),
            (&forged, "the signature is not that of the key"),
        ] {
            assert!(read(text.as_bytes()).unwrap_err().contains(want), "{text}: {:?}", read(text.as_bytes()));
        }
        let faults = |o: &Value| check(o).0.iter().map(|f| format!("{}: {}", f.field, f.message)).collect::<Vec<_>>().join("; ");
        assert_eq!(faults(&request(CLIENT, &["client auth"], &pem)), "");
        let mut bad = request("local", &["client auth", "client auth", "everything"], "");
        bad["spec"]["expirationSeconds"] = 60.into();
        let told = faults(&bad);
        for want in [
            "spec.request: Invalid value",
            "spec.usages[1]: Duplicate value",
            "spec.usages[2]: Unsupported value: \"everything\"",
            "spec.signerName: Invalid value: \"local\"",
            "spec.expirationSeconds: Invalid value: 60",
        ] {
            assert!(told.contains(want), "{told}");
        }
        assert!(is_too_much(&request(CLIENT, &["client auth"], &pem_of("eve", super::super::access::MASTERS, &[], false))));
    }

    #[test]
    fn only_nodes_that_join_or_renew_are_let_in_unseen() {
        let mut r = request(KUBELET, &["digital signature", "client auth"], &pem_of("system:node:n", NODE_GROUP, &[], false));
        r["status"] = json!({});
        for (user, groups, may) in [
            ("system:bootstrap:abc", vec!["system:bootstrappers"], true),
            ("system:node:n", vec![NODE_GROUP], true),
            ("system:node:other", vec![NODE_GROUP], false),
            ("alice", vec!["ops"], false),
        ] {
            r["spec"]["username"] = user.into();
            r["spec"]["groups"] = json!(groups);
            assert_eq!(is_of_a_node(&r), may, "{user}");
        }
        r["spec"]["username"] = "system:node:n".into();
        r["spec"]["signerName"] = SERVING.into();
        assert!(!is_of_a_node(&r), "addresses are looked at by somebody");
    }

    #[test]
    fn what_was_decided_stays_decided() {
        let old = request(CLIENT, &["client auth"], "");
        let mut new = old.clone();
        new["status"]["conditions"] = json!([{"type": "Denied", "status": "True"}]);
        assert!(decided(&new, &old, "t").unwrap_err().0[0].message.contains("may not remove a condition of type \"Approved\""));
        new["status"]["conditions"] = json!([{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]);
        assert!(decided(&new, &old, "t").unwrap_err().0[0].message.contains("mutually exclusive"));
        let fresh = json!({"status": {}});
        assert_eq!(decided(&old, &fresh, "t").unwrap()[0]["lastTransitionTime"], "t");
        new["status"]["conditions"] = json!([{"type": "Approved", "status": "False"}]);
        assert!(decided(&new, &fresh, "t").unwrap_err().0[0].message.contains("supported values: \"True\""));
    }
}
