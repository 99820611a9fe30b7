//! OCI image archives: blobs by digest, an index that names the image.

use super::tar::Tar;
use serde_json::json;
use sha2::{Digest, Sha256};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What an image says about how to run it.
#[derive(Default)]
pub struct Config<'a> {
    pub entrypoint: &'a [&'a str],
    pub command: &'a [&'a str],
    pub environment: &'a [&'a str],
    /// `uid:gid` or a name; empty is root.
    pub user: &'a str,
    pub working_directory: &'a str,
    /// `8080/tcp` and the like.
    pub ports: &'a [&'a str],
}

/// One image: a name and its blobs.
pub struct Archive {
    /// Full reference, `host/path:tag`.
    pub name: String,
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub layer: Vec<u8>,
}

/// `sha256:…` of a blob.
pub fn digest(blob: &[u8]) -> String {
    let hex: String = Sha256::digest(blob).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

impl Archive {
    /// An image of one uncompressed layer, for the architecture of this machine.
    pub fn new(name: &str, layer: Vec<u8>, config: &Config<'_>) -> Archive {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let path = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"];
        let environment: Vec<&str> = path.iter().chain(config.environment).copied().collect();
        let ports: serde_json::Map<_, _> = config.ports.iter().map(|port| ((*port).to_owned(), json!({}))).collect();
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Entrypoint": config.entrypoint,
                "Cmd": config.command,
                "Env": environment,
                "User": config.user,
                "WorkingDir": config.working_directory,
                "ExposedPorts": ports,
            },
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "digest": digest(&config), "size": config.len() },
            "layers": [{ "mediaType": LAYER, "digest": digest(&layer), "size": layer.len() }],
        });
        Archive { name: name.to_owned(), manifest: manifest.to_string().into_bytes(), config, layer }
    }

    /// The same image under another reference.
    pub fn named(&self, name: &str) -> Archive {
        let Archive { manifest, config, layer, .. } = self;
        Archive { name: name.to_owned(), manifest: manifest.clone(), config: config.clone(), layer: layer.clone() }
    }

    /// The archive as one file that `ctr images import` takes.
    pub fn to_tar(&self) -> Vec<u8> {
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let index = json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [{
                "mediaType": MANIFEST,
                "digest": digest(&self.manifest),
                "size": self.manifest.len(),
                "annotations": {
                    "io.containerd.image.name": self.name,
                    "org.opencontainers.image.ref.name": tag,
                },
            }],
        });
        let mut tar = Tar::default();
        tar.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
        tar.file("index.json", 0o644, index.to_string().as_bytes());
        tar.directory("blobs", 0o755);
        tar.directory("blobs/sha256", 0o755);
        for blob in [&self.manifest, &self.config, &self.layer] {
            let digest = digest(blob);
            let hex = digest.strip_prefix("sha256:").expect("made by `digest`");
            tar.file(&format!("blobs/sha256/{hex}"), 0o644, blob);
        }
        tar.finish()
    }
}
