//! Images of the model: a registry to pull from, and what is present.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use tonic::Code;

use super::model::{MS, Model, Refusal};
use crate::v1;

/// An image that can be pulled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RemoteImage {
    /// Bytes; 0 reads as 1 MiB.
    pub size: u64,
    pub pull_ms: i64,
    /// User name and password without which the pull is refused.
    pub credentials: Option<(String, String)>,
    /// Numeric user of the image.
    pub uid: Option<i64>,
    /// Named user of the image.
    pub username: String,
    /// Pulls fail with this text.
    pub broken: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct StoredImage {
    pub(super) id: String,
    pub(super) names: Vec<String>,
    pub(super) remote: RemoteImage,
    pub(super) pinned: bool,
}

impl StoredImage {
    fn to_cri(&self) -> v1::Image {
        let repository = |n: &String| n.rsplit_once(':').map_or(n.clone(), |(r, _)| r.to_owned());
        v1::Image {
            id: self.id.clone(),
            repo_tags: self.names.clone(),
            repo_digests: self.names.iter().map(|n| format!("{}@{}", repository(n), self.id)).collect(),
            size: if self.remote.size == 0 { 1 << 20 } else { self.remote.size },
            uid: self.remote.uid.map(|value| v1::Int64Value { value }),
            username: self.remote.username.clone(),
            spec: None,
            pinned: self.pinned,
        }
    }
}

impl Model {
    /// Makes an image available for pulls.
    pub fn publish(&mut self, name: &str, image: RemoteImage) {
        self.registry.insert(name.into(), image);
    }

    /// Makes an image present without a pull; returns its id.
    pub fn preload(&mut self, name: &str) -> String {
        let stored = self.stored(name, RemoteImage::default());
        let id = stored.id.clone();
        self.images.insert(id.clone(), stored);
        id
    }

    pub fn pin(&mut self, name: &str) -> Result<(), Refusal> {
        let id = self.present_image(name)?.id.clone();
        self.images.get_mut(&id).expect("looked up above").pinned = true;
        Ok(())
    }

    /// Starts a pull; returns the reference and when the image is there.
    pub fn pull(&mut self, now: i64, name: &str, auth: Option<&v1::AuthConfig>) -> Result<(String, i64), Refusal> {
        self.advance(now);
        let fail = |code, why: String| Refusal::new(code, format!("failed to pull and unpack image {name:?}: {why}"));
        let Some(remote) = self.registry.get(name).cloned() else {
            return Err(fail(Code::NotFound, format!("failed to resolve reference {name:?}: {name}: not found")));
        };
        if let Some(text) = remote.broken {
            return Err(Refusal::unknown(text));
        }
        if let Some((user, password)) = &remote.credentials
            && auth.is_none_or(|a| a.username != *user || a.password != *password)
        {
            return Err(fail(Code::Unknown, "failed to resolve reference: authorization failed: no basic auth credentials".into()));
        }
        let done = now + remote.pull_ms * MS;
        let stored = self.stored(name, remote);
        let id = stored.id.clone();
        self.pulls.push((done, stored));
        self.advance(now);
        Ok((id, done))
    }

    pub fn remove_image(&mut self, now: i64, name: &str) -> Result<(), Refusal> {
        self.advance(now);
        let id = self.present_image(name)?.id.clone();
        self.images.remove(&id);
        Ok(())
    }

    pub fn image(&self, name: &str) -> Option<v1::Image> {
        self.present_image(name).ok().map(StoredImage::to_cri)
    }

    pub fn all_images(&self) -> Vec<v1::Image> {
        self.images.values().map(StoredImage::to_cri).collect()
    }

    pub(super) fn finish_pulls(&mut self, now: i64) {
        let (done, waiting) = std::mem::take(&mut self.pulls).into_iter().partition(|(at, _)| *at <= now);
        self.pulls = waiting;
        let done: Vec<(i64, StoredImage)> = done;
        for (_, image) in done {
            self.images.entry(image.id.clone()).or_insert(image);
        }
    }

    pub(super) fn present_image(&self, name: &str) -> Result<&StoredImage, Refusal> {
        let bare = name.split_once('@').map_or(name, |(_, digest)| digest);
        self.images
            .get(bare)
            .or_else(|| self.images.values().find(|i| i.names.iter().any(|n| n == name)))
            .ok_or_else(|| Refusal::not_found(format!("failed to resolve image {name:?}: not found")))
    }

    /// The id follows from the name: pulling twice gives the same image.
    fn stored(&self, name: &str, remote: RemoteImage) -> StoredImage {
        let digits = (0..8u32).map(|n| format!("{:08x}", crate::labels::container_hash(&n.to_string(), name)));
        StoredImage { id: format!("sha256:{}", digits.collect::<String>()), names: vec![name.into()], remote, pinned: false }
    }
}
