//! Who the client says it is: headers for each request, a certificate for each connection.
//!
//! A token's file is read again every minute, as client-go does; what a program prints is kept until it expires or is
//! refused.

use super::ClientError;
use super::trust::{self, Own};
use crate::cluster::kubeconfig::{Exec, Kubeconfig, Login, Place};
use crate::run::clock;
use crate::time::Wall;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::json;
use std::cell::RefCell;
use std::path::Path;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// How often a token's file is read.
const REREAD: Duration = Duration::from_secs(60);
/// How long a program may take.
const PLUGIN: Duration = Duration::from_secs(60);

/// What a program printed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Printed {
    token: String,
    client_certificate_data: String,
    client_key_data: String,
    expiration_timestamp: Option<Wall>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ExecCredential {
    api_version: String,
    status: Printed,
}

pub struct Credentials {
    login: RefCell<Rc<Login>>,
    /// For programs that want to know the cluster.
    cluster: serde_json::Value,
    token: RefCell<Option<(Rc<str>, Instant)>>,
    printed: RefCell<Option<Rc<Printed>>>,
    running: tokio::sync::Mutex<()>,
}

impl Credentials {
    pub fn new(k: &Kubeconfig) -> Credentials {
        let mut cluster = json!({"server": k.server.url(), "insecure-skip-tls-verify": k.insecure, "tls-server-name": k.server_name});
        if let Some(Place::Inline(pem)) = &k.authority {
            cluster["certificate-authority-data"] = STANDARD.encode(pem).into();
        }
        let (token, printed) = (RefCell::default(), RefCell::default());
        Credentials { login: RefCell::new(Rc::new(k.login.clone())), cluster, token, printed, running: tokio::sync::Mutex::new(()) }
    }

    fn login(&self) -> Rc<Login> {
        self.login.borrow().clone()
    }

    /// From now on there is this file with a certificate and its key, and nothing else.
    pub fn show(&self, file: &Path) {
        let file = Place::File(file.to_owned());
        self.login.replace(Rc::new(Login { certificate: Some((file.clone(), file)), ..Login::default() }));
    }

    /// The server refused them. True: asking again may help.
    pub fn renew(&self) -> bool {
        let file = matches!(self.login().token, Some(Place::File(_))) && self.token.take().is_some();
        self.printed.take().is_some() || file
    }

    pub fn are_files(&self) -> bool {
        matches!(self.login().certificate, Some((Place::File(_), _)))
    }

    /// What a new connection shows.
    pub async fn certificate(&self) -> Result<Option<Own>, ClientError> {
        if let Some((chain, key)) = &self.login().certificate {
            return Ok(Some((trust::bytes(chain, "client certificate")?, trust::bytes(key, "client key")?)));
        }
        let Some(printed) = self.printed().await? else { return Ok(None) };
        let own = (printed.client_certificate_data.clone().into_bytes(), printed.client_key_data.clone().into_bytes());
        Ok(Some(own).filter(|(chain, _)| !chain.is_empty()))
    }

    /// Adds what says who is asking.
    pub async fn sign(&self, headers: &mut HeaderMap) -> Result<(), ClientError> {
        let value = |text: String| {
            let mut v = HeaderValue::from_str(&text).map_err(|e| ClientError::Material { what: "credentials", why: e.to_string() })?;
            v.set_sensitive(true);
            Ok::<_, ClientError>(v)
        };
        let login = self.login();
        if let Some(token) = self.token(&login).await? {
            headers.insert(AUTHORIZATION, value(format!("Bearer {token}"))?);
        } else if let Some((user, password)) = &login.basic {
            headers.insert(AUTHORIZATION, value(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))?);
        }
        for (name, text) in &login.impersonate {
            headers.append(HeaderName::from_static(name), value(text.clone())?);
        }
        Ok(())
    }

    async fn token(&self, login: &Login) -> Result<Option<Rc<str>>, ClientError> {
        match &login.token {
            Some(Place::Inline(token)) => Ok(Some(String::from_utf8_lossy(token).trim().into())),
            Some(file) => self.token_of(file).map(Some),
            None => Ok(self.printed().await?.filter(|p| !p.token.is_empty()).map(|p| p.token.as_str().into())),
        }
    }

    fn token_of(&self, file: &Place) -> Result<Rc<str>, ClientError> {
        let known = self.token.borrow().clone();
        if let Some((token, at)) = &known
            && at.elapsed() < REREAD
        {
            return Ok(token.clone());
        }
        let token: Rc<str> = match (trust::bytes(file, "token"), known) {
            (Ok(bytes), _) => String::from_utf8_lossy(&bytes).trim().into(),
            // What was good a minute ago is better than nothing.
            (Err(_), Some((token, _))) => token,
            (Err(e), None) => return Err(e),
        };
        *self.token.borrow_mut() = Some((token.clone(), Instant::now()));
        Ok(token)
    }

    async fn printed(&self) -> Result<Option<Rc<Printed>>, ClientError> {
        let login = self.login();
        let Some(exec) = &login.exec else { return Ok(None) };
        let _one = self.running.lock().await;
        let known = self.printed.borrow().clone();
        if let Some(known) = known.filter(|p| p.expiration_timestamp.is_none_or(|at| clock::now().wall < at)) {
            return Ok(Some(known));
        }
        let printed = Rc::new(run(exec, &self.cluster).await?);
        *self.printed.borrow_mut() = Some(printed.clone());
        Ok(Some(printed))
    }
}

async fn run(exec: &Exec, cluster: &serde_json::Value) -> Result<Printed, ClientError> {
    let failed = |why: String| ClientError::Plugin { command: exec.command.display().to_string(), why };
    let mut spec = json!({"interactive": false});
    if exec.provide_cluster_info {
        spec["cluster"] = cluster.clone();
    }
    let info = json!({"apiVersion": exec.api_version, "kind": "ExecCredential", "spec": spec});
    let mut command = tokio::process::Command::new(&exec.command);
    command.args(&exec.args).envs(exec.env.iter().map(|(k, v)| (k, v))).env("KUBERNETES_EXEC_INFO", info.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output =
        tokio::time::timeout(PLUGIN, command.output()).await.map_err(|_| failed(format!("no answer within {} s", PLUGIN.as_secs())))?;
    let output = output.map_err(|e| {
        let hint = if e.kind() == std::io::ErrorKind::NotFound { exec.install_hint.as_str() } else { "" };
        failed(format!("{e} {hint}").trim().to_owned())
    })?;
    if !output.status.success() {
        return Err(failed(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())));
    }
    let read: ExecCredential = crate::typed::read_text(&output.stdout).map_err(|e| failed(e.to_string()))?;
    if read.api_version != exec.api_version {
        return Err(failed(format!("it printed apiVersion {:?} and was asked for {:?}", read.api_version, exec.api_version)));
    }
    let p = read.status;
    if p.token.is_empty() && p.client_certificate_data.is_empty() {
        return Err(failed("it printed neither a token nor a certificate".into()));
    }
    if p.client_certificate_data.is_empty() != p.client_key_data.is_empty() {
        return Err(failed("a certificate and its key go together".into()));
    }
    Ok(p)
}
