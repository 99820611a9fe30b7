//! Images: look up, pull, list, measure, remove.
//!
//! Owns the calls of the image service and the shape of credentials. Must never choose credentials
//! or a pull policy. Tests: `tests/client.rs`.

use std::fmt;

use crate::client::{Client, call};
use crate::container_config::Image;
use crate::error::{Error, Verb, ignore_not_found};
use crate::sandbox_config::SandboxSpec;
use crate::v1;

/// Credentials for one registry. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub secret: RegistrySecret,
    /// Host the credentials are for; may be empty.
    pub server_address: String,
}

#[derive(Clone, PartialEq, Eq)]
pub enum RegistrySecret {
    Basic {
        username: String,
        password: String,
    },
    /// Base64 of `user:password`.
    Encoded(String),
    IdentityToken(String),
    RegistryToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("server_address", &self.server_address).finish_non_exhaustive()
    }
}

impl Credentials {
    pub fn basic(username: &str, password: &str) -> Self {
        let (username, password) = (username.into(), password.into());
        Credentials { secret: RegistrySecret::Basic { username, password }, server_address: String::new() }
    }

    fn to_cri(&self) -> v1::AuthConfig {
        let mut auth = v1::AuthConfig { server_address: self.server_address.clone(), ..Default::default() };
        match &self.secret {
            RegistrySecret::Basic { username, password } => {
                auth.username.clone_from(username);
                auth.password.clone_from(password);
            }
            RegistrySecret::Encoded(text) => auth.auth.clone_from(text),
            RegistrySecret::IdentityToken(token) => auth.identity_token.clone_from(token),
            RegistrySecret::RegistryToken(token) => auth.registry_token.clone_from(token),
        }
        auth
    }
}

/// A present image, as far as a kubelet cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    pub id: String,
    pub repo_tags: Vec<String>,
    pub repo_digests: Vec<String>,
    /// Bytes.
    pub size: u64,
    /// Numeric user of the image.
    pub uid: Option<i64>,
    /// Counts where `uid` is absent; empty means root.
    pub username: String,
    /// Never to be garbage-collected.
    pub pinned: bool,
    /// Handler the image was pulled for.
    pub runtime_handler: String,
}

impl ImageFacts {
    fn from_cri(image: v1::Image) -> Self {
        ImageFacts {
            id: image.id,
            repo_tags: image.repo_tags,
            repo_digests: image.repo_digests,
            size: image.size,
            uid: image.uid.map(|u| u.value),
            username: image.username,
            pinned: image.pinned,
            runtime_handler: image.spec.map(|s| s.runtime_handler).unwrap_or_default(),
        }
    }
}

/// Which of several credentials worked, or what each of them met with.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// What to ask the runtime for from now on.
    pub image_ref: String,
    /// Place in the list of credentials; `None` without any.
    pub used: Option<usize>,
}

impl Client {
    /// `None` if the image is not there.
    pub async fn image_status(&self, image: &Image) -> Result<Option<ImageFacts>, Error> {
        let message = v1::ImageStatusRequest { image: Some(image.to_cri()), verbose: false };
        let (verb, object) = (Verb::ImageStatus, &image.image_ref);
        match call!(self.images, image_status, verb, object, self.usual(), message) {
            Ok(answer) => match answer.image {
                Some(i) if i.id.is_empty() || i.size == 0 => {
                    Err(Error::malformed(verb, object, &format!("Id or size of image {object:?} is not set")))
                }
                found => Ok(found.map(ImageFacts::from_cri)),
            },
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Pulls with one set of credentials or none; returns the reference to use from now on. No
    /// deadline: large images are slow, and dropping the future cancels the pull.
    pub async fn pull(&self, image: &Image, credentials: Option<&Credentials>, sandbox: Option<&SandboxSpec>) -> Result<String, Error> {
        let message = v1::PullImageRequest {
            image: Some(image.to_cri()),
            auth: credentials.map(Credentials::to_cri),
            sandbox_config: sandbox.map(SandboxSpec::to_cri),
        };
        let (verb, object) = (Verb::PullImage, &image.image_ref);
        let answer = call!(self.images, pull_image, verb, object, None, message)?;
        if answer.image_ref.is_empty() {
            let what = format!("imageRef of image {object:?} is not set");
            return Err(Error::malformed(verb, object, &what));
        }
        Ok(answer.image_ref)
    }

    /// Tries each of the credentials until one works; without any, pulls without.
    ///
    /// # Errors
    /// One error per attempt, in order.
    pub async fn pull_with_any(
        &self,
        image: &Image,
        credentials: &[Credentials],
        sandbox: Option<&SandboxSpec>,
    ) -> Result<Pulled, Vec<Error>> {
        if credentials.is_empty() {
            return match self.pull(image, None, sandbox).await {
                Ok(image_ref) => Ok(Pulled { image_ref, used: None }),
                Err(e) => Err(vec![e]),
            };
        }
        let mut failures = Vec::new();
        for (i, one) in credentials.iter().enumerate() {
            match self.pull(image, Some(one), sandbox).await {
                Ok(image_ref) => {
                    return Ok(Pulled { image_ref, used: Some(i) });
                }
                Err(e) => failures.push(e),
            }
        }
        Err(failures)
    }

    pub async fn list_images(&self) -> Result<Vec<ImageFacts>, Error> {
        let message = v1::ListImagesRequest { filter: None };
        let answer = call!(self.images, list_images, Verb::ListImages, "", self.usual(), message)?;
        Ok(answer.images.into_iter().map(ImageFacts::from_cri).collect())
    }

    pub async fn remove_image(&self, image: &Image) -> Result<(), Error> {
        let message = v1::RemoveImageRequest { image: Some(image.to_cri()) };
        let (verb, object) = (Verb::RemoveImage, &image.image_ref);
        let result = call!(self.images, remove_image, verb, object, self.usual(), message);
        ignore_not_found(result.map(drop))
    }

    /// Use of the file systems that hold images and writable layers.
    pub async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse, Error> {
        let message = v1::ImageFsInfoRequest {};
        call!(self.images, image_fs_info, Verb::ImageFsInfo, "", self.usual(), message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_never_show_in_debug_output() {
        let c = Credentials::basic("me", "s3cret");
        assert!(!format!("{c:?} {:?}", c.to_cri()).contains("s3cret"));
    }

    #[test]
    fn each_kind_of_secret_has_its_own_field() {
        let auth = |secret| Credentials { secret, server_address: "r".into() }.to_cri();
        assert_eq!(auth(RegistrySecret::Encoded("x".into())).auth, "x");
        assert_eq!(auth(RegistrySecret::IdentityToken("x".into())).identity_token, "x");
        assert_eq!(auth(RegistrySecret::RegistryToken("x".into())).registry_token, "x");
        let basic = Credentials::basic("u", "p").to_cri();
        assert_eq!((basic.username.as_str(), basic.password.as_str()), ("u", "p"));
    }
}
