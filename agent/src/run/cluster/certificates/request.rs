//! One request for a certificate, from its creation to its answer.

use crate::api::Query;
use crate::cluster::certificate::Wish;
use crate::cluster::pace::Backoff;
use crate::cluster::signing_request::{self, PATH, Standing};
use crate::run::client::{Ask, Client, ClientError, JSON, chance};
use hyper::Method;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData as _, SanType};
use serde_json::Value;
use std::time::Duration;

/// Between looks at a request where watching it fails.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_AT_MOST: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the request cannot be made: {0}")]
    Made(#[from] rcgen::Error),
    #[error("there is a certificate signing request {name} that is not ours: {why}")]
    Foreign { name: String, why: String },
    #[error("certificate signing request {name}: {why}")]
    Refused { name: String, why: String },
    #[error("certificate signing request {name} was not answered within {} s; approve it: kubectl certificate approve {name}", within.as_secs())]
    Unanswered { name: String, within: Duration },
}

/// Asks for a certificate and waits until there is one; its chain, in PEM. With `again`, a request for the same and with
/// the same key that is there already is the one that is waited for.
pub async fn certify(client: &Client, wish: &Wish, key: &KeyPair, again: bool, within: Duration) -> Result<String, RequestError> {
    let public = key.subject_public_key_info();
    let own_name = again.then(|| signing_request::name(wish, &public));
    let object = signing_request::object(wish, own_name.as_deref(), &text(wish, key)?);
    let there = match (client.ask(Ask::send(Method::POST, PATH, JSON, &object)).await, own_name) {
        (Err(e), Some(name)) if e.code() == 409 => {
            let there = client.ask(Ask::get(&format!("{PATH}/{name}"))).await?;
            signing_request::is_ours(&there, wish, &public).map_err(|why| RequestError::Foreign { name, why })?;
            there
        }
        (made, _) => made?,
    };
    let field = |field: &str| there["metadata"][field].as_str().unwrap_or_default().to_owned();
    let (name, uid) = (field("name"), field("uid"));
    tracing::info!(
        server = %client.server(),
        "asked for a {} certificate for {}; where nobody else approves it: kubectl certificate approve {name}",
        wish.purpose.word(),
        wish.user,
    );
    let answer = tokio::time::timeout(within, answer(client, &name, &uid)).await;
    answer.unwrap_or(Err(RequestError::Unanswered { name, within }))
}

fn text(wish: &Wish, key: &KeyPair) -> Result<String, rcgen::Error> {
    let mut p = CertificateParams::default();
    p.distinguished_name = DistinguishedName::new();
    p.distinguished_name.push(DnType::OrganizationName, Wish::GROUP);
    p.distinguished_name.push(DnType::CommonName, wish.user.as_str());
    for name in &wish.dns {
        p.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
    }
    p.subject_alt_names.extend(wish.ips.iter().map(|ip| SanType::IpAddress(*ip)));
    p.serialize_request(key)?.pem()
}

/// Waits for the answer, however often the connection breaks.
async fn answer(client: &Client, name: &str, uid: &str) -> Result<String, RequestError> {
    let mut backoff = Backoff::new(AGAIN, AGAIN_AT_MOST);
    let refused = |why: String| RequestError::Refused { name: name.to_owned(), why };
    loop {
        let looked = look(client, name, uid).await;
        match looked {
            Ok(Standing::Issued(chain)) => return Ok(chain),
            Ok(Standing::Refused(why)) => return Err(refused(why)),
            Ok(Standing::Open | Standing::Approved) => {}
            Err(error) => tracing::debug!(%error, %name, "the request cannot be watched; looking again"),
        }
        tokio::time::sleep(backoff.next(chance())).await;
    }
}

/// How it stands now, and then at the end of a watch, which ends when it is answered.
async fn look(client: &Client, name: &str, uid: &str) -> Result<Standing, ClientError> {
    let gone = || Standing::Refused("it was deleted".into());
    let there = match client.ask(Ask::get(&format!("{PATH}/{name}"))).await {
        Err(e) if e.code() == 404 => return Ok(gone()),
        r => r?,
    };
    let mut standing = signing_request::standing(&there, uid);
    let mut query = Query::default();
    query.push("watch", "true");
    query.push("fieldSelector", format!("metadata.name={name}"));
    query.push("resourceVersion", there["metadata"]["resourceVersion"].as_str().unwrap_or_default());
    if is_answer(&standing) {
        return Ok(standing);
    }
    let mut frames = client.watch(&format!("{PATH}{}", query.suffix())).await?;
    while let Some((kind, object)) = frames.next().await? {
        standing = match kind.as_str() {
            "ADDED" | "MODIFIED" => tell_approval(&standing, signing_request::standing(&object, uid), name, &object),
            "DELETED" => gone(),
            _ => break,
        };
        if is_answer(&standing) {
            break;
        }
    }
    Ok(standing)
}

fn is_answer(standing: &Standing) -> bool {
    matches!(standing, Standing::Issued(_) | Standing::Refused(_))
}

fn tell_approval(before: &Standing, now: Standing, name: &str, object: &Value) -> Standing {
    if now == Standing::Approved && now != *before {
        tracing::info!(%name, signer = %object["spec"]["signerName"], "the request is approved; waiting for the signer");
    }
    now
}
