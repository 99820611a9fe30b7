//! What configures the API's port: certificates, tokens, roles.

use super::auth::Credentials;
use super::pki::{Identity, Pki, PkiError};
use crate::api::access::{MASTERS, Roles, User};
use crate::api::{Failure, Query};
use base64::Engine as _;
use rustls::ServerConfig;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Who signs tokens here, as tokens say it.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Who gets everything without a group being named.
const ADMIN: &str = "kubernetes-admin";

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("{path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: {message}", path = path.display())]
    Wrong { path: PathBuf, message: String },
    #[error("cannot serve the API at {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
}

pub struct ApiConfig {
    pub credentials: Credentials,
    pub issuer: ClientIssuer,
    pub tls: Arc<ServerConfig>,
}

fn text(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

/// Makes or reads what the port needs.
pub fn open(state_dir: &Path, address: SocketAddr, tokens: Option<&Path>) -> Result<ApiConfig, ConfigError> {
    let pki = Pki::open(&state_dir.join("pki"))?;
    let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "longshore"].map(str::to_owned);
    let mut addresses = vec!["127.0.0.1".parse().expect("an address"), "::1".parse().expect("an address")];
    if !address.ip().is_unspecified() {
        addresses.push(address.ip());
    } else {
        addresses.extend(crate::run::host_addresses::host_ips());
    }
    addresses.dedup();
    let own: Identity = pki.server(&names, &addresses)?;
    let tls = pki.tls(&own)?;
    let credentials = credentials(&pki, tokens)?;
    let issuer = ClientIssuer { pki: Rc::new(pki), address };
    Ok(ApiConfig { credentials, issuer, tls })
}

/// Tokens of a file, and of service accounts.
pub fn credentials(pki: &Pki, tokens: Option<&Path>) -> Result<Credentials, ConfigError> {
    let mut credentials = match tokens {
        Some(path) => Credentials::with_tokens(read_tokens(path)?),
        None => Credentials::default(),
    };
    credentials.signer = Some(Rc::new(pki.signer(ISSUER)?));
    Ok(credentials)
}

/// Makes kubeconfigs for this node's port.
#[derive(Clone)]
pub struct ClientIssuer {
    pki: Rc<Pki>,
    address: SocketAddr,
}

impl ClientIssuer {
    pub fn pki(&self) -> Rc<Pki> {
        self.pki.clone()
    }

    /// Everything that a client needs, the key among it.
    pub fn kubeconfig(&self, query: &Query) -> Result<String, Failure> {
        let user = query.get("user").unwrap_or(ADMIN);
        let mut groups = query.all("group");
        if groups.is_empty() && user == ADMIN {
            groups.push(MASTERS.into());
        }
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        let days = query.number("days")?.unwrap_or(365).clamp(1, 3650);
        let life = Duration::from_secs(days * 24 * 3600);
        let identity = self.pki.client(user, &groups, life).map_err(|e| Failure::internal(e.to_string()))?;
        let listening = if self.address.ip().is_unspecified() {
            let local = if self.address.is_ipv4() { "127.0.0.1" } else { "::1" };
            SocketAddr::new(local.parse().expect("an address"), self.address.port())
        } else {
            self.address
        };
        let server = query.get("server").map_or_else(|| format!("https://{listening}"), str::to_owned);
        let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "longshore", "preferences": {},
            "clusters": [{"name": "longshore", "cluster": {"server": server, "certificate-authority-data": base64(self.pki.certificate())}}],
            "contexts": [{"name": "longshore", "context": {"cluster": "longshore", "user": user}}],
            "users": [{"name": user, "user": {"client-certificate-data": base64(&identity.certificate), "client-key-data": base64(&identity.key)}}],
        });
        crate::manifest::edit::yaml(&config).map_err(|e| Failure::internal(e.to_string()))
    }
}

/// The role file.
pub fn roles(path: &Path) -> Result<Roles, ConfigError> {
    let wrong = |message: String| ConfigError::Wrong { path: path.to_owned(), message };
    let value = crate::manifest::text::one(&text(path)?).map_err(wrong)?;
    let roles: Roles = crate::typed::read(&value)
        .map_err(|e| wrong(format!("{e}; it has admin, viewer and node, each a list of user:NAME and group:NAME")))?;
    roles.check().map_err(wrong)?;
    Ok(roles)
}

/// Lines of `token,user,uid[,"group,group"]`, as an API server's token file has them.
fn read_tokens(path: &Path) -> Result<Vec<(String, User)>, ConfigError> {
    let text = text(path)?;
    let mut out = Vec::new();
    for (n, line) in text.lines().enumerate().map(|(n, l)| (n + 1, l.trim())).filter(|(_, l)| !l.is_empty() && !l.starts_with('#')) {
        let mut parts = line.splitn(4, ',').map(str::trim);
        let (token, user, uid, groups) = (parts.next(), parts.next(), parts.next(), parts.next().unwrap_or_default());
        let (Some(token), Some(user)) = (token.filter(|t| !t.is_empty()), user.filter(|u| !u.is_empty())) else {
            return Err(ConfigError::Wrong { path: path.to_owned(), message: format!("line {n}: write token,user,uid,\"group,group\"") });
        };
        let groups: Vec<&str> = groups.trim_matches('"').split(',').map(str::trim).filter(|g| !g.is_empty()).collect();
        let mut user = User::new(user, &groups);
        user.uid = uid.unwrap_or_default().to_owned();
        out.push((token.to_owned(), user));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_files_are_read_and_wrong_lines_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, "# people\nabc,eve,7,\"ops,dev\"\n\ndef,bob\n").unwrap();
        let read = read_tokens(&path).unwrap();
        assert_eq!((read[0].1.name.as_str(), read[0].1.is_in("dev"), read[1].1.name.as_str()), ("eve", true, "bob"));
        std::fs::write(&path, "abc\n").unwrap();
        assert!(read_tokens(&path).unwrap_err().to_string().ends_with("line 1: write token,user,uid,\"group,group\""));
    }

    #[test]
    fn a_wrong_role_file_says_what_it_should_hold() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roles.yaml");
        std::fs::write(&path, "admin: [user:eve]\nviewer: ['group:ops']\n").unwrap();
        assert_eq!(roles(&path).unwrap().viewer, ["group:ops"]);
        std::fs::write(&path, "owner: [user:eve]\n").unwrap();
        assert!(roles(&path).unwrap_err().to_string().contains("it has admin, viewer and node"));
    }
}
