//! Who somebody is: by certificate, by token, or nobody.

use super::Api;
use super::pki::Signer;
use crate::api::Failure;
use crate::api::access::User;
use crate::api::resource::{ACCOUNTS, Id, PODS};
use crate::api::write::meta;
use crate::time::Wall;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::body::Incoming;
use hyper::header;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::rc::Rc;

const ACCOUNT: &str = "system:serviceaccount:";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// What this server checks credentials against.
#[derive(Clone, Default)]
pub struct Credentials {
    /// By the digest of the token, so that no comparison tells how much of a guess was right.
    tokens: BTreeMap<[u8; 32], User>,
    pub signer: Option<Rc<Signer>>,
    /// Whether somebody without credentials is let in as nobody.
    pub anonymous: bool,
}

/// The names in a client certificate that the handshake has verified: the common name is the user, organizations are groups.
/// One that has ended since is nobody's.
pub fn by_certificate(der: &[u8], now: Wall) -> Option<User> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    if now.seconds() > certificate.validity().not_after.timestamp() {
        return None;
    }
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    let groups: Vec<&str> = subject.iter_organization().filter_map(|o| o.as_str().ok()).collect();
    Some(User::new(name, &groups))
}

pub fn unauthorized() -> Failure {
    Failure::new(401, "Unauthorized", "Unauthorized")
}

impl Api {
    /// Whether the service account that a token names, and the pod to which the token is bound, are there still and
    /// are not others of the same name. Everybody else is known by their credentials alone.
    pub fn is_there(&self, user: &User) -> bool {
        let Some((namespace, name)) = user.name.strip_prefix(ACCOUNT).and_then(|n| n.split_once(':')) else { return true };
        if user.uid.is_empty() {
            return true;
        }
        let store = self.store();
        let is = |id: Id, name: &str, uid: &str| store.get(id, namespace, name).is_some_and(|e| meta::text(&e.object(), "uid") == uid);
        let extra = |key: &str| user.extra.get(key).and_then(|v| v.first()).map(String::as_str);
        let bound = match (extra(POD_NAME), extra(POD_UID)) {
            (Some(name), Some(uid)) => is(PODS, name, uid),
            _ => true,
        };
        bound && is(ACCOUNTS, name, &user.uid)
    }
}

impl Credentials {
    /// Tokens of people and programs, as in a token file: the token, the user, groups.
    pub fn with_tokens(tokens: impl IntoIterator<Item = (String, User)>) -> Credentials {
        let tokens = tokens.into_iter().map(|(t, u)| (Sha256::digest(t).into(), u)).collect();
        Credentials { tokens, ..Credentials::default() }
    }

    /// Who asks. Wrong credentials are refused even where none are needed.
    pub fn user(&self, peer: Option<User>, http: &hyper::Request<Incoming>, now: Wall) -> Result<User, Failure> {
        if let Some(user) = peer {
            return Ok(user);
        }
        let Some(given) = http.headers().get(header::AUTHORIZATION) else {
            return if self.anonymous { Ok(User::anonymous()) } else { Err(unauthorized()) };
        };
        let text = given.to_str().map_err(|_| unauthorized())?;
        let (scheme, token) = text.split_once(' ').ok_or_else(unauthorized)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(unauthorized());
        }
        self.by_token(token.trim(), &[], now).map(|(user, _)| user).ok_or_else(unauthorized)
    }

    /// Somebody known by a token, and for whom the token is meant.
    pub fn by_token(&self, token: &str, audiences: &[String], now: Wall) -> Option<(User, Vec<String>)> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(user) = self.tokens.get(&digest) {
            return Some((user.clone(), audiences.to_vec()));
        }
        let signer = self.signer.as_ref()?;
        let claims = signer.verify(token)?;
        account(&claims, signer.issuer(), audiences, now)
    }
}

/// The service account that verified claims are about.
fn account(claims: &Value, issuer: &str, audiences: &[String], now: Wall) -> Option<(User, Vec<String>)> {
    let until = claims["exp"].as_i64()?;
    let from = claims["nbf"].as_i64().unwrap_or(0);
    if claims["iss"] != issuer || now.seconds() >= until || now.seconds() < from - 10 {
        return None;
    }
    let meant: Vec<String> = claims["aud"].as_array()?.iter().filter_map(|a| a.as_str().map(str::to_owned)).collect();
    let own = [issuer.to_owned()];
    let wanted = if audiences.is_empty() { &own[..] } else { audiences };
    let both: Vec<String> = wanted.iter().filter(|w| meant.contains(w)).cloned().collect();
    if both.is_empty() {
        return None;
    }
    let own = &claims["kubernetes.io"];
    let (namespace, name) = (own["namespace"].as_str()?, own["serviceaccount"]["name"].as_str()?);
    let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    let mut user = User::new(&format!("{ACCOUNT}{namespace}:{name}"), &[&groups[0], &groups[1]]);
    user.uid = own["serviceaccount"]["uid"].as_str().unwrap_or_default().into();
    for (field, key) in [("name", POD_NAME), ("uid", POD_UID)] {
        if let Some(value) = own["pod"][field].as_str() {
            user.extra.insert(key.into(), vec![value.into()]);
        }
    }
    Some((user, both))
}

/// Part of a token in JSON.
pub fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).expect("plain data serialises"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn signer() -> Rc<Signer> {
        Rc::new(Signer::generate("https://here").unwrap())
    }

    fn claims(exp: i64) -> Value {
        json!({"iss": "https://here", "aud": ["https://here", "vault"], "exp": exp, "nbf": 0,
            "kubernetes.io": {"namespace": "a", "serviceaccount": {"name": "b", "uid": "1"}, "pod": {"name": "p", "uid": "2"}}})
    }

    #[test]
    fn a_token_of_ours_names_its_account_and_pod() {
        let credentials = Credentials { signer: Some(signer()), ..Credentials::default() };
        let token = credentials.signer.as_ref().unwrap().sign(&claims(100));
        let (user, audiences) = credentials.by_token(&token, &["vault".into()], Wall::from_seconds(50)).unwrap();
        assert_eq!((user.name.as_str(), audiences), ("system:serviceaccount:a:b", vec!["vault".to_owned()]));
        assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["p"]);
        assert!(credentials.by_token(&token, &["other".into()], Wall::from_seconds(50)).is_none());
        assert!(credentials.by_token(&token, &[], Wall::from_seconds(100)).is_none(), "it is over");
    }

    #[test]
    fn tokens_of_others_and_changed_ones_are_refused() {
        let credentials = Credentials { signer: Some(signer()), ..Credentials::default() };
        let other = signer().sign(&claims(100));
        assert!(credentials.by_token(&other, &[], Wall::from_seconds(50)).is_none());
        let own = credentials.signer.as_ref().unwrap().sign(&claims(100));
        let mut parts: Vec<&str> = own.split('.').collect();
        let longer = part(&claims(1_000_000));
        parts[1] = &longer;
        assert!(credentials.by_token(&parts.join("."), &[], Wall::from_seconds(500)).is_none());
        let none = format!("{}.{}.", part(&json!({"alg": "none"})), part(&claims(100)));
        assert!(credentials.by_token(&none, &[], Wall::from_seconds(50)).is_none());
    }

    #[test]
    fn a_token_of_the_file_is_its_user() {
        let credentials = Credentials::with_tokens([("secret".to_owned(), User::new("eve", &["ops"]))]);
        assert_eq!(credentials.by_token("secret", &[], Wall::default()).unwrap().0.name, "eve");
        assert!(credentials.by_token("secre", &[], Wall::default()).is_none());
        assert!(credentials.by_token("", &[], Wall::default()).is_none());
    }
}
