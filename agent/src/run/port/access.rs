//! Who asks at the port, and whether he may: certificates, tokens, nobody; and what others said of them a while ago.
//!
//! Owns what is remembered. Tests: `agent/tests/port`.

use super::reviews::{ReviewError, Reviews, TokenAnswer};
use super::tls::Authorities;
use crate::api::Failure;
use crate::api::access::{Attributes, User};
use crate::port::config::Mode;
use crate::port::{Cache, Found, PortConfig, credential};
use crate::run::api::{Peer, auth};
use crate::run::clock;
use hyper::Request;
use hyper::header::{AUTHORIZATION, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use sha2::{Digest as _, Sha256};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Answers remembered of each sort. Guesses push out guesses, never what is known of those who may.
const REMEMBERED: usize = 2048;
/// Questions to others at once, so that a flood of guesses at tokens does not become one of questions.
const QUESTIONS: usize = 16;
/// How long one may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

type Key = [u8; 32];

pub struct Access {
    node: String,
    config: PortConfig,
    reviews: Option<Rc<dyn Reviews>>,
    authorities: Option<Authorities>,
    known: RefCell<Cache<Key, User>>,
    unknown: RefCell<Cache<Key, ()>>,
    allowed: RefCell<Cache<Key, ()>>,
    denied: RefCell<Cache<Key, ()>>,
    questions: Semaphore,
}

impl Access {
    pub fn new(node: &str, config: &PortConfig, reviews: Option<Rc<dyn Reviews>>, authorities: Option<Authorities>) -> Access {
        Access {
            node: node.into(),
            config: config.clone(),
            reviews,
            authorities,
            known: RefCell::new(Cache::new(REMEMBERED)),
            unknown: RefCell::new(Cache::new(REMEMBERED)),
            allowed: RefCell::new(Cache::new(REMEMBERED)),
            denied: RefCell::new(Cache::new(REMEMBERED)),
            questions: Semaphore::new(QUESTIONS),
        }
    }

    /// Who asks. A token is taken out of the request: nothing behind this needs it. Credentials that are wrong are
    /// refused even where none are needed.
    pub async fn who<B>(&self, peer: &Peer, request: &mut Request<B>) -> Result<User, Failure> {
        let mut wrong = false;
        if let Some(authorities) = &self.authorities
            && !peer.certificates.is_empty()
        {
            // Looked at with every request: a connection may outlive the certificate that opened it, and its authority.
            match authorities.user(&peer.certificates) {
                Ok(user) => return Ok(user),
                Err(error) => {
                    tracing::debug!(%error, "a client's certificate was refused");
                    wrong = true;
                }
            }
        }
        match take_token(request)? {
            Some(token) => self.by_token(token).await,
            None if self.config.authentication.anonymous.enabled && !wrong && !request.headers().contains_key(AUTHORIZATION) => {
                Ok(User::anonymous())
            }
            None => Err(auth::unauthorized()),
        }
    }

    async fn by_token(&self, token: String) -> Result<User, Failure> {
        let webhook = &self.config.authentication.webhook;
        let reviews = self.reviews.as_ref().filter(|_| webhook.enabled).ok_or_else(auth::unauthorized)?;
        let key: Key = Sha256::digest(&token).into();
        let now = clock::mono();
        if let Some(user) = self.known.borrow().get(&key, now) {
            return Ok(user.clone());
        }
        if self.unknown.borrow().get(&key, now).is_some() {
            return Err(auth::unauthorized());
        }
        let found = self.ask(|| reviews.token(token, Vec::new())).await.map_err(|error| {
            tracing::warn!(%error, "whose token a client shows could not be found out");
            auth::unauthorized()
        })?;
        let (now, life) = (clock::mono(), webhook.cache_ttl.0);
        let TokenAnswer { user: Some(mut user), .. } = found else {
            self.unknown.borrow_mut().put(key, (), now, life);
            return Err(auth::unauthorized());
        };
        if !user.is_in(crate::api::access::AUTHENTICATED) {
            user.groups.push(crate::api::access::AUTHENTICATED.into());
        }
        self.known.borrow_mut().put(key, user.clone(), now, life);
        Ok(user)
    }

    /// Whether somebody may: any one of what the path needs is enough.
    pub async fn may(&self, user: &User, found: &Found) -> Result<(), Failure> {
        if self.config.authorization.mode == Mode::AlwaysAllow {
            return Ok(());
        }
        let mut failed = false;
        for attributes in found.attributes(&self.node) {
            match self.allowed(user, attributes).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(user = user.name, %error, "what a client may do could not be found out");
                    failed = true;
                }
            }
        }
        let told = found.forbidden(&user.name);
        match failed {
            true => Err(Failure::internal(told.replacen("Forbidden", "Authorization error", 1))),
            false => Err(Failure::new(403, "Forbidden", told)),
        }
    }

    async fn allowed(&self, user: &User, a: Attributes) -> Result<bool, ReviewError> {
        let reviews = self.reviews.as_ref().ok_or_else(|| ReviewError("nobody is there to be asked".into()))?;
        let who = serde_json::json!([user.name, user.uid, user.groups, user.extra, a.verb, a.sub]);
        let key: Key = Sha256::digest(who.to_string()).into();
        let now = clock::mono();
        if self.allowed.borrow().get(&key, now).is_some() {
            return Ok(true);
        }
        if self.denied.borrow().get(&key, now).is_some() {
            return Ok(false);
        }
        let answer = self.ask(|| reviews.access(user.clone(), a)).await?;
        let (now, webhook) = (clock::mono(), &self.config.authorization.webhook);
        let yes = answer.allowed && !answer.denied;
        match yes {
            true => self.allowed.borrow_mut().put(key, (), now, webhook.cache_authorized_ttl.0),
            false => self.denied.borrow_mut().put(key, (), now, webhook.cache_unauthorized_ttl.0),
        }
        Ok(yes)
    }

    /// One question among a bounded number.
    async fn ask<T, F: Future<Output = Result<T, ReviewError>>>(&self, question: impl FnOnce() -> F) -> Result<T, ReviewError> {
        let asked = async {
            let _turn = self.questions.acquire().await.map_err(|e| ReviewError(e.to_string()))?;
            question().await
        };
        let late = |_| ReviewError(format!("no answer within {ANSWER_WITHIN:?}"));
        tokio::time::timeout(ANSWER_WITHIN, asked).await.map_err(late)?
    }
}

fn take_token<B>(request: &mut Request<B>) -> Result<Option<String>, Failure> {
    let headers = request.headers_mut();
    let given = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(credential::bearer).map(str::to_owned);
    if let Some(token) = given {
        headers.remove(AUTHORIZATION);
        return Ok(Some(token));
    }
    let offered: Vec<&str> = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok()).collect();
    match credential::from_protocols(&offered.join(",")) {
        None => Ok(None),
        Some(Err(_)) => Err(auth::unauthorized()),
        Some(Ok((token, rest))) => {
            let rest = HeaderValue::from_str(&rest).map_err(|_| auth::unauthorized())?;
            headers.insert(SEC_WEBSOCKET_PROTOCOL, rest);
            Ok(Some(token))
        }
    }
}
