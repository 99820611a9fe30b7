//! What a node says to have a certificate signed, and what it reads in the answers.
//!
//! Must never send anything. Tests: at the end of this file.

use super::certificate::{self, Wish};
use crate::api::signing::{self, has};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha512_256};
use x509_parser::extensions::SubjectAlternativeName;
use x509_parser::prelude::FromDer as _;

pub const PATH: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// A name that says what is asked for, so that whoever asks again for the same with the same key (SubjectPublicKeyInfo in
/// DER) finds what he asked for before. The kubelet's, to the letter.
pub fn name(wish: &Wish, key: &[u8]) -> String {
    let mut hash = Sha512_256::new();
    let parts = [key, wish.user.as_bytes(), Wish::GROUP.as_bytes()];
    for part in parts.into_iter().chain(wish.purpose.usages().iter().map(|u| u.as_bytes())) {
        hash.update(URL_SAFE_NO_PAD.encode(part));
        hash.update("|");
    }
    format!("node-csr-{}", URL_SAFE_NO_PAD.encode(hash.finalize()))
}

/// The object to create. Without a name the server makes one.
pub fn object(wish: &Wish, name: Option<&str>, pem: &str) -> Value {
    let metadata = name.map_or_else(|| json!({"generateName": "csr-"}), |n| json!({"name": n}));
    json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": metadata,
        "spec": {"request": STANDARD.encode(pem), "signerName": wish.purpose.signer(), "usages": wish.purpose.usages()},
    })
}

/// Whether a request that was there already asks for the same, with our key. The error says what differs.
pub fn is_ours(there: &Value, wish: &Wish, key: &[u8]) -> Result<(), String> {
    if there["spec"]["signerName"] != wish.purpose.signer() {
        return Err(format!("it is for the signer {}", there["spec"]["signerName"]));
    }
    let pem = STANDARD.decode(there["spec"]["request"].as_str().unwrap_or_default()).map_err(|e| e.to_string())?;
    let asked = signing::read(&pem)?;
    if asked.user != wish.user || asked.groups != [Wish::GROUP] {
        return Err(format!("it is for {} in {}", asked.user, asked.groups.join(", ")));
    }
    let hosts = SubjectAlternativeName::from_der(&asked.names).map(|(_, n)| certificate::hosts(&n)).unwrap_or_default();
    if hosts != (wish.dns.clone(), wish.ips.clone()) {
        return Err("it is for other addresses".into());
    }
    if asked.key == key { Ok(()) } else { Err("it is for another key".into()) }
}

/// How far a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody decided yet.
    Open,
    /// It is approved, and the signer has to sign it.
    Approved,
    /// The chain, in PEM.
    Issued(String),
    /// There will be none; why.
    Refused(String),
}

pub fn standing(object: &Value, uid: &str) -> Standing {
    if object["metadata"]["uid"] != uid {
        return Standing::Refused("it was replaced by another of the same name".into());
    }
    let conditions = object["status"]["conditions"].as_array();
    for (kind, word) in [("Denied", "it is denied"), ("Failed", "the signer refused it")] {
        if let Some(c) = conditions.into_iter().flatten().find(|c| c["type"] == kind) {
            let text = |field: &str| c[field].as_str().unwrap_or_default();
            return Standing::Refused(format!("{word}, reason: {}, message: {}", text("reason"), text("message")));
        }
    }
    let issued = object["status"]["certificate"].as_str().unwrap_or_default();
    match (has(object, "Approved"), STANDARD.decode(issued).map(String::from_utf8)) {
        (false, _) => Standing::Open,
        (true, Ok(Ok(pem))) if !pem.is_empty() => Standing::Issued(pem),
        (true, Ok(Ok(_))) => Standing::Approved,
        (true, _) => Standing::Refused("what the signer wrote is no certificate".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData as _};

    fn pem(user: &str, key: &KeyPair) -> String {
        let mut p = CertificateParams::default();
        p.distinguished_name = DistinguishedName::new();
        p.distinguished_name.push(DnType::OrganizationName, Wish::GROUP);
        p.distinguished_name.push(DnType::CommonName, user);
        p.serialize_request(key).unwrap().pem().unwrap()
    }

    #[test]
    fn a_name_is_the_kubelets() {
        // Computed by another program from the kubelet's description of it.
        assert_eq!(name(&Wish::client("n1"), &[1, 2, 3]), "node-csr-uNN2Lx8KE_nW4gFJS9GChI_CrRiDzY_FLfSe--SP1r4");
        assert_ne!(name(&Wish::client("n1"), &[1]), name(&Wish::client("n2"), &[1]));
    }

    #[test]
    fn a_request_that_was_there_must_be_ours() {
        let (ours, others) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let wish = Wish::client("n");
        let there = object(&wish, Some("x"), &pem("system:node:n", &ours));
        assert_eq!((&there["metadata"]["name"], &there["spec"]["usages"][1]), (&json!("x"), &json!("client auth")));
        assert_eq!(object(&wish, None, "")["metadata"], json!({"generateName": "csr-"}));
        let key = ours.subject_public_key_info();
        assert_eq!(is_ours(&there, &wish, &key), Ok(()));
        assert_eq!(is_ours(&there, &wish, &others.subject_public_key_info()), Err("it is for another key".into()));
        let other = object(&wish, Some("x"), &pem("system:node:m", &ours));
        assert!(is_ours(&other, &wish, &key).unwrap_err().contains("system:node:m"));
        let mut other = there;
        other["spec"]["signerName"] = "a.b/c".into();
        assert!(is_ours(&other, &wish, &key).unwrap_err().contains("a.b/c"));
    }

    #[test]
    fn how_far_a_request_is_follows_from_its_conditions() {
        let with = |status: Value| standing(&json!({"metadata": {"uid": "u"}, "status": status}), "u");
        let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "R", "message": "m"});
        assert_eq!(with(json!({})), Standing::Open);
        assert_eq!(with(json!({"certificate": STANDARD.encode("pem")})), Standing::Open, "nobody approved it");
        assert_eq!(with(json!({"conditions": [condition("Approved")]})), Standing::Approved);
        let issued = json!({"conditions": [condition("Approved")], "certificate": STANDARD.encode("pem")});
        assert_eq!(with(issued), Standing::Issued("pem".into()));
        assert_eq!(with(json!({"conditions": [condition("Denied")]})), Standing::Refused("it is denied, reason: R, message: m".into()));
        let failed = json!({"conditions": [condition("Approved"), condition("Failed")]});
        assert_eq!(with(failed), Standing::Refused("the signer refused it, reason: R, message: m".into()));
        assert!(matches!(with(json!({"conditions": [condition("Approved")], "certificate": "?"})), Standing::Refused(_)));
        let other = json!({"metadata": {"uid": "v"}});
        assert!(matches!(standing(&other, "u"), Standing::Refused(_)));
    }
}
