//! A kubeconfig, settled: the one server, and as whom to speak to it.
//!
//! Owns what client-go reads of the file: which context counts, what overrides what, that paths are relative to the
//! file. All mistakes are told at once, with their fields. Must never read a file that it names: they change, and are
//! read when a connection is made. Tests: at the end of this file.

use crate::manifest::text;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Where something is: in the kubeconfig, or in a file of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Inline(Vec<u8>),
    File(PathBuf),
}

/// The server, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubeconfig {
    pub server: Server,
    /// Certificates (PEM) of those who may vouch for the server; None: those that the system trusts.
    pub authority: Option<Place>,
    /// Take any certificate of the server.
    pub insecure: bool,
    /// The name that the server's certificate must bear, where it is not the host.
    pub server_name: Option<String>,
    pub login: Login,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub tls: bool,
    /// Without brackets.
    pub host: String,
    pub port: u16,
    /// What stands before every path; empty, or `/a/b` without a slash at its end.
    pub prefix: String,
}

/// How to say who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// Certificate chain and key, in PEM.
    pub certificate: Option<(Place, Place)>,
    /// A file is read again and again.
    pub token: Option<Place>,
    /// User and password.
    pub basic: Option<(String, String)>,
    pub exec: Option<Exec>,
    /// Headers of impersonation.
    pub impersonate: Vec<(&'static str, String)>,
}

/// A program that prints credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    pub command: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub api_version: String,
    pub provide_cluster_info: bool,
    pub install_hint: String,
}

/// What is wrong with a kubeconfig, all of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kubeconfig {}: {}", path.display(), wrong.join("; "))]
pub struct KubeconfigError {
    pub path: PathBuf,
    pub wrong: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct File {
    clusters: Vec<NamedCluster>,
    contexts: Vec<NamedContext>,
    users: Vec<NamedUser>,
    current_context: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    certificate_authority: String,
    certificate_authority_data: String,
    insecure_skip_tls_verify: bool,
    tls_server_name: String,
    proxy_url: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: String,
    client_certificate_data: String,
    client_key: String,
    client_key_data: String,
    token: String,
    #[serde(rename = "tokenFile")]
    token_file: String,
    username: String,
    password: String,
    exec: Option<Plugin>,
    auth_provider: Value,
    #[serde(rename = "as")]
    impersonate: String,
    as_uid: String,
    as_groups: Vec<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Plugin {
    command: String,
    args: Vec<String>,
    env: Vec<Variable>,
    api_version: String,
    provide_cluster_info: bool,
    install_hint: String,
    interactive_mode: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Variable {
    name: String,
    value: String,
}

const EXEC_VERSIONS: [&str; 2] = ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"];

/// Reads the text of the file at `path`.
pub fn settle(path: &Path, content: &str) -> Result<Kubeconfig, KubeconfigError> {
    let error = |wrong: Vec<String>| KubeconfigError { path: path.to_owned(), wrong };
    let value = text::one(content).map_err(|e| error(vec![e]))?;
    let file: File = crate::typed::read(&value).map_err(|e| error(vec![e.to_string()]))?;
    let mut read = Reading { base: path.parent().unwrap_or(Path::new("")), wrong: Vec::new() };
    let context = read.named(&file.current_context, "current-context", "contexts", file.contexts.iter().map(|c| (&c.name, &c.context)));
    let field = |part: &str| format!("context {:?}: {part}", file.current_context);
    let context = context.cloned().unwrap_or_default();
    if !read.wrong.is_empty() {
        return Err(error(read.wrong));
    }
    let clusters = file.clusters.iter().map(|c| (&c.name, &c.cluster));
    let cluster = read.named(&context.cluster, &field("cluster"), "clusters", clusters).cloned();
    let users = file.users.iter().map(|u| (&u.name, &u.user));
    // A context without a user speaks as nobody.
    let user = if context.user.is_empty() { None } else { read.named(&context.user, &field("user"), "users", users).cloned() };
    let cluster = cluster.map(|c| (read.cluster(&context.cluster, &c), c));
    let login = user.map(|u| read.login(&context.user, u)).unwrap_or_default();
    match cluster {
        Some((Some(server), c)) if read.wrong.is_empty() => Ok(Kubeconfig {
            server,
            authority: read.place(&c.certificate_authority_data, &c.certificate_authority, "certificate-authority-data"),
            insecure: c.insecure_skip_tls_verify,
            server_name: Some(c.tls_server_name).filter(|n| !n.is_empty()),
            login,
        })
        .and_then(|k| if read.wrong.is_empty() { Ok(k) } else { Err(error(std::mem::take(&mut read.wrong))) }),
        _ => Err(error(read.wrong)),
    }
}

struct Reading<'a> {
    base: &'a Path,
    wrong: Vec<String>,
}

impl Reading<'_> {
    fn named<'t, T>(&mut self, name: &str, field: &str, list: &str, mut all: impl Iterator<Item = (&'t String, &'t T)>) -> Option<&'t T> {
        if name.is_empty() {
            self.wrong.push(format!("{field} is empty"));
            return None;
        }
        let found = all.find(|(n, _)| *n == name).map(|(_, t)| t);
        if found.is_none() {
            self.wrong.push(format!("{field} names {name:?}, which is not in {list}"));
        }
        found
    }

    fn cluster(&mut self, name: &str, c: &Cluster) -> Option<Server> {
        let mut refuse = |what: &str| self.wrong.push(format!("cluster {name:?}: {what}"));
        if !c.proxy_url.is_empty() {
            refuse("proxy-url is not supported; name a server that can be reached directly");
        }
        if c.insecure_skip_tls_verify && !(c.certificate_authority.is_empty() && c.certificate_authority_data.is_empty()) {
            refuse("insecure-skip-tls-verify and a certificate authority exclude each other");
        }
        if c.server.is_empty() {
            refuse("server is empty");
            return None;
        }
        let server = url(&c.server);
        if server.is_none() {
            refuse(&format!("server {:?} is no address such as https://10.0.0.1:6443", c.server));
        }
        server
    }

    fn login(&mut self, name: &str, u: User) -> Login {
        let subject = |what: &str| format!("user {name:?}: {what}");
        let certificate = self.place(&u.client_certificate_data, &u.client_certificate, &subject("client-certificate-data"));
        let key = self.place(&u.client_key_data, &u.client_key, &subject("client-key-data"));
        let certificate = match (certificate, key) {
            (Some(c), Some(k)) => Some((c, k)),
            (None, None) => None,
            (Some(_), None) => {
                self.wrong.push(subject("client-key or client-key-data must go with the client certificate"));
                None
            }
            (None, Some(_)) => {
                self.wrong.push(subject("client-certificate or client-certificate-data must go with the client key"));
                None
            }
        };
        if !u.auth_provider.is_null() {
            self.wrong.push(subject("auth-provider is no longer part of Kubernetes; use exec"));
        }
        let token = match (u.token_file.as_str(), u.token.as_str()) {
            ("", "") => None,
            ("", token) => Some(Place::Inline(token.as_bytes().to_vec())),
            (file, _) => Some(Place::File(self.base.join(file))),
        };
        if token.is_some() && !u.username.is_empty() {
            self.wrong.push(subject("more than one way of authentication: token and username"));
        }
        let exec = u.exec.and_then(|p| self.exec(name, p));
        let groups = u.as_groups.into_iter().map(|g| ("impersonate-group", g));
        let who = [("impersonate-user", u.impersonate), ("impersonate-uid", u.as_uid)];
        Login {
            certificate,
            token,
            basic: Some((u.username, u.password)).filter(|(name, _)| !name.is_empty()),
            exec,
            impersonate: who.into_iter().filter(|(_, v)| !v.is_empty()).chain(groups).collect(),
        }
    }

    fn exec(&mut self, name: &str, p: Plugin) -> Option<Exec> {
        let mut refuse = |what: String| self.wrong.push(format!("user {name:?}: exec.{what}"));
        if p.command.is_empty() {
            refuse("command is empty".into());
        }
        if !EXEC_VERSIONS.contains(&p.api_version.as_str()) {
            refuse(format!("apiVersion {:?} is not one of {}", p.api_version, EXEC_VERSIONS.join(", ")));
        }
        if p.interactive_mode == "Always" {
            refuse("interactiveMode Always cannot be met by a daemon".into());
        }
        // A name without a slash is looked up in PATH.
        let command = if p.command.contains('/') { self.base.join(&p.command) } else { PathBuf::from(&p.command) };
        let env = p.env.into_iter().map(|v| (v.name, v.value)).collect();
        let (api_version, install_hint) = (p.api_version, p.install_hint);
        Some(Exec { command, args: p.args, env, api_version, provide_cluster_info: p.provide_cluster_info, install_hint })
    }

    /// What is inline wins.
    fn place(&mut self, data: &str, file: &str, field: &str) -> Option<Place> {
        if !data.is_empty() {
            let bare: String = data.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            return match STANDARD.decode(bare) {
                Ok(bytes) => Some(Place::Inline(bytes)),
                Err(e) => {
                    self.wrong.push(format!("{field} is not base64: {e}"));
                    None
                }
            };
        }
        Some(file).filter(|f| !f.is_empty()).map(|f| Place::File(self.base.join(f)))
    }
}

/// `https://host:port/prefix`; a bare `host:port` is plain, as client-go has it.
fn url(text: &str) -> Option<Server> {
    let (tls, rest) = match text.split_once("://") {
        Some(("https", rest)) => (true, rest),
        Some(("http", rest)) => (false, rest),
        Some(_) => return None,
        None => (false, text),
    };
    let (authority, prefix) = rest.find('/').map_or((rest, ""), |n| rest.split_at(n));
    let default = if tls { 443 } else { 80 };
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (host, after) = v6.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, after.strip_prefix(':').map_or(if after.is_empty() { Some(default) } else { None }, |p| p.parse().ok())?)
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (authority, default),
        },
    };
    let odd = |c: char| c.is_whitespace() || matches!(c, '@' | '?' | '#' | ':');
    if host.is_empty() || port == 0 || (host.contains(odd) && !authority.starts_with('[')) || prefix.contains(['?', '#']) {
        return None;
    }
    Some(Server { tls, host: host.to_owned(), port, prefix: prefix.trim_end_matches('/').to_owned() })
}

impl Server {
    /// `host:port`, as a URL has it.
    pub fn authority(&self) -> String {
        let (host, port) = (&self.host, self.port);
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    pub fn url(&self) -> String {
        format!("{}://{}{}", if self.tls { "https" } else { "http" }, self.authority(), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Kubeconfig, Vec<String>> {
        settle(Path::new("/etc/kubernetes/kubelet.conf"), text).map_err(|e| e.wrong)
    }

    const KUBEADM: &str = "
apiVersion: v1
kind: Config
clusters:
- name: default-cluster
  cluster: {certificate-authority-data: Q0E=, server: 'https://[fd00::1]:6443/'}
contexts:
- name: default-context
  context: {cluster: default-cluster, namespace: default, user: default-auth}
current-context: default-context
users:
- name: default-auth
  user: {client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem, client-key: pki/key.pem}
";

    #[test]
    fn what_kubeadm_writes_is_read() {
        let k = read(KUBEADM).unwrap();
        assert_eq!((k.server.host.as_str(), k.server.port, k.server.tls), ("fd00::1", 6443, true));
        assert_eq!((k.server.url().as_str(), k.server.prefix.as_str()), ("https://[fd00::1]:6443", ""));
        assert_eq!(k.authority, Some(Place::Inline(b"CA".to_vec())));
        let file = |p: &str| Place::File(p.into());
        let certificate = (file("/var/lib/kubelet/pki/kubelet-client-current.pem"), file("/etc/kubernetes/pki/key.pem"));
        assert_eq!(k.login.certificate, Some(certificate), "relative to the file");
    }

    #[test]
    fn a_token_file_wins_over_a_token_and_a_plugin_is_found_beside_the_file() {
        let k = read(
            "{current-context: a, contexts: [{name: a, context: {cluster: c, user: u}}], clusters: [{name: c, cluster: {server: 'http://h:8080/x/'}}],
            users: [{name: u, user: {token: t, tokenFile: tok, as: root, as-groups: [g],
              exec: {command: ./login, args: [x], env: [{name: A, value: b}], apiVersion: client.authentication.k8s.io/v1}}}]}",
        )
        .unwrap();
        assert_eq!(k.login.token, Some(Place::File("/etc/kubernetes/tok".into())));
        assert_eq!(k.login.exec.as_ref().unwrap().command, Path::new("/etc/kubernetes/./login"));
        assert_eq!(k.login.impersonate, [("impersonate-user", "root".to_owned()), ("impersonate-group", "g".to_owned())]);
        assert_eq!((k.server.url().as_str(), k.authority), ("http://h:8080/x", None));
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let wrong = read(
            "{current-context: a, contexts: [{name: a, context: {cluster: c, user: u}}],
            clusters: [{name: c, cluster: {server: 'ftp://x', proxy-url: 'http://p', insecure-skip-tls-verify: true, certificate-authority: /ca}}],
            users: [{name: u, user: {client-certificate-data: '*', client-key: k, auth-provider: {name: gcp}, token: t, username: me, exec: {apiVersion: v0}}}]}",
        )
        .unwrap_err();
        for part in [
            "ftp://x",
            "proxy-url",
            "exclude each other",
            "not base64",
            "client-certificate",
            "auth-provider",
            "more than one",
            "exec.command",
            "exec.apiVersion",
        ] {
            assert!(wrong.iter().any(|w| w.contains(part)), "{part}: {wrong:?}");
        }
    }

    #[test]
    fn names_that_lead_nowhere_are_told_by_their_fields() {
        assert_eq!(read("{current-context: ''}").unwrap_err(), ["current-context is empty"]);
        assert_eq!(read("{current-context: x}").unwrap_err(), ["current-context names \"x\", which is not in contexts"]);
        let wrong = read("{current-context: a, contexts: [{name: a, context: {cluster: c, user: u}}]}").unwrap_err();
        assert_eq!(
            wrong,
            ["context \"a\": cluster names \"c\", which is not in clusters", "context \"a\": user names \"u\", which is not in users"]
        );
        assert!(read("clusters: {}").unwrap_err()[0].contains("clusters: invalid type: map"), "of the wrong type");
        assert!(read("{").is_err() && read("").is_err());
    }

    #[test]
    fn addresses_of_servers_are_read_strictly() {
        for bad in [
            "https://",
            "https://h:0",
            "https://h:x",
            "https://a b",
            "https://u@h",
            "https://[1.2.3.4]",
            "https://[::1]x",
            "https://h:1:2",
            "h?x",
        ] {
            assert_eq!(url(bad), None, "{bad}");
        }
        assert_eq!(url("https://h").map(|s| s.port), Some(443));
        assert_eq!(url("h:6443").map(|s| (s.tls, s.port)), Some((false, 6443)));
    }
}
