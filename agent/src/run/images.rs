//! Looks for images and pulls them, in lanes of their own; the same image is never pulled twice at once.

use super::clock;
use crate::image::{normalize, registry};
use crate::node::event::{Event, PullReport};
use crate::plan::{ImageState, PresentImage, PullFailure};
use crate::pod::PodUid;
use crate::time::Mono;
use crate::work::PullSecret;
use longshore_cri::client::Client;
use longshore_cri::container_config::Image;
use longshore_cri::error::{Error, PullFailure as PullKind};
use longshore_cri::images::Credentials;
use std::rc::Rc;
use tokio::sync::{Semaphore, mpsc};

#[derive(Clone)]
pub struct Images {
    client: Client,
    lanes: Rc<Semaphore>,
    to: mpsc::Sender<Event>,
}

impl Images {
    /// At most `parallel` pulls at once.
    pub fn new(client: Client, parallel: usize, to: mpsc::Sender<Event>) -> Images {
        Images { client, lanes: Rc::new(Semaphore::new(parallel.max(1))), to }
    }

    pub async fn check(self, uid: PodUid, container: Box<str>, image: Box<str>) {
        let state = self.look(&image).await;
        let _ = self.to.send(Event::Image { uid, image, container, state, pulled: None }).await;
    }

    async fn look(&self, image: &str) -> ImageState {
        match self.client.image_status(&Image::named(&full(image))).await {
            Ok(Some(f)) => ImageState::Present(PresentImage { image_ref: f.id.into(), uid: f.uid, username: f.username.into() }),
            Ok(None) => ImageState::Absent,
            Err(e) => failed("ImageInspectError", format!("Failed to inspect image {image:?}: {}", e.rpc_text())),
        }
    }

    pub async fn pull(self, uid: PodUid, container: Box<str>, image: Box<str>, secrets: Vec<PullSecret>) {
        let asked = clock::mono();
        let (state, pulled) = {
            let _lane = self.lanes.acquire().await;
            let began = clock::mono();
            let name = full(&image);
            let credentials = credentials(&secrets, &name);
            match self.client.pull_with_any(&Image::named(&name), &credentials, None).await {
                Ok(_) => self.pulled(&image, asked, began).await,
                Err(errors) => (pull_failed(&errors), None),
            }
        };
        let _ = self.to.send(Event::Image { uid, image, container, state, pulled }).await;
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

fn failed(reason: &str, message: String) -> ImageState {
    ImageState::Failed(PullFailure {
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
    match errors.last().map(Error::pull_reason) {
        Some(PullKind::RegistryUnavailable { rest }) => failed("RegistryUnavailable", format!("image pull failed for {rest}")),
        Some(PullKind::SignatureValidationFailed { rest }) => failed("SignatureValidationFailed", format!("image pull failed for {rest}")),
        _ => failed("ErrImagePull", message),
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
