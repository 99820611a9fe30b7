//! Looks for images and pulls them, in lanes of their own; the same image is never pulled twice at once.

use super::clock;
use crate::image::{normalize, registry};
use crate::node::event::{Event, PullReport};
use crate::plan::{ImageState, ImageVerb, PresentImage, PullFailure, PullProgress};
use crate::pod::PodUid;
use crate::time::Mono;
use crate::work::PullSecret;
use longshore_cri::client::Client;
use longshore_cri::container_config::Image;
use longshore_cri::error::{Error, PullFailure as PullKind};
use longshore_cri::images::Credentials;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// How often a pull is asked how far it is.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub struct Images {
    client: Client,
    lanes: Rc<Semaphore>,
    to: mpsc::Sender<Event>,
    /// Pulls under way.
    pulls: Rc<Cell<usize>>,
    /// Looks under way, and who waits for each.
    asked: Rc<RefCell<BTreeMap<Box<str>, Vec<Asker>>>>,
}

/// A container that wants to know of an image.
type Asker = (PodUid, Box<str>);

impl Images {
    /// At most `parallel` pulls at once.
    pub fn new(client: Client, parallel: usize, to: mpsc::Sender<Event>) -> Images {
        Images { client, lanes: Rc::new(Semaphore::new(parallel.max(1))), to, pulls: Rc::default(), asked: Rc::default() }
    }

    /// Looks whether the image is there. Containers that ask while a look is under way share it: a hundred pods of
    /// one image that come at once cost one call.
    pub async fn check(self, uid: PodUid, container: Box<str>, image: Box<str>) {
        let first = {
            let mut asked = self.asked.borrow_mut();
            let waiting = asked.entry(image.clone()).or_default();
            waiting.push((uid, container));
            waiting.len() == 1
        };
        if !first {
            return;
        }
        let state = self.look(&image).await;
        let waiting = self.asked.borrow_mut().remove(&image).unwrap_or_default();
        for (uid, container) in waiting {
            let _ = self.to.send(Event::Image { uid, image: image.clone(), container, state: state.clone(), pulled: None }).await;
        }
    }

    async fn look(&self, image: &str) -> ImageState {
        match self.client.image_status(&Image::named(&full(image))).await {
            Ok(Some(f)) => ImageState::Present(PresentImage { image_ref: f.id.into(), uid: f.uid, username: f.username.into() }),
            Ok(None) => ImageState::Absent,
            Err(e) => failed(ImageVerb::Inspect, "ImageInspectError", format!("Failed to inspect image {image:?}: {}", e.rpc_text())),
        }
    }

    pub async fn pull(self, uid: PodUid, container: Box<str>, image: Box<str>, secrets: Vec<PullSecret>) {
        let asked = clock::mono();
        let (state, pulled) = {
            let _lane = self.lanes.acquire().await;
            let began = clock::mono();
            let name = full(&image);
            let credentials = credentials(&secrets, &name);
            let named = Image::named(&name);
            let pull = self.client.pull_with_any(&named, &credentials, None);
            self.pulls.set(self.pulls.get() + 1);
            let outcome = tokio::select! {
                outcome = pull => outcome,
                never = self.tell_progress(&uid, &image) => match never {},
            };
            self.pulls.set(self.pulls.get() - 1);
            match outcome {
                Ok(_) => self.pulled(&image, asked, began).await,
                Err(errors) => (pull_failed(&errors), None),
            }
        };
        let _ = self.to.send(Event::Image { uid, image, container, state, pulled }).await;
    }

    /// Tells how far the pull is, now and then, until it is dropped. The runtime tells of downloads and not whose
    /// they are: nothing is said while several pulls are under way.
    async fn tell_progress(&self, uid: &PodUid, image: &str) -> Infallible {
        let others: BTreeSet<String> = self.client.downloads().await.unwrap_or_default().into_iter().map(|d| d.reference).collect();
        let mut seen: BTreeMap<String, PullProgress> = BTreeMap::new();
        loop {
            tokio::time::sleep(PROGRESS_EVERY).await;
            let Ok(downloads) = self.client.downloads().await else { return std::future::pending().await };
            if self.pulls.get() > 1 {
                continue;
            }
            // What is no longer under way is complete.
            seen.values_mut().for_each(|p| p.done = p.total);
            for d in downloads.into_iter().filter(|d| !others.contains(&d.reference)) {
                seen.insert(d.reference, PullProgress { done: d.done, total: d.total.max(d.done) });
            }
            let sum = |of: fn(&PullProgress) -> u64| seen.values().map(of).sum();
            let progress = PullProgress { done: sum(|p| p.done), total: sum(|p| p.total) };
            if progress.total > 0 {
                let _ = self.to.send(Event::PullProgress { uid: uid.clone(), image: image.into(), progress }).await;
            }
        }
    }

    async fn pulled(&self, image: &str, asked: Mono, began: Mono) -> (ImageState, Option<PullReport>) {
        let end = clock::mono();
        let bytes = match self.client.image_status(&Image::named(&full(image))).await {
            Ok(Some(f)) => f.size,
            _ => 0,
        };
        (self.look(image).await, Some(PullReport { took: end - began, with_waiting: end - asked, bytes }))
    }
}

/// The runtime's stores know full names only.
fn full(image: &str) -> String {
    normalize(image).unwrap_or_else(|_| image.to_owned())
}

fn failed(during: ImageVerb, reason: &str, message: String) -> ImageState {
    ImageState::Failed(PullFailure {
        during,
        reason: reason.into(),
        message: message.into(),
        failures: 1,
        retry: Mono::default(),
        backing_off: false,
    })
}

fn pull_failed(errors: &[Error]) -> ImageState {
    let texts: Vec<String> = errors.iter().map(Error::pull_text).collect();
    let message = if texts.len() == 1 { texts[0].clone() } else { format!("[{}]", texts.join(", ")) };
    let pull = |reason, message| failed(ImageVerb::Pull, reason, message);
    match errors.last().map(Error::pull_reason) {
        Some(PullKind::RegistryUnavailable { rest }) => pull("RegistryUnavailable", format!("image pull failed for {rest}")),
        Some(PullKind::SignatureValidationFailed { rest }) => pull("SignatureValidationFailed", format!("image pull failed for {rest}")),
        _ => pull("ErrImagePull", message),
    }
}

/// Entries of docker configurations that speak for the image's registry.
fn credentials(secrets: &[PullSecret], image: &str) -> Vec<Credentials> {
    let host = registry(image);
    let mut out = Vec::new();
    for s in secrets {
        let Ok(json) = serde_json::from_slice::<serde_json::Value>(&s.json) else { continue };
        let entries = if s.legacy { Some(&json) } else { json.get("auths") };
        for (key, entry) in entries.and_then(|e| e.as_object()).into_iter().flatten() {
            let server = key.trim_start_matches("https://").trim_start_matches("http://");
            let path = server.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
            let hub = host == "docker.io" && matches!(path, "index.docker.io" | "docker.io" | "registry-1.docker.io");
            if path == host || image.starts_with(&format!("{path}/")) || hub {
                out.extend(entry_credentials(entry));
            }
        }
    }
    out
}

fn entry_credentials(entry: &serde_json::Value) -> Option<Credentials> {
    use base64::Engine as _;
    let text = |k: &str| entry.get(k).and_then(|v| v.as_str()).filter(|s| !s.is_empty());
    if let (Some(user), Some(password)) = (text("username"), text("password")) {
        return Some(Credentials::basic(user, password));
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(text("auth")?).ok()?;
    let pair = String::from_utf8(decoded).ok()?;
    let (user, password) = pair.split_once(':')?;
    Some(Credentials::basic(user, password))
}
