//! An image registry on a host of the lab, with or without a password.
//!
//! It is Debian's docker-registry, the real protocol with the real error answers; images get into it
//! by our own push.

use super::client::{Request, Response, http};
use super::image::Archive;
use super::image::oci::{CONFIG, LAYER, MANIFEST, digest};
use super::net::{Outside, output};
use super::process::Running;
use super::wait::wait_for;
use super::{Containerd, Home};
use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PORT: u16 = 5000;
const LIMIT: Duration = Duration::from_secs(30);
/// The registry's configuration keeps the user's name and password apart; so do image pull secrets.
const REALM: &str = "longshore-lab";

/// Who may pull and push.
#[derive(Clone, Debug)]
pub struct Login {
    pub user: String,
    pub password: String,
}

/// A running registry; killed when dropped.
pub struct Registry {
    host: SocketAddr,
    login: Option<Login>,
    running: Running,
}

impl Registry {
    /// Starts one on `host`, port 5000, and waits until it answers.
    pub fn start(home: &Home, host: &Outside, login: Option<Login>) -> Result<Registry> {
        let address = SocketAddr::new(host.v4.into(), PORT);
        let base = home.directory(&format!("registry-{}", host.namespace.name()))?;
        let file = configuration(&base, address, login.as_ref())?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file);
        let log = base.join("registry.log");
        let cgroup = home.cgroup() + "/registry";
        let running = Running::start(command, &log, Some(&host.namespace), &cgroup)?;
        let mut registry = Registry { host: address, login, running };
        let namespace = &host.namespace;
        wait_for("the registry answers", LIMIT, || -> Result<_> {
            if let Some(status) = registry.running.ended() {
                let said = registry.running.output();
                return Ok(Some(Err(anyhow!("it ended: {status}: {said}"))));
            }
            let request = Request { path: "/v2/", ..Request::default() };
            let response = namespace.enter(|| http(address, &request, LIMIT))??;
            // Without credentials, "who are you?" is a sign of life too.
            Ok(matches!(response.status, 200 | 401).then_some(Ok(())))
        })
        .flatten()?;
        Ok(registry)
    }

    /// `address:port`, the first part of its images' names.
    pub fn host(&self) -> String {
        self.host.to_string()
    }

    /// What it has logged: one line per request among others.
    pub fn log(&self) -> String {
        self.running.output()
    }

    /// Tells a containerd that this registry speaks plain HTTP.
    pub fn introduce(&self, containerd: &Containerd) -> Result<()> {
        let directory = containerd.registries().join(self.host());
        fs::create_dir_all(&directory)?;
        // containerd 1.6 takes the scheme from a host table only.
        let server = format!("http://{}", self.host);
        let hosts = format!("server = \"{server}\"\n[host.\"{server}\"]\ncapabilities = [\"pull\", \"resolve\"]\n");
        fs::write(directory.join("hosts.toml"), hosts).context("cannot write hosts.toml")
    }

    /// Pushes an image as `path:tag` from the registry's own host; returns its full name.
    pub fn push(&self, from: &Outside, archive: &Archive, path: &str, tag: &str) -> Result<String> {
        from.namespace.enter(|| {
            for (kind, blob) in [(CONFIG, &archive.config), (LAYER, &archive.layer)] {
                self.push_blob(path, blob).with_context(|| format!("cannot push the {kind} of {path}"))?;
            }
            let target = format!("/v2/{path}/manifests/{tag}");
            let response = self.send("PUT", &target, MANIFEST, &archive.manifest)?;
            expect(&response, 201).with_context(|| format!("cannot push the manifest of {path}"))?;
            Ok(format!("{}/{path}:{tag}", self.host))
        })?
    }

    fn push_blob(&self, path: &str, blob: &[u8]) -> Result<()> {
        let begun = self.send("POST", &format!("/v2/{path}/blobs/uploads/"), "text/plain", &[])?;
        expect(&begun, 202)?;
        let location = begun.header("location").context("no place to upload to")?;
        let location = location.strip_prefix(&format!("http://{}", self.host)).unwrap_or(location);
        let joint = if location.contains('?') { '&' } else { '?' };
        let target = format!("{location}{joint}digest={}", digest(blob));
        expect(&self.send("PUT", &target, "application/octet-stream", blob)?, 201)
    }

    fn send(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<Response> {
        let login = self.login.as_ref().map(|Login { user, password }| format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))));
        let mut headers = vec![("Content-Type", kind)];
        headers.extend(login.as_ref().map(|login| ("Authorization", login.as_str())));
        http(self.host, &Request { method, path, headers: &headers, body }, LIMIT)
    }
}

fn expect(response: &Response, status: u16) -> Result<()> {
    if response.status != status {
        bail!("the registry answered {}: {}", response.status, response.text());
    }
    Ok(())
}

fn configuration(base: &Path, address: SocketAddr, login: Option<&Login>) -> Result<PathBuf> {
    let storage = base.join("blobs");
    let mut text = format!(
        "version: 0.1
log: {{ level: info, fields: {{ service: registry }} }}
storage: {{ filesystem: {{ rootdirectory: {} }}, delete: {{ enabled: true }} }}
http: {{ addr: '{address}', secret: of-a-lab }}
",
        storage.display()
    );
    if let Some(Login { user, password }) = login {
        let mut command = Command::new("htpasswd");
        command.args(["-Bbn", user, password]);
        let file = base.join("htpasswd");
        fs::write(&file, output(command).context("htpasswd is in the package apache2-utils")?)?;
        text += &format!("auth: {{ htpasswd: {{ realm: {REALM}, path: {} }} }}\n", file.display());
    }
    let path = base.join("registry.yaml");
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
