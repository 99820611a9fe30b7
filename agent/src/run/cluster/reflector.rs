//! Keeps a consumer up to date with the objects of one kind, for as long as it lives.
//!
//! What to ask and what an answer means is decided by `cluster::reflect`; this asks, and waits when there is nothing
//! to be had.

use crate::api::Query;
use crate::cluster::pace::{Backoff, stretched};
use crate::cluster::reflect::{Ask, Reflection, Told, Trouble};
use crate::run::client::{self, Client, ClientError, chance};
use std::time::Duration;
use tokio::time::Instant;

/// How long a watch is asked to last, to twice as much.
const WATCH: Duration = Duration::from_secs(300);
/// Objects on a page.
const PAGE: u32 = 500;
/// Between requests that the server refused.
const WAIT: Duration = Duration::from_millis(800);
const WAIT_AT_MOST: Duration = Duration::from_secs(30);
/// A watch that ends sooner than this was of no use.
const USEFUL: Duration = Duration::from_secs(1);

/// Which objects.
#[derive(Clone, Debug)]
pub struct What {
    /// `/api/v1/namespaces/a/configmaps`
    pub path: String,
    /// Selectors.
    pub query: Query,
}

impl What {
    pub fn all(path: &str) -> What {
        What { path: path.to_owned(), query: Query::default() }
    }

    pub fn select(mut self, by: &str, selector: &str) -> What {
        self.query.push(by, selector);
        self
    }

    /// The one of this name.
    pub fn named(path: &str, name: &str) -> What {
        What::all(path).select("fieldSelector", &format!("metadata.name={name}"))
    }
}

/// Whoever wants to know of objects.
pub trait Consumer {
    async fn told(&mut self, told: Told);
}

/// Tells the consumer of the objects, until it is dropped.
pub async fn follow(client: Client, what: What, mut consumer: impl Consumer) {
    let mut reflection = Reflection::default();
    let mut backoff = Backoff::new(WAIT, WAIT_AT_MOST);
    let mut in_trouble = false;
    loop {
        let began = Instant::now();
        let asked = reflection.ask();
        let mut outcome = round(&client, &what, &asked, &mut reflection, &mut consumer).await;
        if let Err(Fault::Client(ClientError::Refused { failure, .. })) = &outcome
            && reflection.refused(&asked, failure)
        {
            outcome = Err(Fault::Told(Trouble::NoStreams));
        }
        let wait = match &outcome {
            Ok(()) if began.elapsed() >= USEFUL || matches!(asked, Ask::List { .. }) => {
                backoff.reset();
                in_trouble = false;
                Duration::ZERO
            }
            Ok(()) => backoff.next(chance()),
            // The connection has a pace of its own.
            Err(Fault::Client(e)) if e.is_outage() => Duration::ZERO,
            Err(Fault::Told(Trouble::Expired(_) | Trouble::NoStreams)) => Duration::ZERO,
            Err(_) if began.elapsed() >= WAIT_AT_MOST => {
                backoff.reset();
                Duration::ZERO
            }
            Err(_) => backoff.next(chance()),
        };
        if let Err(fault) = outcome {
            // An outage says the same for all; it is told where the node tells of itself.
            let usual = match &fault {
                Fault::Client(e) => e.is_outage(),
                Fault::Told(t) => matches!(t, Trouble::NoStreams | Trouble::Expired(_)),
            };
            if usual {
                tracing::debug!(what = %what.path, %fault, "asking anew");
            } else if !in_trouble {
                tracing::warn!(what = %what.path, selector = %what.query.suffix(), %fault, "objects cannot be watched; trying again");
                in_trouble = true;
            }
        }
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Told(#[from] Trouble),
}

/// One request, to its end.
async fn round(client: &Client, what: &What, asked: &Ask, r: &mut Reflection, consumer: &mut impl Consumer) -> Result<(), Fault> {
    let mut query = what.query.clone();
    let mut out = Vec::new();
    if let Ask::List { from } = asked {
        query.push("limit", PAGE);
        if let Some(from) = from {
            query.push("continue", from);
        }
        let list = client.ask(client::Ask::get(&format!("{}{}", what.path, query.suffix()))).await?;
        r.page(list, &mut out)?;
        for told in out {
            consumer.told(told).await;
        }
        return Ok(());
    }
    query.push("watch", "true");
    query.push("allowWatchBookmarks", "true");
    query.push("timeoutSeconds", stretched(WATCH, 1.0, chance()).as_secs());
    match asked {
        Ask::Watch { since } => query.push("resourceVersion", since),
        _ => {
            query.push("sendInitialEvents", "true");
            query.push("resourceVersionMatch", "NotOlderThan");
        }
    }
    let mut frames = client.watch(&format!("{}{}", what.path, query.suffix())).await?;
    while let Some((kind, object)) = frames.next().await? {
        r.event(&kind, object, &mut out)?;
        for told in out.drain(..) {
            consumer.told(told).await;
        }
    }
    Ok(())
}
