//! Tokens of service accounts that pods show in their volumes: asked for before the pod starts, and again when most of
//! their time is over (specification of the kubelet, 9.3).

use crate::cluster::pace::Backoff;
use crate::node::Event;
use crate::pod::{Pod, PodUid, TokenWish};
use crate::run::client::{Ask, Client, ClientError, JSON, chance};
use crate::run::clock;
use crate::time::Wall;
use hyper::Method;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// A token is renewed when a fifth of its time is left, and once a day.
const LEFT: f64 = 0.2;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Nodes do not all ask at once.
const JITTER: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(1);
const RETRY_AT_MOST: Duration = Duration::from_secs(60);

struct Kept {
    task: tokio::task::JoinHandle<()>,
    known: Rc<Cell<bool>>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub struct Tokens {
    client: Client,
    to: mpsc::Sender<Event>,
    news: Rc<Notify>,
    kept: RefCell<BTreeMap<(PodUid, TokenWish), Kept>>,
}

impl Tokens {
    pub fn new(client: Client, to: mpsc::Sender<Event>, news: Rc<Notify>) -> Tokens {
        Tokens { client, to, news, kept: RefCell::default() }
    }

    /// Keeps the tokens that this pod shows.
    pub fn need(&self, uid: &PodUid, pod: &Pod) {
        let wishes: BTreeSet<TokenWish> = pod.spec.volumes.iter().flat_map(|v| v.tokens()).collect();
        let mut kept = self.kept.borrow_mut();
        for wish in wishes {
            kept.entry((uid.clone(), wish.clone())).or_insert_with(|| {
                let known = Rc::new(Cell::new(false));
                let one = One { client: self.client.clone(), to: self.to.clone(), news: self.news.clone(), known: known.clone() };
                let account = match pod.spec.service_account_name.as_str() {
                    "" => "default",
                    name => name,
                };
                let path = format!("/api/v1/namespaces/{}/serviceaccounts/{account}/token", pod.metadata.namespace);
                let body = request(&pod.metadata.name, uid, &wish);
                Kept { task: tokio::task::spawn_local(one.keep(uid.clone(), wish, path, body)), known }
            });
        }
    }

    pub fn release(&self, uid: &PodUid) {
        self.kept.borrow_mut().retain(|(pod, _), _| pod != uid);
    }

    /// Whether the pod's tokens are there, or it is known why not.
    pub fn are_known(&self, uid: &PodUid) -> bool {
        self.kept.borrow().iter().filter(|((pod, _), _)| pod == uid).all(|(_, k)| k.known.get())
    }
}

fn request(name: &str, uid: &PodUid, wish: &TokenWish) -> Value {
    let mut spec = json!({"expirationSeconds": wish.seconds,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid.as_str()}});
    if !wish.audience.is_empty() {
        spec["audiences"] = json!([wish.audience]);
    }
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})
}

/// How long a token that was given at `given` and ends at `ends` is shown. `chance` is between 0 and 1.
fn good_for(given: Wall, ends: Wall, chance: f64) -> Duration {
    let life = ends.since(given);
    let most = life.mul_f64(1.0 - LEFT).min(DAY);
    most.saturating_sub(JITTER.mul_f64(chance)).max(most.mul_f64(0.5))
}

struct One {
    client: Client,
    to: mpsc::Sender<Event>,
    news: Rc<Notify>,
    known: Rc<Cell<bool>>,
}

impl One {
    async fn keep(self, uid: PodUid, wish: TokenWish, path: String, body: Value) {
        let mut backoff = Backoff::new(RETRY, RETRY_AT_MOST);
        let mut has_one = false;
        loop {
            let wait = match self.get(&path, &body).await {
                Ok((token, good)) => {
                    backoff.reset();
                    has_one = true;
                    self.tell(&uid, &wish, Ok(token)).await;
                    good
                }
                Err(error) => {
                    tracing::warn!(pod = %uid, %error, "no token for a pod; trying again");
                    // One that is still good is kept.
                    if !has_one {
                        self.tell(&uid, &wish, Err(error.to_string().into())).await;
                    }
                    backoff.next(chance())
                }
            };
            tokio::time::sleep(wait.max(RETRY)).await;
        }
    }

    async fn tell(&self, uid: &PodUid, wish: &TokenWish, token: Result<Arc<str>, Arc<str>>) {
        // The node may be ending.
        let _ = self.to.send(Event::Token { uid: uid.clone(), wish: wish.clone(), token }).await;
        if !self.known.replace(true) {
            self.news.notify_one();
        }
    }

    async fn get(&self, path: &str, body: &Value) -> Result<(Arc<str>, Duration), ClientError> {
        let answer = self.client.ask(Ask::send(Method::POST, path, JSON, body)).await?;
        let status = &answer["status"];
        let ends = status["expirationTimestamp"].as_str().and_then(Wall::parse_rfc3339);
        match (status["token"].as_str().filter(|t| !t.is_empty()), ends) {
            (Some(token), Some(ends)) => Ok((token.into(), good_for(clock::now().wall, ends, chance()))),
            _ => Err(ClientError::Material { what: "the server's answer to a token request", why: "it has no token or no end".into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_with_a_fifth_of_its_time_left_and_once_a_day() {
        let at = Wall::from_seconds;
        assert_eq!(good_for(at(0), at(1000), 0.0).as_secs(), 800);
        assert_eq!(good_for(at(0), at(1000), 1.0).as_secs(), 790);
        assert_eq!(good_for(at(0), at(365 * 86_400), 0.0), DAY);
        // A clock that is wrong makes no storm of requests.
        assert_eq!(good_for(at(10), at(20), 1.0).as_secs(), 4);
    }
}
