//! Deletion: preconditions, grace, finalizers.

use super::super::resource::{ACCOUNTS, PODS, SERVICES};
use super::{Caller, Effect, Failure, Outcome, Request, meta};
use crate::time::Wall;
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeleteOptions {
    /// In seconds.
    pub grace_period_seconds: Option<i64>,
    pub preconditions: Option<Preconditions>,
    pub propagation_policy: Option<String>,
    pub dry_run: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Preconditions {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

pub fn delete(options: &DeleteOptions, r: &Request, old: &Value, caller: &Caller) -> Result<Outcome, Failure> {
    precondition(options, r, old)?;
    if let Some(policy) = options.propagation_policy.as_deref()
        && !matches!(policy, "" | "Background" | "Foreground" | "Orphan")
    {
        return Err(Failure::bad_request(format!("propagationPolicy: {policy:?} is none of Background, Foreground, Orphan")));
    }
    if options.grace_period_seconds.is_some_and(|g| g < 0) {
        return Err(Failure::bad_request("gracePeriodSeconds: must be 0 or more"));
    }
    let grace = if r.resource == PODS { grace(options, old) } else { 0 };
    let mut object = old.clone();
    if grace == 0 && !meta::has_finalizers(old) {
        if r.resource == PODS {
            end(&mut object, 0, caller.now);
        }
        let answer = returns_object(r).then_some(object);
        return Ok(Outcome { answer, ..Outcome::new(Effect::Remove, 200) });
    }
    let before = old["metadata"]["deletionGracePeriodSeconds"].as_i64();
    if meta::is_ending(old) && before.is_some_and(|b| grace >= b) {
        return Ok(Outcome { answer: Some(object), ..Outcome::new(Effect::None, 200) });
    }
    end(&mut object, grace, caller.now);
    let effect = if r.resource == PODS { Effect::Ending(object) } else { Effect::Put(object) };
    Ok(Outcome::new(effect, 200))
}

fn precondition(options: &DeleteOptions, r: &Request, old: &Value) -> Result<(), Failure> {
    let Some(p) = &options.preconditions else { return Ok(()) };
    let (uid, revision) = (meta::text(old, "uid"), meta::text(old, "resourceVersion"));
    if let Some(wanted) = p.uid.as_deref().filter(|wanted| *wanted != uid) {
        let why = format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        );
        return Err(Failure::conflict(r.resource.kind_subject(&r.name), &why));
    }
    if let Some(wanted) = p.resource_version.as_deref().filter(|wanted| *wanted != revision) {
        let why = format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({revision}). The object might have been modified"
        );
        return Err(Failure::conflict(r.resource.kind_subject(&r.name), &why));
    }
    Ok(())
}

/// A pod that never ran, or has ended, needs no time to end.
fn grace(options: &DeleteOptions, pod: &Value) -> i64 {
    let unscheduled = pod["spec"]["nodeName"].as_str().is_none_or(str::is_empty);
    if unscheduled || matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
        return 0;
    }
    options.grace_period_seconds.unwrap_or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30))
}

/// The time until the end can only get shorter.
pub fn end(object: &mut Value, grace: i64, now: Wall) {
    let at = now + Duration::from_secs(grace.max(0).unsigned_abs());
    let known = Wall::parse_rfc3339(meta::text(object, "deletionTimestamp"));
    let at = known.map_or(at, |known| known.min(at));
    meta::set(object, "deletionTimestamp", at.rfc3339());
    meta::set(object, "deletionGracePeriodSeconds", grace);
    if let Some(generation) = object["metadata"]["generation"].as_i64().filter(|_| known.is_none()) {
        meta::set(object, "generation", generation + 1);
    }
}

/// Some kinds are shown once more as they were; of others the success is told.
fn returns_object(r: &Request) -> bool {
    let volume = matches!(r.resource.row().kind, "PersistentVolume" | "PersistentVolumeClaim");
    volume || matches!(r.resource, PODS | SERVICES | ACCOUNTS)
}
