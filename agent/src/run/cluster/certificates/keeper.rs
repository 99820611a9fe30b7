//! Keeps one certificate good: asks for the first, for the next in time, and takes what others put in its place.

use super::CertificateError;
use super::figures::Figures;
use super::request::{RequestError, certify};
use super::store::Store;
use crate::cluster::certificate::{Certificate, Purpose, Wish};
use crate::cluster::pace::Backoff;
use crate::run::client::{self, Client, ClientError, chance};
use crate::run::clock;
use crate::time::Wall;
use rcgen::KeyPair;
use std::rc::Rc;
use std::time::Duration;

/// How often it is looked for another file, for other addresses, and at the clock: it may have been set.
pub const LOOK: Duration = Duration::from_secs(10);
/// While there is nothing to ask for yet.
const SOON: Duration = Duration::from_secs(1);
/// Between requests that failed, and between those that were refused: somebody looks at each of those.
const RETRY: Backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(32));
const REFUSED: Backoff = Backoff::new(Duration::from_secs(32), Duration::from_secs(900));

pub struct Keeper {
    pub store: Store,
    pub purpose: Purpose,
    /// None: there is nothing to ask for yet.
    pub wish: Box<dyn Fn() -> Option<Wish>>,
    pub client: Client,
    /// Whose credentials ask where there is no good certificate.
    pub bootstrap: Option<client::Config>,
    /// How long one request is waited for.
    pub patience: Duration,
    /// Ends once there is a certificate.
    pub once: bool,
    pub figures: Rc<Figures>,
}

#[derive(Debug, thiserror::Error)]
enum RenewError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Kept(#[from] CertificateError),
    #[error("key: {0}")]
    Key(#[from] rcgen::Error),
}

/// What is in use, and when to ask for the next.
#[derive(Clone)]
pub struct Held {
    certificate: Certificate,
    due: Wall,
}

impl Held {
    pub fn new(certificate: Certificate, came: Wall) -> Held {
        let due = certificate.rotate_at(came, chance());
        Held { certificate, due }
    }

    /// To be replaced at once.
    pub fn at_once(certificate: Certificate) -> Held {
        Held { certificate, due: Wall::default() }
    }
}

impl Keeper {
    pub async fn run(self, mut held: Option<Held>) {
        let (mut retry, mut refused) = (RETRY, REFUSED);
        let mut said = String::new();
        loop {
            self.figures.until(self.purpose, held.as_ref().map(|h| h.certificate.until));
            let Some(wish) = self.due(&mut held).await else { continue };
            let attempt = async {
                let renewed = self.renew(held.as_ref(), &wish).await;
                let Err(error) = renewed else { return renewed.ok() };
                self.figures.failed(self.purpose);
                let wait = if matches!(error, RenewError::Request(RequestError::Refused { .. })) { &mut refused } else { &mut retry };
                let wait = wait.next(chance());
                self.tell(&error, held.as_ref(), wait, &mut said);
                tokio::time::sleep(wait).await;
                None
            };
            let renewed = tokio::select! {
                renewed = attempt => renewed,
                // What came from elsewhere is looked at, and what is not wished for any more is not waited for.
                () = self.is_other(held.as_ref(), &wish) => None,
            };
            let Some(certificate) = renewed else { continue };
            (retry, refused) = (RETRY, REFUSED);
            said.clear();
            tracing::info!(until = %certificate.until.rfc3339(), "there is a new {} certificate", self.purpose.word());
            self.figures.rotated(self.purpose, held.map(|h| clock::now().wall.since(h.certificate.from)));
            held = Some(Held::new(certificate, clock::now().wall));
            self.use_it().await;
            if self.once {
                return;
            }
            // A signer that gives what nobody can use is not asked without pause.
            tokio::time::sleep(SOON).await;
        }
    }

    /// The client goes over to it; a port looks for itself.
    async fn use_it(&self) {
        if self.purpose == Purpose::Client {
            self.client.show(&self.store.current());
            if let Err(error) = self.client.follow().await {
                tracing::debug!(%error, "no connection with the new certificate yet");
            }
        }
    }

    /// Waits until there is something to ask for. None: there is another certificate than was held.
    async fn due(&self, held: &mut Option<Held>) -> Option<Wish> {
        loop {
            if self.take_other(held) {
                self.use_it().await;
                return None;
            }
            let now = clock::now().wall;
            let wish = (self.wish)();
            let wait = match (wish, held.as_ref()) {
                (Some(wish), None) => return Some(wish),
                (Some(wish), Some(h)) if now >= h.due || !wish.is_met_by(&h.certificate) => return Some(wish),
                (Some(_), Some(h)) => h.due.since(now).min(LOOK),
                (None, _) => SOON,
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes what others put in the place of what was held.
    fn take_other(&self, held: &mut Option<Held>) -> bool {
        let Ok(Some(found)) = self.store.load() else { return false };
        let other = held.as_ref().is_none_or(|h| h.certificate != found);
        if other {
            *held = Some(Held::new(found, Wall::default()));
        }
        other
    }

    async fn is_other(&self, held: Option<&Held>, wish: &Wish) {
        loop {
            tokio::time::sleep(LOOK).await;
            let found = self.store.load().ok().flatten();
            let other = found.is_some_and(|f| held.is_none_or(|h| h.certificate != f));
            if other || (self.wish)().is_some_and(|w| w != *wish) {
                return;
            }
        }
    }

    async fn renew(&self, held: Option<&Held>, wish: &Wish) -> Result<Certificate, RenewError> {
        let good = held.is_some_and(|h| !h.certificate.has_ended(clock::now().wall));
        let client = match &self.bootstrap {
            Some(bootstrap) if !good => Client::open(bootstrap)?,
            _ => self.client.clone(),
        };
        // Whoever has none yet may have asked before.
        let key = if good { KeyPair::generate()? } else { self.store.temporary_key()? };
        let answered = certify(&client, wish, &key, !good, self.patience).await;
        if matches!(answered, Err(RequestError::Refused { .. } | RequestError::Foreign { .. })) {
            self.store.forget_temporary_key();
        }
        let certificate = self.store.update(&answered?, &key.serialize_pem(), clock::now().wall)?;
        self.store.forget_temporary_key();
        Ok(certificate)
    }

    fn tell(&self, error: &RenewError, held: Option<&Held>, wait: Duration, said: &mut String) {
        let why = error.to_string();
        if *said == why {
            return;
        }
        let word = self.purpose.word();
        let (now, wait) = (clock::now().wall, wait.as_secs());
        match held {
            None => tracing::warn!(error = %why, "there is no {word} certificate yet; trying again in {wait} s"),
            Some(h) if h.certificate.has_ended(now) => {
                let place = self.store.current();
                tracing::error!(error = %why, since = %h.certificate.until.rfc3339(), file = %place.display(),
                    "the {word} certificate has expired and no other can be had; trying again in {wait} s");
            }
            Some(_) => tracing::warn!(error = %why, "the {word} certificate cannot be renewed yet; trying again in {wait} s"),
        }
        *said = why;
    }
}

/// Follows the files of a certificate that others replace.
pub async fn follow(client: Client) {
    loop {
        tokio::time::sleep(LOOK).await;
        if client.is_known_by_file()
            && let Err(error) = client.follow().await
        {
            tracing::debug!(%error, "no connection with another certificate yet");
        }
    }
}
