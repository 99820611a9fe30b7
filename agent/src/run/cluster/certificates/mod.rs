//! The certificates of this node: the first one, by a bootstrap kubeconfig, and every one after it.
//!
//! Owns the directory of certificates (`--cert-dir`) and the kubeconfig that is written for a node that joins. When to
//! ask and for what is decided in `crate::cluster::certificate`. While there is no client certificate, nobody is asked
//! anything with it; what runs on the node runs on. Tests: in each file, `tests/tests/process_certificates.rs`.

mod figures;
mod keeper;
mod request;
mod store;

pub use figures::Figures;

use crate::cluster::bootstrap;
use crate::cluster::certificate::{Purpose, Wish};
use crate::cluster::kubeconfig::{Kubeconfig, Place};
use crate::run::client::{self, Client, ClientError};
use crate::run::clock;
use keeper::{Held, Keeper};
use serde_json::Value;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use store::Store;

/// How long a request waits for an answer before it is told that there is none.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// How a node comes to its certificates.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--bootstrap-kubeconfig`: by whose credentials the first one is asked for.
    pub bootstrap: Option<PathBuf>,
    /// `--cert-dir`
    pub directory: PathBuf,
    /// `rotateCertificates`
    pub rotate: bool,
    /// `serverTLSBootstrap`
    pub serving: bool,
    pub patience: Duration,
}

impl Options {
    /// As a kubelet has it by default.
    pub fn new(directory: PathBuf) -> Options {
        Options { bootstrap: None, directory, rotate: false, serving: false, patience: PATIENCE }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("{}: {}", path.display(), without_number(source))]
    File { path: PathBuf, source: std::io::Error },
    #[error("{}: {why}", path.display())]
    Wrong { path: PathBuf, why: String },
    #[error("a key cannot be made: {0}")]
    Key(#[from] rcgen::Error),
    #[error("kubeconfig {} is of no use ({why}), and neither is the bootstrap one: {source}", path.display())]
    Bootstrap { path: PathBuf, why: String, source: ClientError },
}

/// `Not a directory`, without the number of the error that Rust adds.
fn without_number(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Whether the kubeconfig leads to a client certificate that is good now. The error says why not.
fn is_usable(kubeconfig: &Path) -> Result<(), String> {
    let read = client::read(kubeconfig).map_err(|e| match e {
        ClientError::Unreadable { source, .. } => without_number(&source),
        e => e.to_string(),
    })?;
    let (chain, key) = read.login.certificate.as_ref().ok_or("it has no client certificate")?;
    let bytes = |place: &Place, what| client::bytes(place, what).map_err(|e| e.to_string());
    bootstrap::usable(&bytes(chain, "client certificate")?, &bytes(key, "client key")?, clock::now().wall)
}

/// Before anything reads the kubeconfig: one of a node that joins, or whose certificate has ended, is written from the
/// bootstrap kubeconfig. What is wrong with the files ends the start, as it does with a kubelet.
pub fn prepare(o: &Options, kubeconfig: &Path) -> Result<(), CertificateError> {
    let Some(from) = &o.bootstrap else { return Ok(()) };
    let Err(why) = is_usable(kubeconfig) else { return Ok(()) };
    let path = kubeconfig.to_owned();
    let bootstrap = client::read(from).map_err(|source| CertificateError::Bootstrap { path, why: why.clone(), source })?;
    let store = Store::open(&o.directory, Purpose::Client)?;
    if found(&store).is_none_or(|c| c.has_ended(clock::now().wall)) {
        // A directory that nothing can be written to is told now, not when a certificate was issued in vain.
        store.temporary_key()?;
    }
    let whole = |path: &Path| std::path::absolute(path).map_err(|source| CertificateError::File { path: path.to_owned(), source });
    let authority = match &bootstrap.authority {
        Some(Place::File(file)) => Some(Place::File(whole(file)?)),
        other => other.clone(),
    };
    let written = bootstrap::kubeconfig(&Kubeconfig { authority, ..bootstrap }, &whole(&store.current())?);
    let text = crate::manifest::edit::yaml(&written);
    let text = text.map_err(|e| CertificateError::Wrong { path: kubeconfig.to_owned(), why: e.to_string() })?;
    if let Some(parent) = kubeconfig.parent().filter(|p| !p.as_os_str().is_empty()) {
        store::make_directory(parent)?;
    }
    store::write(kubeconfig, &text)?;
    tracing::info!(
        kubeconfig = %kubeconfig.display(), why,
        "this node needs a client certificate; it is asked for by the bootstrap kubeconfig {}", from.display()
    );
    Ok(())
}

/// Keeps the certificates of a node from now on. `client` is the node's own, and waits where there is no certificate
/// yet; `there` is the node as the API server has it.
pub fn keep(
    o: &Options,
    client: &Client,
    config: &client::Config,
    node: &str,
    there: Rc<RefCell<Value>>,
) -> Result<Rc<Figures>, CertificateError> {
    let figures = Rc::new(Figures::default());
    tokio::task::spawn_local(keeper::follow(client.clone()));
    let joins = o.bootstrap.is_some() && is_usable(&config.kubeconfig).is_err();
    if o.rotate || joins {
        let store = Store::open(&o.directory, Purpose::Client)?;
        let held = held(&store, &config.kubeconfig, client);
        if joins {
            client.hold();
        }
        let wish = Wish::client(node);
        let keeper = Keeper {
            store,
            purpose: Purpose::Client,
            wish: Box::new(move || Some(wish.clone())),
            client: client.clone(),
            bootstrap: o.bootstrap.clone().map(|kubeconfig| client::Config { kubeconfig, ..config.clone() }),
            patience: o.patience,
            once: !o.rotate,
            figures: figures.clone(),
        };
        tokio::task::spawn_local(keeper.run(held));
    }
    if o.serving {
        let store = Store::open(&o.directory, Purpose::Serving)?;
        let held = found(&store).map(|c| Held::new(c, crate::time::Wall::default()));
        let node = node.to_owned();
        let keeper = Keeper {
            store,
            purpose: Purpose::Serving,
            wish: Box::new(move || Wish::serving(&node, &there.borrow()["status"]["addresses"])),
            client: client.clone(),
            bootstrap: None,
            patience: o.patience,
            once: false,
            figures: figures.clone(),
        };
        tokio::task::spawn_local(keeper.run(held));
    }
    Ok(figures)
}

/// What the store has; one that cannot be read is as good as none.
fn found(store: &Store) -> Option<crate::cluster::certificate::Certificate> {
    store.load().unwrap_or_else(|error| {
        tracing::warn!(%error, "the certificate that was kept cannot be used");
        None
    })
}

/// The client certificate to begin with: the store's, else the kubeconfig's own. One that is written in the kubeconfig
/// itself, as kubeadm does it for the first node of a cluster, is kept in the store, and replaced at once.
fn held(store: &Store, kubeconfig: &Path, client: &Client) -> Option<Held> {
    let now = clock::now().wall;
    let kept = found(store);
    if let Some(c) = kept.as_ref().filter(|c| !c.has_ended(now)) {
        client.show(&store.current());
        return Some(Held::new(c.clone(), crate::time::Wall::default()));
    }
    let (chain, key) = client::read(kubeconfig).ok()?.login.certificate?;
    let text = |place: &Place| client::bytes(place, "client certificate").ok().and_then(|b| String::from_utf8(b).ok());
    let (pair, inline) = ((text(&chain)?, text(&key)?), matches!(chain, Place::Inline(_)));
    if let Err(why) = bootstrap::usable(pair.0.as_bytes(), pair.1.as_bytes(), now) {
        tracing::warn!(kubeconfig = %kubeconfig.display(), why, "there is no good client certificate");
        return kept.map(Held::at_once);
    }
    let certificate = crate::cluster::certificate::read(pair.0.as_bytes()).ok()?;
    if !inline {
        return Some(Held::new(certificate, crate::time::Wall::default()));
    }
    match store.update(&pair.0, &pair.1, now) {
        Ok(_) => client.show(&store.current()),
        Err(error) => tracing::warn!(%error, "the certificate of the kubeconfig is not kept"),
    }
    Some(Held::at_once(certificate))
}
