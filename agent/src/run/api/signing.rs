//! Signs approved requests for certificates with this node's authority.
//!
//! What may be signed is decided in `api::signing`. Tests: `agent/tests/api_server/signing.rs`.

use super::Api;
use super::pki::Pki;
use crate::api::Failure;
use crate::api::access::User;
use crate::api::request::Request;
use crate::api::resource::REQUESTS;
use crate::api::signing;
use crate::api::write::{Caller, Op, Validation, meta};
use crate::run::clock;
use base64::Engine as _;
use serde_json::{Value, json};
use std::rc::{Rc, Weak};
use std::time::Duration;

/// How long certificates are good at most, where nobody says otherwise.
pub const MOST: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long to wait after a write that failed.
const AGAIN: Duration = Duration::from_secs(5);

/// Who approves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// People do, with `kubectl certificate approve`.
    ByHand,
    /// Nodes that join or renew are let in at once, as by a cluster's controller.
    OfNodes,
}

/// Signs until the server is gone.
pub async fn keep(api: Weak<Api>, pki: Rc<Pki>, approval: Approval, most: Duration) {
    let Some(mut ticks) = api.upgrade().map(|a| a.ticks[usize::from(REQUESTS.0)].subscribe()) else { return };
    loop {
        ticks.borrow_and_update();
        let Some(server) = api.upgrade() else { return };
        let all_done = round(&server, &pki, approval, most).await;
        drop(server);
        let wait = if all_done { Duration::MAX } else { AGAIN };
        if tokio::time::timeout(wait, ticks.changed()).await.is_ok_and(|changed| changed.is_err()) {
            return;
        }
    }
}

/// Every request that waits for something that happens here. False: one of them could not be written.
async fn round(api: &Api, pki: &Pki, approval: Approval, most: Duration) -> bool {
    let requests: Vec<Value> = api.store().list(REQUESTS, None, None).map(|(_, e)| e.object()).collect();
    let mut done = true;
    for object in requests {
        let written = match signing::certify(&object, most) {
            Some(what) => sign(api, pki, object, what).await,
            None if approval == Approval::OfNodes && signing::is_of_a_node(&object) => approve(api, object).await,
            None => continue,
        };
        // Whoever changed it meanwhile wakes us.
        if let Err(failure) = written
            && !matches!(failure.code, 404 | 409)
        {
            tracing::warn!(message = %failure.message, "a request for a certificate could not be answered; trying again");
            done = false;
        }
    }
    done
}

async fn sign(api: &Api, pki: &Pki, mut object: Value, what: Result<signing::Certify, String>) -> Result<(), Failure> {
    match what.and_then(|c| pki.certify(&c).map_err(|e| e.to_string())) {
        Ok(certificate) => object["status"]["certificate"] = base64::engine::general_purpose::STANDARD.encode(certificate).into(),
        Err(why) => add(&mut object, "Failed", "SignerValidationFailure", &why),
    }
    submit(api, object, "status").await
}

async fn approve(api: &Api, mut object: Value) -> Result<(), Failure> {
    add(&mut object, "Approved", "AutoApproved", "Auto approving kubelet client certificate of a node that joins or renews.");
    submit(api, object, "approval").await
}

fn add(object: &mut Value, kind: &str, reason: &str, message: &str) {
    let now = clock::now().wall.rfc3339();
    let new =
        json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastUpdateTime": now, "lastTransitionTime": now});
    let conditions = &mut object["status"]["conditions"];
    match conditions.as_array_mut() {
        Some(list) => list.push(new),
        None => *conditions = json!([new]),
    }
}

async fn submit(api: &Api, object: Value, sub: &str) -> Result<(), Failure> {
    let name = meta::text(&object, "name").to_owned();
    let request = Request { verb: "update", resource: REQUESTS, namespace: String::new(), name, sub: sub.into(), rest: String::new() };
    let user = User::new("longshore", &[]);
    let (now, seed) = (clock::now().wall, api.next_seed());
    let caller = Caller { user, manager: "longshore".into(), now, seed, dry_run: false, validation: Validation::Ignore, force: false };
    api.submit(Op::Update(object), request, caller).await.map(|_| ())
}
